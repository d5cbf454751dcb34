//! A command's session with a cluster. The queries are pgBackRest's (`src/db/db.c`).
//!
//! Everything is sent as a simple query, so that texts come back as the server prints them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use repo_format::pg::control::PgControl;
use repo_format::pg::version::PgVersion;
use repo_format::wal_name::{Lsn, TimelineId, WalSegment};

use super::connection::{Expect, PgConnection, Row, one_row, one_value};
use super::host::PgHost;
pub use super::statements::NO_TIMEOUTS;
use super::statements::{ARCHIVE_FAILING, ARCHIVE_QUEUE_9, ARCHIVE_QUEUE_10, ARCHIVE_QUEUE_12, OTHER_BACKUPS};
use crate::work::backoff::Backoff;
use crate::{CancelToken, Error, ErrorCode, Result};

mod begin;
mod catalog;
mod wal_progress;

use self::catalog::{DATABASES, TABLESPACES, database_rows, tablespace_rows};
pub use self::catalog::{DatabaseRow, TablespaceRow};
pub use self::wal_progress::WalProgress;

const TIME_MS: &str = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
/// What a query for one value is to return.
const VALUE: Expect = Expect::OneRow(1);
/// How often the recovery state is checked during a backup.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The result of starting a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStart {
    /// Where recovery has to begin.
    pub lsn: Lsn,
    /// `lsn` as the server wrote it, for the manifest.
    pub lsn_text: String,
    /// The segment that holds `lsn`.
    pub wal_segment: WalSegment,
    /// The segment that was current before the start and must arrive in the archive; only with the archive check.
    pub wal_segment_check: Option<WalSegment>,
}

/// The result of stopping a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStop {
    /// Where the backup becomes consistent.
    pub lsn: Lsn,
    /// `lsn` as the server wrote it, for the manifest.
    pub lsn_text: String,
    /// The segment that holds `lsn`.
    pub wal_segment: WalSegment,
    /// The content of the file `backup_label`.
    pub backup_label: String,
    /// The content of the file `tablespace_map`, if it is needed.
    pub tablespace_map: Option<String>,
}

/// Another session that makes a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherBackup {
    /// A description for messages.
    pub text: String,
    /// When it began, in seconds since 1970 by the clock of the server, if the role may see that.
    pub since: Option<i64>,
}

/// An open session and what was learned from it.
pub struct PgSession {
    client: Box<dyn PgConnection>,
    host: Arc<dyn PgHost>,
    version: PgVersion,
    data_directory: String,
    archive_mode: String,
    archive_command: String,
    checkpoint_timeout: Duration,
    standby: bool,
    control: PgControl,
    ping_last: Option<Instant>,
    cancel: CancelToken,
}

impl PgSession {
    /// Connects, configures the session, reads the settings that the commands need and reads `pg_control`.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`], [`ErrorCode::DbQuery`], and those of [`PgHost::control`].
    pub fn connect(host: &Arc<dyn PgHost>, cancel: &CancelToken) -> Result<Self> {
        let mut client = host.connect(cancel)?;
        let begin::Beginning { settings, is_standby } = begin::begin(&mut *client, host.command())?;
        let [Some(version), Some(data_directory), Some(archive_mode), Some(archive_command), Some(checkpoint)] =
            settings
        else {
            return Err(Error::new(ErrorCode::DbQuery, "unable to select some rows from pg_settings")
                .hint("is the backup running as the postgres user?")
                .hint("is the pg_read_all_settings role assigned for PostgreSQL >= 10?"));
        };
        Ok(PgSession {
            client,
            version: PgVersion::from_server_version_num(number(&version)?),
            data_directory,
            archive_mode,
            archive_command,
            checkpoint_timeout: Duration::from_secs(number(&checkpoint)?),
            standby: is_standby,
            control: host.control()?,
            host: Arc::clone(host),
            ping_last: None,
            cancel: cancel.clone(),
        })
    }

