//! What the archive of a cluster contains: runs of segments, and the histories of timelines.

use std::collections::BTreeMap;

use repo_format::cipher::Cipher;
use repo_format::layout::{self, ArchiveId, Stanza};
use repo_format::pg::TimelineHistory;
use repo_format::wal_name::{ArchivedSegment, Lsn, SEGMENT_DIR_LEN, TimelineId, WalSegment};

use crate::repo::wal_header;
use crate::restore::timeline::{self, ArchivePlace};
use crate::{Error, ErrorCode, Repo, Result};

/// How many damaged segments may precede one that tells the size.
const HEADERS_MAX: usize = 16;
/// Ancestors of all timelines together, which a hostile repository may make long.
const ANCESTORS_MAX: usize = 1 << 20;
/// Segments of an archive that are stored twice. More than that is no accident, and only the first ones count as such.
const DUPLICATES_MAX: usize = 1 << 16;

/// Successive segments of one timeline, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    /// Included.
    pub(super) last: u64,
}

/// The archive of a cluster.
#[derive(Debug)]
pub(super) struct Listing {
    /// In bytes.
    pub(super) segment_size: u32,
    /// The runs of each timeline, in order.
    pub(super) runs: BTreeMap<TimelineId, Vec<Run>>,
    /// The history files that exist.
    pub(super) histories: BTreeMap<TimelineId, TimelineHistory>,
    /// Segments that can't be used, and why.
    pub(super) unusable: BTreeMap<(TimelineId, u64), Unusable>,
    /// The runs that count, if others must not count although they are there.
    pub(super) known: Option<KnownRuns>,
}

/// Which of the segments count.
#[derive(Debug)]
pub(super) struct KnownRuns {
    all: BTreeMap<TimelineId, Vec<Run>>,
    /// Those that don't.
    except: BTreeMap<TimelineId, Vec<Run>>,
}

/// A history file that can't be used.
pub(super) type UnusableHistory = (TimelineId, Error);

/// Why a segment can't be used although the archive has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is stored with several contents.
    Duplicate,
    /// A record or page in it is damaged.
    Damaged {
        /// Where recovery ends.
        lsn: Lsn,
        /// What is wrong.
        text: String,
    },
}

/// Returns the number of the segment that contains a position.
pub(super) fn number(lsn: Lsn, segment_size: u32) -> u64 {
    lsn.0.checked_div(u64::from(segment_size)).unwrap_or(0)
}

/// Returns where a segment begins.
pub(super) fn begin(number: u64, segment_size: u32) -> Lsn {
    Lsn(number.saturating_mul(u64::from(segment_size)))
}

/// Returns the name of a segment.
pub(super) fn segment(timeline: TimelineId, number: u64, segment_size: u32) -> WalSegment {
    WalSegment::from_lsn(timeline, begin(number, segment_size), segment_size)
}

