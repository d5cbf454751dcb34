//! Lists the points that a stanza can be recovered to: ranges of positions that backups and WAL allow, timelines, and
//! with a scan of the WAL what happened when, so that the moment before a mistake can be found.

mod archive;
mod scan;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use repo_format::archive_info::{ArchiveCluster, ArchiveInfo};
use repo_format::backup_info::{BackupEntry, BackupInfo};
use repo_format::label::BackupLabel;
use repo_format::layout::{ArchiveId, Stanza};
use repo_format::pg::wal::PgTime;
use repo_format::wal_name::{Lsn, TimelineId, WalSegment};

use self::archive::{Listing, Run, Unusable};
pub use self::scan::{CommitTimes, Removed, RemovedBy, WalFact, WalFactKind};
use self::scan::{Scan, ScanRequest};
use self::windows::BackupPoint;
pub use self::windows::{Unreachable, Window, WindowEnd};
use crate::repo::info_files;
use crate::repo::reconstruct::load_backup_info_reconstruct;
use crate::restore::target_time;
use crate::restore::timeline::ArchivePlace;
use crate::session::Session;
use crate::work::crew::CrewSettings;
use crate::work::retry::RetryPolicy;
use crate::{Cipher, Error, ErrorCode, Repo, Result};

/// What to list. [`RecoveryPointsRequest::new`] lists everything without reading WAL.
#[derive(Clone, Debug)]
pub struct RecoveryPointsRequest {
    /// Only what can be recovered from this backup.
    pub set: Option<String>,
    /// Read the WAL.
    pub scan: bool,
    /// Only what happened at this time or later, as `--target` of a restore has it.
    pub since: Option<String>,
    /// Only what happened at this time or earlier.
    pub until: Option<String>,
    /// Number of workers of a scan.
    pub process_max: u32,
    /// How often a segment that can't be read is tried again.
    pub job_retry: u32,
    /// The pause before each retry except the first.
    pub job_retry_interval: Duration,
}

impl RecoveryPointsRequest {
    /// Lists everything without reading WAL.
    pub fn new() -> Self {
        RecoveryPointsRequest {
            set: None,
            scan: false,
            since: None,
            until: None,
            process_max: 1,
            job_retry: 2,
            job_retry_interval: Duration::from_secs(15),
        }
    }

    /// Reads the WAL with so many workers.
    #[must_use]
    pub fn scan(self, process_max: u32) -> Self {
        RecoveryPointsRequest { scan: true, process_max, ..self }
    }
}

impl Default for RecoveryPointsRequest {
    fn default() -> Self {
        Self::new()
    }
}

/// The points of one repository.
#[derive(Debug)]
pub struct RepoPoints {
    /// The N of the options `repoN-...`.
    pub repo_key: u32,
    /// The archives that have backups or WAL, oldest first, or why the repository can't be read.
    pub archives: Result<Vec<ArchivePoints>>,
}

/// The points of the archive of one cluster.
#[derive(Debug)]
pub struct ArchivePoints {
    /// The archive.
    pub id: ArchiveId,
    /// The cluster's identifier.
    pub system_id: u64,
    /// Size of a segment in bytes.
    pub segment_size: u32,
    /// The timelines, in order.
    pub timelines: Vec<TimelinePoints>,
    /// Backups of a stopped cluster, which are restored as they are.
    pub offline: Vec<BackupLabel>,
    /// What the scan found.
    pub scan: Option<ScanPoints>,
}

/// The points of a timeline.
#[derive(Debug)]
pub struct TimelinePoints {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it begins: the timeline before, and the position where it was left. `None` for the first one, and if the
    /// archive has no history file.
    pub parent: Option<(TimelineId, Lsn)>,
    /// First and last segment of the timeline in the archive.
    pub wal: Option<(WalSegment, WalSegment)>,
    /// Segments that are missing between the first and the last one. Expire leaves some on purpose.
    pub gaps: Vec<WalGap>,
    /// Ranges without a gap that a recovery to this timeline can reach, with those on its ancestors.
    pub windows: Vec<TimedWindow>,
    /// Backups on the way to this timeline that can't be recovered.
    pub unreachable: Vec<Unreachable>,
}

/// Successive segments of a timeline that are missing although there is WAL after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalGap {
    /// The first segment.
    pub first: WalSegment,
    /// The last segment.
    pub last: WalSegment,
    /// Their number.
    pub segments: u64,
    /// Where the first one begins.
    pub start: Lsn,
}

