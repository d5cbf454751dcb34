//! Copies WAL into a backup (`archive-copy`).

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use repo_format::archive_info::ArchiveInfo;
use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::compress::{CompressType, Compression};
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::layout::{self, FileForm, Stanza};
use repo_format::manifest::{Manifest, ManifestFile, PG_DATA};
use repo_format::wal_name::WalSegment;

use crate::pipeline::encode::StreamEncoder;
use crate::repo::archive_find::FoundSegment;
use crate::repo::{Repo, info_files};
use crate::storage::{self, ReadRange, WriteOptions};
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result, decode};

/// Bytes of WAL that are in memory at a time.
const COPY_BUFFER_BYTES: usize = 1 << 20;

/// Bytes that were read and not taken yet.
#[derive(Clone, Default)]
struct Taken(Rc<RefCell<Vec<u8>>>);

impl Taken {
    fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

/// Passes on what it reads, and keeps a copy.
struct Keeping<R> {
    inner: R,
    taken: Option<Taken>,
}

impl<R: Read> Read for Keeping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(taken) = &self.taken {
            taken.0.borrow_mut().extend_from_slice(&buffer[..count]);
        }
        Ok(count)
    }
}

/// The WAL that a backup needs.
pub(super) struct Wal<'a> {
    pub(super) archive: &'a ArchiveInfo,
    pub(super) segments: &'a [WalSegment],
    /// Bytes of a segment.
    pub(super) segment_size: u32,
}

/// Copies segments from the archive into a backup.
pub(super) struct WalCopy<'a> {
    pub(super) repo: &'a Repo,
    pub(super) stanza: &'a Stanza,
    /// Compression of the backup.
    pub(super) compression: Compression,
    pub(super) wal: &'a Wal<'a>,
}

/// A segment in the archive, being decoded.
struct Stored {
    reader: Box<dyn Read>,
    /// The stored bytes, if they are copied unchanged. They are decoded in any case.
    taken: Option<Taken>,
}

/// What was read and written.
struct Transferred {
    checksum: Sha1,
    size: u64,
    size_repo: u64,
}

impl WalCopy<'_> {
    /// Copies a segment, if its content matches its name.
    ///
    /// # Errors
    /// [`ErrorCode::Checksum`] if it does not, and errors of reading and writing.
    pub(super) fn copy(&self, manifest: &mut Manifest, segment: &WalSegment, found: &FoundSegment) -> Result<()> {
        let storage = &*self.repo.storage;
        let name = format!("{PG_DATA}/{}/{segment}", manifest.data.pg_version.wal_dir());
        let form = FileForm::Whole(self.compression.kind);
        let path = layout::backup_file(self.stanza, &manifest.data.label, &name, form)?;
        let mut stored = self.open(found)?;
        let compression = if stored.taken.is_some() { Compression::NONE } else { self.compression };
        let cipher = Cipher::from_passphrase(manifest.cipher_pass.as_ref());
        let mut encoder = StreamEncoder::new(compression, &cipher, Framing::Full)?;
        let mut writer = storage.write(&path, WriteOptions::ATOMIC)?;
        let size_max = u64::from(self.wal.segment_size);
        let done = transfer(&mut stored, &mut encoder, &mut *writer, size_max).map_err(|failure| {
            let (path, error) = match failure {
                Failure::Read(error) => (&found.path, error),
                Failure::Write(error) => (&path, error),
                Failure::Encode(error) => return error,
            };
            Error::from_io(ErrorCode::FileRead, format!("unable to copy '{}'", storage.display(path)), error)
        })?;
        // Checked before the file gets its name: a backup with a segment that does not match its name can't be restored
        if done.checksum != found.name.checksum || done.size != size_max {
            let path = storage.display(&found.path);
            let text = format!("WAL segment '{path}' in the archive is damaged: its content does not match its name");
            return Err(Error::new(ErrorCode::Checksum, text)
                .hint("use the verify command to find what else is damaged.")
                .hint("a new backup does not need this segment."));
        }
        writer.finish()?;
        let file = ManifestFile {
            size_repo: done.size_repo,
            checksum: Some(found.name.checksum),
            ..ManifestFile::new(&name, done.size, manifest.data.timestamp_stop)
        };
        add_file(manifest, file);
        Ok(())
    }

    fn open(&self, found: &FoundSegment) -> Result<Stored> {
        let storage = &*self.repo.storage;
        let stored = storage.read(&found.path, ReadRange::default())?;
        let stored = stored.ok_or_else(|| storage::missing(storage, &found.path))?;
        let cipher = info_files::archive_cipher(self.repo, self.stanza, self.wal.archive);
        let decrypted = Decryptor::new(&cipher, Framing::Full, stored);
        let taken = (found.name.compress_type == self.compression.kind).then(Taken::default);
        let kept = Keeping { inner: decrypted, taken: taken.clone() };
        let reader: Box<dyn Read> = match found.name.compress_type {
            CompressType::None => Box::new(kept),
            stored => Box::new(decode::decompressor(stored, kept, u64::from(self.wal.segment_size), &Turn::FREE)?),
        };
        Ok(Stored { reader, taken })
    }
}

/// Adds a file that was not in the scan, with owner and mode of the data directory.
pub(super) fn add_file(manifest: &mut Manifest, mut file: ManifestFile) {
    if let Some(base) = manifest.base_path() {
        (file.mode, file.user, file.group) = (base.mode & 0o644, base.user, base.group);
    }
    match manifest.files.binary_search_by(|known| known.name.cmp(&file.name)) {
        Ok(index) => manifest.files[index] = file,
        Err(index) => manifest.files.insert(index, file),
    }
}

