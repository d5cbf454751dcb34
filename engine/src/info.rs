//! The facts that `info` reports: stanzas, their repositories, archives, backups and running operations.
//!
//! Nothing is rendered here, and nothing fails as a whole: an unreadable repository or stanza is a fact with a status
//! code. The codes, and the rules for combining them over repositories, are pgBackRest's.

mod archives;
mod collect;
mod merge;
mod set;

use repo_format::backup_info::BackupEntry;
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::ArchiveId;
use repo_format::pg::PgVersion;

use crate::objectives::RecoveryObjectives;
use crate::proof::ProofFact;

pub use collect::of_all_stanzas;
pub(crate) use collect::of_stanza;
pub use set::{DatabaseRef, LinkRef, ManifestFacts, TablespaceRef};

/// The status of a stanza, in one repository or over all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusCode {
    /// All is well.
    Ok = 0,
    /// The stanza has no directory.
    MissingStanzaPath = 1,
    /// There is a stanza but no backup yet.
    NoBackup = 2,
    /// The stanza's directory has no backup.info.
    MissingStanzaData = 3,
    /// The repositories differ.
    Mixed = 4,
    /// The repositories contain different clusters.
    PgMismatch = 5,
    /// The backup that was asked for is not there.
    BackupMissing = 6,
    /// Anything else, told by a message.
    Other = 99,
}

impl StatusCode {
    /// The number in the JSON form.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The text of both forms.
    pub fn message(self) -> &'static str {
        match self {
            StatusCode::Ok => "ok",
            StatusCode::MissingStanzaPath => "missing stanza path",
            StatusCode::NoBackup => "no valid backups",
            StatusCode::MissingStanzaData => "missing stanza data",
            StatusCode::Mixed => "different across repos",
            StatusCode::PgMismatch => "database mismatch across repos",
            StatusCode::BackupMissing => "requested backup not found",
            StatusCode::Other => "other",
        }
    }
}

/// How much to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything.
    Full,
    /// Only status and locks; does not read info files.
    Progress,
}

/// What to report. [`InfoRequest::default`] reports everything.
#[derive(Clone, Debug)]
pub struct InfoRequest {
    /// Only this backup, or the `latest` of each repository, with the facts of its manifest. Requires a stanza.
    pub set: Option<String>,
    /// Only backups of this type.
    pub backup_type: Option<BackupType>,
    /// How much to collect.
    pub detail: Detail,
}

impl Default for InfoRequest {
    fn default() -> Self {
        InfoRequest { set: None, backup_type: None, detail: Detail::Full }
    }
}

impl InfoRequest {
    /// Reports only this backup, with the facts of its manifest.
    #[must_use]
    pub fn set(self, label: &BackupLabel) -> Self {
        InfoRequest { set: Some(label.to_string()), ..self }
    }
}

/// A running backup (or expire) or restore on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunningLock {
    /// Whether the lock is held.
    pub held: bool,
    /// Bytes to copy, 0 while not known.
    pub size: u64,
    /// Bytes copied.
    pub size_complete: u64,
    /// Bytes per second since the copy began; `None` if that is not known, as for pgBackRest.
    pub rate: Option<u64>,
}

impl RunningLock {
    /// Adds another lock of the same kind. The rate is not known if that of one copy is not.
    pub fn add(&mut self, other: RunningLock) {
        self.rate = match (self.size, other.size) {
            (_, 0) => self.rate,
            (0, _) => other.rate,
            _ => self.rate.zip(other.rate).map(|(one, two)| one.saturating_add(two)),
        };
        self.held |= other.held;
        self.size = self.size.saturating_add(other.size);
        self.size_complete = self.size_complete.saturating_add(other.size_complete);
    }

    /// Returns the seconds that the rest of the copy takes at the rate so far; `None` if that is not known.
    pub fn seconds_left(&self) -> Option<u64> {
        let rate = self.rate.filter(|&rate| rate > 0)?;
        Some(self.size.saturating_sub(self.size_complete).div_ceil(rate))
    }
}

impl RepoFact {
    /// Returns the message for the status.
    pub fn message(&self) -> &str {
        match (self.status, &self.error) {
            (StatusCode::Other, Some(error)) => error,
            (status, _) => status.message(),
        }
    }
}

impl StanzaFact {
    /// The value of [`StanzaFact::cipher`] if repositories differ.
    pub const CIPHER_MIXED: &'static str = "mixed";

