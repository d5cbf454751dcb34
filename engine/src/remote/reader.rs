//! Reads a file on the other host as it is.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use protocol::Call;
use protocol::call::CallKind;
use protocol::filter::{Codec, CompressFilter, Filter};
use protocol::storage::{Chunk, ReadAnswer, ReadRequest};

use super::{Connection, PendingAnswer, ReceivedPart};
use crate::{Error, ErrorCode, Result};

/// Bytes that are asked for before they are needed. The server decides how large chunks are. If the file ends earlier, it
/// answers the rest of the requests with errors that nobody reads.
const AHEAD_BYTES: usize = 4 << 20;
/// The most chunks that are asked for before they are needed.
const CHUNKS_AHEAD_MAX: usize = 8;

/// More than the frame of lz4 takes around its blocks.
const FRAME_BYTES: u64 = 1024;

/// A file whose opening was asked for.
pub(crate) struct RemoteOpening {
    session: RemoteSession,
    /// None once somebody waits for the answer.
    opened: Option<PendingAnswer>,
    limit: Option<u64>,
}

/// A session that reads. Dropping it drops the session on the server, unless that has ended it.
struct RemoteSession {
    connection: Arc<Connection>,
    number: u64,
    is_open: bool,
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        if self.is_open {
            // The connection goes on without the answer
            drop(self.connection.send(&Call::Cancel(CallKind::StorageRead), Some(self.number)));
        }
    }
}

/// A file that is read. The next chunks are on their way while this one is used.
pub(crate) struct RemoteReader {
    session: RemoteSession,
    /// Bytes that may still come.
    left: u64,
    chunk: ReceivedPart,
    asked: VecDeque<PendingAnswer>,
    /// A read that continued after an error must not look like the end of the file.
    has_failed: bool,
}

impl RemoteOpening {
    /// Asks for a file. With a level it is compressed by lz4 after the filters of the request, framed as
    /// [`Framing::Raw`](repo_format::cipher::Framing::Raw).
    pub(crate) fn send(connection: &Arc<Connection>, mut request: ReadRequest<'_>, level: Option<i32>) -> Self {
        let compress = |level| Filter::Compress(CompressFilter { codec: Codec::Lz4, level, is_raw: true });
        request.filters.extend(level.map(compress));
        // What does not compress becomes a little larger
        let limit = request
            .limit
            .map(|limit| if level.is_some() { limit.saturating_add(limit / 128 + FRAME_BYTES) } else { limit });
        let opened = connection.send(&Call::ReadOpen(request), None);
        let session = RemoteSession { connection: Arc::clone(connection), number: opened.session, is_open: true };
        RemoteOpening { session, opened: Some(opened), limit }
    }

    /// Waits until the file is open; `None` if it is missing.
    ///
    /// # Errors
    /// The server's error, or the error that ended the connection.
    pub(crate) fn wait(mut self) -> Result<Option<RemoteReader>> {
        let opened = self.opened.take();
        let opened = opened.ok_or_else(|| Error::new(ErrorCode::Assert, "file was opened before"))?;
        let answer = match opened.wait() {
            Ok(answer) => answer,
            Err(error) => {
                self.session.is_open = false;
                return Err(error);
            }
        };
        self.session.is_open = !answer.is_closed;
        let data = match answer.read(|data| ReadAnswer::decode(data, answer.is_closed))? {
            ReadAnswer::Missing => {
                self.session.is_open = false;
                return Ok(None);
            }
            ReadAnswer::Chunk(chunk) => answer.part(chunk.data),
        };
        let data = answer.into_part(data);
        let mut reader = RemoteReader {
            session: self.session,
            left: self.limit.unwrap_or(u64::MAX),
            chunk: ReceivedPart::default(),
            asked: VecDeque::new(),
            has_failed: false,
        };
        reader.accept(data)?;
        Ok(Some(reader))
    }
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
        RemoteOpening::send(connection, request, None).wait()
    }

    /// Returns whether the next read does not wait.
    pub(crate) fn is_buffered(&self) -> bool {
        self.chunk.len() > 0 || !self.session.is_open || self.has_failed
    }

    /// The error for a server that sends more than it was asked for.
    pub(crate) fn sent_more(&self) -> Error {
        self.session.connection.refuse("server sent more bytes than it was asked for")
    }

    /// Takes a chunk, and asks for the next ones.
    fn accept(&mut self, data: ReceivedPart) -> Result<()> {
        let size = data.len() as u64;
        if size > self.left {
            return Err(self.sent_more());
        }
        self.left -= size;
        self.chunk = data;
        if !self.session.is_open {
            return Ok(());
        }
        // One more than there is data, because the server may only then know the end
        let size = size.max(1);
        let chunks_left = usize::try_from(self.left / size).unwrap_or(usize::MAX).saturating_add(1);
        let ahead = usize::try_from(AHEAD_BYTES as u64 / size).unwrap_or(CHUNKS_AHEAD_MAX).clamp(1, CHUNKS_AHEAD_MAX);
        while self.asked.len() < ahead.min(chunks_left) {
            self.asked.push_back(self.session.connection.send(&Call::ReadNext, Some(self.session.number)));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        let next = self.asked.pop_front();
        let answer = next.ok_or_else(|| Error::new(ErrorCode::Assert, "no chunk was asked for"))?.wait()?;
        self.session.is_open = !answer.is_closed;
        let chunk = answer.read(|data| Chunk::decode(data, answer.is_closed))?;
        let data = answer.part(chunk.data);
        self.accept(answer.into_part(data))
    }
}

impl Read for RemoteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if self.has_failed {
                return Err(io::Error::other("unable to continue a read that failed"));
            }
            if !self.session.is_open {
                return Ok(0);
            }
            self.has_failed = true;
            self.next()?;
            self.has_failed = false;
        }
    }
}
