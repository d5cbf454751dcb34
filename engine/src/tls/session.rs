//! An encrypted connection that one thread reads while another writes.
//!
//! Only encryption is under a lock. Nobody waits for the network while holding it.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustls::Connection;
use rustls_pki_types::CertificateDer;

use super::certificate::Decoded;
use super::validity::Validity;
use crate::growing::GrowingBuffer;
use crate::system_text;
use crate::tcp::wait_for;
use crate::{Error, ErrorCode};

/// The most encrypted bytes that are read at once.
const READ_BYTES: usize = 128 << 10;
/// Bytes that are encrypted before they are sent.
const WRITE_BYTES: usize = 128 << 10;
/// How long the last bytes of a session may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// A wait without a time limit ends after this time and begins again.
const LONG: Duration = Duration::from_secs(3600);

/// What reader and writer share.
struct Shared {
    /// The peer in messages.
    name: String,
    tcp: TcpStream,
    tls: Mutex<Connection>,
    /// When reading ends, whatever arrives.
    deadline: Mutex<Option<Instant>>,
    /// Whether the reader has seen the end.
    ended: (Mutex<bool>, Condvar),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session. It can be cloned.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// Negotiates a session on a connection that does not block, before `end`. `name` is the peer in messages.
    ///
    /// # Errors
    /// [`HandshakeError`]
    pub fn negotiate(
        name: &str,
        tcp: TcpStream,
        mut tls: Connection,
        end: Instant,
    ) -> std::result::Result<Self, HandshakeError> {
        let begun = Instant::now();
        tls.set_buffer_limit(Some(WRITE_BYTES));
        while tls.is_handshaking() || tls.wants_write() {
            let (interest, what, progress) = if tls.wants_write() {
                (PollFlags::OUT, "write to", tls.write_tls(&mut &tcp))
            } else {
                (PollFlags::IN, "read from", tls.read_tls(&mut &tcp))
            };
            match progress {
                Ok(0) if interest == PollFlags::IN => return Err(HandshakeError::Io(ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let text = timeout_text(begun.elapsed(), what, name);
                        return Err(HandshakeError::Timeout(Error::new(ErrorCode::FileRead, text)));
                    }
                    wait_for(&mut [PollFd::new(&tcp, interest)], left).map_err(HandshakeError::Io)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(HandshakeError::Io(error)),
            }
            if let Err(error) = tls.process_new_packets() {
                // The peer should know, too
                let _ = tls.write_tls(&mut &tcp);
                return Err(HandshakeError::Tls(error));
            }
        }
        let ended = (Mutex::new(false), Condvar::new());
        let (name, tls, deadline) = (name.to_owned(), Mutex::new(tls), Mutex::new(None));
        Ok(Session { shared: Arc::new(Shared { name, tcp, tls, deadline, ended }) })
    }

    /// The peer in messages.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Returns the peer's certificate, if it has one.
    pub(crate) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        let tls = lock(&self.shared.tls);
        tls.peer_certificates().and_then(<[_]>::first).map(|certificate| certificate.clone().into_owned())
    }

    /// Returns when the peer's certificate is valid.
    pub fn peer_validity(&self) -> Option<Validity> {
        Some(Validity::of_seconds(Decoded::of(&self.peer_certificate()?).ok()?.validity()))
    }

    /// Returns the half that reads. A read fails if nothing arrives for `timeout`; without one it waits.
    pub fn reader(&self, timeout: Option<Duration>) -> SessionReader {
        let buffer = GrowingBuffer::up_to(READ_BYTES);
        SessionReader { shared: Arc::clone(&self.shared), timeout, buffer, begin: 0, end: 0, is_last: false }
    }

    /// Makes reads fail from this time on, even if something arrives; `None` undoes that.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        *lock(&self.shared.deadline) = deadline;
    }

    /// Returns the half that writes. A write fails if nothing can be sent for `timeout`.
    pub fn writer(&self, timeout: Duration) -> SessionWriter {
        SessionWriter { shared: Arc::clone(&self.shared), timeout }
    }

    /// Says that nothing more will be sent, and waits until the reader has seen the peer's end or `timeout` has passed.
    pub fn close(&self, timeout: Duration) {
        self.close_writing();
        let (ended, changed) = &self.shared.ended;
        drop(changed.wait_timeout_while(lock(ended), timeout, |ended| !*ended));
        self.abort();
    }

    /// Says that nothing more will be sent.
    pub fn close_writing(&self) {
        let mut tls = lock(&self.shared.tls);
        tls.send_close_notify();
        // The peer may be gone already
        let _ = self.shared.flush(tls, CLOSE_WAIT);
        let _ = self.shared.tcp.shutdown(Shutdown::Write);
    }

    /// Ends the connection. Reader and writer fail.
    pub fn abort(&self) {
        // It may have ended already
        let _ = self.shared.tcp.shutdown(Shutdown::Both);
    }
}

/// Why there is no session.
#[derive(Debug)]
pub enum HandshakeError {
    /// The peer was silent for too long.
    Timeout(Error),
    /// The connection failed.
    Io(io::Error),
    /// The peer does not speak TLS, or one of the two refuses the other.
    Tls(rustls::Error),
}

