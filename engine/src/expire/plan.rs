//! What expire removes, decided on facts alone: no storage, no clock, no logging.
//!
//! Expiry has four steps, each a function here: which backups go ([`by_retention`], [`ad_hoc`]), which directories go with
//! them ([`directories`]), what of the WAL archive is still needed ([`ArchiveRules`]), and which history manifests are too old
//! ([`history_year`], [`removes_history_manifest`]). The rules are those of pgBackRest's `expire` command.

use std::collections::BTreeSet;
use std::fmt;

use repo_format::label::{BackupLabel, BackupType};

use crate::{Error, ErrorCode, Result};

/// Seconds of a day; retention by time counts in days.
pub const SECONDS_PER_DAY: i64 = 86_400;

/// How [`Retention::full`] is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullRetention {
    /// The number of full backups to keep.
    Count,
    /// The number of days that must stay covered.
    Time,
}

/// What is to be kept in one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What `full` counts.
    pub full_type: FullRetention,
    /// Full backups or days to keep; `None` keeps all.
    pub full: Option<u32>,
    /// Differential backups to keep, where full ones count as differential; `None` keeps all.
    pub diff: Option<u32>,
    /// Which backups `archive` counts: full; full and differential; or all.
    pub archive_type: BackupType,
    /// The number of newest backups of `archive_type` after which all WAL is kept; `None` keeps all WAL.
    pub archive: Option<u32>,
    /// Days for which manifests of backups that are gone stay in the history; `None` keeps them for ever.
    pub history: Option<u32>,
}

/// What the decisions need to know of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFact {
    /// Its label.
    pub label: BackupLabel,
    /// The backup that it is based on.
    pub prior: Option<BackupLabel>,
    /// Id of its cluster in the history.
    pub db_id: u32,
    /// When it ended, in seconds since the epoch.
    pub timestamp_stop: i64,
    /// First WAL segment that it needs; `None` for a backup of a stopped cluster.
    pub archive_start: Option<String>,
    /// Last WAL segment that it needs to be consistent.
    pub archive_stop: Option<String>,
}

/// Which rule expired a backup; displayed as the log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
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
pub struct ExpiredSet {
    /// The rule.
    pub reason: Reason,
    /// The labels, oldest first. They are invalidated newest first, so that what is left is usable at every moment.
    pub labels: Vec<BackupLabel>,
}

/// Which backups go and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPlan {
    /// What goes, in the order in which it is decided.
    pub expired: Vec<ExpiredSet>,
    /// What stays, by label.
    pub kept: Vec<BackupFact>,
    /// [`Retention::archive`], or what retention by time makes of it when it is not set.
    pub archive: Option<u32>,
    /// The newest backup when it goes: recovery to a point in time may suffer, and `latest` must point to another one.
    pub newest_expired: Option<BackupLabel>,
}

impl BackupPlan {
    fn new(mut backups: Vec<BackupFact>, retention: &Retention) -> Self {
        backups.sort_by(|a, b| a.label.cmp(&b.label));
        BackupPlan { expired: Vec::new(), kept: backups, archive: retention.archive, newest_expired: None }
    }

    fn labels(&self, wanted: impl Fn(BackupType) -> bool) -> Vec<BackupLabel> {
        self.kept.iter().filter(|b| wanted(b.label.backup_type())).map(|b| b.label.clone()).collect()
    }

    /// Moves a backup and its dependents from kept to expired. The label may be gone already with another one's dependents.
    fn expire(&mut self, label: &BackupLabel, reason: Reason) {
        // Labels ascend along every chain, so one pass finds dependents of dependents. A full backup depends on none, even if
        // a damaged file says so
        let mut gone = BTreeSet::new();
        for backup in &self.kept {
            let prior = backup.prior.as_ref().filter(|_| backup.label.backup_type() != BackupType::Full);
            if backup.label == *label || prior.is_some_and(|prior| gone.contains(prior)) {
                gone.insert(backup.label.clone());
            }
        }
        self.kept.retain(|backup| !gone.contains(&backup.label));
        if !gone.is_empty() {
            self.expired.push(ExpiredSet { reason, labels: gone.into_iter().collect() });
        }
    }
}

