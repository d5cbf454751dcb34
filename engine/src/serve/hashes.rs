//! Hashes of files.

use aws_lc_rs::digest;
use md5::Digest as _;
use protocol::filter::Digest;
use repo_format::hash::Sha1Hasher;

/// A running hash.
#[derive(Clone)]
pub(super) enum RunningHash {
    Sha1(Sha1Hasher),
    Sha256(digest::Context),
    Md5(md5::Md5),
}

impl RunningHash {
    pub(super) fn new(digest: Digest) -> Self {
        match digest {
            Digest::Sha1 => RunningHash::Sha1(Sha1Hasher::new()),
            Digest::Sha256 => RunningHash::Sha256(digest::Context::new(&digest::SHA256)),
            Digest::Md5 => RunningHash::Md5(md5::Md5::new()),
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            RunningHash::Sha1(hash) => hash.update(data),
            RunningHash::Sha256(hash) => hash.update(data),
            RunningHash::Md5(hash) => hash.update(data),
        }
    }

    /// The hash of all bytes.
    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            RunningHash::Sha1(hash) => hash.finish().0.to_vec(),
            RunningHash::Sha256(hash) => hash.finish().as_ref().to_vec(),
            RunningHash::Md5(hash) => hash.finalize().to_vec(),
        }
    }
}
