//! Workers that do whole jobs of a backup beside the data directory, for a client that is rbr.
//!
//! A worker is a thread, which copies as a backup of this host does ([`LocalWorker`]). It stops when the client takes
//! nothing of what it has made, so memory does not grow with the job. One worker of a connection computes at a time, since a
//! client has as many connections as processes may compute.

mod convert;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use protocol::channel::CHANNELS_MAX;
use protocol::copy::{JobChunk, JobEnd, JobRequest, WorkerRequest};
use repo_format::block_map::BlockMap;
use repo_format::cipher::Framing;
use repo_format::compress::{CompressType, Compression, Compressor};
use repo_format::hash::{Sha1, Sha1Hasher};

use super::block;
use super::files::Files;
use super::memory::{CountedMemory, Grown, Growth, Usage};
use crate::log::Inherited;
use crate::pg::data_dir::DataDir;
use crate::pipeline::backup::{CodecPool, CopyFile, CopyJob, CopyResult, CopyWorker, JobStore, LocalWorker};
use crate::progress::{BytesUnderWay, JobProgress};
use crate::storage::Concurrency;
use crate::work::turn::{AddedSlot, Slots, Turn};
use crate::{CancelToken, Error, ErrorCode, Result};

/// The most workers of a connection, with those that are about to end.
const WORKERS_MAX: usize = 2 * CHANNELS_MAX * Concurrency::SERVER.jobs_per_worker as usize;
/// Pieces of a job that wait for the client.
const PIECES_WAITING_MAX: usize = 2;
/// How long an answer waits for a worker that makes nothing. The client asks again, so it hears that this side is at work,
/// and other workers get their turn.
const LOOK: Duration = Duration::from_millis(250);

/// The workers of a channel.
#[derive(Default)]
pub(super) struct Workers {
    /// The right of one of them to compute. It ends with the last of them: one that waits for it needs it to find out that it is
    /// to end.
    slot: Mutex<Weak<AddedSlot>>,
    /// They end with the workers that use them.
    codecs: Mutex<Weak<CodecPool>>,
}

/// A job, with the block maps that its files continue, by name.
struct OwnedJob {
    job: CopyJob,
    maps: BTreeMap<Box<str>, Vec<u8>>,
    _memory: CountedMemory,
}

/// What a worker has made.
enum Piece {
    Data(Vec<u8>),
    End(Ended),
    Failed(Error),
}

/// A job that was done.
struct Ended {
    size: u64,
    checksum: Sha1,
    results: Vec<CopyResult>,
}

/// A chunk in the block of the connection.
pub(super) struct StoredChunk {
    size: usize,
    end: Option<Ended>,
    bytes_done: u64,
}

impl StoredChunk {
    /// The answer with the data of `block`.
    pub(super) fn answer<'a>(&'a self, block: &'a [u8]) -> JobChunk<'a> {
        let end = self.end.as_ref().map(|end| JobEnd {
            size: end.size,
            checksum: &end.checksum.0,
            results: end.results.iter().map(convert::result).collect(),
        });
        JobChunk { data: block.get(..self.size).unwrap_or_default(), end, bytes_done: self.bytes_done }
    }
}

/// A worker as the connection sees it. Dropping it ends the worker.
pub(super) struct WorkerSession {
    /// `None` once it ends.
    jobs: Option<Sender<OwnedJob>>,
    thread: Option<JoinHandle<()>>,
    pieces: Receiver<Piece>,
    /// What did not fit into the last chunk, and where it begins.
    rest: (Vec<u8>, usize),
    is_running: bool,
    cancel: CancelToken,
    /// What its job has copied.
    under_way: BytesUnderWay,
    page_size: u32,
}

impl Drop for WorkerSession {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.jobs = None;
        // A thread without a job ends at once. Another one may need a while, and its memory counts that long
        if let Some(thread) = self.thread.take().filter(|_| !self.is_running) {
            // One that panicked has ended
            let _ = thread.join();
        }
    }
}

/// Returns what the workers share, which the first of them makes.
fn shared<T>(kept: &Mutex<Weak<T>>, make: impl FnOnce() -> T) -> Arc<T> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.upgrade().unwrap_or_else(|| {
        let made = Arc::new(make());
        *kept = Arc::downgrade(&made);
        made
    })
}

impl Workers {
    /// Returns the codecs of the workers. None waits for another's: the client asks for the next part of a job, and would wait
    /// for nothing while a job can't begin.
    fn codecs(&self) -> Arc<CodecPool> {
        shared(&self.codecs, || CodecPool::new(usize::MAX).sparing_memory())
    }

