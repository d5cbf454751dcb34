//! The cluster that is backed up: its sessions, its data directories, its clock.
//!
//! Source of order and messages: pgBackRest `src/command/backup/backup.c` and `db.c.inc`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use repo_format::backup_info::BackupInfo;
use repo_format::pg::PgVersion;
use repo_format::pg::control::PgControl;
use repo_format::wal_name::{Lsn, WalSegment};

use super::label;
use super::settings::{BackupRequest, StandbyChoice};
use crate::cancel::CancelToken;
use crate::pg::cluster::{self, ArchiveCheck, Search};
use crate::pg::data_dir::{DataDir, ServerTablespace};
use crate::pg::session::{BackupStop, DatabaseRow, OtherBackup, TablespaceRow};
use crate::pg::{PgHost, PgSession};
use crate::pipeline::backup::CopyFrom;
use crate::{Error, ErrorCode, Result, info, warn};

/// How often the clock is read before it counts as stopped.
const CLOCK_ATTEMPTS_MAX: u32 = 3;
/// How often the backup retries to find a label that no other backup has.
const LABEL_ATTEMPTS_MAX: u32 = 5;
/// The time between two checks of the clock.
const CLOCK_LOOK: Duration = Duration::from_millis(250);

/// The cluster.
pub(super) struct BackupSource {
    /// The sessions of an online backup.
    primary: Option<PgSession>,
    standby: Option<PgSession>,
    pub(super) hosts: Hosts,
    /// `pg_control` of the primary.
    pub(super) control: PgControl,
    /// The second in which the files were listed.
    copy_start: i64,
    cancel: CancelToken,
}

/// Returns how long a second still takes; `None` if it is over. More than a second is left only if the clock was set back,
/// and by how much says nothing about how long to wait.
fn rest_of_second(second: i64, now_ms: i64) -> Option<Duration> {
    let rest_ms = u64::try_from((second + 1) * 1000 - now_ms).ok().filter(|rest_ms| *rest_ms > 0)?;
    Some(Duration::from_millis(rest_ms.min(1000)))
}

/// The hosts that files are copied from.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    pub(super) primary: Arc<dyn PgHost>,
    /// `None` if all files are copied from the primary.
    pub(super) standby: Option<Arc<dyn PgHost>>,
}

impl Hosts {
    /// Returns the host of this server.
    pub(super) fn of(&self, from: CopyFrom) -> &dyn PgHost {
        match (from, &self.standby) {
            (CopyFrom::Standby, Some(standby)) => &**standby,
            _ => &*self.primary,
        }
    }

    /// Checks that what holds the locks on other hosts still runs.
    ///
    /// # Errors
    /// The error that ended the connection to a host.
    fn check_locks(&self) -> Result<()> {
        std::iter::once(&self.primary).chain(&self.standby).try_for_each(|host| host.check_locks())
    }

    /// Returns how many jobs of one worker are best in progress at a time.
    pub(super) fn jobs_per_worker(&self) -> u32 {
        let all = std::iter::once(&self.primary).chain(&self.standby);
        all.map(|host| host.concurrency().jobs_per_worker).max().unwrap_or(1)
    }

    /// Returns whether files are read on another host.
    pub(super) fn are_elsewhere(&self) -> bool {
        self.jobs_per_worker() > 1
    }

    /// Returns the absolute path of a file, for messages.
    pub(super) fn file_path(&self, from: CopyFrom, name: &str) -> PathBuf {
        DataDir::new(self.of(from).path()).file_path(name)
    }

    /// Like [`Hosts::file_path`], with the name of the host in front if it is another one.
    pub(super) fn file_place(&self, from: CopyFrom, name: &str) -> String {
        let path = self.file_path(from, name);
        match self.of(from).name() {
            Some(host) => format!("{host}:{}", path.display()),
            None => path.display().to_string(),
        }
    }
}

/// The result of starting the backup.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    pub(super) lsn: Option<Lsn>,
    pub(super) wal_segment: Option<WalSegment>,
    /// A segment that has to arrive in the archive before the backup continues.
    pub(super) wal_segment_check: Option<WalSegment>,
    pub(super) databases: Vec<DatabaseRow>,
    /// `None` offline.
    pub(super) tablespaces: Option<Vec<ServerTablespace>>,
}

