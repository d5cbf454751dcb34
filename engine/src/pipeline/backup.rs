//! Copies files from a data directory into a repository.
//!
//! Source of the rules: pgBackRest `src/command/backup/file.c.inc`.

use std::fs::File;
use std::io::{Cursor, Read};
use std::sync::Arc;

use repo_format::block_map::BlockMap;
use repo_format::cipher::{self, Cipher, Framing};
use repo_format::compress::Compression;
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::layout::RepoPath;
use repo_format::pg::PgVersion;

use super::block_incr::{BlockIncr, BlockLayout, SuperBlockEncoders};
use super::budget::CoreBudget;
use super::encode::Encoder;
use super::page_check::{PageChecker, PageOutcome};
use crate::cancel::CancelToken;
use crate::pg::control_file;
use crate::pg::data_dir::{DataDir, PG_CONTROL, read_full};
use crate::storage::{ReadRange, RepoStorage, RepoWriter, WriteOptions};
use crate::{Error, ErrorCode, Result};

/// Plain bytes read at a time; a multiple of every page size.
const READ_BUFFER_BYTES: usize = 1 << 20;
/// Stored bytes gathered before they are written.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// What all copies of one backup have in common.
pub struct CopySettings {
    /// The repository.
    pub storage: Arc<dyn RepoStorage>,
    /// Data directories that jobs name by index: the primary's, then the standby's when there is one.
    pub data_dirs: Vec<DataDir>,
    /// Compression of all files.
    pub compression: Compression,
    /// Encryption with the backup's own passphrase.
    pub cipher: Cipher,
    /// Bundled files use raw framing.
    pub bundle_raw: bool,
    /// Index of this backup in the list of references, for block maps.
    pub reference: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// Check page headers beside the checksum.
    pub page_header_check: bool,
    /// Stored bytes up to which a file that did not change is noticed before anything is written.
    pub compare_buffer_bytes: usize,
    /// Take the cluster's version as given, not from `pg_control`.
    pub version_force: Option<PgVersion>,
    /// How the files are made durable.
    pub write_options: WriteOptions,
    /// Cores for super blocks.
    pub cores: CoreBudget,
}

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
    /// Empty by now, and in a bundle nothing is stored for that.
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

/// One worker's buffers and codecs, kept from file to file.
pub struct Copier<'a> {
    settings: &'a CopySettings,
    read_buffer: Vec<u8>,
    full: Encoder,
    raw: Option<Encoder>,
    super_blocks: SuperBlockEncoders,
    sink: Sink,
}

/// The file of a job in the repository. It is made when the first bytes are written, so that a bundle of unchanged files
/// leaves none.
#[derive(Default)]
struct Sink {
    writer: Option<Box<dyn RepoWriter>>,
    /// Bytes not written yet.
    pending: Vec<u8>,
    /// Where in `pending` the current file begins; 0 when some of it is written already.
    file_begin: usize,
    /// Whether bytes of the current file are written.
    file_written: bool,
    /// Bytes of complete files.
    offset: u64,
    /// Bytes of the current file so far written.
    file_size: u64,
    hasher: Option<Sha1Hasher>,
}

impl Sink {
    fn begin_job(&mut self) {
        *self = Sink { pending: std::mem::take(&mut self.pending), ..Sink::default() };
        self.pending.clear();
    }

    fn begin_file(&mut self, hash: bool) {
        self.file_begin = self.pending.len();
        self.file_written = false;
        self.file_size = 0;
        self.hasher = hash.then(Sha1Hasher::new);
    }

    /// Bytes of the current file that are not written yet.
    fn file_pending(&self) -> &[u8] {
        &self.pending[self.file_begin..]
    }