    /// Starts a worker.
    ///
    /// # Errors
    /// [`ErrorCode::Access`] if there are too many, [`ErrorCode::Memory`] if it needs too much, and others for parameters
    /// that are not valid.
    pub(super) fn begin(
        &self,
        request: &WorkerRequest<'_>,
        data_dir: DataDir,
        usage: &Usage,
        cancel: &CancelToken,
    ) -> Result<WorkerSession> {
        let memory = usage.memory.count(convert::worker_memory_bytes(request)?)?;
        let (rules, version_force) = (convert::rules(request, self.codecs())?, convert::version(request)?);
        let network =
            request.network_level.map(|level| Compression::new(CompressType::Lz4, Some(level))).transpose()?;
        let seat = usage.workers.take(WORKERS_MAX, "workers")?;
        // Given back in this order
        let counted = (shared(&self.slot, || usage.slots.add()), memory, seat);
        let (jobs, next) = channel::<OwnedJob>();
        let (sender, pieces) = sync_channel(PIECES_WAITING_MAX);
        let (slots, cancel) = (Arc::clone(&usage.slots), cancel.child());
        let warnings = Inherited::from_this_thread();
        let under_way = BytesUnderWay::default();
        let line = Line {
            slots,
            stop: cancel.clone(),
            pieces: sender,
            network,
            under_way: under_way.clone(),
            grown: usage.grown.clone(),
        };
        let body = move || {
            // Its memory is given back after the codecs are dropped
            let _counted = counted;
            let rules = rules;
            let turn = line.slots.turn();
            let worker = LocalWorker::new(data_dir, version_force, &rules, &turn);
            warnings.during(|| line.work(worker, &turn, &next));
        };
        let started = Builder::new().name("copy".to_owned()).spawn(body);
        let thread = started.map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start a thread", e))?;
        Ok(WorkerSession {
            jobs: Some(jobs),
            thread: Some(thread),
            pieces,
            rest: (Vec::new(), 0),
            is_running: false,
            cancel,
            under_way,
            page_size: request.page_size,
        })
    }
}

impl WorkerSession {
    /// Gives the worker its next job.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] if it still has one, [`ErrorCode::Access`] for a file out of reach, [`ErrorCode::Memory`] if
    /// the job needs too much, and others for parameters that are not valid.
    pub(super) fn begin(&mut self, request: &JobRequest<'_>, files: &Files, usage: &Usage) -> Result<()> {
        if self.is_running {
            return Err(Error::new(ErrorCode::Protocol, "worker has a job already"));
        }
        let memory = usage.memory.count(convert::job_memory_bytes(request))?;
        // Before anything is opened
        request.files.iter().try_for_each(|file| files.check_name(file.name))?;
        let job = convert::job(request, self.page_size)?;
        let maps = request.files.iter().filter_map(|file| {
            let map = file.blocks.as_ref()?.prior_map?;
            Some((file.name.into(), map.to_vec()))
        });
        let job = OwnedJob { job, maps: maps.collect(), _memory: memory };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(Error::new(ErrorCode::Assert, "worker has ended"));
        }
        self.is_running = true;
        Ok(())
    }

    /// Fills `block` with the next part of what is stored. It is empty if there is no job, or nothing for a while.
    ///
    /// # Errors
    /// Those of the job, after which the worker has ended; [`ErrorCode::Term`] after a signal.
    pub(super) fn next(&mut self, block: &mut [u8], cancel: &CancelToken) -> Result<StoredChunk> {
        let (size, end) = self.fill(block, cancel)?;
        Ok(StoredChunk { size, end, bytes_done: self.under_way.bytes() })
    }

    /// Returns the bytes in `block`, and what was done if the job has ended.
    fn fill(&mut self, block: &mut [u8], cancel: &CancelToken) -> Result<(usize, Option<Ended>)> {
        let mut size = 0;
        loop {
            let (rest, begin) = &mut self.rest;
            let left = rest.get(*begin..).unwrap_or_default();
            let taken = left.len().min(block.len() - size);
            block[size..size + taken].copy_from_slice(&left[..taken]);
            (*begin, size) = (*begin + taken, size + taken);
            if size == block.len() {
                return Ok((size, None));
            }
            if !self.is_running {
                return Ok((size, None));
            }
            match self.receive()? {
                Some(Piece::Data(data)) => self.rest = (data, 0),
                None => {
                    cancel.check()?;
                    return Ok((size, None));
                }
                Some(Piece::Failed(error)) => {
                    self.is_running = false;
                    return Err(error);
                }
                Some(Piece::End(end)) => {
                    self.is_running = false;
                    self.rest = (Vec::new(), 0);
                    return Ok((size, Some(end)));
                }
            }
        }
    }

    /// Waits for what comes next; `None` if nothing comes for a while.
    fn receive(&self) -> Result<Option<Piece>> {
        match self.pieces.recv_timeout(LOOK) {
            Ok(piece) => Ok(Some(piece)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::new(ErrorCode::Assert, "worker has ended")),
        }
    }
}

