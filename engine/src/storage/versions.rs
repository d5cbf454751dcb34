//! Stores that keep old versions of files.

use super::{Entry, ReadRange, RepoPath, RepoReader};
use crate::Result;

/// The old versions that a store keeps.
pub trait VersionedStorage: Send + Sync {
    /// Returns the entries of one directory as of a time in seconds since the epoch, sorted by name, with the versions of files;
    /// `None` if there were none.
    ///
    /// # Errors
    /// The directory can't be read.
    fn list_at(&self, path: &RepoPath, time: i64) -> Result<Option<Vec<Entry>>>;

    /// Opens a version of a file for reading; `None` if it is missing. A range past the end reads nothing.
    ///
    /// # Errors
    /// The version exists but can't be opened.
    fn read_version(&self, path: &RepoPath, range: ReadRange, version: &str) -> Result<Option<Box<dyn RepoReader>>>;
}
