//! The locks and stop files of a host. A repository's host and PostgreSQL's host have their own ones.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use repo_format::layout::Stanza;

use crate::control;
use crate::lock::{self, Lock, LockRequest, LockStatus, LockType};
use crate::{Error, ErrorCode, Result};

/// The locks and stop files of one host.
pub trait HostLocks: Debug + Send + Sync {
    /// Takes locks of all these types and repositories, or none. Processes with the same `exec_id` share locks.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] if another process holds one.
    fn acquire(
        &self,
        stanza: &Stanza,
        kinds: &[LockType],
        repo_keys: &[u32],
        exec_id: &str,
    ) -> Result<Box<dyn HeldLocks>>;

    /// Returns the state of a lock.
    fn status(&self, stanza: &Stanza, kind: LockType, repo_key: u32) -> LockStatus;

    /// Returns whether there is a stop file for exactly this stanza (or for all).
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`] if the file can't be checked.
    fn is_stopped(&self, stanza: Option<&Stanza>) -> Result<bool>;

    /// Removes the stop file if there is one.
    ///
    /// # Errors
    /// [`ErrorCode::FileRemove`].
    fn remove_stop_file(&self, stanza: Option<&Stanza>) -> Result<()>;

    /// Fails if commands were stopped.
    ///
    /// # Errors
    /// [`ErrorCode::Stop`].
    fn check_stop(&self, stanza: Option<&Stanza>) -> Result<()> {
        if let Some(stanza) = stanza
            && self.is_stopped(Some(stanza))?
        {
            return Err(Error::new(ErrorCode::Stop, format!("stop file exists for stanza {stanza}")));
        }
        if self.is_stopped(None)? {
            return Err(Error::new(ErrorCode::Stop, "stop file exists for all stanzas"));
        }
        Ok(())
    }
}

/// Locks that are held until the value is dropped. Others read the progress of a copy from them.
pub trait HeldLocks: Debug + Send {
    /// Shows that a copy of `size` bytes begins.
    fn update_begin(&mut self, repo_key: u32, size: u64);

    /// Shows progress, if it advanced by more than 0.1% since the last time.
    fn update(&mut self, repo_key: u32, size_done: u64, size: u64);

    /// Removes the progress after the copy.
    fn update_clear(&mut self, repo_key: u32);
}

/// The locks and stop files of this host.
#[derive(Clone, Debug)]
pub struct LocalLocks {
    lock_path: PathBuf,
}

impl LocalLocks {
    /// Those in this directory.
    pub fn at(lock_path: impl Into<PathBuf>) -> Arc<dyn HostLocks> {
        Arc::new(LocalLocks { lock_path: lock_path.into() })
    }
}

impl HostLocks for LocalLocks {
    fn acquire(
        &self,
        stanza: &Stanza,
        kinds: &[LockType],
        repo_keys: &[u32],
        exec_id: &str,
    ) -> Result<Box<dyn HeldLocks>> {
        let request = LockRequest { lock_path: &self.lock_path, stanza, kinds, repo_keys, exec_id };
        Ok(Box::new(Lock::acquire(request)?))
    }

    fn status(&self, stanza: &Stanza, kind: LockType, repo_key: u32) -> LockStatus {
        lock::read_status(&self.lock_path, stanza, kind, repo_key)
    }

    fn is_stopped(&self, stanza: Option<&Stanza>) -> Result<bool> {
        control::is_stopped(&self.lock_path, stanza)
    }

    fn remove_stop_file(&self, stanza: Option<&Stanza>) -> Result<()> {
        control::remove_stop_file(&self.lock_path, stanza)
    }
}

impl HeldLocks for Lock {
    fn update_begin(&mut self, repo_key: u32, size: u64) {
        Lock::update_begin(self, repo_key, size);
    }

    fn update(&mut self, repo_key: u32, size_done: u64, size: u64) {
        Lock::update(self, repo_key, size_done, size);
    }

    fn update_clear(&mut self, repo_key: u32) {
        Lock::update_clear(self, repo_key);
    }
}
