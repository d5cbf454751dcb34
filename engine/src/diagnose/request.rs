//! What a diagnosis is asked to look at, and what it found.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::check::CheckRequest;
use crate::log::Warnings;

/// What to look at.
#[derive(Clone, Debug)]
pub struct DiagnoseRequest {
    /// The clusters, and which archive settings they need.
    pub check: CheckRequest,
    /// The repositories that have a retention for full backups.
    pub with_retention: BTreeSet<u32>,
    /// What this host needs.
    pub paths: HostPaths,
    /// How the program is called in advice.
    pub program: String,
}

impl DiagnoseRequest {
    /// Looks at these clusters, and at nothing of this host.
    pub fn new(check: CheckRequest) -> Self {
        DiagnoseRequest {
            check,
            with_retention: BTreeSet::new(),
            paths: HostPaths::default(),
            program: "rbr".to_owned(),
        }
    }
}

/// The directories on this host that commands write to.
#[derive(Clone, Debug, Default)]
pub struct HostPaths {
    /// For lock files.
    pub lock: Option<PathBuf>,
    /// For log files.
    pub log: Option<PathBuf>,
    /// For the queues of asynchronous archiving, if that is configured.
    pub spool: Option<PathBuf>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is as it should be.
    Ok,
    /// It works and could be better.
    Advice,
    /// It works and will cause trouble.
    Warning,
    /// Backups or archiving do not work.
    Error,
}

impl Severity {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Advice => "advice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, as a word that does not change between versions.
    pub topic: &'static str,
    /// The cluster (`pg1`), repository (`repo1`) or path.
    pub subject: String,
    /// What was found.
    pub text: String,
    /// How to mend it.
    pub advice: Vec<String>,
}

impl Diagnosis {
    pub(super) fn advise(&mut self, advice: impl Into<String>) -> &mut Self {
        self.advice.push(advice.into());
        self
    }
}

/// What a diagnosis found.
#[derive(Clone, Debug)]
pub struct DiagnoseSummary {
    /// Everything that was looked at.
    pub found: Vec<Diagnosis>,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}

impl DiagnoseSummary {
    /// Returns how bad the worst of it is.
    pub fn severity(&self) -> Severity {
        self.found.iter().map(|diagnosis| diagnosis.severity).max().unwrap_or(Severity::Ok)
    }
}
