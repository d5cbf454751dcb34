//! Decides what expire removes, based only on facts: no storage, no clock, no logging.
//!
//! Expiry has four steps, each a function here: which backups to remove ([`by_retention`], [`ad_hoc`]), which
//! directories to remove with them ([`directories`]), which part of the WAL archive is still needed ([`ArchiveRules`]),
//! and which history manifests are too old ([`history_year`], [`removes_history_manifest`]). The rules are those of
//! pgBackRest's `expire` command.

mod wal;

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use repo_format::label::{BackupLabel, BackupType};
pub(crate) use wal::{ArchivePlan, ArchiveRules, WalPlan};

use crate::{Error, ErrorCode, Result};

/// Seconds per day. Retention by time counts in days.
pub(crate) const SECONDS_PER_DAY: i64 = 86_400;

/// The meaning of [`Retention::full`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullRetention {
    /// The number of full backups to keep.
    Count,
    /// The number of days that must stay covered.
    Time,
}

/// What to keep in one repository. [`Retention::default`] keeps everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The unit of `full`.
    pub full_type: FullRetention,
    /// Full backups or days to keep; `None` keeps all.
    pub full: Option<u32>,
    /// Differential backups to keep, including full backups; `None` keeps all.
    pub diff: Option<u32>,
    /// The backups that `archive` counts: full; full and differential; or all.
    pub archive_type: BackupType,
    /// The number of newest backups of `archive_type` for which all WAL is kept; `None` keeps all WAL.
    pub archive: Option<u32>,
    /// Days for which manifests of removed backups stay in the history; `None` keeps them forever.
    pub history: Option<u32>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            full_type: FullRetention::Count,
            full: None,
            diff: None,
            archive_type: BackupType::Full,
            archive: None,
            history: None,
        }
    }
}

impl Retention {
    /// Keeps so many full backups, at least one, with their dependents and their WAL.
    pub fn full_backups(count: u32) -> Self {
        let count = Some(count.max(1));
        Retention { full: count, archive: count, ..Retention::default() }
    }

    /// Keeps what recovery to any time of the last so many days needs.
    pub fn days(count: u32) -> Self {
        Retention { full_type: FullRetention::Time, full: Some(count.max(1)), ..Retention::default() }
    }
}

/// The facts about a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupCandidate {
    /// Its label.
    pub label: BackupLabel,
    /// The backup that it is based on.
    pub prior: Option<BackupLabel>,
    /// The id of its cluster in the history.
    pub db_id: u32,
    /// When it ended, in seconds since the epoch.
    pub timestamp_stop: i64,
    /// The first WAL segment that it needs; `None` for an offline backup.
    pub archive_start: Option<String>,
    /// The last WAL segment that it needs to be consistent.
    pub archive_stop: Option<String>,
}

/// The rule that expired a backup. Displayed as in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Retention of full backups by count.
    Full,
    /// Retention of differential backups.
    Diff,
    /// Retention of full backups by time.
    Time,
    /// Named by the operator.
    AdHoc,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Full => "full",
            Reason::Diff => "diff",
            Reason::Time => "time-based",
            Reason::AdHoc => "adhoc",
        })
    }
}

/// A backup that goes, with all that depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpiredSet {
    /// The rule.
    pub reason: Reason,
    /// The labels, oldest first. They are invalidated newest first, so that the remaining backups are usable at every
    /// moment.
    pub labels: Vec<BackupLabel>,
}

/// The backups to remove and the consequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupPlan {
    /// What to remove, in the order of the decisions.
    pub expired: Vec<ExpiredSet>,
    /// What to keep, by label.
    pub kept: Vec<BackupCandidate>,
    /// [`Retention::archive`], or the value derived from retention by time if it is not set.
    pub archive: Option<u32>,
    /// The newest backup if it is removed: recovery to a point in time may suffer, and `latest` must point to another
    /// one.
    pub newest_expired: Option<BackupLabel>,
}

impl BackupPlan {
    fn new(mut backups: Vec<BackupCandidate>, retention: &Retention) -> Self {
        backups.sort_by(|a, b| a.label.cmp(&b.label));
        BackupPlan { expired: Vec::new(), kept: backups, archive: retention.archive, newest_expired: None }
    }

