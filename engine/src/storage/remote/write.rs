//! Files that are written to a repository on another host.
//!
//! pgBackRest compresses on the way what its caller marks: files that are neither compressed nor encrypted. Here the content
//! decides, so manifests are compressed, too.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use protocol::call::CallKind;
use protocol::filter::{Codec, Filter};
use protocol::storage::{RemoveRequest, WriteAnswer, WriteRequest};
use protocol::{Call, Capability};
use repo_format::cipher::Framing;
use repo_format::compress::{CompressType, Compression, Compressor};

use super::super::{RepoWriter, WriteOptions};
use super::PATH_MODE;
use crate::remote::{Answer, LaneUse, PendingAnswer};
use crate::{Error, ErrorCode, Result};

/// Mode of a repository file.
const FILE_MODE: u32 = 0o640;
/// Bytes that are written with one request. The server keeps the largest request of each channel in memory, so this is
/// less than the megabyte that pgBackRest uses by default.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// Blocks of a file that are sent before the first answer is read.
const BLOCKS_AHEAD_MAX: usize = 16;
/// Blocks without an answer up to which the next one is sent at once: the host is near, and has room for it.
const BLOCKS_AT_ONCE_MAX: usize = 8;
/// How long to wait until the server has dropped a file that is not complete.
const DROPPED_WAIT: Duration = Duration::from_secs(30);
/// What pgBackRest adds to the name of a file that is written atomically, until it is complete.
const TEMPORARY_SUFFIX: &str = ".pgbackrest.tmp";
/// Bytes from which on a file may be compressed on its way. Smaller ones fit into a packet or few.
const SAMPLE_BYTES_MIN: usize = 4 << 10;
/// Bytes that show whether a file compresses.
const SAMPLE_BYTES_MAX: usize = 64 << 10;

