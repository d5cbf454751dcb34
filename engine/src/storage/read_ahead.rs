//! Consecutive reads: the next ones are started while one is in progress, so that a distant store answers in time.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;

use super::{ReadRange, RepoPath, RepoReader, RepoStorage, missing};
use crate::{Error, ErrorCode, Result};

/// How to read several ranges of a store efficiently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    /// Number of reads to start before they are needed (`repo-storage-prefetch`).
    pub prefetch: usize,
    /// Maximum number of bytes between two ranges of one file that are read and discarded instead of starting another
    /// read (`repo-storage-read-over`).
    pub read_over_bytes: u64,
}

impl ReadAhead {
    /// For stores that answer at once: nothing is started ahead.
    pub const NEAR: Self = ReadAhead { prefetch: 0, read_over_bytes: 64 * 1024 };
}

/// The result of a read; `None` if the file is missing.
type Opened = Result<Option<Box<dyn RepoReader>>>;

/// A read that has begun.
pub struct PendingRead(Pending);

enum Pending {
    Opened(Opened),
    Later(Box<dyn FnOnce() -> Opened + Send>),
}

impl PendingRead {
    /// A read whose answer is there.
    pub fn opened(opened: Opened) -> Self {
        PendingRead(Pending::Opened(opened))
    }

    /// A read whose answer this function waits for.
    pub(crate) fn later(wait: impl FnOnce() -> Opened + Send + 'static) -> Self {
        PendingRead(Pending::Later(Box::new(wait)))
    }

    /// A read whose answer will come.
    pub(crate) fn of_answer(answer: Receiver<Opened>) -> Self {
        Self::later(move || {
            let lost = |error| Error::new(ErrorCode::Kernel, "a read ended without an answer").cause(error);
            answer.recv().map_err(lost)?
        })
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// The errors of [`RepoStorage::read`].
    pub fn wait(self) -> Opened {
        match self.0 {
            Pending::Opened(opened) => opened,
            Pending::Later(wait) => wait(),
        }
    }
}

/// Reads of a store in the order in which they are wanted.
pub(crate) struct ReadQueue<'a> {
    storage: &'a dyn RepoStorage,
    wanted: VecDeque<(RepoPath, ReadRange)>,
    begun: VecDeque<(RepoPath, PendingRead)>,
    begun_max: usize,
}

impl<'a> ReadQueue<'a> {
    /// Creates the reads. Nothing is started before the first read is requested.
    pub(crate) fn new(storage: &'a dyn RepoStorage, wanted: impl IntoIterator<Item = (RepoPath, ReadRange)>) -> Self {
        // The one in progress is not read ahead
        let begun_max = storage.read_ahead().prefetch.saturating_add(1);
        ReadQueue { storage, wanted: wanted.into_iter().collect(), begun: VecDeque::new(), begun_max }
    }

    /// The same, where the first read has begun.
    pub(crate) fn go_on(self, first: Option<PendingRead>) -> Self {
        let ReadQueue { storage, mut wanted, mut begun, begun_max } = self;
        if let Some(first) = first {
            begun.extend(wanted.pop_front().map(|(path, _)| (path, first)));
        }
        ReadQueue { storage, wanted, begun, begun_max }
    }

    /// Returns the next read.
    ///
    /// # Errors
    /// The file can't be read or is missing, or there is no next read.
    pub(crate) fn next(&mut self) -> Result<Box<dyn RepoReader>> {
        while self.begun.len() < self.begun_max
            && let Some((path, range)) = self.wanted.pop_front()
        {
            let pending = self.storage.begin_read(&path, range);
            self.begun.push_back((path, pending));
        }
        let (path, pending) =
            self.begun.pop_front().ok_or_else(|| Error::new(ErrorCode::Assert, "no more reads were planned"))?;
        pending.wait()?.ok_or_else(|| missing(self.storage, &path))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::object::ObjectStorage;
    use crate::storage::{WriteOptions, put};

    fn read(queue: &mut ReadQueue<'_>) -> String {
        let mut text = String::new();
        queue.next().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn ranges_come_in_order(storage: &dyn RepoStorage) {
        let path = |name: &str| RepoPath::new(name).unwrap();
        put(storage, &path("a"), b"0123456789", WriteOptions::ATOMIC).unwrap();
        let range = |offset, limit| ReadRange { offset, limit: Some(limit) };
        let wanted = [(0, 2), (5, 3), (2, 1), (9, 1), (0, 0), (3, 2)].map(|(at, size)| (path("a"), range(at, size)));
        let mut queue = ReadQueue::new(storage, wanted.into_iter().chain([(path("b"), range(0, 1))]));
        assert_eq!([(); 6].map(|()| read(&mut queue)), ["01", "567", "2", "9", "", "34"]);
        assert_eq!(queue.next().err().unwrap().code, ErrorCode::FileMissing);
        assert_eq!(queue.next().err().unwrap().code, ErrorCode::Assert);
    }

    #[test]
    fn ranges_come_in_order_from_near_and_far() {
        ranges_come_in_order(&MemoryStorage::new());
        for prefetch in [0, 1, 20] {
            let store = std::sync::Arc::new(object_store::memory::InMemory::new());
            let far = ObjectStorage::new(store, "/repo", 1 << 20, &[]).unwrap();
            ranges_come_in_order(&far.with_read_ahead(ReadAhead { prefetch, read_over_bytes: 0 }));
        }
    }
}
