//! `expire`: removes backups, WAL and history that exceed the retention settings.
//!
//! [`plan`] decides what to remove. This module collects facts, removes files and logs steps. The order makes a crash
//! harmless: a backup is first invalidated by removing its manifest, then removed from backup.info, and then its files
//! are removed.

mod interrupted;
pub mod plan;
mod proofs;
mod request;
mod rotation;
#[cfg(test)]
mod tests;
mod unfinished;

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::label::{BackupLabel, BackupType, CivilTime};
use repo_format::layout::{self, ArchiveId, RepoPath};

pub use self::request::{ExpireRequest, ExpireSummary, Expired, ExpiredWal, KeyRotation};
use crate::claim::Claim;
use crate::repo::Repo;
use crate::repo::{info_files, reconstruct};
use crate::session::Session;
use crate::{Error, ErrorCode, Result, log};
use plan::{ArchivePlan, ArchiveRules, BackupCandidate, BackupPlan, DirVerdict, FullRetention, Retention, WalPlan};

/// The hint for a backup with invalid pages.
const DAMAGED_HINT: &str = "use info --set command to get details about errors in the backup.";
/// Files that are removed before the next check for cancellation.
const REMOVED_AT_ONCE: usize = 100;
/// The same for directories of WAL.
const DIRECTORIES_AT_ONCE: usize = 4;

/// Expires in every repository. A failure in one is logged and does not affect the others. In those with the `claimed` keys,
/// this process has a claim that it renews, which the expire joins.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`] for a backup together with the oldest one, [`ErrorCode::Command`] if any repository
/// failed, and the error of the token.
pub(crate) fn run(
    request: &ExpireRequest,
    session: &Session,
    repos: &[Repo],
    claimed: &[u32],
) -> Result<ExpireSummary> {
    let (repos, warnings, duration) = log::observe(|| expire(request, session, repos, claimed))?;
    Ok(ExpireSummary { repos, warnings, duration })
}

fn expire(request: &ExpireRequest, session: &Session, repos: &[Repo], claimed: &[u32]) -> Result<Vec<Expired>> {
    if request.set.is_some() && request.oldest {
        return Err(Error::new(ErrorCode::OptionInvalid, "--oldest and --set cannot be used together"));
    }
    let (mut expired, mut errors) = (Vec::new(), Vec::new());
    let set_found = AtomicBool::new(false);
    for (index, repo) in repos.iter().enumerate() {
        let is_last = index + 1 == repos.len();
        let task = Task { repo, claim: None, now: 0, request, session, is_last, set_found: &set_found };
        match run_in(task, claimed.contains(&repo.key)) {
            Ok(here) => expired.push(here),
            Err(error) => {
                session.cancel_token().check()?;
                crate::error!(error.code, "repo{}: {error}", repo.key);
                errors.push(error);
            }
        }
    }
    let count = errors.len();
    match errors.into_iter().next() {
        None => Ok(expired),
        Some(first) => {
            let text = format!("expire command encountered {count} error(s), check the log file for details");
            Err(Error::new(ErrorCode::Command, text).cause(first))
        }
    }
}

/// Expires in one repository, under a claim, which may be one that this process has already.
fn run_in(task: Task<'_>, joins: bool) -> Result<Expired> {
    let Task { repo, request, session, .. } = task;
    let retention = request.retention.get(&repo.key).cloned().unwrap_or_default();
    if request.dry_run {
        // A dry run writes nothing from which the store's time could be read, and removes nothing because of a wrong
        // local clock
        return Task { now: Timestamp::now().as_second(), ..task }.run(&retention);
    }
    let take = if joins { Claim::join } else { Claim::acquire_to_remove };
    let claim = take(repo, session.stanza(), session.claimant(), "expire", session.cancel_token())?;
    let now = claim.acquired_at()?;
    let guarded = claim.guard(repo);
    Task { repo: &guarded, claim: Some(&claim), now, ..task }.run(&retention)
}

/// Expiry in one repository.
struct Task<'a> {
    repo: &'a Repo,
    /// `None` in a dry run.
    claim: Option<&'a Claim>,
    /// The time by the clock of the store, or in a dry run by this host's clock, in seconds since 1970.
    now: i64,
    request: &'a ExpireRequest,
    session: &'a Session,
    is_last: bool,
    /// Whether a repository had the backup that is to be expired.
    set_found: &'a AtomicBool,
}

