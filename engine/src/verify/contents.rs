//! Checks the archives and backups of a stanza whose info files can be used.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};
use repo_format::wal_name::WalSegment;

use super::passes::{PassFindings, Passed, Passes};
use super::plan::Unfinished;
use super::report::{self, ArchiveResult, BackupStatus, SegmentRun};
use super::scope::{Scope, WalScope};
use super::tally::Tally;
use super::walk::WalkSettings;
use super::{VerifyFindings, VerifyRequest, VerifyTask, backup_wal};
use crate::recovery_points::{CheckedArchive, CheckedContent, GoodPoints};
use crate::repo::{info_files, manifest_store};
use crate::{Error, Repo, Result, detail, info, log, warn};

/// The info files of a stanza.
#[derive(Clone, Copy)]
pub(super) struct StanzaInfos<'a> {
    pub archive: &'a ArchiveInfo,
    pub backup: &'a BackupInfo,
}

/// Checks archives and backups.
///
/// # Errors
/// Directories can't be listed before the first file is read, or the manifest of the requested set can't be read now.
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

    let unlisted_ids = check_archive_ids(&archive_ids, infos.archive);
    let errors = u32::from(unlisted_ids.is_some());
    let checks_wal = scope.wal != WalScope::None;
    let walk_settings = WalkSettings {
        repo,
        stanza,
        archive_cipher: info_files::archive_cipher(repo, stanza, infos.archive),
        manifest_cipher,
        version_force: request.pg_version_force,
        retry,
        unfinished: Unfinished::among(&scope.labels, infos.backup),
        states: false,
    };
    let passes = Passes { task, walk: walk_settings, archive_ids, scope, archive_info: infos.archive };
    let Passed { found, figures, record_faults } = passes.run()?;
    let PassFindings { mut tally, half_whole, unlisted, ended } = found;
    if let Some(ended) = ended {
        // Of what is not known to be bad, nothing is known
        let Tally { errors: in_files, unread, mut first_faults, .. } = tally;
        first_faults.extend(unlisted_ids);
        let (errors, ended) = (errors + in_files, Some(ended));
        return Ok(VerifyFindings { errors, half_whole, unread, first_faults, ended, ..VerifyFindings::default() });
    }
    log_ranges(&tally);
    report_unlisted(request, &mut tally, unlisted, &record_faults);
    if request.points || request.remembers() {
        tally.mark_unproven();
    }
    let points = match request.points && request.set.is_none() {
        true => recoverable(task, infos, &mut tally).map(Some)?,
        false => None,
    };
    let missing_wal = if checks_wal { check_backup_wal(request, infos, &mut tally) } else { 0 };
    let mut text = report::render(&tally.archives, &tally.backups, request.verbose);
    for (name, error) in points.iter().flat_map(|points| &points.faults) {
        let _ = write!(text, "\n  {name} can't be used: {error}");
    }
    Ok(VerifyFindings {
        text,
        errors: errors + tally.errors + missing_wal,
        half_whole,
        figures,
        points: points.map(|points| points.archives),
        unread: tally.unread,
        first_faults: tally.first_faults,
        archives: tally.archives,
        backups: tally.backups,
        ended: None,
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

/// Reports clusters in the archive that archive.info does not list. Returns the fault.
fn check_archive_ids(archive_ids: &[String], archive_info: &ArchiveInfo) -> Option<String> {
    let unknown: Vec<&str> = archive_ids
        .iter()
        .filter(|id| !archive_info.history.iter().any(|pg| pg.archive_id().to_string() == **id))
        .map(String::as_str)
        .collect();
    if unknown.is_empty() {
        return None;
    }
    let text = format!("archiveIds '{}' are not in the archive.info history list", unknown.join(", "));
    info!("{text}");
    Some(text)
}

/// Returns what the good backups and segments allow to recover to. What can't be used is a fault.
fn recoverable(task: &VerifyTask<'_>, infos: StanzaInfos<'_>, tally: &mut Tally) -> Result<GoodPoints> {
    let good = tally.backups.iter().filter(|backup| backup.status == BackupStatus::Valid);
    let archive = |archive: &ArchiveResult| {
        let run = |run: &SegmentRun| Some((run.start.parse().ok()?, run.stop.parse().ok()?));
        let checked = CheckedArchive {
            segment_size: archive.segment_size,
            bad: archive.bad.iter().filter_map(|name| name.parse::<WalSegment>().ok()).collect(),
            runs: archive.ranges.iter().filter_map(run).collect(),
            left: archive.left_runs.clone(),
        };
        (archive.id.clone(), checked)
    };
    let checked = CheckedContent {
        good_backups: good.map(|backup| backup.label.clone()).collect(),
        archives: tally.archives.iter().map(archive).collect(),
    };
    let points = GoodPoints::find(task.repo, task.session.stanza(), (infos.backup, infos.archive), &checked);
    task.session.cancel_token().check()?;
    for (name, error) in &points.faults {
        tally.add_unusable(name, error);
    }
    Ok(points)
}

/// Reports what prevented that files were chosen to be read. With a limit, bad files may not be among those that were read.
/// Without one, all files were read.
fn report_unlisted(
    request: &VerifyRequest,
    tally: &mut Tally,
    unlisted: Vec<(BackupLabel, Error)>,
    record_faults: &[Error],
) {
    for (label, error) in unlisted {
        if request.is_limited() {
            tally.add_unread(&format!("files of backup {label}"), &error);
        } else if request.remembers() {
            warn!("files of backup '{label}' can't be listed: {error}");
        } else {
            detail!("files of backup '{label}' can't be listed: {error}");
        }
    }
    for error in record_faults.iter().filter(|_| request.is_limited()) {
        tally.add_unread("what was read earlier", error);
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
