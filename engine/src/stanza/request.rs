//! What stanza-create, stanza-upgrade and stanza-delete are asked to do, and what they did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use repo_format::format::RepoFormat;
use repo_format::pg::PgVersion;

use crate::log::Warnings;
use crate::pg::PgHost;

/// For which cluster to create or upgrade a stanza. [`StanzaRequest::new`] sets pgBackRest's defaults.
#[derive(Clone, Debug)]
pub struct StanzaRequest {
    /// Ask the running primary for its identity. Otherwise the first data directory counts as the primary's.
    pub online: bool,
    /// The hosts of the clusters, in the order of their keys.
    pub pg: Vec<Arc<dyn PgHost>>,
    /// The formats of repositories, by their keys. A new stanza has format 5 in others; one that exists keeps its format.
    pub formats: BTreeMap<u32, RepoFormat>,
}

impl StanzaRequest {
    /// A stanza for this cluster, whose server is running.
    pub fn new(pg: impl Into<Arc<dyn PgHost>>) -> Self {
        StanzaRequest { online: true, pg: vec![pg.into()], formats: BTreeMap::new() }
    }

    /// Creates the stanza of this repository at this format, or upgrades it to it.
    #[must_use]
    pub fn format(mut self, repo_key: u32, format: RepoFormat) -> Self {
        self.formats.insert(repo_key, format);
        self
    }

    /// Reads the data directory instead of asking the server.
    #[must_use]
    pub fn offline(self) -> Self {
        StanzaRequest { online: false, ..self }
    }
}

/// What stanza-create or stanza-upgrade did.
#[derive(Clone, Debug)]
pub struct StanzaSummary {
    /// The version of the cluster.
    pub version: PgVersion,
    /// Its system identifier.
    pub system_id: u64,
    /// What changed in each repository.
    pub repos: Vec<StanzaOutcome>,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}

/// What happened to a stanza in one repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StanzaOutcome {
    /// The repository.
    pub repo_key: u32,
    /// What happened.
    pub change: StanzaChange,
}

/// What happened to a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StanzaChange {
    /// It did not exist, and was created.
    Created,
    /// It existed. A missing info file was written again from its copy, or a missing copy from its file.
    Completed,
    /// The cluster was added to its history and is the current one now, or the format was raised, or both.
    Upgraded,
    /// It existed and belongs to the cluster.
    Unchanged,
}

/// How to delete a stanza.
#[derive(Clone, Debug, Default)]
pub struct StanzaDeleteRequest {
    /// The host of the cluster. If its server is running, the stanza is not deleted. `None` does not look for a server.
    pub pg: Option<Arc<dyn PgHost>>,
    /// Delete even if the server is running.
    pub force: bool,
}

impl StanzaDeleteRequest {
    /// Deletes the stanza of this cluster if its server is not running.
    pub fn new(pg: impl Into<Arc<dyn PgHost>>) -> Self {
        StanzaDeleteRequest { pg: Some(pg.into()), force: false }
    }

    /// Deletes even if the server is running.
    #[must_use]
    pub fn force(self) -> Self {
        StanzaDeleteRequest { force: true, ..self }
    }
}

/// What stanza-delete did.
#[derive(Clone, Debug)]
pub struct StanzaDeleteSummary {
    /// The repository.
    pub repo_key: u32,
    /// Whether the repository had the stanza.
    pub existed: bool,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}
