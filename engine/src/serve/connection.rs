//! A connection to a client: greeting, command line, first answer, requests.
//!
//! Source of the order: pgBackRest `src/protocol/server.c`, `src/command/remote/remote.c` and
//! `src/command/server/server.c`.

use std::io::{Read, Write};

use protocol::call::CallKind;
use protocol::channel::FOLLOWING_MAX;
use protocol::greeting::{self, Service};
use protocol::message::{AnswerMessage, ErrorAnswer, RequestMessage};
use protocol::pack::Packed;
use protocol::{Call, Capabilities, Capability, Dialect, Offer};

use super::handlers::Handlers;
use super::request_buffer::RequestBuffer;
use super::{ServeMore, Served, ServedLocks, channels};
use crate::growing::GrowingReader;
use crate::log::WarningInbox;
use crate::work::thread::caught;
use crate::{Error, ErrorCode, Result};

/// The largest request, in bytes. pgBackRest's largest ones contain a block of `buffer-size`, which is at most 16 MiB, or
/// a block map.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// The largest request before the client is known, in bytes.
const COMMAND_LINE_BYTES_MAX: usize = 1 << 20;
/// The largest size of the buffer between a stream and messages, or frames.
const BUFFER_BYTES: usize = 256 << 10;
/// The size of the buffer between frames, which are in memory already, and messages.
const CHANNEL_BUFFER_BYTES: usize = 8 << 10;

/// The server's side of a connection, over a pair of byte streams.
///
/// After SSH, the command line is known: [`Server::greet`], [`Server::serve`]. With TLS, the client sends it:
/// [`Server::greet`], [`Server::read_command_line`], then [`Server::refuse`], or [`Server::accept`] and
/// [`Server::serve`]. A client that only looks whether the server is there is answered by [`Server::answer_ping`].
pub struct Server<R, W> {
    input: GrowingReader<R>,
    output: W,
    /// A message could not be sent as a whole.
    is_broken: bool,
    dialect: &'static Dialect,
    /// The request that is being answered.
    request: RequestBuffer,
    session: u64,
    /// Warnings that the client has not got yet.
    warned: WarningInbox,
}

impl<R: Read, W: Write + Send> Server<R, W> {
    /// A server for a channel that goes on after the first requests of its connection.
    pub(super) fn of_channel(input: R, output: W) -> Self {
        Self::over(input, output, CHANNEL_BUFFER_BYTES)
    }

    fn over(input: R, output: W, buffer_bytes: usize) -> Self {
        let input = GrowingReader::up_to(buffer_bytes, input);
        let (request, warned) = (RequestBuffer::default(), WarningInbox::default());
        Server { input, output, is_broken: false, dialect: Dialect::NEWEST, request, session: 0, warned }
    }

    /// Sends the greeting.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`]
    pub fn greet(input: R, output: W) -> Result<Self> {
        Self::over(input, output, BUFFER_BYTES).greeted()
    }

    /// Sends the greeting on a channel.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`]
    pub(super) fn greet_channel(input: R, output: W) -> Result<Self> {
        Self::of_channel(input, output).greeted()
    }

    fn greeted(mut self) -> Result<Self> {
        let line = greeting::encode(Service::Remote, self.dialect);
        let written = self.output.write_all(line.as_bytes()).and_then(|()| self.output.flush());
        written.map_err(|e| Error::from_io(ErrorCode::FileWrite, "unable to write greeting", e))?;
        Ok(self)
    }

    /// Answers a client that only looks whether the server is there: one request that does nothing.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for another request, and errors of the streams.
    pub fn answer_ping(&mut self) -> Result<()> {
        match self.read_first()? {
            Some(CallKind::Noop) => self.accept(),
            _ => Err(Error::new(ErrorCode::Format, "noop expected")),
        }
    }

    /// Reads the command line of a client that connects by TLS: options, and the command with its role as the last one.
    /// It waits for [`Server::accept`] or [`Server::refuse`].
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for another request, and errors of the streams. The client was told.
    pub fn read_command_line(&mut self) -> Result<Vec<String>> {
        let command = self.read_first()?;
        let arguments = match (command, Self::call(self.request.bytes(), self.dialect)) {
            (Some(CallKind::Config), Ok(Call::Config(request))) => {
                Ok(request.arguments.iter().map(|argument| (*argument).to_owned()).collect())
            }
            (Some(CallKind::Config), Err(error)) => Err(error),
            _ => Err(Error::new(ErrorCode::Format, "expected config command")),
        };
        if let Err(error) = &arguments {
            self.refuse(error)?;
        }
        arguments
    }

    /// Returns the streams, for a server that passes the rest of the connection on. The first one may have read ahead.
    pub fn into_streams(self) -> (GrowingReader<R>, W) {
        (self.input, self.output)
    }

    /// Answers that what the client asked for last is right.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`]
    pub fn accept(&mut self) -> Result<()> {
        self.send(&AnswerMessage::encode(self.session, false, None))
    }

    /// Answers with an error.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`]
    pub fn refuse(&mut self, error: &Error) -> Result<()> {
        let session = Some(self.session).filter(|session| *session != 0);
        self.send(&AnswerMessage::encode_error(session, &ErrorAnswer::from(error)))
    }