    fn flush(&mut self, settings: &CopySettings, path: &RepoPath) -> Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.pending[self.file_begin..]);
        }
        self.file_size += (self.pending.len() - self.file_begin) as u64;
        self.file_written |= self.pending.len() > self.file_begin;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            // Not atomic: resume checks sums
            none => none.insert(settings.storage.write(path, settings.write_options)?),
        };
        writer.write_all(&self.pending).map_err(|error| {
            let path = settings.storage.display(path);
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{path}'"), error)
        })?;
        self.pending.clear();
        self.file_begin = 0;
        Ok(())
    }

    /// Forgets the current file, of which nothing may be written yet.
    fn drop_file(&mut self) {
        self.pending.truncate(self.file_begin);
    }

    /// Ends the current file. Returns its stored size and their checksum.
    fn end_file(&mut self) -> (u64, Option<Sha1>) {
        let checksum = self.hasher.take().map(|mut hasher| {
            hasher.update(&self.pending[self.file_begin..]);
            hasher.finish()
        });
        let size = self.file_size + (self.pending.len() - self.file_begin) as u64;
        self.file_begin = self.pending.len();
        self.offset += size;
        (size, checksum)
    }

    /// Writes what is left. A job that stored nothing makes no file.
    fn end_job(&mut self, settings: &CopySettings, path: &RepoPath, stored: bool) -> Result<()> {
        if stored && (self.writer.is_none() || !self.pending.is_empty()) {
            self.file_begin = self.pending.len();
            self.flush(settings, path)?;
        }
        match self.writer.take() {
            Some(writer) => writer.finish(),
            None => Ok(()),
        }
    }
}

impl<'a> Copier<'a> {
    /// Buffers and codecs for one worker.
    ///
    /// # Errors
    /// The codec refuses the level.
    pub fn new(settings: &'a CopySettings) -> Result<Self> {
        Ok(Copier {
            settings,
            read_buffer: vec![0; READ_BUFFER_BYTES],
            full: Encoder::new(settings.compression, &settings.cipher, Framing::Full)?,
            raw: None,
            super_blocks: SuperBlockEncoders::new(settings.compression, settings.cipher.clone()),
            sink: Sink::default(),
        })
    }

    /// Copies the files of a job.
    ///
    /// # Errors
    /// A file can't be read or stored; what was written of the job must not be trusted. The job can be tried again with a new
    /// copier: this one may hold half a stream.
    pub fn run(&mut self, job: &CopyJob, cancel: &CancelToken) -> Result<Vec<FileResult>> {
        let _core = self.settings.cores.enter();
        self.sink.begin_job();
        let mut results = Vec::with_capacity(job.files.len());
        let mut stored = false;
        for file in &job.files {
            cancel.check()?;
            let outcome = self.file(job, file, cancel)?;
            stored |= matches!(outcome, FileOutcome::Copied(_));
            results.push(FileResult { index: file.index, outcome });
        }
        self.sink.end_job(self.settings, &job.path, stored)?;
        Ok(results)
    }

    fn file(&mut self, job: &CopyJob, file: &FileJob, cancel: &CancelToken) -> Result<FileOutcome> {
        let mut matches = None;
        if file.delta {
            match self.plain_checksum(job, file)? {
                None => {
                    if file.resume {
                        self.settings.storage.remove(&job.path)?;
                    }
                    return Ok(FileOutcome::Removed);
                }
                Some((size, checksum)) => {
                    let same = size == file.size && Some(checksum) == file.checksum;
                    if same && file.has_reference {
                        return Ok(FileOutcome::Unchanged { size, checksum });
                    }
                    matches = Some(same);
                }
            }
        }
        let mut repo_invalid = false;
        if file.resume && matches != Some(false) {
            let expected = file.checksum_repo.or(file.checksum);
            let found = self.stored_checksum(&job.path)?;
            match (found, expected, file.checksum) {
                (Some((size, found)), Some(expected), Some(checksum))
                    if size == file.size_repo && found == expected =>
                {
                    return Ok(FileOutcome::Resumed { size: file.size, checksum });
                }
                _ => repo_invalid = true,
            }
        }
        self.copy(job, file, repo_invalid, cancel)
    }