/// The result of stopping the backup.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Seconds since the epoch.
    pub(super) timestamp: i64,
    /// The server's part; `None` offline.
    pub(super) online: Option<BackupStop>,
}

impl BackupSource {
    /// Finds the cluster and reads its `pg_control`.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`] if a required server can't be found, [`ErrorCode::DbMismatch`] for a standby of another
    /// cluster, and errors of the sessions and of `pg_control`.
    pub(super) fn open(settings: &BackupRequest, cancel: &CancelToken) -> Result<Self> {
        if !settings.online {
            if settings.standby != StandbyChoice::Never {
                warn!(
                    "option backup-standby is enabled but backup is offline - backups will be performed from the primary"
                );
            }
            let Some(host) = settings.pg.first() else {
                return Err(Error::new(ErrorCode::OptionRequired, "a backup requires option: pg1-path"));
            };
            return Ok(BackupSource {
                primary: None,
                standby: None,
                control: host.control()?,
                hosts: Hosts { primary: Arc::clone(host), standby: None },
                copy_start: 0,
                cancel: cancel.clone(),
            });
        }
        let search = Search {
            primary_only: settings.standby == StandbyChoice::Never,
            primary_required: true,
            standby_required: settings.standby == StandbyChoice::Always,
        };
        let found = cluster::find(&settings.pg, search, cancel)?;
        let Some(primary) = found.primary else {
            return Err(Error::new(ErrorCode::DbConnect, "unable to find primary cluster - cannot proceed"));
        };
        if settings.standby == StandbyChoice::Prefer && found.standby.is_none() {
            warn!("unable to find a standby to perform the backup, using primary instead");
        }
        if let Some(standby) = &found.standby {
            check_standby(primary.control(), standby.control(), standby.host().key())?;
        }
        let hosts = Hosts {
            primary: Arc::clone(primary.host()),
            standby: found.standby.as_ref().map(|standby| Arc::clone(standby.host())),
        };
        Ok(BackupSource {
            control: *primary.control(),
            primary: Some(primary),
            standby: found.standby,
            hosts,
            copy_start: 0,
            cancel: cancel.clone(),
        })
    }

