//! Straight-line copying of files between a data directory and a repository, one worker thread per copy.

pub mod backup;
mod block_incr;
mod budget;
pub(crate) mod encode;
mod page_check;
pub mod restore;

pub use budget::CoreBudget;
pub use page_check::PageOutcome;
