//! One connection: messages, their order, and what happens when it breaks.

use std::collections::VecDeque;
use std::io::{BufRead, Write};

use protocol::call::CallKind;
use protocol::message::Step;
use protocol::pack::{MESSAGE_SIZE_MAX, read_message};
use protocol::{AnswerMessage, Call, Dialect};
use repo_format::{Error, ErrorCode, Result};

/// How many bytes of requests may wait for an answer when another one is sent. A server does not read while it writes:
/// if both sides wrote more than the streams between them hold, both would wait forever.
const WAITING_SIZE_MAX: usize = 16 * 1024;
/// How many requests with short answers may wait whatever their size. Their answers, even errors, fit into the streams.
const WAITING_SHORT_MAX: usize = 8;

/// A request that was sent but not answered.
#[derive(Debug)]
struct Waiting {
    session: u64,
    size: usize,
    has_short_answer: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link<R, W> {
    input: R,
    output: W,
    /// The server as messages name it.
    peer: String,
    pub(crate) dialect: &'static Dialect,
    last_session: u64,
    /// The oldest one first.
    waiting: VecDeque<Waiting>,
    /// Answers that came while that of another session was awaited.
    early: Vec<(u64, Vec<u8>)>,
    /// The last answer.
    message: Vec<u8>,
    /// Why the connection is of no more use.
    broken: Option<(ErrorCode, String)>,
}

impl<R: BufRead, W: Write> Link<R, W> {
    pub(crate) fn new(input: R, output: W, peer: String, dialect: &'static Dialect) -> Self {
        Link {
            input,
            output,
            peer,
            dialect,
            last_session: 0,
            waiting: VecDeque::new(),
            early: Vec::new(),
            message: Vec::new(),
            broken: None,
        }
    }

    /// Sends a request with a number of its own and returns the number.
    pub(crate) fn send(&mut self, call: &Call<'_>) -> Result<u64> {
        self.last_session += 1;
        self.send_in(self.last_session, call)?;
        Ok(self.last_session)
    }

    /// Sends a request of a session.
    pub(crate) fn send_in(&mut self, session: u64, call: &Call<'_>) -> Result<()> {
        if let Some((code, message)) = &self.broken {
            return Err(Error::new(*code, message));
        }
        let request = call.encode(session, self.dialect);
        while self.must_wait(request.size()) {
            let early = self.receive_oldest()?;
            self.early.push((early, std::mem::take(&mut self.message)));
        }
        if let Err(error) = request.write_to(&mut self.output).and_then(|()| self.output.flush()) {
            let message = format!("unable to write to {}", self.peer);
            return Err(self.broken(Error::from_io(ErrorCode::FileWrite, message, error)));
        }
        if *call != Call::Exit {
            let has_short_answer = has_short_answer(call);
            self.waiting.push_back(Waiting { session, size: request.size(), has_short_answer });
        }
        Ok(())
    }

    /// Whether an answer has to be read before `size` more bytes are sent.
    fn must_wait(&self, size: usize) -> bool {
        let all_short = self.waiting.iter().all(|waiting| waiting.has_short_answer);
        let waiting_size: usize = self.waiting.iter().map(|waiting| waiting.size).sum();
        let fits = waiting_size + size <= WAITING_SIZE_MAX || (all_short && self.waiting.len() < WAITING_SHORT_MAX);
        !self.waiting.is_empty() && !fits
    }

    /// The next answer to a request of `session`. Its message stays until the next call.
    ///
    /// # Errors
    /// An error of the server, or of the connection.
    pub(crate) fn receive(&mut self, session: u64) -> Result<AnswerMessage<'_>> {
        if let Some(index) = self.early.iter().position(|(early, _)| *early == session) {
            self.message = self.early.remove(index).1;
        } else {
            loop {
                let received = self.receive_oldest()?;
                if received == session {
                    break;
                }
                self.early.push((received, std::mem::take(&mut self.message)));
            }
        }
        let answer = AnswerMessage::decode(&self.message)?;
        match answer.outcome {
            Err(error) => Err(error.to_error(&self.peer)),
            Ok(_) => Ok(answer),
        }
    }

    /// Reads the answer to the oldest request and returns its session.
    fn receive_oldest(&mut self) -> Result<u64> {
        if let Some((code, message)) = &self.broken {
            return Err(Error::new(*code, message));
        }
        let received = self.read_answer();
        received.map_err(|error| self.broken(error))
    }

    fn read_answer(&mut self) -> Result<u64> {
        let Some(waiting) = self.waiting.pop_front() else {
            return Err(Error::new(ErrorCode::Assert, format!("no request to {} waits for an answer", self.peer)));
        };
        read_message(&mut self.input, &mut self.message, MESSAGE_SIZE_MAX)
            .and_then(|()| AnswerMessage::decode(&self.message))
            .map_err(|error| error.context(&self.peer))
            .and_then(|answer| match (answer.session, answer.outcome) {
                (Some(session), _) if session == waiting.session => Ok(session),
                // The server has ended
                (None, Err(error)) => Err(error.to_error(&self.peer)),
                (session, _) => Err(Error::new(
                    ErrorCode::Protocol,
                    format!(
                        "{}: expected answer for session {} but got {}",
                        self.peer,
                        waiting.session,
                        session.unwrap_or_default()
                    ),
                )),
            })
    }

    /// Notes that every further call must fail.
    fn broken(&mut self, error: Error) -> Error {
        self.broken = Some((error.code, error.to_string()));
        error
    }

    /// Whether the connection is of no more use.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Takes the message of the last answer and gives a buffer for the next one.
    pub(crate) fn swap_message(&mut self, buffer: &mut Vec<u8>) {
        std::mem::swap(&mut self.message, buffer);
    }

    /// The streams.
    pub(crate) fn into_streams(self) -> (R, W) {
        (self.input, self.output)
    }
}

/// Whether the answer has no more than a few bytes, unless it is an error.
fn has_short_answer(call: &Call<'_>) -> bool {
    match call.step() {
        Step::Process => call.command() == CallKind::StorageWrite || call.command() == CallKind::Noop,
        Step::Open => call.command() == CallKind::StorageWrite,
        Step::Close | Step::Cancel => true,
    }
}