    /// Size and checksum of the file as it is now; `None` if it is gone.
    fn plain_checksum(&mut self, job: &CopyJob, file: &FileJob) -> Result<Option<(u64, Sha1)>> {
        let data_dir = &self.settings.data_dirs[job.data_dir];
        let Some(source) = data_dir.open(&file.name)? else {
            // Every other file may be dropped while the server runs
            if &*file.name == PG_CONTROL {
                let path = data_dir.file_path(&file.name);
                let text = format!("unable to open missing file '{}' for read", path.display());
                return Err(Error::new(ErrorCode::FileMissing, text));
            }
            return Ok(None);
        };
        let mut source = limited(source, file);
        let display = || self.settings.data_dirs[job.data_dir].file_path(&file.name).display().to_string();
        sum(&mut source, &mut self.read_buffer, &display).map(Some)
    }

    /// Size and checksum of the stored file; `None` if it is missing.
    fn stored_checksum(&mut self, path: &RepoPath) -> Result<Option<(u64, Sha1)>> {
        let Some(mut source) = self.settings.storage.read(path, ReadRange::default())? else { return Ok(None) };
        sum(&mut source, &mut self.read_buffer, &|| self.settings.storage.display(path)).map(Some)
    }

    fn copy(&mut self, job: &CopyJob, file: &FileJob, repo_invalid: bool, cancel: &CancelToken) -> Result<FileOutcome> {
        let settings = self.settings;
        let data_dir = &settings.data_dirs[job.data_dir];
        let mut source: Box<dyn Read> = if &*file.name == PG_CONTROL {
            Box::new(Cursor::new(control_file::read_bytes(data_dir.path(), settings.version_force)?.1))
        } else {
            match data_dir.open(&file.name)? {
                Some(source) => Box::new(limited(source, file)),
                None => return Ok(FileOutcome::Removed),
            }
        };
        let mut pages = file.page_check.then(|| {
            let path = data_dir.file_path(&file.name);
            PageChecker::new(path, &file.name, settings.page_size, settings.page_header_check)
        });

        let block_layout = file.block.as_ref().map(|block| BlockLayout {
            block_size: block.block_size,
            checksum_size: block.checksum_size,
            super_block_size: block.super_block_size,
            reference: settings.reference,
            bundle_id: job.bundle_id.unwrap_or(0),
            offset: self.sink.offset,
        });
        let raw = job.bundle_id.is_some() && settings.bundle_raw;
        let mut transform = match (&file.block, block_layout) {
            (Some(block), Some(layout)) => {
                let prior = match &block.prior {
                    Some(prior) => Some(read_prior_map(settings, file, block, prior)?),
                    None => None,
                };
                Transform::Blocks(BlockIncr::new(layout, prior, &mut self.super_blocks, &settings.cores)?)
            }
            _ if raw => Transform::Whole(match &mut self.raw {
                Some(raw) => raw,
                none => none.insert(Encoder::new(settings.compression, &settings.cipher, Framing::Raw)?),
            }),
            _ => Transform::Whole(&mut self.full),
        };

        let sink = &mut self.sink;
        sink.begin_file(transform.transforms());
        let mut hasher = Sha1Hasher::new();
        let mut size = 0;
        loop {
            let count = read_full(&mut source, &mut self.read_buffer).map_err(|error| {
                let path = data_dir.file_path(&file.name);
                Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", path.display()), error)
            })?;
            let data = &self.read_buffer[..count];
            size += count as u64;
            hasher.update(data);
            if let Some(pages) = &mut pages {
                pages.push(data)?;
            }
            transform.push(data, &mut sink.pending)?;
            if count < READ_BUFFER_BYTES {
                break;
            }
            cancel.check()?;
            if sink.file_pending().len() >= settings.compare_buffer_bytes {
                sink.flush(settings, &job.path)?;
            }
        }
        let map_size = transform.finish(&mut sink.pending)?;
        let checksum = hasher.finish();

        if !sink.file_written && sink.file_pending().len() < settings.compare_buffer_bytes.max(1) {
            if job.bundle_id.is_some() && size == 0 {
                sink.drop_file();
                return Ok(FileOutcome::Truncated);
            }
            if file.has_reference && size == file.size && Some(checksum) == file.checksum {
                sink.drop_file();
                return Ok(FileOutcome::Unchanged { size, checksum });
            }
        }
        let bundle_offset = sink.offset;
        let (size_repo, checksum_repo) = sink.end_file();
        if sink.pending.len() >= WRITE_BUFFER_BYTES {
            sink.flush(settings, &job.path)?;
        }
        Ok(FileOutcome::Copied(Copied {
            size,
            checksum,
            size_repo,
            checksum_repo,
            bundle_offset,
            map_size,
            pages: pages.map(PageChecker::finish),
            repo_invalid,
        }))
    }
}

