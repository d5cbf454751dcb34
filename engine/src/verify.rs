//! Checks a repository: info files, every WAL segment, every file of every backup.
//!
//! Only stored bytes are compared with their checksums; nothing is restored. The result is a report and not an error:
//! the command succeeds regardless of it. Source: pgBackRest `src/command/verify/verify.c`.

mod backup_wal;
mod contents;
#[cfg(test)]
mod facts;
mod file;
mod info_file;
mod parts;
mod plan;
mod repair;
mod report;
mod scope;
mod tally;
mod unread;
mod walk;

use std::fmt::Write as _;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Cipher;
use repo_format::layout::{self, Stanza};
use repo_format::pg::PgVersion;

use self::info_file::{FilePair, LoadedPair, Retry, Unusable};
pub use self::repair::RepairSettings;
use self::repair::{HalfWhole, PairKind};
pub use self::unread::Unread;
use crate::repo::{formats, info_files};
use crate::work::crew::CrewSettings;
use crate::{CancelToken, Error, ErrorCode, Repo, Result, info};

/// Lines of the report in the error of [`VerifySummary::into_error`].
const REPORT_LINES_MAX: usize = 10;

/// What to check and how.
#[derive(Clone, Debug)]
pub struct VerifySettings {
    /// The stanza.
    pub stanza: Stanza,
    /// Check only this backup, the backups that it refers to, and the WAL that makes it consistent.
    pub set: Option<String>,
    /// Also report what is valid.
    pub verbose: bool,
    /// Read WAL as this version, regardless of its content.
    pub pg_version_force: Option<PgVersion>,
    /// Workers and retries.
    pub crew: CrewSettings,
    /// Repair info files and manifests of which either the file or the copy is damaged.
    pub repair: Option<RepairSettings>,
}

/// The outcome.
#[derive(Debug)]
pub struct VerifySummary {
    /// The report, without a trailing line feed; empty if everything is valid and no details were requested.
    pub text: String,
    /// Number of faults.
    pub errors: u32,
    /// Number of info files and manifests of which either the file or the copy is damaged.
    pub warnings: u32,
    /// What prevented their repair.
    pub failure: Option<Error>,
    /// Those of the faults that say nothing about the content, because something could not be read.
    pub unread: Unread,
    /// The first few invalid files.
    pub first_faults: Vec<String>,
}

impl VerifySummary {
    /// The summary of a stanza that can't be checked at all.
    fn refused(stanza: &Stanza, error: &Error) -> Self {
        let text = format!("stanza: {stanza}\nstatus: error\n{error}");
        info!("{text}");
        let mut unread = Unread::default();
        unread.add("info files", error);
        VerifySummary { text, errors: 1, warnings: 0, failure: None, unread, first_faults: Vec::new() }
    }