impl Task<'_> {
    fn run(&self, retention: &Retention) -> Result<Expired> {
        let stanza = self.session.stanza();
        let mut found = match self.claim {
            Some(claim) => reconstruct::load_listed(self.repo, stanza, claim.names()),
            None => reconstruct::load_backup_info_reconstruct(self.repo, stanza),
        }?;
        let running = self.maybe_running(&found)?;
        self.tell_kept(&found, &running);
        let facts = facts(&found.info);
        let retention = self.lower_for_oldest(&facts, retention);
        let now = Timestamp::now().as_second();
        let mut plan = self.plan(facts.clone(), &retention, now)?;
        self.keep_needed(&mut plan, &running, &facts)?;
        self.keep_proven(&mut plan, &found.info, &facts)?;
        let damaged = self.check_damaged(&found.info, &plan)?;
        // Anything that can fail because of what others left comes before the first removal
        let amount = plan.archive.filter(|amount| *amount > 0);
        let before = self.request.archive_expire_before.map(|segment| segment.to_string());
        let rules = ArchiveRules {
            kept: &plan.kept,
            archive_type: retention.archive_type,
            archive: amount.unwrap_or(0),
            expire_before: before.as_deref(),
        };
        let archive_info = match amount.is_some() && rules.satisfied() {
            true => Some(self.load_archive_info(&found.info)?),
            false => None,
        };
        let directories = self.directories(&found, &running, &plan)?;
        self.remove_backups(&mut found.info, &plan, found.changed)?;
        self.remove_directories(&directories)?;
        if let Some(text) = damaged {
            crate::warn!("repo{}: {text}\nHINT: {DAMAGED_HINT}", self.repo.key);
        }
        // Backups that came after it do not need the WAL of its start
        let is_before_kept =
            |label: &BackupLabel| plan.kept.iter().any(|kept| kept.label.time_part() > label.time_part());
        let needs_wal = running.iter().find(|backup| is_before_kept(&backup.label));
        let mut wal = Vec::new();
        match (&archive_info, needs_wal) {
            (Some(_), Some(backup)) => self.warn_of_kept_archive(backup),
            (Some(archive_info), None) => wal = self.remove_archives(archive_info, &rules)?,
            _ if amount.is_some() => {}
            _ => self.explain_kept_archive(&retention),
        }
        self.remove_history(&plan, &retention, now)?;
        self.remove_proofs(&found.info)?;
        self.change(|| {
            unfinished::remove(self.repo, stanza);
            Ok(())
        })?;
        self.rotate_key(&found.info, archive_info, running.first().map(|backup| &backup.label))?;
        let backups = plan.expired.into_iter().flat_map(|set| set.labels).collect();
        Ok(Expired { repo_key: self.repo.key, backups, directories, wal })
    }

    /// Plans by retention, or for the backup that is to be expired.
    fn plan(&self, facts: Vec<BackupCandidate>, retention: &Retention, now: i64) -> Result<BackupPlan> {
        let Some(set) = &self.request.set else { return Ok(plan::by_retention(facts, retention, now)) };
        if facts.iter().any(|backup| backup.label == *set) {
            self.set_found.store(true, Ordering::Relaxed);
        } else if !self.set_found.load(Ordering::Relaxed) && self.is_last {
            crate::warn!("backup {set} does not exist\nHINT: run the info command and confirm the backup is listed");
        }
        plan::ad_hoc(facts, set, retention)
    }

    /// Returns a warning if the oldest backup that would remain has invalid pages.
    ///
    /// # Errors
    /// [`ErrorCode::Checksum`] if that is to be an error, and retention would expire something.
    fn check_damaged(&self, info: &BackupInfo, plan: &BackupPlan) -> Result<Option<String>> {
        let Some(label) = oldest_damaged(info, plan) else { return Ok(None) };
        let text = format!("oldest retained backup {label} contains invalid page checksum(s)");
        if self.request.checksum_page_error && self.request.set.is_none() && !plan.expired.is_empty() {
            return Err(Error::new(ErrorCode::Checksum, text).hint(DAMAGED_HINT));
        }
        Ok(Some(text))
    }

    /// Logs why all WAL stays.
    fn explain_kept_archive(&self, retention: &Retention) {
        let key = self.repo.key;
        if retention.full_type == FullRetention::Time {
            crate::info!("repo{key}: time-based archive retention not met - archive logs will not be expired");
        } else {
            crate::info!("option 'repo{key}-retention-archive' is not set - archive logs will not be expired");
        }
    }

    /// Runs a step that changes the repository, except in a dry run.
    fn change(&self, step: impl FnOnce() -> Result<()>) -> Result<()> {
        self.session.cancel_token().check()?;
        if self.request.dry_run { Ok(()) } else { step() }
    }

    fn list(&self, path: &RepoPath) -> Result<Vec<String>> {
        Ok(self.repo.storage.names(path)?.unwrap_or_default())
    }

    fn lower_for_oldest(&self, facts: &[BackupCandidate], retention: &Retention) -> Retention {
        if !self.request.oldest {
            return retention.clone();
        }
        let key = self.repo.key;
        let Some(lowered) = plan::oldest(facts, retention) else {
            crate::warn!("repo{key}: expire oldest requested but no eligible full backup to expire");
            return retention.clone();
        };
        if retention.full_type == FullRetention::Time {
            crate::info!(
                "repo{key}: expire oldest overrides configured time-based retention with count-based retention for this execution"
            );
        }
        let keep = lowered.full.unwrap_or(0);
        crate::detail!(
            "repo{key}: expire oldest enforcing repo{key}-retention-full-type=count, repo{key}-retention-full={keep}, \
             repo{key}-retention-archive-type=full, and repo{key}-retention-archive={keep} for this execution"
        );
        lowered
    }

    fn remove_backups(&self, info: &mut BackupInfo, plan: &BackupPlan, repaired: bool) -> Result<()> {
        let (storage, stanza, key) = (&self.repo.storage, self.session.stanza(), self.repo.key);
        for set in &plan.expired {
            for label in set.labels.iter().rev() {
                let manifests = [layout::manifest(stanza, label), layout::manifest_copy(stanza, label)];
                self.change(|| storage.remove_many(&manifests))?;
                info.backups.remove(label);
            }
            if let Some(newest) = &plan.newest_expired {
                crate::warn!(
                    "repo{key}: expiring latest backup {newest} - the ability to perform point-in-time-recovery (PITR) may be \
                     affected\nHINT: non-default settings for 'repo{key}-retention-archive'/'repo{key}-retention-archive-type' \
                     (even in prior expires) can cause gaps in the WAL."
                );
                self.change(|| self.link_latest(plan))?;
            }
            let labels: Vec<&str> = set.labels.iter().map(AsRef::as_ref).collect();
            let several = if labels.len() > 1 { "set " } else { "" };
            crate::info!("repo{key}: expire {} backup {several}{}", set.reason, labels.join(", "));
        }
        if repaired || !plan.expired.is_empty() {
            self.change(|| info_files::save_backup_info(self.repo, stanza, info))?;
        }
        Ok(())
    }

    fn link_latest(&self, plan: &BackupPlan) -> Result<()> {
        let (storage, stanza) = (&self.repo.storage, self.session.stanza());
        let latest = layout::latest(stanza);
        match plan.kept.last() {
            Some(backup) if storage.features().symlinks => storage.symlink(backup.label.as_str(), &latest)?,
            _ => storage.remove(&latest)?,
        }
        storage.sync_path(&layout::backup_stanza(stanza))
    }

    fn remove_directories(&self, directories: &[BackupLabel]) -> Result<()> {
        let (storage, stanza, key) = (&self.repo.storage, self.session.stanza(), self.repo.key);
        self.repo.each(directories, |label| {
            crate::info!("repo{key}: remove expired backup {label}");
            self.change(|| storage.remove_all(&layout::backup_path(stanza, label)))
        })?;
        Ok(())
    }

    /// Loads archive.info, whose clusters must match backup.info.
    fn load_archive_info(&self, info: &BackupInfo) -> Result<ArchiveInfo> {
        let archive_info = info_files::load_archive_info(self.repo, self.session.stanza())?;
        let mut backup_history = info.history.iter().rev();
        for pg in archive_info.history.iter().rev() {
            let same = backup_history
                .next()
                .is_some_and(|other| (other.id, other.version, other.system_id) == (pg.id, pg.version, pg.system_id));
            if !same {
                return Err(Error::new(
                    ErrorCode::Format,
                    "archive expiration cannot continue - archive and backup history lists do not match",
                ));
            }
        }
        Ok(archive_info)
    }

    fn remove_archives(&self, archive_info: &ArchiveInfo, rules: &ArchiveRules<'_>) -> Result<Vec<ExpiredWal>> {
        let (stanza, key) = (self.session.stanza(), self.repo.key);
        let on_disk = self.list(&layout::archive_stanza(stanza))?;
        let mut removed = Vec::new();
        for pg in &archive_info.history {
            let id = pg.archive_id();
            if !on_disk.contains(&id.to_string()) {
                continue;
            }
            match rules.archive(pg.id, archive_info.current().id) {
                ArchivePlan::Keep => {}
                ArchivePlan::RemoveAll => {
                    let path = layout::archive_path(stanza, id);
                    crate::info!("repo{key}: remove archive path {}", self.repo.storage.display(&path));
                    self.change(|| self.repo.storage.remove_all(&path))?;
                    removed.push(ExpiredWal { archive_id: id, range: None });
                }
                ArchivePlan::Expire(wal) => {
                    let ranges = self.remove_wal(id, &wal)?.into_iter();
                    removed.extend(ranges.map(|range| ExpiredWal { archive_id: id, range: Some(range) }));
                }
            }
        }
        Ok(removed)
    }

    /// Returns the first and the last name of each range that was removed.
    fn remove_wal(&self, id: ArchiveId, plan: &WalPlan) -> Result<Vec<(String, String)>> {
        let key = self.repo.key;
        let archive = layout::archive_path(self.session.stanza(), id);
        for (label, range) in &plan.ranges {
            if let Some(label) = label {
                let stop = range.stop.as_ref().map_or_else(String::new, |stop| format!(", stop = {stop}"));
                crate::detail!("repo{key}: {id} archive retention on backup {label}, start = {}{stop}", range.start);
            }
        }
        let entries = self.list(&archive)?;
        let mut run = Run::default();
        let mut whole = Vec::new();
        for directory in entries.iter().filter(|name| name.len() == 16 && is_wal_like(name)) {
            match plan.directory(directory) {
                DirVerdict::Keep => {}
                DirVerdict::Remove => whole.push(directory.as_str()),
                DirVerdict::Scan => {
                    self.remove_wal_directories(id, &archive, &mut whole, &mut run)?;
                    self.remove_segments(id, plan, &archive.join(directory)?, &mut run)?;
                }
            }
        }
        self.remove_wal_directories(id, &archive, &mut whole, &mut run)?;
        run.log(key, id);
        if run.ranges.is_empty() {
            crate::info!("repo{key}: {id} no archive to remove");
        }
        for file in entries.iter().filter(|name| is_timeline_history(name) && plan.removes_history(name)) {
            self.change(|| self.repo.storage.remove(&archive.join(file)?))?;
            crate::info!("repo{key}: {id} remove history file {file}");
        }
        Ok(run.ranges)
    }

    /// Removes directories of which nothing is kept, oldest first, several at a time on a server.
    fn remove_wal_directories(
        &self,
        id: ArchiveId,
        archive: &RepoPath,
        directories: &mut Vec<&str>,
        run: &mut Run,
    ) -> Result<()> {
        let (storage, key) = (&self.repo.storage, self.repo.key);
        for some in directories.chunks(DIRECTORIES_AT_ONCE) {
            let paths = some.iter().map(|directory| archive.join(directory)).collect::<Result<Vec<_>>>()?;
            self.change(|| self.repo.each(&paths, |path| storage.remove_all(path)).map(drop))?;
            for directory in some {
                crate::detail!("repo{key}: {id} remove archive path {directory}");
                run.add(directory);
            }
        }
        directories.clear();
        Ok(())
    }

    /// Removes the segments of one directory that are not kept.
    fn remove_segments(&self, id: ArchiveId, plan: &WalPlan, directory: &RepoPath, run: &mut Run) -> Result<()> {
        let files = self.list(directory)?;
        let files: Vec<&String> = files.iter().filter(|name| name.len() >= 24 && is_wal_like(name)).collect();
        let gone = files.iter().filter(|file| !plan.keeps_file(file)).map(|file| directory.join(file));
        let gone = gone.collect::<Result<Vec<_>>>()?;
        for some in gone.chunks(REMOVED_AT_ONCE) {
            self.change(|| self.repo.storage.remove_many(some))?;
        }
        for file in files {
            if plan.keeps_file(file) {
                run.log(self.repo.key, id);
            } else {
                run.add(file.get(..24).unwrap_or(file));
            }
        }
        Ok(())
    }

    fn remove_history(&self, plan: &BackupPlan, retention: &Retention, now: i64) -> Result<()> {
        let Some(days) = retention.history else { return Ok(()) };
        let (storage, key) = (&self.repo.storage, self.repo.key);
        let minimum = label_at(now - i64::from(days) * plan::SECONDS_PER_DAY)?;
        let history = layout::history(self.session.stanza());
        for year in self.list(&history)? {
            if year.len() != 4 || !year.starts_with('2') || !year.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let path = history.join(&year)?;
            match plan::history_year(&year, &minimum) {
                DirVerdict::Keep => {}
                DirVerdict::Remove => {
                    crate::info!("repo{key}: remove expired backup history path {year}");
                    self.change(|| storage.remove_all(&path))?;
                }
                DirVerdict::Scan => {
                    for file in self.list(&path)?.iter().rev() {
                        let label =
                            file.strip_suffix(layout::HISTORY_MANIFEST_SUFFIX).and_then(|name| name.parse().ok());
                        if label.is_some_and(|label| plan::removes_history_manifest(&label, &minimum, &plan.kept)) {
                            crate::info!("repo{key}: remove expired backup history manifest {file}");
                            self.change(|| storage.remove(&path.join(file)?))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Consecutively removed WAL, for one log line.
#[derive(Default)]
struct Run {
    bounds: Option<(String, String)>,
    /// Those that were logged.
    ranges: Vec<(String, String)>,
}

impl Run {
    fn add(&mut self, name: &str) {
        let start = self.bounds.take().map_or_else(|| name.to_owned(), |(start, _)| start);
        self.bounds = Some((start, name.to_owned()));
    }

    fn log(&mut self, repo_key: u32, id: ArchiveId) {
        if let Some((start, stop)) = self.bounds.take() {
            crate::info!("repo{repo_key}: {id} remove archive, start = {start}, stop = {stop}");
            self.ranges.push((start, stop));
        }
    }
}

/// Returns whether a name begins like WAL: up to 24 characters of the range that pgBackRest accepts as upper-case hex
/// digits.
fn is_wal_like(name: &str) -> bool {
    name.bytes().take(24).all(|byte| (b'0'..=b'F').contains(&byte))
}

/// Returns whether a name is that of a timeline's history, `00000002.history`.
fn is_timeline_history(name: &str) -> bool {
    name.strip_suffix(layout::TIMELINE_HISTORY_SUFFIX)
        .is_some_and(|timeline| timeline.len() == 8 && is_wal_like(timeline))
}

fn facts(info: &BackupInfo) -> Vec<BackupCandidate> {
    let fact = |(label, entry): (&BackupLabel, &repo_format::backup_info::BackupEntry)| BackupCandidate {
        label: label.clone(),
        prior: entry.prior.clone(),
        db_id: entry.pg_id,
        timestamp_stop: entry.timestamp_stop,
        archive_start: entry.archive_start.map(|segment| segment.to_string()),
        archive_stop: entry.archive_stop.map(|segment| segment.to_string()),
    };
    info.backups.iter().map(fact).collect()
}

/// Returns the oldest remaining backup, if it had invalid pages when it was made. Then earlier backups may be needed.
fn oldest_damaged<'a>(info: &BackupInfo, plan: &'a BackupPlan) -> Option<&'a BackupLabel> {
    let oldest = &plan.kept.first()?.label;
    info.backups.get(oldest).filter(|entry| entry.error == Some(true)).map(|_| oldest)
}

/// Returns the label that a full backup started at this time has in the local time zone.
fn label_at(epoch: i64) -> Result<BackupLabel> {
    let time = Timestamp::from_second(epoch)
        .map_err(|error| Error::new(ErrorCode::Format, format!("{epoch} is not a time: {error}")))?
        .to_zoned(crate::time_zone::local().clone());
    // Each part is in the range of its type: jiff returns no others
    let small = |value: i8| value.unsigned_abs();
    let civil = CivilTime {
        year: time.year().unsigned_abs(),
        month: small(time.month()),
        day: small(time.day()),
        hour: small(time.hour()),
        minute: small(time.minute()),
        second: small(time.second()),
    };
    BackupLabel::format(BackupType::Full, None, &civil)
}
