//! What the sessions of a connection may use: memory, and how many there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use protocol::channel::CHANNELS_MAX;

use crate::work::turn::Slots;
use crate::{Error, ErrorCode, Result};

/// The memory that the codecs of one connection may use, in bytes. The largest that a client of one thread needs is that
/// of zst at level 22. The codecs of all channels of a connection may use half of it for each, which is enough for that level. While
/// there are fewer channels, each counts like a connection.
pub(super) const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// What filters and workers may keep in addition while data passes, in bytes, such as the map of a file's blocks.
const GROWN_BYTES_MAX: u64 = 512 << 20;
/// What the requests of all channels of a connection may have together, in bytes. A request contains a block of `buffer-size`, which is
/// at most 16 MiB, or jobs of at most as many. A buffer may have twice the size of its request.
const REQUESTS_BYTES_MAX: u64 = (24 << 20) * CHANNELS_MAX as u64;

/// What a connection uses. Its channels use it together. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    /// Memory that is known before.
    pub(super) memory: UsedMemory,
    /// Memory that grows while data passes.
    pub(super) grown: Grown,
    /// Requests that have come, also in part, and were not answered.
    pub(super) requests: Grown,
    /// Channels besides the first one.
    channels: Seats,
    /// Open sessions.
    pub(super) sessions: Seats,
    /// Sessions with PostgreSQL.
    pub(super) databases: Seats,
    /// Workers that run.
    pub(super) workers: Seats,
    /// The right of workers to compute. Each channel with workers adds one, because a client has as many channels as its
    /// processes may compute; any worker may use it, whichever channel has the longest jobs.
    pub(super) slots: Arc<Slots>,
}

impl Usage {
    /// A connection without channels.
    pub(super) fn of_connection() -> Self {
        Self::of_bytes(MEMORY_BYTES_MAX)
    }

    /// The same connection with channels. Nothing is used yet.
    pub(super) fn with_channels(self) -> Self {
        let bytes_max = (self.memory.connection_max / 2).saturating_mul(CHANNELS_MAX as u64);
        Self::with_memory(self.memory.connection_max, bytes_max)
    }

    fn with_memory(connection_max: u64, bytes_max: u64) -> Self {
        let (grown, requests) = (Grown::default(), Grown::up_to(REQUESTS_BYTES_MAX));
        let channels = Seats::default();
        let (bytes, of_channels) = (Arc::default(), channels.clone());
        let memory = UsedMemory { bytes, grown: grown.clone(), connection_max, bytes_max, channels: of_channels };
        let (sessions, databases, workers) = (Seats::default(), Seats::default(), Seats::default());
        Usage { memory, grown, requests, channels, sessions, databases, workers, slots: Slots::none() }
    }

    /// Counts one more channel until the returned value is dropped.
    pub(super) fn channel(&self) -> Seat {
        self.channels.add()
    }

    /// A connection that may use so many bytes.
    pub(super) fn of_bytes(bytes_max: u64) -> Self {
        Self::with_memory(bytes_max, bytes_max)
    }
}

/// Counts things of which there may be only some at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(Arc<AtomicUsize>);

impl Seats {
    /// Takes the seat of one more.
    ///
    /// # Errors
    /// [`ErrorCode::Access`] with this name if there are `most` already.
    pub(super) fn take(&self, most: usize, what: &str) -> Result<Seat> {
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(|_| Seat(self.clone())).map_err(|_| too_many(what))
    }

    /// Takes the seat of one more of something that is limited elsewhere.
    fn add(&self) -> Seat {
        self.0.fetch_add(1, Ordering::Relaxed);
        Seat(self.clone())
    }

    /// How many there are.
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A seat that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Seat(Seats);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The error for a client whose sessions would need more than a connection may use.
pub(super) fn too_much_memory() -> Error {
    Error::new(ErrorCode::Memory, "sessions of this connection need too much memory")
}

/// The error for a client that wants more of something than a connection may have.
fn too_many(what: &str) -> Error {
    Error::new(ErrorCode::Access, format!("too many {what}"))
}

/// What all filters and workers of a connection have grown to, or its requests, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Grown {
    bytes: Arc<AtomicU64>,
    bytes_max: u64,
}

impl Default for Grown {
    fn default() -> Self {
        Grown::up_to(GROWN_BYTES_MAX)
    }
}

impl Grown {
    /// Nothing, with this limit of the sum.
    pub(super) fn up_to(bytes_max: u64) -> Self {
        Grown { bytes: Arc::default(), bytes_max }
    }

    /// The sum.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What one filter, the job of a worker, or a request has grown to. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Growth {
    total: Grown,
    bytes: u64,
}

