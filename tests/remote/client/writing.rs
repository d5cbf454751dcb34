//! Sessions that write files.

use std::io::{BufRead, Write};

use protocol::Call;
use protocol::call::CallKind;
use protocol::storage::{WriteAnswer, WriteRequest};
use repo_format::{Error, ErrorCode, Result};

use super::Client;

/// How many blocks may wait for their answer. One is written while the next one is on its way.
const BLOCKS_IN_FLIGHT_MAX: usize = 2;

/// A file that is written. It is complete only after [`Client::finish_write`].
#[derive(Debug)]
#[must_use = "the file is incomplete"]
pub struct Writing {
    session: u64,
    in_flight: usize,
    has_failed: bool,
}

impl<R: BufRead, W: Write> Client<R, W> {
    /// Opens a file for writing.
    ///
    /// # Errors
    /// As all methods.
    pub fn open_write(&mut self, request: WriteRequest<'_>) -> Result<Writing> {
        let session = self.link.send(&Call::WriteOpen(request))?;
        self.link.receive(session)?;
        Ok(Writing { session, in_flight: 0, has_failed: false })
    }

    /// Writes a block. An error may be that of an earlier block. After an error the file can't be finished.
    ///
    /// # Errors
    /// As all methods.
    pub fn write_block(&mut self, writing: &mut Writing, block: &[u8]) -> Result<()> {
        self.settle(writing, BLOCKS_IN_FLIGHT_MAX - 1)?;
        if block.is_empty() {
            return Ok(());
        }
        self.link.send_in(writing.session, &Call::WriteBlock(block))?;
        writing.in_flight += 1;
        Ok(())
    }

    /// Receives answers until at most `left` blocks wait for theirs.
    fn settle(&mut self, writing: &mut Writing, left: usize) -> Result<()> {
        if writing.has_failed {
            return Err(Error::new(ErrorCode::Assert, "writing has failed before"));
        }
        while writing.in_flight > left {
            writing.in_flight -= 1;
            if let Err(error) = self.link.receive(writing.session) {
                writing.has_failed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Finishes the file and returns the results of the filters. After an error the file is incomplete.
    ///
    /// # Errors
    /// As all methods.
    pub fn finish_write(&mut self, mut writing: Writing) -> Result<WriteAnswer<'_>> {
        if let Err(error) = self.settle(&mut writing, 0) {
            // The error says more than one of this request could
            let _ = self.cancel_write(writing);
            return Err(error);
        }
        self.link.send_in(writing.session, &Call::Close(CallKind::StorageWrite))?;
        let answer = self.link.receive(writing.session)?;
        WriteAnswer::decode(answer.outcome.unwrap_or_default())
    }

    /// Drops a file. The server leaves what was written, under a temporary name if the file is atomic.
    ///
    /// # Errors
    /// As all methods.
    pub fn cancel_write(&mut self, mut writing: Writing) -> Result<()> {
        while writing.in_flight > 0 {
            writing.in_flight -= 1;
            match self.link.receive(writing.session).map(drop) {
                Err(error) if self.link.is_broken() => return Err(error),
                _ => {}
            }
        }
        self.link.send_in(writing.session, &Call::Cancel(CallKind::StorageWrite))?;
        self.link.receive(writing.session).map(drop)
    }
}
