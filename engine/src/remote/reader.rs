//! Reads a file on the other host as it is.

use std::io::{self, Cursor, Read};
use std::sync::Arc;

use protocol::Call;
use protocol::call::CallKind;
use protocol::storage::{Chunk, ReadAnswer, ReadRequest};

use super::{Connection, PendingAnswer};
use crate::{Error, ErrorCode, Result};

/// A file that is read. The next chunk is on its way while this one is used.
pub(crate) struct RemoteReader {
    connection: Arc<Connection>,
    session: u64,
    /// Bytes that may still come.
    left: u64,
    chunk: Cursor<Vec<u8>>,
    next: Next,
}

/// What follows the current chunk.
enum Next {
    Pending(PendingAnswer),
    End,
    /// A read that continued after an error must not look like the end of the file.
    Failed,
}

impl RemoteReader {
    /// Opens a file, of which at most `limit` bytes from `offset` on are read; `None` if it is missing.
    ///
    /// # Errors
    /// The server's error, or the error that ended the connection.
    pub(crate) fn open(
        connection: &Arc<Connection>,
        path: &str,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Option<Self>> {
        let request = ReadRequest { path, offset, limit, version: None, filters: Vec::new() };
        let sent = connection.send(&Call::ReadOpen(request), None)?;
        let session = sent.session;
        let answer = sent.wait()?;
        let is_closed = answer.is_closed;
        let data = match ReadAnswer::decode(answer.data(), is_closed)? {
            ReadAnswer::Missing => return Ok(None),
            ReadAnswer::Chunk(chunk) => chunk.data.to_vec(),
        };
        let mut reader = RemoteReader {
            connection: Arc::clone(connection),
            session,
            left: limit.unwrap_or(u64::MAX),
            chunk: Cursor::new(Vec::new()),
            next: Next::Failed,
        };
        reader.accept(data, is_closed)?;
        Ok(Some(reader))
    }

    /// Returns whether the next read does not wait.
    pub(crate) fn is_buffered(&self) -> bool {
        self.chunk.position() < self.chunk.get_ref().len() as u64 || !matches!(self.next, Next::Pending(_))
    }

    fn accept(&mut self, data: Vec<u8>, is_closed: bool) -> Result<()> {
        let size = data.len() as u64;
        if size > self.left {
            return Err(Error::new(ErrorCode::Protocol, "server sent more bytes than it was asked for"));
        }
        self.left -= size;
        self.chunk = Cursor::new(data);
        self.next = match is_closed {
            true => Next::End,
            false => Next::Pending(self.connection.send(&Call::ReadNext, Some(self.session))?),
        };
        Ok(())
    }
}

impl Read for RemoteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let next = match std::mem::replace(&mut self.next, Next::Failed) {
                Next::Pending(next) => next,
                Next::End => {
                    self.next = Next::End;
                    return Ok(0);
                }
                Next::Failed => return Err(io::Error::other("unable to continue a read that failed")),
            };
            let answer = next.wait()?;
            let data = Chunk::decode(answer.data(), answer.is_closed)?.data.to_vec();
            self.accept(data, answer.is_closed)?;
        }
    }
}

impl Drop for RemoteReader {
    fn drop(&mut self) {
        if !matches!(self.next, Next::End) {
            // The connection goes on without the answer
            drop(self.connection.send(&Call::Cancel(CallKind::StorageRead), Some(self.session)));
        }
    }
}
