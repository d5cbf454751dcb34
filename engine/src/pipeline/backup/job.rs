//! What to copy, and the result of the copy.

use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;

use crate::pipeline::page_check::PageOutcome;

/// The destination of a job's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyJob {
    /// The file in the repository.
    pub path: RepoPath,
    /// The number of the bundle; `None` for a file on its own.
    pub bundle_id: Option<u64>,
    /// The data directory to read.
    pub data_dir: usize,
    /// The files in the order in which they are stored; a single one unless bundled.
    pub files: Vec<FileJob>,
    /// Threads that compress a large file on its own.
    pub threads: usize,
}

/// From this number of plain bytes on, a job computes longer than it waits for its requests.
pub const LONG_MIN_BYTES: u64 = 4 << 20;

impl CopyJob {
    /// Returns whether the job mostly computes.
    pub fn is_long(&self) -> bool {
        self.files.iter().map(|file| file.size_original).sum::<u64>() >= LONG_MIN_BYTES
    }
}

/// A file to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileJob {
    /// The index in the manifest.
    pub index: usize,
    /// Manifest name.
    pub name: Box<str>,
    /// The size that the prior or interrupted backup recorded, otherwise that of the scan.
    pub size: u64,
    /// Size at the scan.
    pub size_original: u64,
    /// Read no more than the size at the scan, because WAL replay restores the rest.
    pub exact_size: bool,
    /// Compare by checksum before copying.
    pub delta: bool,
    /// Whether an interrupted run of this backup stored the file.
    pub resume: bool,
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
pub struct FileResult {
    /// The index in the manifest.
    pub index: usize,
    /// What was done.
    pub outcome: FileOutcome,
}

/// What was done with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOutcome {
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
    /// An interrupted run had stored it, but not rightly.
    pub repo_invalid: bool,
}
