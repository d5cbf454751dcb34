//! What the calls of PostgreSQL need to deal with a worker in the background.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::lock::{Lock, LockRequest, LockType};
use engine::{CancelToken, Result};
use repo_format::layout::Stanza;

use crate::spool::Spool;

/// First pause between two looks into the spool.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// Pauses grow up to this.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Where a worker is met.
#[derive(Clone, Debug)]
pub struct Background {
    /// The stanza.
    pub stanza: Stanza,
    /// The queue.
    pub spool: Spool,
    /// Where lock files are.
    pub lock_path: PathBuf,
    /// The repositories whose archive lock a worker holds.
    pub repo_keys: Vec<u32>,
    /// The id that this process shares with a worker it starts.
    pub exec_id: String,
    /// How long to wait.
    pub timeout: Duration,
    /// Where the worker logs, for a hint.
    pub log_file: String,
}

impl Background {
    /// The lock of the worker; `None` while one runs, also one that this process started.
    ///
    /// # Errors
    /// [`engine::ErrorCode::LockAcquire`] when the lock can't be tried.
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

/// Looks again and again, with pauses short enough that PostgreSQL is not kept waiting for work that is done.
#[derive(Debug)]
pub(crate) struct Poll {
    end: Instant,
    pause: Duration,
}

impl Poll {
    /// Pauses; `false` once time is up.
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
