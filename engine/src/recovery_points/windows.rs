//! Which positions the backups and the WAL of an archive allow to recover to, as pure functions.
//!
//! A recovery reads each segment from the newest timeline of its way that had begun by then, as PostgreSQL's
//! `XLogFileReadAnyTLI` does, and ends at the first segment that is missing.

use repo_format::backup_info::BackupEntry;
use repo_format::label::BackupLabel;
use repo_format::wal_name::{Lsn, TimelineId, WalSegment};

use super::archive::{self, Listing, PathPart, Unusable};
use crate::{Error, ErrorCode, Result};

/// A backup, as far as recovery depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackupPoint {
    pub(super) label: BackupLabel,
    /// Seconds since the epoch.
    pub(super) start_time: i64,
    pub(super) stop_time: i64,
    /// `None` for a backup of a stopped cluster.
    pub(super) wal: Option<BackupWal>,
}

/// The WAL of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BackupWal {
    pub(super) timeline: TimelineId,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    /// The backup contains a copy of the WAL from start to stop.
    pub(super) is_copied: bool,
}

impl BackupPoint {
    /// # Errors
    /// [`ErrorCode::Format`] if positions are missing or no positions.
    pub(super) fn new(label: &BackupLabel, entry: &BackupEntry) -> Result<Self> {
        let missing = || Error::new(ErrorCode::Format, format!("backup '{label}' has no WAL positions in backup.info"));
        let wal = match entry.option_online {
            true => {
                let lsn = |text: Option<&String>| text.ok_or_else(missing)?.parse::<Lsn>();
                Some(BackupWal {
                    timeline: entry.archive_start.ok_or_else(missing)?.timeline,
                    start: lsn(entry.lsn_start.as_ref())?,
                    stop: lsn(entry.lsn_stop.as_ref())?,
                    is_copied: entry.option_archive_copy,
                })
            }
            false => None,
        };
        Ok(BackupPoint {
            label: label.clone(),
            start_time: entry.timestamp_start,
            stop_time: entry.timestamp_stop,
            wal,
        })
    }
}

/// A range of positions that can be recovered to, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first position: where the first backup is consistent.
    pub start: Lsn,
    /// When that backup stopped, in seconds since the epoch.
    pub start_time: i64,
    /// WAL is there up to this position.
    pub end: Lsn,
    /// Why the window ends.
    pub end_reason: WindowEnd,
    /// The backups from which a recovery into the window can begin, oldest first.
    pub backups: Vec<BackupLabel>,
}

/// Why a window ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowEnd {
    /// This is the newest WAL of the timeline.
    Newest,
    /// The segment is missing, although there is WAL after it.
    Missing(WalSegment),
    /// The segment is stored with several contents, so that archive-get refuses it.
    Duplicate(WalSegment),
    /// The segment is damaged. Only a scan knows.
    Damaged(WalSegment, String),
    /// The segment was not read, so that nothing is known about it. Only verify says so.
    NotRead(WalSegment),
}

/// A backup that recovers to no position of a timeline, because the WAL that makes it consistent ends too early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The backup.
    pub label: BackupLabel,
    /// Where the WAL ends.
    pub end: WindowEnd,
}

/// Returns the windows of a timeline, and the backups on the way to it that are in none.
pub(super) fn windows(
    listing: &Listing,
    timeline: TimelineId,
    backups: &[BackupPoint],
) -> (Vec<Window>, Vec<Unreachable>) {
    let path = listing.path(timeline);
    let (mut windows, mut unreachable) = (Vec::<Window>::new(), Vec::new());
    for backup in backups {
        let Some(wal) = &backup.wal else { continue };
        let Some(part) = path.iter().find(|part| part.timeline == wal.timeline) else { continue };
        // The timeline was left before the backup was complete
        if part.end.is_some_and(|end| end < wal.stop) {
            continue;
        }
        // With a copy of its WAL, only what follows must be in the archive
        let first = if wal.is_copied { wal.stop } else { wal.start };
        let (mut end, end_reason) = reach(listing, &path, first);
        if wal.is_copied {
            end = end.max(wal.stop);
        }
        if end < wal.stop {
            unreachable.push(Unreachable { label: backup.label.clone(), end: end_reason });
            continue;
        }
        match windows.iter_mut().find(|window| window.end == end && window.end_reason == end_reason) {
            Some(window) => {
                if wal.stop < window.start {
                    (window.start, window.start_time) = (wal.stop, backup.stop_time);
                }
                window.backups.push(backup.label.clone());
            }
            None => windows.push(Window {
                start: wal.stop,
                start_time: backup.stop_time,
                end,
                end_reason,
                backups: vec![backup.label.clone()],
            }),
        }
    }
    windows.sort_by_key(|window| window.start);
    (windows, unreachable)
}

