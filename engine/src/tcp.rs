//! TCP connections to other hosts.
//!
//! Addresses of a host are tried as pgBackRest tries them (`src/common/io/socket/client.c`): IPv6 and IPv4 alternate, and
//! the next address is tried when the one before has had a quarter of a second (RFC 8305).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use crate::work::retry::Failures;
use crate::{Error, ErrorCode, Result};

/// How long an address may take before the next one is tried, too.
const HEAD_START: Duration = Duration::from_millis(250);
/// The first pause after all addresses have failed. Each later one is longer.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Connections that the system accepts before the server does.
const BACKLOG: i32 = 100;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Probes that detect that a peer is gone (`sck-keep-alive`, `tcp-keep-alive-*`). `None` leaves the system's setting.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAlive {
    /// Whether to send probes.
    pub enabled: bool,
    /// The number of unanswered probes that end the connection.
    pub count: Option<u32>,
    /// The time without data before the first probe.
    pub idle: Option<Duration>,
    /// The time between probes.
    pub interval: Option<Duration>,
}

impl KeepAlive {
    /// Sets up a socket: no delay of small messages, and these probes.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] if the system refuses an option.
    pub fn set_up(&self, socket: impl AsFd) -> Result<()> {
        let socket = socket.as_fd();
        let set = || -> rustix::io::Result<()> {
            sockopt::set_tcp_nodelay(socket, true)?;
            if !self.enabled {
                return Ok(());
            }
            sockopt::set_socket_keepalive(socket, true)?;
            if let Some(count) = self.count {
                sockopt::set_tcp_keepcnt(socket, count)?;
            }
            if let Some(idle) = self.idle {
                sockopt::set_tcp_keepidle(socket, idle)?;
            }
            self.interval.map_or(Ok(()), |interval| sockopt::set_tcp_keepintvl(socket, interval))
        };
        set().map_err(|e| Error::from_io(ErrorCode::Protocol, "unable to set options of a socket", e.into()))
    }
}

/// Returns the name of an address in messages: `HOST:PORT`, and the address if it is another text.
pub fn address_name(host: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip().to_string(), address.port());
    if ip == host { format!("{host}:{port}") } else { format!("{host}:{port} ({ip})") }
}

/// Returns the addresses of a host, IPv6 first and then alternating.
///
/// # Errors
/// [`ErrorCode::HostConnect`] if the name has no address.
pub fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let failed = |why: &dyn std::fmt::Display| {
        Error::new(ErrorCode::HostConnect, format!("unable to get address for '{host}': {why}"))
    };
    let found = (host, port).to_socket_addrs().map_err(|error| failed(&error))?;
    let (v6, v4): (Vec<SocketAddr>, Vec<SocketAddr>) = found.partition(SocketAddr::is_ipv6);
    let longest = v6.len().max(v4.len());
    let all: Vec<SocketAddr> =
        (0..longest).flat_map(|at| [v6.get(at).copied(), v4.get(at).copied()]).flatten().collect();
    if all.is_empty() { Err(failed(&"it has none")) } else { Ok(all) }
}

/// Connects to a host before `end`, with as many tries as fit. Returns the connection, which does not block, and the name
/// of its address.
///
/// # Errors
/// [`ErrorCode::HostConnect`] with the errors of all tries.
pub fn connect(host: &str, port: u16, end: Instant, keep_alive: &KeepAlive) -> Result<(TcpStream, String)> {
    let addresses = addresses(host, port)?;
    let mut attempts: Vec<Attempt> = addresses
        .into_iter()
        .map(|address| Attempt { name: address_name(host, address), address, socket: None })
        .collect();
    let mut failures = Failures::begin();
    let mut pause = PAUSE_FIRST;
    loop {
        for next in 0..attempts.len() {
            if let Err(error) = attempts[next].begin(keep_alive) {
                failures.add(error);
            }
            let until = (Instant::now() + HEAD_START).min(end);
            if let Some(connected) = first_of(&mut attempts, until, &mut failures)? {
                return Ok(connected);
            }
        }
        let now = Instant::now();
        if now >= end {
            return Err(failures.into_error(|| {
                Error::new(ErrorCode::HostConnect, format!("unable to connect to '{host}:{port}': it does not answer"))
            }));
        }
        let until = (now + pause).min(end);
        if let Some(connected) = first_of(&mut attempts, until, &mut failures)? {
            return Ok(connected);
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        pause = (pause * 3 / 2).min(PAUSE_MAX);
    }
}

/// The connection to one address.
struct Attempt {
    name: String,
    address: SocketAddr,
    /// A socket that is about to be connected.
    socket: Option<OwnedFd>,
}

impl Attempt {
    fn failed(&self, error: Errno) -> Error {
        Error::from_io(ErrorCode::HostConnect, format!("unable to connect to '{}'", self.name), error.into())
    }

    /// Begins to connect, unless that is under way.
    fn begin(&mut self, keep_alive: &KeepAlive) -> Result<()> {
        if self.socket.is_some() {
            return Ok(());
        }
        let family = if self.address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).map_err(|error| self.failed(error))?;
        keep_alive.set_up(&socket)?;
        match rustix::net::connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(self.failed(error)),
        }
        self.socket = Some(socket);
        Ok(())
    }
}