impl Growth {
    /// Nothing that has grown.
    pub(super) fn new(total: &Grown) -> Self {
        Growth { total: total.clone(), bytes: 0 }
    }

    /// Counts what this has grown to by now.
    ///
    /// # Errors
    /// [`ErrorCode::Memory`] if that is too much together with the others.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<()> {
        let more = bytes.saturating_sub(self.bytes);
        let grow = |total: u64| total.checked_add(more).filter(|total| *total <= self.total.bytes_max);
        let grown = self.total.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow);
        grown.map_err(|_| too_much_memory())?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.total.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The memory of sessions and threads of a connection, in bytes. That of a thread counts until the thread has given it back, not
/// until its session ends.
#[derive(Clone, Debug)]
pub(super) struct UsedMemory {
    bytes: Arc<AtomicU64>,
    /// What has grown counts, too.
    grown: Grown,
    /// The limit without channels, and that with all of them.
    connection_max: u64,
    bytes_max: u64,
    /// Channels besides the first one.
    channels: Seats,
}

impl UsedMemory {
    /// What may be used by now: a client that can have channels and opens none gets no more than others.
    fn bytes_max(&self) -> u64 {
        let connections = 1 + self.channels.taken() as u64;
        self.bytes_max.min(self.connection_max.saturating_mul(connections))
    }

    /// The sum.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts this many bytes.
    ///
    /// # Errors
    /// [`ErrorCode::Memory`] if that is too much together with the others.
    pub(super) fn count(&self, bytes: u64) -> Result<CountedMemory> {
        let mut counted = CountedMemory { total: self.clone(), bytes: 0 };
        counted.add(bytes)?;
        Ok(counted)
    }
}

/// Memory that counts until this is dropped.
#[derive(Debug)]
pub(super) struct CountedMemory {
    total: UsedMemory,
    bytes: u64,
}

impl CountedMemory {
    /// Counts this many bytes more.
    ///
    /// # Errors
    /// [`ErrorCode::Memory`] if that is too much together with the others.
    pub(super) fn add(&mut self, bytes: u64) -> Result<()> {
        let max = self.total.bytes_max().saturating_sub(self.total.grown.bytes());
        let add = |total: u64| total.checked_add(bytes).filter(|total| *total <= max);
        let added = self.total.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        added.map_err(|_| too_much_memory())?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for CountedMemory {
    fn drop(&mut self) {
        self.total.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
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

    #[test]
    fn memory_is_counted_up_to_the_limit_and_until_it_is_dropped() {
        let usage = Usage::of_bytes(100);
        let (first, mut second) = (usage.memory.count(60).unwrap(), usage.memory.count(40).unwrap());
        assert_eq!(second.add(1).unwrap_err().code, ErrorCode::Memory);
        assert_eq!(usage.memory.count(u64::MAX).unwrap_err().code, ErrorCode::Memory);
        drop(first);
        let mut growth = Growth::new(&usage.grown);
        growth.grow_to(50).unwrap();
        assert_eq!(second.add(11).unwrap_err().code, ErrorCode::Memory);
        second.add(10).unwrap();
        drop((second, growth));
        assert_eq!(usage.memory.bytes(), 0);
    }

    #[test]
    fn client_that_could_have_channels_and_opened_none_had_the_memory_of_all() {
        let usage = Usage::of_connection().with_channels();
        let first = usage.memory.count(MEMORY_BYTES_MAX).unwrap();
        assert_eq!(usage.memory.count(1).unwrap_err().code, ErrorCode::Memory);
        let channel = usage.channel();
        let second = usage.memory.count(MEMORY_BYTES_MAX).unwrap();
        assert!(usage.memory.count(1).is_err());
        drop(channel);
        drop(first);
        assert!(usage.memory.count(1).is_err(), "the other one still has its memory");
        drop(second);
        let _channels: Vec<_> = (1..CHANNELS_MAX).map(|_| usage.channel()).collect();
        let _all = usage.memory.count(CHANNELS_MAX as u64 * (1 << 30)).unwrap();
        assert!(usage.memory.count(1).is_err());
        assert!(Usage::of_connection().memory.count(MEMORY_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn seats_are_taken_up_to_the_limit_and_until_they_are_dropped() {
        let seats = Seats::default();
        let taken: Vec<_> = (0..3).map(|_| seats.take(3, "things").unwrap()).collect();
        let error = seats.take(3, "things").unwrap_err();
        assert_eq!((error.code, &*error.message), (ErrorCode::Access, "too many things"));
        drop(taken);
        assert_eq!(seats.taken(), 0);
    }
}