/// Whether the beginning of a file loses at least a tenth.
fn is_worth_compressing(compression: Compression, block: &[u8]) -> Result<bool> {
    let sample = &block[..block.len().min(SAMPLE_BYTES_MAX)];
    let mut compressor = Compressor::new(compression, Framing::Raw)?;
    let mut compressed = Vec::with_capacity(sample.len());
    compressor.push(sample, &mut compressed)?;
    compressor.finish(&mut compressed)?;
    Ok(compressed.len() < sample.len() - sample.len() / 10)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriterState {
    /// The server may not have created the file yet.
    Opening,
    Open,
    /// The server has an error for the session.
    Failed,
    Finished,
}

/// A file that is written. Blocks are on their way while the next one is filled, also before the server has answered that
/// the file is open. The first block decides whether the file is compressed on its way.
pub(super) struct RemoteWriter {
    lane: LaneUse,
    path: String,
    options: WriteOptions,
    /// The level of the compression on the way.
    level: Option<i32>,
    /// Compresses on the way.
    compressor: Option<Compressor>,
    /// None until the first block is sent.
    session: Option<u64>,
    /// The name of an atomic file until it is complete.
    temporary: Option<String>,
    /// What is to be sent.
    block: Vec<u8>,
    unanswered: VecDeque<PendingAnswer>,
    state: WriterState,
    /// How long to wait until the server has dropped the file.
    pub(super) dropped_wait: Duration,
}

impl RemoteWriter {
    /// A file with this absolute path.
    pub(super) fn new(lane: LaneUse, path: String, options: WriteOptions, level: Option<i32>) -> Self {
        RemoteWriter {
            lane,
            path,
            options,
            level,
            compressor: None,
            session: None,
            temporary: None,
            block: Vec::new(),
            unanswered: VecDeque::new(),
            state: WriterState::Opening,
            dropped_wait: DROPPED_WAIT,
        }
    }

    /// Asks the server to open the file, if that was not done yet, and returns the number of the session.
    fn open(&mut self) -> Result<u64> {
        if let Some(session) = self.session {
            return Ok(session);
        }
        // Without a request there is no file, and nothing to drop
        self.lane.connection().connected()?;
        let mut filters = Vec::new();
        if let Some(level) = self.level.filter(|_| self.block.len() >= SAMPLE_BYTES_MIN) {
            let compression = Compression::new(CompressType::Lz4, Some(level))?;
            if is_worth_compressing(compression, &self.block)? {
                let mut compressor = Compressor::new(compression, Framing::Raw)?;
                let plain = std::mem::take(&mut self.block);
                compressor.push(&plain, &mut self.block)?;
                self.compressor = Some(compressor);
                filters.push(Filter::Decompress { codec: Codec::Lz4, is_raw: true });
            }
        }
        let WriteOptions { atomic, sync_file, sync_path } = self.options;
        let request = WriteRequest {
            path: &self.path,
            file_mode: FILE_MODE,
            path_mode: PATH_MODE,
            user: None,
            group: None,
            modified: 0,
            create_path: true,
            sync_file,
            sync_path,
            is_atomic: atomic,
            filters,
        };
        let sent = self.lane.connection().send(&Call::WriteOpen(request), None);
        let session = sent.session;
        self.temporary = atomic.then(|| format!("{}{TEMPORARY_SUFFIX}", self.path));
        self.unanswered.push_back(sent);
        self.session = Some(session);
        Ok(session)
    }

    /// Waits for answers until this many are still to come. Returns the last one.
    fn confirm(&mut self, left: usize) -> Result<Option<Answer>> {
        let mut last = None;
        while self.unanswered.len() > left
            && let Some(unanswered) = self.unanswered.pop_front()
        {
            // The first error says why, those of later blocks only that there is no such session
            last = Some(self.answered(unanswered.wait())?);
        }
        Ok(last)
    }

    /// Takes the answers that have come.
    fn confirm_arrived(&mut self) -> Result<()> {
        while let Some(unanswered) = self.unanswered.pop_front() {
            match unanswered.try_wait() {
                Ok(answer) => drop(self.answered(answer)?),
                Err(unanswered) => {
                    self.unanswered.push_front(unanswered);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Notes what an answer says of the file.
    fn answered(&mut self, answer: Result<Answer>) -> Result<Answer> {
        match (&answer, self.state) {
            (Ok(_), WriterState::Opening) => self.state = WriterState::Open,
            (Ok(_), _) => {}
            // Without a file of this writer there is none to remove
            (Err(_), WriterState::Opening) => (self.temporary, self.state) = (None, WriterState::Failed),
            (Err(_), _) => self.state = WriterState::Failed,
        }
        answer
    }

    fn send(&mut self, call: &Call<'_>) -> Result<()> {
        if matches!(self.state, WriterState::Failed | WriterState::Finished) {
            return Err(Error::new(ErrorCode::FileWrite, "unable to continue a write that failed"));
        }
        let session = self.open()?;
        self.confirm_arrived()?;
        self.confirm(BLOCKS_AHEAD_MAX)?;
        self.unanswered.push_back(self.lane.connection().send(call, Some(session)));
        Ok(())
    }

    fn send_block(&mut self) -> Result<()> {
        self.open()?;
        if self.block.is_empty() {
            // The compressor has kept everything
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.send(&Call::WriteBlock(&block))?;
        self.block = block;
        self.block.clear();
        Ok(())
    }
}

impl Write for RemoteWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.block.len() >= BLOCK_BYTES {
            self.send_block()?;
        }
        let taken = buffer.len().min(BLOCK_BYTES - self.block.len());
        match &mut self.compressor {
            // What it had kept may make the block a little larger
            Some(compressor) => compressor.push(&buffer[..taken], &mut self.block)?,
            None => self.block.extend_from_slice(&buffer[..taken]),
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RepoWriter for RemoteWriter {
    fn is_ready(&self) -> bool {
        self.block.len() < BLOCK_BYTES
            || (self.state == WriterState::Open && self.unanswered.len() < BLOCKS_AT_ONCE_MAX)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.open()?;
        if let Some(compressor) = &mut self.compressor {
            compressor.finish(&mut self.block)?;
        }
        if !self.block.is_empty() {
            self.send_block()?;
        }
        if !self.lane.connection().has(Capability::WholeWrites) {
            // The server would complete a file that lacks a block
            self.confirm(0)?;
        }
        self.send(&Call::Close(CallKind::StorageWrite))?;
        let answer = self.confirm(0)?;
        match &answer {
            Some(answer) => answer.read(WriteAnswer::decode).map(drop)?,
            None => WriteAnswer::decode(None).map(drop)?,
        }
        self.state = WriterState::Finished;
        Ok(())
    }
}

impl Drop for RemoteWriter {
    fn drop(&mut self) {
        let Some(session) = self.session.filter(|_| self.state != WriterState::Finished) else { return };
        let connection = self.lane.connection();
        // If the connection is lost, the next command removes what is left
        let mut sent = vec![connection.send(&Call::Cancel(CallKind::StorageWrite), Some(session))];
        if let Some(path) = &self.temporary {
            sent.push(connection.send(&Call::Remove(RemoveRequest { path, error_on_missing: false }), None));
        }
        if self.lane.is_alone() {
            return;
        }
        // What is on its way must not reach a file that another connection then creates under this name. So nothing more is written
        // if the host does not say that it has dropped this one, with answers or with the end of the channel
        let answered = sent.into_iter().map(|sent| sent.answers_within(self.dropped_wait));
        let silent = answered.filter(|is_answered| !is_answered).count();
        if silent > 0 && !connection.was_ended_by_server(self.dropped_wait) {
            let text = format!("unable to end the write of '{}'", self.path);
            self.lane.give_up(&Error::new(ErrorCode::FileWrite, text));
        }
    }
}
