//! The worker for a data directory on a host that rbr serves: a job is one request, whatever the number of its files.
//!
//! What is stored comes as a stream, and what was done with each file at its end. This side writes the bytes, and checks that
//! they are what the other side has made and that the results fit the job. The checksum of a file within a bundle is taken from
//! the other side; that of the whole bundle is compared with what came.

mod answer;
mod session;
mod unchanged;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::Call;
use protocol::copy::{JobChunk, JobRequest, RequestedBlocks, RequestedFile, WorkerRequest};
use protocol::filter::{Digest, PassphraseBytes};
use repo_format::cipher::Framing;
use repo_format::compress::{CompressType, Decompressor};
use repo_format::hash::Sha1Hasher;

use self::answer::OwnedEnd;
use self::session::FarSession;
use super::worker::{RemoteWorker, encode_map};
use crate::cancel::CancelToken;
use crate::pipeline::backup::{CopyFile, CopyJob, CopyResult, CopyRules, CopyWorker, JobStore};
use crate::progress::JobProgress;
use crate::remote::filters::{codec, digest};
use crate::remote::{Answer, Connection, PendingAnswer, ReceivedPart};
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result};

/// The largest request, in bytes. The files of a larger job are asked for one by one.
const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// What a file takes in a request beside its name and its block map, in bytes.
const FILE_BYTES: u64 = 80;
/// Chunks that are asked for before they are needed.
const CHUNKS_AHEAD: usize = 2;
/// The size of a chunk as pgBackRest's default `buffer-size` makes it.
const CHUNK_BYTES: u64 = 1 << 20;
/// Chunks without data that may come at once, and how often they may come after that. They say that the other host is at
/// work, which rbr says less often.
const SILENT_MAX: u32 = 100;
const SILENT_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes that are stored at a time.
const WRITE_BYTES: usize = 256 << 10;

/// Has the other host do whole jobs.
pub(super) struct JobWorker<'a> {
    connection: Arc<Connection>,
    /// Asks for single files, for jobs that are not done in one request.
    per_file: RemoteWorker<'a>,
    turn: Turn,
    /// The worker on the other host, kept from job to job. It begins with the first one.
    session: Option<FarSession>,
    buffer: Vec<u8>,
}

impl<'a> JobWorker<'a> {
    /// A worker for the thread that has this turn.
    pub(super) fn new(per_file: RemoteWorker<'a>, turn: &Turn) -> Self {
        let connection = Arc::clone(&per_file.connection);
        JobWorker { connection, per_file, turn: turn.clone(), session: None, buffer: Vec::new() }
    }

    /// The level of the compression on the way. What is compressed or encrypted already can't be compressed.
    fn network_level(&self) -> Option<i32> {
        let rules = self.per_file.rules();
        let is_plain = rules.compression.kind == CompressType::None && rules.cipher.is_none();
        self.per_file.settings.network_level.filter(|_| is_plain)
    }

    /// Returns the worker on the other host, and its answer unless it has begun already. That comes before those of the job.
    fn session(&mut self) -> (FarSession, Option<PendingAnswer>) {
        if let Some(session) = self.session.take() {
            return (session, None);
        }
        let settings = &self.per_file.settings;
        let rules: &CopyRules = self.per_file.rules();
        let version = settings.version_force.map(|version| version.to_string());
        let passphrase = rules.cipher.passphrase();
        let request = WorkerRequest {
            compression: codec(rules.compression.kind).map(|codec| (codec, rules.compression.level)),
            passphrase: passphrase.map(|passphrase| PassphraseBytes(passphrase.expose().as_bytes())),
            digest: passphrase.map_or(Digest::Sha1, digest),
            bundle_raw: rules.bundle_raw,
            reference: rules.reference,
            page_size: rules.page_size,
            page_header_check: rules.page_header_check,
            compare_buffer_bytes: rules.compare_buffer_bytes as u64,
            version_force: version.as_deref(),
            network_level: self.network_level(),
        };
        let opened = self.connection.send(&Call::WorkerOpen(request), None);
        (FarSession::new(&self.connection, opened.session), Some(opened))
    }

