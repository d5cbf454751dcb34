//! Checks the bytes of one stored file.

use std::io::{BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use repo_format::block_map::BlockMap;
use repo_format::cipher::{Cipher, Decryptor};
use repo_format::compress::{CompressType, DecompressContext, Decompressor, Framing};
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::label::BackupLabel;
use repo_format::layout::{self, FileForm, RepoPath, Stanza};
use repo_format::manifest::BlockIncr;
use repo_format::read::read_some;

use crate::pipeline::block_delta::{self, BlockFile};
use crate::storage::{ReadRange, RepoStorage, StoredContent};
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Result, decode};

/// Bytes hashed at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// The number of bytes beyond twice a file's size that are decoded: a damaged file may have any checksum, and a few
/// bytes may decode to terabytes.
const SIZE_MORE_MAX: u64 = 1 << 20;

/// The largest stored block map in bytes that is kept while the file is read. A larger one is read again, so that a manifest
/// can't make each worker keep any number of bytes. It belongs to a file of several GiB.
const MAP_BYTES_MAX: u64 = 4 << 20;

/// Why a file is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// It is missing.
    Missing,
    /// Its checksum is another one.
    Checksum,
    /// Its size is another one.
    Size,
    /// It could not be read or decoded.
    Other,
}

impl FileFault {
    /// Returns pgBackRest's text for it.
    pub fn text(self) -> &'static str {
        match self {
            FileFault::Missing => "file missing",
            FileFault::Checksum => "invalid checksum",
            FileFault::Size => "invalid size",
            FileFault::Other => "invalid result",
        }
    }
}

/// A part of a stored file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredPart {
    /// The file's path in the repository.
    pub path: String,
    /// Where the part begins, in bytes.
    pub start: u64,
    /// Where the part ends; the maximum number means the end of the file.
    pub end: u64,
}

/// The block map at the end of a stored file.
#[derive(Clone, Debug)]
pub struct BlockCheck {
    /// The manifest's data about the blocks.
    pub block: BlockIncr,
    /// The size of the file in bytes.
    pub file_size: u64,
    /// How the map is encrypted.
    pub cipher: Cipher,
    /// The stanza.
    pub stanza: Stanza,
    /// The backup that holds the stored file.
    pub holder: BackupLabel,
    /// The file's name in the manifest.
    pub name: Box<str>,
    /// The backups that the map may refer to.
    pub references: Arc<Vec<BackupLabel>>,
}

/// The result for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What is wrong with its stored bytes.
    pub fault: Option<FileFault>,
    /// The parts of other files that it can't be restored without.
    pub needs: Vec<StoredPart>,
}

/// Bytes to check, and what they should be.
#[derive(Clone, Debug)]
pub struct FileCheck {
    /// The file in the repository.
    pub path: RepoPath,
    /// The part of it.
    pub range: ReadRange,
    /// How the file is encrypted; [`Cipher::None`] if the checksum is that of the stored bytes.
    pub cipher: Cipher,
    /// How the file is compressed; none if the checksum is that of the stored bytes.
    pub compress_type: CompressType,
    /// The checksum expected.
    pub checksum: Sha1,
    /// The expected size in bytes, if it is known.
    pub size: Option<u64>,
    /// The size that is stored in bytes, if the manifest tells.
    pub stored_size: Option<u64>,
    /// The block map in it, if it has one.
    pub block: Option<BlockCheck>,
}

impl FileCheck {
    /// The part that is read.
    pub fn part(&self) -> StoredPart {
        let start = self.range.offset;
        let end = self.range.limit.map_or(u64::MAX, |limit| start.saturating_add(limit));
        StoredPart { path: self.path.as_str().to_owned(), start, end }
    }

    /// Returns where the block map begins, in bytes from the start of the part; `None` without one.
    fn map_start(&self) -> std::result::Result<Option<u64>, FileFault> {
        let Some(check) = &self.block else { return Ok(None) };
        let map_size = check.block.map_size;
        match self.size.and_then(|size| size.checked_sub(map_size)) {
            Some(start) if map_size <= check.block_file().map_size_max() => Ok(Some(start)),
            _ => Err(FileFault::Size),
        }
    }
}

impl BlockCheck {
    /// Whether the map is kept while the file is read.
    fn keeps_map(&self) -> bool {
        self.block.map_size <= MAP_BYTES_MAX
    }

