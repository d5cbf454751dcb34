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
pub(crate) mod memory;
mod parts;
mod passes;
mod plan;
mod repair;
mod report;
mod request;
mod scope;
mod tally;
mod unread;
mod walk;

use std::fmt::Write as _;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Cipher;
use repo_format::layout::{self, Stanza};

pub use self::file::FileFault;
use self::info_file::{FilePair, LoadedPair, Retry, Unusable};
pub use self::memory::{ReadAmount, ReadFigures};
use self::repair::{HalfWhole, PairKind};
pub use self::report::{ArchiveResult, BackupResult, BackupStatus, SegmentRun};
pub use self::request::{VerifyRequest, VerifySummary};
pub use self::unread::Unread;
use crate::recovery_points::ArchivePoints;
use crate::repo::{formats, info_files};
use crate::session::Session;
use crate::work::crew::CrewSettings;
use crate::work::retry::{is_of_peer, is_stop};
use crate::{Error, ErrorCode, Repo, Result, info, log};

/// The status of a report without faults if not all was read.
pub const STATUS_OPEN: &str = "no fault found, not all read";

/// A run of verify on one repository.
struct VerifyTask<'a> {
    request: &'a VerifyRequest,
    session: &'a Session,
    repo: &'a Repo,
    /// Workers and retries.
    crew: CrewSettings,
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
    figures: Option<ReadFigures>,
    points: Option<Vec<ArchivePoints>>,
    archives: Vec<ArchiveResult>,
    backups: Vec<BackupResult>,
    /// Why not all was looked at.
    ended: Option<Error>,
}

impl VerifyFindings {
    fn new(text: impl Into<String>, errors: u32) -> Self {
        VerifyFindings { text: text.into(), errors, ..VerifyFindings::default() }
    }

    /// The findings of a run that an error ended before it read a file.
    ///
    /// # Errors
    /// A signal arrived.
    fn ended(error: Error) -> Result<Self> {
        if is_stop(&error) {
            return Err(error);
        }
        Ok(VerifyFindings { ended: Some(error), ..VerifyFindings::default() })
    }

    /// Makes what ended the run a fault beside those that are certain. A later failure to read the rest does not make them
    /// undone. `half_whole` is the number of files of which one of the two is damaged.
    ///
    /// # Errors
    /// What ended the run, if no fault is certain.
    fn settle_end(&mut self, half_whole: usize) -> Result<()> {
        let Some(error) = self.ended.take() else { return Ok(()) };
        let known = self.errors.saturating_sub(self.unread.total);
        if known == 0 && half_whole == 0 {
            return Err(error);
        }
        self.unread.count("the rest of the repository", &error);
        self.errors = known.saturating_add(self.unread.total);
        let _ = write!(self.text, "\n  the rest could not be checked: {error}");
        let count = known as usize + half_whole;
        let mut error = error.context(format_args!("verify found {count} fault(s), and could not check the rest"));
        self.first_faults.iter().for_each(|fault| error.message += &format!("\n  {fault}"));
        self.ended = Some(error);
        Ok(())
    }
}

/// Returns the error of a connection that has ended, if something could not be read: the file may be as it should be.
fn lost_connection(repo: &Repo, unread: &Unread) -> Option<Error> {
    if unread.total > 0 { repo.storage.connected().err() } else { None }
}

/// Both info files of a stanza, as far as they can be read.
struct InfoFiles {
    backup: LoadResult<BackupInfo>,
    archive: LoadResult<ArchiveInfo>,
}

type LoadResult<T> = std::result::Result<LoadedPair<T>, Box<Unusable>>;

