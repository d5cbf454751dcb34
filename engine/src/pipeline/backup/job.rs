//! What to copy, and the result of the copy.
//!
//! Jobs and results are plain data: they own everything they contain, refer to nothing in the memory of the process,
//! and name files by their manifest names. So a job can be done by whoever has the data directory and the repository.

use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;

use crate::pipeline::LONG_MIN_BYTES;
use crate::pipeline::page_check::PageOutcome;

/// One file in the repository: what to read, and where its bytes go.
///
/// A job is complete in itself. Everything that all jobs of a backup share is in [`CopyRules`](super::CopyRules). A
/// worker answers a job with one [`CopyResult`] for each of its files, in the order of the job, or with an error for
/// the whole job. After an error nothing of the job is stored, and the same job may be done again, also by another
/// worker. Nobody but that worker may write to `path` meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyJob {
    /// The server whose data directory is read.
    pub from: CopyFrom,
    /// The file in the repository.
    pub path: RepoPath,
    /// The number of the bundle; `None` for a file on its own.
    pub bundle_id: Option<u64>,
    /// The files in the order in which they are stored; a single one unless bundled.
    pub files: Vec<CopyFile>,
    /// Threads that compress a large file on its own.
    pub threads: usize,
}

impl CopyJob {
    /// Returns whether the job mostly computes.
    pub fn is_long(&self) -> bool {
        // Sizes may come from a client
        self.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size_original)) >= LONG_MIN_BYTES
    }
}

/// The server that a file is copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// The primary, which has every file.
    Primary,
    /// The standby, which has what WAL replay keeps up to date.
    Standby,
}

/// A file to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFile {
    /// Manifest name.
    pub name: Box<str>,
    /// How the copy begins.
    pub method: CopyMethod,
    /// The size that the prior or interrupted backup recorded, otherwise that of the scan.
    pub size: u64,
    /// Size at the scan.
    pub size_original: u64,
    /// Read no more than the size at the scan, because WAL replay restores the rest.
    pub exact_size: bool,
    /// The prior backup has it.
    pub has_reference: bool,
    /// The recorded checksum.
    pub checksum: Option<Sha1>,
    /// Recorded checksum of the stored bytes.
    pub checksum_repo: Option<Sha1>,
    /// Recorded number of stored bytes.
    pub size_repo: u64,
    /// Check page checksums.
    pub page_check: bool,
    /// Store it block incremental.
    pub block: Option<BlockJob>,
}

/// How the copy of a file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMethod {
    /// The file is read and stored, unless it turns out not to have changed.
    Copy,
    /// The file is first compared with its recorded checksum.
    Compare,
    /// An interrupted run of this backup stored the file. What it stored counts if it has the recorded checksum.
    Resume {
        /// Whether the file itself is first compared with its recorded checksum.
        compare: bool,
    },
}

impl CopyMethod {
    /// Returns whether the file is compared with its recorded checksum before it is copied.
    pub fn compares(self) -> bool {
        matches!(self, CopyMethod::Compare | CopyMethod::Resume { compare: true })
    }

    /// Returns whether an interrupted run of this backup stored the file.
    pub fn resumes(self) -> bool {
        matches!(self, CopyMethod::Resume { .. })
    }
}

/// How a file is stored block incremental.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockJob {
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a checksum in the map.
    pub checksum_size: u8,
    /// Plain bytes of a super block.
    pub super_block_size: u64,
    /// The map of the prior backup.
    pub prior: Option<PriorMap>,
}

/// The location of a block map in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorMap {
    /// The file.
    pub path: RepoPath,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// The result for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyResult {
    /// Manifest name.
    pub name: Box<str>,
    /// What was done.
    pub outcome: CopyOutcome,
}

/// What was done with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// Stored.
    Copied(Copied),
    /// The prior backup has the same content.
    Unchanged {
        /// Bytes of the file.
        size: u64,
        /// Its checksum.
        checksum: Sha1,
    },
    /// An interrupted run stored it already.
    Resumed {
        /// Bytes of the file.
        size: u64,
        /// Its checksum.
        checksum: Sha1,
    },
    /// The file is empty by now, for which nothing is stored in a bundle or in blocks.
    Truncated,
    /// The file no longer exists.
    Removed,
}

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of the file.
    pub size: u64,
    /// Its checksum.
    pub checksum: Sha1,
    /// Stored bytes.
    pub size_repo: u64,
    /// The checksum of the stored bytes, if they differ from the file's.
    pub checksum_repo: Option<Sha1>,
    /// First byte in the bundle.
    pub bundle_offset: u64,
    /// Stored bytes of the block map; `None` unless block incremental.
    pub map_size: Option<u64>,
    /// The result of the page check; `None` if not requested.
    pub pages: Option<PageOutcome>,
    /// Whether an interrupted run stored other bytes than its manifest says.
    pub repo_invalid: bool,
}
