//! What a restore is asked to do, and what it did.

use std::path::PathBuf;
use std::time::Duration;

use repo_format::label::BackupLabel;
use repo_format::pg::PgVersion;
use repo_format::wal_name::WalSegment;

use super::destinations::KeepOut;
use super::recovery_conf::{RecoverySettings, RecoveryType};
use super::remap::MapSettings;
use crate::log::Warnings;

/// What to restore, where and how. [`RestoreRequest::new`] sets pgBackRest's defaults.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The data directory, absolute.
    pub pg_path: String,
    /// The spool path of asynchronous archiving. What it contains for the old cluster is removed.
    pub spool_path: Option<PathBuf>,
    /// The label of the set to restore; otherwise one is selected.
    pub set: Option<String>,
    /// Keep files that already match.
    pub delta: bool,
    /// Overwrite existing files. With `delta`, trust their size and time.
    pub force: bool,
    /// New paths of tablespaces and links.
    pub map: MapSettings,
    /// Paths to which no link or tablespace may lead.
    pub keep_out: Vec<KeepOut>,
    /// Databases to restore, by name or oid. All others except the system databases are zeroed.
    pub db_include: Vec<String>,
    /// Databases to zero, by name or oid.
    pub db_exclude: Vec<String>,
    /// How far to recover, and with which settings.
    pub recovery: RecoverySettings,
    /// Whether the recovery type is the default. An offline backup then recovers nothing.
    pub recovery_is_default: bool,
    /// Fail if a file was backed up with invalid page checksums. Otherwise this is a warning.
    pub checksum_page_error: bool,
    /// Read the control file as this version, regardless of its content.
    pub pg_version_force: Option<PgVersion>,
    /// Number of workers.
    pub process_max: u32,
    /// How often a failed job is retried.
    pub job_retry: u32,
    /// The pause before each retry except the first.
    pub job_retry_interval: Duration,
}

impl RestoreRequest {
    /// Restores the newest backup into this data directory, an absolute path, which must be empty or missing.
    pub fn new(pg_path: impl Into<String>) -> Self {
        RestoreRequest {
            pg_path: pg_path.into(),
            spool_path: None,
            set: None,
            delta: false,
            force: false,
            map: MapSettings::default(),
            keep_out: Vec::new(),
            db_include: Vec::new(),
            db_exclude: Vec::new(),
            recovery: RecoverySettings::default(),
            recovery_is_default: true,
            checksum_page_error: true,
            pg_version_force: None,
            process_max: 1,
            job_retry: 2,
            job_retry_interval: Duration::from_secs(15),
        }
    }

    /// Restores this backup.
    #[must_use]
    pub fn set(self, label: &BackupLabel) -> Self {
        RestoreRequest { set: Some(label.to_string()), ..self }
    }

    /// Keeps files that already match.
    #[must_use]
    pub fn delta(self) -> Self {
        RestoreRequest { delta: true, ..self }
    }

    /// Recovers that far.
    #[must_use]
    pub fn recovery(mut self, kind: RecoveryType) -> Self {
        self.recovery.kind = kind;
        RestoreRequest { recovery_is_default: false, ..self }
    }

    /// Lets PostgreSQL get WAL with this command, as in its setting `restore_command`.
    #[must_use]
    pub fn restore_command(mut self, command: impl Into<String>) -> Self {
        self.recovery.restore_command = Some(command.into());
        self
    }

    /// Copies with so many workers.
    #[must_use]
    pub fn process_max(self, process_max: u32) -> Self {
        RestoreRequest { process_max, ..self }
    }
}

/// What a restore did.
#[derive(Clone, Debug)]
pub struct RestoreSummary {
    /// The repository that contains the backup.
    pub repo_key: u32,
    /// The backup.
    pub label: BackupLabel,
    /// Bytes of all files.
    pub size: u64,
    /// Number of files.
    pub files: usize,
    /// Number of those that existed and matched.
    pub files_kept: usize,
    /// Number of files that were backed up with invalid pages.
    pub page_errors: u32,
    /// The first and the last WAL segment that make the backup consistent; `None` for an offline backup.
    pub wal: Option<(WalSegment, WalSegment)>,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}
