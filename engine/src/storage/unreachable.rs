//! A storage that could not be opened, for commands that report on several repositories.

use super::{Features, ReadRange, RepoPath, RepoReader, RepoStorage, RepoWriter, WriteOptions};
use crate::storage::Entry;
use crate::work::retry::retold;
use crate::{Error, Result};

/// Fails every call with the error of opening.
pub struct Unreachable {
    error: Error,
}

impl Unreachable {
    /// A storage that `error` made impossible to open.
    pub fn new(error: Error) -> Self {
        Unreachable { error }
    }

    fn fail<T>(&self) -> Result<T> {
        Err(retold(&self.error))
    }
}

impl RepoStorage for Unreachable {
    fn features(&self) -> Features {
        Features { paths: false, hard_links: false, symlinks: false, path_sync: false, errors_last: true }
    }

    fn opened(&self) -> Result<()> {
        self.fail()
    }

    fn display(&self, path: &RepoPath) -> String {
        path.as_str().to_owned()
    }

    fn info(&self, _: &RepoPath) -> Result<Option<Entry>> {
        self.fail()
    }

    fn list(&self, _: &RepoPath) -> Result<Option<Vec<Entry>>> {
        self.fail()
    }

    fn read(&self, _: &RepoPath, _: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        self.fail()
    }

    fn write(&self, _: &RepoPath, _: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        self.fail()
    }

    fn create_path(&self, _: &RepoPath) -> Result<()> {
        self.fail()
    }

    fn remove(&self, _: &RepoPath) -> Result<()> {
        self.fail()
    }

    fn remove_all(&self, _: &RepoPath) -> Result<()> {
        self.fail()
    }

    fn remove_empty(&self, _: &RepoPath) -> Result<()> {
        self.fail()
    }

    fn sync_path(&self, _: &RepoPath) -> Result<()> {
        self.fail()
    }

    fn symlink(&self, _: &str, _: &RepoPath) -> Result<()> {
        self.fail()
    }

    fn hard_link(&self, _: &RepoPath, _: &RepoPath) -> Result<()> {
        self.fail()
    }
}
