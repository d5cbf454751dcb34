//! Checks a repository: info files, every WAL segment, every file of every backup.
//!
//! Only stored bytes are compared with their checksums; nothing is restored. The result is a report and not an error:
//! the command succeeds regardless of it. Source: pgBackRest `src/command/verify/verify.c`.

mod backup_wal;
mod file;
mod info_file;
mod known;
mod plan;
mod repair;
mod report;
mod unread;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Cipher;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, ArchiveId, Stanza};
use repo_format::manifest::Manifest;
use repo_format::pg::PgVersion;

use self::file::FileChecker;
use self::info_file::{Pair, Retry, Unusable};
use self::plan::{Plan, PlanSettings, WalFilter, WalScope};
pub use self::repair::RepairSettings;
use self::repair::{HalfWhole, Kind, Repair};
use self::report::{BackupResult, BackupStatus};
use self::unread::UnopenedBundles;
pub use self::unread::Unread;
use crate::repo::{formats, info_files, manifest_store};
use crate::work::crew::{Crew, CrewSettings, Event};
use crate::work::retry::{RetryPolicy, is_about_content, is_lasting_locally};
use crate::{CancelToken, Error, ErrorCode, Repo, Result, detail, info, log, warn};

/// Jobs of one worker. Each has a decoder with its window.
const JOBS_PER_WORKER_MAX: u32 = 3;

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

/// Checks one repository.
///
/// # Errors
/// It can't be checked: directories can't be listed, or the first WAL segment has no readable header. Invalid files are
/// in the summary.
pub fn run(settings: &VerifySettings, repo: &Repo, cancel: &CancelToken) -> Result<VerifySummary> {
    let mut text = String::new();
    let mut errors = 0;
    if let Err(error) = formats::check(repo, &settings.stanza) {
        let text = format!("stanza: {}\nstatus: error\n{error}", settings.stanza);
        info!("{text}");
        let mut unread = Unread::default();
        unread.add("info files", &error);
        return Ok(VerifySummary { text, errors: 1, warnings: 0, failure: None, unread, first_faults: Vec::new() });
    }
    let retry = Retry { policy: &settings.crew.retry, cancel };
    let stanza = &settings.stanza;
    let mut half_whole = Vec::new();
    let (mut unread, mut first_faults) = (Unread::default(), Vec::new());
    let mut load_failed = |what: &str, unusable: &Unusable| {
        let _ = write!(text, "\n  No usable {what} file");
        unread.add_pair(what, unusable);
        errors += 1;
    };
    let pair = |path, shown: &str| Pair { repo, path, shown: shown.to_owned(), cipher: &repo.cipher, retry };
    let backup = pair(layout::backup_info(stanza), "<REPO:BACKUP>/backup.info");
    let backup_info = backup.load(&|reader, origin| BackupInfo::read(info_files::limited(reader), origin));
    let archive = pair(layout::archive_info(stanza), "<REPO:ARCHIVE>/archive.info");
    let archive_info = archive.load(&|reader, origin| ArchiveInfo::read(info_files::limited(reader), origin));
    let mut note = |kind, pair: Pair<'_>, repair: Option<Repair>| {
        half_whole.extend(repair.map(|repair| HalfWhole { kind, path: pair.path, repair }));
    };
    let mut manifest_cipher = None;
    match (backup_info, archive_info) {
        (Ok(backup_info), Ok(archive_info)) => {
            note(Kind::BackupInfo, backup, backup_info.repair);
            note(Kind::ArchiveInfo, archive, archive_info.repair);
            manifest_cipher = Some(info_files::manifest_cipher(&backup_info.content));
            match check_history(&archive_info.content, &backup_info.content) {
                Ok(()) => {
                    let found = verify(settings, repo, &archive_info.content, &backup_info.content, cancel)?;
                    (text, errors) = (found.text, found.errors);
                    half_whole.extend(found.half_whole);
                    (unread, first_faults) = (found.unread, found.first_faults);
                }
                Err(error) => {
                    text = format!("\n{error}");
                    errors += 1;
                }
            }
        }
        (backup_info, archive_info) => {
            match backup_info {
                Ok(found) => note(Kind::BackupInfo, backup, found.repair),
                Err(unusable) => load_failed("backup.info", &unusable),
            }
            match archive_info {
                Ok(found) => note(Kind::ArchiveInfo, archive, found.repair),
                Err(unusable) => load_failed("archive.info", &unusable),
            }
        }
    }
    let (warnings, failure) = settle_half_whole(settings, repo, &half_whole, manifest_cipher, cancel);

    if !settings.verbose && errors == 0 {
        return Ok(VerifySummary { text: String::new(), errors, warnings, failure, unread, first_faults });
    }
    let status = if errors > 0 { "error" } else { "ok" };
    let text = format!("stanza: {stanza}\nstatus: {status}{text}");
    info!("{text}");
    Ok(VerifySummary { text, errors, warnings, failure, unread, first_faults })
}

