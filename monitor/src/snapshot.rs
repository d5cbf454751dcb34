//! What the collector found: one model, from which metrics, the status page and the API are made.
//!
//! `docs/api.md` describes its JSON form for users. A reader accepts members that it does not know. Times are seconds
//! since 1970, sizes are bytes.

use std::collections::BTreeMap;

use engine::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};

/// The format number of the JSON form.
pub const FORMAT: u32 = 1;

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`FORMAT`].
    pub format: u32,
    /// When the collection began.
    pub time: i64,
    /// How long it took.
    pub duration_seconds: f64,
    /// The name of this host.
    pub host: String,
    /// The version of rbr.
    pub version: String,
    /// Whether a daemon is running.
    pub daemon: bool,
    /// What could not be collected.
    pub errors: Vec<String>,
    /// The stanzas, by name.
    pub stanzas: Vec<StanzaView>,
    /// The jobs of the daemon.
    pub jobs: Vec<JobView>,
}

/// A stanza.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StanzaView {
    /// Its name.
    pub name: String,
    /// The status over all repositories, as in `info`; 0 is ok.
    pub status_code: u8,
    /// The status in words.
    pub status: String,
    /// Its repositories, by key.
    pub repos: Vec<RepoView>,
    /// Its clusters, by key.
    pub clusters: Vec<ClusterView>,
    /// Its backups in all repositories, by their end.
    pub backups: Vec<BackupView>,
    /// What is running on this host.
    pub running: Vec<RunningView>,
    /// The queues of asynchronous archiving on this host.
    pub spool: Vec<SpoolView>,
}

/// A repository of a stanza.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RepoView {
    /// The N of the options `repoN-...`.
    pub key: u32,
    /// `none` or a cipher.
    pub cipher: String,
    /// The status, as in `info`; 0 is ok.
    pub status_code: u8,
    /// The status in words, or an error.
    pub status: String,
    /// How long it took to list a directory; `None` if that failed.
    pub latency_seconds: Option<f64>,
    /// What all backups take in the repository. A file that several backups share counts once.
    pub stored_bytes: u64,
    /// The sizes of the clusters in all backups, as if nothing were shared or compressed.
    pub database_bytes: u64,
    /// The WAL of each cluster.
    pub archives: Vec<ArchiveView>,
    /// When the newest WAL of the current cluster was stored; `None` without a proof of recovery.
    #[serde(default)]
    pub newest_wal_time: Option<i64>,
    /// Whether the phases of its backups could not be read, so that some may lack them.
    #[serde(default)]
    pub phases_unread: bool,
    /// What can be recovered.
    pub recovery: Option<RecoveryView>,
    /// The newest proof of recovery.
    pub proof: Option<ProofView>,
    /// The newest proof that passed.
    pub proven: Option<ProofView>,
}

/// The WAL of a cluster in a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArchiveView {
    /// The directory of the archive.
    pub id: String,
    /// The version of PostgreSQL.
    pub pg_version: String,
    /// The first segment.
    pub min: Option<String>,
    /// The last segment.
    pub max: Option<String>,
}

/// The points that a repository can be recovered to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecoveryView {
    /// When they were looked for.
    pub time: i64,
    /// Why they could not be found.
    pub error: Option<String>,
    /// The backups of the repository at that time.
    pub backups: Vec<String>,
    /// Ranges without a gap.
    pub windows: Vec<WindowView>,
    /// Whether the newest backup can be recovered to the newest WAL of the newest timeline; `None` without a backup that
    /// needs WAL.
    pub newest_backup_is_current: Option<bool>,
    /// Backups that can't be recovered, because WAL is missing.
    pub unrecoverable: Vec<UnrecoverableView>,
    /// Missing segments after the oldest backup.
    pub gaps: Vec<GapView>,
    /// The number of missing segments after the oldest backup.
    pub missing_segments: u64,
    /// The number of missing segments after the newest backup.
    pub missing_segments_newest: u64,
}

/// A range to recover to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowView {
    /// The archive.
    pub archive: String,
    /// The timeline.
    pub timeline: u32,
    /// The first position.
    pub start_lsn: String,
    /// When the first backup of it stopped.
    pub start_time: i64,
    /// The last position.
    pub end_lsn: String,
    /// When its newest backup stopped. The range ends at this time or later.
    pub last_backup_time: i64,
    /// Whether it ends at the newest WAL of the newest timeline.
    pub is_newest: bool,
    /// Why it ends.
    pub end_reason: String,
    /// Its backups, oldest first.
    pub backups: Vec<String>,
}

