//! The statements that a client may send to PostgreSQL.
//!
//! The session of a server can have the rights of a superuser, and a client needs them for a few statements only: to
//! read settings, to start and stop a backup, to switch WAL, to look at recovery. pgBackRest words them a little
//! differently from one version to the next, so what counts is the vocabulary: a statement may use the words of these
//! statements, plain texts and numbers, and no other function, table or setting.
//!
//! Source: pgBackRest 2.60.0 `src/db/db.c`, and [`crate::pg::session`].

use crate::pg::session::NO_TIMEOUTS;

/// The words of the statements, in lower case, sorted.
const WORDS: [&str; 70] = [
    "and",
    "application_name",
    "as",
    "backend_start",
    "backuplabel_file",
    "bigint",
    "bool",
    "by",
    "checkpoint",
    "checkpoint_location",
    "checkpoint_lsn",
    "checkpointlsn",
    "client_addr",
    "client_encoding",
    "clock_timestamp",
    "coalesce",
    "current_timestamp",
    "datlastsysoid",
    "datname",
    "epoch",
    "extract",
    "false",
    "floor",
    "from",
    "host",
    "int4",
    "int8",
    "labelfile",
    "like",
    "lsn",
    "max_parallel_workers_per_gather",
    "name",
    "oid",
    "order",
    "pg_backend_pid",
    "pg_backup_start",
    "pg_backup_stop",
    "pg_catalog",
    "pg_control_checkpoint",
    "pg_create_restore_point",
    "pg_current_wal_insert_lsn",
    "pg_current_xlog_insert_location",
    "pg_database",
    "pg_is_in_recovery",
    "pg_last_wal_replay_lsn",
    "pg_last_xlog_replay_location",
    "pg_settings",
    "pg_start_backup",
    "pg_stat_activity",
    "pg_stop_backup",
    "pg_switch_wal",
    "pg_switch_xlog",
    "pg_tablespace",
    "pg_walfile_name",
    "pg_xlogfile_name",
    "pid",
    "replaylsn",
    "replayprogress",
    "search_path",
    "select",
    "set",
    "setting",
    "spcmapfile",
    "spcname",
    "tablespacemap_file",
    "targetreached",
    "text",
    "true",
    "wal_segment_name",
    "where",
];

/// Characters outside of words and texts.
const SIGNS: &str = " \n().,:=|<>*";

/// Returns whether a client may send the statement.
pub(super) fn is_for_clients(sql: &str) -> bool {
    if sql == NO_TIMEOUTS {
        return true;
    }
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        rest = if first == '\'' {
            // A quote within a text is doubled, which looks like two texts. A backslash means something in some settings
            match rest[1..].split_once('\'') {
                Some((text, rest)) if !text.contains('\\') => rest,
                _ => return false,
            }
        } else if first.is_ascii_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, rest) = rest.split_at(end);
            let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
            // A text right behind a word may be of another kind, such as `e'...'`
            if !is_number
                && (WORDS.binary_search(&word.to_ascii_lowercase().as_str()).is_err() || rest.starts_with('\''))
            {
                return false;
            }
            rest
        } else if SIGNS.contains(first) {
            &rest[first.len_utf8()..]
        } else {
            return false;
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted() {
        assert!(WORDS.is_sorted());
    }

    #[test]
    fn statement_of_pgbackrest_is_allowed() {
        // As captured from 2.60.0, and as the program contains them
        for sql in [
            "select pg_catalog.pg_is_in_recovery()",
            "set search_path = 'pg_catalog'",
            "set client_encoding = 'UTF8'",
            "set application_name = 'pgBackRest [backup]'",
            "set max_parallel_workers_per_gather = 0",
            "select (select setting from pg_catalog.pg_settings where name = 'server_version_num')::int4, \
             (select setting from pg_catalog.pg_settings where name = 'archive_command')::text",
            "select lsn::text as lsn,\n       pg_catalog.pg_walfile_name(lsn)::text as wal_segment_name\n  from \
             pg_catalog.pg_backup_start('pgBackRest backup started at ' || current_timestamp::text, true) as lsn",
            "select lsn::text as lsn,\n       pg_catalog.pg_walfile_name(lsn)::text as wal_segment_name,\n       \
             labelfile::text as backuplabel_file,\n       spcmapfile::text as tablespacemap_file\n  from \
             pg_catalog.pg_stop_backup(false, false)",
            "select pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())::text",
            "select oid::oid, datname::text, (select oid::oid from pg_catalog.pg_database where datname = 'template0') \
             as datlastsysoid from pg_catalog.pg_database",
            "select oid::oid, spcname::text from pg_catalog.pg_tablespace",
            "select (extract(epoch from clock_timestamp()) * 1000)::bigint",
            "select pg_catalog.pg_create_restore_point('pgBackRest Archive Check')::text",
            "select pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())::text",
            "select replayLsn::text,\n       (replayLsn > '0/3000060')::bool as targetReached,\n       \
             (replayLsn > '0/2000000')::bool as replayProgress\n  from pg_catalog.pg_last_wal_replay_lsn() as replayLsn",
            "checkpoint",
            "select (checkpoint_lsn >= '0/3000060')::bool as targetReached,\n       checkpoint_lsn::text as \
             checkpointLsn\n  from pg_catalog.pg_control_checkpoint()",
            NO_TIMEOUTS,
        ] {
            assert!(is_for_clients(sql), "{sql}");
        }
    }

    #[test]
    fn statement_that_does_something_else_is_not_allowed() {
        for sql in [
            "select pg_catalog.pg_read_file('/etc/passwd')",
            "select pg_catalog.set_config(name, 'x', false) from pg_catalog.pg_settings where name in ('archive_command')",
            "select 1; drop table orders",
            "select rolpassword from pg_catalog.pg_authid",
            "set archive_library = 'x'",
            "select \"pg_read_file\"('x')",
            "select e'\\047 || pg_read_file'",
            "select u&'d\\0061t'",
            "select $$x$$",
            "select 'open",
            "select 1 -- from",
            "select /* */ 1",
            "select pg_catalog.pg_is_in_recovery() é",
        ] {
            assert!(!is_for_clients(sql), "{sql}");
        }
    }
}