    /// The host of the cluster.
    pub fn host(&self) -> &Arc<dyn PgHost> {
        &self.host
    }

    /// The server's version.
    pub fn version(&self) -> PgVersion {
        self.version
    }

    /// The data directory as the server tells it.
    pub fn data_directory(&self) -> &str {
        &self.data_directory
    }

    /// The setting `archive_mode`.
    pub fn archive_mode(&self) -> &str {
        &self.archive_mode
    }

    /// The setting `archive_command`.
    pub fn archive_command(&self) -> &str {
        &self.archive_command
    }

    /// Returns whether the cluster was in recovery when the session was opened.
    pub fn is_standby(&self) -> bool {
        self.standby
    }

    /// Returns the content of `pg_control` from when the session was opened, or after [`PgSession::replay_wait`].
    pub fn control(&self) -> &PgControl {
        &self.control
    }

    /// Returns the server's clock in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub fn time_ms(&mut self) -> Result<i64> {
        number(&self.client.value(TIME_MS)?)
    }

    /// Checks that the cluster did not change between primary and standby, at most every 30 seconds unless forced.
    ///
    /// # Errors
    /// [`ErrorCode::DbMismatch`] if a standby was promoted, [`ErrorCode::DbQuery`] if the session is lost.
    pub fn ping(&mut self, force: bool) -> Result<()> {
        if !force && self.ping_last.is_some_and(|last| last.elapsed() <= PING_INTERVAL) {
            return Ok(());
        }
        match (is_in_recovery(&mut *self.client)?, self.standby) {
            (false, true) => Err(Error::new(ErrorCode::DbMismatch, "standby is no longer in recovery")
                .hint("was the standby promoted during the backup?")),
            (true, false) => Err(Error::new(ErrorCode::Assert, "primary has switched to recovery")),
            _ => {
                self.ping_last = Some(Instant::now());
                Ok(())
            }
        }
    }

    /// Starts a non-exclusive backup. The session must stay open until [`PgSession::backup_stop`]. If it ends earlier,
    /// the server abandons the backup.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`]; [`ErrorCode::DbMismatch`] if `pg_control` does not show the backup's checkpoint or is on
    /// another timeline.
    pub fn backup_start(&mut self, start_fast: bool, archive_check: bool) -> Result<BackupStart> {
        let timeout = self.client.timeout();
        if !start_fast && timeout <= self.checkpoint_timeout {
            crate::warn!(
                "start-fast is disabled and db-timeout ({}s) is smaller than the PostgreSQL checkpoint_timeout ({}s) - \
                 timeout may occur before the backup starts",
                timeout.as_secs(),
                self.checkpoint_timeout.as_secs()
            );
        }
        let version = self.version;
        let file_name = version.wal_file_name_function();
        let wal_segment_check = if archive_check {
            let insert_lsn = version.current_wal_insert_lsn_function();
            let name = self.client.value(&format!("select pg_catalog.{file_name}(pg_catalog.{insert_lsn}())::text"))?;
            Some(name.parse::<WalSegment>()?)
        } else {
            None
        };

        let query = backup_start_query(version, start_fast);
        let [lsn, name] = self.client.row(&query)?;
        let lsn_text = required(lsn, &query)?;
        let (lsn, wal_segment): (Lsn, WalSegment) = (lsn_text.parse()?, required(name, &query)?.parse()?);

        // Read again, to verify that the data directory at pg-path is really the server's. The checkpoint may also be the
        // first one of a standby that was promoted, which ends the old timeline.
        self.control = self.host.control()?;
        let checkpoint = self.control.checkpoint;
        if checkpoint < lsn {
            let text = format!("current checkpoint '{checkpoint}' is less than backup start '{lsn}'");
            return Err(Error::new(ErrorCode::DbMismatch, text));
        }
        // A start shortly after another switch does not switch again, and then no segment would be archived to look for
        if wal_segment_check == Some(wal_segment) {
            self.wal_switch()?;
        }
        if wal_segment.timeline != self.control.timeline {
            return Err(Error::new(
                ErrorCode::DbMismatch,
                format!(
                    "WAL timeline {} does not match pg_control timeline {}",
                    wal_segment.timeline.0, self.control.timeline.0
                ),
            ));
        }
        Ok(BackupStart { lsn, lsn_text, wal_segment, wal_segment_check })
    }

    /// Stops the backup, and returns the server's clock after that, too, in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub fn backup_stop(&mut self) -> Result<(BackupStop, i64)> {
        let query = backup_stop_query(self.version);
        let [stopped, time] = two(self.client.queries(&[(&query, Expect::OneRow(4)), (TIME_MS, VALUE)])?)?;
        let [lsn, name, label, map] = one_row(stopped, &query)?;
        let lsn_text = required(lsn, &query)?;
        let stop = BackupStop {
            lsn: lsn_text.parse()?,
            lsn_text,
            wal_segment: required(name, &query)?.parse()?,
            backup_label: required(label, &query)?,
            tablespace_map: map.filter(|map| !map.trim().is_empty()),
        };
        Ok((stop, number(&one_value(time, TIME_MS)?)?))
    }

    /// Switches to a new WAL segment and returns the completed one, which the server archives next.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub fn wal_switch(&mut self) -> Result<WalSegment> {
        // The restore point is needed because a segment without new records is not switched
        let point = "select pg_catalog.pg_create_restore_point('pgBackRest Archive Check')::text";
        let (file_name, switch) = (self.version.wal_file_name_function(), self.version.switch_wal_function());
        let switch = format!("select pg_catalog.{file_name}(pg_catalog.{switch}())::text");
        let [pointed, switched] = two(self.client.queries(&[(point, VALUE), (&switch, VALUE)])?)?;
        one_value(pointed, point)?;
        one_value(switched, &switch)?.parse()
    }

    /// Returns where the next WAL record is inserted.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub(crate) fn insert_lsn(&mut self) -> Result<Lsn> {
        let function = self.version.current_wal_insert_lsn_function();
        self.client.value(&format!("select pg_catalog.{function}()::text"))?.parse()
    }

    /// Returns how many bytes of WAL the slowest standby has not replayed yet; `None` without a standby.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`], also if the role may not see it.
    pub(crate) fn replica_lag(&mut self) -> Result<Option<u64>> {
        let (now, lsn) = (self.version.current_wal_insert_lsn_function(), self.version.lsn_name());
        let wal = self.version.wal_name();
        let [lag, hidden] = self.client.row(&format!(
            "select max(pg_catalog.pg_{wal}_{lsn}_diff(pg_catalog.{now}(), replay_{lsn}))::int8, \
             count(case when state is null then 1 end)::int4 from pg_catalog.pg_stat_replication"
        ))?;
        if hidden.as_deref() != Some("0") {
            let error = Error::new(ErrorCode::DbQuery, "the role may not see the positions of standbys");
            return Err(error.hint("is the pg_monitor role assigned?"));
        }
        lag.map(|lag| number::<i64>(&lag).map(|lag| u64::try_from(lag).unwrap_or(0))).transpose()
    }

    /// Returns the other sessions that make a backup, with this program or pgBackRest.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub(crate) fn other_backups(&mut self) -> Result<Vec<OtherBackup>> {
        let rows = self.client.rows(OTHER_BACKUPS)?;
        rows.into_iter()
            .map(|[text, since]| {
                // The times of other roles' sessions may be hidden
                let text = text.unwrap_or_else(|| "of another role".to_owned());
                Ok(OtherBackup { text, since: since.map(|since| number(&since)).transpose()? })
            })
            .collect()
    }

    /// Returns the value of a setting; `None` if the server's version does not have it.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub(crate) fn setting(&mut self, name: &str) -> Result<Option<String>> {
        let query = format!("select setting::text from pg_catalog.pg_settings where name = '{name}'");
        let rows = self.client.rows(&query)?;
        Ok(rows.into_iter().next().and_then(|[value]| value))
    }

    /// Returns the file that the server could not archive, if that was its last attempt.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub(crate) fn archive_failing(&mut self) -> Result<Option<String>> {
        let [file] = self.client.row(ARCHIVE_FAILING)?;
        Ok(file)
    }

    /// Returns how many files wait to be archived, and for how many seconds the oldest has waited (0 if the server's
    /// version does not tell it); `None` if the role may not see them.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`] for another reason.
    pub(crate) fn archive_ready(&mut self) -> Result<Option<(i64, i64)>> {
        let queue = match self.version {
            version if version >= PgVersion::V12 => &ARCHIVE_QUEUE_12,
            version if version >= PgVersion::V10 => &ARCHIVE_QUEUE_10,
            _ => &ARCHIVE_QUEUE_9,
        };
        if self.client.value(queue.may_ask)? != "t" {
            return Ok(None);
        }
        let [count, age] = self.client.row(queue.ask)?;
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Some((number(count), number(age))))
    }

    /// The databases and tablespaces of the cluster.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub fn databases_and_tablespaces(&mut self) -> Result<(Vec<DatabaseRow>, Vec<TablespaceRow>)> {
        let queries = [(DATABASES, Expect::Rows(3)), (TABLESPACES, Expect::Rows(2))];
        let [databases, tablespaces] = two(self.client.queries(&queries)?)?;
        Ok((database_rows(databases)?, tablespace_rows(tablespaces)?))
    }

    /// The tablespaces of the cluster.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`].
    pub fn tablespaces(&mut self) -> Result<Vec<TablespaceRow>> {
        tablespace_rows(self.client.query(TABLESPACES, Expect::Rows(2))?)
    }

    /// Waits until this standby has replayed the primary's backup start and has a checkpoint after it.
    ///
    /// # Errors
    /// [`ErrorCode::DbMismatch`] if the standby does not follow that primary, [`ErrorCode::ArchiveTimeout`] if it makes
    /// no progress for `timeout`.
    pub fn replay_wait(&mut self, target: Lsn, timeline: TimelineId, timeout: Duration) -> Result<()> {
        if self.control.checkpoint > target {
            let text = format!("standby checkpoint '{}' is ahead of target '{target}'", self.control.checkpoint);
            return Err(Error::new(ErrorCode::DbMismatch, text));
        }
        self.replay_wait_lsn(target, timeout)?;
        self.client.exec("checkpoint")?;
        self.replay_wait_checkpoint(target, timeout)?;

        self.control = self.host.control()?;
        if self.control.timeline != timeline {
            let text = format!("standby is on timeline {} but expected {}", self.control.timeline.0, timeline.0);
            return Err(Error::new(ErrorCode::DbMismatch, text));
        }
        Ok(())
    }

    fn replay_wait_lsn(&mut self, target: Lsn, timeout: Duration) -> Result<()> {
        let function = format!("pg_catalog.{}()", self.version.last_wal_replay_lsn_function());
        let query = format!("select replayLsn::text from {function} as replayLsn");
        let mut pauses = Backoff::polling(timeout).start();
        let mut before: Option<Lsn> = None;
        loop {
            let [replayed] = self.client.row(&query)?;
            let Some(replayed) = replayed else {
                // Promoted since the session was opened
                let text = format!("unable to query replay lsn on the standby using '{function}'");
                return Err(Error::new(ErrorCode::ArchiveTimeout, text).hint("Is this a standby?"));
            };
            let replayed: Lsn = replayed.parse()?;
            if replayed > target {
                return Ok(());
            }
            // Slow is fine as long as it makes progress
            if before.is_some_and(|before| replayed > before) {
                pauses = Backoff::polling(timeout).start();
            }
            before = Some(replayed);
            if !pauses.wait(&self.cancel)? {
                let text = format!("timeout before standby replayed to {target} - only reached {replayed}");
                return Err(Error::new(ErrorCode::ArchiveTimeout, text)
                    .hint("is replication running and current on the standby?")
                    .hint("disable the 'backup-standby' option to backup directly from the primary."));
            }
        }
    }

    fn replay_wait_checkpoint(&mut self, target: Lsn, timeout: Duration) -> Result<()> {
        let query = format!(
            "select checkpoint_{}::text as checkpointLsn from pg_catalog.pg_control_checkpoint()",
            self.version.lsn_name()
        );
        let mut pauses = Backoff::polling(timeout).start();
        loop {
            let checkpoint: Lsn = self.client.value(&query)?.parse()?;
            if checkpoint >= target {
                return Ok(());
            }
            if !pauses.wait(&self.cancel)? {
                let text =
                    format!("timeout before standby checkpoint lsn reached {target} - only reached {checkpoint}");
                return Err(Error::new(ErrorCode::ArchiveTimeout, text));
            }
        }
    }
}