/// A backup that can't be recovered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnrecoverableView {
    /// The backup.
    pub backup: String,
    /// Why.
    pub reason: String,
}

/// Successive segments that are missing although there is WAL after them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GapView {
    /// The archive.
    pub archive: String,
    /// The first segment.
    pub first: String,
    /// The last segment.
    pub last: String,
    /// Their number.
    pub segments: u64,
    /// Whether it is after the newest backup.
    pub after_newest_backup: bool,
}

/// A proof of recovery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProofView {
    /// The backup.
    pub backup: String,
    /// `passed`, `failed` or `unreadable`.
    pub result: String,
    /// What failed.
    pub reason: Option<String>,
    /// When the test ended.
    pub time: i64,
    /// Where recovery ended.
    pub lsn: Option<String>,
    /// How long it took until the restored cluster accepted writes.
    pub recovery_seconds: f64,
    /// The size of the restored cluster.
    #[serde(default)]
    pub database_bytes: u64,
    /// How long each phase took.
    pub phase_seconds: BTreeMap<String, f64>,
    /// Checks that did not run.
    pub without: Vec<String>,
}

impl ProofView {
    /// How long the recovery of a TiB takes at this rate; `None` if the size is not known.
    pub fn seconds_per_tebibyte(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a rate is not exact")]
        let tebibytes = self.database_bytes as f64 / (1u64 << 40) as f64;
        (self.database_bytes > 0).then(|| self.recovery_seconds / tebibytes)
    }
}

/// A cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The N of the options `pgN-...`.
    pub key: u32,
    /// The host, if it is not this one.
    pub host: Option<String>,
    /// When it was asked.
    pub time: i64,
    /// Why it could not be asked.
    pub error: Option<String>,
    /// Whether it is in recovery.
    pub is_standby: bool,
    /// Where it writes WAL; `None` for a standby.
    pub lsn: Option<String>,
    /// The segment that it writes.
    pub wal_segment: Option<String>,
    /// What its archiver says; `None` for a standby.
    pub archiver: Option<ArchiverView>,
    /// How far each repository is behind.
    pub lag: Vec<LagView>,
}

/// What the archiver of a cluster says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArchiverView {
    /// When it archived a file last.
    pub last_archived_time: Option<i64>,
    /// How often it failed since the statistics began.
    pub failed_count: u64,
    /// The file that it can't archive, if its last attempt failed.
    pub failing: Option<String>,
    /// Files that wait; `None` if the role may not see them.
    pub ready: Option<u64>,
    /// How long the oldest has waited.
    pub ready_seconds: Option<u64>,
}

/// How far a repository is behind a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LagView {
    /// The repository.
    pub repo_key: u32,
    /// Complete segments that are not archived.
    pub segments: u64,
    /// WAL that is not archived, with what is in the unfinished segment.
    pub bytes: u64,
}

/// A backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupView {
    /// Its label.
    pub label: String,
    /// `full`, `diff` or `incr`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The repository.
    pub repo_key: u32,
    /// When it began.
    pub start: i64,
    /// When it ended.
    pub stop: i64,
    /// The size of the cluster.
    pub database_bytes: u64,
    /// What was copied.
    pub copied_bytes: u64,
    /// What it added to the repository.
    pub stored_bytes: u64,
    /// The backup that it builds on.
    pub prior: Option<String>,
    /// Whether it contains invalid pages, if that is known.
    pub error: Option<bool>,
    /// Text of users.
    pub annotation: BTreeMap<String, String>,
    /// The number of databases, if it was asked for.
    pub databases: Option<u64>,
    /// Its last proof of recovery.
    pub proof: Option<ProofView>,
    /// Its phases, in their order; empty for a backup of pgBackRest.
    #[serde(default)]
    pub phases: Vec<PhaseView>,
}

/// A phase of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseView {
    /// `prepare`, `start`, `plan`, `copy`, `stop`, `archive`, `save` or `expire`.
    pub phase: String,
    /// How long it took.
    pub seconds: f64,
    /// What it copied, or the WAL that it found in the archive; `None` in other phases.
    pub bytes: Option<u64>,
}

/// A backup or restore that is running on this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningView {
    /// `backup` (which may be an expire or a stanza command) or `restore`.
    pub kind: String,
    /// Bytes to copy; `None` while not known.
    pub total_bytes: Option<u64>,
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes per second since the collection before.
    pub bytes_per_second: Option<f64>,
    /// The time left at this rate.
    pub seconds_left: Option<f64>,
}