    /// Begins the job. Returns what the other host stores.
    fn begin(&mut self, job: &CopyJob, maps: &[Option<Vec<u8>>], cancel: &CancelToken) -> JobStream {
        let (session, opened) = self.session();
        let files = job.files.iter().zip(maps).map(|(file, map)| requested(file, map.as_deref())).collect();
        let request = JobRequest { bundle_id: job.bundle_id, files };
        let begun = self.connection.send(&Call::JobBegin(request), Some(session.number));
        let mut stream = JobStream {
            connection: Arc::clone(&self.connection),
            session,
            turn: self.turn.clone(),
            cancel: cancel.clone(),
            chunk: ReceivedPart::default(),
            opened,
            silent: (Instant::now(), 0),
            asked: VecDeque::from([begun]),
            end: None,
            progress: JobProgress::UNSEEN,
        };
        // Several small files are one chunk
        let bytes = job.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size_original));
        stream.ask(CHUNKS_AHEAD.min(usize::try_from(bytes / CHUNK_BYTES).unwrap_or(CHUNKS_AHEAD)));
        stream
    }

    /// Stores what comes, and returns the results.
    fn store(
        &mut self,
        job: &CopyJob,
        stream: JobStream,
        open: (&mut dyn JobStore, &CancelToken),
    ) -> Result<Vec<CopyResult>> {
        let (store, cancel) = open;
        let rules = self.per_file.rules();
        let kind = if self.network_level().is_some() { CompressType::Lz4 } else { CompressType::None };
        let mut stream = Decompressor::new(kind, Framing::Raw, stream)?;
        let (mut hasher, mut size, pace) = (Sha1Hasher::new(), 0u64, store.pace());
        self.buffer.resize(WRITE_BYTES, 0);
        loop {
            let count = stream.read(&mut self.buffer).map_err(|error| read_error(job, error))?;
            let data = &self.buffer[..count];
            if data.is_empty() {
                break;
            }
            cancel.check()?;
            hasher.update(data);
            size += count as u64;
            store.write(data)?;
            pace.after(count as u64, cancel);
        }
        let JobStream { end, session, .. } = stream.into_inner();
        let end = end.ok_or_else(|| Error::new(ErrorCode::Assert, "job was not read to its end"))?;
        // One that has failed is not used again
        self.session = Some(session);
        end.results(rules, job, (size, hasher.finish())).map_err(|error| error.context(copy_text(job)))
    }

    /// Does the job in one request, unless that is too large.
    fn run_whole(&mut self, job: &CopyJob, store: &mut dyn JobStore, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        let Some(maps) = prior_maps(job, store)? else { return self.per_file.run(job, store, cancel) };
        let mut stream = self.begin(job, &maps, cancel);
        stream.progress = store.progress();
        drop(maps);
        self.store(job, stream, (store, cancel))
    }
}

/// A file in the form of a request.
fn requested<'a>(file: &'a CopyFile, map: Option<&'a [u8]>) -> RequestedFile<'a> {
    RequestedFile {
        name: &file.name,
        compares: file.method.compares(),
        size: file.size,
        size_original: file.size_original,
        exact_size: file.exact_size,
        has_reference: file.has_reference,
        checksum: file.checksum.as_ref().map(|checksum| checksum.0.as_slice()),
        page_check: file.page_check,
        blocks: file.block.as_ref().map(|block| RequestedBlocks {
            block_size: block.block_size,
            checksum_size: block.checksum_size.into(),
            super_block_size: block.super_block_size,
            prior_map: map,
        }),
    }
}

/// The block maps that the files of a job continue; `None` if they are too large for a request.
fn prior_maps(job: &CopyJob, store: &mut dyn JobStore) -> Result<Option<Vec<Option<Vec<u8>>>>> {
    let mut left = REQUEST_BYTES_MAX;
    let mut maps = Vec::with_capacity(job.files.len());
    for file in &job.files {
        let map = match &file.block {
            Some(_) => store.prior_map(file)?.map(|map| encode_map(file, &map)).transpose()?,
            None => None,
        };
        let bytes = FILE_BYTES + file.name.len() as u64 + map.as_ref().map_or(0, Vec::len) as u64;
        let Some(rest) = left.checked_sub(bytes) else { return Ok(None) };
        left = rest;
        maps.push(map);
    }
    Ok(Some(maps))
}

