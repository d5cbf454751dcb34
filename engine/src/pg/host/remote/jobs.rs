//! The worker for a data directory on a host that rbr serves: a job is one request, whatever the number of its files.
//!
//! What is stored comes as a stream, and what was done with each file at its end. This side writes the bytes, and checks that
//! they are what the other side has made and that the results fit the job.

mod answer;

use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

use protocol::Call;
use protocol::call::CallKind;
use protocol::copy::{JobChunk, JobRequest, RequestedBlocks, RequestedFile, WorkerRequest};
use protocol::filter::PassphraseBytes;
use repo_format::cipher::{Cipher, Framing};
use repo_format::compress::{CompressType, Decompressor};
use repo_format::hash::Sha1Hasher;

use self::answer::OwnedEnd;
use super::filters::codec;
use super::worker::{RemoteWorker, encode_map};
use crate::cancel::CancelToken;
use crate::pipeline::backup::{CopyFile, CopyJob, CopyResult, CopyRules, CopyWorker, JobStore};
use crate::remote::{Connection, PendingAnswer};
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
/// Bytes that are stored at a time.
const WRITE_BYTES: usize = 256 << 10;

/// Has the other host do whole jobs.
pub(super) struct JobWorker<'a> {
    connection: Arc<Connection>,
    /// Asks for single files, for jobs that are not done in one request.
    per_file: RemoteWorker<'a>,
    turn: Turn,
    /// The worker on the other host. It begins with the first job.
    session: Option<u64>,
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

    /// Returns the session of the worker on the other host. Its answer is not waited for: the job fails if it failed.
    fn session(&mut self) -> Result<u64> {
        if let Some(session) = self.session {
            return Ok(session);
        }
        let settings = &self.per_file.settings;
        let rules: &CopyRules = self.per_file.rules();
        let version = settings.version_force.map(|version| version.to_string());
        let request = WorkerRequest {
            compression: codec(rules.compression.kind).map(|codec| (codec, rules.compression.level)),
            passphrase: match &rules.cipher {
                Cipher::None => None,
                Cipher::Aes256Cbc(passphrase) => Some(PassphraseBytes(passphrase.expose().as_bytes())),
            },
            bundle_raw: rules.bundle_raw,
            reference: rules.reference,
            page_size: rules.page_size,
            page_header_check: rules.page_header_check,
            compare_buffer_bytes: rules.compare_buffer_bytes as u64,
            version_force: version.as_deref(),
            network_level: self.network_level(),
        };
        let session = self.connection.send(&Call::WorkerOpen(request), None)?.session;
        Ok(*self.session.insert(session))
    }

    /// Begins the job. Returns what the other host stores.
    fn begin(&mut self, job: &CopyJob, maps: &[Option<Vec<u8>>]) -> Result<JobStream> {
        let session = self.session()?;
        let files = job.files.iter().zip(maps).map(|(file, map)| requested(file, map.as_deref())).collect();
        let request = JobRequest { bundle_id: job.bundle_id, files };
        let begun = self.connection.send(&Call::JobBegin(request), Some(session))?;
        let mut stream = JobStream {
            connection: Arc::clone(&self.connection),
            session,
            turn: self.turn.clone(),
            chunk: Cursor::new(Vec::new()),
            asked: VecDeque::from([begun]),
            end: None,
        };
        // Several small files are one chunk
        let bytes: u64 = job.files.iter().map(|file| file.size_original).sum();
        stream.ask(CHUNKS_AHEAD.min(usize::try_from(bytes / CHUNK_BYTES).unwrap_or(CHUNKS_AHEAD)))?;
        Ok(stream)
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
        let end = stream.get_ref().end.as_ref();
        let end = end.ok_or_else(|| Error::new(ErrorCode::Assert, "job was not read to its end"))?;
        end.results(rules, job, (size, hasher.finish())).map_err(|error| error.context(copy_text(job)))
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
        let Some(maps) = prior_maps(job, store)? else { return self.per_file.run(job, store, cancel) };
        if job.is_long() {
            self.turn.takes_long();
        }
        let stream = self.begin(job, &maps)?;
        drop(maps);
        self.store(job, stream, (store, cancel))
    }
}

impl Drop for JobWorker<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            // The connection goes on without the answer
            drop(self.connection.send(&Call::Cancel(CallKind::Copy), Some(session)));
        }
    }
}

/// What the other host stores for a job.
struct JobStream {
    connection: Arc<Connection>,
    session: u64,
    turn: Turn,
    chunk: Cursor<Vec<u8>>,
    asked: VecDeque<PendingAnswer>,
    /// Comes with the last chunk.
    end: Option<OwnedEnd>,
}

impl JobStream {
    fn ask(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.asked.push_back(self.connection.send(&Call::JobNext, Some(self.session))?);
        }
        Ok(())
    }

    /// Takes a chunk, and asks for the next ones.
    fn accept(&mut self, chunk: JobChunk<'_>) -> Result<()> {
        if chunk.data.is_empty() && chunk.end.is_none() {
            return Err(Error::new(ErrorCode::Protocol, "chunk of a job is empty before its end"));
        }
        self.chunk = Cursor::new(chunk.data.to_vec());
        self.end = chunk.end.map(OwnedEnd::new).transpose()?;
        match self.end {
            Some(_) => Ok(()),
            None => self.ask(CHUNKS_AHEAD.saturating_sub(self.asked.len())),
        }
    }
}

impl Read for JobStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() || self.end.is_some() {
                return Ok(read);
            }
            let Some(next) = self.asked.pop_front() else {
                return Err(io::Error::other("unable to continue a job that failed"));
            };
            let answer = match self.turn.waiting(|| next.wait()) {
                Ok(answer) => answer,
                Err(error) => {
                    // A job that continued after an error must not look like a whole one
                    self.asked.clear();
                    return Err(error.into());
                }
            };
            self.accept(JobChunk::decode(answer.data())?)?;
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