/// Retention that lets exactly the oldest full backup (with its dependents and WAL) go.
///
/// `None` if there is at most one full backup, which is never given up.
pub fn oldest(backups: &[BackupFact], retention: &Retention) -> Option<Retention> {
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

/// Applies the retention of full, then of differential backups. `now` is in seconds since the epoch.
pub fn by_retention(backups: Vec<BackupFact>, retention: &Retention, now: i64) -> BackupPlan {
    let mut plan = BackupPlan::new(backups, retention);
    match (retention.full_type, retention.full) {
        (_, None | Some(0)) => {}
        (FullRetention::Count, Some(keep)) => {
            let full = plan.labels(|kind| kind == BackupType::Full);
            let surplus = full.len().saturating_sub(keep as usize);
            for label in &full[..surplus] {
                plan.expire(label, Reason::Full);
            }
        }
        (FullRetention::Time, Some(days)) => by_time(&mut plan, retention, now - i64::from(days) * SECONDS_PER_DAY),
    }
    if let Some(keep) = retention.diff.filter(|keep| *keep > 0) {
        // Full backups count as differential ones but only differential ones go
        let list = plan.labels(|kind| kind != BackupType::Incr);
        let surplus = list.len().saturating_sub(keep as usize);
        for label in list[..surplus].iter().filter(|label| label.backup_type() == BackupType::Diff) {
            plan.expire(label, Reason::Diff);
        }
    }
    plan
}

/// Keeps the newest full backup that ended before `minimum` and all after it, so that the whole period stays covered.
fn by_time(plan: &mut BackupPlan, retention: &Retention, minimum: i64) {
    let is_full = |backup: &&BackupFact| backup.label.backup_type() == BackupType::Full;
    let full_total = plan.kept.iter().filter(is_full).count();
    let met = plan.kept.iter().rev().filter(is_full).find(|backup| backup.timestamp_stop < minimum);
    let Some(met) = met.map(|backup| backup.label.clone()) else { return };
    let mut expired_total = 0;
    while let Some(first) = plan.kept.first().map(|backup| backup.label.clone())
        && first != met
    {
        plan.expire(&first, Reason::Time);
        expired_total += 1;
    }
    // Where the operator did not say for how many full backups WAL is kept, it is kept for those that are left
    if retention.archive_type == BackupType::Full && plan.archive.is_none() {
        plan.archive = u32::try_from(full_total.saturating_sub(expired_total)).ok();
    }
}

/// Expires one backup with its dependents, whatever the retention says. An unknown label expires nothing.
///
/// # Errors
/// [`ErrorCode::BackupSetInvalid`] for the newest full backup when no other full backup of the same cluster is left.
pub fn ad_hoc(backups: Vec<BackupFact>, label: &BackupLabel, retention: &Retention) -> Result<BackupPlan> {
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
    plan.expire(label, Reason::AdHoc);
    plan.newest_expired = newest.filter(|newest| plan.kept.last().is_none_or(|backup| backup.label != *newest));
    Ok(plan)
}

/// The backup directories to remove, newest first: all that no kept backup owns.
///
/// `keep_newest` protects the newest directory although it is not in the list of backups: it may be a backup that runs (even
/// on another host) or that the next backup resumes.
pub fn directories(on_disk: &[BackupLabel], kept: &[BackupFact], keep_newest: bool) -> Vec<BackupLabel> {
    let mut labels: Vec<&BackupLabel> = on_disk.iter().collect();
    labels.sort_by(|a, b| b.cmp(a));
    let kept: BTreeSet<&BackupLabel> = kept.iter().map(|backup| &backup.label).collect();
    labels.into_iter().skip(usize::from(keep_newest)).filter(|label| !kept.contains(label)).cloned().collect()
}

/// A run of WAL that must stay, compared as text: timeline first, then position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// First segment name.
    pub start: String,
    /// Last segment name; `None` keeps everything from `start` on.
    pub stop: Option<String>,
}

