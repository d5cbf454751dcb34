//! What the processes that PostgreSQL calls need to communicate with a background worker.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::lock::{Lock, LockRequest, LockType};
use engine::{CancelToken, Result};
use repo_format::layout::Stanza;

use crate::spool::Spool;

/// The first pause between two checks of the spool.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// The maximum pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Where and how to communicate with a worker.
#[derive(Clone, Debug)]
pub struct Background {
    /// The stanza.
    pub stanza: Stanza,
    /// The queue.
    pub spool: Spool,
    /// The directory of lock files.
    pub lock_path: PathBuf,
    /// The repositories whose archive lock a worker holds.
    pub repo_keys: Vec<u32>,
    /// The id that this process shares with a worker it starts.
    pub exec_id: String,
    /// How long to wait.
    pub timeout: Duration,
    /// The worker's log file, for a hint.
    pub log_file: String,
}

impl Background {
    /// Takes the worker's lock. Returns `None` while a worker is running, including one that this process started.
    ///
    /// # Errors
    /// [`engine::ErrorCode::LockAcquire`] if the lock can't be tried.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let lock = Lock::try_acquire(LockRequest {
            lock_path: &self.lock_path,
            stanza: &self.stanza,
            kinds: &[LockType::Archive],
            repo_keys: &self.repo_keys,
            exec_id: &self.exec_id,
        })?;
        Ok(lock.filter(Lock::is_own))
    }

    pub(crate) fn poll(&self) -> Poll {
        Poll { end: Instant::now() + self.timeout, pause: PAUSE_FIRST }
    }

    pub(crate) fn timeout_text(&self) -> String {
        let text = format!("{:.3}", self.timeout.as_secs_f64());
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    pub(crate) fn log_hint(&self) -> String {
        format!("check '{}' for errors.", self.log_file)
    }
}

/// Polls with short pauses, so that PostgreSQL does not wait for completed work.
#[derive(Debug)]
pub(crate) struct Poll {
    end: Instant,
    pause: Duration,
}

impl Poll {
    /// Pauses. Returns `false` when the time is up.
    pub(crate) fn more(&mut self, cancel: &CancelToken) -> Result<bool> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        cancel.sleep(self.pause.min(left))?;
        self.pause = (self.pause * 3 / 2).min(PAUSE_MAX);
        Ok(true)
    }
}
