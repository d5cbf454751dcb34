//! Sums of stored files that are made beside the data, so that the data need not come here.

use repo_format::cipher::Cipher;
use repo_format::compress::CompressType;
use repo_format::hash::Sha1;

use super::{ReadRange, RepoPath};
use crate::CancelToken;

/// How the bytes of a stored file are decoded.
#[derive(Clone, Copy, Debug)]
pub struct StoredContent<'a> {
    /// The file.
    pub path: &'a RepoPath,
    /// The part of it.
    pub range: ReadRange,
    /// How it is encrypted.
    pub cipher: &'a Cipher,
    /// How it is compressed.
    pub compress_type: CompressType,
    /// Ends the wait for the sum, which takes as long as reading the file there.
    pub cancel: &'a CancelToken,
}

/// Checksum and size of what a file was decoded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentSum {
    /// The checksum.
    pub checksum: Sha1,
    /// The size in bytes.
    pub size: u64,
}
