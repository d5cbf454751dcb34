//! Decides which WAL of the archive is still needed.

use repo_format::label::{BackupLabel, BackupType};

use super::{BackupCandidate, DirVerdict, cut};

/// A range of WAL to keep, compared as text: timeline first, then position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WalRange {
    /// First segment name.
    pub start: String,
    /// Last segment name; `None` keeps everything from `start` on.
    pub stop: Option<String>,
}

/// What to do with one archive directory, like `15-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ArchivePlan {
    /// Nothing.
    Keep,
    /// Remove it completely: it does not belong to the current cluster and no backup needs it.
    RemoveAll,
    /// Remove what is not in the ranges.
    Expire(WalPlan),
}

/// The WAL of one archive directory that stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WalPlan {
    /// Ranges to keep, with the backup that needs each (`None` for the operator's own limit).
    pub ranges: Vec<(Option<BackupLabel>, WalRange)>,
    /// Directories after this segment contain nothing to remove; `None` checks all of them.
    pub scan_max: Option<String>,
    /// Timeline history files below this timeline (8 hex digits) are removed; `None` keeps all.
    pub history_before: Option<String>,
    reach: Reach,
}

/// Ranges to look names up in, of which there may be as many as backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reach(
    /// The starts in order, each with the furthest stop of the ranges up to it.
    Vec<WalRange>,
);

impl Reach {
    fn new<'a>(ranges: impl Iterator<Item = &'a WalRange>) -> Self {
        let mut ranges: Vec<WalRange> = ranges.cloned().collect();
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        let mut furthest = Some(String::new());
        for range in &mut ranges {
            let stop = range.stop.take();
            furthest = furthest.zip(stop).map(|(furthest, stop)| furthest.max(stop));
            range.stop.clone_from(&furthest);
        }
        Reach(ranges)
    }

    /// Returns whether the name (a segment, or any file whose first characters name one) is in a range, comparing only the
    /// first `digits` characters of the bounds.
    fn holds(&self, name: &str, digits: usize) -> bool {
        let begun = self.0.partition_point(|range| cut(&range.start, digits) <= name);
        let last = begun.checked_sub(1).and_then(|index| self.0.get(index));
        last.is_some_and(|range| range.stop.as_deref().is_none_or(|stop| name <= cut(stop, digits)))
    }
}

impl WalPlan {
    /// Creates a plan that keeps these ranges. It checks all directories and keeps all timeline history files.
    pub fn new(ranges: Vec<(Option<BackupLabel>, WalRange)>) -> Self {
        let reach = Reach::new(ranges.iter().map(|(_, range)| range));
        WalPlan { ranges, reach, ..WalPlan::default() }
    }

    /// Returns the verdict on a directory by its name.
    pub fn directory(&self, name: &str) -> DirVerdict {
        if !self.reach.holds(name, 16) {
            DirVerdict::Remove
        } else if self.scan_max.as_deref().is_none_or(|max| name <= cut(max, 16)) {
            DirVerdict::Scan
        } else {
            DirVerdict::Keep
        }
    }

    /// Returns whether to keep a file of a directory. Its first 24 characters are the segment that it belongs to.
    pub fn keeps_file(&self, name: &str) -> bool {
        self.reach.holds(cut(name, 24), 24)
    }

    /// Returns whether to remove a timeline history file (`00000002.history`).
    pub fn removes_history(&self, name: &str) -> bool {
        self.history_before.as_deref().is_some_and(|before| cut(name, 8) < before)
    }
}

/// The backups that determine which WAL to keep.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveRules<'a> {
    /// Backups that are kept, by label.
    pub kept: &'a [BackupCandidate],
    /// The type of backups that count.
    pub archive_type: BackupType,
    /// The number of newest backups for which all WAL is kept, at least 1.
    pub archive: u32,
    /// Only WAL before this segment may be removed (24 hex digits).
    pub expire_before: Option<&'a str>,
}

impl ArchiveRules<'_> {
    fn counts(&self, backup: &BackupCandidate) -> bool {
        match self.archive_type {
            BackupType::Full => backup.label.backup_type() == BackupType::Full,
            BackupType::Diff => backup.label.backup_type() != BackupType::Incr,
            BackupType::Incr => true,
        }
    }

    /// Returns whether there are enough backups to expire any WAL.
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
                Some(before) => {
                    ArchivePlan::Expire(WalPlan::new(vec![(None, WalRange { start: before.to_owned(), stop: None })]))
                }
            };
        };
        // The oldest backup from which recovery to any point must be possible. A cluster without counted backups keeps
        // that for its newest backup
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
            scan_max: Some(selected_start.to_owned()),
            history_before: Some(cut(selected_start, 8).to_owned()),
            ..WalPlan::new(ranges)
        })
    }
}
