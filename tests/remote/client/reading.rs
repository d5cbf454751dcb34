//! Sessions that read files.

use std::io::{BufRead, Write};

use protocol::call::CallKind;
use protocol::filter::FilterResult;
use protocol::storage::{Chunk, ReadAnswer, ReadRequest};
use protocol::{AnswerMessage, Call};
use repo_format::{Error, ErrorCode, Result};

use super::Client;

/// A file, or parts of files, that are read. If it is not read to the end, [`Client::cancel_read`] ends it.
#[derive(Debug)]
#[must_use = "the server keeps the file open"]
pub struct Reading {
    session: u64,
    command: CallKind,
    /// How many chunks to ask for before they are needed.
    ahead: usize,
    /// Requests without an answer yet.
    in_flight: usize,
    /// The message of the current chunk.
    message: Vec<u8>,
    current: Current,
    state: State,
}

/// What the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    /// The answer that opened the session. Its chunk has not been taken yet.
    Opening,
    /// The same, after its chunk was taken.
    Opened,
    /// A later chunk.
    Next,
}

/// Where the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The current chunk is the last one.
    Ended,
    /// A chunk is lost, so none may follow.
    Failed,
}

impl Reading {
    fn new(command: CallKind, session: u64, ahead: usize, is_closed: bool) -> Self {
        let state = if is_closed { State::Ended } else { State::Open };
        Reading { session, command, ahead, in_flight: 0, message: Vec::new(), current: Current::Opening, state }
    }

    fn next_call(&self) -> Call<'static> {
        if self.command == CallKind::StorageRead { Call::ReadNext } else { Call::ReadManyNext }
    }

    /// The results of the filters.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] if the file has not been read to the end.
    pub fn results(&self) -> Result<Vec<FilterResult<'_>>> {
        match self.chunk()?.results {
            Some(results) if self.state == State::Ended && self.current != Current::Opening => Ok(results),
            _ => Err(Error::new(ErrorCode::Assert, "results of filters exist at the end of a file only")),
        }
    }

    fn chunk(&self) -> Result<Chunk<'_>> {
        let answer = AnswerMessage::decode(&self.message)?;
        let data = answer.outcome.unwrap_or_default();
        if self.current == Current::Next || self.command == CallKind::StorageReadMany {
            return Chunk::decode(data, answer.is_closed);
        }
        match ReadAnswer::decode(data, answer.is_closed)? {
            ReadAnswer::Chunk(chunk) => Ok(chunk),
            ReadAnswer::Missing => Err(Error::new(ErrorCode::FileMissing, "file is missing")),
        }
    }
}

impl<R: BufRead, W: Write> Client<R, W> {
    /// Opens a file, or returns `None` if it is missing. `ahead` is how many chunks are asked for before they are needed.
    ///
    /// # Errors
    /// As all methods.
    pub fn open_read(&mut self, request: ReadRequest<'_>, ahead: usize) -> Result<Option<Reading>> {
        let session = self.link.send(&Call::ReadOpen(request))?;
        let answer = self.link.receive(session)?;
        let is_closed = answer.is_closed;
        if ReadAnswer::decode(answer.outcome.unwrap_or_default(), is_closed)? == ReadAnswer::Missing {
            return Ok(None);
        }
        self.opened(Reading::new(CallKind::StorageRead, session, ahead, is_closed)).map(Some)
    }

    fn opened(&mut self, mut reading: Reading) -> Result<Reading> {
        self.link.swap_message(&mut reading.message);
        self.ask(&mut reading, 0)?;
        Ok(reading)
    }

    /// Asks for chunks until `at_least` requests, or as many as wanted, wait.
    fn ask(&mut self, reading: &mut Reading, at_least: usize) -> Result<()> {
        while reading.state == State::Open && reading.in_flight < reading.ahead.max(at_least) {
            self.link.send_in(reading.session, &reading.next_call())?;
            reading.in_flight += 1;
        }
        Ok(())
    }

    /// The next chunk, or `None` at the end. After an error there are no more chunks.
    ///
    /// # Errors
    /// As all methods.
    pub fn next_chunk<'r>(&mut self, reading: &'r mut Reading) -> Result<Option<&'r [u8]>> {
        match (reading.current, reading.state) {
            (_, State::Failed) => return Err(Error::new(ErrorCode::Assert, "reading has failed before")),
            (Current::Opening, _) => reading.current = Current::Opened,
            (_, State::Ended) => return Ok(None),
            (_, State::Open) => {
                reading.current = Current::Next;
                if let Err(error) = self.fetch(reading) {
                    reading.state = State::Failed;
                    return Err(error);
                }
            }
        }
        if let Err(error) = reading.chunk() {
            reading.state = State::Failed;
            return Err(error);
        }
        Ok(Some(reading.chunk()?.data).filter(|data| !data.is_empty()))
    }

    fn fetch(&mut self, reading: &mut Reading) -> Result<()> {
        self.ask(reading, 1)?;
        reading.in_flight -= 1;
        let is_closed = self.link.receive(reading.session)?.is_closed;
        self.link.swap_message(&mut reading.message);
        if is_closed {
            reading.state = State::Ended;
            self.drain(reading)
        } else {
            self.ask(reading, 0)
        }
    }

    /// Receives the answers that nobody needs. After the end they are errors.
    fn drain(&mut self, reading: &mut Reading) -> Result<()> {
        while reading.in_flight > 0 {
            reading.in_flight -= 1;
            match self.link.receive(reading.session).map(|answer| answer.is_closed) {
                Ok(true) => reading.state = State::Ended,
                Err(error) if self.link.is_broken() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends a file that is not read to its end.
    ///
    /// # Errors
    /// As all methods.
    pub fn cancel_read(&mut self, mut reading: Reading) -> Result<()> {
        self.drain(&mut reading)?;
        if reading.state != State::Ended {
            self.link.send_in(reading.session, &Call::Cancel(reading.command))?;
            self.link.receive(reading.session)?;
        }
        Ok(())
    }
}
