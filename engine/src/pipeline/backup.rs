//! Copies files from a data directory into a repository.
//!
//! Source of the rules: pgBackRest `src/command/backup/file.c.inc`.

mod copier;
mod job;
mod sink;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use repo_format::cipher::Cipher;
use repo_format::compress::Compression;
use repo_format::pg::PgVersion;

pub use self::copier::Copier;
pub use self::job::{BlockJob, Copied, CopyJob, FileJob, FileOutcome, FileResult, LONG_MIN_BYTES, PriorMap};
use crate::pg::data_dir::DataDir;
use crate::storage::{RepoStorage, WriteOptions};

/// What all copies of one backup have in common.
pub struct CopySettings {
    /// The repository.
    pub storage: Arc<dyn RepoStorage>,
    /// Data directories that jobs name by index: the primary's, then the standby's when there is one.
    pub data_dirs: Vec<DataDir>,
    /// Compression of all files.
    pub compression: Compression,
    /// Encryption with the backup's own passphrase.
    pub cipher: Cipher,
    /// Bundled files use raw framing.
    pub bundle_raw: bool,
    /// Index of this backup in the list of references, for block maps.
    pub reference: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// Check page headers beside the checksum.
    pub page_header_check: bool,
    /// Stored bytes up to which a file that did not change is noticed before anything is written.
    pub compare_buffer_bytes: usize,
    /// Take the cluster's version as given, not from `pg_control`.
    pub version_force: Option<PgVersion>,
    /// How the files are made durable.
    pub write_options: WriteOptions,
}
