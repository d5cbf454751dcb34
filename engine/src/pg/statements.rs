//! Statements that pgBackRest does not have. The server of another host accepts them word by word.

/// Disables timeouts that would end the session or a query: the session is idle while files are copied, and if it ends,
/// the server ends the backup. Timeouts that the server's version does not know are not found. The option `db-timeout`
/// limits queries.
pub const NO_TIMEOUTS: &str = "select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings where name in \
                           ('idle_session_timeout', 'idle_in_transaction_session_timeout', 'statement_timeout', \
                           'lock_timeout', 'transaction_timeout')";

/// Finds the other sessions that make a backup. Every role may see these columns.
pub(crate) const OTHER_BACKUPS: &str = "select 'process ' || pid || ', client ' || \
    coalesce(pg_catalog.host(client_addr), 'local') || ', since ' || backend_start, \
    pg_catalog.floor(extract(epoch from backend_start))::int8::text from pg_catalog.pg_stat_activity where \
    application_name like 'pgBackRest [backup%' and pid <> pg_catalog.pg_backend_pid() order by pid";

/// Finds the file that the server could not archive, if that was its last attempt.
pub(crate) const ARCHIVE_FAILING: &str = "select case when last_failed_time > coalesce(last_archived_time, '-infinity') \
    then last_failed_wal end::text from pg_catalog.pg_stat_archiver";

/// How to count the segments that wait to be archived.
pub(crate) struct ArchiveQueue {
    /// Whether the role may ask.
    pub(crate) may_ask: &'static str,
    /// Their number, and for how many seconds the oldest has waited.
    pub(crate) ask: &'static str,
}

/// From PostgreSQL 12 on.
pub(crate) const ARCHIVE_QUEUE_12: ArchiveQueue = ArchiveQueue {
    may_ask: "select pg_catalog.has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'execute')",
    ask: "select count(*)::int4, coalesce(extract(epoch from pg_catalog.now() - min(modification)), 0)::int4 \
          from pg_catalog.pg_ls_archive_statusdir() where name like '%.ready'",
};

const MAY_LIST: &str = "select pg_catalog.has_function_privilege('pg_catalog.pg_ls_dir(text)', 'execute')";

/// For PostgreSQL 10 and 11.
pub(crate) const ARCHIVE_QUEUE_10: ArchiveQueue = ArchiveQueue {
    may_ask: MAY_LIST,
    ask: "select count(*)::int4, 0 from pg_catalog.pg_ls_dir('pg_wal/archive_status') as name where name like '%.ready'",
};

/// For older versions.
pub(crate) const ARCHIVE_QUEUE_9: ArchiveQueue = ArchiveQueue {
    may_ask: MAY_LIST,
    ask: "select count(*)::int4, 0 from pg_catalog.pg_ls_dir('pg_xlog/archive_status') as name where name like '%.ready'",
};

/// All of them.
pub(crate) const ALL: [&str; 8] = [
    NO_TIMEOUTS,
    OTHER_BACKUPS,
    ARCHIVE_FAILING,
    ARCHIVE_QUEUE_12.may_ask,
    ARCHIVE_QUEUE_12.ask,
    MAY_LIST,
    ARCHIVE_QUEUE_10.ask,
    ARCHIVE_QUEUE_9.ask,
];