    /// Checks that the cluster is the stanza's current one.
    ///
    /// # Errors
    /// [`ErrorCode::BackupMismatch`].
    pub(super) fn check_stanza(&self, info: &BackupInfo) -> Result<()> {
        let (control, current) = (&self.control, info.current());
        if control.version == current.version && control.system_id == current.system_id {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::BackupMismatch,
            format!(
                "PostgreSQL version {}, system-id {} do not match stanza version {}, system-id {}",
                control.version, control.system_id, current.version, current.system_id
            ),
        )
        .hint("is this the correct stanza?"))
    }

    /// Returns whether files are copied from a standby.
    pub(super) fn has_standby(&self) -> bool {
        self.hosts.standby.is_some()
    }

    /// The version of the cluster.
    pub(super) fn version(&self) -> PgVersion {
        self.control.version
    }

    /// Returns whether pages are checked: by default if the cluster has checksums. Offline only if requested, because
    /// there may be false alarms.
    pub(super) fn checksum_page(&self, wanted: Option<bool>) -> bool {
        match (wanted, self.primary.is_some()) {
            (None, online) => online && self.control.data_checksums,
            (Some(true), true) if !self.control.data_checksums => {
                warn!(
                    "checksum-page option set to true but checksums are not enabled on the cluster, resetting to false"
                );
                false
            }
            (Some(wanted), _) => wanted,
        }
    }

    /// Returns seconds since the epoch by the server's clock, or offline by this host's.
    ///
    /// # Errors
    /// Errors of the session.
    pub(super) fn time(&mut self) -> Result<i64> {
        match &mut self.primary {
            Some(primary) => Ok(primary.time_ms()?.div_euclid(1000)),
            None => Ok(local_time()),
        }
    }

    /// Like [`BackupSource::time`]. Before a file is read, [`BackupSource::wait_for_copy`] must wait, so that later changes
    /// get a later time than the returned one.
    ///
    /// # Errors
    /// Errors of the session.
    pub(super) fn begin_copy(&mut self) -> Result<i64> {
        self.copy_start = self.time()?;
        Ok(self.copy_start)
    }

    /// Waits until the second of [`BackupSource::begin_copy`] is over by the server's clock.
    ///
    /// # Errors
    /// [`ErrorCode::Kernel`] if the clock does not advance, and errors of the session.
    pub(super) fn wait_for_copy(&mut self) -> Result<()> {
        let Some(primary) = &mut self.primary else { return Ok(()) };
        for _ in 0..=CLOCK_ATTEMPTS_MAX {
            match rest_of_second(self.copy_start, primary.time_ms()?) {
                None => return Ok(()),
                Some(rest) => self.cancel.sleep(rest)?,
            }
        }
        Err(Error::new(
            ErrorCode::Kernel,
            format!("PostgreSQL clock has not advanced to the next second after {CLOCK_ATTEMPTS_MAX} tries"),
        ))
    }

    /// Starts the backup on the server. Offline, checks that the server is not running.
    ///
    /// # Errors
    /// [`ErrorCode::PgRunning`] offline, and errors of the session.
    pub(super) fn start(&mut self, settings: &BackupRequest) -> Result<Start> {
        let Some(primary) = &mut self.primary else {
            if self.hosts.primary.has_postmaster_pid()? {
                if !settings.force {
                    return Err(Error::new(
                        ErrorCode::PgRunning,
                        "--no-online passed but postmaster.pid exists - looks like PostgreSQL is running. Shut down \
                         PostgreSQL and try again, or use --force.",
                    ));
                }
                warn!(
                    "--no-online passed and postmaster.pid exists but --force was passed so backup will continue though \
                     it looks like PostgreSQL is running and the backup will probably not be consistent"
                );
            }
            return Ok(Start::default());
        };
        let archive = settings.archive_check.then_some(ArchiveCheck { mode_check: settings.archive_mode_check });
        cluster::check_config(primary, archive)?;
        info!(
            "execute backup start: backup begins after the {} checkpoint completes",
            if settings.start_fast { "requested immediate" } else { "next regular" }
        );
        let start = primary.backup_start(settings.start_fast, settings.archive_check)?;
        let (databases, tablespaces) = primary.databases_and_tablespaces()?;
        info!("backup start archive = {}, lsn = {}", start.wal_segment, start.lsn);
        if let Some(standby) = &mut self.standby {
            info!("wait for replay on the standby to reach {}", start.lsn);
            standby.replay_wait(start.lsn, start.wal_segment.timeline, settings.archive_timeout)?;
            info!("replay on the standby reached {}", start.lsn);
        }
        Ok(Start {
            lsn: Some(start.lsn),
            wal_segment: Some(start.wal_segment),
            wal_segment_check: start.wal_segment_check,
            databases,
            tablespaces: Some(server_tablespaces(tablespaces)),
        })
    }

    /// Returns other backups of the cluster that the server knows; `None` offline.
    ///
    /// # Errors
    /// Errors of the session.
    pub(super) fn other_backups(&mut self) -> Result<Option<Vec<OtherBackup>>> {
        self.primary.as_mut().map(PgSession::other_backups).transpose()
    }

    /// Returns a second for the label that no other backup of the cluster can use: `time`, or a later second that has
    /// passed.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] if other backups begin again and again, and errors of the session.
    pub(super) fn label_time(&mut self, time: i64) -> Result<i64> {
        let mut time = time;
        for _ in 0..LABEL_ATTEMPTS_MAX {
            let others = self.other_backups()?.unwrap_or_default();
            let unshared = label::unshared(time, &others);
            if unshared == time {
                return Ok(time);
            }
            info!("another backup of the cluster began at the same time, wait for a label that it can't use");
            time = unshared;
            // The next iteration sees the backups that begin until then
            while self.time()? <= time {
                self.cancel.sleep(CLOCK_LOOK)?;
            }
        }
        Err(Error::new(ErrorCode::LockAcquire, "other backups of the cluster begin again and again")
            .hint("do several hosts back up the same cluster?"))
    }

    /// Returns the tablespaces that the server has now; none offline.
    ///
    /// # Errors
    /// Errors of the session.
    pub(super) fn tablespaces(&mut self) -> Result<Vec<ServerTablespace>> {
        self.primary.as_mut().map_or_else(|| Ok(Vec::new()), |primary| primary.tablespaces().map(server_tablespaces))
    }

    /// Checks that no server has changed between primary and standby, and that the locks on other hosts are held.
    ///
    /// # Errors
    /// Errors of the sessions.
    pub(super) fn ping(&mut self, force: bool) -> Result<()> {
        self.hosts.check_locks()?;
        self.primary.iter_mut().chain(self.standby.iter_mut()).try_for_each(|session| session.ping(force))
    }

    /// Returns how many bytes of WAL the slowest standby of the primary is behind; `None` without a standby, or offline.
    ///
    /// # Errors
    /// Errors of the session.
    pub(super) fn replica_lag(&mut self) -> Result<Option<u64>> {
        self.primary.as_mut().map_or(Ok(None), PgSession::replica_lag)
    }

    /// Stops the backup on the server. The standby is no longer needed.
    ///
    /// # Errors
    /// Errors of the session.
    pub(super) fn stop(&mut self) -> Result<Stop> {
        self.standby = None;
        self.hosts.check_locks()?;
        let Some(primary) = &mut self.primary else { return Ok(Stop { timestamp: local_time(), online: None }) };
        info!("execute backup stop and wait for all WAL segments to archive");
        let (stop, time_ms) = primary.backup_stop()?;
        info!("backup stop archive = {}, lsn = {}", stop.wal_segment, stop.lsn);
        Ok(Stop { timestamp: time_ms.div_euclid(1000), online: Some(stop) })
    }

    /// Returns whether the server has no session of another backup. Returns false if the server can't be asked.
    pub(super) fn is_alone(&mut self) -> bool {
        self.other_backups().is_ok_and(|others| others.is_none_or(|others| others.is_empty()))
    }
}

