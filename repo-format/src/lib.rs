//! The repository's formats and PostgreSQL's on-disk structures, as pure functions on bytes.
//!
//! Nothing here opens a file, reads a clock or the environment, or logs.

pub mod archive_info;
pub mod backup_info;
pub mod block_map;
pub mod cipher;
pub mod claim;
pub mod compress;
pub mod error;
pub mod format;
pub mod hash;
pub mod info;
pub mod ini;
pub mod json;
pub mod label;
pub mod layout;
pub mod lock_file;
pub mod manifest;
pub mod pg;
pub mod read;
pub mod size;
pub mod spool;
pub mod wal_name;

pub use error::{Error, ErrorCode, Result, system_text};

/// The pgBackRest version whose repositories these are. It is written as `backrest-version`, which resume and other
/// readers compare.
pub const BACKREST_VERSION: &str = "2.60.0";