/// Why a transfer failed.
enum Failure {
    Read(io::Error),
    Write(io::Error),
    Encode(Error),
}

/// Encodes a segment and writes it, until its end or until it is larger than a segment.
fn transfer(
    stored: &mut Stored,
    encoder: &mut StreamEncoder,
    writer: &mut dyn Write,
    size_max: u64,
) -> std::result::Result<Transferred, Failure> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    let mut out = Vec::new();
    let (mut hasher, mut size, mut size_repo) = (Sha1Hasher::new(), 0, 0);
    loop {
        let count = stored.reader.read(&mut buffer).map_err(Failure::Read)?;
        hasher.update(&buffer[..count]);
        size += count as u64;
        // A few stored bytes may decode to any size. The caller refuses the wrong size
        if size > size_max {
            break;
        }
        match &stored.taken {
            Some(taken) => encoder.push(&taken.take(), &mut out),
            None => encoder.push(&buffer[..count], &mut out),
        }
        .and_then(|()| if count == 0 { encoder.finish(&mut out) } else { Ok(()) })
        .map_err(Failure::Encode)?;
        size_repo += out.len() as u64;
        writer.write_all(&out).map_err(Failure::Write)?;
        out.clear();
        if count == 0 {
            break;
        }
    }
    Ok(Transferred { checksum: hasher.finish(), size, size_repo })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use repo_format::compress::Decompressor;

    use repo_format::compress::Compressor;
    use repo_format::label::BackupType;
    use repo_format::manifest::ManifestData;
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::CancelToken;
    use crate::backup::label;
    use crate::repo::archive_find::WalSegmentFind;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{get, put};

    const SIZE: usize = 1 << 20;
    const SEGMENT: &str = "000000010000000000000001";

    fn compressed(kind: CompressType, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut compressor = Compressor::new(Compression::new(kind, None).unwrap(), Framing::Full).unwrap();
        compressor.push(content, &mut out).unwrap();
        compressor.finish(&mut out).unwrap();
        out
    }

    /// Copies a segment that is stored in one form into a backup of another form, and returns the content of the copy.
    fn copy(from: CompressType, to: CompressType, stored: &[u8], named_after: &[u8]) -> Result<Vec<u8>> {
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
        let stanza: Stanza = "demo".parse().unwrap();
        let archive = ArchiveInfo::new(PgVersion::V15, 1, None);
        let archive_id = archive.current().archive_id();
        let name = format!("{SEGMENT}-{}{}", Sha1::of(named_after), from.extension());
        let path = layout::archive_file(&stanza, archive_id, &name).unwrap();
        put(&*repo.storage, &path, stored, WriteOptions::ATOMIC).unwrap();

        let segment: WalSegment = SEGMENT.parse().unwrap();
        let cancel = CancelToken::new();
        let mut find = WalSegmentFind::new(&*repo.storage, &stanza, archive_id, Duration::ZERO, &cancel);
        let found = find.find(&segment, false).unwrap().unwrap();
        let label = label::preliminary(1_700_000_000).unwrap();
        let data = ManifestData::new(label, BackupType::Full, 1_700_000_000, PgVersion::V15, 202_209_061);
        let mut manifest = Manifest::new(data);
        let wal = Wal { archive: &archive, segments: &[segment], segment_size: SIZE as u32 };
        let compression = Compression::new(to, None).unwrap();
        let copier = WalCopy { repo: &repo, stanza: &stanza, compression, wal: &wal };
        let done = copier.copy(&mut manifest, &segment, &found);
        let name = format!("pg_data/pg_wal/{SEGMENT}");
        let path = layout::backup_file(&stanza, &manifest.data.label, &name, FileForm::Whole(to)).unwrap();
        let stored = get(&*repo.storage, &path, 1 << 30).unwrap();
        assert_eq!(done.is_ok(), stored.is_some());
        assert_eq!(done.is_ok(), manifest.files.iter().any(|file| file.size == SIZE as u64));
        done.map(|()| stored.unwrap())
    }

    #[test]
    fn segment_is_copied_as_it_is_stored_or_compressed_anew() {
        let content: Vec<u8> = (0..SIZE).map(|at| (at >> 5) as u8).collect();
        let kinds = [CompressType::None, CompressType::Gz, CompressType::Lz4];
        for from in kinds {
            let stored = compressed(from, &content);
            assert!(copy(from, from, &stored, &content).unwrap() == stored, "{from:?}");
            for to in kinds {
                let copied = copy(from, to, &stored, &content).unwrap();
                let mut decoded = Vec::new();
                match to {
                    CompressType::None => decoded = copied,
                    to => {
                        let mut reader = Decompressor::new(to, Framing::Full, copied.as_slice()).unwrap();
                        reader.read_to_end(&mut decoded).map(drop).unwrap();
                    }
                }
                assert!(decoded == content, "{from:?} {to:?}");
            }
        }
    }

    #[test]
    fn damaged_segment_of_the_archive_ends_the_copy() {
        let content = vec![7; SIZE];
        let mut other = content.clone();
        other[SIZE / 2] = 8;
        for (from, to) in [
            (CompressType::None, CompressType::None),
            (CompressType::Gz, CompressType::Gz),
            (CompressType::Gz, CompressType::Lz4),
        ] {
            let error = copy(from, to, &compressed(from, &other), &content).unwrap_err();
            assert_eq!(error.code, ErrorCode::Checksum, "{error}");
            // A segment that ends early
            let short = compressed(from, &content[..SIZE / 2]);
            assert_eq!(copy(from, to, &short, &content[..SIZE / 2]).unwrap_err().code, ErrorCode::Checksum);
        }
    }
}
