//! A connection that all threads of a command share.
//!
//! The server answers requests in their order. So a request and a place in the queue of waiting threads are entered
//! under one lock, and a thread that reads the answers gives each to the first in the queue. Requests of several
//! sessions, such as files that are read at the same time, may be mixed. Nobody waits for another's answer before it
//! sends a request, which hides the time that messages travel.

mod first;

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use protocol::greeting::{self, GREETING_SIZE_MAX, Service};
use protocol::pack::read_message;
use protocol::{AnswerMessage, Call, Capability, Dialect};

use self::first::{FirstAnswers, FirstRequests, pass_on_warnings};
use super::failure::{FarEnd, with_refusal_hint};
use super::link::{Link, Opened};
use super::process::Process;
use super::received::{Kept, Received};
use super::{RemoteSettings, Way, tls};
use crate::log::Inherited;
use crate::{CancelToken, Error, ErrorCode, Result};

pub(crate) use self::first::cipher_options;

/// The size of the buffer between the client's output and messages.
const BUFFER_BYTES: usize = 256 << 10;
/// A connection on which nothing was sent for this time gets a request, so that nothing between the hosts takes it for
/// dead.
const IDLE: Duration = Duration::from_secs(30);
/// The most warnings of a server that are logged.
const WARNINGS_MAX: usize = 1000;
/// How often a wait looks for a cancellation.
const LOOK: Duration = Duration::from_millis(50);
/// How long the server may take to end after the connection was closed.
const EXIT_WAIT: Duration = Duration::from_secs(10);

/// The error that ended a connection. Every later request gets it.
#[derive(Clone, Debug)]
struct End {
    code: ErrorCode,
    message: String,
    hints: Vec<String>,
}

impl End {
    fn of(error: Error) -> Self {
        End { code: error.code, message: error.message, hints: error.hints }
    }

    fn to_error(&self) -> Error {
        self.hints.iter().fold(Error::new(self.code, self.message.clone()), Error::hint)
    }
}

/// An answer.
pub(crate) struct Answer {
    message: Received,
    /// The data within the message.
    data: Option<(usize, usize)>,
    /// Whether its session has ended.
    pub(crate) is_closed: bool,
}

impl Answer {
    /// The data: a complete pack.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        self.data.and_then(|(begin, end)| self.message.get(begin..end))
    }
}

/// What a waiting thread gets.
type Reply = std::result::Result<Received, End>;

/// A request that was sent.
#[must_use]
pub(crate) struct PendingAnswer {
    connection: Arc<Connection>,
    /// The number of the session.
    pub(crate) session: u64,
    reply: Receiver<Reply>,
}

impl PendingAnswer {
    /// Waits for the answer.
    ///
    /// # Errors
    /// The server's error, or the error that ended the connection.
    pub(crate) fn wait(self) -> Result<Answer> {
        self.connection.receive(&self.reply, None)
    }

    /// Waits for an answer that the server may need long for, or until the token is cancelled. This ends the connection,
    /// because the server can't do anything else meanwhile.
    ///
    /// # Errors
    /// Those of [`PendingAnswer::wait`], [`ErrorCode::Term`] once cancelled.
    pub(crate) fn wait_or_stop(self, cancel: &CancelToken) -> Result<Answer> {
        self.connection.receive(&self.reply, Some(cancel))
    }
}

struct Waiting {
    session: u64,
    sent: Instant,
    sender: Sender<Reply>,
}

/// Who waits for answers. The thread that reads takes this lock, so nobody writes to the server under it.
struct Queue {
    waiting: VecDeque<Waiting>,
    session_last: u64,
    end: Option<End>,
}

/// What the server gets. `writer` is `None` once nothing can be sent any more.
struct Output {
    writer: Option<Box<dyn Write + Send>>,
    sent_last: Instant,
}

