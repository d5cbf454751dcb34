//! Reads the WAL of an archive: commits, restore points, timelines, and what removed data.

mod facts;
mod reader;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use repo_format::cipher::Cipher;
use repo_format::layout::{ArchiveId, Stanza};
use repo_format::pg::PgVersion;
use repo_format::wal_name::TimelineId;

pub use self::facts::{CommitTimes, Removed, RemovedBy, WalFact, WalFactKind};
use self::facts::{EventBudget, OpenXact};
use self::reader::{Damage, JobFacts, ScanContext, ScanJob, SegmentFile, SegmentReader};
use super::archive::{self, Listing, Run, Unusable};
use crate::progress::Progress;
use crate::repo::archive_find::WalSegmentFind;
use crate::storage::on_turn::OnTurn;
use crate::work::crew::{Crew, CrewSettings, Event};
use crate::{CancelToken, ErrorCode, Repo, Result};

/// Segments of one job. Each job also begins to read the segment after its last one.
const JOB_SEGMENTS_MAX: u64 = 16;
/// Jobs per worker if there is enough to do, so that workers end at the same time.
const JOBS_PER_WORKER: u64 = 4;

/// What to scan.
pub(super) struct ScanRequest<'a> {
    pub(super) repo: &'a Repo,
    pub(super) stanza: &'a Stanza,
    pub(super) id: ArchiveId,
    pub(super) cipher: Cipher,
    pub(super) version: PgVersion,
    /// Ranges of segments by timeline, in order.
    pub(super) runs: Vec<(TimelineId, Run)>,
    pub(super) crew: &'a CrewSettings,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a CancelToken,
}

/// What a scan found.
#[derive(Debug)]
pub(super) struct Scan {
    /// In the order of timelines and positions.
    pub(super) facts: Vec<WalFact>,
    /// Events for which there was no memory.
    pub(super) facts_omitted: usize,
    pub(super) segments: BTreeMap<(TimelineId, u64), CommitTimes>,
    /// Bytes of WAL that were read.
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) duration: Duration,
}

/// Reads the segments of the request. Damaged ones are recorded in the listing, because a recovery ends there.
///
/// # Errors
/// A segment can't be read now. Damaged segments are no error.
pub(super) fn scan(request: &ScanRequest<'_>, listing: &mut Listing) -> Result<Scan> {
    let started = Instant::now();
    let segments: u64 = request.runs.iter().map(|(_, run)| run.last - run.first + 1).sum();
    request.progress.start(segments, segments.saturating_mul(u64::from(listing.segment_size)));
    let results = run_jobs(request, listing, segments);
    request.progress.finish();
    let (mut results, facts_omitted) = results?;
    results.sort_by_key(|(index, _)| *index);
    let mut merged = Merged::default();
    for (_, job) in results {
        merged.add(job, listing);
    }
    for damage in std::mem::take(&mut merged.damages) {
        let damaged = Unusable::Damaged { lsn: damage.lsn, text: damage.text };
        listing.unusable.entry((damage.segment.timeline, damage.number)).or_insert(damaged);
    }
    let Merged { mut facts, segments, bytes, records, .. } = merged;
    facts.sort_by_key(|fact| (fact.timeline, fact.lsn));
    Ok(Scan { facts, facts_omitted, segments, bytes, records, duration: started.elapsed() })
}

/// Runs the jobs, and returns their results and the number of omitted events.
fn run_jobs(request: &ScanRequest<'_>, listing: &Listing, segments: u64) -> Result<(Vec<(usize, JobFacts)>, usize)> {
    let budget = EventBudget::new();
    let storage = &*request.repo.storage;
    let workers = u64::from(request.crew.workers.max(1));
    let job_segments = (segments / (workers * JOBS_PER_WORKER)).clamp(1, JOB_SEGMENTS_MAX);
    let mut jobs = Jobs {
        find: WalSegmentFind::new(storage, request.stanza, request.id, Duration::ZERO, request.cancel),
        listing,
        chunks: chunks(&request.runs, job_segments).into_iter(),
        index: 0,
    };
    let mut results = Vec::new();
    Crew { settings: request.crew, cancel: request.cancel }.run(
        |_| jobs.next(),
        |_, turn| Ok((SegmentReader::new(turn), turn.clone())),
        |(reader, turn), job, cancel| {
            let context = ScanContext {
                storage: &OnTurn::new(storage, turn),
                cipher: request.cipher.clone(),
                version: request.version,
                segment_size: listing.segment_size,
                budget: &budget,
            };
            reader.scan(&context, job, cancel)
        },
        |event| {
            let Event::Done { job, result, .. } = event else { return Ok(()) };
            let facts = result?;
            let files = job.files.len() as u64;
            request.progress.advance(files, files.saturating_mul(u64::from(listing.segment_size)));
            results.push((job.index, facts));
            Ok(())
        },
    )?;
    Ok((results, budget.omitted()))
}

