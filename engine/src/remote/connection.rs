//! A connection that all threads of a command share.
//!
//! The server answers requests in their order. So a request and a place in the queue of waiting threads are entered
//! under one lock, and a thread that reads the answers gives each to the first in the queue. Requests of several
//! sessions, such as files that are read at the same time, may be mixed. Nobody waits for another's answer before it
//! sends a request, which hides the time that messages travel.

mod answer;
mod channel_link;
mod first;

use std::fmt;
use std::io::{BufRead, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use protocol::message::ErrorAnswer;
use protocol::{AnswerMessage, Call, Capabilities, Capability, Dialect};

use self::answer::position;
use self::channel_link::{ChannelEnd, ChannelLink};
use self::first::{FirstAnswers, FirstRequests};
use super::answers::{EXIT_WAIT, IDLE, keep_alive, read};
use super::channels::{ChannelOutput, Channels, WayInput};
use super::failure::{FarEnd, with_refusal_hint, with_write_hint};
use super::link::{Link, Opened};
use super::process::Process;
use super::shared::{End, Reply, Shared, UNKNOWN_US, lock};
use super::{RemoteSettings, Way, patience, tls};
use crate::log::Inherited;
use crate::storage::full::{said_by_pgbackrest, with_no_space};
use crate::work::retry::PeerFault;
use crate::work::thread::caught;
use crate::{CancelToken, Error, ErrorCode, Result};

pub(crate) use self::answer::{Answer, PendingAnswer};
pub(super) use self::first::FirstFrame;
pub(crate) use self::first::cipher_options;

/// How often a wait looks for a cancellation.
const LOOK: Duration = Duration::from_millis(50);

/// What a connection is made of.
struct Streams {
    link: Box<dyn Link>,
    input: Box<dyn BufRead + Send>,
    output: Box<dyn Write + Send>,
    channels: Option<Arc<Channels>>,
    parent: Option<(Arc<Connection>, ChannelEnd)>,
}

/// A connection to the server on another host. Dropping it ends the server's process.
pub(crate) struct Connection {
    /// The name in errors of the server, such as `remote-0 ssh protocol on 'HOST'`.
    name: Arc<str>,
    /// The name of the way in errors of reading.
    read_name: String,
    dialect: &'static Dialect,
    timeout: Duration,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// What the server said first.
    first: OnceLock<FirstAnswers>,
    /// The way of this connection, for others on it; `None` for those.
    channels: Option<Arc<Channels>>,
    /// The connection on whose way this one is, and the end of this one. That ends with the last one, in the thread that drops that.
    parent: Option<(Arc<Connection>, ChannelEnd)>,
}

/// How a connection begins.
#[derive(Default)]
pub(super) struct Beginning<'a> {
    /// The name of the protocol in messages.
    pub(super) kind: &'a str,
    /// The command line that the server's process does not have.
    pub(super) arguments: Option<&'a [String]>,
    /// What the server is offered.
    pub(super) offered: Capabilities,
    /// The key of a repository whose [`cipher_options`] the server is asked for.
    pub(super) cipher_key: Option<u32>,
}

impl Connection {
    /// Starts the process on the other host, or connects to its server, and waits until it is ready.
    ///
    /// # Errors
    /// The host can't be reached, speaks another version, or refuses, for example because a lock is held there.
    pub(crate) fn open(settings: &RemoteSettings) -> Result<Arc<Self>> {
        Self::begin(settings, Capabilities::own().without(Capability::Channels))
    }

    /// Does the same for a connection that carries others, if rbr is there.
    ///
    /// # Errors
    /// Those of [`Connection::open`].
    pub(crate) fn open_with_channels(settings: &RemoteSettings) -> Result<Arc<Self>> {
        Self::begin(settings, Capabilities::own())
    }

    fn begin(settings: &RemoteSettings, offered: Capabilities) -> Result<Arc<Self>> {
        patience::open(settings, || Self::begin_once(settings, offered.clone()))
    }