/// How the bytes of one file become stored ones.
enum Transform<'a> {
    Whole(&'a mut Encoder),
    Blocks(BlockIncr<'a>),
}

impl Transform<'_> {
    fn transforms(&self) -> bool {
        match self {
            Transform::Whole(encoder) => encoder.transforms(),
            Transform::Blocks(_) => true,
        }
    }

    fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Transform::Whole(encoder) => encoder.push(data, out),
            Transform::Blocks(blocks) => blocks.push(data, out),
        }
    }

    /// Ends the stream. Returns the size of the block map for a block incremental file.
    fn finish(self, out: &mut Vec<u8>) -> Result<Option<u64>> {
        match self {
            Transform::Whole(encoder) => encoder.finish(out).map(|()| None),
            Transform::Blocks(blocks) => blocks.finish(out).map(Some),
        }
    }
}

fn limited(source: File, file: &FileJob) -> std::io::Take<File> {
    source.take(if file.exact_size { file.size_original } else { u64::MAX })
}

fn sum(source: &mut impl Read, buffer: &mut [u8], display: &dyn Fn() -> String) -> Result<(u64, Sha1)> {
    let mut hasher = Sha1Hasher::new();
    let mut size = 0;
    loop {
        let count = read_full(source, buffer)
            .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", display()), error))?;
        hasher.update(&buffer[..count]);
        size += count as u64;
        if count < buffer.len() {
            return Ok((size, hasher.finish()));
        }
    }
}