/// Refuses a standby of another cluster, whose files would not match the primary's WAL. pgBackRest only compares
/// positions, which can agree by chance.
fn check_standby(primary: &PgControl, standby: &PgControl, standby_key: u32) -> Result<()> {
    if (primary.version, primary.system_id) == (standby.version, standby.system_id) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::DbMismatch,
        format!(
            "standby pg{standby_key} version {}, system-id {} do not match primary version {}, system-id {}",
            standby.version, standby.system_id, primary.version, primary.system_id
        ),
    )
    .hint(format!("does pg{standby_key} reference a standby of another cluster?")))
}

fn server_tablespaces(rows: Vec<TablespaceRow>) -> Vec<ServerTablespace> {
    rows.into_iter().map(|row| ServerTablespace { id: row.oid, name: row.name }).collect()
}

fn local_time() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs().cast_signed()
}

#[cfg(test)]
mod tests {
    use repo_format::wal_name::TimelineId;

    use super::*;

    #[test]
    fn clock_that_was_set_back_does_not_make_the_backup_sleep_until_it_has_caught_up() {
        let rest = |now_ms| rest_of_second(1_000, now_ms);
        assert_eq!(rest(1_000_001), Some(Duration::from_millis(999)));
        assert_eq!(rest(400_000), Some(Duration::from_secs(1)));
        assert_eq!((rest(1_001_000), rest(i64::from(i32::MAX))), (None, None));
    }

    #[test]
    fn standby_of_another_cluster_is_refused() {
        let primary = PgControl {
            version: PgVersion::V15,
            system_id: 7,
            control_version: 1300,
            catalog_version: 202_209_061,
            checkpoint: Lsn(0x0300_0028),
            timeline: TimelineId(1),
            page_size: 8192,
            wal_segment_size: 16 << 20,
            data_checksums: true,
        };
        // Position and timeline of a standby are checked after it has replayed
        let behind = PgControl { checkpoint: Lsn(0x0200_0028), ..primary };
        check_standby(&primary, &behind, 2).unwrap();
        let other = PgControl { system_id: 8, ..primary };
        assert_eq!(check_standby(&primary, &other, 2).unwrap_err().code, ErrorCode::DbMismatch);
    }
}
