//! The repository's formats and PostgreSQL's on-disk structures, as pure functions on bytes.
//!
//! Nothing here opens a file, reads a clock or the environment, or logs.

pub mod error;

pub use error::{Error, ErrorCode, Result};
