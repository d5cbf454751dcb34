//! The policy of WAL archiving and retrieval: what `archive-push` and `archive-get` do with one file, and what their
//! asynchronous workers do with many.
//!
//! PostgreSQL starts the program for every segment, so a call does as little as possible: it opens, starts and connects
//! to nothing before it is needed. A push succeeds only after the segment is durable in every repository.

pub mod background;
pub mod get;
#[cfg(test)]
mod one_connection;
mod origin;
pub mod path;
pub mod push;
pub mod repos;
pub mod spool;

pub use engine::{Error, ErrorCode, Result};