/// Returns how far a recovery from a position can go on the way to a timeline, and why it ends there.
pub(super) fn reach(listing: &Listing, path: &[PathPart], from: Lsn) -> (Lsn, WindowEnd) {
    let size = listing.segment_size;
    let mut number = archive::number(from, size);
    loop {
        let (timeline, limit) = owner(path, number, size);
        let stop = |reason: fn(WalSegment) -> WindowEnd, number: u64| {
            (archive::begin(number, size), reason(archive::segment(timeline, number, size)))
        };
        let Some(run) = listing.run(timeline, number) else {
            let is_last = limit.is_none() && listing.runs.get(&timeline).is_none_or(|runs| !has_after(runs, number));
            let reason = if is_last { |_| WindowEnd::Newest } else { WindowEnd::Missing };
            return stop(reason, number);
        };
        let last = limit.map_or(run.last, |limit| run.last.min(limit.saturating_sub(1)));
        let known = listing.known_until(timeline, number);
        let last = last.min(known.unwrap_or(number));
        let range = (timeline, number)..=(timeline, last);
        if let Some((&(_, bad), why)) = listing.unusable.range(range).next() {
            return match why {
                Unusable::Duplicate => stop(WindowEnd::Duplicate, bad),
                Unusable::Damaged { lsn, text } => {
                    (*lsn, WindowEnd::Damaged(archive::segment(timeline, bad, size), text.clone()))
                }
            };
        }
        if known.is_none() {
            return stop(WindowEnd::NotRead, number);
        }
        number = last.saturating_add(1);
    }
}

fn has_after(runs: &[archive::Run], number: u64) -> bool {
    runs.last().is_some_and(|run| run.first > number)
}