    /// Takes the locks and answers the first request, then serves until the client says that it ends. A refusal at the
    /// start is reported to the client and is no error.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the input ends or is no request, and those that end a connection, which the client was
    /// told; errors of the streams; [`ErrorCode::Term`] after a signal.
    pub fn serve(mut self, mut served: Served) -> Result<()> {
        let first = self.read_first().and_then(|command| match command {
            Some(CallKind::Noop) => self.offered(),
            _ => Err(Error::new(ErrorCode::Format, "noop expected")),
        });
        if let Err(error) = &first
            && error.code == ErrorCode::Term
        {
            self.tell_end(error);
            return first.map(drop);
        }
        let first =
            first.and_then(|offered| Ok((offered, served.locks.as_ref().map(ServedLocks::acquire).transpose()?)));
        // Held until the end of the connection
        let (offered, _locks) = match first {
            Ok(first) => first,
            Err(error) => return self.refuse(&error),
        };
        let own = match (&served.more, &offered) {
            (Some(_), Some(offer)) if offer.following <= FOLLOWING_MAX => Capabilities::own(),
            _ => Capabilities::own().without(Capability::Channels),
        };
        // A client that offers nothing gets the bytes that pgBackRest sends
        let common = offered.as_ref().map(|offer| own.common(&offer.capabilities));
        let data = common.as_ref().map(Capabilities::encode);
        self.send(&AnswerMessage::encode(self.session, false, data))?;
        let (common, following) = (common.unwrap_or_default(), offered.map_or(0, |offer| offer.following));
        match served.more.take().filter(|_| common.has(Capability::Channels)) {
            Some(more) => {
                served.usage = served.usage.with_channels();
                self.serve_channels(Handlers::new(served, common), following, &more)
            }
            None => {
                served.last_words.allow();
                self.serve_all(Handlers::new(served, common))
            }
        }
    }

    /// Answers the requests that the client has sent before it knew that both sides agree on channels. What they have opened
    /// belongs to the first channel.
    fn serve_channels(mut self, mut handlers: Handlers, following: u32, more: &ServeMore) -> Result<()> {
        for _ in 0..following {
            if !self.answer(&mut handlers)? {
                return Ok(());
            }
        }
        channels::serve((Box::new(self.input), Box::new(self.output)), handlers, more)
    }

    /// Serves until the client says that it ends.
    ///
    /// # Errors
    /// Those of [`Server::serve`].
    pub(super) fn serve_all(mut self, mut handlers: Handlers) -> Result<()> {
        while self.answer(&mut handlers)? {}
        Ok(())
    }

    /// Answers one request. Returns whether more may follow. The client is told of an error that ends the connection.
    fn answer(&mut self, handlers: &mut Handlers) -> Result<bool> {
        self.next(handlers).inspect_err(|error| self.tell_end(error))
    }

    /// Sends the error that ends the connection. Whichever call waits gets it.
    fn tell_end(&mut self, error: &Error) {
        // Half a message must not be continued, and a client that is gone gets nothing
        if !self.is_broken {
            let _ = send_error(&mut self.output, error);
        }
    }

    fn send(&mut self, message: &Packed<'_>) -> Result<()> {
        send(&mut self.output, message).inspect_err(|_| self.is_broken = true)
    }

    /// Reads a request before the client is served. Returns its command, if it has a known one.
    fn read_first(&mut self) -> Result<Option<CallKind>> {
        self.request.read_first(&mut self.input, COMMAND_LINE_BYTES_MAX)?;
        let request = RequestMessage::decode(self.request.bytes())?;
        self.session = request.session;
        Ok(self.dialect.command(request.command))
    }

    /// Returns what the first request offers; `None` if it has no list.
    fn offered(&self) -> Result<Option<Offer>> {
        match Self::call(self.request.bytes(), self.dialect)? {
            Call::Offer(offer) => Ok(Some(offer)),
            _ => Ok(None),
        }
    }

    fn call<'a>(message: &'a [u8], dialect: &Dialect) -> Result<Call<'a>> {
        Call::decode(&RequestMessage::decode(message)?, dialect)
    }

    /// Answers one request. Returns whether more may follow.
    fn next(&mut self, handlers: &mut Handlers) -> Result<bool> {
        let _counted = self.request.read(&mut self.input, REQUEST_BYTES_MAX, &handlers.usage().requests)?;
        let request = RequestMessage::decode(self.request.bytes())?;
        self.session = request.session;
        if !handlers.knows(request.command, self.dialect) {
            let text = format!("invalid request '{}' (0x{:x})", request.command, request.command.0);
            return Err(Error::new(ErrorCode::Protocol, text));
        }
        let warned = handlers.passes_warnings().then_some(&self.warned);
        let call = handlers.decode(&request, self.dialect);
        let reply = call.and_then(|call| match call {
            Call::Exit => Ok(None),
            // A panic ends the connection with an answer
            call => caught(|| match warned {
                Some(warned) => warned.during(|| handlers.handle(&call, request.session)),
                None => handlers.handle(&call, request.session),
            })
            .map(Some),
        });
        let warnings = warned.map(WarningInbox::take).unwrap_or_default();
        let message = match &reply {
            Ok(None) => return Ok(false),
            Ok(Some(reply)) => handlers.message(self.session, reply, &warnings),
            Err(error) if matches!(error.code, ErrorCode::Assert | ErrorCode::Term) => {
                return reply.map(|_| false);
            }
            Err(error) => {
                AnswerMessage::encode_error_with_warnings(Some(self.session), &handlers.error_answer(error), &warnings)
            }
        };
        self.send(&message)?;
        Ok(true)
    }
}

/// Sends an error that is the answer to whichever call waits.
pub(super) fn send_error(output: &mut impl Write, error: &Error) -> Result<()> {
    send(output, &AnswerMessage::encode_error(None, &ErrorAnswer::from(error)))
}

fn send(output: &mut impl Write, message: &Packed<'_>) -> Result<()> {
    message
        .write_to(output)
        .and_then(|()| output.flush())
        .map_err(|e| Error::from_io(ErrorCode::FileWrite, "unable to write message", e))
}
