//! What the threads of a connection share: who waits for answers, and what is sent.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::{Call, Dialect};

use super::link::Link;
use super::received::Received;
use crate::system_text;
use crate::work::retry::PeerFault;
use crate::{Error, ErrorCode};

/// The most bytes of an answer that has parts or is small. Each thread may have one in use, whose memory does not count. The largest
/// one of a peer is a chunk of `buffer-size` of its own configuration, which is at most 16 MiB, and the results of filters.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// No answer shows how long it takes.
pub(super) const UNKNOWN_US: u64 = u64::MAX;

/// The error that ended a connection. Every later request gets it.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    pub(super) hints: Vec<String>,
    /// This process was told to stop, and so ended it.
    pub(super) is_stop: bool,
}

impl End {
    pub(super) fn of(error: Error) -> Self {
        End { code: error.code, message: error.message, hints: error.hints, is_stop: false }
    }

    /// The end by a stop of this process.
    pub(super) fn of_stop(error: Error) -> Self {
        End { is_stop: true, ..End::of(error) }
    }

    pub(super) fn to_error(&self) -> Error {
        let error = Error::new(self.code, self.message.clone());
        let error = if self.is_stop { error } else { error.cause(PeerFault) };
        self.hints.iter().fold(error, Error::hint)
    }
}

/// What a waiting thread gets.
pub(super) type Reply = std::result::Result<Received, End>;

pub(super) struct Waiting {
    pub(super) session: u64,
    /// The most bytes that the answer may have; `None` if only all answers together have a limit.
    pub(super) bytes_max: Option<usize>,
    pub(super) sent: Instant,
    pub(super) sender: Sender<Reply>,
}

/// Who waits for answers. The thread that reads takes this lock, so nobody writes to the server under it.
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    session_last: u64,
    pub(super) end: Option<End>,
}

/// What the server gets. `writer` is `None` once nothing can be sent any more.
pub(super) struct Output {
    pub(super) writer: Option<Box<dyn Write + Send>>,
    pub(super) sent_last: Instant,
}

/// What the threads of a connection share.
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) output: Mutex<Output>,
    /// When the last answer came, in milliseconds after `begun`.
    pub(super) answered_ms: AtomicU64,
    pub(super) begun: Instant,
    pub(super) link: Mutex<Box<dyn Link>>,
    /// The thread that keeps the connection alive stops.
    pub(super) stop: (Mutex<bool>, Condvar),
    /// Answers may contain warnings.
    pub(super) has_warnings: AtomicBool,
    /// The shortest time that an answer took, in microseconds, or [`UNKNOWN_US`].
    pub(super) round_trip_us: AtomicU64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(link: Box<dyn Link>, writer: Box<dyn Write + Send>) -> Self {
        Shared {
            queue: Mutex::new(Queue { waiting: VecDeque::new(), session_last: 0, end: None }),
            output: Mutex::new(Output { writer: Some(writer), sent_last: Instant::now() }),
            answered_ms: AtomicU64::new(0),
            begun: Instant::now(),
            link: Mutex::new(link),
            stop: (Mutex::new(false), Condvar::new()),
            has_warnings: AtomicBool::new(false),
            round_trip_us: AtomicU64::new(UNKNOWN_US),
        }
    }

    /// Sends a request: the next one of a session, or one with a number of its own. Returns the number. After the end of the
    /// connection its error is the answer: those of earlier requests, which may say more, come first.
    pub(super) fn send(&self, call: &Call<'_>, session: Option<u64>, dialect: &Dialect, sender: Sender<Reply>) -> u64 {
        // Requests are written in the order in which their threads wait
        let mut output = lock(&self.output);
        let (session, is_sent) = lock(&self.queue).enter(call, session, sender);
        if !is_sent {
            return session;
        }
        output.sent_last = Instant::now();
        if let Some(writer) = &mut output.writer
            && let Err(error) = call.encode(session, dialect).write_to(writer)
        {
            // Half a request must not be continued. The thread that reads finds out why the way has ended
            output.writer = None;
            if error.kind() == io::ErrorKind::TimedOut {
                self.fail(&End::of(Error::new(ErrorCode::FileWrite, system_text(&error))));
                lock(&self.link).kill();
            }
        }
        session
    }

    /// Returns when the last answer came.
    pub(super) fn answered_last(&self) -> Instant {
        self.begun + Duration::from_millis(self.answered_ms.load(Ordering::Relaxed))
    }

    /// Ends the connection for everybody. Returns why it has ended: an end that came before has the reason.
    pub(super) fn fail(&self, end: &End) -> End {
        let mut queue = lock(&self.queue);
        let first = queue.end.get_or_insert_with(|| end.clone()).clone();
        for waiting in queue.waiting.drain(..) {
            // A thread that no longer waits needs no answer
            let _ = waiting.sender.send(Err(first.clone()));
        }
        first
    }
}

/// The most bytes of the answer to a request.
fn bytes_max(call: &Call<'_>) -> Option<usize> {
    match call {
        // These have no parts: the list of a directory with a million entries takes 40 MB and more
        Call::List(_) | Call::DatabaseQuery(_) => None,
        _ => Some(ANSWER_BYTES_MAX),
    }
}

impl Queue {
    /// Returns the number of the session, and whether the answer is still to come.
    fn enter(&mut self, call: &Call<'_>, session: Option<u64>, sender: Sender<Reply>) -> (u64, bool) {
        let session = session.unwrap_or_else(|| {
            self.session_last += 1;
            self.session_last
        });
        match &self.end {
            // A thread that does not wait needs no answer
            Some(end) => drop(sender.send(Err(end.clone()))),
            None => {
                self.waiting.push_back(Waiting { session, bytes_max: bytes_max(call), sent: Instant::now(), sender })
            }
        }
        (session, self.end.is_none())
    }
}
