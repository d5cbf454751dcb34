//! Whether the archive has the WAL that makes a backup consistent. pgBackRest does not check it.

use repo_format::archive_info::ArchiveCluster;
use repo_format::backup_info::BackupEntry;
use repo_format::wal_name::WalSegment;

use super::file::FileFault;
use super::report::{ArchiveResult, BackupResult};
use crate::warn;

/// The size of a segment if no segment of an archive was read, in bytes.
const DEFAULT_SEGMENT_SIZE: u32 = 16 << 20;

/// Marks a backup as invalid if the archive lacks a segment from its start to its stop.
///
/// Nothing is needed by an offline backup, by one that contains a copy of its WAL, and by one that was made without
/// waiting for its WAL, which may be archived by other means.
pub(super) fn check(
    backup: &mut BackupResult,
    entry: &BackupEntry,
    history: &[ArchiveCluster],
    archives: &[ArchiveResult],
) -> bool {
    let (Some(first), Some(last)) = (entry.archive_start, entry.archive_stop) else { return true };
    if !entry.option_online || entry.option_archive_copy || !entry.option_archive_check {
        return true;
    }
    let Some(pg) = history.iter().find(|pg| pg.id == entry.pg_id) else { return true };
    let id = pg.archive_id().to_string();
    let archive = archives.iter().find(|archive| archive.id == id);
    let missing = match archive {
        Some(archive) => first_missing(archive, first, last),
        None => Some(first),
    };
    let Some(segment) = missing else { return true };
    warn!(
        "backup '{}' can't be restored: WAL segment {segment} is missing in archive '{id}' or stored twice",
        backup.label
    );
    backup.add_fault(FileFault::Missing);
    false
}

/// Returns the first segment from `first` to `last` that no range contains.
fn first_missing(archive: &ArchiveResult, first: WalSegment, last: WalSegment) -> Option<WalSegment> {
    let size = if archive.segment_size == 0 { DEFAULT_SEGMENT_SIZE } else { archive.segment_size };
    let mut next = first;
    while next <= last {
        let name = next.to_string();
        // A range may lie between two others of the same timeline, but the ranges are in order
        let index = archive.ranges.partition_point(|range| range.stop < name);
        let range = archive.ranges.get(index).filter(|range| range.start <= name);
        let Some(stop) = range.and_then(|range| range.stop.parse::<WalSegment>().ok()) else { return Some(next) };
        let after = stop.next(size);
        if after <= next {
            break;
        }
        next = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::report::SegmentRun;
    use super::*;

    fn segment(number: u32) -> WalSegment {
        format!("0000000100000000{number:08X}").parse().unwrap()
    }

    fn archive(ranges: &[(u32, u32)]) -> ArchiveResult {
        let range = |&(start, stop): &(u32, u32)| SegmentRun {
            start: segment(start).to_string(),
            stop: segment(stop).to_string(),
            faults: Vec::new(),
        };
        ArchiveResult { ranges: ranges.iter().map(range).collect(), ..ArchiveResult::new("15-1".into()) }
    }

    #[test]
    fn segment_that_a_backup_needs_and_no_range_has_is_missing() {
        let archive = archive(&[(2, 4), (6, 9)]);
        for (first, last, missing) in [
            (2, 4, None),
            (3, 3, None),
            (6, 9, None),
            (4, 6, Some(5)),
            (1, 2, Some(1)),
            (9, 10, Some(10)),
            (11, 12, Some(11)),
        ] {
            let found = first_missing(&archive, segment(first), segment(last));
            assert_eq!(found, missing.map(segment), "{first}-{last}");
        }
    }

    #[test]
    fn segments_of_neighbouring_directories_are_no_gap() {
        let size = 16 << 20;
        let range = SegmentRun {
            start: "0000000100000000000000FE".into(),
            stop: "000000010000000100000001".into(),
            faults: Vec::new(),
        };
        let archive = ArchiveResult { segment_size: size, ranges: vec![range], ..ArchiveResult::new("15-1".into()) };
        let at = |name: &str| name.parse::<WalSegment>().unwrap();
        let (first, last) = (at("0000000100000000000000FF"), at("000000010000000100000001"));
        assert_eq!(first_missing(&archive, first, last), None);
        assert_eq!(first_missing(&archive, first, last.next(size)), Some(last.next(size)));
    }
}