/// What the threads of a connection share.
struct Shared {
    queue: Mutex<Queue>,
    output: Mutex<Output>,
    /// When the last answer came, in milliseconds after `begun`.
    answered_ms: AtomicU64,
    begun: Instant,
    link: Mutex<Box<dyn Link>>,
    /// The thread that keeps the connection alive stops.
    stop: (Mutex<bool>, Condvar),
    /// Answers may contain warnings.
    has_warnings: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new(link: Box<dyn Link>, writer: Box<dyn Write + Send>) -> Self {
        Shared {
            queue: Mutex::new(Queue { waiting: VecDeque::new(), session_last: 0, end: None }),
            output: Mutex::new(Output { writer: Some(writer), sent_last: Instant::now() }),
            answered_ms: AtomicU64::new(0),
            begun: Instant::now(),
            link: Mutex::new(link),
            stop: (Mutex::new(false), Condvar::new()),
            has_warnings: AtomicBool::new(false),
        }
    }

    /// Sends a request: the next one of a session, or one with a number of its own. Returns the number.
    fn send(&self, call: &Call<'_>, session: Option<u64>, dialect: &Dialect, sender: Sender<Reply>) -> Result<u64> {
        // Requests are written in the order in which their threads wait
        let mut output = lock(&self.output);
        let session = lock(&self.queue).enter(session, sender)?;
        output.sent_last = Instant::now();
        if let Some(writer) = &mut output.writer
            && let Err(error) = call.encode(session, dialect).write_to(writer)
        {
            // Half a request must not be continued. The thread that reads finds out why the way has ended
            output.writer = None;
            if error.kind() == io::ErrorKind::TimedOut {
                let end = End::of(Error::new(ErrorCode::FileWrite, error.to_string()));
                self.fail(&end);
                lock(&self.link).kill();
                return Err(end.to_error());
            }
        }
        Ok(session)
    }

    /// Returns when the last answer came.
    fn answered_last(&self) -> Instant {
        self.begun + Duration::from_millis(self.answered_ms.load(Ordering::Relaxed))
    }

    /// Ends the connection for everybody.
    fn fail(&self, end: &End) {
        let mut queue = lock(&self.queue);
        queue.end.get_or_insert_with(|| end.clone());
        for waiting in queue.waiting.drain(..) {
            // A thread that no longer waits needs no answer
            let _ = waiting.sender.send(Err(end.clone()));
        }
    }
}

impl Queue {
    fn enter(&mut self, session: Option<u64>, sender: Sender<Reply>) -> Result<u64> {
        if let Some(end) = &self.end {
            return Err(end.to_error());
        }
        let session = session.unwrap_or_else(|| {
            self.session_last += 1;
            self.session_last
        });
        self.waiting.push_back(Waiting { session, sent: Instant::now(), sender });
        Ok(session)
    }
}

/// A connection to the server on another host. Dropping it ends the server's process.
pub(crate) struct Connection {
    /// The name in errors of the server, such as `remote-0 ssh protocol on 'HOST'`.
    name: String,
    /// The name of the way in errors of reading.
    read_name: String,
    dialect: &'static Dialect,
    timeout: Duration,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// What the server said first.
    first: OnceLock<FirstAnswers>,
}

impl Connection {
    /// Starts the process on the other host, or connects to its server, and waits until it is ready.
    ///
    /// # Errors
    /// The host can't be reached, speaks another version, or refuses, for example because a lock is held there.
    pub(crate) fn open(settings: &RemoteSettings) -> Result<Arc<Self>> {
        let (kind, opened) = match &settings.way {
            Way::Ssh(ssh) => ("ssh", Process::start(settings, ssh)?),
            Way::Tls { client, .. } => ("tls", tls::open(client, settings.timeout)?),
        };
        Self::over(settings, kind, opened).map_err(|error| with_refusal_hint(error, settings))
    }