/// A window with the transactions in it.
#[derive(Debug)]
pub struct TimedWindow {
    /// The window.
    pub window: Window,
    /// The transactions in its segments, as far as they were read.
    pub commits: Option<CommitTimes>,
}

/// What a scan found.
#[derive(Debug)]
pub struct ScanPoints {
    /// What happened, in the order of timelines and positions.
    pub facts: Vec<WalFact>,
    /// How many events had no room in memory. A narrower range shows them.
    pub facts_omitted: usize,
    /// The transactions of each segment that was read.
    pub segments: Vec<(WalSegment, CommitTimes)>,
    /// Bytes of WAL that were read.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// How long it took.
    pub duration: Duration,
}

/// The time range of a request.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    /// Seconds since the epoch.
    since: Option<i64>,
    until: Option<i64>,
}

impl Range {
    fn of(request: &RecoveryPointsRequest) -> Result<Self> {
        let parse = |text: &Option<String>| -> Result<Option<i64>> {
            text.as_ref().map(|text| target_time::parse(text, crate::time_zone::local())).transpose()
        };
        let range = Range { since: parse(&request.since)?, until: parse(&request.until)? };
        if range.since.zip(range.until).is_some_and(|(since, until)| since > until) {
            return Err(Error::new(ErrorCode::OptionInvalid, "the time range ends before it begins"));
        }
        Ok(range)
    }

    fn has(self, time: Option<PgTime>) -> bool {
        let Some(time) = time else { return true };
        let micros = |seconds: i64| seconds.saturating_mul(1_000_000);
        let time = time.unix_micros();
        self.since.is_none_or(|since| micros(since) <= time)
            && self.until.is_none_or(|until| time < micros(until.saturating_add(1)))
    }
}

/// Lists the points of each repository. A repository that can't be read has its error.
///
/// # Errors
/// The times of the request are not valid; the session is cancelled.
pub(crate) fn run(request: &RecoveryPointsRequest, session: &Session, repos: &[Repo]) -> Result<Vec<RepoPoints>> {
    let range = Range::of(request)?;
    let mut all = Vec::new();
    for repo in repos {
        let collector = Collector { request, range, session, repo };
        let archives = collector.archives();
        session.cancel_token().check()?;
        all.push(RepoPoints { repo_key: repo.key, archives });
    }
    Ok(all)
}

/// How far a recovery can go.
pub(crate) struct Reach {
    /// The archive has the WAL up to here.
    pub(crate) end: Lsn,
    /// Why it ends there.
    pub(crate) end_reason: WindowEnd,
    /// In bytes.
    pub(crate) segment_size: u32,
}

/// Returns how far a recovery from a position can go on its way to a timeline. The archive comes with how it is encrypted.
///
/// # Errors
/// The archive can't be listed, or a history can't be read.
pub(crate) fn reach(
    repo: &Repo,
    stanza: &Stanza,
    archive: (ArchiveId, &Cipher),
    from: (TimelineId, Lsn),
) -> Result<Reach> {
    let (timeline, from) = from;
    let listing = Listing::read(repo, stanza, archive.0, archive.1)?;
    let (end, end_reason) = windows::reach(&listing, &listing.path(timeline), from);
    Ok(Reach { end, end_reason, segment_size: listing.segment_size })
}

/// What was checked in a repository.
pub(crate) struct CheckedContent {
    /// Backups of which everything is known to be good.
    pub(crate) good_backups: BTreeSet<BackupLabel>,
    /// The archives, by their names.
    pub(crate) archives: BTreeMap<String, CheckedArchive>,
}

/// What was checked of an archive.
#[derive(Default)]
pub(crate) struct CheckedArchive {
    /// In bytes; 0 if it is not known.
    pub(crate) segment_size: u32,
    /// Segments that are invalid.
    pub(crate) bad: Vec<WalSegment>,
    /// The first and last segments of the runs that were found.
    pub(crate) runs: Vec<(WalSegment, WalSegment)>,
    /// The same of segments in them that were not read.
    pub(crate) left: Vec<(WalSegment, WalSegment)>,
}

/// The points that what is good in a repository allows to recover to.
#[derive(Default)]
pub(crate) struct GoodPoints {
    /// The archives that have backups or WAL.
    pub(crate) archives: Vec<ArchivePoints>,
    /// What can't be used, and why. It allows no points.
    pub(crate) faults: Vec<(String, Error)>,
}

