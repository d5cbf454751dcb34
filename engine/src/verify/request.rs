//! What verify is asked to do, and what it found.

use std::fmt::Write as _;
use std::time::Duration;

use repo_format::pg::PgVersion;

use super::memory::ReadFigures;
use super::report::{self, ArchiveResult, BackupResult};
use super::unread::Unread;
use crate::log::Warnings;
use crate::recovery_points::ArchivePoints;
use crate::work::crew::CrewSettings;
use crate::work::retry::RetryPolicy;
use crate::{BackupLabel, Error, ErrorCode};

/// Lines of the report in the error of [`VerifySummary::into_error`].
const REPORT_LINES_MAX: usize = 10;

/// What to check and how. [`VerifyRequest::default`] checks everything, with pgBackRest's defaults.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// Check only this backup, the backups that it refers to, and the WAL that makes it consistent.
    pub set: Option<String>,
    /// Also report what is valid.
    pub verbose: bool,
    /// Read WAL as this version, regardless of its content.
    pub pg_version_force: Option<PgVersion>,
    /// Repair info files and manifests of which either the file or the copy is damaged.
    pub repair: bool,
    /// Read only files that were not read for so long. Zero reads all.
    pub older_than: Option<Duration>,
    /// Read at most so many stored bytes: those that were read longest ago. The last file may exceed it.
    pub max_bytes: Option<u64>,
    /// Begin to read no file after this time. Files that were read longest ago come first.
    pub max_time: Option<Duration>,
    /// Also find out what the good backups and WAL allow to recover to. Not for a single set.
    pub points: bool,
    /// Number of workers.
    pub process_max: u32,
    /// How often a failed job is retried.
    pub job_retry: u32,
    /// The pause before each retry except the first.
    pub job_retry_interval: Duration,
}

impl Default for VerifyRequest {
    fn default() -> Self {
        VerifyRequest {
            set: None,
            verbose: false,
            pg_version_force: None,
            repair: false,
            older_than: None,
            max_bytes: None,
            max_time: None,
            points: false,
            process_max: 1,
            job_retry: 2,
            job_retry_interval: Duration::from_secs(15),
        }
    }
}

impl VerifyRequest {
    /// Checks only this backup, the backups that it refers to, and the WAL that makes it consistent.
    #[must_use]
    pub fn set(self, label: &BackupLabel) -> Self {
        VerifyRequest { set: Some(label.to_string()), ..self }
    }

    /// Checks with so many workers.
    #[must_use]
    pub fn process_max(self, process_max: u32) -> Self {
        VerifyRequest { process_max, ..self }
    }

    /// Returns whether what was read is remembered.
    pub fn remembers(&self) -> bool {
        self.older_than.is_some() || self.max_bytes.is_some() || self.max_time.is_some()
    }

    /// Returns whether files may be left that are to be read.
    pub(super) fn is_limited(&self) -> bool {
        self.max_bytes.is_some() || self.max_time.is_some()
    }

    pub(super) fn crew(&self) -> CrewSettings {
        CrewSettings::new(self.process_max, RetryPolicy::new(self.job_retry, self.job_retry_interval))
    }
}

/// The outcome.
#[derive(Debug)]
pub struct VerifySummary {
    /// The report, without a trailing line feed; empty if everything is valid and no details were requested.
    pub text: String,
    /// Number of faults.
    pub errors: u32,
    /// Number of info files and manifests of which either the file or the copy is damaged.
    pub half_whole: u32,
    /// What prevented their repair.
    pub failure: Option<Error>,
    /// What ended the run before all was looked at, although faults had been found. `archives` and `backups` are empty then.
    /// Without a fault it is the error of the run.
    pub ended: Option<Error>,
    /// Those of the faults that say nothing about the content, because something could not be read.
    pub unread: Unread,
    /// The first few invalid files.
    pub first_faults: Vec<String>,
    /// What was read and what not, if earlier runs are remembered.
    pub figures: Option<ReadFigures>,
    /// What the good backups and WAL allow to recover to, if it was requested and could be found out.
    pub points: Option<Vec<ArchivePoints>>,
    /// The result of each archive.
    pub archives: Vec<ArchiveResult>,
    /// The result of each backup.
    pub backups: Vec<BackupResult>,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}

impl VerifySummary {
    /// Returns whether everything is known to be valid.
    pub fn is_valid(&self) -> bool {
        self.verdict() == Some(true)
    }

    /// Returns whether everything is valid; `None` if nothing is known to be invalid, but not all was read.
    pub fn verdict(&self) -> Option<bool> {
        if self.errors > 0 || self.half_whole > 0 {
            return Some(false);
        }
        let is_open = report::is_open(&self.archives, &self.backups);
        if is_open { None } else { Some(true) }
    }

    /// Returns the error for a caller that wants one if anything is not known to be valid: [`ErrorCode::Command`] if
    /// something is invalid, and the first error if something could only not be read.
    pub fn into_error(self) -> Option<Error> {
        let faults = self.errors.saturating_add(self.half_whole);
        if faults == 0 {
            return None;
        }
        if let (Some(first), true) = (self.unread.first, self.unread.total >= faults) {
            return Some(first.context(format_args!("verify could not check everything, {faults} error(s)")));
        }
        let mut text = format!("verify found {faults} fault(s), the log has details at log level info");
        // Without the stanza and its status
        let report = self.text.lines().skip(2).map(str::trim_end).take(REPORT_LINES_MAX);
        for line in report.map(ToOwned::to_owned).chain(self.first_faults.iter().map(|fault| format!("  {fault}"))) {
            let _ = write!(text, "\n{line}");
        }
        Some(Error::new(ErrorCode::Command, text))
    }
}
