//! One client: from its connection to its end.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use engine::growing::{GrowingBuffer, GrowingReader};
use engine::serve::Server;
use engine::tls::{Session, SessionReader, SessionWriter};
use engine::{Error, ErrorCode, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::admit::{admit, explained};
use super::child::{self, Serving};
use super::sessions::{Passing, Sessions, UnknownClient, end};
use super::state::ServerState;
use crate::log;

/// The maximum time until a client has said who it is and what it wants.
const KNOWN_MAX: Duration = Duration::from_secs(30);
/// How long a process may go on after its client is gone.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to close its side after the last answer.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The most bytes that are passed on at once.
const RELAY_BYTES: usize = 128 << 10;

/// Serves a client. Errors are logged.
pub(super) fn serve(
    state: &ServerState,
    sessions: &Sessions,
    unknown: UnknownClient,
    tcp: TcpStream,
    peer: SocketAddr,
) {
    let peer = peer.to_string();
    if let Err(error) = serve_client(state, sessions, unknown, tcp, &peer) {
        let error = error.context(format!("client at {peer}"));
        log::error(&error, String::new);
    }
}

fn serve_client(
    state: &ServerState,
    sessions: &Sessions,
    unknown: UnknownClient,
    tcp: TcpStream,
    peer: &str,
) -> Result<()> {
    let end = Instant::now() + KNOWN_MAX;
    tcp.set_nonblocking(true).map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to set options of a socket", e))?;
    state.keep_alive.set_up(&tcp)?;
    if has_left(&tcp, end) {
        engine::debug!("client at {peer} left without a word");
        return Ok(());
    }
    if end <= Instant::now() {
        return Err(Error::new(ErrorCode::FileRead, format!("nothing came within {} seconds", KNOWN_MAX.as_secs())));
    }
    let client = state.tls.accept(peer, tcp, end)?;
    let session = client.session;
    session.set_deadline(Some(end));
    let mut server = Server::greet(session.reader(Some(state.timeout)), session.writer(state.timeout.min(KNOWN_MAX)))?;
    let Some(name) = client.name else {
        let answered = server.answer_ping();
        session.close(Duration::ZERO);
        return answered;
    };
    let named = |error: Error| error.context(format!("'{name}'"));
    let arguments = match server.read_command_line() {
        Ok(arguments) => arguments,
        Err(error) => {
            close_refused(&session, server, sessions.passing());
            return Err(named(error));
        }
    };
    let passing = sessions.passing();
    let begun = sessions.begin(&name).and_then(|known| {
        let admitted = admit(&state.gate, &name, &arguments)?;
        let serving = child::start(state, sessions, &admitted, &format!("'{name}' at {peer}"))?;
        Ok((known, admitted, serving))
    });
    let (_known, admitted, serving) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let told = server.refuse(&error);
            close_refused(&session, server, passing);
            if !sessions.is_news(&error, &name, Instant::now()) {
                engine::debug!("client '{name}' at {peer} is refused again: {}", error.message);
                return Ok(());
            }
            return told.and(Err(named(explained(error))));
        }
    };
    drop(unknown);
    session.set_deadline(None);
    log::line(
        log::Level::Detail,
        &format!("process {} serves client '{name}' at {peer}: {}", serving.process.id(), admitted.purpose),
    );
    let id = serving.process.id();
    let result = server.accept().and_then(|()| {
        let (mut input, _) = server.into_streams();
        // A client is silent while its process works on a request, which may take longer. The process has the limit
        input.get_mut().set_timeout(None);
        pass_on(&session, (input, session.writer(state.timeout)), serving, passing)
    });
    log::line(log::Level::Detail, &format!("process {id} has ended"));
    result.map_err(named)
}

/// Closes the session of a client that was told why it is refused. It sends its first requests at once, and the answer may be
/// lost if the connection is closed before they are read.
fn close_refused(session: &Session, server: Server<SessionReader, SessionWriter>, passing: Passing) {
    session.set_deadline(Some(Instant::now() + CLOSE_WAIT));
    session.close_writing();
    drop(passing);
    let _ = copy_buffered(&mut server.into_streams().0, &mut io::sink());
}

/// Waits until the client sends something. Returns whether it has closed the connection instead: that is how load balancers
/// and container platforms look whether a port is open, every few seconds.
fn has_left(tcp: &TcpStream, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let pause = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(tcp, PollFlags::IN)], Some(&pause)) {
            Err(Errno::INTR) => {}
            // Silence and other errors are for who reads
            Ok(0) | Err(_) => return false,
            Ok(_) => break,
        }
    }
    match tcp.peek(&mut [0]) {
        Ok(size) => size == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Passes bytes on until the process has ended. A client that is gone is no error of the server.
fn pass_on(
    session: &Session,
    streams: (GrowingReader<SessionReader>, SessionWriter),
    serving: Serving,
    passing: Passing,
) -> Result<()> {
    let (mut input, output) = streams;
    let Serving { mut stdin, mut stdout, process } = serving;
    let watched = process.shared();
    let requests = move || {
        let _ = copy_buffered(&mut input, &mut stdin);
        // The process sees the end
        drop(stdin);
        // An answer that the client has not read would be lost if it sends to a connection that is closed
        let _ = copy_buffered(&mut input, &mut io::sink());
        end(&watched, LEFT_ALONE_MAX);
    };
    let started = std::thread::Builder::new().name("requests".to_owned()).spawn(requests);
    let thread = match started {
        Ok(thread) => thread,
        // The process ends with its streams
        Err(e) => return Err(Error::from_io(ErrorCode::Kernel, "unable to start a thread", e)),
    };
    let answered = copy(&mut stdout, output, || passing.moves());
    drop(stdout);
    match answered {
        Ok(()) => {
            session.close_writing();
            drop(passing);
            session.close(CLOSE_WAIT);
        }
        Err(_) => {
            drop(passing);
            session.abort();
        }
    }
    // A thread that panicked needs nothing more
    let _ = thread.join();
    Ok(())
}

/// Copies until the end, through the buffer that the input has.
fn copy_buffered(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let bytes = match from.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(bytes)?;
        let size = bytes.len();
        from.consume(size);
    }
}

/// Copies until the end. `moved` is called after each part.
fn copy(mut from: impl Read, mut to: impl Write, moved: impl Fn()) -> io::Result<()> {
    let mut buffer = GrowingBuffer::up_to(RELAY_BYTES);
    loop {
        match buffer.fill(&mut from) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                to.write_all(&buffer.bytes()[..read])?;
                moved();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
