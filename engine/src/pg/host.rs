//! The host of a PostgreSQL cluster.
//!
//! Backups, `check` and the stanza commands use PostgreSQL's files through [`PgHost`] only, so that they need not run
//! on that host. `restore`, `archive-push` and `archive-get` always run there and use the files directly.

mod local;
#[cfg(test)]
pub(crate) mod loopback;
mod remote;

use std::fmt::Debug;
use std::path::Path;

use repo_format::layout::RepoPath;
use repo_format::pg::control::PgControl;

pub use self::local::LocalHost;
pub use self::remote::{RemoteHost, RemotePgSettings};
use super::connection::PgConnection;
use super::data_dir::{Scan, ScanOptions, ServerTablespace};
// What a worker on another host exchanges
pub use crate::pipeline::PageOutcome;
pub use crate::pipeline::backup::{
    BlockJob, Copied, CopyFile, CopyFrom, CopyJob, CopyMethod, CopyOutcome, CopyResult, CopyRules, CopyWorker,
    JobStore, PriorMap,
};
pub use crate::pipeline::restore::{BlockGeometry, Hashed};
use crate::storage::Concurrency;
use crate::work::turn::Turn;
use crate::{CancelToken, Result};

/// The host of one cluster.
pub trait PgHost: Debug + Send + Sync {
    /// The N of the options `pgN-...`, for messages.
    fn key(&self) -> u32;

    /// The name of the host, for messages; `None` if it is this host.
    fn name(&self) -> Option<&str> {
        None
    }

    /// The data directory as configured.
    fn path(&self) -> &Path;

    /// The command, which the server shows as `pgBackRest [command]`.
    fn command(&self) -> &str;

    /// Checks that what holds the locks on another host still runs.
    ///
    /// # Errors
    /// The error that ended the connection to the host.
    fn check_locks(&self) -> Result<()> {
        Ok(())
    }

    /// Reads and checks `pg_control`.
    ///
    /// # Errors
    /// The file can't be read, or is damaged and does not change.
    fn control(&self) -> Result<PgControl>;

    /// Returns whether `postmaster.pid` exists, which means that PostgreSQL is running or was not shut down.
    ///
    /// # Errors
    /// [`crate::ErrorCode::FileOpen`] if the data directory can't be read.
    fn has_postmaster_pid(&self) -> Result<bool>;

    /// Checks that the data directory can be listed. It may be missing.
    ///
    /// # Errors
    /// [`crate::ErrorCode::PathOpen`].
    fn check_data_dir(&self) -> Result<()>;

    /// Connects to the server.
    ///
    /// # Errors
    /// [`crate::ErrorCode::DbConnect`], [`crate::ErrorCode::Term`] after a signal.
    fn connect(&self, cancel: &CancelToken) -> Result<Box<dyn PgConnection>>;

    /// Lists what belongs into a backup. `tablespaces_now` returns the server's present tablespaces.
    ///
    /// # Errors
    /// The same as [`super::data_dir::scan`].
    fn scan(
        &self,
        options: &ScanOptions<'_>,
        tablespaces_now: &mut dyn FnMut() -> Result<Vec<ServerTablespace>>,
    ) -> Result<Scan>;

    /// Returns the checksums of a file of the data directory, and of its blocks. Links are followed.
    ///
    /// # Errors
    /// [`crate::ErrorCode::FileMissing`], [`crate::ErrorCode::FileOpen`], [`crate::ErrorCode::FileRead`].
    fn hash_blocks(&self, path: &RepoPath, geometry: BlockGeometry, cancel: &CancelToken) -> Result<Hashed>;

    /// Returns how many jobs are best in progress at a time.
    fn concurrency(&self) -> Concurrency {
        Concurrency::LOCAL
    }

    /// Returns a worker that copies files of the data directory by these rules, for the thread that has this turn to
    /// compute. `number` is that of the worker, from 1 on. Several threads may have the same.
    ///
    /// # Errors
    /// The codec refuses the level, or the host can't be reached.
    fn copy_worker<'a>(&self, number: u32, rules: &'a CopyRules, turn: &Turn) -> Result<Box<dyn CopyWorker + 'a>>;
}
