//! Messages that have come and are still in memory.

use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::shared::lock;

/// The most bytes of answers that a connection keeps. The list of a directory with a million entries takes some 40 MB,
/// and has no parts.
const KEPT_BYTES_MAX: usize = 1 << 30;

/// Messages of this size are parts of a file, so more of them come. New memory for each would be cleared page by page.
const REUSED_BYTES: Range<usize> = 256 << 10..2 << 20;
/// The buffers that wait for a message: one that is filled while another one is used.
const SPARE_MAX: usize = 2;

/// The messages of a connection that are in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    bytes: AtomicUsize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Kept {
    /// The most bytes that the next message may have.
    pub(super) fn bytes_left(&self) -> usize {
        KEPT_BYTES_MAX.saturating_sub(self.0.bytes.load(Ordering::Relaxed))
    }

    /// A buffer for the next message.
    pub(super) fn buffer(&self) -> Vec<u8> {
        lock(&self.0.spare).pop().unwrap_or_default()
    }

    /// Counts a message until it is dropped.
    pub(super) fn keep(&self, bytes: Vec<u8>) -> Received {
        self.0.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Received { bytes, kept: self.clone() }
    }
}

/// A message that counts.
#[derive(Debug)]
pub(super) struct Received {
    bytes: Vec<u8>,
    kept: Kept,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.kept.0.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        if REUSED_BYTES.contains(&self.bytes.capacity()) {
            let mut spare = lock(&self.kept.0.spare);
            if spare.len() < SPARE_MAX {
                spare.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

/// A part of a message, which is read from its begin.
#[derive(Debug, Default)]
pub(crate) struct ReceivedPart {
    message: Option<Received>,
    left: Range<usize>,
}

impl ReceivedPart {
    pub(super) fn new(message: Received, part: Range<usize>) -> Self {
        ReceivedPart { message: Some(message), left: part }
    }

    /// The bytes that were not read yet.
    pub(crate) fn len(&self) -> usize {
        self.left.len()
    }
}

impl Read for ReceivedPart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.message.as_ref().and_then(|message| message.get(self.left.clone()));
        let read = left.unwrap_or_default().read(buffer)?;
        self.left.start += read;
        if self.left.is_empty() {
            self.message = None;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_count_until_they_are_dropped() {
        let kept = Kept::default();
        let first = kept.keep(vec![1; 1000]);
        let second = kept.keep(vec![2; 10]);
        assert_eq!((kept.bytes_left(), first[0], second.len()), (KEPT_BYTES_MAX - 1010, 1, 10));
        drop(first);
        assert_eq!(kept.bytes_left(), KEPT_BYTES_MAX - 10);
    }

    #[test]
    fn memory_of_large_messages_is_used_again_and_what_is_not_needed_returned() {
        let kept = Kept::default();
        let large = || kept.keep(vec![1; REUSED_BYTES.start]);
        drop([large(), large(), large(), kept.keep(vec![2; 10]), kept.keep(vec![3; REUSED_BYTES.end])]);
        let buffers = [kept.buffer(), kept.buffer(), kept.buffer()];
        let capacities = buffers.each_ref().map(Vec::capacity);
        assert_eq!(capacities, [REUSED_BYTES.start, REUSED_BYTES.start, 0]);
    }

    #[test]
    fn part_of_a_message_is_read_once_and_frees_the_message() {
        let kept = Kept::default();
        let mut part = ReceivedPart::new(kept.keep((0..10).collect()), 2..7);
        let mut read = [0; 3];
        assert_eq!((part.read(&mut read).unwrap(), read, part.len()), (3, [2, 3, 4], 2));
        assert_eq!(kept.bytes_left(), KEPT_BYTES_MAX - 10);
        assert_eq!((part.read(&mut read).unwrap(), part.len()), (2, 0));
        assert_eq!((part.read(&mut read).unwrap(), kept.bytes_left()), (0, KEPT_BYTES_MAX));
    }
}
