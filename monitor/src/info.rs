//! The JSON of `info`, as far as metrics and the status page need it.
//!
//! Reading it instead of rbr's own structures has a reason: `pgbackrest_exporter` reads it, too, so its metrics can be
//! compared on the same input.

use std::collections::BTreeMap;

use engine::{Error, ErrorCode, Result};
use serde::Deserialize;

/// A stanza over all repositories.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoStanza {
    /// Its name.
    pub name: String,
    /// The status over all repositories, and what is running.
    pub status: InfoStanzaStatus,
    /// Its repositories.
    #[serde(default)]
    pub repo: Vec<InfoRepo>,
    /// Cluster histories.
    #[serde(default)]
    pub db: Vec<InfoDatabase>,
    /// The WAL of each cluster in each repository.
    #[serde(default)]
    pub archive: Vec<InfoArchive>,
    /// The backups, by their end.
    #[serde(default)]
    pub backup: Vec<InfoBackup>,
}

/// The status of a stanza.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoStanzaStatus {
    /// 0 is ok.
    pub code: u8,
    /// The status in words.
    pub message: String,
    /// What is running.
    #[serde(default)]
    pub lock: InfoLocks,
}

/// What is running on this host.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct InfoLocks {
    /// The backup, expire or command of the stanza.
    #[serde(default)]
    pub backup: InfoLock,
    /// The restore.
    #[serde(default)]
    pub restore: InfoLock,
}

/// A running command.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct InfoLock {
    /// Whether it is running.
    #[serde(default)]
    pub held: bool,
    /// Bytes to copy, if it tells them.
    pub size: Option<u64>,
    /// Bytes copied.
    #[serde(rename = "size-cplt")]
    pub size_complete: Option<u64>,
}

/// A stanza in one repository.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoRepo {
    /// The number of the repository.
    pub key: u32,
    /// `none` or a cipher.
    pub cipher: String,
    /// The status.
    pub status: InfoRepoStatus,
}

/// The status of a stanza in a repository.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoRepoStatus {
    /// 0 is ok.
    pub code: u8,
    /// The status in words, or an error.
    pub message: String,
}

/// A cluster in the history of a stanza.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoDatabase {
    /// Its number.
    pub id: u32,
    /// The repository that has the history.
    #[serde(rename = "repo-key", default)]
    pub repo_key: u32,
    /// The version of PostgreSQL.
    pub version: String,
}

/// Identifies a cluster in a repository.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct InfoDatabaseId {
    /// The number of the cluster.
    pub id: u32,
    /// The repository.
    #[serde(rename = "repo-key", default)]
    pub repo_key: u32,
}

/// The WAL of a cluster in a repository.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoArchive {
    /// The cluster.
    pub database: InfoDatabaseId,
    /// The directory of the archive.
    pub id: String,
    /// The first segment.
    pub min: Option<String>,
    /// The last segment.
    pub max: Option<String>,
}

/// A backup.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoBackup {
    /// Its label.
    pub label: String,
    /// `full`, `diff` or `incr`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cluster.
    pub database: InfoDatabaseId,
    /// Its WAL.
    pub archive: InfoWalRange,
    /// The program that made it.
    pub backrest: InfoProgram,
    /// Sizes.
    pub info: InfoSizes,
    /// Positions, if it records them.
    pub lsn: Option<InfoWalRange>,
    /// The backup that it builds on.
    pub prior: Option<String>,
    /// All backups that it refers to.
    pub reference: Option<Vec<String>>,
    /// Whether it contains invalid pages, if that is known.
    pub error: Option<bool>,
    /// Text of users.
    #[serde(default)]
    pub annotation: BTreeMap<String, String>,
    /// When it was made.
    pub timestamp: InfoTimes,
    /// The last proof of recovery. pgBackRest does not have it.
    #[serde(rename = "rbr-proof")]
    pub proof: Option<InfoProof>,
}

/// Begin and end in the WAL.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct InfoWalRange {
    /// The begin.
    pub start: Option<String>,
    /// The end.
    pub stop: Option<String>,
}

/// A program.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoProgram {
    /// Its version.
    pub version: String,
}

/// Sizes of a backup in bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoSizes {
    /// What was copied.
    pub delta: u64,
    /// All files.
    pub size: u64,
    /// In the repository.
    pub repository: InfoRepoSizes,
}

/// Sizes of a backup in the repository, in bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct InfoRepoSizes {
    /// What this backup added.
    pub delta: u64,
    /// Block maps that this backup added.
    #[serde(rename = "delta-map")]
    pub delta_map: Option<u64>,
    /// All that a restore needs.
    pub size: Option<u64>,
    /// Block maps that a restore needs.
    #[serde(rename = "size-map")]
    pub size_map: Option<u64>,
}

/// Begin and end in seconds since 1970.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct InfoTimes {
    /// The begin.
    pub start: i64,
    /// The end.
    pub stop: i64,
}

/// The last proof of recovery of a backup.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct InfoProof {
    /// Why it can't be read.
    pub error: Option<String>,
    /// `passed` or `failed`.
    pub result: Option<String>,
    /// What failed.
    pub reason: Option<String>,
    /// Where recovery ended.
    pub lsn: Option<String>,
    /// The recovery time in milliseconds.
    pub rto_ms: u64,
    /// When the test ended, in seconds since 1970.
    pub timestamp: i64,
    /// Checks that did not run.
    pub without: Vec<String>,
}

impl InfoBackup {
    /// `y` if it has block maps, otherwise `n`.
    pub fn block_incr(&self) -> &'static str {
        let sizes = &self.info.repository;
        if sizes.size_map.is_some() && sizes.delta_map.is_some() { "y" } else { "n" }
    }

    /// How long it took, in seconds.
    pub fn duration(&self) -> i64 {
        self.timestamp.stop.saturating_sub(self.timestamp.start)
    }
}

impl InfoStanza {
    /// The version of a cluster in a repository, or the empty text.
    pub fn pg_version(&self, id: InfoDatabaseId) -> &str {
        let found = self.db.iter().find(|database| database.id == id.id && database.repo_key == id.repo_key);
        found.map_or("", |database| &database.version)
    }
}

/// Parses the output of `info --output=json`.
///
/// # Errors
/// [`ErrorCode::Format`]
pub fn parse(text: &str) -> Result<Vec<InfoStanza>> {
    serde_json::from_str(text)
        .map_err(|error| Error::new(ErrorCode::Format, format!("the JSON of info is not valid: {error}")))
}
