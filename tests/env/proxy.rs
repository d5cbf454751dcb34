//! A reverse proxy on loopback that makes a server slow or faulty and counts requests.
//!
//! Every connection of a client has its own thread and its own connection to the server. Both live as long as the
//! client keeps them, so latency delays each request by itself and never serializes two connections.

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
use std::time::{Duration, Instant};

use regex_lite::Regex;
use rustls::SupportedCipherSuite;

/// More connections than this are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// How long the record of a request may come after its answer.
const RECORDED_MAX: Duration = Duration::from_secs(2);
/// More requests than this are counted, but not kept.
const LOG_MAX: usize = 200_000;

/// What happens to a request instead of, or in addition to, forwarding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The proxy answers with this, without the server.
    Answer { status: u16, body: String },
    /// The proxy resets the connection, without the server.
    Reset,
    /// The proxy closes the connection in good order, without the server.
    Close,
    /// The proxy forwards the head of the answer and half of its body. Then the connection ends.
    CutBody,
    /// The request waits this long before it is passed on.
    Stall(Duration),
    /// The server does its work, and the connection ends instead of the answer.
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

    /// Returns an answer with a status and an S3 error body with this code and message.
    pub fn error_with(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        Self::Answer { status, body }
    }
}

/// The requests to which a fault applies.
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

    /// Applies only to requests whose `METHOD /path?query` matches this pattern.
    pub fn on(mut self, pattern: &str) -> Self {
        self.matching = Some(Regex::new(pattern).expect("valid pattern"));
        self
    }

    /// Applies only to every nth of them.
    pub fn every(mut self, n: u64) -> Self {
        self.every = n.max(1);
        self
    }

    /// Applies at most this often.
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

/// The server of a proxy, and the proxy's settings.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// The server: `http://127.0.0.1:PORT`, or `https://` with [`ProxyOptions::ca_file`].
    pub target: String,
    /// The authority of the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key (PEM files) for TLS with clients. Without them clients use plain HTTP.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The only cipher suite for clients; `None` allows any.
    pub suite: Option<SupportedCipherSuite>,
    /// The port to listen on; 0 selects a free port.
    pub port: u16,
    /// The delay of every request before it is forwarded.
    pub latency: Duration,
    /// Adds the header `X-GUploader-UploadID` to answers, with the `upload_id` of their `Location`, as Google's servers
    /// do and their emulators don't.
    pub upload_id_header: bool,
}

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The connection of the request, counted from 1.
    pub connection: u64,
    pub method: String,
    /// Path and query as sent.
    pub path: String,
    /// The status that the client received; 0 if it received none.
    pub status: u16,
    /// Bytes of the bodies that were passed on.
    pub sent: u64,
    pub received: u64,
}

/// A running proxy. It ends with its connections when the value is dropped.
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
    /// Sockets of both sides, in order to end connections that wait for data.
    open: Mutex<HashMap<u64, Vec<TcpStream>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Arc<Vec<Rule>>,
    latency: Duration,
    log: Vec<Request>,
    counts: BTreeMap<(String, u16), u64>,
    /// Requests that are not recorded yet. A client has its answer before that.
    under_way: u64,
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

    /// Replaces the faults and resets their counts.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.shared.state().rules = Arc::new(rules);
    }

    /// Returns how often each rule has applied, in order.
    pub fn hits(&self) -> Vec<u64> {
        let rules = Arc::clone(&self.shared.state().rules);
        rules.iter().map(|rule| rule.hits.load(Ordering::Relaxed).min(rule.times_max)).collect()
    }

    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// Waits until all connections have ended, so that every request is recorded. The clients must have ended.
    pub fn settle(&self) {
        while !lock(&self.shared.open).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the requests since the start or the last [`Proxy::clear`], in the order in which they ended.
    pub fn requests(&self) -> Vec<Request> {
        self.recorded().log.clone()
    }

    /// The state after the requests whose answers the clients have were recorded. Others are not waited for.
    fn recorded(&self) -> MutexGuard<'_, State> {
        let end = Instant::now() + RECORDED_MAX;
        loop {
            let state = self.shared.state();
            if state.under_way == 0 || end <= Instant::now() {
                return state;
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns how many requests of each method ended with each status (0: no answer).
    pub fn counts(&self) -> BTreeMap<(String, u16), u64> {
        self.recorded().counts.clone()
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        let mut state = self.recorded();
        state.log.clear();
        state.counts.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread
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
                    // A client that disconnects, or a fault, ends only this connection
                    let _ = connection::serve(&shared, number, socket);
                    lock(&shared.open).remove(&number);
                });
            }
        }
    }

    /// Prepares a socket of a connection and records it, so that the proxy can close it at the end.
    fn keep(&self, number: u64, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let copy = socket.try_clone()?;
        lock(&self.open).entry(number).or_default().push(copy);
        Ok(())
    }

    /// Returns the latency and the fault of a request.
    fn decide(&self, line: &str) -> (Duration, Option<Fault>) {
        let (latency, rules) = {
            let state = self.state();
            (state.latency, Arc::clone(&state.rules))
        };
        (latency, rules.iter().find(|rule| rule.applies(line)).map(|rule| rule.fault.clone()))
    }

    fn begin(&self) {
        self.state().under_way += 1;
    }

    fn record(&self, request: Request) {
        let mut state = self.state();
        state.under_way -= 1;
        *state.counts.entry((request.method.clone(), request.status)).or_default() += 1;
        if state.log.len() < LOG_MAX {
            state.log.push(request);
        }
    }
}
