//! Results, and their presentation in the report.
//!
//! Source of the texts: pgBackRest `verifyRender` in `src/command/verify/verify.c`.

use std::fmt::Write as _;

use repo_format::label::BackupLabel;
use repo_format::wal_name::WalSegment;

use super::file::FileFault;

/// Consecutive WAL segments without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRun {
    /// The first segment.
    pub start: String,
    /// The last segment.
    pub stop: String,
    /// Faults of segments in it.
    pub faults: Vec<FileFault>,
}

/// The result for one cluster's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveResult {
    /// Its name, e.g. `15-1`.
    pub id: String,
    /// Segments found, including duplicates.
    pub total: u32,
    /// Segments that are valid.
    pub valid: u32,
    /// Segments that were not read, and of which nothing is known.
    pub left: u32,
    /// These segments in order: the first and the last one of each run.
    pub left_runs: Vec<(WalSegment, WalSegment)>,
    /// The names of the segments that are not valid.
    pub bad: Vec<String>,
    /// Size of a segment in bytes; 0 until one was read.
    pub segment_size: u32,
    /// The segments, in order.
    pub ranges: Vec<SegmentRun>,
}

impl ArchiveResult {
    /// Creates an empty result.
    pub fn new(id: String) -> Self {
        ArchiveResult {
            id,
            total: 0,
            valid: 0,
            left: 0,
            left_runs: Vec::new(),
            bad: Vec::new(),
            segment_size: 0,
            ranges: Vec::new(),
        }
    }

    /// Records that the next segment is not read.
    pub fn leave(&mut self, segment: &str) {
        self.left += 1;
        // No recovery asks for a name that is none
        let Ok(segment) = segment.parse::<WalSegment>() else { return };
        let size = self.segment_size;
        match self.left_runs.last_mut() {
            Some((_, last)) if size != 0 && last.next(size) == segment => *last = segment,
            _ => self.left_runs.push((segment, segment)),
        }
    }

    /// Adds the next segment to the last range, or begins a new one if it does not follow.
    pub fn add_segment(&mut self, segment: &str) {
        match self.ranges.last_mut() {
            Some(range) if follows(&range.stop, segment, self.segment_size) => segment.clone_into(&mut range.stop),
            _ => {
                self.ranges.push(SegmentRun { start: segment.to_owned(), stop: segment.to_owned(), faults: Vec::new() })
            }
        }
    }

    /// Adds a fault to the range that the segment is in.
    pub fn add_fault(&mut self, segment: &str, fault: FileFault) {
        let index = self.ranges.partition_point(|range| range.stop.as_str() < segment);
        if let Some(range) = self.ranges.get_mut(index) {
            range.faults.push(fault);
        }
    }
}

fn follows(before: &str, segment: &str, segment_size: u32) -> bool {
    let next = before.parse::<WalSegment>().ok().map(|before| before.next(segment_size));
    next.is_some_and(|next| next.to_string() == segment)
}

/// The status of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupStatus {
    /// All its files are valid.
    Valid,
    /// A file is invalid, or the manifest can't be used.
    Invalid,
    /// There is no manifest: the backup may have expired meanwhile.
    ManifestMissing,
    /// The backup is being made.
    InProgress,
    /// Nothing is known to be invalid, but not all that the backup needs was read.
    NotAllRead,
}

impl BackupStatus {
    /// Whether the short report names the backup.
    fn is_reported(self) -> bool {
        matches!(self, BackupStatus::Invalid | BackupStatus::ManifestMissing)
    }

    /// Returns the word for it in the report.
    pub fn text(self) -> &'static str {
        match self {
            BackupStatus::Valid => "valid",
            BackupStatus::Invalid => "invalid",
            BackupStatus::ManifestMissing => "manifest missing",
            BackupStatus::InProgress => "in-progress",
            BackupStatus::NotAllRead => "not all read",
        }
    }
}

/// The result for one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupResult {
    /// Its label.
    pub label: BackupLabel,
    /// The status.
    pub status: BackupStatus,
    /// Files checked.
    pub total: u32,
    /// Files that are valid.
    pub valid: u32,
    /// Files that were not read, and of which nothing is known.
    pub left: u32,
    /// Valid files that need blocks in other backups of which nothing is known.
    pub unproven: u32,
    /// What is wrong, in the order in which it was found.
    pub faults: Vec<FileFault>,
}

impl BackupResult {
    /// Creates an empty result.
    pub fn new(label: BackupLabel) -> Self {
        let status = BackupStatus::Valid;
        BackupResult { label, status, total: 0, valid: 0, left: 0, unproven: 0, faults: Vec::new() }
    }

    /// Records that a file is invalid, and therefore the backup.
    pub fn add_fault(&mut self, fault: FileFault) {
        self.status = BackupStatus::Invalid;
        self.faults.push(fault);
    }
}

/// Returns whether not all was read that is not known to be invalid.
pub(super) fn is_open(archives: &[ArchiveResult], backups: &[BackupResult]) -> bool {
    archives.iter().any(|archive| archive.left > 0)
        || backups.iter().any(|backup| backup.status == BackupStatus::NotAllRead)
}

