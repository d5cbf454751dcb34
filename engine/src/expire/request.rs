//! What expire is asked to do, and what it did.

use std::collections::BTreeMap;
use std::time::Duration;

use repo_format::label::BackupLabel;
use repo_format::layout::ArchiveId;
use repo_format::wal_name::WalSegment;

use super::plan::Retention;
use crate::log::Warnings;

/// What to expire. [`ExpireRequest::default`] keeps all backups and all WAL.
#[derive(Clone, Debug)]
pub struct ExpireRequest {
    /// What to keep, by the number of the repository. A repository that is not listed keeps everything.
    pub retention: BTreeMap<u32, Retention>,
    /// Only this backup and its dependents, regardless of retention.
    pub set: Option<BackupLabel>,
    /// The oldest full backup, its dependents and its WAL.
    pub oldest: bool,
    /// Only WAL before this segment may be removed.
    pub archive_expire_before: Option<WalSegment>,
    /// Expire nothing if the oldest backup that would remain has invalid pages. Otherwise this is only a warning.
    pub checksum_page_error: bool,
    /// Keep the newest backup that a test restore has proven, with its set.
    pub keep_proven: bool,
    /// When archive keys are too old, by the number of the repository. Others are never replaced.
    pub cipher_rotate: BTreeMap<u32, KeyRotation>,
    /// Only show what would be removed.
    pub dry_run: bool,
}

/// When the archive key of a repository is replaced. Only encrypted repositories of format 6 and later have several keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    /// The longest time that a key is in use, in whole seconds.
    pub period: Duration,
    /// Whether to warn if the repository has only one key.
    pub is_expected: bool,
}

impl Default for ExpireRequest {
    fn default() -> Self {
        ExpireRequest {
            retention: BTreeMap::new(),
            set: None,
            oldest: false,
            archive_expire_before: None,
            checksum_page_error: true,
            keep_proven: false,
            cipher_rotate: BTreeMap::new(),
            dry_run: false,
        }
    }
}

impl ExpireRequest {
    /// Keeps this in the repository with this number.
    #[must_use]
    pub fn keep(mut self, repo_key: u32, retention: Retention) -> Self {
        self.retention.insert(repo_key, retention);
        self
    }

    /// Replaces the archive key of the repository with this number if it is older than `period`.
    #[must_use]
    pub fn rotate_key(mut self, repo_key: u32, period: Duration) -> Self {
        self.cipher_rotate.insert(repo_key, KeyRotation { period, is_expected: true });
        self
    }

    /// Expires this backup and its dependents, regardless of retention.
    #[must_use]
    pub fn set(self, label: BackupLabel) -> Self {
        ExpireRequest { set: Some(label), ..self }
    }

    /// Only shows what would be removed.
    #[must_use]
    pub fn dry_run(self) -> Self {
        ExpireRequest { dry_run: true, ..self }
    }
}

/// What expire removed, or what it would remove if it was a dry run.
#[derive(Clone, Debug)]
pub struct ExpireSummary {
    /// What was removed from each repository.
    pub repos: Vec<Expired>,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}

/// What was removed from a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// The repository.
    pub repo_key: u32,
    /// The backups that were valid until then, in the order of the decisions.
    pub backups: Vec<BackupLabel>,
    /// The directories of backups, by label. Among them are those of interrupted backups.
    pub directories: Vec<BackupLabel>,
    /// WAL.
    pub wal: Vec<ExpiredWal>,
}

/// WAL that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredWal {
    /// The archive.
    pub archive_id: ArchiveId,
    /// The first and the last of consecutive segments, or directories of segments; `None` for the whole archive.
    pub range: Option<(String, String)>,
}
