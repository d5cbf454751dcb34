//! Checks a repository: info files, every WAL segment, every file of every backup.
//!
//! Only stored bytes are compared with their checksums; nothing is restored. What is found is a report, not an error: the
//! command succeeds whatever it says. Source: pgBackRest `src/command/verify/verify.c`.

mod file;
mod info_file;
mod plan;
mod report;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};
use repo_format::pg::PgVersion;

use self::file::FileChecker;
use self::plan::{Plan, PlanSettings, WalFilter};
use crate::job_queue::{self, Event, QueueSettings};
use crate::log::{self, Level};
use crate::repo::{info_files, manifest_store};
use crate::{CancelToken, Error, ErrorCode, Repo, Result, detail, info, warn};

/// The most bytes of an info file, far above any honest one.
const INFO_SIZE_MAX: u64 = 1 << 30;

/// Threads of each worker where the repository is on a server. Each has a decoder with its window.
const THREADS_REMOTE: u32 = 3;

/// What to check and how.
#[derive(Clone, Debug)]
pub struct VerifySettings {
    /// The stanza.
    pub stanza: Stanza,
    /// Check only this backup, what it refers to and the WAL that makes it consistent.
    pub set: Option<String>,
    /// Report also what is right.
    pub verbose: bool,
    /// Take WAL for this version's whatever it says.
    pub pg_version_force: Option<PgVersion>,
    /// Workers and retries.
    pub queue: QueueSettings,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifySummary {
    /// The report, without a line feed at its end; empty when all is right and nothing else was asked for.
    pub text: String,
    /// Number of faults.
    pub errors: u32,
}

/// Checks one repository.
///
/// # Errors
/// It can't be checked: directories can't be listed, or the first WAL segment has no readable header. Faults of files are in
/// the summary.
pub fn run(settings: &VerifySettings, repo: &Repo, cancel: &CancelToken) -> Result<VerifySummary> {
    let mut text = String::new();
    let mut errors = 0;
    let backup_info = info_file::usable(repo, &layout::backup_info(&settings.stanza), "<REPO:BACKUP>", |reader| {
        BackupInfo::parse(&info_file::text(reader, INFO_SIZE_MAX)?)
    });
    if backup_info.is_none() {
        text.push_str("\n  No usable backup.info file");
        errors += 1;
    }
    let archive_info = info_file::usable(repo, &layout::archive_info(&settings.stanza), "<REPO:ARCHIVE>", |reader| {
        ArchiveInfo::parse(&info_file::text(reader, INFO_SIZE_MAX)?)
    });
    if archive_info.is_none() {
        text.push_str("\n  No usable archive.info file");
        errors += 1;
    }
    if let (Some(archive_info), Some(backup_info)) = (archive_info, backup_info) {
        match check_history(&archive_info, &backup_info) {
            Ok(()) => (text, errors) = verify(settings, repo, &archive_info, &backup_info, cancel)?,
            Err(error) => {
                text = format!("\n{error}");
                errors += 1;
            }
        }
    }

    if !settings.verbose && errors == 0 {
        return Ok(VerifySummary { text: String::new(), errors });
    }
    let status = if errors > 0 { "error" } else { "ok" };
    let text = format!("stanza: {}\nstatus: {status}{text}", settings.stanza);
    info!("{text}");
    Ok(VerifySummary { text, errors })
}

/// Both info files must tell of the same clusters.
fn check_history(archive_info: &ArchiveInfo, backup_info: &BackupInfo) -> Result<()> {
    crate::stanza::check_match(archive_info, backup_info)?;
    let same = archive_info.history.len() == backup_info.history.len()
        && archive_info.history.iter().zip(&backup_info.history).all(|(archive, backup)| {
            archive.id == backup.id && archive.system_id == backup.system_id && archive.version == backup.version
        });
    if same { Ok(()) } else { Err(Error::new(ErrorCode::Format, "archive and backup history lists do not match")) }
}

/// Checks archives and backups; returns the lines of the report and the number of faults.
fn verify(
    settings: &VerifySettings,
    repo: &Repo,
    archive_info: &ArchiveInfo,
    backup_info: &BackupInfo,
    cancel: &CancelToken,
) -> Result<(String, u32)> {
    let stanza = &settings.stanza;
    if let Some(set) = settings.set.as_ref().filter(|set| !BackupLabel::is_label(set)) {
        return Ok((format!("\n  '{set}' is not a valid backup label format"), 1));
    }
    let mut labels = list_labels(settings, repo)?;
    for label in labels.iter().filter(|label| !backup_info.backups.contains_key(label)) {
        // It may be left from an expire that was cut off
        warn!("backup '{label}' found in the repository but not in backup.info");
    }
    if let Some(set) = settings.set.as_ref().filter(|_| labels.is_empty()) {
        return Ok((format!("\n  backup set {set} is not valid"), 1));
    }
    let archive_ids = list_archive_ids(stanza, repo)?;

    let manifest_cipher = info_files::manifest_cipher(backup_info);
    let mut wal_filter = None;
    if settings.set.is_some() {
        let label = labels.first().cloned();
        wal_filter = Some(label.and_then(|label| set_needs(stanza, repo, &label, &manifest_cipher, &mut labels)));
    } else {
        for label in backup_info.backups.keys().filter(|label| !labels.contains(label)).cloned().collect::<Vec<_>>() {
            warn!("backup '{label}' found in backup.info but not in the repository");
            labels.push(label);
        }
    }
    labels.sort();
    if archive_ids.is_empty() && labels.is_empty() {
        return Ok(("\n    no archives or backups exist in the repo".to_owned(), 0));
    }
    if archive_ids.is_empty() || labels.is_empty() {
        detail!("no {} exist in the repo", if archive_ids.is_empty() { "archives" } else { "backups" });
    }

    let current_backup = labels.last().filter(|label| !backup_info.backups.contains_key(label)).cloned();
    let mut errors = check_archive_ids(&archive_ids, archive_info);
    let plan_settings = PlanSettings {
        repo,
        stanza,
        archive_cipher: info_files::archive_cipher(archive_info),
        manifest_cipher,
        history: &archive_info.history,
        version_force: settings.pg_version_force,
        process_max: settings.queue.process_max,
        current_backup,
        wal_filter,
    };
    let plan = Mutex::new(Plan::new(plan_settings, archive_ids, labels));
    check_files(settings, repo, &plan, cancel)?;

    let mut plan = plan.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = plan.failure.take() {
        return Err(error);
    }
    plan.settle();
    if log::enabled(Level::Detail) {
        for archive in plan.archives.iter().filter(|archive| archive.total > 0) {
            for range in &archive.ranges {
                detail!("archiveId: {}, wal start: {}, wal stop: {}", archive.id, range.start, range.stop);
            }
        }
    }
    errors += plan.errors;
    Ok((report::render(&plan.archives, &plan.backups, settings.verbose), errors))
}

/// Backups that have a directory, in order; only the one asked for, if one was.
fn list_labels(settings: &VerifySettings, repo: &Repo) -> Result<Vec<BackupLabel>> {
    let entries = repo.storage.list(&layout::backup_stanza(&settings.stanza))?.unwrap_or_default();
    let wanted = |name: &str| settings.set.as_ref().is_none_or(|set| set == name);
    Ok(entries.iter().filter(|entry| wanted(&entry.name)).filter_map(|entry| entry.name.parse().ok()).collect())
}

/// Directories of clusters in the archive, in the order of their numbers.
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

/// What a single backup needs: with block maps, all backups that it refers to, which are added to `labels`; and its WAL.
fn set_needs(
    stanza: &Stanza,
    repo: &Repo,
    label: &BackupLabel,
    cipher: &repo_format::cipher::Cipher,
    labels: &mut Vec<BackupLabel>,
) -> WalFilter {
    // Without a manifest the backup is reported as invalid later, and no WAL belongs to it
    let manifest = manifest_store::load(repo, stanza, label, cipher).ok()?;
    if manifest.files.iter().any(|file| file.block.is_some_and(|block| block.map_size != 0)) {
        for reference in &manifest.references {
            if !labels.contains(reference) {
                labels.push(reference.clone());
            }
        }
    }
    Some((manifest.data.archive_start?.to_string(), manifest.data.archive_stop?.to_string()))
}

/// Clusters in the archive that archive.info knows nothing of; returns the number of faults.
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

/// Checks all files that the plan gives out.
fn check_files(settings: &VerifySettings, repo: &Repo, plan: &Mutex<Plan<'_>>, cancel: &CancelToken) -> Result<()> {
    let lock = || plan.lock().unwrap_or_else(PoisonError::into_inner);
    // A file that can't be checked is a result here, so the queue sees no errors and its retries are done below
    let retries: &[Duration] = &settings.queue.retry_intervals;
    let queue = QueueSettings { retry_intervals: Vec::new(), ..settings.queue.clone() }
        .for_reading(&*repo.storage, THREADS_REMOTE);
    job_queue::run(
        &queue,
        cancel,
        std::iter::from_fn(|| lock().next()),
        |_| Ok(FileChecker::new()),
        |checker, job, cancel| {
            let result = job_queue::with_retries(retries, cancel, || checker.check(&*repo.storage, &job.check, cancel));
            cancel.check()?;
            Ok(result)
        },
        |event| {
            if let Event::Done { worker, job, result } = event {
                match result {
                    Ok(fault) => lock().add_result(worker, &job, fault, None),
                    Err(error) => lock().add_result(worker, &job, None, Some(&error)),
                }
            }
            Ok(())
        },
    )
}
