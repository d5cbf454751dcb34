//! Checks the bytes of one stored file.

use std::io::{self, Read};

use repo_format::cipher::{Cipher, Decryptor};
use repo_format::compress::{CompressType, DecompressContext, Decompressor, Framing};
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::layout::RepoPath;

use crate::storage::{ReadRange, RepoStorage};
use crate::{CancelToken, Error, ErrorCode, Result};

/// Bytes hashed at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// What is decoded of a file beyond twice its size: a damaged file may have any checksum, and a few bytes may stand for terabytes.
const SIZE_MORE_MAX: u64 = 1 << 20;

/// Why a file is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// Its checksum is another one.
    Checksum,
    /// Its size is another one.
    Size,
    /// It could not be read or decoded.
    Other,
}

impl Fault {
    /// pgBackRest's words for it.
    pub fn text(self) -> &'static str {
        match self {
            Fault::Missing => "file missing",
            Fault::Checksum => "invalid checksum",
            Fault::Size => "invalid size",
            Fault::Other => "invalid result",
        }
    }
}

/// Bytes to check, and what they should be.
#[derive(Clone, Debug)]
pub struct FileCheck {
    /// The file in the repository.
    pub path: RepoPath,
    /// The part of it.
    pub range: ReadRange,
    /// How it is encrypted; [`Cipher::None`] when the checksum is that of the stored bytes.
    pub cipher: Cipher,
    /// How it is compressed; none when the checksum is that of the stored bytes.
    pub compress_type: CompressType,
    /// The checksum expected.
    pub checksum: Sha1,
    /// The size expected, in bytes.
    pub size: u64,
}

/// Buffers that a worker keeps from file to file.
pub struct FileChecker {
    buffer: Box<[u8]>,
    contexts: Vec<(CompressType, DecompressContext)>,
}

impl FileChecker {
    /// A checker that has read nothing yet.
    pub fn new() -> Self {
        FileChecker { buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), contexts: Vec::new() }
    }

    /// Reads what is to be checked; `None` when it is right.
    ///
    /// # Errors
    /// It can't be read or decoded.
    pub fn check(
        &mut self,
        storage: &dyn RepoStorage,
        check: &FileCheck,
        cancel: &CancelToken,
    ) -> Result<Option<Fault>> {
        let Some(stored) = storage.read(&check.path, check.range)? else { return Ok(Some(Fault::Missing)) };
        let context = match self.contexts.iter().position(|(kind, _)| *kind == check.compress_type) {
            Some(index) => self.contexts.swap_remove(index).1,
            None => DecompressContext::new(check.compress_type, Framing::Full)?,
        };
        let mut reader = Decompressor::with_context(context, Decryptor::new(&check.cipher, Framing::Full, stored))?;
        let mut hasher = Sha1Hasher::new();
        let mut size = 0u64;
        let size_max = check.size.saturating_mul(2).saturating_add(SIZE_MORE_MAX);
        loop {
            cancel.check()?;
            if size > size_max {
                return Ok(Some(Fault::Size));
            }
            match reader.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => {
                    hasher.update(&self.buffer[..read]);
                    size += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let shown = storage.display(&check.path);
                    return Err(Error::from_io(ErrorCode::FileRead, format!("unable to read '{shown}'"), error));
                }
            }
        }
        self.contexts.push((check.compress_type, reader.into_context()));
        Ok(if hasher.finish() != check.checksum {
            Some(Fault::Checksum)
        } else if size != check.size {
            Some(Fault::Size)
        } else {
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use repo_format::compress::{Compression, Compressor};

    use super::*;
    use crate::storage::WriteOptions;
    use crate::storage::memory::MemoryStorage;

    fn stored(bytes: &[u8]) -> (MemoryStorage, FileCheck) {
        let storage = MemoryStorage::new();
        let path = RepoPath::new("backup/demo/x").unwrap();
        let mut writer = storage.write(&path, WriteOptions::ATOMIC).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap();
        let check = FileCheck {
            path,
            range: ReadRange::default(),
            cipher: Cipher::None,
            compress_type: CompressType::None,
            checksum: Sha1::of(b"content"),
            size: 7,
        };
        (storage, check)
    }

    fn fault(storage: &MemoryStorage, check: &FileCheck) -> Result<Option<Fault>> {
        FileChecker::new().check(storage, check, &CancelToken::new())
    }

    #[test]
    fn check_of_each_fault_names_it() {
        let (storage, check) = stored(b"content");
        assert_eq!(fault(&storage, &check).unwrap(), None);
        assert_eq!(fault(&storage, &FileCheck { size: 8, ..check.clone() }).unwrap(), Some(Fault::Size));
        let other = FileCheck { checksum: Sha1::of(b"other"), ..check.clone() };
        assert_eq!(fault(&storage, &other).unwrap(), Some(Fault::Checksum));
        let missing = FileCheck { path: RepoPath::new("backup/demo/y").unwrap(), ..check };
        assert_eq!(fault(&storage, &missing).unwrap(), Some(Fault::Missing));
    }

    #[test]
    fn check_of_a_file_that_decodes_to_far_more_than_its_size_ends() {
        let mut bytes = Vec::new();
        let mut compressor =
            Compressor::new(Compression::new(CompressType::Gz, Some(1)).unwrap(), Framing::Full).unwrap();
        for _ in 0..4 {
            compressor.push(&vec![0; 1 << 20], &mut bytes).unwrap();
        }
        let sum = Sha1::of(&vec![0; 4 << 20]);
        // Without its end: to be seen, that would have to be reached
        let (storage, check) = stored(&bytes);
        let check = FileCheck { compress_type: CompressType::Gz, checksum: sum, ..check };
        assert_eq!(fault(&storage, &check).unwrap(), Some(Fault::Size));
        assert_eq!(fault(&storage, &FileCheck { size: 2 << 20, ..check }).unwrap_err().code, ErrorCode::Format);
    }

    #[test]
    fn check_of_a_part_reads_only_that() {
        let (storage, check) = stored(b"before content after");
        let range = ReadRange { offset: 7, limit: Some(7) };
        assert_eq!(fault(&storage, &FileCheck { range, ..check }).unwrap(), None);
    }

    #[test]
    fn check_of_compressed_file_hashes_its_content() {
        let mut bytes = Vec::new();
        let compression = Compression::new(CompressType::Zst, None).unwrap();
        let mut compressor = Compressor::new(compression, Framing::Full).unwrap();
        compressor.push(b"content", &mut bytes).unwrap();
        compressor.finish(&mut bytes).unwrap();
        let (storage, check) = stored(&bytes);
        let check = FileCheck { compress_type: CompressType::Zst, ..check };
        assert_eq!(fault(&storage, &check).unwrap(), None);
        let (storage, _) = stored(&bytes[..bytes.len() - 1]);
        assert_eq!(fault(&storage, &check).unwrap_err().code, ErrorCode::Format);
    }
}