impl Listing {
    /// Lists an archive.
    ///
    /// # Errors
    /// A directory can't be listed, a history can't be read, or the size of segments can't be determined.
    pub(super) fn read(repo: &Repo, stanza: &Stanza, id: ArchiveId, cipher: &Cipher) -> Result<Self> {
        let place = ArchivePlace { repo, stanza, id, cipher: cipher.clone() };
        let (listing, unusable) = Self::read_usable(&place, None)?;
        match unusable.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(listing),
        }
    }

    /// Lists an archive without the history files that can't be used, which come with it. The size of segments is determined
    /// if it is not known.
    ///
    /// # Errors
    /// A directory can't be listed, or the size of segments can't be determined.
    pub(super) fn read_usable(place: &ArchivePlace<'_>, size: Option<u32>) -> Result<(Self, Vec<UnusableHistory>)> {
        let repo = place.repo;
        let path = layout::archive_path(place.stanza, place.id);
        let names = repo.storage.names(&path)?.unwrap_or_default();
        let is_dir = |name: &&String| name.len() == SEGMENT_DIR_LEN && name.parse::<DirName>().is_ok();
        let dirs: Vec<&String> = names.iter().filter(is_dir).collect();
        let (histories, unusable_histories) = histories(place, &names)?;
        let segment_size = size.map_or_else(|| segment_size(place, &dirs), Ok)?;
        let (runs, unusable) = (BTreeMap::new(), BTreeMap::new());
        let mut listing = Listing { segment_size, runs, histories, unusable, known: None };
        let read = |dir: &&String| -> Result<DirSegments> {
            let names = repo.storage.names(&path.join(dir)?)?.unwrap_or_default();
            let mut segments = segments(&names);
            // A name that no cluster of this size writes must not fill the gap of another
            segments.retain(|segment| segment.fits(segment_size));
            Ok(runs_of(&segments, segment_size))
        };
        for DirSegments { runs, duplicates } in repo.each(&dirs, read)? {
            runs.into_iter().for_each(|(timeline, run)| listing.add(timeline, run));
            for duplicate in duplicates.into_iter().take(DUPLICATES_MAX - listing.unusable.len().min(DUPLICATES_MAX)) {
                let number = number(duplicate.start_lsn(segment_size), segment_size);
                listing.unusable.insert((duplicate.timeline, number), Unusable::Duplicate);
            }
        }
        Ok((listing, unusable_histories))
    }

    /// Lets only these segments count, without some of them. Both come as first and last segments of runs.
    pub(super) fn restrict(&mut self, known: &[(WalSegment, WalSegment)], except: &[(WalSegment, WalSegment)]) {
        let size = self.segment_size;
        let runs = |all: &[(WalSegment, WalSegment)]| {
            let mut runs = BTreeMap::<TimelineId, Vec<Run>>::new();
            for (first, last) in all {
                let number = |segment: &WalSegment| number(segment.start_lsn(size), size);
                runs.entry(first.timeline).or_default().push(Run { first: number(first), last: number(last) });
            }
            runs.values_mut().for_each(|runs| runs.sort_unstable_by_key(|run| run.first));
            runs
        };
        self.known = Some(KnownRuns { all: runs(known), except: runs(except) });
    }

    /// Returns the last one of the segments that count from this one on; `None` if it does not count itself.
    pub(super) fn known_until(&self, timeline: TimelineId, number: u64) -> Option<u64> {
        let Some(known) = &self.known else { return Some(u64::MAX) };
        let from = |runs: &BTreeMap<TimelineId, Vec<Run>>| {
            let runs = runs.get(&timeline)?;
            runs.get(runs.partition_point(|run| run.last < number)).copied()
        };
        let run = from(&known.all).filter(|run| run.first <= number)?;
        match from(&known.except) {
            Some(except) if except.first <= number => None,
            Some(except) => Some(run.last.min(except.first - 1)),
            None => Some(run.last),
        }
    }

    /// Adds a run, whose directory follows those of earlier runs.
    fn add(&mut self, timeline: TimelineId, run: Run) {
        let runs = self.runs.entry(timeline).or_default();
        match runs.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(run.first) => last.last = run.last,
            _ => runs.push(run),
        }
    }

    /// Returns the run that contains a segment.
    pub(super) fn run(&self, timeline: TimelineId, number: u64) -> Option<Run> {
        let runs = self.runs.get(&timeline)?;
        let index = runs.partition_point(|run| run.last < number);
        runs.get(index).filter(|run| run.first <= number).copied()
    }

    /// Returns the ancestors of a timeline and itself, oldest first, with the position where each ended.
    pub(super) fn path(&self, timeline: TimelineId) -> Vec<PathPart> {
        let ancestors = self.histories.get(&timeline).map(|history| history.0.as_slice()).unwrap_or_default();
        // A history that contradicts itself ends where it does
        let parts = ancestors.iter().map(|entry| PathPart { timeline: entry.timeline, end: Some(entry.end_lsn) });
        let is_older = |part: &PathPart| part.timeline < timeline;
        parts.take_while(is_older).chain([PathPart { timeline, end: None }]).collect()
    }
}

