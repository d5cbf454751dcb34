//! Reads the header of an archived WAL segment.

use std::io::Read as _;

use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::compress::CompressType;
use repo_format::layout::RepoPath;
use repo_format::pg::{PgVersion, WalHeader};

use crate::storage::{self, ReadRange, RepoStorage};
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result, decode};

/// Bytes of a segment that contain its header.
const HEADER_BYTES: u64 = 512;

/// Stored bytes that contain it: more than the largest block of any codec.
const STORED_BYTES: u64 = 1 << 20;

/// Reads the header of a segment that is encrypted like this. With `force`, it is read as that version.
///
/// # Errors
/// [`ErrorCode::FileMissing`] if the segment is missing; it can't be read or decoded; those of [`WalHeader::parse`].
pub(crate) fn read(
    storage: &dyn RepoStorage,
    path: &RepoPath,
    cipher: &Cipher,
    force: Option<PgVersion>,
) -> Result<WalHeader> {
    let range = ReadRange { offset: 0, limit: Some(STORED_BYTES) };
    let stored = storage.read(path, range)?.ok_or_else(|| storage::missing(storage, path))?;
    let plain = Decryptor::new(cipher, Framing::Full, stored);
    let kind = CompressType::from_file_name(path.file_name())?;
    let mut header = Vec::new();
    let mut reader = decode::decompressor(kind, plain, HEADER_BYTES, &Turn::FREE)?.take(HEADER_BYTES);
    reader.read_to_end(&mut header).map_err(|error| {
        Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", storage.display(path)), error)
    })?;
    WalHeader::parse(&header, force)
}