/// Reads the block map of the prior backup, telling in errors where it was read from: a mismatch between manifest and
/// repository is hard to find otherwise.
fn read_prior_map(settings: &CopySettings, file: &FileJob, block: &BlockJob, prior: &PriorMap) -> Result<BlockMap> {
    let read = || -> Result<BlockMap> {
        let range = ReadRange { offset: prior.offset, limit: Some(prior.size) };
        let Some(mut source) = settings.storage.read(&prior.path, range)? else {
            return Err(crate::storage::missing(&*settings.storage, &prior.path));
        };
        let mut stored = Vec::new();
        source
            .read_to_end(&mut stored)
            .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read", error))?;
        if stored.len() as u64 != prior.size {
            let message = format!("expected {} byte(s) but read {}", prior.size, stored.len());
            return Err(Error::new(ErrorCode::FileRead, message));
        }
        let plain = cipher::decrypt_framed(&settings.cipher, Framing::Raw, &stored)?;
        BlockMap::read(&plain, block.block_size, block.checksum_size)
    };
    read().map_err(|error| {
        error.context(format!(
            "unable to read block map for '{}' from '{}' at offset {} size {}",
            file.name,
            settings.storage.display(&prior.path),
            prior.offset,
            prior.size
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use repo_format::cipher::Passphrase;
    use repo_format::compress::{CompressType, Decompressor};

    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{get, put};

    fn settings(root: &Path, storage: &Arc<MemoryStorage>, kind: CompressType, cipher: Cipher) -> CopySettings {
        CopySettings {
            storage: storage.clone(),
            data_dirs: vec![DataDir::new(root)],
            compression: Compression::new(kind, None).unwrap(),
            cipher,
            bundle_raw: true,
            reference: 0,
            page_size: 8192,
            page_header_check: true,
            compare_buffer_bytes: 1 << 20,
            version_force: None,
            write_options: WriteOptions::IN_PLACE,
            cores: CoreBudget::new(4),
        }
    }

    fn file(name: &str, size: u64) -> FileJob {
        FileJob {
            index: 0,
            name: format!("pg_data/{name}").into(),
            size,
            size_original: size,
            exact_size: false,
            delta: false,
            resume: false,
            has_reference: false,
            checksum: None,
            checksum_repo: None,
            size_repo: 0,
            page_check: false,
            block: None,
        }
    }

    fn job(files: Vec<FileJob>, bundle_id: Option<u64>) -> CopyJob {
        CopyJob { path: RepoPath::new("file").unwrap(), bundle_id, data_dir: 0, files }
    }

    fn run(settings: &CopySettings, job: &CopyJob) -> Result<Vec<FileResult>> {
        Copier::new(settings)?.run(job, &CancelToken::new())
    }

    fn stored(storage: &MemoryStorage) -> Option<Vec<u8>> {
        get(storage, &RepoPath::new("file").unwrap(), u64::MAX >> 1).unwrap()
    }

    fn copied(result: &FileResult) -> &Copied {
        match &result.outcome {
            FileOutcome::Copied(copied) => copied,
            other => panic!("{other:?}"),
        }
    }

    /// Bytes that look like nothing but repeat in every run.
    fn noise(size: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..size).map(|_| next()).collect()
    }

    fn decode(stored: &[u8], kind: CompressType, cipher: &Cipher, framing: Framing) -> Vec<u8> {
        let plain = cipher::decrypt_framed(cipher, framing, stored).unwrap();
        if kind == CompressType::None {
            return plain;
        }
        let mut out = Vec::new();
        Decompressor::new(kind, framing, plain.as_slice()).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn bundle_of_files_in_every_form_decodes_to_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let contents = [noise(3_000_000), b"small".to_vec(), vec![7; 100_000], noise(1 << 20)];
        for (index, content) in contents.iter().enumerate() {
            std::fs::write(dir.path().join(index.to_string()), content).unwrap();
        }
        for kind in CompressType::ALL {
            for cipher in [Cipher::None, Cipher::Aes256Cbc(Passphrase::new("x"))] {
                let storage = Arc::new(MemoryStorage::new());
                let settings = settings(dir.path(), &storage, kind, cipher.clone());
                let files = contents
                    .iter()
                    .enumerate()
                    .map(|(n, content)| file(&n.to_string(), content.len() as u64))
                    .collect();
                let results = run(&settings, &job(files, Some(1))).unwrap();
                let stored = stored(&storage).unwrap();
                let mut offset = 0;
                for (result, content) in results.iter().zip(&contents) {
                    let copied = copied(result);
                    assert_eq!(copied.bundle_offset, offset);
                    let part = &stored[offset as usize..(offset + copied.size_repo) as usize];
                    assert_eq!(decode(part, kind, &cipher, Framing::Raw), *content, "{kind}");
                    assert_eq!(copied.checksum, Sha1::of(content));
                    let plain = kind == CompressType::None && cipher.is_none();
                    assert_eq!(copied.checksum_repo, (!plain).then(|| Sha1::of(part)));
                    offset += copied.size_repo;
                }
                assert_eq!(offset, stored.len() as u64);
            }
        }
    }

    #[test]
    fn unchanged_files_leave_no_bundle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"abc").unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let settings = settings(dir.path(), &storage, CompressType::Zst, Cipher::None);
        let known = FileJob { has_reference: true, checksum: Some(Sha1::of(b"abc")), ..file("a", 3) };
        for delta in [false, true] {
            let results = run(&settings, &job(vec![FileJob { delta, ..known.clone() }], Some(1))).unwrap();
            let unchanged = FileOutcome::Unchanged { size: 3, checksum: Sha1::of(b"abc") };
            assert_eq!(results[0].outcome, unchanged);
            assert_eq!(stored(&storage), None);
        }
        // With a changed one behind it the bundle begins with that
        std::fs::write(dir.path().join("b"), b"xyz").unwrap();
        let results = run(&settings, &job(vec![known, file("b", 3)], Some(1))).unwrap();
        assert_eq!(copied(&results[1]).bundle_offset, 0);
    }

    #[test]
    fn vanished_and_truncated_files_are_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), b"").unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let settings = settings(dir.path(), &storage, CompressType::Gz, Cipher::None);
        let results = run(&settings, &job(vec![file("gone", 5), file("empty", 5)], Some(1))).unwrap();
        assert_eq!(results[0].outcome, FileOutcome::Removed);
        assert_eq!(results[1].outcome, FileOutcome::Truncated);
        assert_eq!(stored(&storage), None);
        // Alone, an empty file is stored as one
        let results = run(&settings, &job(vec![file("empty", 5)], None)).unwrap();
        assert_eq!(copied(&results[0]).size, 0);
        assert_eq!(decode(&stored(&storage).unwrap(), CompressType::Gz, &Cipher::None, Framing::Full), b"");
    }

    #[test]
    fn grown_file_is_read_to_the_size_of_the_scan_only_if_wal_replays_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"0123456789").unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
        for (exact_size, expected) in [(true, 4), (false, 10)] {
            let results = run(&settings, &job(vec![FileJob { exact_size, ..file("a", 4) }], None)).unwrap();
            assert_eq!(copied(&results[0]).size, expected);
            assert_eq!(stored(&storage).unwrap().len() as u64, expected);
        }
    }

    #[test]
    fn resumed_file_counts_only_with_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"abc").unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
        let known = FileJob { resume: true, checksum: Some(Sha1::of(b"abc")), size_repo: 3, ..file("a", 3) };
        let path = RepoPath::new("file").unwrap();
        for (content, delta, expected) in
            [("abc", false, true), ("abc", true, true), ("abd", false, false), ("abcd", true, false)]
        {
            put(&*storage, &path, content.as_bytes(), WriteOptions::IN_PLACE).unwrap();
            let results = run(&settings, &job(vec![FileJob { delta, ..known.clone() }], None)).unwrap();
            match &results[0].outcome {
                FileOutcome::Resumed { size: 3, .. } => assert!(expected, "{content}"),
                FileOutcome::Copied(copied) => assert!(copied.repo_invalid && !expected, "{content}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(stored(&storage).unwrap(), b"abc");
        }
        // The file changed since: what is stored is of no use, which is no sign of a damaged repository
        std::fs::write(dir.path().join("a"), b"abx").unwrap();
        let results = run(&settings, &job(vec![FileJob { delta: true, ..known }], None)).unwrap();
        assert!(!copied(&results[0]).repo_invalid);
    }

    #[test]
    fn control_file_that_is_missing_is_an_error_and_not_a_dropped_file() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
        for delta in [false, true] {
            let results = run(&settings, &job(vec![FileJob { delta, ..file("base/1/1", 3) }], None)).unwrap();
            assert_eq!(results[0].outcome, FileOutcome::Removed);
            let control = FileJob { delta, ..file("global/pg_control", 8192) };
            assert_eq!(run(&settings, &job(vec![control], None)).unwrap_err().code, ErrorCode::FileMissing);
        }
    }

    /// Reads a block incremental file back through its map.
    fn rebuild(storage: &MemoryStorage, paths: &[RepoPath], map: &BlockMap, settings: &CopySettings) -> Vec<u8> {
        let mut out = Vec::new();
        for block in &map.0 {
            let file = get(storage, &paths[block.reference as usize], u64::MAX >> 1).unwrap().unwrap();
            let part = &file[block.offset as usize..(block.offset + block.size) as usize];
            let plain = decode(part, settings.compression.kind, &settings.cipher, Framing::Raw);
            assert_eq!(plain.len() as u64, block.super_block_size);
            let begin = block.block as usize * 8192;
            out.extend_from_slice(&plain[begin..plain.len().min(begin + 8192)]);
        }
        out
    }

    fn map_of(storage: &MemoryStorage, path: &RepoPath, map_size: u64, settings: &CopySettings) -> BlockMap {
        let file = get(storage, path, u64::MAX >> 1).unwrap().unwrap();
        let map = &file[file.len() - map_size as usize..];
        BlockMap::read(&cipher::decrypt_framed(&settings.cipher, Framing::Raw, map).unwrap(), 8192, 6).unwrap()
    }

    #[test]
    fn block_incremental_chain_rebuilds_every_state() {
        let dir = tempfile::tempdir().unwrap();
        let base = noise(1_000_000);
        let mut changed = base.clone();
        changed[100_000..100_010].fill(1);
        changed[900_000..900_010].fill(1);
        let mut grown = changed.clone();
        grown.extend_from_slice(&noise(50_000));
        let states = [base.clone(), changed, grown, base[..300_001].to_vec()];
        for cores in [0, 4] {
            for (kind, cipher) in
                [(CompressType::None, Cipher::None), (CompressType::Lz4, Cipher::Aes256Cbc(Passphrase::new("x")))]
            {
                let storage = Arc::new(MemoryStorage::new());
                let mut settings = settings(dir.path(), &storage, kind, cipher);
                settings.cores = CoreBudget::new(cores);
                let mut prior: Option<PriorMap> = None;
                let mut paths = Vec::new();
                for (number, state) in states.iter().enumerate() {
                    settings.reference = number as u32;
                    std::fs::write(dir.path().join("a"), state).unwrap();
                    let block = BlockJob { block_size: 8192, checksum_size: 6, super_block_size: 60_000, prior };
                    let path = RepoPath::new(format!("backup{number}")).unwrap();
                    let mut job = job(vec![FileJob { block: Some(block), ..file("a", 1) }], None);
                    job.path = path.clone();
                    let results = run(&settings, &job).unwrap();
                    let result = copied(&results[0]);
                    let map_size = result.map_size.unwrap();
                    assert!(number == 0 || result.size_repo < 200_000, "{number} {}", result.size_repo);
                    paths.push(path.clone());
                    let map = map_of(&storage, &path, map_size, &settings);
                    assert_eq!(rebuild(&storage, &paths, &map, &settings), *state, "{number}");
                    prior = Some(PriorMap { path, offset: result.size_repo - map_size, size: map_size });
                }
            }
        }
    }

    #[test]
    fn block_incremental_file_without_change_stores_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let content = noise(2_500_000);
        std::fs::write(dir.path().join("a"), &content).unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let settings = settings(dir.path(), &storage, CompressType::Zst, Cipher::None);
        let block = BlockJob { block_size: 16_384, checksum_size: 6, super_block_size: 1 << 20, prior: None };
        let size = content.len() as u64;
        let first = FileJob { block: Some(block.clone()), ..file("a", size) };
        let results = run(&settings, &job(vec![first.clone()], None)).unwrap();
        let result = copied(&results[0]).clone();
        let path = RepoPath::new("file").unwrap();
        let prior =
            PriorMap { path, offset: result.size_repo - result.map_size.unwrap(), size: result.map_size.unwrap() };
        let second = FileJob {
            block: Some(BlockJob { prior: Some(prior.clone()), ..block.clone() }),
            has_reference: true,
            checksum: Some(Sha1::of(&content)),
            ..first.clone()
        };
        let mut again = job(vec![second], None);
        again.path = RepoPath::new("again").unwrap();
        let results = run(&settings, &again).unwrap();
        assert!(matches!(results[0].outcome, FileOutcome::Unchanged { .. }));
        assert_eq!(get(&*storage, &again.path, 1).unwrap(), None);

        // A map that is not where the manifest says is an error that tells where it was looked for
        let wrong = PriorMap { size: prior.size + 5, ..prior };
        let bad = FileJob { block: Some(BlockJob { prior: Some(wrong), ..block }), ..first };
        let error = run(&settings, &job(vec![bad], None)).unwrap_err();
        assert!(error.message.starts_with("unable to read block map for 'pg_data/a' from "), "{error}");
    }
}
