//! The data path: storage, copy pipelines, the PostgreSQL session, and what the commands do with them.
//!
//! It never sees an option's name and never prints.

pub mod log;
pub mod storage;

pub use repo_format::{Error, ErrorCode, Result};
