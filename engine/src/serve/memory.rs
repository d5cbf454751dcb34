//! The memory that the sessions of a connection may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, ErrorCode, Result};

/// The memory that the codecs of one connection may use, in bytes. The largest that a client of one thread needs is that
/// of zst at level 22.
pub(super) const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// What filters and workers may keep in addition while data passes, in bytes, such as the map of a file's blocks.
const GROWN_BYTES_MAX: u64 = 512 << 20;

/// Limits what the filters of a connection use.
pub(super) struct Budget {
    pub(super) memory_bytes_left: u64,
    /// What grows while data passes.
    pub(super) grown: Grown,
}

/// The error for a client whose sessions would need more than a connection may use.
pub(super) fn too_much_memory() -> Error {
    Error::new(ErrorCode::Memory, "sessions of this connection need too much memory")
}

/// What all filters and workers of a connection have grown to, in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Grown(Arc<AtomicU64>);

impl Grown {
    /// The sum.
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one filter, or the job of a worker, has grown to. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Growth {
    total: Grown,
    bytes: u64,
}

impl Growth {
    /// A filter that has not grown.
    pub(super) fn new(total: &Grown) -> Self {
        Growth { total: total.clone(), bytes: 0 }
    }

    /// Counts what the filter has grown to by now.
    ///
    /// # Errors
    /// [`ErrorCode::Memory`] if that is too much together with the other filters.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<()> {
        let more = bytes.saturating_sub(self.bytes);
        let grow = |total: u64| total.checked_add(more).filter(|total| *total <= GROWN_BYTES_MAX);
        let grown = self.total.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow);
        grown.map_err(|_| too_much_memory())?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.total.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The memory of threads of a connection, in bytes. It counts until a thread has given it back, not until its session ends.
#[derive(Clone, Debug, Default)]
pub(super) struct ThreadMemory(Arc<AtomicU64>);

impl ThreadMemory {
    /// The sum.
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts this many bytes.
    pub(super) fn count(&self, bytes: u64) -> CountedMemory {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        CountedMemory { total: self.clone(), bytes }
    }
}

/// Memory that counts until this is dropped.
#[derive(Debug)]
pub(super) struct CountedMemory {
    total: ThreadMemory,
    bytes: u64,
}

impl Drop for CountedMemory {
    fn drop(&mut self) {
        self.total.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_a_connection_grow_together_and_give_back_what_they_had() {
        let total = Grown::default();
        let mut growths: Vec<Growth> = (0..2).map(|_| Growth::new(&total)).collect();
        growths[0].grow_to(GROWN_BYTES_MAX - 10).unwrap();
        growths[1].grow_to(10).unwrap();
        growths[1].grow_to(3).unwrap();
        assert_eq!(growths[1].grow_to(11).unwrap_err().code, ErrorCode::Memory);
        assert_eq!(total.bytes(), GROWN_BYTES_MAX);
        growths.remove(0);
        growths[0].grow_to(11).unwrap();
        drop(growths);
        assert_eq!(total.bytes(), 0);
    }
}