/// The results of two queries.
fn two(results: Vec<Vec<Row>>) -> Result<[Vec<Row>; 2]> {
    results.try_into().map_err(|_| Error::new(ErrorCode::Assert, "unexpected number of results"))
}

fn is_in_recovery(client: &mut (dyn PgConnection + '_)) -> Result<bool> {
    Ok(client.value(begin::IS_IN_RECOVERY)? == "t")
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| Error::new(ErrorCode::DbQuery, format!("expected a number from the server but found '{text}'")))
}

fn required(value: Option<String>, query: &str) -> Result<String> {
    value.ok_or_else(|| Error::new(ErrorCode::DbQuery, format!("unexpected null from '{query}'")))
}

fn backup_start_query(version: PgVersion, start_fast: bool) -> String {
    let function = if version >= PgVersion::V15 { "backup_start" } else { "start_backup" };
    // Before 15 there was an exclusive mode, which the last argument disables
    let exclusive = if version < PgVersion::V15 { ", false" } else { "" };
    format!(
        "select lsn::text as lsn,\n       pg_catalog.{}(lsn)::text as wal_segment_name\n  from \
         pg_catalog.pg_{function}('pgBackRest backup started at ' || current_timestamp, {start_fast}{exclusive}) as lsn",
        version.wal_file_name_function()
    )
}

