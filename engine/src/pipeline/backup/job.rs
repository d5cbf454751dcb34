//! What is to be copied, and what became of it.

use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;

use crate::pipeline::page_check::PageOutcome;

/// Where a job's bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyJob {
    /// The file in the repository.
    pub path: RepoPath,
    /// Number of the bundle; `None` for a file of its own.
    pub bundle_id: Option<u64>,
    /// Which data directory to read.
    pub data_dir: usize,
    /// The files, one unless bundled, in the order they are stored in.
    pub files: Vec<FileJob>,
    /// Threads that compress a large file of its own.
    pub threads: usize,
}

/// From so many plain bytes on a job takes longer to compute than to wait for its requests.
pub const LONG_MIN_BYTES: u64 = 4 << 20;

impl CopyJob {
    /// Whether it mostly computes.
    pub fn is_long(&self) -> bool {
        self.files.iter().map(|file| file.size_original).sum::<u64>() >= LONG_MIN_BYTES
    }
}

/// One file to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileJob {
    /// Index in the manifest.
    pub index: usize,
    /// Manifest name.
    pub name: Box<str>,
    /// Size that the prior backup or the interrupted one recorded, else that of the scan.
    pub size: u64,
    /// Size at the scan.
    pub size_original: u64,
    /// Read no more than the size at the scan: WAL replays the rest.
    pub exact_size: bool,
    /// Compare by checksum before copying.
    pub delta: bool,
    /// Stored by an interrupted run of this backup.
    pub resume: bool,
    /// The prior backup has it.
    pub has_reference: bool,
    /// Recorded checksum.
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

/// Where a block map is in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorMap {
    /// The file.
    pub path: RepoPath,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileResult {
    /// Index in the manifest.
    pub index: usize,
    /// What was done.
    pub outcome: FileOutcome,
}

/// What was done with one file.
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
    /// Empty by now, for which nothing is stored in a bundle or in blocks.
    Truncated,
    /// Gone by now.
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
    /// Checksum of the stored bytes where they differ from the file's.
    pub checksum_repo: Option<Sha1>,
    /// First byte in the bundle.
    pub bundle_offset: u64,
    /// Stored bytes of the block map; `None` unless block incremental.
    pub map_size: Option<u64>,
    /// Result of the page check; `None` if not asked for.
    pub pages: Option<PageOutcome>,
    /// An interrupted run had stored it, but not rightly.
    pub repo_invalid: bool,
}
