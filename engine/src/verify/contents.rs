//! Checks the archives and backups of a stanza whose info files can be used.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};

use super::file::FileChecker;
use super::plan::{Plan, PlanSettings};
use super::report::{self, BackupStatus};
use super::scope::{Scope, WalScope};
use super::tally::{Tally, VerifyJob};
use super::unread::UnopenedBundles;
use super::walk::{Walk, WalkSettings};
use super::{VerifyFindings, VerifyRequest, VerifyTask, backup_wal};
use crate::repo::{info_files, manifest_store};
use crate::storage::on_turn::OnTurn;
use crate::work::crew::{Crew, CrewSettings, Event};
use crate::work::retry::{RetryPolicy, is_lasting_locally};
use crate::{Error, Repo, Result, detail, info, log, warn};

/// Jobs of one worker. Each has a decoder with its window.
const JOBS_PER_WORKER_MAX: u32 = 3;

/// The info files of a stanza.
#[derive(Clone, Copy)]
pub(super) struct StanzaInfos<'a> {
    pub archive: &'a ArchiveInfo,
    pub backup: &'a BackupInfo,
}

/// Checks archives and backups.
///
/// # Errors
/// Directories can't be listed, or the manifest of the requested set can't be read now.
pub(super) fn check(task: &VerifyTask<'_>, infos: StanzaInfos<'_>) -> Result<VerifyFindings> {
    let (request, stanza, repo) = (task.request, task.session.stanza(), task.repo);
    if let Some(set) = request.set.as_ref().filter(|set| !BackupLabel::is_label(set)) {
        return Ok(VerifyFindings::new(format!("\n  '{set}' is not a valid backup label format"), 1));
    }
    let labels = list_labels(task)?;
    for label in labels.iter().filter(|label| !infos.backup.backups.contains_key(label)) {
        // It may be left over from an interrupted expire
        warn!("backup '{label}' found in the repository but not in backup.info");
    }
    if let Some(set) = request.set.as_ref().filter(|_| labels.is_empty()) {
        return Ok(VerifyFindings::new(format!("\n  backup set {set} is not valid"), 1));
    }
    let archive_ids = list_archive_ids(stanza, repo)?;
    let retry = task.retry();
    let manifest_cipher = info_files::manifest_cipher(infos.backup);
    let scope = match labels.first() {
        Some(label) if request.set.is_some() => {
            let manifest = retry.run(|| manifest_store::load(repo, stanza, label, &manifest_cipher));
            Scope::of_set(label.clone(), manifest)?
        }
        _ => everything(labels, infos.backup),
    };
    if archive_ids.is_empty() && scope.labels.is_empty() {
        return Ok(VerifyFindings::new("\n    no archives or backups exist in the repo", 0));
    }
    if archive_ids.is_empty() || scope.labels.is_empty() {
        detail!("no {} exist in the repo", if archive_ids.is_empty() { "archives" } else { "backups" });
    }

    let errors = check_archive_ids(&archive_ids, infos.archive);
    let checks_wal = scope.wal != WalScope::None;
    let walk_settings = WalkSettings {
        repo,
        stanza,
        archive_cipher: info_files::archive_cipher(infos.archive),
        manifest_cipher,
        version_force: request.pg_version_force,
        retry,
        current_backup: scope.labels.last().filter(|label| !infos.backup.backups.contains_key(label)).cloned(),
    };
    let mut walk = Walk::new(walk_settings, archive_ids, scope);
    let mut tally = check_files(task, &mut walk, infos.archive)?;
    log_ranges(&tally);
    let missing_wal = if checks_wal { check_backup_wal(request, infos, &mut tally) } else { 0 };
    Ok(VerifyFindings {
        text: report::render(&tally.archives, &tally.backups, request.verbose),
        errors: errors + tally.errors + missing_wal,
        half_whole: walk.half_whole,
        unread: tally.unread,
        first_faults: tally.first_faults,
        archives: tally.archives,
        backups: tally.backups,
    })
}

