//! A relay for TCP connections on loopback that can be cut, and that can delay what it carries.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 32 << 10;
/// Pieces that are on their way in one direction.
const PIECES_MAX: usize = 1024;

/// A running relay. It ends with its connections when the value is dropped.
pub struct Passage {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

/// What the threads of a relay share.
struct Shared {
    target: u16,
    stopping: AtomicBool,
    closed: AtomicBool,
    cuts: AtomicU64,
    /// The number of bytes, over all connections and both directions, before each of the next cuts.
    plan: Mutex<VecDeque<u64>>,
    /// How long each piece is on its way, in either direction.
    delay: Duration,
    /// The number of connections so far.
    connections: AtomicU64,
    /// Both sockets of every connection.
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Passage {
    /// A passage to a port of this machine.
    pub fn start(target: u16) -> Self {
        Self::start_slow(target, Duration::ZERO)
    }

    /// A passage in which every piece is on its way for this time, in either direction. Connecting takes no longer.
    pub fn start_slow(target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port of the passage");
        let address = listener.local_addr().expect("address of the passage");
        let shared = Arc::new(Shared {
            target,
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            plan: Mutex::default(),
            delay,
            connections: AtomicU64::new(0),
            open: Mutex::default(),
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

    /// Returns how many connections there have been.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
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
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
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
        self.connections.fetch_add(1, Ordering::SeqCst);
        for (from, to) in ways {
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                let _ = shared.carry(from, &to);
                shared.end(number);
            });
        }
        Ok(())
    }

    fn carry(&self, from: TcpStream, to: &TcpStream) -> io::Result<()> {
        if self.delay.is_zero() {
            let mut to = to;
            return self.each_piece(from, |piece| to.write_all(piece));
        }
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(PIECES_MAX);
            scope.spawn(move || deliver(&receiver, to));
            // The other thread ends after the last piece, when the sender is gone
            self.each_piece(from, move |piece| {
                let sent = sender.send((Instant::now() + self.delay, piece.to_vec()));
                sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
            })
        })
    }

    fn each_piece(&self, mut from: TcpStream, mut pass: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let size = from.read(&mut buffer)?;
            if size == 0 {
                return Ok(());
            }
            if self.is_cut_within(size as u64) {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            pass(&buffer[..size])?;
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

/// Passes pieces on when they are due.
fn deliver(pieces: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream) {
    for (due, piece) in pieces {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            return;
        }
    }
}
