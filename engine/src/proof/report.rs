//! The report of a test restore, and its JSON form.
//!
//! `docs/proof.md` describes the JSON form for users. A reader accepts members that it does not know. A change that
//! existing readers would misunderstand needs a new [`FORMAT`].

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, Result};

/// The format number of reports.
pub const FORMAT: u32 = 1;

/// The maximum length of a text that comes from a program or a server, in bytes. Longer texts lose their middle.
pub const TEXT_BYTES_MAX: usize = 4096;

/// The checks that look for damage of every page and index.
const DEEP_CHECKS: [&str; 2] = ["amcheck", "checksums"];

/// Whether a backup was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// PostgreSQL recovered, and no check failed.
    Passed,
    /// Anything else.
    Failed,
}

impl Verdict {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// The check found nothing wrong.
    Passed,
    /// The check found something wrong, or it could not be completed.
    Failed,
    /// The check did not run, for the reason in its detail.
    Skipped,
}

impl CheckOutcome {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            CheckOutcome::Passed => "passed",
            CheckOutcome::Failed => "failed",
            CheckOutcome::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckReport {
    /// Its name, such as `amcheck`.
    pub name: String,
    /// Its outcome.
    pub result: CheckOutcome,
    /// What it found, or why it did not run.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// The backup that was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackupFacts {
    /// Its label.
    pub label: String,
    /// When it stopped, in seconds since the epoch.
    pub stop: i64,
    /// Bytes of all files.
    pub size: u64,
    /// Number of files.
    pub files: u64,
    /// SHA-256 of the manifest's text, in hexadecimal digits.
    pub manifest_sha256: String,
}

/// A position in the WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WalPosition {
    /// The timeline.
    pub timeline: u32,
    /// The LSN, as PostgreSQL writes it.
    pub lsn: String,
    /// The commit time of the last transaction that was replayed, as PostgreSQL writes it, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// How far the backup was recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecoveryFacts {
    /// The type of the target, as in the option `type`; `none` for an offline backup.
    pub target_type: String,
    /// The target, if the type has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The first WAL segment that the backup needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_start: Option<String>,
    /// The newest WAL segment of the timeline that was in the archive when the test began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_newest: Option<String>,
    /// Where recovery ended; `None` if it did not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<WalPosition>,
}

/// How long each phase took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Phases {
    /// Choosing the backup, reading its manifest and looking for WAL.
    pub plan_ms: u64,
    /// Restoring the files.
    pub restore_ms: u64,
    /// From the start of PostgreSQL until it accepts writes.
    pub recovery_ms: u64,
    /// All checks.
    pub checks_ms: u64,
}

impl Phases {
    /// The recovery time: what passes until the restored cluster accepts writes, in milliseconds.
    pub fn rto_ms(&self) -> u64 {
        self.plan_ms + self.restore_ms + self.recovery_ms
    }
}

/// The programs that took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Versions {
    /// This program.
    pub rbr: String,
    /// The PostgreSQL server that recovered the backup, as it calls itself.
    pub postgresql: String,
}

/// The report of a test restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProofReport {
    /// [`FORMAT`].
    pub format: u32,
    /// The stanza.
    pub stanza: String,
    /// The number of the repository on the host that ran the test.
    pub repo: u32,
    /// The cluster's system identifier.
    pub system_id: u64,
    /// The host that ran the test.
    pub host: String,
    /// When the test began, in seconds since the epoch.
    pub start: i64,
    /// When it ended, in seconds since the epoch.
    pub stop: i64,
    /// Whether the backup is proven.
    pub result: Verdict,
    /// What failed first; `None` if nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The backup.
    pub backup: BackupFacts,
    /// How far it was recovered.
    pub recovery: RecoveryFacts,
    /// How long the phases took.
    pub phases: Phases,
    /// The recovery time, in milliseconds: 0 if the cluster did not recover.
    pub rto_ms: u64,
    /// All checks, in the order in which they ran.
    pub checks: Vec<CheckReport>,
    /// The programs.
    pub versions: Versions,
    /// What differs from the original cluster.
    pub notes: Vec<String>,
}

impl ProofReport {
    /// Decides from the checks whether the backup is proven.
    #[must_use]
    pub fn judged(mut self) -> Self {
        let failed = self.checks.iter().find(|check| check.result == CheckOutcome::Failed);
        self.reason = match failed {
            Some(check) => Some(format!("{}: {}", check.name, check.detail)),
            // Nothing was proven without a server that runs
            None if self.recovery.reached.is_none() => Some("the cluster did not recover".to_owned()),
            None => None,
        };
        self.result = if self.reason.is_none() { Verdict::Passed } else { Verdict::Failed };
        let has_recovered = self.recovery.reached.is_some();
        self.rto_ms = if has_recovered { self.phases.rto_ms() } else { 0 };
        self
    }

