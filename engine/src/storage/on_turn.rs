//! A storage whose calls release the caller's compute slot while they wait for a server.
//!
//! Drivers know nothing about turns to compute: this is the only place that combines the two.

use std::io::{self, Read, Write};
use std::ops::Deref;

use super::decorator::Decorator;
use super::{PendingRead, RepoReader, RepoStorage, RepoWriter};
use crate::Result;
use crate::work::turn::Turn;

/// Passes calls on, and releases the turn while they wait. The inner storage is a reference or an `Arc`.
#[derive(Clone)]
pub struct OnTurn<S> {
    inner: S,
    /// `None` if the storage answers at once.
    turn: Option<Turn>,
}

impl<S> OnTurn<S>
where
    S: Deref + Send + Sync,
    S::Target: RepoStorage,
{
    /// Wraps a storage for the thread that has this turn.
    pub fn new(inner: S, turn: &Turn) -> Self {
        let turn = inner.concurrency().waits().then(|| turn.clone());
        OnTurn { inner, turn }
    }

    /// Takes over a read that was begun without a turn.
    pub(crate) fn adopt(&self, pending: PendingRead) -> PendingRead {
        let Some(turn) = self.turn.clone() else { return pending };
        PendingRead::later(move || {
            let opened = turn.waiting(|| pending.wait())?;
            Ok(opened.map(|inner| Box::new(TurnReader { inner, turn }) as Box<dyn RepoReader>))
        })
    }
}

impl<S> Decorator for OnTurn<S>
where
    S: Deref + Send + Sync,
    S::Target: RepoStorage,
{
    type Inner = S::Target;

    fn inner(&self) -> &Self::Inner {
        &self.inner
    }

    fn call<R>(&self, call: impl FnOnce(&Self::Inner) -> Result<R>) -> Result<R> {
        match &self.turn {
            Some(turn) => turn.waiting(|| call(self.inner())),
            None => call(self.inner()),
        }
    }

    fn reader(&self, inner: Box<dyn RepoReader>) -> Box<dyn RepoReader> {
        match &self.turn {
            Some(turn) => Box::new(TurnReader { inner, turn: turn.clone() }),
            None => inner,
        }
    }

    fn pending(&self, pending: PendingRead) -> PendingRead {
        self.adopt(pending)
    }

    fn writer(&self, inner: Box<dyn RepoWriter>) -> Box<dyn RepoWriter> {
        match &self.turn {
            Some(turn) => Box::new(TurnWriter { inner: Some(inner), turn: turn.clone() }),
            None => inner,
        }
    }

    fn view<'a>(&'a self, view: Box<dyn RepoStorage + 'a>) -> Box<dyn RepoStorage + 'a> {
        Box::new(OnTurn { inner: view, turn: self.turn.clone() })
    }
}

struct TurnReader {
    inner: Box<dyn RepoReader>,
    turn: Turn,
}

impl Read for TurnReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Whatever has arrived is read without letting others in, so that work is done in its order
        if self.inner.is_ready() { self.inner.read(buffer) } else { self.turn.waiting(|| self.inner.read(buffer)) }
    }
}

impl RepoReader for TurnReader {
    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }
}

struct TurnWriter {
    /// `None` once finished.
    inner: Option<Box<dyn RepoWriter>>,
    turn: Turn,
}

impl TurnWriter {
    fn step<R>(&mut self, step: impl FnOnce(&mut dyn RepoWriter) -> io::Result<R>) -> io::Result<R> {
        let inner = self.inner.as_deref_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        if inner.is_ready() { step(inner) } else { self.turn.waiting(|| step(inner)) }
    }
}

impl Write for TurnWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.step(|inner| inner.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.step(|inner| inner.flush())
    }
}

impl RepoWriter for TurnWriter {
    fn is_ready(&self) -> bool {
        self.inner.as_deref().is_none_or(RepoWriter::is_ready)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        match self.inner.take() {
            Some(inner) => self.turn.waiting(|| inner.finish()),
            None => Ok(()),
        }
    }
}

impl Drop for TurnWriter {
    fn drop(&mut self) {
        // Abandoning a file may take requests
        if let Some(inner) = self.inner.take() {
            self.turn.waiting(|| drop(inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;
    use crate::storage::faulty::FaultyStorage;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::object::ObjectStorage;
    use crate::storage::{RepoPath, WriteOptions, get, put};
    use crate::work::turn::Slots;

    fn path(name: &str) -> RepoPath {
        RepoPath::new(name).unwrap()
    }

    /// A storage on a server, of which two calls wait for each other.
    fn server() -> FaultyStorage {
        let store = Arc::new(object_store::memory::InMemory::new());
        let far = ObjectStorage::new(store, "/repo", 1 << 20, &[]).unwrap();
        put(&far, &path("a"), b"content", WriteOptions::ATOMIC).unwrap();
        let pair = Barrier::new(2);
        FaultyStorage::new(Arc::new(far)).before(move |_, _| {
            pair.wait();
        })
    }

    #[test]
    fn calls_that_wait_let_another_thread_compute() {
        let (storage, slots) = (server(), Slots::new(1));
        let call = |call: fn(&dyn RepoStorage)| {
            let turn = slots.turn();
            turn.run(|| call(&OnTurn::new(&storage as &dyn RepoStorage, &turn)));
        };
        // If one held the only slot meanwhile, the two would never meet
        std::thread::scope(|scope| {
            scope.spawn(|| call(|storage| assert!(storage.info(&path("a")).unwrap().is_some())));
            call(|storage| assert_eq!(get(storage, &path("a"), 99).unwrap().unwrap(), b"content"));
        });
        std::thread::scope(|scope| {
            scope.spawn(|| call(|storage| put(storage, &path("b"), b"x", WriteOptions::ATOMIC).unwrap()));
            // Meets the begin and the end of the write
            call(|storage| {
                storage.list(&RepoPath::root()).unwrap();
                storage.remove(&path("none")).unwrap();
            });
        });
    }

    #[test]
    fn storage_that_answers_at_once_keeps_the_slot() {
        let slots = Slots::new(1);
        let turn = slots.turn();
        let held = Arc::clone(&slots);
        let near = FaultyStorage::new(Arc::new(MemoryStorage::new())).before(move |_, _| {
            assert_eq!(held.free(), 0);
        });
        turn.run(|| {
            let storage = OnTurn::new(&near as &dyn RepoStorage, &turn);
            put(&storage, &path("a"), b"x", WriteOptions::ATOMIC).unwrap();
            assert_eq!(get(&storage, &path("a"), 9).unwrap().unwrap(), b"x");
        });
    }
}