    /// The cipher of all repositories.
    pub fn cipher(&self) -> &'static str {
        let mut ciphers = self.repos.iter().map(|repo| repo.cipher);
        let first = ciphers.next().unwrap_or("none");
        if ciphers.all(|cipher| cipher == first) { first } else { Self::CIPHER_MIXED }
    }
}

impl BackupFact {
    /// Returns whether invalid pages were found, if that is known.
    pub fn error(&self) -> Option<bool> {
        match &self.set {
            // Old entries in backup.info do not record it, but manifests do
            Some(set) if !set.errors.is_empty() => Some(true),
            _ => self.entry.error,
        }
    }
}

/// One entry of a cluster history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseFact {
    /// The id in the history.
    pub id: u32,
    /// The repository that contains it.
    pub repo_key: u32,
    /// The cluster's system identifier.
    pub system_id: u64,
    /// Its version.
    pub version: PgVersion,
}

/// The WAL of one cluster in one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFact {
    /// The id of the cluster in backup.info's history.
    pub db_id: u32,
    /// The repository.
    pub repo_key: u32,
    /// The directory of the archive.
    pub id: ArchiveId,
    /// Name of the first segment.
    pub min: Option<String>,
    /// Name of the last segment.
    pub max: Option<String>,
}

/// One backup.
#[derive(Clone, Debug)]
pub struct BackupFact {
    /// Its label.
    pub label: BackupLabel,
    /// The repository.
    pub repo_key: u32,
    /// Its line in backup.info.
    pub entry: BackupEntry,
    /// The facts of its manifest, if the backup was requested by label.
    pub set: Option<ManifestFacts>,
    /// The last proof that it can or can't be recovered, if there is one.
    pub proof: Option<ProofFact>,
}

/// A stanza in one repository.
#[derive(Clone, Debug)]
pub struct RepoFact {
    /// The number of the repository.
    pub key: u32,
    /// `none` or `aes-256-cbc`.
    pub cipher: &'static str,
    /// The status.
    pub status: StatusCode,
    /// The message for [`StatusCode::Other`], as `[ErrorType] text`.
    pub error: Option<String>,
    /// The backup that runs into it.
    pub backup_lock: RunningLock,
    /// What a recovery takes and loses, if the repository has proofs.
    pub objectives: Option<RecoveryObjectives>,
}

/// A stanza over all repositories.
#[derive(Clone, Debug)]
pub struct StanzaFact {
    /// Its name, or `[invalid]` when nothing could be read.
    pub name: String,
    /// The status over all repositories.
    pub status: StatusCode,
    /// Its repositories, by key.
    pub repos: Vec<RepoFact>,
    /// The restore that runs.
    pub restore_lock: RunningLock,
    /// The current cluster, from the first repository that has one.
    pub current: Option<(PgVersion, u64)>,
    /// Cluster histories, oldest first within each repository.
    pub databases: Vec<DatabaseFact>,
    /// Archives, in the order of `databases`.
    pub archives: Vec<ArchiveFact>,
    /// Backups of all repositories, by their end.
    pub backups: Vec<BackupFact>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(size: u64, size_complete: u64, rate: Option<u64>) -> RunningLock {
        RunningLock { held: true, size, size_complete, rate }
    }

    #[test]
    fn rate_of_several_copies_is_their_sum_if_each_is_known() {
        let sum = |locks: &[RunningLock]| {
            let mut sum = RunningLock::default();
            locks.iter().for_each(|lock| sum.add(*lock));
            (sum.rate, sum.seconds_left())
        };
        assert_eq!(sum(&[]), (None, None));
        assert_eq!(sum(&[lock(100, 20, Some(5))]), (Some(5), Some(16)));
        // One that copies nothing, such as expire
        assert_eq!(sum(&[lock(0, 0, None), lock(100, 20, Some(5)), lock(0, 0, None)]), (Some(5), Some(16)));
        assert_eq!(sum(&[lock(100, 20, Some(5)), lock(100, 21, Some(3))]), (Some(8), Some(20)));
        // pgBackRest holds the other lock
        assert_eq!(sum(&[lock(100, 20, Some(5)), lock(100, 20, None)]), (None, None));
    }

    #[test]
    fn copy_that_has_not_begun_has_no_time_left() {
        assert_eq!(lock(100, 0, Some(0)).seconds_left(), None);
        assert_eq!(lock(100, 100, Some(7)).seconds_left(), Some(0));
    }
}
