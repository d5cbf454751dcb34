//! Straight-line copying of files between a data directory and a repository, one worker thread per copy.

pub mod backup;
pub mod block_delta;
mod block_writer;
pub(crate) mod encode;
mod page_check;
pub mod restore;

pub(crate) use block_writer::{BlockLayout, BlockWriter, SuperBlockEncoders};
pub(crate) use page_check::PageChecker;
pub use page_check::PageOutcome;

/// From this number of plain bytes on, a job computes longer than it waits for its requests.
pub const LONG_MIN_BYTES: u64 = 4 << 20;