    /// The checks of every page and index that did not run, because they were not wanted or not possible. Without them
    /// damage of heaps and indexes is not looked for.
    pub fn without(&self) -> Vec<&'static str> {
        let has_run =
            |name: &str| self.checks.iter().any(|check| check.name == name && check.result != CheckOutcome::Skipped);
        DEEP_CHECKS.into_iter().filter(|name| !has_run(name)).collect()
    }

    /// The verdict in a few words: `passed`, `passed without amcheck, checksums` or `failed`.
    pub fn verdict(&self) -> String {
        let without = self.without();
        match self.result {
            Verdict::Passed if !without.is_empty() => format!("passed without {}", without.join(", ")),
            result => result.word().to_owned(),
        }
    }

    /// Returns the JSON form on one line, without a line feed.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`] if the report can't be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(json_error)
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`] if it is not a report, [`ErrorCode::Format`] if it has another format.
    pub fn from_json(text: &str) -> Result<Self> {
        /// The only member that every format has.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_str(text).map_err(json_error)?;
        if head.format != FORMAT {
            let text = format!("format {} of a proof is not supported, only {FORMAT}", head.format);
            return Err(Error::new(ErrorCode::Format, text));
        }
        serde_json::from_str(text).map_err(json_error)
    }
}

fn json_error(error: serde_json::Error) -> Error {
    Error::new(ErrorCode::JsonFormat, format!("invalid proof: {error}")).cause(error)
}

/// Shortens a text to [`TEXT_BYTES_MAX`]. Its beginning and its end stay.
pub fn shortened(text: &str) -> String {
    let text = text.trim();
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let is_boundary = |&index: &usize| text.is_char_boundary(index);
    let half = TEXT_BYTES_MAX / 2;
    let head = (0..=half).rev().find(is_boundary).unwrap_or(0);
    let tail = (text.len() - half..=text.len()).find(is_boundary).unwrap_or(text.len());
    format!("{}\n[...]\n{}", &text[..head], &text[tail..])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn check(name: &str, result: CheckOutcome) -> CheckReport {
        CheckReport { name: name.to_owned(), result, detail: "what it found".to_owned(), duration_ms: 7 }
    }

    pub(crate) fn report(checks: Vec<CheckReport>) -> ProofReport {
        let reached = WalPosition { timeline: 1, lsn: "0/5000028".to_owned(), time: None };
        ProofReport {
            format: FORMAT,
            stanza: "demo".to_owned(),
            repo: 1,
            system_id: 7_345_678_901_234_567_890,
            host: "db2".to_owned(),
            start: 1_700_000_000,
            stop: 1_700_000_010,
            result: Verdict::Failed,
            reason: None,
            backup: BackupFacts {
                label: "20231114-220000F".to_owned(),
                stop: 1_699_999_999,
                size: 30_000_000,
                files: 990,
                manifest_sha256: "00ff".to_owned(),
            },
            recovery: RecoveryFacts {
                target_type: "default".to_owned(),
                reached: Some(reached),
                ..RecoveryFacts::default()
            },
            phases: Phases { plan_ms: 1, restore_ms: 20, recovery_ms: 300, checks_ms: 4000 },
            rto_ms: 0,
            checks,
            versions: Versions { rbr: "0.1.0".to_owned(), postgresql: "15.4".to_owned() },
            notes: Vec::new(),
        }
        .judged()
    }

    #[test]
    fn report_without_failed_checks_passes_and_has_a_recovery_time() {
        let report = report(vec![check("connect", CheckOutcome::Passed), check("amcheck", CheckOutcome::Skipped)]);
        assert_eq!((report.result, report.reason, report.rto_ms), (Verdict::Passed, None, 321));
    }

    #[test]
    fn verdict_names_the_checks_that_did_not_run() {
        let both = report(vec![check("amcheck", CheckOutcome::Passed), check("checksums", CheckOutcome::Passed)]);
        assert_eq!(both.verdict(), "passed");
        let neither = report(vec![check("amcheck", CheckOutcome::Skipped)]);
        assert_eq!(neither.verdict(), "passed without amcheck, checksums");
        let failed = report(vec![check("sql", CheckOutcome::Failed)]);
        assert_eq!(failed.verdict(), "failed");
    }

    #[test]
    fn report_with_a_failed_check_fails_for_the_first_one() {
        let checks = vec![
            check("connect", CheckOutcome::Passed),
            check("amcheck", CheckOutcome::Failed),
            check("sql", CheckOutcome::Failed),
        ];
        let report = report(checks);
        assert_eq!((report.result, report.reason.as_deref()), (Verdict::Failed, Some("amcheck: what it found")));
    }

    #[test]
    fn report_without_recovery_never_passes() {
        let mut report = report(Vec::new());
        report.recovery.reached = None;
        let report = report.judged();
        assert_eq!((report.result, report.rto_ms), (Verdict::Failed, 0));
        assert!(report.reason.is_some());
    }

    #[test]
    fn json_form_is_one_line_and_is_read_back() {
        let report = report(vec![check("line\nfeed", CheckOutcome::Failed)]);
        let json = report.to_json().unwrap();
        assert!(!json.contains('\n'));
        assert_eq!(ProofReport::from_json(&json).unwrap(), report);
    }

    #[test]
    fn json_of_later_programs_with_more_members_is_read() {
        let report = report(Vec::new());
        let json = report.to_json().unwrap().replacen('{', "{\"more\":[1],", 1);
        assert_eq!(ProofReport::from_json(&json).unwrap(), report);
    }

    #[test]
    fn json_of_another_format_is_refused_and_says_so() {
        let json = "{\"format\":2,\"stanza\":7}";
        let error = ProofReport::from_json(json).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
        assert!(error.message.contains("format 2"), "{error}");
        assert_eq!(ProofReport::from_json("[]").unwrap_err().code, ErrorCode::JsonFormat);
    }

    #[test]
    fn long_text_keeps_its_beginning_and_its_end() {
        let text = format!("begin{}end", "ä".repeat(TEXT_BYTES_MAX));
        let short = shortened(&text);
        assert!(short.len() < TEXT_BYTES_MAX + 16);
        assert!(short.starts_with("begin") && short.ends_with("end"), "{short}");
        assert_eq!(shortened(" few \n"), "few");
    }
}
