//! Locks that a server takes for its client.

use std::path::PathBuf;

use repo_format::lock_file::is_lock_name;

use crate::host_locks::LocalLocks;
use crate::lock::Lock;
use crate::{Error, ErrorCode, Result, Stanza};

/// The most locks that a client may ask for. A command takes three types on at most 256 repositories.
const LOCKS_MAX: usize = 1000;

/// The locks that a server takes before its first answer, under the names that the client asks for.
#[derive(Debug)]
pub struct ServedLocks {
    /// The directory of lock and stop files.
    pub lock_path: PathBuf,
    /// The names of the lock files.
    pub names: Vec<String>,
    /// The stanza.
    pub stanza: Stanza,
    /// The id of the client's command, whose processes share locks.
    pub exec_id: String,
}

impl ServedLocks {
    /// Checks that the stanza was not stopped on this host, and takes the locks.
    ///
    /// # Errors
    /// [`ErrorCode::Stop`], [`ErrorCode::LockAcquire`], and [`ErrorCode::Access`] for a name that is not of a lock of
    /// the stanza.
    pub(super) fn acquire(&self) -> Result<Lock> {
        LocalLocks::at(&self.lock_path).check_stop(Some(&self.stanza))?;
        if self.names.len() > LOCKS_MAX {
            return Err(Error::new(ErrorCode::Access, format!("client asks for more than {LOCKS_MAX} locks")));
        }
        if let Some(name) = self.names.iter().find(|name| !is_lock_name(name, Some(&self.stanza))) {
            let text = format!("'{name}' is not the name of a lock of stanza '{}'", self.stanza);
            return Err(Error::new(ErrorCode::Access, text));
        }
        Lock::acquire_named(&self.lock_path, &self.names, &self.exec_id)
    }
}