    /// Waits until the server at the other end of a way is ready.
    pub(super) fn over(settings: &RemoteSettings, kind: &str, opened: Opened) -> Result<Arc<Self>> {
        let Opened { link, input, output } = opened;
        let mut connection = Connection {
            name: format!("remote-{} {kind} protocol on '{}'", settings.process, settings.host),
            read_name: link.read_name(),
            dialect: Dialect::NEWEST,
            timeout: settings.timeout,
            shared: Arc::new(Shared::new(link, output)),
            threads: Vec::new(),
            first: OnceLock::new(),
        };
        let (sender, greeted) = channel();
        let (far, collected) = (FarEnd::new(&connection.name, settings), Inherited::from_this_thread());
        connection.start_thread("remote-read", move |shared| {
            collected.during(|| read(input, &sender, shared, &far));
        })?;
        let first = FirstRequests::send(&connection.shared, settings)?;
        connection.dialect = match greeted.recv_timeout(settings.timeout) {
            Ok(dialect) => dialect.map_err(|end: End| end.to_error())?,
            Err(error) => return Err(connection.silent(error)),
        };
        // A server of pgBackRest waits for the next request no longer than for this time limit
        let (dialect, idle) = (connection.dialect, IDLE.min(settings.timeout / 2));
        connection.start_thread("remote-idle", move |shared| keep_alive(shared, dialect, idle))?;
        let first = first.wait(&connection)?;
        let _ = connection.first.set(first);
        Ok(Arc::new(connection))
    }

    /// Returns whether both sides can do this.
    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.first.get().is_some_and(|first| first.common.has(capability))
    }

    /// Returns whether nothing can be sent any more.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.shared.queue).end.is_some()
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
        self.send(call, None)?.wait()
    }

    /// Sends a request: the next one of a session, or one with a number of its own.
    ///
    /// # Errors
    /// The error that ended the connection.
    pub(crate) fn send(self: &Arc<Self>, call: &Call<'_>, session: Option<u64>) -> Result<PendingAnswer> {
        let (sender, reply) = channel();
        let session = self.shared.send(call, session, self.dialect, sender)?;
        Ok(PendingAnswer { connection: Arc::clone(self), session, reply })
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
        let message = loop {
            // The server works for one request after the other, so only its silence counts
            let since = sent.max(self.shared.answered_last());
            let left = self.timeout.saturating_sub(since.elapsed());
            match reply.recv_timeout(if cancel.is_some() { left.min(LOOK) } else { left }) {
                Ok(reply) => break reply.map_err(|end| end.to_error())?,
                Err(RecvTimeoutError::Timeout) if self.shared.answered_last() > since => {}
                Err(RecvTimeoutError::Timeout) if since.elapsed() < self.timeout => {
                    if let Some(Err(error)) = cancel.map(CancelToken::check) {
                        let end = End::of(error);
                        self.end(&end);
                        return Err(end.to_error());
                    }
                }
                Err(error) => return Err(self.silent(error)),
            }
        };
        let answer = AnswerMessage::decode(&message).map_err(|error| error.context(&self.name))?;
        let is_closed = answer.is_closed;
        let data = match answer.outcome {
            Ok(data) => data.map(|data| position(&message, data)),
            Err(error) => return Err(error.to_error(&self.name)),
        };
        Ok(Answer { message, data, is_closed })
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
        let end = End::of(end);
        self.end(&end);
        end.to_error()
    }

    /// Ends the connection at once.
    fn end(&self, end: &End) {
        self.shared.fail(end);
        // A thread may be blocked while it sends
        lock(&self.shared.link).kill();
    }
}

/// Returns the position of a slice of a message.
fn position(message: &[u8], part: &[u8]) -> (usize, usize) {
    let begin = part.as_ptr().addr() - message.as_ptr().addr();
    (begin, begin + part.len())
}

