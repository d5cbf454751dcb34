//! A reverse proxy on loopback that makes a healthy server slow or faulty, and counts what is asked of it.
//!
//! Every connection of a client has a thread and a connection to the server of its own, and both live as long as the
//! client keeps them: latency delays each request by itself and never serializes two connections.

mod connection;
pub(super) mod http;
mod tls;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use regex_lite::Regex;
use rustls::SupportedCipherSuite;

/// Connections beyond this many are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// Requests are counted beyond this many, but no longer kept.
const LOG_MAX: usize = 200_000;

/// What happens to a request instead of, or besides, being passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server is not asked; this is the answer.
    Answer { status: u16, body: String },
    /// The server is not asked; the connection is reset.
    Reset,
    /// The server is not asked; the connection ends as if the proxy had been stopped in good order.
    Close,
    /// The answer's head is passed on, and half of its body. Then the connection ends.
    CutBody,
    /// The request waits this long before it is passed on.
    Stall(Duration),
    /// The server does its work, and the connection ends in the place of its answer.
    LoseReply,
}

impl Fault {
    /// An answer with a status and S3's error body for it.
    pub fn error(status: u16) -> Self {
        let (code, message) = match status {
            429 => ("TooManyRequests", "Please reduce your request rate."),
            503 => ("SlowDown", "Please reduce your request rate."),
            _ => ("InternalError", "We encountered an internal error. Please try again."),
        };
        Self::error_with(status, code, message)
    }

    /// An answer with a status and an S3 error body of this code and message.
    pub fn error_with(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        Self::Answer { status, body }
    }
}

/// Which requests a fault befalls.
#[derive(Debug)]
pub struct Rule {
    fault: Fault,
    every: u64,
    times_max: u64,
    matching: Option<Regex>,
    seen: AtomicU64,
    hits: AtomicU64,
}

impl Rule {
    /// Every request.
    pub fn new(fault: Fault) -> Self {
        let (seen, hits) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { fault, every: 1, times_max: u64::MAX, matching: None, seen, hits }
    }

    /// Only those whose `METHOD /path?query` matches this pattern.
    pub fn on(mut self, pattern: &str) -> Self {
        self.matching = Some(Regex::new(pattern).expect("valid pattern"));
        self
    }

    /// Only every nth of them.
    pub fn every(mut self, n: u64) -> Self {
        self.every = n.max(1);
        self
    }

    /// No more than this often.
    pub fn times(mut self, max: u64) -> Self {
        self.times_max = max;
        self
    }

    fn applies(&self, line: &str) -> bool {
        if self.matching.as_ref().is_some_and(|pattern| !pattern.is_match(line)) {
            return false;
        }
        let nth = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        nth.is_multiple_of(self.every) && self.hits.fetch_add(1, Ordering::Relaxed) < self.times_max
    }
}

/// What a proxy stands before, and how.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// The server: `http://127.0.0.1:PORT`, or `https://` with [`ProxyOptions::ca_file`].
    pub target: String,
    /// The authority of the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key (PEM files) to speak TLS with clients; without them they speak plain HTTP.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The only cipher suite for clients; any where it is not given.
    pub suite: Option<SupportedCipherSuite>,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// How long every request waits before it is passed on.
    pub latency: Duration,
    /// Adds the header `X-GUploader-UploadID` to answers, with what `upload_id` says in their `Location`, as Google's
    /// servers do and their emulators don't.
    pub upload_id_header: bool,
}

/// One request that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    pub method: String,
    /// Path and query as they were sent.
    pub path: String,
    /// The status that the client was sent; 0 when it was sent none.
    pub status: u16,
    /// Bytes of the bodies that were passed on.
    pub sent: u64,
    pub received: u64,
}

/// A running proxy; it and its connections end when this goes out of scope.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

/// What the threads of a proxy share.
struct Shared {
    options: ProxyOptions,
    tls: tls::Tls,
    stopping: AtomicBool,
    connections: AtomicU64,
    /// Sockets of both sides, to end connections that wait for data.
    open: Mutex<HashMap<u64, Vec<TcpStream>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Arc<Vec<Rule>>,
    latency: Duration,
    log: Vec<Request>,
    counts: BTreeMap<(String, u16), u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts a proxy without faults.
    pub fn start(options: ProxyOptions) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).expect("port of the proxy");
        let address = listener.local_addr().expect("address of the proxy");
        let shared = Arc::new(Shared {
            tls: tls::Tls::load(&options),
            stopping: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            open: Mutex::default(),
            state: Mutex::new(State { latency: options.latency, ..State::default() }),
            options,
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.accept(&listener))
        };
        Self { shared, address, accepting: Some(accepting) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Replaces the faults. Their counts begin anew.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.shared.state().rules = Arc::new(rules);
    }

    /// How often the rules have applied, in their order.
    pub fn hits(&self) -> Vec<u64> {
        let rules = Arc::clone(&self.shared.state().rules);
        rules.iter().map(|rule| rule.hits.load(Ordering::Relaxed).min(rule.times_max)).collect()
    }

    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// The requests since the start or the last [`Proxy::clear`], in the order they ended.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().log.clone()
    }

    /// How many requests of each method ended with each status (0: none was sent).
    pub fn counts(&self) -> BTreeMap<(String, u16), u64> {
        self.shared.state().counts.clone()
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        let mut state = self.shared.state();
        state.log.clear();
        state.counts.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for socket in lock(&self.shared.open).values().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((socket, _)) = listener.accept() {
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            if lock(&self.open).len() >= CONNECTIONS_MAX {
                continue;
            }
            let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
            let shared = Arc::clone(self);
            if shared.keep(number, &socket).is_ok() {
                std::thread::spawn(move || {
                    // A client that goes away, or a fault, ends the connection and nothing else
                    let _ = connection::serve(&shared, number, socket);
                    lock(&shared.open).remove(&number);
                });
            }
        }
    }

    /// Prepares a socket of a connection and remembers it for the proxy's end.
    fn keep(&self, number: u64, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let copy = socket.try_clone()?;
        lock(&self.open).entry(number).or_default().push(copy);
        Ok(())
    }

    /// How long a request waits, and what becomes of it.
    fn decide(&self, line: &str) -> (Duration, Option<Fault>) {
        let (latency, rules) = {
            let state = self.state();
            (state.latency, Arc::clone(&state.rules))
        };
        (latency, rules.iter().find(|rule| rule.applies(line)).map(|rule| rule.fault.clone()))
    }

    fn record(&self, request: Request) {
        let mut state = self.state();
        *state.counts.entry((request.method.clone(), request.status)).or_default() += 1;
        if state.log.len() < LOG_MAX {
            state.log.push(request);
        }
    }
}