impl HandshakeError {
    /// Converts it to an error that names the peer.
    pub fn into_error(self, name: &str) -> Error {
        match self {
            HandshakeError::Timeout(error) => error,
            HandshakeError::Io(error) => service_error(name, &error),
            HandshakeError::Tls(error) => service_error(name, &error),
        }
    }
}

fn service_error(name: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorCode::Service, format!("TLS error of '{name}': {}", system_text(why)))
}

fn timeout_text(time: Duration, what: &str, name: &str) -> String {
    format!("timeout after {}ms waiting for {what} '{name}'", time.as_millis())
}

impl Shared {
    /// The error for a connection that was cut. Its kind is that of a stream that ends early.
    fn unexpected_end(&self) -> io::Error {
        let error = Error::new(ErrorCode::Format, format!("unexpected EOF from '{}'", self.name));
        io::Error::new(ErrorKind::UnexpectedEof, error)
    }

    /// Sends what is encrypted.
    fn flush<'a>(&'a self, mut tls: MutexGuard<'a, Connection>, timeout: Duration) -> io::Result<()> {
        let mut begun = Instant::now();
        while tls.wants_write() {
            match tls.write_tls(&mut &self.tcp) {
                Ok(_) => begun = Instant::now(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = timeout.saturating_sub(begun.elapsed());
                    if left.is_zero() {
                        let text = timeout_text(timeout, "write to", &self.name);
                        return Err(io::Error::new(ErrorKind::TimedOut, text));
                    }
                    drop(tls);
                    wait_for(&mut [PollFd::new(&self.tcp, PollFlags::OUT)], left)?;
                    tls = lock(&self.tls);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The half of a session that reads.
pub struct SessionReader {
    shared: Arc<Shared>,
    timeout: Option<Duration>,
    /// Encrypted bytes.
    buffer: GrowingBuffer,
    begin: usize,
    end: usize,
    /// Nothing more arrives.
    is_last: bool,
}

impl SessionReader {
    /// Sets for how long a read waits for something to arrive; `None` for ever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Returns decrypted bytes; `None` if more encrypted ones are needed.
    fn decrypt(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut tls = lock(&self.shared.tls);
        loop {
            match tls.reader().read(into) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A peer whose process was killed says no word of TLS at its end
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.shared.unexpected_end()),
                Err(error) => return Err(service_error(&self.shared.name, &error).into()),
            }
            if self.begin == self.end && !self.is_last {
                return Ok(None);
            }
            let mut input = &self.buffer.bytes()[self.begin..self.end];
            let read = tls.read_tls(&mut input).map_err(|error| service_error(&self.shared.name, &error))?;
            self.begin += read;
            if let Err(error) = tls.process_new_packets() {
                // The peer should know, too
                let _ = tls.write_tls(&mut &self.shared.tcp);
                return Err(service_error(&self.shared.name, &error).into());
            }
            // What TLS itself has to say. If there is no room, the next write sends it
            while tls.wants_write() && tls.write_tls(&mut &self.shared.tcp).is_ok_and(|sent| sent > 0) {}
        }
    }

    /// Waits for encrypted bytes.
    fn fill(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let is_over = lock(&self.shared.deadline).is_some_and(|deadline| deadline <= Instant::now());
            match self.buffer.fill(&mut &self.shared.tcp) {
                Ok(_) if is_over => {}
                Ok(read) => {
                    (self.begin, self.end, self.is_last) = (0, read, read == 0);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A peer whose process was killed before it had read everything
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(self.shared.unexpected_end()),
                Err(error) => return Err(service_error(&self.shared.name, &error).into()),
            }
            let limit = self.timeout.unwrap_or(Duration::MAX);
            let mut left = limit.saturating_sub(begun.elapsed()).min(LONG);
            if let Some(deadline) = *lock(&self.shared.deadline) {
                left = left.min(deadline.saturating_duration_since(Instant::now()));
            }
            if left.is_zero() {
                let text = timeout_text(limit, "read from", &self.shared.name);
                return Err(Error::new(ErrorCode::FileRead, text).into());
            }
            wait_for(&mut [PollFd::new(&self.shared.tcp, PollFlags::IN)], left)?;
        }
    }
}

impl Read for SessionReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let result = loop {
            match self.decrypt(into) {
                Ok(None) => {}
                Ok(Some(read)) => break Ok(read),
                Err(error) => break Err(error),
            }
            if let Err(error) = self.fill() {
                break Err(error);
            }
        };
        if !into.is_empty() && !matches!(result, Ok(1..)) {
            *lock(&self.shared.ended.0) = true;
            self.shared.ended.1.notify_all();
        }
        result
    }
}

/// The half of a session that writes. Everything is sent at once.
pub struct SessionWriter {
    shared: Arc<Shared>,
    timeout: Duration,
}

impl Write for SessionWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // Something may be left of what TLS itself had to say
        self.shared.flush(lock(&self.shared.tls), self.timeout)?;
        let mut tls = lock(&self.shared.tls);
        let written = tls.writer().write_vectored(parts)?;
        self.shared.flush(tls, self.timeout)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