impl GoodPoints {
    /// Lists the points.
    pub(crate) fn find(
        repo: &Repo,
        stanza: &Stanza,
        infos: (&BackupInfo, &ArchiveInfo),
        checked: &CheckedContent,
    ) -> Self {
        let (backup_info, archive_info) = infos;
        let cipher = info_files::archive_cipher(repo, stanza, archive_info);
        let mut points = GoodPoints::default();
        for cluster in &archive_info.history {
            let mut backups = Vec::new();
            for (label, entry) in entries_of(backup_info, cluster) {
                match BackupPoint::new(label, entry) {
                    Ok(backup) if checked.good_backups.contains(label) => backups.push(backup),
                    Ok(_) => {}
                    Err(error) => points.faults.push((format!("backup {label}"), error)),
                }
            }
            backups.sort_by_key(|backup| backup.stop_time);
            let id = cluster.archive_id();
            let place = ArchivePlace { repo, stanza, id, cipher: cipher.clone() };
            if let Err(error) = points.add_archive(cluster, &place, checked.archives.get(&id.to_string()), &backups) {
                points.faults.push((format!("archive {id}"), error));
            }
        }
        points
    }

    fn add_archive(
        &mut self,
        cluster: &ArchiveCluster,
        place: &ArchivePlace<'_>,
        checked: Option<&CheckedArchive>,
        backups: &[BackupPoint],
    ) -> Result<()> {
        let none = CheckedArchive::default();
        let checked = checked.unwrap_or(&none);
        let (mut listing, unusable) =
            Listing::read_usable(place, Some(checked.segment_size).filter(|size| *size != 0))?;
        let size = listing.segment_size;
        listing.restrict(&checked.runs, &checked.left);
        for segment in &checked.bad {
            let lsn = segment.start_lsn(size);
            let damaged = Unusable::Damaged { lsn, text: "it is not what was archived".to_owned() };
            listing.unusable.entry((segment.timeline, archive::number(lsn, size))).or_insert(damaged);
        }
        if !backups.is_empty() || !listing.runs.is_empty() {
            let mut points = archive_points(cluster, &listing, backups, None);
            // PostgreSQL reads the history of the timeline that it recovers to
            let is_lost = |timeline: &&mut TimelinePoints| unusable.iter().any(|(lost, _)| *lost == timeline.timeline);
            for timeline in points.timelines.iter_mut().filter(is_lost) {
                timeline.windows.clear();
            }
            self.archives.push(points);
        }
        let name = |timeline: TimelineId| format!("history of timeline {} in archive {}", timeline.0, place.id);
        self.faults.extend(unusable.into_iter().map(|(timeline, error)| (name(timeline), error)));
        Ok(())
    }
}

/// Returns the backups of a cluster that are wanted.
///
/// # Errors
/// [`ErrorCode::Format`] if positions are missing or no positions.
fn backups_of(
    info: &BackupInfo,
    cluster: &ArchiveCluster,
    is_wanted: &dyn Fn(&BackupLabel) -> bool,
) -> Result<Vec<BackupPoint>> {
    let backups = entries_of(info, cluster).filter(|(label, _)| is_wanted(label));
    backups.map(|(label, entry)| BackupPoint::new(label, entry)).collect()
}

/// Returns the backups of a cluster.
fn entries_of<'a>(
    info: &'a BackupInfo,
    cluster: &ArchiveCluster,
) -> impl Iterator<Item = (&'a BackupLabel, &'a BackupEntry)> {
    let is_of_cluster = |pg_id: u32| {
        let pg = info.history.iter().find(|pg| pg.id == pg_id);
        pg.is_some_and(|pg| pg.system_id == cluster.system_id && pg.version == cluster.version)
    };
    info.backups.iter().filter(move |(_, entry)| is_of_cluster(entry.pg_id))
}

fn archive_points(
    cluster: &ArchiveCluster,
    listing: &Listing,
    backups: &[BackupPoint],
    scan: Option<&Scan>,
) -> ArchivePoints {
    let timelines = timelines(listing, backups);
    let timelines = timelines.into_iter().map(|timeline| timeline_points(listing, timeline, backups, scan));
    let offline = backups.iter().filter(|backup| backup.wal.is_none()).map(|backup| backup.label.clone()).collect();
    ArchivePoints {
        id: cluster.archive_id(),
        system_id: cluster.system_id,
        segment_size: listing.segment_size,
        timelines: timelines.collect(),
        offline,
        scan: None,
    }
}