    fn labels(&self, wanted: impl Fn(BackupType) -> bool) -> Vec<BackupLabel> {
        self.kept.iter().filter(|b| wanted(b.label.backup_type())).map(|b| b.label.clone()).collect()
    }

    /// Keeps the sets of these full backups. Returns the backups that are kept instead of removed.
    pub fn keep_sets(&mut self, fulls: &BTreeSet<BackupLabel>, facts: &[BackupCandidate]) -> Vec<BackupLabel> {
        let stays = |set: &ExpiredSet| set.labels.iter().any(|label| fulls.contains(&label.full_label()));
        let (stay, expired): (Vec<_>, Vec<_>) = self.expired.drain(..).partition(stays);
        self.expired = expired;
        let labels: Vec<BackupLabel> = stay.into_iter().flat_map(|set| set.labels).collect();
        let known: BTreeSet<&BackupLabel> = labels.iter().collect();
        self.kept.extend(facts.iter().filter(|fact| known.contains(&fact.label)).cloned());
        self.kept.sort_by(|a, b| a.label.cmp(&b.label));
        labels
    }

    /// Moves backups and their dependents from kept to expired, one set for each backup. A backup may have been moved
    /// already as a dependent of another. Returns the number of sets.
    fn expire(&mut self, labels: &[BackupLabel], reason: Reason) -> usize {
        let mut dependents: HashMap<&BackupLabel, Vec<usize>> = HashMap::new();
        for (index, backup) in self.kept.iter().enumerate() {
            // Labels ascend along a chain, and a full backup depends on none, even if a damaged file says so
            if let Some(prior) = &backup.prior
                && backup.label.backup_type() != BackupType::Full
                && *prior < backup.label
            {
                dependents.entry(prior).or_default().push(index);
            }
        }
        let mut gone = vec![false; self.kept.len()];
        let mut sets = Vec::new();
        for label in labels {
            let Ok(first) = self.kept.binary_search_by(|backup| backup.label.cmp(label)) else { continue };
            let mut set = BTreeSet::new();
            let mut next = vec![first];
            while let Some(index) = next.pop() {
                let label = &self.kept[index].label;
                if !std::mem::replace(&mut gone[index], true) {
                    set.insert(label.clone());
                    next.extend(dependents.get(label).into_iter().flatten());
                }
            }
            if !set.is_empty() {
                sets.push(ExpiredSet { reason, labels: set.into_iter().collect() });
            }
        }
        let mut gone = gone.into_iter();
        self.kept.retain(|_| gone.next() != Some(true));
        let count = sets.len();
        self.expired.extend(sets);
        count
    }
}

/// Returns a retention that expires exactly the oldest full backup (with its dependents and WAL).
///
/// Returns `None` if there is at most one full backup, which is never expired.
pub fn oldest(backups: &[BackupCandidate], retention: &Retention) -> Option<Retention> {
    let full_total = backups.iter().filter(|b| b.label.backup_type() == BackupType::Full).count();
    let keep = u32::try_from(full_total.checked_sub(1)?).ok().filter(|keep| *keep > 0)?;
    Some(Retention {
        full_type: FullRetention::Count,
        full: Some(keep),
        archive_type: BackupType::Full,
        archive: Some(keep),
        ..retention.clone()
    })
}

/// Applies the retention of full backups, then of differential backups. `now` is in seconds since the epoch.
pub(crate) fn by_retention(backups: Vec<BackupCandidate>, retention: &Retention, now: i64) -> BackupPlan {
    let mut plan = BackupPlan::new(backups, retention);
    match (retention.full_type, retention.full) {
        (_, None | Some(0)) => {}
        (FullRetention::Count, Some(keep)) => {
            let full = plan.labels(|kind| kind == BackupType::Full);
            let surplus = full.len().saturating_sub(keep as usize);
            plan.expire(&full[..surplus], Reason::Full);
        }
        (FullRetention::Time, Some(days)) => by_time(&mut plan, retention, now - i64::from(days) * SECONDS_PER_DAY),
    }
    if let Some(keep) = retention.diff.filter(|keep| *keep > 0) {
        // Full backups count as differential backups, but only differential backups are removed
        let list = plan.labels(|kind| kind != BackupType::Incr);
        let surplus = list.len().saturating_sub(keep as usize);
        let list: Vec<BackupLabel> =
            list.into_iter().take(surplus).filter(|label| label.backup_type() == BackupType::Diff).collect();
        plan.expire(&list, Reason::Diff);
    }
    plan
}