    /// Returns the error for a caller that wants one if anything is not known to be valid: [`ErrorCode::Command`] if
    /// something is invalid, and the first error if something could only not be read.
    pub fn into_error(self) -> Option<Error> {
        let faults = self.errors.saturating_add(self.warnings);
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

/// What was found in a repository.
#[derive(Default)]
struct VerifyFindings {
    /// The lines of the report.
    text: String,
    /// Number of faults.
    errors: u32,
    /// Info files and manifests of which either the file or the copy is damaged.
    half_whole: Vec<HalfWhole>,
    unread: Unread,
    first_faults: Vec<String>,
}

impl VerifyFindings {
    fn new(text: impl Into<String>, errors: u32) -> Self {
        VerifyFindings { text: text.into(), errors, ..VerifyFindings::default() }
    }
}

/// Both info files of a stanza, as far as they can be read.
struct InfoFiles {
    backup: LoadResult<BackupInfo>,
    archive: LoadResult<ArchiveInfo>,
}

type LoadResult<T> = std::result::Result<LoadedPair<T>, Box<Unusable>>;

impl InfoFiles {
    fn load(settings: &VerifySettings, repo: &Repo, retry: Retry<'_>) -> Self {
        let pair = |path, shown: &str| FilePair { repo, path, shown: shown.to_owned(), cipher: &repo.cipher, retry };
        let backup = pair(layout::backup_info(&settings.stanza), "<REPO:BACKUP>/backup.info");
        let archive = pair(layout::archive_info(&settings.stanza), "<REPO:ARCHIVE>/archive.info");
        InfoFiles {
            backup: backup.load(&|reader, origin| BackupInfo::read(info_files::limited(reader), origin)),
            archive: archive.load(&|reader, origin| ArchiveInfo::read(info_files::limited(reader), origin)),
        }
    }

    /// Returns the files of which either the file or the copy is damaged.
    fn half_whole(&self, stanza: &Stanza) -> Vec<HalfWhole> {
        let backup = self.backup.as_ref().ok().and_then(|loaded| loaded.repair.clone());
        let archive = self.archive.as_ref().ok().and_then(|loaded| loaded.repair.clone());
        HalfWhole::of(PairKind::BackupInfo, &layout::backup_info(stanza), backup)
            .into_iter()
            .chain(HalfWhole::of(PairKind::ArchiveInfo, &layout::archive_info(stanza), archive))
            .collect()
    }

    /// Returns what is wrong with files that can't be used.
    fn unusable(&self) -> VerifyFindings {
        let mut findings = VerifyFindings::default();
        let (backup, archive) = (self.backup.as_ref().err(), self.archive.as_ref().err());
        for (what, unusable) in [("backup.info", backup), ("archive.info", archive)] {
            let Some(unusable) = unusable else { continue };
            let _ = write!(findings.text, "\n  No usable {what} file");
            findings.unread.add_pair(what, unusable);
            findings.errors += 1;
        }
        findings
    }
}

/// Checks one repository.
///
/// # Errors
/// It can't be checked: directories can't be listed. Invalid files are in the summary.
pub fn run(settings: &VerifySettings, repo: &Repo, cancel: &CancelToken) -> Result<VerifySummary> {
    let stanza = &settings.stanza;
    if let Err(error) = formats::check(repo, stanza) {
        return Ok(VerifySummary::refused(stanza, &error));
    }
    let infos = InfoFiles::load(settings, repo, Retry { policy: &settings.crew.retry, cancel });
    let mut half_whole = infos.half_whole(stanza);
    let mut manifest_cipher = Cipher::None;
    let findings = match (&infos.backup, &infos.archive) {
        (Ok(backup), Ok(archive)) => {
            manifest_cipher = info_files::manifest_cipher(&backup.content);
            let infos = contents::StanzaInfos { archive: &archive.content, backup: &backup.content };
            match check_history(&archive.content, &backup.content) {
                Ok(()) => contents::check(settings, repo, infos, cancel)?,
                Err(error) => VerifyFindings::new(format!("\n{error}"), 1),
            }
        }
        _ => infos.unusable(),
    };
    half_whole.extend(findings.half_whole);
    let (warnings, failure) = settle_half_whole(settings, repo, &half_whole, &manifest_cipher, cancel);

    let VerifyFindings { errors, unread, first_faults, .. } = findings;
    let mut text = String::new();
    if settings.verbose || errors > 0 {
        let status = if errors > 0 { "error" } else { "ok" };
        text = format!("stanza: {stanza}\nstatus: {status}{}", findings.text);
        info!("{text}");
    }
    Ok(VerifySummary { text, errors, warnings, failure, unread, first_faults })
}

/// Warns about files of which one of the two is damaged, and repairs them if requested. Returns how many remain, and
/// what prevented their repair.
fn settle_half_whole(
    settings: &VerifySettings,
    repo: &Repo,
    files: &[HalfWhole],
    manifest_cipher: &Cipher,
    cancel: &CancelToken,
) -> (u32, Option<Error>) {
    for file in files {
        file.warn(repo);
    }
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
    match &settings.repair {
        Some(repair) if !files.is_empty() => {
            let pairs = repair::Pairs { files, manifest_cipher };
            match repair::run(repair, repo, &settings.stanza, pairs, cancel) {
                Ok(left) => (left, None),
                Err(error) => (count, Some(error)),
            }
        }
        _ => (count, None),
    }
}

/// Checks that both info files list the same clusters.
fn check_history(archive_info: &ArchiveInfo, backup_info: &BackupInfo) -> Result<()> {
    crate::stanza::check_match(archive_info, backup_info)?;
    let same = archive_info.history.len() == backup_info.history.len()
        && archive_info.history.iter().zip(&backup_info.history).all(|(archive, backup)| {
            archive.id == backup.id && archive.system_id == backup.system_id && archive.version == backup.version
        });
    if same { Ok(()) } else { Err(Error::new(ErrorCode::Format, "archive and backup history lists do not match")) }
}
