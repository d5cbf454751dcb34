//! Storages that pass calls on to another one and do something around them.

use super::{
    Concurrency, ContentSum, Entry, Features, FileSize, PendingRead, Protection, ReadAhead, ReadRange, RepoPath,
    RepoReader, RepoStorage, RepoWriter, StoredContent, SyncBatch, VersionedStorage, WriteOptions,
};
use crate::Result;

/// What a decorator does around the calls of a storage. Each decorator is a [`RepoStorage`].
pub(crate) trait Decorator: Send + Sync {
    /// The storage that calls are passed on to.
    type Inner: RepoStorage + ?Sized;

    /// Returns that storage.
    fn inner(&self) -> &Self::Inner;

    /// Makes a call that may wait.
    fn call<R>(&self, call: impl FnOnce(&Self::Inner) -> Result<R>) -> Result<R> {
        call(self.inner())
    }

    /// Makes a call that changes the repository.
    fn change<R>(&self, call: impl FnOnce(&Self::Inner) -> Result<R>) -> Result<R> {
        self.call(call)
    }

    /// Whether files may be summed up beside the data, so that no reader sees them.
    fn allows_sums(&self) -> bool {
        true
    }

    /// Decorates a file that was opened for reading.
    fn reader(&self, reader: Box<dyn RepoReader>) -> Box<dyn RepoReader> {
        reader
    }

    /// Decorates a read that was begun.
    fn pending(&self, pending: PendingRead) -> PendingRead {
        pending
    }

    /// Decorates a file that is being written.
    fn writer(&self, writer: Box<dyn RepoWriter>) -> Box<dyn RepoWriter>;

    /// Decorates another view of the inner storage.
    fn view<'a>(&'a self, view: Box<dyn RepoStorage + 'a>) -> Box<dyn RepoStorage + 'a>;
}

impl<D: Decorator> RepoStorage for D {
    fn features(&self) -> Features {
        self.inner().features()
    }

    fn concurrency(&self) -> Concurrency {
        self.inner().concurrency()
    }

    fn bytes_free(&self, path: &RepoPath) -> Option<u64> {
        self.inner().bytes_free(path)
    }

    fn connected(&self) -> Result<()> {
        self.inner().connected()
    }

    fn opened(&self) -> Result<()> {
        self.inner().opened()
    }

    fn display(&self, path: &RepoPath) -> String {
        self.inner().display(path)
    }

    fn protection(&self) -> Result<Option<Protection>> {
        self.call(|inner| inner.protection())
    }

    fn check_name(&self, path: &RepoPath) -> Result<()> {
        self.inner().check_name(path)
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        self.call(|inner| inner.info(path))
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        self.call(|inner| inner.list(path))
    }

    fn list_files(&self, path: &RepoPath) -> Result<Vec<FileSize>> {
        self.call(|inner| inner.list_files(path))
    }

    fn names(&self, path: &RepoPath) -> Result<Option<Vec<String>>> {
        self.call(|inner| inner.names(path))
    }

    fn names_after(&self, path: &RepoPath, after: &str) -> Result<Vec<String>> {
        self.call(|inner| inner.names_after(path, after))
    }

    fn link_destination(&self, path: &RepoPath) -> Result<Option<String>> {
        self.call(|inner| inner.link_destination(path))
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        Ok(self.call(|inner| inner.read(path, range))?.map(|reader| self.reader(reader)))
    }

    /// Not decorated: only who serves a repository to others reads old versions.
    fn versions(&self) -> Option<&dyn VersionedStorage> {
        self.inner().versions()
    }

    fn compressing_reads(&self) -> Option<Box<dyn RepoStorage + '_>> {
        Some(self.view(self.inner().compressing_reads()?))
    }

    fn sums(&self) -> bool {
        self.allows_sums() && self.inner().sums()
    }

    fn sum(&self, content: &StoredContent<'_>) -> Result<Option<ContentSum>> {
        if self.sums() { self.call(|inner| inner.sum(content)) } else { Ok(None) }
    }

    fn read_ahead(&self) -> ReadAhead {
        self.inner().read_ahead()
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        // Begins without waiting
        self.pending(self.inner().begin_read(path, range))
    }

    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        Ok(self.writer(self.change(|inner| inner.write(path, options))?))
    }

    fn create_path(&self, path: &RepoPath) -> Result<()> {
        self.change(|inner| inner.create_path(path))
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        self.change(|inner| inner.remove(path))
    }

    fn remove_many(&self, paths: &[RepoPath]) -> Result<()> {
        self.change(|inner| inner.remove_many(paths))
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        self.change(|inner| inner.remove_all(path))
    }

    fn remove_empty(&self, path: &RepoPath) -> Result<()> {
        self.change(|inner| inner.remove_empty(path))
    }

    fn sync_path(&self, path: &RepoPath) -> Result<()> {
        self.call(|inner| inner.sync_path(path))
    }

    fn forget_cached(&self, files: &[RepoPath]) {
        self.inner().forget_cached(files);
    }

    fn begin_batch(&self, path: &RepoPath) -> Result<Option<Box<dyn SyncBatch>>> {
        self.call(|inner| inner.begin_batch(path))
    }

    fn symlink(&self, destination: &str, link: &RepoPath) -> Result<()> {
        self.change(|inner| inner.symlink(destination, link))
    }

    fn hard_link(&self, existing: &RepoPath, link: &RepoPath) -> Result<()> {
        self.change(|inner| inner.hard_link(existing, link))
    }
}
