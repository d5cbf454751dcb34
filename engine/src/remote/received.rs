//! Messages that have come and are still in memory.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most bytes of answers that a connection keeps. The list of a directory with a million entries takes some 40 MB,
/// and has no parts.
const KEPT_BYTES_MAX: usize = 1 << 30;

/// The messages of a connection that are in memory, in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<AtomicUsize>);

impl Kept {
    /// The most bytes that the next message may have.
    pub(super) fn bytes_left(&self) -> usize {
        KEPT_BYTES_MAX.saturating_sub(self.0.load(Ordering::Relaxed))
    }

    /// Counts a message until it is dropped.
    pub(super) fn keep(&self, bytes: Vec<u8>) -> Received {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
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
        self.kept.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
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
}
