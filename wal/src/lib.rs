//! Policy of WAL archiving and retrieval: what `archive-push` and `archive-get` do with one file, and what their
//! asynchronous workers do with many.
//!
//! PostgreSQL starts the program for every segment, so the way to the answer is short: nothing is opened, spawned or
//! contacted before it is needed. A segment is acknowledged only after it is durable in every repository.

pub mod background;
pub mod get;
pub mod origin;
pub mod path;
pub mod push;
pub mod repos;
pub mod spool;
pub mod workers;

pub use engine::{Error, ErrorCode, Result};