/// Everything in the repository, with a warning about each backup that has no directory.
fn everything(labels: Vec<BackupLabel>, backup_info: &BackupInfo) -> Scope {
    let on_disk: BTreeSet<&BackupLabel> = labels.iter().collect();
    for label in backup_info.backups.keys().filter(|label| !on_disk.contains(label)) {
        warn!("backup '{label}' found in backup.info but not in the repository");
    }
    Scope::all(labels, backup_info.backups.keys().cloned())
}

/// Returns backups with a directory, in order, or only the requested one.
fn list_labels(task: &VerifyTask<'_>) -> Result<Vec<BackupLabel>> {
    let entries = task.repo.storage.list(&layout::backup_stanza(task.session.stanza()))?.unwrap_or_default();
    let wanted = |name: &str| task.request.set.as_ref().is_none_or(|set| set == name);
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

/// Checks all files that the walk leads to.
fn check_files(task: &VerifyTask<'_>, walk: &mut Walk<'_>, archive_info: &ArchiveInfo) -> Result<Tally> {
    let (repo, cancel) = (walk.repo(), task.session.cancel_token());
    let mut plan = Plan::new(PlanSettings {
        stanza: task.session.stanza(),
        archive_cipher: info_files::archive_cipher(archive_info),
        history: &archive_info.history,
    });
    // Only locked to count, so that results never wait for the repository
    let tally = Mutex::new(Tally::default());
    let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    let unopened = UnopenedBundles::default();
    // A file that can't be checked is a result here, and is checked again below
    let crew = CrewSettings {
        jobs_per_worker: repo.storage.concurrency().jobs_per_worker.min(JOBS_PER_WORKER_MAX),
        retry: RetryPolicy::NONE,
        ..task.crew.clone()
    };
    let storage = &*repo.storage;
    let is_answer = |error: &Error| storage.features().errors_last && is_lasting_locally(error);
    Crew { settings: &crew, cancel }.run(
        |_| next_job(walk, &mut plan, &tally),
        |_, turn| Ok((FileChecker::new(turn), turn.clone())),
        |(checker, turn), job, cancel| {
            let storage = OnTurn::new(storage, turn);
            let check = || checker.check(&storage, &job.check, cancel);
            let pause = |interval| turn.waiting(|| cancel.sleep(interval));
            let result = unopened.check(&job.check, || task.crew.retry.run_to_answer(pause, is_answer, check));
            cancel.check()?;
            Ok(result)
        },
        |event| {
            if let Event::Done { worker, job, result } = event {
                lock().add_result(worker, &job, result?);
            }
            Ok(())
        },
    )?;
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.settle();
    Ok(tally)
}

/// Returns the next file to check.
fn next_job(walk: &mut Walk<'_>, plan: &mut Plan<'_>, tally: &Mutex<Tally>) -> Result<Option<VerifyJob>> {
    loop {
        while let Some(step) = plan.next()? {
            let job = tally.lock().unwrap_or_else(PoisonError::into_inner).take(step);
            if job.is_some() {
                return Ok(job);
            }
        }
        match walk.next()? {
            Some(fact) => plan.add(fact),
            None => return Ok(None),
        }
    }
}

fn log_ranges(tally: &Tally) {
    if !log::shows_detail() {
        return;
    }
    for archive in tally.archives.iter().filter(|archive| archive.total > 0) {
        for range in &archive.ranges {
            detail!("archiveId: {}, wal start: {}, wal stop: {}", archive.id, range.start, range.stop);
        }
    }
}

/// Looks for missing WAL of the backups. Returns the number of errors.
fn check_backup_wal(request: &VerifyRequest, infos: StanzaInfos<'_>, tally: &mut Tally) -> u32 {
    let Tally { archives, backups, .. } = tally;
    let mut errors = 0;
    for backup in backups {
        // Expire may have removed a backup without a manifest together with its WAL
        let is_wanted = backup.status != BackupStatus::ManifestMissing
            && request.set.as_ref().is_none_or(|set| set == backup.label.as_ref());
        let entry = infos.backup.backups.get(&backup.label).filter(|_| is_wanted);
        if entry.is_some_and(|entry| !backup_wal::check(backup, entry, &infos.archive.history, archives)) {
            errors += 1;
        }
    }
    errors
}