/// Warns about files of which one of the two is damaged, and repairs them if requested. Returns how many remain, and
/// what prevented their repair.
fn settle_half_whole(
    settings: &VerifySettings,
    repo: &Repo,
    files: &[HalfWhole],
    manifest_cipher: Option<Cipher>,
    cancel: &CancelToken,
) -> (u32, Option<Error>) {
    for file in files {
        file.warn(repo);
    }
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
    match &settings.repair {
        Some(repair) if !files.is_empty() => {
            let cipher = manifest_cipher.unwrap_or_default();
            match repair::run(repair, repo, &settings.stanza, files, &cipher, cancel) {
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

/// The results of archives and backups.
#[derive(Default)]
struct Findings {
    /// The lines of the report.
    text: String,
    /// Number of faults.
    errors: u32,
    /// Manifests of which either the file or the copy is damaged.
    half_whole: Vec<HalfWhole>,
    unread: Unread,
    first_faults: Vec<String>,
}

impl Findings {
    fn new(text: impl Into<String>, errors: u32) -> Self {
        Findings { text: text.into(), errors, ..Findings::default() }
    }
}

/// Checks archives and backups.
fn verify(
    settings: &VerifySettings,
    repo: &Repo,
    archive_info: &ArchiveInfo,
    backup_info: &BackupInfo,
    cancel: &CancelToken,
) -> Result<Findings> {
    let stanza = &settings.stanza;
    let retry = Retry { policy: &settings.crew.retry, cancel };
    if let Some(set) = settings.set.as_ref().filter(|set| !BackupLabel::is_label(set)) {
        return Ok(Findings::new(format!("\n  '{set}' is not a valid backup label format"), 1));
    }
    let mut labels = list_labels(settings, repo)?;
    for label in labels.iter().filter(|label| !backup_info.backups.contains_key(label)) {
        // It may be left over from an interrupted expire
        warn!("backup '{label}' found in the repository but not in backup.info");
    }
    if let Some(set) = settings.set.as_ref().filter(|_| labels.is_empty()) {
        return Ok(Findings::new(format!("\n  backup set {set} is not valid"), 1));
    }
    let archive_ids = list_archive_ids(stanza, repo)?;

    let manifest_cipher = info_files::manifest_cipher(backup_info);
    let mut wal = WalScope::All;
    if settings.set.is_some() {
        let needs = labels.first().cloned().map(|label| {
            let manifest = retry.run(|| manifest_store::load(repo, stanza, &label, &manifest_cipher));
            set_needs(manifest, &mut labels)
        });
        wal = WalScope::Backup(needs.transpose()?.flatten());
    } else {
        let on_disk: BTreeSet<BackupLabel> = labels.iter().cloned().collect();
        for label in backup_info.backups.keys().filter(|label| !on_disk.contains(label)) {
            warn!("backup '{label}' found in backup.info but not in the repository");
            labels.push(label.clone());
        }
    }
    labels.sort();
    if archive_ids.is_empty() && labels.is_empty() {
        return Ok(Findings::new("\n    no archives or backups exist in the repo", 0));
    }
    if archive_ids.is_empty() || labels.is_empty() {
        detail!("no {} exist in the repo", if archive_ids.is_empty() { "archives" } else { "backups" });
    }

    let current_backup = labels.last().filter(|label| !backup_info.backups.contains_key(label)).cloned();
    let mut errors = check_archive_ids(&archive_ids, archive_info);
    let checks_wal = !matches!(wal, WalScope::Backup(None));
    let plan_settings = PlanSettings {
        repo,
        stanza,
        archive_cipher: info_files::archive_cipher(archive_info),
        manifest_cipher,
        history: &archive_info.history,
        version_force: settings.pg_version_force,
        retry,
        current_backup,
        wal,
    };
    let plan = Mutex::new(Plan::new(plan_settings, archive_ids, labels));
    check_files(settings, repo, &plan, cancel)?;

    let mut plan = plan.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = plan.failure.take() {
        return Err(error);
    }
    plan.settle();
    if log::shows_detail() {
        for archive in plan.archives.iter().filter(|archive| archive.total > 0) {
            for range in &archive.ranges {
                detail!("archiveId: {}, wal start: {}, wal stop: {}", archive.id, range.start, range.stop);
            }
        }
    }
    errors += plan.errors;
    // Expire may have removed a backup without a manifest together with its WAL
    let is_wanted = |backup: &&mut BackupResult| {
        backup.status != BackupStatus::ManifestMissing
            && settings.set.as_ref().is_none_or(|set| checks_wal && set == backup.label.as_ref())
    };
    for backup in plan.backups.iter_mut().filter(is_wanted) {
        if let Some(entry) = backup_info.backups.get(&backup.label)
            && !backup_wal::check(backup, entry, &archive_info.history, &plan.archives)
        {
            errors += 1;
        }
    }
    let text = report::render(&plan.archives, &plan.backups, settings.verbose);
    Ok(Findings { text, errors, half_whole: plan.half_whole, unread: plan.unread, first_faults: plan.first_faults })
}

/// Returns backups with a directory, in order, or only the requested one.
fn list_labels(settings: &VerifySettings, repo: &Repo) -> Result<Vec<BackupLabel>> {
    let entries = repo.storage.list(&layout::backup_stanza(&settings.stanza))?.unwrap_or_default();
    let wanted = |name: &str| settings.set.as_ref().is_none_or(|set| set == name);
    Ok(entries.iter().filter(|entry| wanted(&entry.name)).filter_map(|entry| entry.name.parse().ok()).collect())
}

/// Returns directories of clusters in the archive, in the order of their numbers.
fn list_archive_ids(stanza: &Stanza, repo: &Repo) -> Result<Vec<String>> {
    let entries = repo.storage.list(&layout::archive_stanza(stanza))?.unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |name: &str| {
        let (version, id) = name.split_once('-')?;
        let is_id = version.split('.').all(digits) && digits(id);
        if is_id { id.parse::<u32>().ok() } else { None }
    };
    let mut ids: Vec<(u32, String)> =
        entries.into_iter().filter_map(|entry| Some((number(&entry.name)?, entry.name))).collect();
    ids.sort_by_key(|(number, _)| *number);
    Ok(ids.into_iter().map(|(_, name)| name).collect())
}

/// Determines what a single backup needs: with block maps, all backups that it refers to, which are added to `labels`;
/// and its WAL.
///
/// # Errors
/// The manifest could not be read for a reason that says nothing about it, such as a server that does not answer.
fn set_needs(manifest: Result<Manifest>, labels: &mut Vec<BackupLabel>) -> Result<Option<WalFilter>> {
    let manifest = match manifest {
        Ok(manifest) => manifest,
        // The backup is reported as invalid later, and no WAL belongs to it
        Err(error) if is_about_content(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if manifest.files.iter().any(|file| file.stored_blocks().is_some()) {
        labels.extend(manifest.references.iter().cloned());
        labels.sort();
        labels.dedup();
    }
    let data = &manifest.data;
    let (Some(first), Some(last)) = (data.archive_start, data.archive_stop) else { return Ok(None) };
    let archive_id = ArchiveId { version: data.pg_version, id: data.pg_id }.to_string();
    Ok(Some(WalFilter { archive_id, first: first.to_string(), last: last.to_string() }))
}

/// Reports clusters in the archive that archive.info does not list. Returns the number of errors.
fn check_archive_ids(archive_ids: &[String], archive_info: &ArchiveInfo) -> u32 {
    let unknown: Vec<&str> = archive_ids
        .iter()
        .filter(|id| !archive_info.history.iter().any(|pg| pg.archive_id().to_string() == **id))
        .map(String::as_str)
        .collect();
    if unknown.is_empty() {
        return 0;
    }
    info!("archiveIds '{}' are not in the archive.info history list", unknown.join(", "));
    1
}

/// Checks all files of the plan.
fn check_files(settings: &VerifySettings, repo: &Repo, plan: &Mutex<Plan<'_>>, cancel: &CancelToken) -> Result<()> {
    let lock = || plan.lock().unwrap_or_else(PoisonError::into_inner);
    let unopened = UnopenedBundles::default();
    // A file that can't be checked is a result here, and is checked again below
    let crew = CrewSettings {
        jobs_per_worker: repo.storage.concurrency().jobs_per_worker.min(JOBS_PER_WORKER_MAX),
        retry: RetryPolicy::NONE,
        ..settings.crew.clone()
    };
    let storage = &*repo.storage;
    let is_answer = |error: &Error| storage.features().errors_last && is_lasting_locally(error);
    Crew { settings: &crew, cancel }.run(
        |_| Ok(lock().next()),
        |_| Ok(FileChecker::new()),
        |checker, job, cancel| {
            let check = || checker.check(storage, &job.check, cancel);
            let result = unopened.check(&job.check, || settings.crew.retry.run_to_answer(cancel, is_answer, check));
            cancel.check()?;
            Ok(result)
        },
        |event| {
            if let Event::Done { worker, job, result } = event {
                lock().add_result(worker, &job, result?);
            }
            Ok(())
        },
    )
}