/// Splits runs into parts of at most so many segments.
fn chunks(runs: &[(TimelineId, Run)], segments_max: u64) -> Vec<(TimelineId, Run)> {
    let mut chunks = Vec::new();
    for &(timeline, run) in runs {
        let mut first = run.first;
        while first <= run.last {
            let last = first.saturating_add(segments_max - 1).min(run.last);
            chunks.push((timeline, Run { first, last }));
            first = last + 1;
        }
    }
    chunks
}

/// Makes jobs of parts of runs.
struct Jobs<'a> {
    find: WalSegmentFind<'a>,
    listing: &'a Listing,
    chunks: std::vec::IntoIter<(TimelineId, Run)>,
    index: usize,
}

impl Jobs<'_> {
    fn next(&mut self) -> Result<Option<ScanJob>> {
        let Some((timeline, run)) = self.chunks.next() else { return Ok(None) };
        let mut files = Vec::new();
        for number in run.first..=run.last {
            files.extend(self.file(timeline, number)?);
        }
        let next = run.last + 1;
        let follow = match self.listing.run(timeline, next) {
            Some(_) => self.file(timeline, next)?,
            None => match self.continued_on(timeline, next) {
                Some(child) => self.file(child, next)?,
                None => None,
            },
        };
        self.index += 1;
        Ok(Some(ScanJob { index: self.index, files, follow }))
    }

    /// Returns a segment; `None` if it is stored twice or was removed meanwhile.
    fn file(&mut self, timeline: TimelineId, number: u64) -> Result<Option<SegmentFile>> {
        let segment = archive::segment(timeline, number, self.listing.segment_size);
        match self.find.find(&segment, false) {
            Ok(found) => Ok(found.map(|found| SegmentFile {
                segment,
                number,
                path: found.path,
                compress_type: found.name.compress_type,
            })),
            Err(error) if error.code == ErrorCode::ArchiveDuplicate => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the timeline whose first segment continues the last one of another timeline.
    fn continued_on(&self, timeline: TimelineId, number: u64) -> Option<TimelineId> {
        let size = self.listing.segment_size;
        let mut children = self.listing.histories.iter().filter(|(child, history)| {
            let left = history.end_lsn(timeline).is_some_and(|end| archive::number(end, size) >= number);
            left && self.listing.run(**child, number).is_some()
        });
        children.next().map(|(child, _)| *child)
    }
}

/// What all jobs found, in the order of their segments.
#[derive(Default)]
struct Merged {
    facts: Vec<WalFact>,
    segments: BTreeMap<(TimelineId, u64), CommitTimes>,
    damages: Vec<Damage>,
    bytes: u64,
    records: u64,
    /// Transactions of earlier jobs that were in progress at their ends, on the timeline of the last job.
    open: HashMap<u32, OpenXact>,
    timeline: Option<TimelineId>,
}

impl Merged {
    fn add(&mut self, job: JobFacts, listing: &Listing) {
        let timeline = job.segments.first().map(|(segment, ..)| segment.timeline);
        if self.timeline != timeline {
            self.open.clear();
            self.timeline = timeline;
        }
        self.bytes += job.bytes;
        self.records += job.records;
        self.damages.extend(job.damages);
        for (segment, number, times) in job.segments {
            self.segments.insert((segment.timeline, number), times);
        }
        for mut fact in job.facts {
            if let WalFactKind::Removed(removed) = &mut fact.kind {
                self.complete(removed);
            }
            if let Some(timeline) = origin(listing, &fact) {
                self.facts.push(WalFact { timeline, ..fact });
            }
        }
        self.open.extend(job.open);
    }

    /// Adds what the transaction did in earlier jobs.
    fn complete(&mut self, removed: &mut Removed) {
        let subtransactions = std::mem::take(&mut removed.subtransactions);
        let earlier = facts::close(&mut self.open, std::iter::once(removed.xid).chain(subtransactions));
        removed.created = removed.created.saturating_add(earlier.created);
        removed.truncated.extend(earlier.truncated);
    }
}

/// Returns the timeline that an event belongs to. The first segment of a timeline begins with a copy of the older
/// timeline's records; `None` if those are read from the older timeline's segment.
fn origin(listing: &Listing, fact: &WalFact) -> Option<TimelineId> {
    let path = listing.path(fact.timeline);
    let part = path.iter().find(|part| part.end.is_none_or(|end| fact.lsn < end))?;
    let is_copy = part.timeline != fact.timeline
        && listing.run(part.timeline, archive::number(fact.lsn, listing.segment_size)).is_some();
    (!is_copy).then_some(part.timeline)
}