impl WalRange {
    /// Whether the name (a segment, or any file whose first characters name one) lies in the range, when only the first
    /// `digits` characters of the bounds count.
    fn holds(&self, name: &str, digits: usize) -> bool {
        name >= cut(&self.start, digits) && self.stop.as_deref().is_none_or(|stop| name <= cut(stop, digits))
    }
}

/// The first `digits` bytes, or all of a shorter text.
fn cut(text: &str, digits: usize) -> &str {
    text.get(..digits).unwrap_or(text)
}

/// What to do with one archive directory, like `15-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePlan {
    /// Nothing.
    Keep,
    /// Remove it whole: it is not the current cluster's and no backup needs it.
    RemoveAll,
    /// Remove what the ranges don't hold.
    Expire(WalPlan),
}

/// The WAL of one archive directory that stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalPlan {
    /// Ranges that stay, with the backup that needs them (none for the operator's own limit).
    pub ranges: Vec<(Option<BackupLabel>, WalRange)>,
    /// Directories past this segment hold nothing that could go; `None` looks into all of them.
    pub scan_max: Option<String>,
    /// Timeline history files below this timeline (8 hex digits) go; `None` keeps all.
    pub history_before: Option<String>,
}

/// What becomes of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it goes.
    Remove,
    /// Its files must be judged one by one.
    Scan,
    /// All of it stays.
    Keep,
}

impl WalPlan {
    /// Judges a directory by its name.
    pub fn directory(&self, name: &str) -> Verdict {
        if !self.ranges.iter().any(|(_, range)| range.holds(name, 16)) {
            Verdict::Remove
        } else if self.scan_max.as_deref().is_none_or(|max| name <= cut(max, 16)) {
            Verdict::Scan
        } else {
            Verdict::Keep
        }
    }

    /// Whether a file of a directory stays; its first 24 characters are the segment that it belongs to.
    pub fn keeps_file(&self, name: &str) -> bool {
        self.ranges.iter().any(|(_, range)| range.holds(cut(name, 24), 24))
    }

    /// Whether a timeline history file (`00000002.history`) goes.
    pub fn removes_history(&self, name: &str) -> bool {
        self.history_before.as_deref().is_some_and(|before| cut(name, 8) < before)
    }
}

/// Which backups of which kind decide about WAL.
#[derive(Clone, Debug)]
pub struct ArchiveRules<'a> {
    /// Backups that are kept, by label.
    pub kept: &'a [BackupFact],
    /// Which kind of backup counts.
    pub archive_type: BackupType,
    /// The number of newest ones after which all WAL is kept, at least 1.
    pub archive: u32,
    /// Only WAL before this segment may go (24 hex digits).
    pub expire_before: Option<&'a str>,
}