/// What is needed to list the points of a repository.
struct Collector<'a> {
    request: &'a RecoveryPointsRequest,
    range: Range,
    session: &'a Session,
    repo: &'a Repo,
}

impl Collector<'_> {
    fn stanza(&self) -> &Stanza {
        self.session.stanza()
    }

    fn archives(&self) -> Result<Vec<ArchivePoints>> {
        let (repo, stanza) = (self.repo, self.stanza());
        let (backup_info, archive_info) =
            repo.both(|| load_backup_info_reconstruct(repo, stanza), || info_files::load_archive_info(repo, stanza));
        // An interrupted expire leaves backups in backup.info whose manifest is gone
        let (backup_info, archive_info) = (backup_info?.info, archive_info?);
        if let Some(set) = &self.request.set
            && !backup_info.backups.keys().any(|label| label.to_string() == *set)
        {
            return Err(Error::new(ErrorCode::BackupSetInvalid, format!("backup set {set} is not valid")));
        }
        let cipher = info_files::archive_cipher(repo, stanza, &archive_info);
        let mut archives = Vec::new();
        for cluster in &archive_info.history {
            let backups = self.backups(&backup_info, cluster)?;
            if self.request.set.is_some() && backups.is_empty() {
                continue;
            }
            let listing = Listing::read(repo, stanza, cluster.archive_id(), &cipher)?;
            if !backups.is_empty() || !listing.runs.is_empty() {
                archives.push(self.archive(cluster, listing, &backups, &cipher)?);
            }
        }
        Ok(archives)
    }

    /// The backups of a cluster that the request is about.
    fn backups(&self, info: &BackupInfo, cluster: &ArchiveCluster) -> Result<Vec<BackupPoint>> {
        let is_wanted = |label: &BackupLabel| self.request.set.as_ref().is_none_or(|set| label.to_string() == *set);
        backups_of(info, cluster, &is_wanted)
    }

    fn archive(
        &self,
        cluster: &ArchiveCluster,
        mut listing: Listing,
        backups: &[BackupPoint],
        cipher: &Cipher,
    ) -> Result<ArchivePoints> {
        let scan = match self.request.scan {
            true => Some(self.scan(cluster, &mut listing, backups, cipher)?),
            false => None,
        };
        // A recovery to an earlier time can't begin with a later backup
        let in_time = |backup: &&BackupPoint| self.range.until.is_none_or(|until| backup.stop_time <= until);
        let backups: Vec<BackupPoint> = backups.iter().filter(in_time).cloned().collect();
        let points = archive_points(cluster, &listing, &backups, scan.as_ref());
        Ok(ArchivePoints { scan: scan.map(|scan| self.scan_points(scan, &listing)), ..points })
    }

    fn scan(
        &self,
        cluster: &ArchiveCluster,
        listing: &mut Listing,
        backups: &[BackupPoint],
        cipher: &Cipher,
    ) -> Result<Scan> {
        repo_format::pg::wal::check_version(cluster.version)?;
        let retry = RetryPolicy::new(self.request.job_retry, self.request.job_retry_interval);
        let mut crew = CrewSettings::new(self.request.process_max, retry);
        crew.jobs_per_worker = self.repo.storage.concurrency().jobs_per_worker.min(2);
        let request = ScanRequest {
            repo: self.repo,
            stanza: self.stanza(),
            id: cluster.archive_id(),
            cipher: cipher.clone(),
            version: cluster.version,
            runs: self.scanned_runs(listing, backups),
            crew: &crew,
            progress: self.session.progress(),
            cancel: self.session.cancel_token(),
        };
        scan::scan(&request, listing)
    }

    /// The segments that the request is about.
    fn scanned_runs(&self, listing: &Listing, backups: &[BackupPoint]) -> Vec<(TimelineId, Run)> {
        let size = listing.segment_size;
        let mut ranges = Vec::new();
        for (&timeline, runs) in &listing.runs {
            let of_timeline =
                || backups.iter().filter(move |backup| backup.wal.is_some_and(|wal| wal.timeline == timeline));
            let (mut first, mut last) = (0, u64::MAX);
            if self.request.set.is_some() {
                let path = listing.path(timeline);
                let start = backups.iter().filter_map(|backup| backup.wal).find(|wal| {
                    path.iter().any(|part| part.timeline == wal.timeline && part.end.is_none_or(|end| wal.stop <= end))
                });
                let Some(start) = start else { continue };
                first = archive::number(start.start, size);
            }
            // All that precedes a backup was committed before the backup stopped
            if let Some(since) = self.range.since {
                let before = of_timeline().filter(|backup| backup.stop_time < since).filter_map(|backup| backup.wal);
                first = before.map(|wal| archive::number(wal.start, size)).max().unwrap_or(0).max(first);
            }
            if let Some(until) = self.range.until {
                let after = of_timeline().filter(|backup| backup.start_time > until).filter_map(|backup| backup.wal);
                last = after.map(|wal| archive::number(wal.start, size)).min().unwrap_or(u64::MAX);
            }
            let clipped = runs.iter().map(|run| Run { first: run.first.max(first), last: run.last.min(last) });
            ranges.extend(clipped.filter(|run| run.first <= run.last).map(|run| (timeline, run)));
        }
        ranges
    }

    fn scan_points(&self, scan: Scan, listing: &Listing) -> ScanPoints {
        let Scan { facts, facts_omitted, segments, bytes, records, duration } = scan;
        let facts = facts.into_iter().filter(|fact| self.range.has(fact.time.or(fact.after))).collect();
        let name = |timeline, number| archive::segment(timeline, number, listing.segment_size);
        let segments =
            segments.into_iter().map(|((timeline, number), times)| (name(timeline, number), times)).collect();
        ScanPoints { facts, facts_omitted, segments, bytes, records, duration }
    }
}

