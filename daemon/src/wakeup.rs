//! What ends a wait of the daemon: signals, and the ends of processes.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use engine::{Error, ErrorCode, Result};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::world::ProcessEnd;

/// The stack of the thread that waits for signals.
const SIGNAL_STACK: usize = 64 * 1024;

/// What ends a wait of the daemon.
#[derive(Debug)]
pub enum Wakeup {
    /// A signal.
    Signal(i32),
    /// The end of a process that is no child.
    Ended(ProcessEnd),
}

/// Receives wakeups.
pub struct Wakeups {
    /// For others that wake the daemon.
    pub sender: Sender<Wakeup>,
    receiver: Receiver<Wakeup>,
}

impl Wakeups {
    /// Starts to receive signals. From now on they end nothing by themselves.
    ///
    /// # Errors
    /// [`ErrorCode::Kernel`]
    pub fn start() -> Result<Self> {
        let failed = |error: io::Error| Error::from_io(ErrorCode::Kernel, "unable to catch signals", error);
        let mut signals = Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
        let (sender, receiver) = channel();
        let forward = sender.clone();
        let listen = move || {
            for signal in signals.forever() {
                if forward.send(Wakeup::Signal(signal)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .stack_size(SIGNAL_STACK)
            .spawn(listen)
            .map_err(failed)?;
        Ok(Wakeups { sender, receiver })
    }

    /// Waits for a wakeup, at most this long.
    pub(crate) fn wait(&self, pause: Option<Duration>) -> Option<Wakeup> {
        match pause {
            None => self.receiver.recv().ok(),
            Some(pause) => self.receiver.recv_timeout(pause).ok(),
        }
    }
}
