//! A storage from which no more is read than a rate allows.

use std::io::{self, Read};
use std::ops::Deref;
use std::sync::Arc;

use super::decorator::Decorator;
use super::{PendingRead, RepoReader, RepoStorage, RepoWriter};
use crate::cancel::CancelToken;
use crate::throttle::Pace;

/// Bytes after which a reader waits. Small, so that all readers of a low rate get something, and no connection is silent
/// for long.
const PIECE_SIZE_BYTES: usize = 64 << 10;

/// Passes calls on, and slows down reading of files. The inner storage is an `Arc` or a `Box`.
///
/// What counts are the bytes as they are stored, also if they are compressed on their way.
pub(crate) struct Paced<S> {
    inner: S,
    pace: Pace,
    cancel: CancelToken,
}

impl Paced<Arc<dyn RepoStorage>> {
    /// Reads at this pace. Without a limit the storage itself is returned.
    pub(crate) fn wrap(inner: Arc<dyn RepoStorage>, pace: &Pace, cancel: &CancelToken) -> Arc<dyn RepoStorage> {
        match pace.limit() {
            Some(_) => Arc::new(Paced { inner, pace: pace.clone(), cancel: cancel.clone() }),
            None => inner,
        }
    }
}

impl<S> Decorator for Paced<S>
where
    S: Deref + Send + Sync,
    S::Target: RepoStorage,
{
    type Inner = S::Target;

    fn inner(&self) -> &Self::Inner {
        &self.inner
    }

    fn allows_sums(&self) -> bool {
        // The rate is that of what is read
        false
    }

    fn reader(&self, inner: Box<dyn RepoReader>) -> Box<dyn RepoReader> {
        Box::new(PacedReader { inner, pace: self.pace.clone(), cancel: self.cancel.clone() })
    }

    fn pending(&self, pending: PendingRead) -> PendingRead {
        let (pace, cancel) = (self.pace.clone(), self.cancel.clone());
        PendingRead::later(move || {
            let opened = pending.wait()?;
            Ok(opened.map(|inner| Box::new(PacedReader { inner, pace, cancel }) as Box<dyn RepoReader>))
        })
    }

    fn writer(&self, writer: Box<dyn RepoWriter>) -> Box<dyn RepoWriter> {
        writer
    }

    fn view<'a>(&'a self, view: Box<dyn RepoStorage + 'a>) -> Box<dyn RepoStorage + 'a> {
        Box::new(Paced { inner: view, pace: self.pace.clone(), cancel: self.cancel.clone() })
    }
}

struct PacedReader {
    inner: Box<dyn RepoReader>,
    pace: Pace,
    cancel: CancelToken,
}

impl Read for PacedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = buffer.len().min(PIECE_SIZE_BYTES);
        let read = self.inner.read(&mut buffer[..size])?;
        self.pace.after(read as u64, &self.cancel);
        Ok(read)
    }
}

impl RepoReader for PacedReader {
    fn is_ready(&self) -> bool {
        // Whoever waits for the rate lets others compute
        self.inner.is_ready() && self.pace.is_due()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{ReadRange, RepoPath, WriteOptions, get, put};
    use crate::throttle::{RATE_MIN, RateLimit};

    #[test]
    fn all_ways_to_read_keep_to_the_rate_and_give_the_same_bytes() {
        let path = RepoPath::new("a").unwrap();
        let content: Vec<u8> = (0..u8::MAX).cycle().take(300 << 10).collect();
        let memory = MemoryStorage::new();
        put(&memory, &path, &content, WriteOptions::ATOMIC).unwrap();
        let pace = Pace::new(Arc::new(RateLimit::new(Some(RATE_MIN))));
        let paced = Paced::wrap(Arc::new(memory), &pace, &CancelToken::new());
        let begun = Instant::now();
        assert!(get(&*paced, &path, 1 << 20).unwrap().unwrap() == content);
        let mut read = Vec::new();
        let pending = paced.begin_read(&path, ReadRange::default());
        pending.wait().unwrap().unwrap().read_to_end(&mut read).unwrap();
        assert!(read == content);
        // 600 KiB at 1 MiB a second; what is slower is not the rate's fault
        assert!(begun.elapsed() > Duration::from_millis(450), "{:?}", begun.elapsed());
        put(&*paced, &path, b"x", WriteOptions::ATOMIC).unwrap();
    }

    #[test]
    fn without_a_limit_the_storage_is_not_wrapped() {
        let storage: Arc<dyn RepoStorage> = Arc::new(MemoryStorage::new());
        assert!(Arc::ptr_eq(&storage, &Paced::wrap(Arc::clone(&storage), &Pace::FREE, &CancelToken::new())));
    }
}