/// The timelines that the archive or a backup knows.
fn timelines(listing: &Listing, backups: &[BackupPoint]) -> Vec<TimelineId> {
    let of_backups = backups.iter().filter_map(|backup| Some(backup.wal?.timeline));
    let mut timelines: Vec<TimelineId> =
        listing.runs.keys().chain(listing.histories.keys()).copied().chain(of_backups).collect();
    timelines.sort_unstable();
    timelines.dedup();
    timelines
}

fn timeline_points(
    listing: &Listing,
    timeline: TimelineId,
    backups: &[BackupPoint],
    scan: Option<&Scan>,
) -> TimelinePoints {
    let path = listing.path(timeline);
    let parent = path.iter().rev().nth(1).and_then(|part| Some((part.timeline, part.end?)));
    let runs = listing.runs.get(&timeline).map(Vec::as_slice).unwrap_or_default();
    let name = |number| archive::segment(timeline, number, listing.segment_size);
    let wal = runs.first().zip(runs.last()).map(|(first, last)| (name(first.first), name(last.last)));
    let gaps = runs.iter().zip(runs.iter().skip(1)).filter_map(|(before, after)| {
        let (first, last) = (before.last.checked_add(1)?, after.first.checked_sub(1)?);
        let segments = last.checked_sub(first)?.saturating_add(1);
        Some(WalGap {
            first: name(first),
            last: name(last),
            segments,
            start: archive::begin(first, listing.segment_size),
        })
    });
    let gaps = gaps.collect();
    let (windows, unreachable) = windows::windows(listing, timeline, backups);
    let timed = |window: Window| {
        let commits = scan.map(|scan| commits(listing, &path, &window, &scan.segments));
        TimedWindow { window, commits }
    };
    TimelinePoints { timeline, parent, wal, gaps, windows: windows.into_iter().map(timed).collect(), unreachable }
}

/// Returns the transactions in the segments of a window.
fn commits(
    listing: &Listing,
    path: &[archive::PathPart],
    window: &Window,
    segments: &BTreeMap<(TimelineId, u64), CommitTimes>,
) -> CommitTimes {
    let size = listing.segment_size;
    let (mut number, end) = (archive::number(window.start, size), archive::number(window.end, size));
    let mut all = CommitTimes::default();
    while number <= end {
        let (timeline, limit) = windows::owner(path, number, size);
        let last = limit.map_or(end, |limit| end.min(limit.saturating_sub(1)));
        segments.range((timeline, number)..=(timeline, last)).for_each(|(_, times)| all.add(*times));
        let Some(next) = last.checked_add(1) else { break };
        number = next;
    }
    all
}