    /// Reads the map, which begins there in the part, for what it refers to.
    fn checked(&self, storage: &dyn RepoStorage, check: &FileCheck, start: u64) -> Result<Checked> {
        let offset = check.range.offset.saturating_add(start);
        let range = ReadRange { offset, limit: Some(self.block.map_size) };
        Ok(match storage.read(&check.path, range)? {
            Some(stored) => Checked { fault: None, needs: self.needs(stored)? },
            None => Checked { fault: Some(FileFault::Missing), needs: Vec::new() },
        })
    }

    /// Checks the map as a restore does, and returns what it refers to in other backups.
    fn needs(&self, stored: impl Read) -> Result<Vec<StoredPart>> {
        let map = BufReader::new(Decryptor::new(&self.cipher, Framing::Raw, stored));
        let file = self.block_file();
        let (size, checksum_size) = (self.block.size, self.block.checksum_size);
        let map = BlockMap::read_from(map, size, checksum_size, file.block_total())?;
        let plan = block_delta::plan(&map, &file, &[], 0)?;
        let mut needs = Vec::new();
        for read in plan.reads {
            let unknown = || Error::new(ErrorCode::Format, "block map refers to an unknown backup");
            let label = self.references.get(read.reference).ok_or_else(unknown)?;
            if *label != self.holder {
                let path = match read.bundle_id {
                    0 => layout::backup_file(&self.stanza, label, &self.name, FileForm::BlockIncr)?,
                    bundle_id => layout::bundle(&self.stanza, label, bundle_id),
                };
                let end = read.offset.saturating_add(read.size);
                needs.push(StoredPart { path: path.as_str().to_owned(), start: read.offset, end });
            }
        }
        Ok(needs)
    }

    fn block_file(&self) -> BlockFile {
        BlockFile {
            size: self.file_size,
            block_size: u64::from(self.block.size),
            checksum_size: usize::from(self.block.checksum_size),
            reference_total: self.references.len(),
        }
    }
}

/// Buffers that a worker keeps from file to file.
pub struct FileChecker<'a> {
    /// The turn to compute of the thread that checks.
    turn: Turn,
    /// Where the thread reads files, if there are more threads than may read at a time.
    place: Option<&'a Mutex<()>>,
    buffer: Box<[u8]>,
    contexts: Vec<(CompressType, DecompressContext)>,
}

impl<'a> FileChecker<'a> {
    /// A checker that has read nothing yet. With a `place`, only one of those with the same one reads a file at a time, and it
    /// keeps nothing.
    pub fn new(turn: &Turn, place: Option<&'a Mutex<()>>) -> Self {
        FileChecker { turn: turn.clone(), place, buffer: Box::default(), contexts: Vec::new() }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// It can't be read or decoded.
    pub fn check(&mut self, storage: &dyn RepoStorage, check: &FileCheck, cancel: &CancelToken) -> Result<Checked> {
        let found = |fault| Ok(Checked { fault: Some(fault), needs: Vec::new() });
        let map_start = match check.map_start() {
            Ok(start) => start,
            Err(fault) => return found(fault),
        };
        if is_good(storage, check, cancel) {
            return match (&check.block, map_start) {
                (Some(block), Some(map_start)) => block.checked(storage, check, map_start),
                _ => Ok(Checked::default()),
            };
        }
        let _place = self.place.map(|place| self.turn.waiting(|| place.lock().unwrap_or_else(PoisonError::into_inner)));
        let Some(stored) = storage.read(&check.path, check.range)? else { return found(FileFault::Missing) };
        let content = self.read(storage, check, stored, cancel);
        if self.place.is_some() {
            (self.buffer, self.contexts) = (Box::default(), Vec::new());
        }
        let Some(content) = content? else { return found(FileFault::Size) };
        if content.checksum != check.checksum {
            return found(FileFault::Checksum);
        }
        if check.size.is_some_and(|expected| expected != content.size) {
            return found(FileFault::Size);
        }
        let (Some(block), Some(map_start)) = (&check.block, map_start) else { return Ok(Checked::default()) };
        if block.keeps_map() {
            return Ok(Checked { fault: None, needs: block.needs(content.map.as_slice())? });
        }
        block.checked(storage, check, map_start)
    }

    /// Reads only the block map of a file, for the parts of other files that it needs.
    ///
    /// # Errors
    /// It can't be read or decoded.
    pub fn check_map(&mut self, storage: &dyn RepoStorage, check: &FileCheck) -> Result<Checked> {
        match (&check.block, check.map_start()) {
            (Some(block), Ok(Some(start))) => block.checked(storage, check, start),
            (_, Err(fault)) => Ok(Checked { fault: Some(fault), needs: Vec::new() }),
            (_, Ok(_)) => Ok(Checked::default()),
        }
    }

    /// Reads a file to its end, and keeps its block map if the check says so. Returns `None` if the file is far larger
    /// than expected.
    fn read(
        &mut self,
        storage: &dyn RepoStorage,
        check: &FileCheck,
        stored: impl Read,
        cancel: &CancelToken,
    ) -> Result<Option<ReadContent>> {
        let map_start = check.map_start().ok().flatten();
        let map_start = map_start.filter(|_| check.block.as_ref().is_some_and(BlockCheck::keeps_map));
        let context = match self.contexts.iter().position(|(kind, _)| *kind == check.compress_type) {
            Some(index) => self.contexts.swap_remove(index).1,
            None => decode::context(check.compress_type, Framing::Full, &self.turn)?,
        };
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        }
        let size_max = check.size.map_or(u64::MAX, |size| size.saturating_mul(2).saturating_add(SIZE_MORE_MAX));
        let decryptor = Decryptor::new(&check.cipher, Framing::Full, stored);
        let mut reader = Decompressor::with_context(context, decryptor).reading_at_most(size_max);
        let mut hasher = Sha1Hasher::new();
        let (mut size, mut map) = (0u64, Vec::new());
        loop {
            cancel.check()?;
            if size > size_max {
                return Ok(None);
            }
            let read = read_some(&mut reader, &mut self.buffer).map_err(|error| {
                let shown = storage.display(&check.path);
                Error::from_io(ErrorCode::FileRead, format!("unable to read '{shown}'"), error)
            })?;
            if read == 0 {
                break;
            }
            let bytes = &self.buffer[..read];
            hasher.update(bytes);
            if let Some(start) = map_start.filter(|_| check.size.is_some_and(|expected| size < expected)) {
                let skip = usize::try_from(start.saturating_sub(size)).unwrap_or(usize::MAX);
                map.extend_from_slice(bytes.get(skip..).unwrap_or_default());
            }
            size += read as u64;
        }
        self.contexts.push((check.compress_type, reader.into_context()?));
        Ok(Some(ReadContent { checksum: hasher.finish(), size, map }))
    }
}

