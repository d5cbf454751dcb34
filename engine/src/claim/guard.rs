//! A storage that refuses changes once the claim under which it is used is lost.

use std::io::{self, Write};
use std::ops::Deref;
use std::sync::Arc;

use super::lease::Lease;
use crate::Result;
use crate::storage::decorator::Decorator;
use crate::storage::{RepoStorage, RepoWriter};

/// Passes calls on. Before each change it checks that the claim is held, because a process that was suspended for
/// longer than others wait must not write into a repository that another process uses by now.
///
/// The inner storage is an `Arc` or a `Box`.
pub(super) struct GuardedStorage<S> {
    inner: S,
    lease: Arc<Lease>,
}

impl<S> GuardedStorage<S> {
    pub(super) fn new(inner: S, lease: Arc<Lease>) -> Self {
        GuardedStorage { inner, lease }
    }
}

impl<S> Decorator for GuardedStorage<S>
where
    S: Deref + Send + Sync,
    S::Target: RepoStorage,
{
    type Inner = S::Target;

    fn inner(&self) -> &Self::Inner {
        &self.inner
    }

    fn change<R>(&self, call: impl FnOnce(&Self::Inner) -> Result<R>) -> Result<R> {
        self.lease.ensure()?;
        call(self.inner())
    }

    fn writer(&self, inner: Box<dyn RepoWriter>) -> Box<dyn RepoWriter> {
        Box::new(GuardedWriter { inner, lease: Arc::clone(&self.lease) })
    }

    fn view<'a>(&'a self, view: Box<dyn RepoStorage + 'a>) -> Box<dyn RepoStorage + 'a> {
        Box::new(GuardedStorage::new(view, Arc::clone(&self.lease)))
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
