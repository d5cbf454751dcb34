//! A relay for TCP connections on loopback that can be cut.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::rounds::Rounds;

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 32 << 10;

/// Blocks that are on their way at a time.
const UNDERWAY_MAX: usize = 256;
/// How long it takes until a lost packet is sent again.
const RESENT_AFTER: Duration = Duration::from_millis(200);

/// What is between the two sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// How long each way takes.
    pub delay: Duration,
    /// One of so many blocks is lost and sent again; 0 for none.
    pub one_lost_of: u64,
    /// Holds answers back until nothing has come from either side for this time, and counts how often; 0 for not at all.
    pub answers_wait: Duration,
}

/// A running relay. It ends with its connections when the value is dropped.
pub struct Passage {
    shared: Arc<Shared>,
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

/// Writes blocks, none before its time.
fn deliver(blocks: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream) {
    for (due, block) in blocks {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&block).is_err() {
            return;
        }
    }
}

/// What the threads of a relay share.
struct Shared {
    target: u16,
    link: Link,
    blocks: AtomicU64,
    /// The answers, if they are held back.
    rounds: Option<Rounds>,
    /// Bytes from the client and from the server.
    passed: [AtomicU64; 2],
    stopping: AtomicBool,
    closed: AtomicBool,
    cuts: AtomicU64,
    /// The number of bytes, over all connections and both directions, before each of the next cuts.
    plan: Mutex<VecDeque<u64>>,
    /// Both sockets of every connection.
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Passage {
    /// A passage to a port of this machine.
    pub fn start(target: u16) -> Self {
        Self::start_with("127.0.0.1", target, Link::default())
    }

    /// A passage from an address of this host, or of the namespace that the thread is in, with a link like this.
    pub fn start_with(address: &str, target: u16, link: Link) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("port of the passage");
        let shared = Arc::new(Shared {
            target,
            link,
            blocks: AtomicU64::new(0),
            rounds: (!link.answers_wait.is_zero()).then(|| Rounds::new(link.answers_wait)),
            passed: Default::default(),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            plan: Mutex::default(),
            open: Mutex::default(),
        });
        let accepting = {
            let (shared, listener) = (Arc::clone(&shared), listener.try_clone().expect("clone"));
            std::thread::spawn(move || shared.accept(&listener))
        };
        let delivering = Arc::clone(&shared);
        std::thread::spawn(move || delivering.rounds.iter().for_each(Rounds::run));
        Self { shared, listener, accepting: Some(accepting) }
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("address of the passage").port()
    }

    /// Cuts a connection when it carries the byte after the first number of bytes, then after as many as the second
    /// number says, and so on.
    pub fn cut_after(&self, bytes: &[u64]) {
        *lock(&self.shared.plan) = bytes.iter().copied().collect();
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        let numbers: Vec<u64> = lock(&self.shared.open).keys().copied().collect();
        self.shared.cuts.fetch_add(numbers.len() as u64, Ordering::SeqCst);
        numbers.into_iter().for_each(|number| self.shared.end(number));
    }

    /// Sets whether new connections end at once.
    pub fn set_closed(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::SeqCst);
    }

    /// Returns how many bytes have come from clients and from the server since the last call.
    pub fn take_passed(&self) -> [u64; 2] {
        [0, 1].map(|way: usize| self.shared.passed[way].swap(0, Ordering::SeqCst))
    }

    /// Returns how often answers that were held back went on since the last call: the number of round trips.
    pub fn take_rounds(&self) -> usize {
        self.shared.rounds.as_ref().map_or(0, Rounds::take)
    }

    /// Returns how many connections have been cut.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.shared.rounds.iter().for_each(Rounds::end);
        self.cut();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for number in 0.. {
            let Ok((client, _)) = listener.accept() else { return };
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            // A connection that fails ends, which is what its client sees of an absent server
            if !self.closed.load(Ordering::SeqCst) {
                let _ = self.connect(number, client);
            }
        }
    }

    fn connect(self: &Arc<Self>, number: u64, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", self.target))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ways = [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)];
        lock(&self.open).insert(number, [client, server]);
        for (way, (from, to)) in ways.into_iter().enumerate() {
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                let _ = shared.carry((number, way), from, &to);
                shared.end(number);
            });
        }
        Ok(())
    }

    /// Carries one way of a connection: 0 that to the server, 1 that to the client.
    fn carry(&self, (number, way): (u64, usize), from: TcpStream, mut to: &TcpStream) -> io::Result<()> {
        if let Some(rounds) = &self.rounds {
            let carried = self.read(way, from, |block| {
                if way == 1 {
                    rounds.hold(number, to.try_clone()?, block);
                    return Ok(());
                }
                rounds.note();
                to.write_all(&block)
            });
            rounds.drain(number);
            return carried;
        }
        if self.link.delay.is_zero() {
            return self.read(way, from, |block| to.write_all(&block));
        }
        let (sender, receiver) = sync_channel(UNDERWAY_MAX);
        std::thread::scope(|scope| {
            scope.spawn(move || deliver(&receiver, to));
            self.read(way, from, move |block| {
                let is_lost = self.link.one_lost_of > 0
                    && self.blocks.fetch_add(1, Ordering::Relaxed) % self.link.one_lost_of == self.link.one_lost_of - 1;
                let delay = if is_lost { self.link.delay + RESENT_AFTER } else { self.link.delay };
                sender.send((Instant::now() + delay, block)).map_err(io::Error::other)
            })
        })
    }

    /// Reads blocks until the end or a cut.
    fn read(&self, way: usize, mut from: TcpStream, mut pass: impl FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let size = from.read(&mut buffer)?;
            if size == 0 {
                return Ok(());
            }
            self.passed[way].fetch_add(size as u64, Ordering::SeqCst);
            if self.is_cut_within(size as u64) {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            pass(buffer[..size].to_vec())?;
        }
    }

    /// Counts bytes and returns whether a cut is due within them.
    fn is_cut_within(&self, size: u64) -> bool {
        let mut plan = lock(&self.plan);
        let Some(left) = plan.front_mut() else { return false };
        if let Some(rest) = left.checked_sub(size) {
            *left = rest;
            return false;
        }
        plan.pop_front();
        true
    }

    /// Ends a connection on both sides.
    fn end(&self, number: u64) {
        let sockets = lock(&self.open).remove(&number);
        for socket in sockets.iter().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
