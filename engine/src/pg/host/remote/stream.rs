//! A file that the other host reads, with what it finds.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use protocol::Call;
use protocol::call::CallKind;
use protocol::filter::Filter;
use protocol::storage::{Chunk, ReadAnswer, ReadRequest};

use super::filters::Findings;
use crate::remote::{Connection, PendingAnswer, ReceivedPart};
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Result};

/// Chunks of a file that are asked for before they are needed. If the file ends earlier, the server answers the rest of
/// the requests with errors that nobody reads.
const CHUNKS_AHEAD: usize = 2;

/// A request to read a file.
pub(super) struct FileRequest {
    connection: Arc<Connection>,
    session: u64,
    /// None once somebody waits for the answer.
    opened: Option<PendingAnswer>,
}

impl FileRequest {
    /// Sends the request. A `limit` of 0 can't be sent.
    pub(super) fn send(connection: &Arc<Connection>, path: &str, limit: Option<u64>, filters: Vec<Filter<'_>>) -> Self {
        let request = ReadRequest { path, offset: 0, limit, version: None, filters };
        let opened = connection.send(&Call::ReadOpen(request), None);
        FileRequest { connection: Arc::clone(connection), session: opened.session, opened: Some(opened) }
    }

    /// Waits until the file is open; `None` if it is missing. The server may read all of it before it answers, so a token that is
    /// cancelled ends the connection.
    ///
    /// # Errors
    /// The server's error, the error that ended the connection, or [`ErrorCode::Term`] once cancelled.
    pub(super) fn open(mut self, turn: &Turn, cancel: &CancelToken) -> Result<Option<FileStream>> {
        let opened = self.opened.take();
        let opened = opened.ok_or_else(|| Error::new(ErrorCode::Assert, "file was opened before"))?;
        let answer = turn.waiting(|| opened.wait_or_stop(cancel))?;
        let ReadAnswer::Chunk(chunk) = answer.read(|data| ReadAnswer::decode(data, answer.is_closed))? else {
            return Ok(None);
        };
        let mut stream = FileStream {
            connection: Arc::clone(&self.connection),
            session: self.session,
            turn: turn.clone(),
            cancel: cancel.clone(),
            chunk: ReceivedPart::default(),
            asked: VecDeque::new(),
            findings: None,
        };
        let (part, findings) = (answer.part(chunk.data), findings(&chunk)?);
        stream.accept(answer.into_part(part), findings);
        Ok(Some(stream))
    }
}

impl Drop for FileRequest {
    fn drop(&mut self) {
        if self.opened.is_some() {
            // The file would stay open there
            cancel(&self.connection, self.session);
        }
    }
}

/// Drops a session. The connection goes on without the answer.
fn cancel(connection: &Arc<Connection>, session: u64) {
    drop(connection.send(&Call::Cancel(CallKind::StorageRead), Some(session)));
}

/// What comes with the last chunk.
fn findings(chunk: &Chunk<'_>) -> Result<Option<Findings>> {
    chunk.results.as_deref().map(Findings::new).transpose()
}

/// A file that is read.
pub(super) struct FileStream {
    connection: Arc<Connection>,
    session: u64,
    turn: Turn,
    cancel: CancelToken,
    chunk: ReceivedPart,
    asked: VecDeque<PendingAnswer>,
    /// Comes with the last chunk.
    findings: Option<Findings>,
}

impl FileStream {
    /// Takes a chunk, and asks for the next ones.
    fn accept(&mut self, chunk: ReceivedPart, findings: Option<Findings>) {
        (self.chunk, self.findings) = (chunk, findings);
        while self.findings.is_none() && self.asked.len() < CHUNKS_AHEAD {
            self.asked.push_back(self.connection.send(&Call::ReadNext, Some(self.session)));
        }
    }

    /// What the other host found. It must have been read to the end.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] before the end.
    pub(super) fn findings(&self) -> Result<&Findings> {
        self.findings.as_ref().ok_or_else(|| Error::new(ErrorCode::Assert, "file was not read to its end"))
    }
}

impl Read for FileStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() || self.findings.is_some() {
                return Ok(read);
            }
            let Some(next) = self.asked.pop_front() else {
                return Err(io::Error::other("unable to continue a read that failed"));
            };
            let answer = match self.turn.waiting(|| next.wait_or_stop(&self.cancel)) {
                Ok(answer) => answer,
                Err(error) => {
                    // A read that continued after an error must not look like the end of the file
                    self.asked.clear();
                    return Err(error.into());
                }
            };
            let chunk = answer.read(|data| Chunk::decode(data, answer.is_closed))?;
            let (part, findings) = (answer.part(chunk.data), findings(&chunk)?);
            self.accept(answer.into_part(part), findings);
        }
    }
}

impl Drop for FileStream {
    fn drop(&mut self) {
        if self.findings.is_none() {
            cancel(&self.connection, self.session);
        }
    }
}
