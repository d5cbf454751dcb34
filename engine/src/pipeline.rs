//! Straight-line copying of files between a data directory and a repository, one worker thread per copy.

pub mod backup;
mod block_incr;
pub(crate) mod encode;
mod page_check;
pub mod restore;

pub use page_check::PageOutcome;
