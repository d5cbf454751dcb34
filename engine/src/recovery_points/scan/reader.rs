//! Reads successive segments of a timeline, on a worker thread.

use std::collections::HashMap;
use std::io::{self, Read};

use repo_format::cipher::{Cipher, Decryptor};
use repo_format::compress::{CompressType, DecompressContext, Decompressor, Framing};
use repo_format::layout::RepoPath;
use repo_format::pg::PgVersion;
use repo_format::pg::wal::{RecordStream, StreamStart};
use repo_format::wal_name::{Lsn, WalSegment};

use super::facts::{Collector, CommitTimes, EventBudget, OpenXact, WalFact};
use crate::storage::{self, ReadRange, RepoStorage};
use crate::work::retry::is_about_content;
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Result, decode};

/// Bytes of WAL that are decoded at a time, a multiple of every page size.
const BUFFER_BYTES: usize = 256 * 1024;

/// A segment in the archive.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) segment: WalSegment,
    pub(super) number: u64,
    pub(super) path: RepoPath,
    pub(super) compress_type: CompressType,
}

/// Successive segments of one timeline. Records that begin in them are read.
#[derive(Clone, Debug)]
pub(super) struct ScanJob {
    /// Its place among the jobs.
    pub(super) index: usize,
    pub(super) files: Vec<SegmentFile>,
    /// What follows, for the record that the last segment does not complete.
    pub(super) follow: Option<SegmentFile>,
}

/// A segment that can't be read on.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    pub(super) segment: WalSegment,
    pub(super) number: u64,
    /// Where reading ended.
    pub(super) lsn: Lsn,
    pub(super) text: String,
}

/// What a job found.
#[derive(Default)]
pub(super) struct JobFacts {
    pub(super) facts: Vec<WalFact>,
    pub(super) segments: Vec<(WalSegment, u64, CommitTimes)>,
    pub(super) open: HashMap<u32, OpenXact>,
    pub(super) damages: Vec<Damage>,
    /// Bytes of WAL that were read.
    pub(super) bytes: u64,
    pub(super) records: u64,
}

/// What all workers of a scan share.
pub(super) struct ScanContext<'a> {
    pub(super) storage: &'a dyn RepoStorage,
    pub(super) cipher: Cipher,
    pub(super) version: PgVersion,
    /// In bytes.
    pub(super) segment_size: u32,
    pub(super) budget: &'a EventBudget,
}

/// What a worker keeps from job to job.
pub(super) struct SegmentReader {
    turn: Turn,
    buffer: Box<[u8]>,
    contexts: Vec<(CompressType, DecompressContext)>,
}

