//! Files that a client writes.

use std::io::{ErrorKind, Write as _};

use protocol::storage::WriteRequest;

use super::files::Files;
use super::filters::{Chain, OwnedResult};
use super::memory::{CountedMemory, Usage};
use super::stages::Feed;
use crate::growing::GrowingBuffer;
use crate::storage::RepoWriter;
use crate::{CancelToken, Error, ErrorCode, Result};

/// An estimate of what the writer of a storage uses, in bytes.
const WRITER_BYTES: u64 = 16 << 20;
/// The largest block, in bytes: that of pgBackRest's option `buffer-size`.
const BLOCK_BYTES_MAX: usize = 16 << 20;
/// The most bytes that go to the file at a time.
const OUTPUT_BYTES: usize = 256 << 10;

/// A file that is written. Dropping it abandons the file.
pub(super) struct WriteSession {
    path: String,
    chain: Chain,
    feed: Feed,
    writer: Box<dyn RepoWriter>,
    /// None if no filter changes the data and none looks at it.
    buffer: Option<GrowingBuffer>,
    _memory: CountedMemory,
}

impl WriteSession {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of [`Files::write`] and [`Chain::new`].
    pub(super) fn open(request: &WriteRequest<'_>, files: &Files, usage: &Usage) -> Result<Self> {
        let memory = usage.memory.count(WRITER_BYTES)?;
        let feed = Feed::default();
        let chain = Chain::new(Box::new(feed.clone()), &request.filters, files, usage)?;
        let writer = files.write(request)?;
        let buffer = (!request.filters.is_empty()).then(|| GrowingBuffer::up_to(OUTPUT_BYTES));
        Ok(WriteSession { path: request.path.to_owned(), chain, feed, writer, buffer, _memory: memory })
    }

    /// Writes a block.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`] and those of the filters; [`ErrorCode::Format`] for a block that is too large.
    pub(super) fn write(&mut self, block: &[u8], cancel: &CancelToken) -> Result<()> {
        cancel.check()?;
        if block.len() > BLOCK_BYTES_MAX {
            let text = format!("block of {} bytes for '{}' exceeds {BLOCK_BYTES_MAX} bytes", block.len(), self.path);
            return Err(Error::new(ErrorCode::Format, text));
        }
        if self.buffer.is_none() {
            return self.writer.write_all(block).map_err(|e| self.failed(e));
        }
        self.feed.give(block);
        self.drain(cancel)?;
        self.feed.release();
        Ok(())
    }

    /// Completes the file, and returns the results of the filters.
    ///
    /// # Errors
    /// Those of [`WriteSession::write`] and [`RepoWriter::finish`].
    pub(super) fn finish(mut self, cancel: &CancelToken) -> Result<Vec<OwnedResult>> {
        if self.buffer.is_some() {
            self.feed.end();
            self.drain(cancel)?;
        }
        let results = self.chain.results();
        self.writer.finish()?;
        Ok(results)
    }

    /// Moves to the file what the filters put out.
    fn drain(&mut self, cancel: &CancelToken) -> Result<()> {
        while let Some(buffer) = &mut self.buffer {
            cancel.check()?;
            match buffer.fill(&mut self.chain.stage) {
                Ok(0) => return Ok(()),
                Ok(size) => self.writer.write_all(&buffer.bytes()[..size]).map_err(|e| self.failed(e))?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", self.path), error)
    }
}