impl CopyWorker for JobWorker<'_> {
    fn run(&mut self, job: &CopyJob, store: &mut dyn JobStore, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        // What an interrupted backup stored is on this side
        if job.files.iter().any(|file| file.method.resumes()) {
            return self.per_file.run(job, store, cancel);
        }
        if job.is_long() {
            self.turn.takes_long();
        }
        let done = unchanged::look(&self.per_file, job, store, cancel)?;
        let Some(rest) = unchanged::rest(job, &done) else { return self.run_whole(job, store, cancel) };
        let results = if rest.files.is_empty() { Vec::new() } else { self.run_whole(&rest, store, cancel)? };
        Ok(unchanged::all_results(job, done, results))
    }
}

/// What the other host stores for a job.
struct JobStream {
    connection: Arc<Connection>,
    session: FarSession,
    turn: Turn,
    cancel: CancelToken,
    chunk: ReceivedPart,
    /// Comes first, and says why there is no worker.
    opened: Option<PendingAnswer>,
    /// When data came last, and chunks without data since then.
    silent: (Instant, u32),
    asked: VecDeque<PendingAnswer>,
    /// Comes with the last chunk.
    end: Option<OwnedEnd>,
    /// Where the other host's progress is told.
    progress: JobProgress,
}

impl JobStream {
    fn ask(&mut self, count: usize) {
        for _ in 0..count {
            self.asked.push_back(self.connection.send(&Call::JobNext, Some(self.session.number)));
        }
    }

    /// Waits for an answer.
    fn wait(&self, asked: PendingAnswer) -> Result<Answer> {
        self.turn.waiting(|| asked.wait_or_stop(&self.cancel))
    }

    /// Waits for the next chunk. One without data says that the other host is still at work.
    fn next(&mut self) -> Result<()> {
        if let Some(opened) = self.opened.take() {
            self.wait(opened)?;
        }
        let asked = self.asked.pop_front();
        let asked = asked.ok_or_else(|| Error::new(ErrorCode::Assert, "unable to continue a job that failed"))?;
        let answer = self.wait(asked)?;
        self.cancel.check()?;
        self.accept(answer)
    }

    /// Takes a chunk, and asks for the next ones.
    fn accept(&mut self, answer: Answer) -> Result<()> {
        let chunk = answer.read(JobChunk::decode)?;
        if chunk.data.is_empty() && chunk.end.is_none() {
            self.silent.1 += 1;
            let waited = self.silent.0.elapsed().as_millis() / SILENT_INTERVAL.as_millis();
            if u128::from(self.silent.1.saturating_sub(SILENT_MAX)) > waited {
                return Err(self.connection.refuse("chunks of a job are empty before its end"));
            }
        } else {
            self.silent = (Instant::now(), 0);
        }
        self.progress.reach(chunk.bytes_done);
        let part = answer.part(chunk.data);
        self.end = answer.read(|_| chunk.end.map(OwnedEnd::new).transpose())?;
        self.chunk = answer.into_part(part);
        if self.end.is_none() {
            self.ask(CHUNKS_AHEAD.saturating_sub(self.asked.len()));
        }
        Ok(())
    }
}

impl Read for JobStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() || self.end.is_some() {
                return Ok(read);
            }
            if let Err(error) = self.next() {
                // A job that continued after an error must not look like a whole one
                self.asked.clear();
                return Err(error.into());
            }
        }
    }
}

/// What is done, for messages.
fn copy_text(job: &CopyJob) -> String {
    match (job.bundle_id, job.files.first()) {
        (Some(id), _) => format!("unable to copy bundle {id}"),
        (None, file) => format!("unable to copy '{}'", file.map_or("", |file| &file.name)),
    }
}

fn read_error(job: &CopyJob, error: io::Error) -> Error {
    Error::from_io(ErrorCode::FileRead, copy_text(job), error)
}

#[cfg(test)]
mod tests;