    fn begin_once(settings: &RemoteSettings, offered: Capabilities) -> Result<Arc<Self>> {
        let (kind, opened) = match &settings.way {
            Way::Ssh(ssh) => ("ssh", Process::start(settings, ssh)?),
            Way::Tls { client, .. } => ("tls", tls::open(client, settings.timeout)?),
        };
        let arguments = match &settings.way {
            // The process that serves has no command line
            Way::Tls { arguments, .. } => Some(arguments.as_slice()),
            Way::Ssh(_) => None,
        };
        let cipher_key = settings.asks_passphrase.then_some(settings.key);
        let beginning = Beginning { kind, arguments, offered, cipher_key };
        Self::over(settings, beginning, opened).map_err(|error| with_refusal_hint(error, settings))
    }

    /// Waits until the server at the other end of a way is ready.
    pub(super) fn over(settings: &RemoteSettings, beginning: Beginning<'_>, opened: Opened) -> Result<Arc<Self>> {
        let Opened { link, input, output } = opened;
        let channels = Channels::new(output);
        let output = Box::new(ChannelOutput::first(&channels, settings.timeout));
        let input = Box::new(WayInput::new(input, Arc::clone(&channels)));
        let streams = Streams { link, input, output, channels: Some(channels), parent: None };
        Self::greeted(settings, beginning, streams)
    }

