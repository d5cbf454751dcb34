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

/// What all copies of a backup share.
pub struct CopySettings {
    /// The repository.
    pub storage: Arc<dyn RepoStorage>,
    /// Data directories that jobs refer to by index: the primary's, followed by the standby's if there is one.
    pub data_dirs: Vec<DataDir>,
    /// Compression of all files.
    pub compression: Compression,
    /// Encryption with the backup's own passphrase.
    pub cipher: Cipher,
    /// Bundled files use raw framing.
    pub bundle_raw: bool,
    /// The index of this backup in the list of references, for block maps.
    pub reference: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// Check page headers in addition to checksums.
    pub page_header_check: bool,
    /// Stored bytes up to which an unchanged file is detected before anything is written.
    pub compare_buffer_bytes: usize,
    /// Assume this version of the cluster instead of that in `pg_control`.
    pub version_force: Option<PgVersion>,
    /// How the files are made durable.
    pub write_options: WriteOptions,
}
