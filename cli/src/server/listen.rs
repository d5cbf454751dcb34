//! The server's main loop: connections and signals.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::system_text;
use engine::tcp::{self, wait_for};
use engine::{Error, ErrorCode, Result};
use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::limits::SessionLimits;
use super::sessions::Sessions;
use super::state::ServerState;
use super::{notify, session};
use crate::config::{CommandLine, Config, Environment, SystemFiles};
use crate::exit::ExitStatus;
use crate::log::{self, Level};

/// How long the processes of sessions may take to end when the server ends.
const END_MAX: Duration = Duration::from_secs(5);
/// The pause after the system could not accept a connection, as without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The time between two warnings about too many connections.
const WARN_PAUSE: Duration = Duration::from_secs(10);
/// A wait for connections and signals ends after this time and begins again.
const LONG: Duration = Duration::from_secs(3600);

/// Serves until a signal ends the server.
///
/// # Errors
/// The server can't listen, or a file can't be used.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let signals = Signals::catch()?;
    let state = ServerState::load(config)?;
    let listeners = tcp::listen(&state.address, state.port)?;
    log::line(Level::Info, &format!("listen on {}:{}", state.address, state.port));
    log::line(Level::Info, &format!("certificate is {}", state.certificate_text()));
    warn_of_certificate(&state);
    notify::ready();
    let sessions = Sessions::new(SessionLimits::prepare());
    let mut server = Listening { state: Arc::new(state), listeners, sessions, warned: None };
    loop {
        let mut polled: Vec<PollFd<'_>> =
            server.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        polled.push(PollFd::new(&signals.woken, PollFlags::IN));
        wait_for(&mut polled, LONG).map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to wait", e))?;
        drop(polled);
        signals.drain();
        if let Some(status) = signals.end() {
            notify::stopping();
            drop(server.listeners);
            server.sessions.stop(END_MAX);
            return Ok(status);
        }
        if signals.reload.swap(false, Ordering::SeqCst)
            && let Err(error) = server.reload()
        {
            server.sessions.stop(END_MAX);
            return Err(error);
        }
        server.accept();
    }
}

/// Says that clients refuse the server's certificate, or will soon.
fn warn_of_certificate(state: &ServerState) {
    if let Some(text) = state.certificate_warning() {
        engine::warn!("{text}");
    }
}

/// A server that listens.
struct Listening {
    state: Arc<ServerState>,
    listeners: Vec<TcpListener>,
    sessions: Sessions,
    /// When the last warning about too many connections was.
    warned: Option<Instant>,
}

impl Listening {
    /// Begins sessions for all connections that wait.
    fn accept(&mut self) {
        for listener in &self.listeners {
            let (tcp, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    engine::warn!("unable to accept a connection: {}", system_text(&error));
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            let begun = self.sessions.enter(peer.ip()).is_some_and(|unknown| {
                let (state, sessions) = (Arc::clone(&self.state), self.sessions.clone());
                let body = move || session::serve(&state, &sessions, unknown, tcp, peer);
                std::thread::Builder::new().name("client".to_owned()).spawn(body).is_ok()
            });
            if !begun && self.warned.is_none_or(|warned| warned.elapsed() >= WARN_PAUSE) {
                self.warned = Some(Instant::now());
                engine::warn!("connection of {peer} is closed: too many clients have not said who they are");
            }
        }
    }

    /// Reads the configuration again. If that fails, the server goes on with what it has.
    ///
    /// # Errors
    /// The server listens nowhere now. What supervises it should know.
    fn reload(&mut self) -> Result<()> {
        notify::reloading();
        log::line(Level::Detail, "configuration reload begin");
        match self.load_again() {
            Ok(changes) if changes.is_empty() => log::line(Level::Info, "configuration reload: nothing has changed"),
            Ok(changes) => {
                for change in changes {
                    log::line(Level::Info, &format!("configuration reload: {change}"));
                }
            }
            Err(error) if self.listeners.is_empty() => {
                return Err(error.context("configuration reload: unable to listen on the previous address again"));
            }
            Err(error) => engine::warn!(
                "configuration reload refused, the previous configuration stays: [{:03}] {error}",
                error.code.number()
            ),
        }
        log::line(Level::Detail, "configuration reload end");
        notify::ready();
        Ok(())
    }

    fn load_again(&mut self) -> Result<Vec<String>> {
        let line = CommandLine::parse(std::env::args_os())?;
        let mut warn = |text| engine::warn!("{text}");
        let mut config = Config::resolve(line, Environment::from_process(), &SystemFiles, &mut warn)?;
        config.adjust()?;
        let next = ServerState::load(&config)?;
        if self.state.has_other_address(&next) {
            self.listen_elsewhere(&next)?;
        }
        let changes = self.state.changes(&next);
        self.state = Arc::new(next);
        crate::lifecycle::configure_log(&config);
        warn_of_certificate(&self.state);
        Ok(changes)
    }

    /// Listens on another address. If that fails, the server listens on the previous one. If that fails too, there are no
    /// listeners.
    fn listen_elsewhere(&mut self, next: &ServerState) -> Result<()> {
        self.listeners = match tcp::listen(&next.address, next.port) {
            Err(_) if next.port == self.state.port => {
                // The addresses may overlap
                self.listeners.clear();
                let listeners = tcp::listen(&next.address, next.port);
                if listeners.is_err() {
                    self.listeners = tcp::listen(&self.state.address, self.state.port)?;
                }
                listeners
            }
            listeners => listeners,
        }?;
        Ok(())
    }
}

/// Signals that the server has received.
struct Signals {
    woken: UnixStream,
    reload: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> Result<Self> {
        let failed = |error| Error::from_io(ErrorCode::Kernel, "unable to catch signals", error);
        let (woken, wakes) = UnixStream::pair().map_err(failed)?;
        woken.set_nonblocking(true).map_err(failed)?;
        let flag = |signal| -> Result<Arc<AtomicBool>> {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag is set before the wait ends
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(failed)?;
            signal_hook::low_level::pipe::register(signal, wakes.try_clone().map_err(failed)?).map_err(failed)?;
            Ok(flag)
        };
        Ok(Signals { reload: flag(SIGHUP)?, terminate: flag(SIGTERM)?, interrupt: flag(SIGINT)?, woken })
    }

    /// Forgets that a signal ended the wait.
    fn drain(&self) {
        use std::io::Read;
        while (&self.woken).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    }

    /// Returns the exit status if a signal ends the server.
    fn end(&self) -> Option<ExitStatus> {
        if self.terminate.load(Ordering::SeqCst) {
            return Some(ExitStatus::SUCCESS);
        }
        self.interrupt.load(Ordering::SeqCst).then_some(ExitStatus(ErrorCode::Term.number()))
    }
}