/// A part of the way to a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathPart {
    pub(super) timeline: TimelineId,
    /// Where the next part begins; `None` for the timeline itself.
    pub(super) end: Option<Lsn>,
}

/// The segments of a directory.
struct DirSegments {
    runs: Vec<(TimelineId, Run)>,
    /// Those that occur several times.
    duplicates: Vec<WalSegment>,
}

/// The name of a segment's directory.
struct DirName;

impl std::str::FromStr for DirName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (timeline, log) = text.split_at_checked(8).unwrap_or((text, ""));
        timeline.parse::<TimelineId>()?;
        log.parse::<TimelineId>()?;
        Ok(DirName)
    }
}

/// Reads all history files. Returns those that can be used, and why the others can't.
fn histories(
    place: &ArchivePlace<'_>,
    names: &[String],
) -> Result<(BTreeMap<TimelineId, TimelineHistory>, Vec<UnusableHistory>)> {
    let timelines: Vec<TimelineId> =
        names.iter().filter_map(|name| name.strip_suffix(layout::TIMELINE_HISTORY_SUFFIX)?.parse().ok()).collect();
    let (mut histories, mut unusable) = (BTreeMap::new(), Vec::new());
    let mut ancestors = 0usize;
    for timeline in timelines {
        let history = match timeline::load(place, timeline) {
            Ok(history) => history,
            Err(error) => {
                unusable.push((timeline, error));
                continue;
            }
        };
        ancestors = ancestors.saturating_add(history.0.len());
        if ancestors > ANCESTORS_MAX {
            let text = format!("the histories of archive '{}' have more than {ANCESTORS_MAX} lines", place.id);
            return Err(Error::new(ErrorCode::Format, text));
        }
        histories.insert(timeline, history);
    }
    Ok((histories, unusable))
}

/// The segments among these names, in order. Partial segments are never requested by a recovery.
fn segments(names: &[String]) -> Vec<WalSegment> {
    let archived = names.iter().filter_map(|name| name.parse::<ArchivedSegment>().ok());
    let mut segments: Vec<WalSegment> = archived.filter(|name| !name.partial).map(|name| name.segment).collect();
    segments.sort_unstable();
    segments
}

/// Returns the runs of segments in order, and those that occur several times.
fn runs_of(segments: &[WalSegment], segment_size: u32) -> DirSegments {
    let (mut runs, mut duplicates) = (Vec::<(TimelineId, Run)>::new(), Vec::new());
    for same in segments.chunk_by(|a, b| a == b) {
        let [first, rest @ ..] = same else { continue };
        if !rest.is_empty() {
            duplicates.push(*first);
        }
        let number = number(first.start_lsn(segment_size), segment_size);
        match runs.last_mut() {
            Some((timeline, run)) if *timeline == first.timeline && run.last + 1 == number => run.last = number,
            _ => runs.push((first.timeline, Run { first: number, last: number })),
        }
    }
    DirSegments { runs, duplicates }
}

/// Determines the size of segments from the first one that can be read. An archive without segments gives PostgreSQL's
/// default.
fn segment_size(place: &ArchivePlace<'_>, dirs: &[&String]) -> Result<u32> {
    const DEFAULT: u32 = 16 << 20;
    let path = layout::archive_path(place.stanza, place.id);
    let mut failures = Vec::new();
    'dirs: for dir in dirs {
        let dir = path.join(dir)?;
        for name in place.repo.storage.names(&dir)?.unwrap_or_default() {
            if !name.parse::<ArchivedSegment>().is_ok_and(|segment| !segment.partial) {
                continue;
            }
            match wal_header::read(&*place.repo.storage, &dir.join(&name)?, &place.cipher, None) {
                Ok(header) => return Ok(header.segment_size),
                Err(error) => failures.push(error),
            }
            if failures.len() == HEADERS_MAX {
                break 'dirs;
            }
        }
    }
    failures.into_iter().next().map_or(Ok(DEFAULT), Err)
}