/// What connects the thread of a worker with its session.
struct Line {
    /// The right to compute.
    slots: Arc<Slots>,
    stop: CancelToken,
    pieces: SyncSender<Piece>,
    /// The compression on the way.
    network: Option<Compression>,
    under_way: BytesUnderWay,
    grown: Grown,
}

impl Line {
    /// Does jobs until there are no more, one fails, or the client has left.
    fn work(&self, mut worker: LocalWorker<'_>, turn: &Turn, next: &Receiver<OwnedJob>) {
        while let Ok(job) = next.recv() {
            let mut store = Store::new(&job, &self.pieces, turn, self.network);
            store.progress = self.under_way.begin(u64::MAX);
            store.map_growth = Some(Growth::new(&self.grown));
            // Each job has a place of its own in the queue, and waits for nothing else with a slot
            let run = || worker.run(&job.job, &mut store, &self.stop).and_then(|results| store.end(results));
            let (piece, has_failed) = match turn.run(run) {
                Ok(ended) => (Piece::End(ended), false),
                Err(error) => (Piece::Failed(error), true),
            };
            // What comes now belongs to the next job
            drop(store);
            drop(job);
            // A client that has left needs no answer
            if self.pieces.send(piece).is_err() || has_failed {
                return;
            }
        }
    }
}

/// The client's repository as a worker sees it.
struct Store<'a> {
    job: &'a OwnedJob,
    pieces: &'a SyncSender<Piece>,
    turn: &'a Turn,
    network: Option<Compression>,
    compressor: Option<Compressor>,
    progress: JobProgress,
    /// The memory of the largest block map that was made.
    map_growth: Option<Growth>,
    size: u64,
    hasher: Sha1Hasher,
}

impl<'a> Store<'a> {
    fn new(job: &'a OwnedJob, pieces: &'a SyncSender<Piece>, turn: &'a Turn, network: Option<Compression>) -> Self {
        Store {
            job,
            pieces,
            turn,
            network,
            compressor: None,
            progress: JobProgress::UNSEEN,
            map_growth: None,
            size: 0,
            hasher: Sha1Hasher::new(),
        }
    }

    /// Compresses for the way, if that was asked for.
    fn compressor(&mut self) -> Result<Option<&mut Compressor>> {
        if let (Some(network), None) = (self.network, &self.compressor) {
            self.compressor = Some(Compressor::new(network, Framing::Raw)?);
        }
        Ok(self.compressor.as_mut())
    }

    fn send(&self, piece: Piece) -> Result<()> {
        let sent = match self.pieces.try_send(piece) {
            // Others compute only while there is something to wait for
            Err(TrySendError::Full(piece)) => self.turn.waiting(|| self.pieces.send(piece)).map_err(drop),
            sent => sent.map_err(drop),
        };
        // Nobody needs an answer any more
        sent.map_err(|()| Error::new(ErrorCode::Term, "client has left"))
    }

    /// Ends the stream of the job.
    fn end(&mut self, results: Vec<CopyResult>) -> Result<Ended> {
        let mut last = Vec::new();
        if let Some(compressor) = self.compressor()? {
            compressor.finish(&mut last)?;
        }
        if !last.is_empty() {
            self.send(Piece::Data(last))?;
        }
        Ok(Ended { size: self.size, checksum: self.hasher.clone().finish(), results })
    }
}

impl JobStore for Store<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        self.hasher.update(bytes);
        let mut piece = Vec::new();
        match self.compressor()? {
            Some(compressor) => compressor.push(bytes, &mut piece)?,
            None => piece.extend_from_slice(bytes),
        }
        if piece.is_empty() { Ok(()) } else { self.send(Piece::Data(piece)) }
    }

    fn map_grows(&mut self, blocks: u64) -> Result<()> {
        let bytes = blocks.saturating_mul(block::MAP_ENTRY_BYTES);
        self.map_growth.as_mut().map_or(Ok(()), |growth| growth.grow_to(bytes))
    }

    fn progress(&self) -> JobProgress {
        self.progress.clone()
    }

    fn stored_checksum(&mut self) -> Result<Option<(u64, Sha1)>> {
        Err(Error::new(ErrorCode::Assert, "files of an interrupted backup are not here"))
    }

    fn prior_map(&mut self, file: &CopyFile) -> Result<Option<BlockMap>> {
        let (Some(block), Some(map)) = (&file.block, self.job.maps.get(&file.name)) else { return Ok(None) };
        BlockMap::read(map, block.block_size, block.checksum_size).map(Some)
    }
}

#[cfg(test)]
mod tests;