/// Reads the greeting and all answers. `far` is the server, for its errors and warnings.
fn read(
    input: Box<dyn Read + Send>,
    greeted: &Sender<std::result::Result<&'static Dialect, End>>,
    shared: &Shared,
    far: &FarEnd,
) {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, Input { reader: input, has_ended: false });
    let error = match read_greeting(&mut input) {
        Ok(dialect) => {
            // The thread that opens the connection may have given up
            let _ = greeted.send(Ok(dialect));
            far.in_answer(read_answers(&mut input, shared, &far.name))
        }
        Err(error) => far.in_greeting(error),
    };
    // A process that has ended says why, and a session that was closed has no other error
    let end = End::of(if input.get_ref().has_ended { lock(&shared.link).ended(EXIT_WAIT) } else { error });
    shared.fail(&end);
    let _ = greeted.send(Err(end));
}

/// What the server sends.
struct Input {
    reader: Box<dyn Read + Send>,
    has_ended: bool,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.has_ended |= read == 0;
        Ok(read)
    }
}

pub(super) fn read_greeting(input: &mut impl BufRead) -> Result<&'static Dialect> {
    let mut line = Vec::new();
    input
        .by_ref()
        .take(GREETING_SIZE_MAX as u64)
        .read_until(b'\n', &mut line)
        .map_err(|e| Error::from_io(ErrorCode::FileRead, "unable to read greeting", e))?;
    greeting::check(line.strip_suffix(b"\n").unwrap_or(&line), Service::Remote)
}

/// Gives each answer to the thread that waits for it. Returns the error that ended the connection.
fn read_answers(input: &mut impl BufRead, shared: &Shared, name: &str) -> Error {
    let mut warnings_left = WARNINGS_MAX;
    let kept = Kept::default();
    loop {
        let mut message = Vec::new();
        if let Err(error) = read_message(input, &mut message, kept.bytes_left()) {
            return error;
        }
        let (session, fault) = match AnswerMessage::decode(&message) {
            Ok(answer) => (answer.session, answer.outcome.err().map(|fault| fault.to_error(name))),
            Err(error) => return error,
        };
        if shared.has_warnings.load(Ordering::Relaxed) {
            match pass_on_warnings(&message, warnings_left, name) {
                Ok(passed) => warnings_left = warnings_left.saturating_sub(passed),
                Err(error) => return error,
            }
        }
        let Some(waiting) = lock(&shared.queue).waiting.pop_front() else {
            // A server that gives up, for example because no request came in time, says so unasked
            return fault.unwrap_or_else(|| Error::new(ErrorCode::Protocol, "answer without a request"));
        };
        if session.is_some_and(|session| session != waiting.session) {
            let text = format!("answer for session {session:?} instead of {}", waiting.session);
            return Error::new(ErrorCode::Protocol, text);
        }
        let since_begin = u64::try_from(shared.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.answered_ms.store(since_begin, Ordering::Relaxed);
        // A thread that no longer waits needs no answer
        let _ = waiting.sender.send(Ok(kept.keep(message)));
    }
}

/// Sends a request from time to time while there is nothing else to send.
fn keep_alive(shared: &Shared, dialect: &Dialect, idle: Duration) {
    let (stop, changed) = &shared.stop;
    loop {
        let left = idle.saturating_sub(lock(&shared.output).sent_last.elapsed());
        let waited = changed.wait_timeout_while(lock(stop), left, |stop| !*stop);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
        if lock(&shared.output).sent_last.elapsed() >= idle {
            let (sender, _) = channel();
            if shared.send(&Call::Noop, None, dialect, sender).is_err() {
                return;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        *lock(&self.shared.stop.0) = true;
        self.shared.stop.1.notify_all();
        let is_well = lock(&self.shared.queue).end.is_none();
        // Nobody else sends any more, except the thread that keeps the connection alive
        let writer = lock(&self.shared.output).writer.take();
        if let Some(mut writer) = writer.filter(|_| is_well) {
            // The end of what is sent says the same
            let _ = Call::Exit.encode(u64::MAX, self.dialect).write_to(&mut writer);
            drop(writer);
            lock(&self.shared.link).finish(EXIT_WAIT);
        } else {
            // The threads are not waited for: a process that the client started may keep its output open
            lock(&self.shared.link).kill();
            return;
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked needs nothing more
            let _ = thread.join();
        }
    }
}