/// Renders the lines about archives and backups, each after a line feed. Without `verbose`, only what is invalid.
pub fn render(archives: &[ArchiveResult], backups: &[BackupResult], verbose: bool) -> String {
    let mut text = String::new();
    // Writing to a String can't fail
    if verbose && archives.is_empty() {
        text.push_str("\n  archiveId: none found");
    }
    for archive in archives {
        if verbose || archive.total.saturating_sub(archive.left) != archive.valid {
            let _ = write!(
                text,
                "\n  archiveId: {}, total WAL checked: {}, total valid WAL: {}",
                archive.id,
                archive.total.saturating_sub(archive.left),
                archive.valid
            );
        }
        if archive.total > 0 {
            let faults = archive.ranges.iter().flat_map(|range| range.faults.iter().copied());
            render_faults(&mut text, faults, verbose);
        }
    }
    if verbose && backups.is_empty() {
        text.push_str("\n  backup: none found");
    }
    for backup in backups {
        if verbose || backup.status.is_reported() {
            let _ = write!(
                text,
                "\n  backup: {}, status: {}, total files checked: {}, total valid files: {}",
                backup.label,
                backup.status.text(),
                backup.total.saturating_sub(backup.left),
                backup.valid
            );
        }
        if backup.total > 0 {
            render_faults(&mut text, backup.faults.iter().copied(), verbose);
        }
    }
    text
}

/// The line that counts faults by kind.
fn render_faults(text: &mut String, faults: impl Iterator<Item = FileFault>, verbose: bool) {
    let mut counts = [0u32; 4];
    for fault in faults {
        counts[fault as usize] += 1;
    }
    if !verbose && counts == [0; 4] {
        return;
    }
    let names = ["missing", "checksum invalid", "size invalid", "other"];
    let parts: Vec<String> = names
        .iter()
        .zip(counts)
        .filter(|(_, count)| verbose || *count > 0)
        .map(|(name, count)| format!("{name}: {count}"))
        .collect();
    let _ = write!(text, "\n    {}", parts.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(valid: u32, faults: Vec<FileFault>) -> ArchiveResult {
        let range = SegmentRun { start: "a".into(), stop: "b".into(), faults };
        ArchiveResult { total: 3, valid, ranges: vec![range], ..ArchiveResult::new("15-1".into()) }
    }

    fn backup(status: BackupStatus, faults: &[FileFault]) -> BackupResult {
        let faults = faults.to_vec();
        BackupResult { status, total: 5, valid: 4, faults, ..BackupResult::new("20260101-000000F".parse().unwrap()) }
    }

    #[test]
    fn render_without_faults_is_empty_unless_verbose() {
        let (archives, backups) = ([archive(3, vec![])], [backup(BackupStatus::Valid, &[])]);
        assert_eq!(render(&archives, &backups, false), "");
        assert_eq!(
            render(&archives, &backups, true),
            "\n  archiveId: 15-1, total WAL checked: 3, total valid WAL: 3\
             \n    missing: 0, checksum invalid: 0, size invalid: 0, other: 0\
             \n  backup: 20260101-000000F, status: valid, total files checked: 5, total valid files: 4\
             \n    missing: 0, checksum invalid: 0, size invalid: 0, other: 0"
        );
    }

    #[test]
    fn render_counts_only_faults_that_there_are() {
        let archives = [archive(1, vec![FileFault::Missing, FileFault::Other])];
        let backups = [backup(BackupStatus::Invalid, &[FileFault::Checksum]), backup(BackupStatus::InProgress, &[])];
        assert_eq!(
            render(&archives, &backups, false),
            "\n  archiveId: 15-1, total WAL checked: 3, total valid WAL: 1\n    missing: 1, other: 1\
             \n  backup: 20260101-000000F, status: invalid, total files checked: 5, total valid files: 4\
             \n    checksum invalid: 1"
        );
    }

    #[test]
    fn render_of_nothing_says_so_when_verbose() {
        assert_eq!(render(&[], &[], true), "\n  archiveId: none found\n  backup: none found");
        assert_eq!(render(&[], &[], false), "");
    }

    fn ranges_of(segments: &[&str]) -> Vec<(String, String)> {
        let mut archive = ArchiveResult { segment_size: 16 << 20, ..ArchiveResult::new("15-1".into()) };
        for segment in segments {
            archive.add_segment(segment);
        }
        archive.ranges.into_iter().map(|range| (range.start, range.stop)).collect()
    }

    #[test]
    fn add_segment_begins_a_range_at_each_gap_and_timeline() {
        let name = |timeline: u32, log: u32, number: u32| format!("{timeline:08X}{log:08X}{number:08X}");
        let (first, last) = (name(1, 0, 0xFD), name(1, 1, 0));
        let segments = [first, name(1, 0, 0xFE), name(1, 0, 0xFF), last, name(1, 1, 2), name(2, 1, 3)];
        let expected = [(0, 3), (4, 4), (5, 5)]
            .map(|(start, stop): (usize, usize)| (segments[start].clone(), segments[stop].clone()));
        assert_eq!(ranges_of(&segments.each_ref().map(String::as_str)), expected);
    }

    #[test]
    fn add_fault_goes_to_the_first_range_that_reaches_the_segment() {
        let range = |start: &str, stop: &str| SegmentRun { start: start.into(), stop: stop.into(), faults: vec![] };
        let mut archive = ArchiveResult::new("15-1".into());
        archive.ranges = vec![range("01", "05"), range("07", "09")];
        archive.add_fault("05", FileFault::Size);
        archive.add_fault("08", FileFault::Checksum);
        assert_eq!(archive.ranges[0].faults, [FileFault::Size]);
        assert_eq!(archive.ranges[1].faults, [FileFault::Checksum]);
    }
}