    /// Opens a connection over the way of this one; `None` if that can carry no more, or the server can't serve one more. It ends
    /// this one only after itself.
    ///
    /// # Errors
    /// The error that ended this connection, or with which the server refuses.
    pub(crate) fn open_channel(self: &Arc<Self>, settings: &RemoteSettings) -> Result<Option<Arc<Self>>> {
        let Some(channels) = &self.channels else { return Ok(None) };
        let opened = channels.open(settings.timeout).map_err(|error| self.end(&End::of(error)))?;
        let Some((input, output)) = opened else { return Ok(None) };
        let server_end = input.server_end.clone();
        let end = ChannelEnd { channels: Arc::clone(channels), number: output.number, server_end: server_end.clone() };
        let link = ChannelLink {
            parent: Arc::clone(&self.shared),
            parent_name: self.name.to_string(),
            read_name: self.read_name.clone(),
            channels: Arc::clone(channels),
            number: output.number,
        };
        let (input, output) = (Box::new(input), Box::new(output));
        let streams =
            Streams { link: Box::new(link), input, output, channels: None, parent: Some((Arc::clone(self), end)) };
        let kind = match &settings.way {
            Way::Ssh(_) => "ssh",
            Way::Tls { .. } => "tls",
        };
        let offered = Capabilities::own().without(Capability::Channels);
        match Self::greeted(settings, Beginning { kind, offered, ..Beginning::default() }, streams) {
            Err(error) if server_end.is_refused() && !self.has_ended() => {
                crate::debug!("no further channel: {error}");
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    fn greeted(settings: &RemoteSettings, beginning: Beginning<'_>, streams: Streams) -> Result<Arc<Self>> {
        let Streams { link, input, output, channels, parent } = streams;
        let mut connection = Connection {
            name: format!("remote-{} {} protocol on '{}'", settings.process, beginning.kind, settings.host).into(),
            read_name: link.read_name(),
            dialect: Dialect::NEWEST,
            timeout: settings.timeout,
            shared: Arc::new(Shared::new(link, output)),
            threads: Vec::new(),
            first: OnceLock::new(),
            channels,
            parent,
        };
        let (sender, greeted) = channel();
        let (far, collected) = (FarEnd::new(&connection.name, settings), Inherited::from_this_thread());
        let way = connection.channels.clone();
        let first_frame = way.clone().map(|way| FirstFrame::new(&beginning, way));
        connection.start_thread("remote-read", move |shared| {
            let read = caught(|| {
                collected.during(|| read(input, &sender, shared, &far, first_frame));
                Ok(())
            });
            if let Err(error) = read {
                shared.fail(&End::of(error));
                lock(&shared.link).kill();
            }
            // Whoever waits on another channel finds the error of this one
            way.inspect(|way| way.end());
        })?;
        let first = FirstRequests::send(&connection.shared, &beginning);
        connection.dialect = match greeted.recv_timeout(settings.timeout) {
            Ok(dialect) => dialect.map_err(|end: End| end.to_error())?,
            Err(error) => return Err(connection.silent(error)),
        };
        // Nothing else is sent before all answers have come
        let first = first.wait(&connection, &beginning.offered)?;
        let _ = connection.first.set(first);
        // A server of pgBackRest waits for the next request no longer than for this time limit
        let (dialect, idle) = (connection.dialect, IDLE.min(settings.timeout / 2));
        connection.start_thread("remote-idle", move |shared| keep_alive(shared, dialect, idle))?;
        let connection = Arc::new(connection);
        if connection.has(Capability::Channels) {
            // Shows how far the host is. Nobody waits for the answer
            drop(connection.send(&Call::Noop, None));
        }
        Ok(connection)
    }

    /// Returns the shortest time that an answer took.
    ///
    /// # Errors
    /// The error that ended the connection.
    pub(crate) fn round_trip(self: &Arc<Self>) -> Result<Duration> {
        let shortest = || Duration::from_micros(self.shared.round_trip_us.load(Ordering::Relaxed));
        if shortest() == Duration::from_micros(UNKNOWN_US) {
            self.call(&Call::Noop)?;
        }
        Ok(shortest())
    }

    /// Returns whether both sides can do this.
    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.first.get().is_some_and(|first| first.common.has(capability))
    }

    /// Returns whether there are, or may be, other connections to the same server.
    pub(crate) fn is_one_of_several(&self) -> bool {
        self.channels.is_none() || self.has(Capability::Channels)
    }

    /// Waits until the server has ended this channel of another connection in order. Then it has dropped what was open on it, and
    /// does nothing more. Returns `false` if it has not within the limit, or may have found the channel lost instead.
    pub(crate) fn was_ended_by_server(&self, limit: Duration) -> bool {
        self.parent.as_ref().is_some_and(|(_, end)| end.is_by_server(limit))
    }

    /// Returns whether nothing can be sent any more.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.shared.queue).end.is_some()
    }

    /// Returns why nothing can be sent any more, if that is so.
    ///
    /// # Errors
    /// The error that ended the connection.
    pub(crate) fn connected(&self) -> Result<()> {
        lock(&self.shared.queue).end.as_ref().map_or(Ok(()), |end| Err(end.to_error()))
    }

    fn start_thread(&mut self, name: &str, body: impl FnOnce(&Shared) + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = Builder::new().name(name.to_owned()).spawn(move || body(&shared));
        self.threads.push(thread.map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start a thread", e))?);
        Ok(())
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// The server's error, or the error that ended the connection.
    pub(crate) fn call(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer> {
        self.send(call, None).wait()
    }

    /// Sends a request: the next one of a session, or one with a number of its own. If nothing can be sent any more, the
    /// answer says why. So whoever waits for the answers in their order gets the first error.
    pub(crate) fn send(self: &Arc<Self>, call: &Call<'_>, session: Option<u64>) -> PendingAnswer {
        let (sender, reply) = channel();
        let session = self.shared.send(call, session, self.dialect, sender);
        PendingAnswer { connection: Arc::clone(self), session, reply }
    }

    /// Checks that requests can be sent and are answered.
    ///
    /// # Errors
    /// The error that ended the connection.
    pub(crate) fn check(&self) -> Result<()> {
        let (end, oldest) = {
            let queue = lock(&self.shared.queue);
            (queue.end.clone(), queue.waiting.front().map(|waiting| waiting.sent))
        };
        if let Some(end) = end {
            return Err(end.to_error());
        }
        let since = oldest.map(|sent| sent.max(self.shared.answered_last()));
        if since.is_some_and(|since| since.elapsed() > self.timeout) {
            return Err(self.silent(RecvTimeoutError::Timeout));
        }
        Ok(())
    }

    fn receive(&self, reply: &Receiver<Reply>, cancel: Option<&CancelToken>) -> Result<Answer> {
        let sent = Instant::now();
        let reply = loop {
            // The server works for one request after the other, so only its silence counts
            let since = sent.max(self.shared.answered_last());
            let left = self.timeout.saturating_sub(since.elapsed());
            match reply.recv_timeout(if cancel.is_some() { left.min(LOOK) } else { left }) {
                Ok(reply) => break reply,
                Err(RecvTimeoutError::Timeout) if self.shared.answered_last() > since => {}
                Err(RecvTimeoutError::Timeout) if since.elapsed() < self.timeout => {
                    if let Some(Err(error)) = cancel.map(CancelToken::check) {
                        return Err(self.end(&End::of_stop(error)));
                    }
                }
                Err(error) => return Err(self.silent(error)),
            }
        };
        self.accept(reply)
    }

    fn accept(&self, reply: Reply) -> Result<Answer> {
        let message = reply.map_err(|end| end.to_error())?;
        let answer = AnswerMessage::decode(&message).map_err(|error| error.context(&self.name).cause(PeerFault))?;
        let is_closed = answer.is_closed;
        let data = match answer.outcome {
            Ok(data) => data.map(|data| position(&message, data)),
            // One without a session ends the connection, and says nothing about what was asked for
            Err(error) if answer.session.is_none() => return Err(error.to_error(&self.name).cause(PeerFault)),
            Err(error) => return Err(self.far_error(&error)),
        };
        Ok(Answer { message, data, is_closed, name: Arc::clone(&self.name) })
    }

    /// The error of the server, with what it says about the space of its storage.
    fn far_error(&self, answer: &ErrorAnswer<'_>) -> Error {
        let error = answer.to_error(&self.name);
        let tells = self.has(Capability::NoSpace);
        let said = if tells { answer.no_space } else { said_by_pgbackrest(error.code, &error.message) };
        with_no_space(with_write_hint(error), said)
    }

    /// Ends a connection whose server does not answer.
    fn silent(&self, error: RecvTimeoutError) -> Error {
        let end = match error {
            RecvTimeoutError::Timeout => Error::new(
                ErrorCode::FileRead,
                format!("timeout after {}ms waiting for read from '{}'", self.timeout.as_millis(), self.read_name),
            ),
            // The thread that reads has ended without a reason
            RecvTimeoutError::Disconnected => Error::new(ErrorCode::Assert, "connection has ended").context(&self.name),
        };
        self.end(&End::of(end))
    }

    /// The error for an answer that is not what was asked for.
    pub(crate) fn refuse(&self, why: &str) -> Error {
        Error::new(ErrorCode::Protocol, format!("{}: {why}", self.name)).cause(PeerFault)
    }

    /// Ends the connection at once with this error.
    pub(crate) fn fail(&self, error: &Error) {
        let _ = self.end(&End::of(Error::new(error.code, format!("{}: {}", self.name, error.message))));
    }

    /// Ends the connection as after a silence.
    #[cfg(test)]
    pub(super) fn give_up(&self) {
        let _ = self.silent(RecvTimeoutError::Timeout);
    }

    /// Ends the connection at once. Returns why it has ended.
    fn end(&self, end: &End) -> Error {
        let first = self.shared.fail(end);
        // A thread may be blocked while it sends
        lock(&self.shared.link).kill();
        first.to_error()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        *lock(&self.shared.stop.0) = true;
        self.shared.stop.1.notify_all();
        let is_well = {
            let queue = lock(&self.shared.queue);
            // Nobody needs what the server still does for a channel. It may wait to be sent, too
            let is_idle = self.channels.is_some() || queue.waiting.is_empty();
            queue.end.is_none() && is_idle
        };
        if !is_well {
            // The threads are not waited for: a process that the client started may keep its output open
            lock(&self.shared.link).kill();
            return;
        }
        // Nobody else sends any more, except the thread that keeps the connection alive
        let writer = lock(&self.shared.output).writer.take();
        let Some(mut writer) = writer else {
            lock(&self.shared.link).kill();
            return;
        };
        if self.channels.is_some() {
            // The end of what is sent says the same, which is all that a channel sends: it waits for no other one
            let _ = Call::Exit.encode(u64::MAX, self.dialect).write_to(&mut writer);
        }
        drop(writer);
        lock(&self.shared.link).finish(EXIT_WAIT);
        for thread in self.threads.drain(..) {
            // A thread that panicked needs nothing more
            let _ = thread.join();
        }
    }
}