/// Waits until one of the connections is there, or until all that were under way have failed.
fn first_of(attempts: &mut [Attempt], until: Instant, failures: &mut Failures) -> Result<Option<(TcpStream, String)>> {
    loop {
        let mut polled: Vec<PollFd<'_>> = attempts
            .iter()
            .filter_map(|attempt| attempt.socket.as_ref())
            .map(|socket| PollFd::new(socket, PollFlags::OUT))
            .collect();
        if polled.is_empty() {
            return Ok(None);
        }
        let left = until.saturating_duration_since(Instant::now());
        wait_for(&mut polled, left)
            .map_err(|e| Error::from_io(ErrorCode::HostConnect, "unable to wait for a connection", e))?;
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        for attempt in attempts.iter_mut() {
            let Some(socket) = attempt.socket.take() else { continue };
            if ready.next() != Some(true) {
                attempt.socket = Some(socket);
                continue;
            }
            match sockopt::socket_error(&socket).and_then(|state| state) {
                Ok(()) => return Ok(Some((TcpStream::from(socket), attempt.name.clone()))),
                Err(error) => {
                    failures.add(attempt.failed(error));
                }
            }
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Listens on all addresses of a name. An asterisk means every address. The listeners do not block.
///
/// # Errors
/// [`ErrorCode::HostConnect`] if the name has no address, [`ErrorCode::FileOpen`] if an address is in use or this host has
/// none of them.
pub fn listen(name: &str, port: u16) -> Result<Vec<TcpListener>> {
    let every = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    let is_every = name == "*";
    let addresses = if is_every { every.to_vec() } else { addresses(name, port)? };
    let mut listeners = Vec::new();
    let mut missing = None;
    for address in addresses {
        match listen_on(address) {
            Ok(listener) => listeners.push(listener),
            // A name may have addresses of a protocol that this host does not use
            Err(error @ (Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)) => missing = missing.or(Some((address, error))),
            Err(error) => return Err(bind_error(name, address, error)),
        }
    }
    match missing {
        Some((address, error)) if listeners.is_empty() => Err(bind_error(name, address, error)),
        _ => Ok(listeners),
    }
}

fn bind_error(name: &str, address: SocketAddr, error: Errno) -> Error {
    let text = format!("unable to bind socket to '{}'", address_name(name, address));
    Error::from_io(ErrorCode::FileOpen, text, error.into())
}

fn listen_on(address: SocketAddr) -> rustix::io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Waits until one of these is ready, at most for `left`.
///
/// # Errors
/// The system's error.
pub fn wait_for(polled: &mut [PollFd<'_>], left: Duration) -> io::Result<()> {
    let left = Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    match poll(polled, Some(&left)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(300)
    }

    #[test]
    fn address_that_refuses_is_tried_until_the_end_and_the_error_has_all_tries() {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let begin = Instant::now();
        let error = connect("127.0.0.1", port, soon(), &KeepAlive::default()).unwrap_err();
        assert!(begin.elapsed() >= Duration::from_millis(300));
        assert_eq!(error.code, ErrorCode::HostConnect);
        assert!(error.message.starts_with(&format!("unable to connect to '127.0.0.1:{port}': [111]")), "{error}");
        assert!(error.message.contains("[HostConnectError] on "), "{error}");
    }

    #[test]
    fn name_without_an_address_is_an_error_at_once() {
        let begin = Instant::now();
        let error =
            connect("no.such.host.invalid", 1, begin + Duration::from_secs(60), &KeepAlive::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::HostConnect);
        assert!(error.message.starts_with("unable to get address for 'no.such.host.invalid': "), "{error}");
    }

    #[test]
    fn host_is_reached_by_the_address_that_answers() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        // IPv6 is tried first
        let keep_alive =
            KeepAlive { enabled: true, count: Some(3), idle: Some(Duration::from_secs(7)), interval: None };
        let (stream, name) = connect("localhost", port, soon(), &keep_alive).unwrap();
        assert_eq!(name, format!("localhost:{port} (127.0.0.1)"));
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 3);
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(7));
        assert!(sockopt::tcp_nodelay(&stream).unwrap());
    }

    #[test]
    fn name_of_an_address_shows_the_number_only_if_it_differs() {
        assert_eq!(address_name("::1", "[::1]:8432".parse().unwrap()), "::1:8432");
        assert_eq!(address_name("h", "10.0.0.1:8432".parse().unwrap()), "h:8432 (10.0.0.1)");
    }
}