/// A queue of asynchronous archiving.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolView {
    /// `push` or `get`.
    pub queue: String,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that tell an error.
    pub errors: u64,
    /// The age of the oldest file.
    pub oldest_seconds: Option<u64>,
}

/// A job of the daemon, as `schedule --output=json` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// The stanza.
    pub stanza: String,
    /// The name.
    pub name: String,
    /// The command.
    pub command: String,
    /// When it runs.
    pub schedule: String,
    /// The time zone, if one is set.
    pub time_zone: Option<String>,
    /// The next runs, in UTC.
    pub next: Vec<String>,
    /// Since when it is running.
    pub running_since: Option<String>,
    /// When it is tried again.
    pub retry_at: Option<String>,
    /// Whether it waits for another host.
    pub left_to_another_host: bool,
    /// The last run.
    pub last: Option<RunView>,
    /// The last successful run.
    pub success: Option<RunView>,
    /// Failures since the last success.
    pub failures: u64,
    /// Since when a successful run is missing.
    pub late_since: Option<String>,
    /// Results that the webhook has not received.
    pub untold: u64,
}

/// A run of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// `success`, `failure`, `elsewhere`, `stopped` or `missed`.
    pub result: String,
    /// When it began, in UTC.
    pub started: String,
    /// When it ended, in UTC.
    pub ended: String,
    /// The exit status of the command.
    pub exit_status: Option<u8>,
    /// What went wrong.
    pub error: Option<String>,
    /// The time of the schedule, in UTC; `None` if a user started it.
    pub due: Option<String>,
    /// Which try it was, from 1.
    pub attempt: u32,
    /// How many earlier times of the schedule had no run.
    pub missed: u64,
}

impl Snapshot {
    /// Returns the JSON form, one line.
    pub fn to_json(&self) -> String {
        // Strings and numbers can always be written
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses the JSON form.
    ///
    /// # Errors
    /// [`ErrorCode::Format`]
    pub fn parse(text: &str) -> Result<Self> {
        let failed = |what: String| Error::new(ErrorCode::Format, format!("the snapshot is not valid: {what}"));
        let snapshot: Snapshot = serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
        if snapshot.format != FORMAT {
            return Err(failed(format!("it has format {}", snapshot.format)));
        }
        Ok(snapshot)
    }

    /// Returns a stanza.
    pub fn stanza(&self, name: &str) -> Option<&StanzaView> {
        self.stanzas.iter().find(|stanza| stanza.name == name)
    }
}

impl RepoView {
    /// The status code of an error that is none of those of a stanza.
    pub const STATUS_OTHER: u8 = 99;

    /// Returns whether its content is known.
    pub fn is_known(&self) -> bool {
        self.latency_seconds.is_some() && self.status_code != Self::STATUS_OTHER
    }
}

impl StanzaView {
    /// Returns a repository.
    pub fn repo(&self, key: u32) -> Option<&RepoView> {
        self.repos.iter().find(|repo| repo.key == key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// The members that a section of the document lists.
    fn documented(section: &str) -> BTreeSet<String> {
        let text = include_str!("../../docs/api.md");
        let (_, rest) = text.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
        let rows = rest.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
        let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
        names.map(|name| name.trim().trim_matches('`').to_owned()).collect()
    }

    fn members<T: Serialize + Default>() -> BTreeSet<String> {
        match serde_json::to_value(T::default()).unwrap() {
            Value::Object(members) => members.into_iter().map(|(name, _)| name).collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn document_lists_every_member_of_every_object_and_no_other() {
        for (section, members) in [
            ("Status", members::<Snapshot>()),
            ("Stanza", members::<StanzaView>()),
            ("Repository", members::<RepoView>()),
            ("Archive", members::<ArchiveView>()),
            ("Recovery", members::<RecoveryView>()),
            ("Range", members::<WindowView>()),
            ("Unrecoverable backup", members::<UnrecoverableView>()),
            ("Gap", members::<GapView>()),
            ("Proof", members::<ProofView>()),
            ("Cluster", members::<ClusterView>()),
            ("Archiver", members::<ArchiverView>()),
            ("Lag", members::<LagView>()),
            ("Backup", members::<BackupView>()),
            ("Running", members::<RunningView>()),
            ("Queue", members::<SpoolView>()),
            ("Job", members::<JobView>()),
            ("Run", members::<RunView>()),
        ] {
            assert_eq!(documented(section), members, "{section}");
        }
    }
}