/// Returns whether a file was found good beside the data. If not, reading it here tells what is wrong with it.
fn is_good(storage: &dyn RepoStorage, check: &FileCheck, cancel: &CancelToken) -> bool {
    if !storage.sums() {
        return false;
    }
    let FileCheck { path, range, cipher, compress_type, .. } = check;
    let content = StoredContent { path, range: *range, cipher, compress_type: *compress_type, cancel };
    let why = match storage.sum(&content) {
        Ok(Some(sum)) if sum.checksum == check.checksum && check.size.is_none_or(|size| size == sum.size) => {
            return true;
        }
        Ok(Some(_)) => "its checksum or size is another one".to_owned(),
        Ok(None) => "it is missing, or can't be summed up there".to_owned(),
        Err(error) => error.to_string(),
    };
    crate::debug!("'{}' is read here: {why}", storage.display(path));
    false
}

/// What a file was read as.
struct ReadContent {
    checksum: Sha1,
    size: u64,
    /// The block map, if it was to be kept.
    map: Vec<u8>,
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
            size: Some(7),
            stored_size: None,
            block: None,
        };
        (storage, check)
    }

    fn fault(storage: &MemoryStorage, check: &FileCheck) -> Result<Option<FileFault>> {
        FileChecker::new(&Turn::FREE, None).check(storage, check, &CancelToken::new()).map(|checked| checked.fault)
    }

    #[test]
    fn check_of_each_fault_names_it() {
        let (storage, check) = stored(b"content");
        assert_eq!(fault(&storage, &check).unwrap(), None);
        assert_eq!(fault(&storage, &FileCheck { size: Some(8), ..check.clone() }).unwrap(), Some(FileFault::Size));
        let other = FileCheck { checksum: Sha1::of(b"other"), ..check.clone() };
        assert_eq!(fault(&storage, &other).unwrap(), Some(FileFault::Checksum));
        let missing = FileCheck { path: RepoPath::new("backup/demo/y").unwrap(), ..check };
        assert_eq!(fault(&storage, &missing).unwrap(), Some(FileFault::Missing));
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
        // Without its end, which would have to be read to detect that
        let (storage, check) = stored(&bytes);
        let check = FileCheck { compress_type: CompressType::Gz, checksum: sum, ..check };
        assert_eq!(fault(&storage, &check).unwrap(), Some(FileFault::Size));
        assert_eq!(fault(&storage, &FileCheck { size: Some(2 << 20), ..check }).unwrap_err().code, ErrorCode::Format);
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