impl SegmentReader {
    pub(super) fn new(turn: &Turn) -> Self {
        SegmentReader { turn: turn.clone(), buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), contexts: Vec::new() }
    }

    /// Reads the segments of a job. Damaged segments are part of the result.
    ///
    /// # Errors
    /// A segment can't be read now.
    pub(super) fn scan(&mut self, context: &ScanContext<'_>, job: &ScanJob, cancel: &CancelToken) -> Result<JobFacts> {
        let Some(first) = job.files.first() else { return Ok(JobFacts::default()) };
        let mut collector = Collector::new(context.version, first.segment.timeline, context.budget);
        let mut facts = JobFacts::default();
        let end = job.files.last().map_or(Lsn(0), |last| last.end(context.segment_size));
        let mut stream = None::<RecordStream>;
        let mut next = first.number;
        for file in job.files.iter().chain(&job.follow) {
            cancel.check()?;
            // A segment that can't be used is left out
            if file.number != next {
                facts.records += stream.take().map_or(0, |stream| stream.records());
            }
            next = file.number.saturating_add(1);
            let is_own = file.number <= job.files.last().map_or(0, |last| last.number);
            // After a damaged segment there is no record to complete
            if !is_own && stream.as_ref().is_none_or(RecordStream::is_done) {
                break;
            }
            let mut reading = Reading { context, file, end, stream: &mut stream, bytes: 0 };
            let result = self.read(&mut reading, &mut collector, cancel);
            facts.bytes += reading.bytes;
            if is_own {
                facts.segments.push((file.segment, file.number, std::mem::take(&mut collector.times)));
            } else if let Some((_, _, times)) = facts.segments.last_mut() {
                times.add(std::mem::take(&mut collector.times));
            }
            if let Err(error) = result {
                if !is_about_content(&error) {
                    return Err(error);
                }
                let lsn = damaged_at(stream.as_ref(), file, context.segment_size);
                facts.records += stream.take().map_or(0, |stream| stream.records());
                facts.damages.push(Damage { segment: file.segment, number: file.number, lsn, text: error.message });
            }
        }
        facts.records += stream.map_or(0, |stream| stream.records());
        (facts.facts, facts.open) = (collector.facts, collector.open);
        Ok(facts)
    }

    /// Reads a segment, up to the record that begins after the end.
    fn read(
        &mut self,
        reading: &mut Reading<'_, '_>,
        collector: &mut Collector<'_>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let (storage, file) = (reading.context.storage, reading.file);
        let stored =
            storage.read(&file.path, ReadRange::default())?.ok_or_else(|| storage::missing(storage, &file.path))?;
        let plain = Decryptor::new(&reading.context.cipher, Framing::Full, stored);
        let context = match self.contexts.iter().position(|(kind, _)| *kind == file.compress_type) {
            Some(index) => self.contexts.swap_remove(index).1,
            None => decode::context(file.compress_type, Framing::Full, &self.turn)?,
        };
        let size = u64::from(reading.context.segment_size);
        let mut decoder = Decompressor::with_context(context, plain).reading_at_most(size);
        let end = file.end(reading.context.segment_size);
        loop {
            cancel.check()?;
            let filled = fill(&mut decoder, &mut self.buffer, size - reading.bytes).map_err(|error| {
                Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", storage.display(&file.path)), error)
            })?;
            if filled == 0 {
                break;
            }
            reading.bytes += filled as u64;
            reading.pages(&self.buffer[..filled], collector)?;
            let is_over = |stream: &RecordStream| stream.is_done() || stream.next_page() >= end;
            if reading.stream.as_ref().is_some_and(is_over) || reading.bytes == size {
                break;
            }
        }
        self.contexts.push((file.compress_type, decoder.into_context()?));
        match reading.stream.as_ref() {
            Some(stream) if stream.is_done() || stream.next_page() >= end => Ok(()),
            _ => {
                let text = format!("WAL segment {} has {} bytes, fewer than {size}", file.segment, reading.bytes);
                Err(Error::new(ErrorCode::Format, text))
            }
        }
    }
}

impl SegmentFile {
    fn begin(&self, segment_size: u32) -> Lsn {
        self.segment.start_lsn(segment_size)
    }

    fn end(&self, segment_size: u32) -> Lsn {
        Lsn(self.begin(segment_size).0.saturating_add(u64::from(segment_size)))
    }
}

/// A segment that is being read.
struct Reading<'r, 'c> {
    context: &'r ScanContext<'c>,
    file: &'r SegmentFile,
    /// Records that begin here or later are not read.
    end: Lsn,
    stream: &'r mut Option<RecordStream>,
    /// Bytes that were read.
    bytes: u64,
}

impl Reading<'_, '_> {
    /// Reads the pages in these bytes.
    fn pages(&mut self, bytes: &[u8], collector: &mut Collector<'_>) -> Result<()> {
        let stream = match &mut *self.stream {
            Some(stream) => {
                stream.follow(self.file.segment.timeline);
                stream
            }
            none => {
                let start = StreamStart::parse(bytes, self.file.segment, self.context.version)?;
                if start.long.segment_bytes != self.context.segment_size {
                    let text = format!("WAL segment {} has another size than others", self.file.segment);
                    return Err(Error::new(ErrorCode::Format, text));
                }
                none.insert(RecordStream::new(start, self.end))
            }
        };
        let end = self.file.end(self.context.segment_size);
        for page in bytes.chunks(stream.page_bytes()) {
            if stream.is_done() || stream.next_page() >= end {
                break;
            }
            stream.page(page, &mut |record| collector.take(record))?;
        }
        Ok(())
    }
}

/// Where a segment that can't be read on ends for a recovery: before the record that is damaged.
fn damaged_at(stream: Option<&RecordStream>, file: &SegmentFile, segment_size: u32) -> Lsn {
    match stream {
        Some(stream) => stream.pending().unwrap_or_else(|| stream.last_record_end()),
        None => file.begin(segment_size),
    }
}

/// Fills the buffer with up to so many bytes. Returns how many there are.
fn fill(reader: &mut impl Read, buffer: &mut [u8], left: u64) -> io::Result<usize> {
    let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..wanted).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
