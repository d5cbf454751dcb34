//! Limits how many files a process on another host has open at a time.
//!
//! Each open file needs the memory of a codec there, which is nearly a gigabyte at the highest levels of zst.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use repo_format::compress::Compression;

use crate::{CancelToken, Result};

/// The memory of the codecs in one process, in bytes. One codec may need more.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// What an open file needs besides its codec, in bytes.
const FILE_BYTES: u64 = 1 << 20;
/// A file of at most this size, in bytes, is closed with the first answer: half of the smallest `buffer-size`, because it may
/// grow a little.
const SMALL_BYTES: u64 = 8 << 10;
/// How often a wait looks for a cancellation.
const LOOK: Duration = Duration::from_millis(50);

/// The open files of one process.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    count: Mutex<u64>,
    changed: Condvar,
}

/// An open file. Dropping it lets another one be opened.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<OpenFiles>>);

/// The most files that are compressed like this at a time.
pub(super) fn files_max(compression: Compression) -> u64 {
    (MEMORY_BYTES_MAX / (compression.memory_bytes_max() + FILE_BYTES)).max(1)
}

impl OpenFiles {
    /// Counts a file of `size` bytes; `None` if `max` files are open.
    pub(super) fn try_open(self: &Arc<Self>, size: u64, max: u64) -> Option<Place> {
        if size <= SMALL_BYTES {
            return Some(Place(None));
        }
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        (*count < max).then(|| {
            *count += 1;
            Place(Some(Arc::clone(self)))
        })
    }

    /// Counts a file once fewer than `max` files are open. A thread that waits must have no open file itself.
    ///
    /// # Errors
    /// The same as [`CancelToken::check`].
    pub(super) fn open(self: &Arc<Self>, size: u64, max: u64, cancel: &CancelToken) -> Result<Place> {
        loop {
            cancel.check()?;
            if let Some(place) = self.try_open(size, max) {
                return Ok(place);
            }
            let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
            if *count >= max {
                drop(self.changed.wait_timeout(count, LOOK));
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(files) = &self.0 {
            *files.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            files.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use repo_format::compress::CompressType;

    use super::*;

    #[test]
    fn codecs_that_need_much_memory_are_few() {
        for (kind, level, least, most) in [
            (CompressType::None, 0, 64, 1000),
            (CompressType::Gz, 6, 64, 1000),
            (CompressType::Zst, 3, 64, 100),
            (CompressType::Zst, 19, 4, 8),
            (CompressType::Zst, 20, 2, 2),
            (CompressType::Zst, 22, 1, 1),
        ] {
            let max = files_max(Compression::new(kind, Some(level)).unwrap());
            assert!((least..=most).contains(&max), "{kind} at level {level}: {max}");
        }
    }

    #[test]
    fn file_waits_until_another_one_is_closed() {
        let (files, cancel) = (Arc::new(OpenFiles::default()), CancelToken::new());
        let first = files.try_open(1 << 20, 1).unwrap();
        assert!(files.try_open(1 << 20, 1).is_none() && files.try_open(SMALL_BYTES, 1).is_some());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| files.open(1 << 20, 1, &cancel).map(drop));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waits.is_finished());
            drop(first);
            waits.join().unwrap().unwrap();
        });
        let _first = files.open(1 << 20, 1, &cancel).unwrap();
        cancel.cancel();
        assert!(files.open(1 << 20, 1, &cancel).is_err());
    }
}