/// Returns the timeline that a segment is read from, and the first segment that is read from another one.
pub(super) fn owner(path: &[PathPart], number: u64, segment_size: u32) -> (TimelineId, Option<u64>) {
    let begins_at = |part: &PathPart| part.end.map(|end| archive::number(end, segment_size));
    // A part ends with the segment in which the next one begins
    let index = path.iter().position(|part| begins_at(part).is_none_or(|next| number < next));
    match index.and_then(|index| path.get(index)).or(path.last()) {
        Some(part) => (part.timeline, begins_at(part).filter(|&next| next > number)),
        None => (TimelineId(1), None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use repo_format::pg::TimelineHistory;

    use super::archive::Run;
    use super::*;

    const SIZE: u32 = 16 << 20;

    fn lsn(segment: u64, offset: u64) -> Lsn {
        Lsn(segment * u64::from(SIZE) + offset)
    }

    fn listing(runs: &[(u32, &[(u64, u64)])], histories: &[(u32, &str)]) -> Listing {
        let runs = runs.iter().map(|(timeline, runs)| {
            (TimelineId(*timeline), runs.iter().map(|&(first, last)| Run { first, last }).collect())
        });
        let histories =
            histories.iter().map(|(timeline, text)| (TimelineId(*timeline), TimelineHistory::parse(text).unwrap()));
        let (runs, histories) = (runs.collect(), histories.collect());
        Listing { segment_size: SIZE, runs, histories, unusable: BTreeMap::new(), known: None }
    }

    /// A backup that starts and stops in these segments.
    fn backup(label: &str, timeline: u32, start: u64, stop: u64) -> BackupPoint {
        let wal = BackupWal {
            timeline: TimelineId(timeline),
            start: lsn(start, 0x28),
            stop: lsn(stop, 0x100),
            is_copied: false,
        };
        BackupPoint { label: label.parse().unwrap(), start_time: 100, stop_time: 200, wal: Some(wal) }
    }

    fn shown(listing: &Listing, timeline: u32, backups: &[BackupPoint]) -> (Vec<String>, Vec<String>) {
        let (windows, unreachable) = windows(listing, TimelineId(timeline), backups);
        let window = |window: &Window| {
            let (start, end) = (window.start.0 / u64::from(SIZE), window.end.0 / u64::from(SIZE));
            format!("{start}..{end} {:?} {}", window.end_reason, window.backups.len())
        };
        let backup = |backup: &Unreachable| format!("{} {:?}", backup.label, backup.end);
        (windows.iter().map(window).collect(), unreachable.iter().map(backup).collect())
    }

    fn missing(name: &str) -> String {
        format!("{:?}", WindowEnd::Missing(name.parse().unwrap()))
    }

    const FULL: &str = "20260101-000000F";
    const INCR: &str = "20260101-000000F_20260102-000000I";
    const LATER: &str = "20260103-000000F";

    #[test]
    fn backups_without_a_gap_between_them_share_a_window() {
        let archive = listing(&[(1, &[(2, 9)])], &[]);
        let backups = [backup(FULL, 1, 2, 3), backup(INCR, 1, 5, 5)];
        assert_eq!(shown(&archive, 1, &backups), (vec!["3..10 Newest 2".to_owned()], vec![]));
    }

    #[test]
    fn gap_ends_a_window_and_a_later_backup_begins_another() {
        let archive = listing(&[(1, &[(2, 4), (6, 9)])], &[]);
        let backups = [backup(FULL, 1, 2, 3), backup(INCR, 1, 4, 5), backup(LATER, 1, 7, 7)];
        let gap = missing("000000010000000000000005");
        let wanted = vec![format!("3..5 {gap} 1"), "7..10 Newest 1".to_owned()];
        assert_eq!(shown(&archive, 1, &backups), (wanted, vec![format!("{INCR} {gap}")]));
    }

    #[test]
    fn backup_with_a_copy_of_its_wal_is_recovered_without_the_archive() {
        let archive = listing(&[], &[]);
        let mut copied = backup(FULL, 1, 2, 3);
        copied.wal.as_mut().unwrap().is_copied = true;
        assert_eq!(shown(&archive, 1, &[copied]), (vec!["3..3 Newest 1".to_owned()], vec![]));
    }

    #[test]
    fn timeline_that_left_another_is_reached_from_backups_before() {
        // Timeline 2 left 1 in segment 6, and both went on
        let archive = listing(&[(1, &[(2, 9)]), (2, &[(6, 7)])], &[(2, "1\t0/6000100\tx\n")]);
        let backups = [backup(FULL, 1, 2, 3), backup(INCR, 1, 7, 7), backup(LATER, 2, 6, 6)];
        assert_eq!(shown(&archive, 1, &backups).0, ["3..10 Newest 2"]);
        // The second backup of timeline 1 was made after 2 had left
        assert_eq!(shown(&archive, 2, &backups).0, ["3..8 Newest 2"]);
    }

    #[test]
    fn timeline_whose_ancestors_lack_wal_is_reached_only_from_its_own_backups() {
        let archive = listing(&[(1, &[(2, 4)]), (2, &[(6, 7)])], &[(2, "1\t0/6000100\tx\n")]);
        let backups = [backup(FULL, 1, 2, 3), backup(LATER, 2, 6, 6)];
        let gap = missing("000000010000000000000005");
        assert_eq!(shown(&archive, 2, &backups).0, [format!("3..5 {gap} 1"), "6..8 Newest 1".to_owned()]);
    }

    #[test]
    fn timelines_that_ended_in_one_segment_need_only_the_newest() {
        let history = "1\t0/6000100\tx\n2\t0/6000200\ty\n";
        let archive = listing(&[(1, &[(2, 5)]), (3, &[(6, 8)])], &[(3, history), (2, "1\t0/6000100\tx\n")]);
        let backups = [backup(FULL, 1, 2, 3)];
        assert_eq!(shown(&archive, 3, &backups).0, ["3..9 Newest 1"]);
        // Of timeline 2 nothing was archived
        assert_eq!(shown(&archive, 2, &backups).0, ["3..6 Newest 1"]);
    }

    #[test]
    fn segment_that_is_stored_twice_or_damaged_ends_a_window() {
        let mut archive = listing(&[(1, &[(2, 9)])], &[]);
        let damaged = Unusable::Damaged { lsn: lsn(6, 0x1000), text: "x".into() };
        archive.unusable.insert((TimelineId(1), 7), damaged);
        let backups = [backup(FULL, 1, 2, 3)];
        let (found, _) = windows(&archive, TimelineId(1), &backups);
        assert_eq!((found[0].end, found.len()), (lsn(6, 0x1000), 1));
        archive.unusable.insert((TimelineId(1), 3), Unusable::Duplicate);
        let duplicate = WindowEnd::Duplicate("000000010000000000000003".parse().unwrap());
        assert_eq!(shown(&archive, 1, &backups), (vec![], vec![format!("{FULL} {duplicate:?}")]));
    }

    #[test]
    fn segment_that_was_not_read_ends_a_window() {
        let mut archive = listing(&[(1, &[(2, 9)])], &[]);
        let name = |number: u64| archive::segment(TimelineId(1), number, SIZE);
        let end = |number: u64| format!("{:?}", WindowEnd::NotRead(name(number)));
        let backups = [backup(FULL, 1, 2, 3), backup(INCR, 1, 7, 7)];
        // Segments 6 and 9 were not read, and 9 was archived after the others were listed
        archive.restrict(&[(name(2), name(8))], &[(name(6), name(6))]);
        assert_eq!(shown(&archive, 1, &backups).0, [format!("3..6 {} 1", end(6)), format!("7..9 {} 1", end(9))]);
        archive.restrict(&[(name(2), name(9))], &[(name(2), name(9))]);
        let (windows, unreachable) = shown(&archive, 1, &backups);
        assert_eq!((windows, unreachable[0].as_str()), (vec![], format!("{FULL} {}", end(2)).as_str()));
        // That it is stored twice is known nevertheless
        archive.restrict(&[(name(2), name(4)), (name(6), name(9))], &[]);
        archive.unusable.insert((TimelineId(1), 5), Unusable::Duplicate);
        let duplicate = format!("{:?}", WindowEnd::Duplicate(name(5)));
        assert_eq!(shown(&archive, 1, &backups[..1]).0, [format!("3..5 {duplicate} 1")]);
    }
}