/// Keeps the newest full backup that ended before `minimum` and everything after it, so that the whole period stays
/// covered.
fn by_time(plan: &mut BackupPlan, retention: &Retention, minimum: i64) {
    let is_full = |backup: &&BackupCandidate| backup.label.backup_type() == BackupType::Full;
    let full_total = plan.kept.iter().filter(is_full).count();
    let met = plan.kept.iter().rev().filter(is_full).find(|backup| backup.timestamp_stop < minimum);
    let Some(met) = met.map(|backup| backup.label.clone()) else { return };
    let before = plan.labels(|_| true).into_iter().take_while(|label| *label != met).collect::<Vec<_>>();
    let expired_total = plan.expire(&before, Reason::Time);
    // If the number of full backups to keep WAL for is not set, WAL is kept for the remaining ones
    if retention.archive_type == BackupType::Full && plan.archive.is_none() {
        plan.archive = u32::try_from(full_total.saturating_sub(expired_total)).ok();
    }
}

/// Expires one backup with its dependents, regardless of retention. An unknown label expires nothing.
///
/// # Errors
/// [`ErrorCode::BackupSetInvalid`] for the newest full backup if no other full backup of the same cluster remains.
pub(crate) fn ad_hoc(backups: Vec<BackupCandidate>, label: &BackupLabel, retention: &Retention) -> Result<BackupPlan> {
    let mut plan = BackupPlan::new(backups, retention);
    let mut full = plan.kept.iter().rev().filter(|backup| backup.label.backup_type() == BackupType::Full);
    if let Some(newest) = full.next()
        && newest.label == *label
        && full.next().is_none_or(|next| next.db_id != newest.db_id)
    {
        return Err(Error::new(
            ErrorCode::BackupSetInvalid,
            format!("full backup {label} cannot be expired until another full backup has been created on this repo"),
        ));
    }
    let newest = plan.kept.last().map(|backup| backup.label.clone());
    plan.expire(std::slice::from_ref(label), Reason::AdHoc);
    plan.newest_expired = newest.filter(|newest| plan.kept.last().is_none_or(|backup| backup.label != *newest));
    Ok(plan)
}

/// Returns the backup directories to remove, newest first: all that no kept backup owns and no process of another host
/// may be making.
///
/// `keep_newest` protects the newest directory although it is not in the list of backups, because the next backup may
/// resume it.
pub fn directories(
    on_disk: &[BackupLabel],
    kept: &[BackupCandidate],
    running: &[BackupLabel],
    keep_newest: bool,
) -> Vec<BackupLabel> {
    let mut labels: Vec<&BackupLabel> = on_disk.iter().collect();
    labels.sort_by(|a, b| b.cmp(a));
    let kept: BTreeSet<&BackupLabel> = kept.iter().map(|backup| &backup.label).chain(running).collect();
    labels.into_iter().skip(usize::from(keep_newest)).filter(|label| !kept.contains(label)).cloned().collect()
}

/// The verdict on a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirVerdict {
    /// All of it goes.
    Remove,
    /// Its files must be judged one by one.
    Scan,
    /// All of it stays.
    Keep,
}

/// The first `digits` bytes, or all of a shorter text.
fn cut(text: &str, digits: usize) -> &str {
    text.get(..digits).unwrap_or(text)
}

/// Returns the verdict on a year's directory of the history (`2026`) if manifests before `minimum` may be removed.
pub(crate) fn history_year(year: &str, minimum: &BackupLabel) -> DirVerdict {
    let minimum = minimum.to_string();
    match year.cmp(cut(&minimum, 4)) {
        std::cmp::Ordering::Less => DirVerdict::Remove,
        std::cmp::Ordering::Equal => DirVerdict::Scan,
        std::cmp::Ordering::Greater => DirVerdict::Keep,
    }
}

/// Returns whether to remove a manifest of the history: its backup was removed and is older than `minimum`. `kept` is
/// sorted by label.
pub(crate) fn removes_history_manifest(label: &BackupLabel, minimum: &BackupLabel, kept: &[BackupCandidate]) -> bool {
    label < minimum && kept.binary_search_by(|backup| backup.label.cmp(label)).is_err()
}

#[cfg(test)]
mod tests;