impl InfoFiles {
    fn load(stanza: &Stanza, repo: &Repo, retry: Retry<'_>) -> Self {
        let pair =
            |path, shown: &str| FilePair { repo, path, shown: shown.to_owned(), cipher: repo.info_cipher(), retry };
        let backup = pair(layout::backup_info(stanza), "<REPO:BACKUP>/backup.info");
        let archive = pair(layout::archive_info(stanza), "<REPO:ARCHIVE>/archive.info");
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
    fn unusable(&self, repo: &Repo) -> VerifyFindings {
        let mut findings = VerifyFindings::default();
        let (backup, archive) = (self.backup.as_ref().err(), self.archive.as_ref().err());
        for (what, unusable) in [("backup.info", backup), ("archive.info", archive)] {
            let Some(unusable) = unusable else { continue };
            let _ = write!(findings.text, "\n  No usable {what} file");
            findings.unread.add_pair(what, unusable);
            findings.errors += 1;
        }
        findings.ended = lost_connection(repo, &findings.unread);
        findings
    }
}

/// Checks one repository.
///
/// # Errors
/// It can't be checked: directories can't be listed. Invalid files are in the summary.
pub(crate) fn run(request: &VerifyRequest, session: &Session, repo: &Repo) -> Result<VerifySummary> {
    let task = VerifyTask { request, session, repo, crew: request.crew() };
    let (verified, warnings, duration) = log::observe(|| task.run())?;
    let Verified { text, errors, half_whole, failure, unread, first_faults, figures, points, archives, backups, ended } =
        verified;
    Ok(VerifySummary {
        text,
        errors,
        half_whole,
        failure,
        ended,
        unread,
        first_faults,
        archives,
        backups,
        figures,
        points,
        warnings,
        duration,
    })
}

/// The outcome of a run, as in [`VerifySummary`].
struct Verified {
    text: String,
    errors: u32,
    half_whole: u32,
    failure: Option<Error>,
    unread: Unread,
    first_faults: Vec<String>,
    figures: Option<ReadFigures>,
    points: Option<Vec<ArchivePoints>>,
    archives: Vec<ArchiveResult>,
    backups: Vec<BackupResult>,
    ended: Option<Error>,
}

impl Verified {
    /// The outcome for a stanza that can't be checked at all.
    fn refused(stanza: &Stanza, error: &Error) -> Self {
        let text = format!("stanza: {stanza}\nstatus: error\n{error}");
        info!("{text}");
        let mut unread = Unread::default();
        unread.add("info files", error);
        Verified {
            text,
            errors: 1,
            half_whole: 0,
            failure: None,
            unread,
            first_faults: Vec::new(),
            figures: None,
            points: None,
            archives: Vec::new(),
            backups: Vec::new(),
            ended: None,
        }
    }
}

impl VerifyTask<'_> {
    fn run(&self) -> Result<Verified> {
        let (stanza, repo) = (self.session.stanza(), self.repo);
        if let Err(error) = self.retry().after_peer_fault(|| formats::check(repo, stanza)) {
            repo.storage.connected()?;
            if is_of_peer(&error) {
                return Err(error);
            }
            return Ok(Verified::refused(stanza, &error));
        }
        let infos = InfoFiles::load(stanza, repo, self.retry());
        let mut half_whole = infos.half_whole(stanza);
        let mut manifest_cipher = Cipher::None;
        let mut findings = match (&infos.backup, &infos.archive) {
            (Ok(backup), Ok(archive)) => {
                manifest_cipher = info_files::manifest_cipher(&backup.content);
                let infos = contents::StanzaInfos { archive: &archive.content, backup: &backup.content };
                match check_history(&archive.content, &backup.content) {
                    Ok(()) => contents::check(self, infos).or_else(VerifyFindings::ended)?,
                    Err(error) => VerifyFindings::new(format!("\n{error}"), 1),
                }
            }
            _ => infos.unusable(repo),
        };
        half_whole.append(&mut findings.half_whole);
        findings.settle_end(half_whole.len())?;
        let repairs = self.request.repair && findings.ended.is_none();
        let (half_whole, failure) = self.settle_half_whole(&half_whole, repairs.then_some(&manifest_cipher));

        let VerifyFindings { errors, unread, first_faults, figures, points, archives, backups, ended, .. } = findings;
        let mut text = String::new();
        if self.request.verbose || errors > 0 {
            let is_open = report::is_open(&archives, &backups);
            let status = match errors {
                0 if is_open => STATUS_OPEN,
                0 => "ok",
                _ => "error",
            };
            text = format!("stanza: {stanza}\nstatus: {status}{}", findings.text);
            info!("{text}");
        }
        Ok(Verified {
            text,
            errors,
            half_whole,
            failure,
            unread,
            first_faults,
            archives,
            backups,
            figures,
            points,
            ended,
        })
    }

    fn retry(&self) -> Retry<'_> {
        Retry { policy: &self.crew.retry, cancel: self.session.cancel_token(), repo: self.repo }
    }

    /// Warns about files of which one of the two is damaged, and repairs them if there is a cipher for manifests. Returns
    /// how many remain, and what prevented their repair.
    fn settle_half_whole(&self, files: &[HalfWhole], repair: Option<&Cipher>) -> (u32, Option<Error>) {
        for file in files {
            file.warn(self.repo);
        }
        let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
        let Some(manifest_cipher) = repair.filter(|_| !files.is_empty()) else { return (count, None) };
        match repair::run(self.session, self.repo, repair::Pairs { files, manifest_cipher }) {
            Ok(left) => (left, None),
            Err(error) => (count, Some(error)),
        }
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