impl ArchiveRules<'_> {
    fn counts(&self, backup: &BackupFact) -> bool {
        match self.archive_type {
            BackupType::Full => backup.label.backup_type() == BackupType::Full,
            BackupType::Diff => backup.label.backup_type() != BackupType::Incr,
            BackupType::Incr => true,
        }
    }

    /// Whether there are enough backups to expire any WAL.
    pub fn satisfied(&self) -> bool {
        let total = self.kept.iter().filter(|backup| self.counts(backup)).count();
        self.expire_before.is_some() || (total > 0 && self.archive as usize <= total)
    }

    /// Decides about the archive directory of one cluster.
    pub fn archive(&self, db_id: u32, current_db_id: u32) -> ArchivePlan {
        let counted = || self.kept.iter().rev().filter(|backup| self.counts(backup));
        let Some(newest) = counted().find(|backup| backup.db_id == db_id) else {
            // No backup needs it. The current cluster still archives into it
            return match self.expire_before {
                _ if db_id != current_db_id => ArchivePlan::RemoveAll,
                None => ArchivePlan::Keep,
                Some(before) => ArchivePlan::Expire(WalPlan {
                    ranges: vec![(None, WalRange { start: before.to_owned(), stop: None })],
                    ..WalPlan::default()
                }),
            };
        };
        // The oldest backup from which recovery must be able to go anywhere. A cluster that is past its time keeps that
        // ability for its newest backup
        let selected =
            counted().take(self.archive as usize).filter(|backup| backup.db_id == db_id).last().unwrap_or(newest);
        let Some(selected_start) = selected.archive_start.as_deref() else { return ArchivePlan::Keep };
        let mut ranges = Vec::new();
        for backup in self.kept.iter().filter(|backup| backup.db_id == db_id && backup.label <= selected.label) {
            let Some(start) = backup.archive_start.clone() else { continue };
            let stop = if backup.label == selected.label { None } else { backup.archive_stop.clone() };
            ranges.push((Some(backup.label.clone()), WalRange { start, stop }));
        }
        if let Some(before) = self.expire_before.filter(|before| *before < selected_start) {
            ranges.push((None, WalRange { start: before.to_owned(), stop: Some(selected_start.to_owned()) }));
        }
        ArchivePlan::Expire(WalPlan {
            ranges,
            scan_max: Some(selected_start.to_owned()),
            history_before: Some(cut(selected_start, 8).to_owned()),
        })
    }
}

/// What becomes of a year's directory of the history (`2026`) when manifests before `minimum` may go.
pub fn history_year(year: &str, minimum: &BackupLabel) -> Verdict {
    let minimum = minimum.to_string();
    match year.cmp(cut(&minimum, 4)) {
        std::cmp::Ordering::Less => Verdict::Remove,
        std::cmp::Ordering::Equal => Verdict::Scan,
        std::cmp::Ordering::Greater => Verdict::Keep,
    }
}