fn backup_stop_query(version: PgVersion) -> String {
    // Arguments: not exclusive (before 15), and do not wait for the archive (since 10), which is checked separately
    let call = match version {
        v if v >= PgVersion::V15 => "backup_stop(false)",
        v if v >= PgVersion::V10 => "stop_backup(false, false)",
        _ => "stop_backup(false)",
    };
    format!(
        "select lsn::text as lsn,\n       pg_catalog.{}(lsn)::text as wal_segment_name,\n       labelfile::text as \
         backuplabel_file,\n       spcmapfile::text as tablespacemap_file\n  from pg_catalog.pg_{call}",
        version.wal_file_name_function()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backup_start_query_follows_version() {
        assert_eq!(
            backup_start_query(PgVersion::V15, true),
            "select lsn::text as lsn,\n       pg_catalog.pg_walfile_name(lsn)::text as wal_segment_name\n  from \
             pg_catalog.pg_backup_start('pgBackRest backup started at ' || current_timestamp, true) as lsn"
        );
        assert!(backup_start_query(PgVersion::V14, false).ends_with("current_timestamp, false, false) as lsn"));
        assert!(backup_start_query(PgVersion::V9_6, false).contains("pg_xlogfile_name(lsn)"));
    }

    #[test]
    fn backup_stop_query_follows_version() {
        assert!(backup_stop_query(PgVersion::V18).ends_with("from pg_catalog.pg_backup_stop(false)"));
        assert!(backup_stop_query(PgVersion::V10).ends_with("from pg_catalog.pg_stop_backup(false, false)"));
        assert!(backup_stop_query(PgVersion::V9_6).ends_with("from pg_catalog.pg_stop_backup(false)"));
    }
}
