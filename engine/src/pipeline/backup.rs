//! Copies files from a data directory into a repository. A [`CopyWorker`] does so beside the data directory, and a
//! [`Copier`] stores the result.
//!
//! Source of the rules: pgBackRest `src/command/backup/file.c.inc`.

mod codecs;
mod copier;
mod file_encoder;
mod job;
mod local_worker;
mod pass;
mod prior_map;
mod sink;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use repo_format::cipher::Cipher;
use repo_format::compress::Compression;

pub use self::codecs::CodecPool;
pub use self::copier::Copier;
pub(crate) use self::file_encoder::{Compared, FileEncoder, OpenJob};
pub use self::job::{BlockJob, Copied, CopyFile, CopyFrom, CopyJob, CopyMethod, CopyOutcome, CopyResult, PriorMap};
pub use self::local_worker::LocalWorker;
pub(crate) use self::pass::{Input, Passed, spared_codecs_bytes_max};
pub use self::worker::{CopyWorker, JobStore};
use crate::storage::WriteOptions;

/// Plain bytes read at a time, a multiple of every page size. Small enough to stay in the processor's cache from the
/// page check to compression.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// What all jobs of a backup share. Like a job, it is plain data, apart from the codecs.
#[derive(Clone, Debug)]
pub struct CopyRules {
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
    /// How the files are made durable.
    pub write_options: WriteOptions,
    /// The codecs of this compression and encryption.
    pub codecs: Arc<CodecPool>,
}
