//! A storage that refuses changes once the claim under which it is used is lost.

use std::io::{self, Write};
use std::sync::Arc;

use super::lease::Lease;
use crate::Result;
use crate::storage::{
    Concurrency, Entry, Features, FileSize, PendingRead, ReadAhead, ReadRange, RepoPath, RepoReader, RepoStorage,
    RepoWriter, SyncBatch, WriteOptions,
};

/// Passes calls on. Before each change it checks that the claim is held, because a process that was suspended for
/// longer than others wait must not write into a repository that another process uses by now.
pub(super) struct GuardedStorage {
    inner: Arc<dyn RepoStorage>,
    lease: Arc<Lease>,
}

impl GuardedStorage {
    pub(super) fn new(inner: Arc<dyn RepoStorage>, lease: Arc<Lease>) -> Self {
        GuardedStorage { inner, lease }
    }
}

impl RepoStorage for GuardedStorage {
    fn features(&self) -> Features {
        self.inner.features()
    }

    fn concurrency(&self) -> Concurrency {
        self.inner.concurrency()
    }

    fn display(&self, path: &RepoPath) -> String {
        self.inner.display(path)
    }

    fn check_name(&self, path: &RepoPath) -> Result<()> {
        self.inner.check_name(path)
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        self.inner.info(path)
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        self.inner.list(path)
    }

    fn list_files(&self, path: &RepoPath) -> Result<Vec<FileSize>> {
        self.inner.list_files(path)
    }

    fn names(&self, path: &RepoPath) -> Result<Option<Vec<String>>> {
        self.inner.names(path)
    }

    fn names_after(&self, path: &RepoPath, after: &str) -> Result<Vec<String>> {
        self.inner.names_after(path, after)
    }

    fn link_destination(&self, path: &RepoPath) -> Result<Option<String>> {
        self.inner.link_destination(path)
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        self.inner.read(path, range)
    }

    fn read_ahead(&self) -> ReadAhead {
        self.inner.read_ahead()
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        self.inner.begin_read(path, range)
    }

    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        self.lease.ensure()?;
        let inner = self.inner.write(path, options)?;
        Ok(Box::new(GuardedWriter { inner, lease: Arc::clone(&self.lease) }))
    }

    fn create_path(&self, path: &RepoPath) -> Result<()> {
        self.lease.ensure()?;
        self.inner.create_path(path)
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        self.lease.ensure()?;
        self.inner.remove(path)
    }

    fn remove_many(&self, paths: &[RepoPath]) -> Result<()> {
        self.lease.ensure()?;
        self.inner.remove_many(paths)
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        self.lease.ensure()?;
        self.inner.remove_all(path)
    }

    fn sync_path(&self, path: &RepoPath) -> Result<()> {
        self.inner.sync_path(path)
    }

    fn forget_cached(&self, files: &[RepoPath]) {
        self.inner.forget_cached(files);
    }

    fn begin_batch(&self, path: &RepoPath) -> Result<Option<Box<dyn SyncBatch>>> {
        self.inner.begin_batch(path)
    }

    fn symlink(&self, destination: &str, link: &RepoPath) -> Result<()> {
        self.lease.ensure()?;
        self.inner.symlink(destination, link)
    }

    fn hard_link(&self, existing: &RepoPath, link: &RepoPath) -> Result<()> {
        self.lease.ensure()?;
        self.inner.hard_link(existing, link)
    }
}

struct GuardedWriter {
    inner: Box<dyn RepoWriter>,
    lease: Arc<Lease>,
}

impl Write for GuardedWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.lease.ensure()?;
        self.inner.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl RepoWriter for GuardedWriter {
    fn is_ready(&self) -> bool {
        self.lease.is_trusted() && self.inner.is_ready()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.lease.ensure()?;
        self.inner.finish()
    }
}