/// Whether a manifest of the history goes: its backup is gone and older than `minimum`.
pub fn removes_history_manifest(label: &BackupLabel, minimum: &BackupLabel, kept: &[BackupFact]) -> bool {
    label < minimum && !kept.iter().any(|backup| backup.label == *label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = SECONDS_PER_DAY;

    fn label(text: &str) -> BackupLabel {
        text.parse().expect("label")
    }

    /// `F1`, `D1.2` (the second backup of set 1), `I1.3<D1.2` (with its prior) as facts of cluster 1; every number is a day.
    fn fact(short: &str) -> BackupFact {
        let (name, prior) = short.split_once('<').map_or((short, None), |(name, prior)| (name, Some(prior)));
        let (set, sub) = name[1..].split_once('.').map_or((&name[1..], "0"), |(set, sub)| (set, sub));
        let (set, sub): (i64, i64) = (set.parse().expect("set"), sub.parse().expect("sub"));
        let day = set * 10 + sub;
        let full = format!("202601{:02}-000000F", set);
        let text = match &name[..1] {
            "F" => full.clone(),
            kind => format!("{full}_202602{day:02}-000000{kind}"),
        };
        BackupFact {
            label: label(&text),
            prior: match (prior, &name[..1]) {
                (_, "F") => None,
                (None, _) => Some(label(&full)),
                (Some(prior), _) => Some(fact(prior).label),
            },
            db_id: 1,
            timestamp_stop: day * DAY,
            archive_start: Some(format!("00000001000000000000{:04X}", day)),
            archive_stop: Some(format!("00000001000000000000{:04X}", day + 1)),
        }
    }

    fn facts(list: &str) -> Vec<BackupFact> {
        list.split(' ').filter(|short| !short.is_empty()).map(fact).collect()
    }

    fn keep() -> Retention {
        Retention {
            full_type: FullRetention::Count,
            full: None,
            diff: None,
            archive_type: BackupType::Full,
            archive: None,
            history: None,
        }
    }

    fn kept(plan: &BackupPlan) -> Vec<BackupLabel> {
        plan.kept.iter().map(|backup| backup.label.clone()).collect()
    }

    fn labels(list: &str) -> Vec<BackupLabel> {
        facts(list).into_iter().map(|backup| backup.label).collect()
    }

    const TWO_SETS: &str = "F1 D1.1 I1.2<D1.1 I1.3<I1.2 D1.4 F2 I2.1 D2.2 I2.3<D2.2";

    #[test]
    fn retention_by_count_table() {
        // (all, full, diff, kept)
        let table = [
            (TWO_SETS, None, None, TWO_SETS),
            (TWO_SETS, Some(0), Some(0), TWO_SETS),
            (TWO_SETS, Some(2), None, TWO_SETS),
            (TWO_SETS, Some(1), None, "F2 I2.1 D2.2 I2.3<D2.2"),
            (TWO_SETS, Some(9), None, TWO_SETS),
            (TWO_SETS, None, Some(1), "F1 F2 I2.1 D2.2 I2.3<D2.2"),
            (TWO_SETS, None, Some(2), "F1 F2 I2.1 D2.2 I2.3<D2.2"),
            (TWO_SETS, None, Some(3), "F1 D1.4 F2 I2.1 D2.2 I2.3<D2.2"),
            (TWO_SETS, None, Some(4), TWO_SETS),
            (TWO_SETS, Some(1), Some(1), "F2 I2.1 D2.2 I2.3<D2.2"),
            ("F1 D1.1 D1.2 F2", None, Some(2), "F1 D1.2 F2"),
            ("", Some(1), Some(1), ""),
        ];
        for (all, full, diff, expected) in table {
            let plan = by_retention(facts(all), &Retention { full, diff, ..keep() }, 1000 * DAY);
            assert_eq!(kept(&plan), labels(expected), "{all} full={full:?} diff={diff:?}");
        }
    }

    #[test]
    fn diff_retention_with_dependents_expires_them_as_one_set() {
        let plan = by_retention(facts(TWO_SETS), &Retention { diff: Some(3), ..keep() }, 0);
        assert_eq!(plan.expired, [ExpiredSet { reason: Reason::Diff, labels: labels("D1.1 I1.2<D1.1 I1.3<I1.2") }]);
    }

    #[test]
    fn retention_by_time_table() {
        // Stop times are days 10 (F1) .. 31; (now in days, period, kept, archive)
        let all = "F1 D1.1 F2 D2.1 F3 D3.1";
        let table = [
            (32, 30, all, None),
            (32, 22, all, None),
            (32, 21, all, Some(3)),
            (32, 12, all, Some(3)),
            (32, 11, "F2 D2.1 F3 D3.1", Some(2)),
            (32, 2, "F2 D2.1 F3 D3.1", Some(2)),
            (32, 1, "F3 D3.1", Some(1)),
            (9, 30, all, None),
        ];
        for (now, days, expected, archive) in table {
            let retention = Retention { full_type: FullRetention::Time, full: Some(days), ..keep() };
            let plan = by_retention(facts(all), &retention, now * DAY);
            assert_eq!((kept(&plan), plan.archive), (labels(expected), archive), "now {now}, days {days}");
        }
    }

    #[test]
    fn retention_by_time_with_archive_set_leaves_it() {
        let retention = Retention { full_type: FullRetention::Time, full: Some(1), archive: Some(7), ..keep() };
        assert_eq!(by_retention(facts("F1 F2"), &retention, 99 * DAY).archive, Some(7));
    }

    #[test]
    fn oldest_with_several_fulls_keeps_one_fewer() {
        let lowered = oldest(&facts(TWO_SETS), &Retention { full: Some(5), ..keep() }).expect("two fulls");
        assert_eq!((lowered.full, lowered.archive, lowered.archive_type), (Some(1), Some(1), BackupType::Full));
        assert_eq!(oldest(&facts("F1 D1.1"), &keep()), None);
        assert_eq!(oldest(&[], &keep()), None);
    }

    #[test]
    fn ad_hoc_table() {
        // (label, kept, newest expired)
        let table = [
            ("F1", "F2 I2.1 D2.2 I2.3<D2.2", false),
            ("F2", "F1 D1.1 I1.2<D1.1 I1.3<I1.2 D1.4", true),
            ("I1.2<D1.1", "F1 D1.1 D1.4 F2 I2.1 D2.2 I2.3<D2.2", false),
            ("D2.2", "F1 D1.1 I1.2<D1.1 I1.3<I1.2 D1.4 F2 I2.1", true),
            ("F9", TWO_SETS, false),
        ];
        for (name, expected, newest) in table {
            let plan = ad_hoc(facts(TWO_SETS), &fact(name).label, &keep()).expect("allowed");
            assert_eq!((kept(&plan), plan.newest_expired.is_some()), (labels(expected), newest), "{name}");
        }
    }

    #[test]
    fn ad_hoc_of_last_full_is_refused() {
        let error = ad_hoc(facts("F1 D1.1"), &fact("F1").label, &keep()).expect_err("only full");
        assert_eq!(error.code, ErrorCode::BackupSetInvalid);
        let mut other_cluster = facts("F1 F2");
        other_cluster[1].db_id = 2;
        assert!(ad_hoc(other_cluster, &fact("F2").label, &keep()).is_err());
    }

    #[test]
    fn full_backup_with_prior_never_depends() {
        let mut list = facts("F1 F2");
        list[1].prior = Some(list[0].label.clone());
        let plan = ad_hoc(list, &fact("F1").label, &keep()).expect("allowed");
        assert_eq!(kept(&plan), labels("F2"));
    }

    #[test]
    fn directories_of_kept_and_newest_stay() {
        let disk = labels("F1 D1.1 F2 F3");
        assert_eq!(directories(&disk, &facts("F2"), false), labels("F3 D1.1 F1"));
        assert_eq!(directories(&disk, &facts("F2"), true), [fact("D1.1").label, fact("F1").label]);
    }

    fn rules<'a>(kept: &'a [BackupFact], archive_type: BackupType, archive: u32) -> ArchiveRules<'a> {
        ArchiveRules { kept, archive_type, archive, expire_before: None }
    }

    fn wal(plan: &ArchivePlan) -> &WalPlan {
        match plan {
            ArchivePlan::Expire(wal) => wal,
            other => panic!("{other:?}"),
        }
    }

    /// Names of segments (as day numbers) out of 8..=40 that stay.
    fn segments(plan: &WalPlan) -> Vec<u32> {
        (8..=40).filter(|day| plan.keeps_file(&format!("00000001000000000000{day:04X}-aabb.gz"))).collect()
    }

    #[test]
    fn archive_by_type_table() {
        // Backups start at days 10, 11, 13, 20, 22 and need two segments each; (type, amount, first segment kept for good)
        let list = facts("F1 D1.1 I1.3 F2 D2.2");
        let table = [
            (BackupType::Full, 2, 10, vec![]),
            (BackupType::Full, 1, 20, vec![10, 11, 12, 13, 14]),
            (BackupType::Diff, 1, 22, vec![10, 11, 12, 13, 14, 20, 21]),
            (BackupType::Diff, 3, 11, vec![10]),
            (BackupType::Incr, 3, 13, vec![10, 11, 12]),
        ];
        for (kind, amount, from, extra) in table {
            let rules = rules(&list, kind, amount);
            assert!(rules.satisfied());
            let plan = rules.archive(1, 1);
            let mut expected: Vec<u32> = extra;
            expected.extend(from..=40);
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(segments(wal(&plan)), expected, "{kind:?} {amount}");
        }
    }

    #[test]
    fn archive_with_too_few_backups_is_not_satisfied() {
        let list = facts("F1 D1.1");
        assert!(rules(&list, BackupType::Full, 1).satisfied());
        assert!(!rules(&list, BackupType::Full, 2).satisfied());
        assert!(!rules(&[], BackupType::Full, 1).satisfied());
        assert!(
            ArchiveRules { expire_before: Some("000000010000000000000001"), ..rules(&[], BackupType::Full, 1) }
                .satisfied()
        );
    }

    #[test]
    fn archive_of_other_cluster_without_backup_goes() {
        let list = facts("F1");
        assert_eq!(rules(&list, BackupType::Full, 1).archive(7, 1), ArchivePlan::RemoveAll);
        assert_eq!(rules(&list, BackupType::Full, 1).archive(7, 7), ArchivePlan::Keep);
    }

    #[test]
    fn archive_of_older_cluster_outside_retention_keeps_its_newest_backup() {
        let mut list = facts("F1 F2 F3");
        list[2].db_id = 2;
        let plan = rules(&list, BackupType::Full, 1).archive(1, 2);
        let mut expected = vec![10, 11];
        expected.extend(20..=40);
        assert_eq!(segments(wal(&plan)), expected);
    }

    #[test]
    fn archive_of_offline_backup_stays() {
        let mut list = facts("F1 F2");
        list[1].archive_start = None;
        assert_eq!(rules(&list, BackupType::Full, 1).archive(1, 1), ArchivePlan::Keep);
    }

    #[test]
    fn archive_expire_before_limits_removal() {
        let list = facts("F1 F2");
        let limited = |day: u32| {
            let before = format!("00000001000000000000{day:04X}");
            let rules = ArchiveRules { expire_before: Some(&before), ..rules(&list, BackupType::Full, 1) };
            segments(wal(&rules.archive(1, 1)))
        };
        let mut expected = vec![10, 11];
        expected.extend(15..=40);
        assert_eq!(limited(15), expected);
        // A limit past the retained backup changes nothing
        let mut unlimited = vec![10, 11];
        unlimited.extend(20..=40);
        assert_eq!(limited(30), unlimited);
        let none = ArchiveRules { expire_before: Some("00000001000000000000000A"), ..rules(&[], BackupType::Full, 1) };
        assert_eq!(segments(wal(&none.archive(1, 1))), (10..=40).collect::<Vec<_>>());
    }

    #[test]
    fn wal_directories_and_history_files_are_judged_by_prefix() {
        let plan = WalPlan {
            ranges: vec![
                (
                    None,
                    WalRange {
                        start: "000000020000000100000003".into(),
                        stop: Some("000000020000000100000004".into()),
                    },
                ),
                (None, WalRange { start: "000000020000000300000001".into(), stop: None }),
            ],
            scan_max: Some("000000020000000300000001".into()),
            history_before: Some("00000002".into()),
        };
        let table = [
            ("0000000100000009", Verdict::Remove),
            ("0000000200000000", Verdict::Remove),
            ("0000000200000001", Verdict::Scan),
            ("0000000200000002", Verdict::Remove),
            ("0000000200000003", Verdict::Scan),
            ("0000000200000004", Verdict::Keep),
            ("0000000300000000", Verdict::Keep),
        ];
        for (name, verdict) in table {
            assert_eq!(plan.directory(name), verdict, "{name}");
        }
        assert!(!plan.keeps_file("000000020000000100000002.00000028.backup"));
        assert!(plan.keeps_file("000000020000000100000003.partial-aa"));
        assert!(plan.removes_history("00000001.history"));
        assert!(!plan.removes_history("00000002.history"));
    }

    #[test]
    fn history_year_and_manifest_table() {
        let minimum = label("20260201-000000F");
        assert_eq!(history_year("2025", &minimum), Verdict::Remove);
        assert_eq!(history_year("2026", &minimum), Verdict::Scan);
        assert_eq!(history_year("2027", &minimum), Verdict::Keep);
        let old = label("20260105-000000F");
        assert!(removes_history_manifest(&old, &minimum, &[]));
        assert!(!removes_history_manifest(&label("20260301-000000F"), &minimum, &[]));
        let current = BackupFact { label: old.clone(), ..fact("F1") };
        assert!(!removes_history_manifest(&old, &minimum, &[current]));
    }
}
