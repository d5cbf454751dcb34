//! Answers that are held back until nobody has anything more to say. So round trips can be counted, whatever time they take.
//! A machine so slow that a program pauses for longer than the quiet time while it has something to say counts some more.

use std::io::Write;
use std::mem::take;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The answers of a server, over all connections.
pub struct Rounds {
    /// How long nothing comes from either side until the held answers go on.
    quiet: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Blocks with the number of their connection and its client.
    held: Vec<(u64, TcpStream, Vec<u8>)>,
    is_delivering: bool,
    /// When something last came from either side.
    last: Instant,
    rounds: usize,
    is_over: bool,
}

impl Rounds {
    pub fn new(quiet: Duration) -> Self {
        let state = State { held: Vec::new(), is_delivering: false, last: Instant::now(), rounds: 0, is_over: false };
        Self { quiet, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a client has sent something.
    pub fn note(&self) {
        self.state().last = Instant::now();
    }

    /// Holds back a block for the client of a connection.
    pub fn hold(&self, number: u64, client: TcpStream, block: Vec<u8>) {
        let mut state = self.state();
        state.last = Instant::now();
        state.held.push((number, client, block));
        self.changed.notify_all();
    }

    /// Waits until nothing of a connection is held back.
    pub fn drain(&self, number: u64) {
        let holds = |state: &mut State| {
            !state.is_over && (state.is_delivering || state.held.iter().any(|(held, ..)| *held == number))
        };
        drop(self.changed.wait_while(self.state(), holds).unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns how often answers went on since the last call.
    pub fn take(&self) -> usize {
        take(&mut self.state().rounds)
    }

    /// Delivers nothing more.
    pub fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }

    /// Delivers what is held back, until the end.
    pub fn run(&self) {
        let mut state = self.state();
        while !state.is_over {
            let left = self.quiet.saturating_sub(state.last.elapsed());
            if state.held.is_empty() || !left.is_zero() {
                let pause = if state.held.is_empty() { Duration::from_secs(3600) } else { left };
                state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let held = take(&mut state.held);
            (state.rounds, state.is_delivering) = (state.rounds + 1, true);
            drop(state);
            for (_, mut client, block) in held {
                // A client that is gone needs no answer
                let _ = client.write_all(&block);
            }
            state = self.state();
            (state.is_delivering, state.last) = (false, Instant::now());
            self.changed.notify_all();
        }
    }
}
