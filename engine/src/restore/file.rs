//! Restores the files of a job: determines which ones already match, then copies the others from the repository.

mod blocks;

use std::fs::{File, Metadata};
use std::io::{BufReader, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use repo_format::cipher::Cipher;
use repo_format::compress::Framing;
use repo_format::hash::Sha1;
use repo_format::layout::{self, FileForm, RepoPath, Stanza};
use repo_format::manifest::{BlockIncr, Manifest, ManifestFile};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::clean::MODE_MASK;
use super::names::{restored_name, restored_path};
use super::ownership::{Owner, Ownership};
use super::places::{Place, Places, regular};
use super::queue::RestoreJob;
use super::select_db::{self, ZeroFilter};
use super::sync::SyncSet;
use crate::pipeline::LONG_MIN_BYTES;
use crate::pipeline::restore::{BlockGeometry, OutFile, RestorePipeline};
use crate::storage::on_turn::OnTurn;
use crate::storage::page_cache::PageCache;
use crate::storage::read_ahead::{PendingRead, ReadQueue};
use crate::storage::{ReadRange, RepoReader, RepoStorage};
use crate::{CancelToken, Error, ErrorCode, Result};

/// Stored block incremental files up to this size are read as a whole, with the files before and after them.
const MEMBER_SIZE_MAX: u64 = 4 * 1024 * 1024;

/// Bytes requested from the storage at a time if files are smaller.
const READ_BUFFER_BYTES: u64 = 256 * 1024;

/// Bytes of a page of PostgreSQL.
const PAGE_BYTES: usize = 8192;

/// What all workers of a restore share.
pub(crate) struct FileContext<'a> {
    /// The backup.
    pub manifest: &'a Manifest,
    /// Where it is stored.
    pub storage: &'a dyn RepoStorage,
    /// Its stanza.
    pub stanza: &'a Stanza,
    /// The data directory, for messages.
    pub pg_path: &'a str,
    /// The target directories.
    pub places: &'a Places,
    /// What makes it durable. Tests of single files do without.
    pub(super) file_systems: Option<&'a SyncSet<'a>>,
    /// Owners of the files.
    pub ownership: &'a Ownership,
    /// Files that are only zeros.
    pub zero: Option<&'a ZeroFilter>,
    /// Check existing files before copying.
    pub delta: bool,
    /// When checking, trust size and time instead of checksums.
    pub delta_by_time: bool,
    /// When checking, drops existing files from the page cache, if it may differ from the disk.
    pub(crate) page_cache: Option<PageCache>,
    /// How the files are encrypted.
    pub cipher: Cipher,
}

/// What was done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Copied from the repository; for a block incremental file, this many bytes of it.
    Copied {
        /// Bytes written.
        size: u64,
    },
    /// Created without reading the repository: empty or only zeros.
    Zeroed,
    /// It already matched.
    Preserved,
}

/// The result for one file of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileResult {
    /// The index in the manifest's files.
    pub index: u32,
    /// What was done.
    pub outcome: Outcome,
}

/// A file to copy, and the stored bytes that are read for it first.
struct Copy<'a> {
    index: u32,
    file: &'a ManifestFile,
    /// First stored byte.
    offset: u64,
    /// Number of stored bytes; `None` for a whole repository file.
    limit: Option<u64>,
    /// Checksums of the blocks on disk, if they are usable.
    existing: Option<Vec<u8>>,
}

impl Copy<'_> {
    fn end(&self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| self.offset.saturating_add(limit))
    }
}

/// Files that are copied from one read.
struct ReadRun<'c, 'm> {
    copies: &'c [Copy<'m>],
    first: &'c Copy<'m>,
    last: &'c Copy<'m>,
}

/// Splits files, which are in the order of their offsets in the repository, where the gap to the next is too large to
/// read over.
fn runs<'c, 'm>(copies: &'c [Copy<'m>], read_over_bytes: u64) -> Vec<ReadRun<'c, 'm>> {
    let near = |a: &Copy<'_>, b: &Copy<'_>| b.offset.checked_sub(a.end()).is_some_and(|gap| gap <= read_over_bytes);
    let run = |copies: &'c [Copy<'m>]| Some(ReadRun { copies, first: copies.first()?, last: copies.last()? });
    copies.chunk_by(near).filter_map(run).collect()
}

/// What to do with a file.
enum Decision {
    Preserve,
    Zero,
    Copy { existing: Option<Vec<u8>> },
}

/// What size and time say of a file on disk.
enum SameTime {
    Differs,
    Matches,
    /// A restore of other databases leaves zeros with the file's size and time, so the content decides.
    UnlessZeroed,
}

impl FileContext<'_> {
    /// Returns the first read of a job, unless it depends on what is on disk.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for impossible sizes or names.
    pub(super) fn first_read(&self, job: &RestoreJob) -> Result<Option<(RepoPath, ReadRange)>> {
        if self.delta {
            return Ok(None);
        }
        let files = job.files.iter().filter_map(|&index| Some((index, self.manifest.files.get(index as usize)?)));
        let copied = files.filter(|(_, file)| file.size != 0 && !self.is_zeroed(file));
        let copies = copied.map(|(index, file)| self.plan_copy(index, file, None)).collect::<Result<Vec<_>>>()?;
        let first = runs(&copies, self.storage.read_ahead().read_over_bytes).into_iter().next();
        first.map(|run| self.read_of(&run)).transpose()
    }

    fn is_zeroed(&self, file: &ManifestFile) -> bool {
        self.zero.is_some_and(|zero| zero.is_zeroed(&file.name))
    }

    /// Restores all files of a job, whose first read may have been started. It can be repeated after an error.
    ///
    /// # Errors
    /// [`ErrorCode::Checksum`] if the restored file differs from what was backed up, errors of the codecs for damaged
    /// input, and errors of reading or writing.
    pub fn restore(
        &self,
        pipeline: &mut RestorePipeline,
        job: &RestoreJob,
        begun: Option<PendingRead>,
        cancel: &CancelToken,
    ) -> Result<Vec<FileResult>> {
        pipeline.begin_job(cancel);
        if job.size >= LONG_MIN_BYTES {
            pipeline.turn().takes_long();
        }
        let mut results = Vec::with_capacity(job.files.len());
        let mut copies = Vec::new();
        for &index in &job.files {
            cancel.check()?;
            let Some(file) = self.manifest.files.get(index as usize) else { continue };
            match self.decide(pipeline, file)? {
                Decision::Preserve => results.push(FileResult { index, outcome: Outcome::Preserved }),
                Decision::Zero => {
                    self.write_zeros(file)?;
                    results.push(FileResult { index, outcome: Outcome::Zeroed });
                }
                Decision::Copy { existing } => copies.push(self.plan_copy(index, file, existing)?),
            }
        }

        let runs = runs(&copies, self.storage.read_ahead().read_over_bytes);
        let reads = runs.iter().map(|run| self.read_of(run)).collect::<Result<Vec<_>>>()?;
        let storage = OnTurn::new(self.storage, pipeline.turn());
        let mut reads = ReadQueue::new(&storage, reads).go_on(begun.map(|begun| storage.adopt(begun)));
        for run in runs {
            results.extend(self.copy_run(pipeline, run, reads.next()?)?);
        }
        Ok(results)
    }

    /// Checks the file on disk.
    fn decide(&self, pipeline: &mut RestorePipeline, file: &ManifestFile) -> Result<Decision> {
        let copy = |existing| Ok(if file.size == 0 { Decision::Zero } else { Decision::Copy { existing } });
        if self.is_zeroed(file) {
            return Ok(Decision::Zero);
        }
        if !self.delta {
            return copy(None);
        }
        let path = restored_path(self.pg_path, &file.name);
        if self.delta_by_time {
            match self.compare_time(file)? {
                SameTime::Differs => return copy(None),
                SameTime::Matches => return Ok(Decision::Preserve),
                SameTime::UnlessZeroed => {}
            }
        }
        let Some((existing, on_disk)) = self.open_existing(file, &path, OFlags::RDONLY)? else { return copy(None) };
        if self.delta_by_time && !begins_with_zeros(&existing, &path)? {
            return Ok(Decision::Preserve);
        }
        // A longer file may only have been appended to. A shorter one is useful if its blocks can be compared
        if on_disk.size() < file.size && (file.stored_blocks().is_none() || on_disk.size() == 0) {
            return copy(None);
        }
        let longer = on_disk.size() > file.size;
        // Its other names do not belong to the restore, so it may match, but must not be changed
        let shared = on_disk.nlink() > 1;
        let existing = match longer {
            false => existing,
            true if shared => return copy(None),
            true => match self.open_existing(file, &path, OFlags::RDWR)? {
                Some((existing, _)) => existing,
                None => return copy(None),
            },
        };
        if let Some(page_cache) = self.page_cache {
            page_cache.forget(&existing);
        }
        if longer {
            self.wrote(&on_disk, file);
            existing.set_len(file.size).map_err(|error| {
                Error::from_io(ErrorCode::FileWrite, format!("unable to truncate file '{path}'"), error)
            })?;
        }
        let (right, blocks) = if file.size == 0 {
            (true, Vec::new())
        } else {
            let hashed = pipeline.hash_file(&existing, &path, file.stored_blocks().map(geometry))?;
            (on_disk.size() >= file.size && Some(hashed.sha1) == file.checksum, hashed.blocks)
        };
        let same_time = on_disk.mtime() == file.timestamp && !longer;
        if right && (same_time || !shared) {
            // Only if it differs: a matching file is not touched
            if !same_time {
                set_time(&existing, file.timestamp, &path)?;
            }
            return Ok(Decision::Preserve);
        }
        copy(file.stored_blocks().filter(|_| !shared).map(|_| blocks))
    }

    /// Compares size and time of the file on disk.
    fn compare_time(&self, file: &ManifestFile) -> Result<SameTime> {
        let Some(stat) = self.place(file)?.look() else { return Ok(SameTime::Differs) };
        let same = u64::try_from(stat.st_size) == Ok(file.size)
            && stat.st_mtime == file.timestamp
            && file.timestamp < self.manifest.data.timestamp_copy_start;
        Ok(if !same {
            SameTime::Differs
        } else if file.size == 0 || !select_db::is_in_database(&file.name) {
            SameTime::Matches
        } else {
            SameTime::UnlessZeroed
        })
    }

    /// Opens an existing file. Returns `None` if it is missing, and also if its mode forbids opening it. A new file
    /// then replaces it.
    fn open_existing(&self, file: &ManifestFile, path: &str, access: OFlags) -> Result<Option<(File, Metadata)>> {
        let existing = match self.place(file)?.open(access) {
            Ok(existing) => existing,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(None),
            Err(error) => {
                let purpose = if access == OFlags::RDONLY { "read" } else { "write" };
                let text = format!("unable to open file '{path}' for {purpose}");
                return Err(Error::from_io(ErrorCode::FileOpen, text, error));
            }
        };
        let metadata = regular(&existing, path)?;
        Ok(Some((existing, metadata)))
    }

    fn plan_copy<'a>(&self, index: u32, file: &'a ManifestFile, existing: Option<Vec<u8>>) -> Result<Copy<'a>> {
        let damaged =
            || Error::new(ErrorCode::Format, format!("manifest sizes of file '{}' are out of range", file.name));
        let offset = file.bundle.map_or(0, |bundle| bundle.offset);
        let size = file.repo_bytes();
        let end = offset.checked_add(size).ok_or_else(damaged)?;
        let (offset, limit) = match file.stored_blocks() {
            Some(block) => {
                if block.map_size > size || block.map_size > self.block_file(file, block).map_size_max() {
                    return Err(damaged());
                }
                if existing.is_none() && size <= MEMBER_SIZE_MAX {
                    (offset, Some(size))
                } else {
                    (end - block.map_size, Some(block.map_size))
                }
            }
            None if file.bundle.is_some() => (offset, Some(size)),
            None => (0, None),
        };
        Ok(Copy { index, file, offset, limit, existing })
    }

    /// The one read that a run needs.
    fn read_of(&self, run: &ReadRun<'_, '_>) -> Result<(RepoPath, ReadRange)> {
        let range =
            ReadRange { offset: run.first.offset, limit: run.last.limit.map(|_| run.last.end() - run.first.offset) };
        Ok((self.repo_file(run.first.file)?, range))
    }

    /// Copies files that are adjacent in the repository from one read.
    fn copy_run(
        &self,
        pipeline: &mut RestorePipeline,
        run: ReadRun<'_, '_>,
        stored: Box<dyn RepoReader>,
    ) -> Result<Vec<FileResult>> {
        let mut results = Vec::with_capacity(run.copies.len());
        let (repo_file, ReadRange { limit, .. }) = self.read_of(&run)?;
        // Large reads bypass the buffer
        let capacity = usize::try_from(limit.unwrap_or(READ_BUFFER_BYTES).min(READ_BUFFER_BYTES)).unwrap_or(0);
        let mut stored = BufReader::with_capacity(capacity, stored);
        let mut position = run.first.offset;
        let mut copies = run.copies.iter().peekable();
        while let Some(copy) = copies.next() {
            pipeline.check_cancel()?;
            skip(&mut stored, copy.offset - position, &repo_file)?;
            let mut part = (&mut stored).take(copy.limit.unwrap_or(u64::MAX));
            let size = match copy.file.stored_blocks() {
                Some(block) => self.copy_blocks(pipeline, copy, block, &mut part)?,
                None => self
                    .copy_whole(pipeline, copy.file, &mut part)
                    .map_err(|error| self.stored_in(error, &repo_file, copy.offset))?,
            };
            // The bytes after the last file are not needed and may be missing
            if let Some(limit) = copy.limit.filter(|_| copies.peek().is_some()) {
                let left = part.limit();
                skip(&mut stored, left, &repo_file)?;
                position = copy.offset + limit;
            }
            results.push(FileResult { index: copy.index, outcome: Outcome::Copied { size } });
        }
        Ok(results)
    }

    fn copy_whole(&self, pipeline: &mut RestorePipeline, file: &ManifestFile, stored: &mut dyn Read) -> Result<u64> {
        let path = restored_path(self.pg_path, &file.name);
        let out = self.create(file, &path, OFlags::WRONLY, false)?;
        let framing = if file.bundle.is_some() && self.manifest.data.bundle_raw { Framing::Raw } else { Framing::Full };
        match pipeline.copy(stored, framing, file.size, OutFile { file: &out, name: &path })? {
            Some((sha1, size)) => {
                check_sha1(file, &path, sha1)?;
                if size != file.size {
                    return Err(size_error(file, &path, &format!("{size} is smaller")));
                }
            }
            None => return Err(size_error(file, &path, "is larger")),
        }
        set_time(&out, file.timestamp, &path)?;
        Ok(file.size)
    }

    /// Adds where the stored bytes are to an error about them. Other errors stay as they are.
    fn stored_in(&self, mut error: Error, repo_file: &RepoPath, offset: u64) -> Error {
        let is_about_bytes = matches!(
            error.code,
            ErrorCode::Checksum | ErrorCode::Crypto | ErrorCode::FileRead | ErrorCode::Format | ErrorCode::FileInvalid
        );
        if is_about_bytes {
            let shown = self.storage.display(repo_file);
            error.message = format!("{} (stored in '{shown}' at offset {offset})", error.message);
        }
        error
    }

    /// Returns the repository file that contains a file, on its own or in a bundle.
    fn repo_file(&self, file: &ManifestFile) -> Result<RepoPath> {
        let label = self.manifest.holder(file);
        match (file.bundle, file.stored_blocks()) {
            (Some(bundle), _) => Ok(layout::bundle(self.stanza, label, bundle.id())),
            (None, Some(_)) => layout::backup_file(self.stanza, label, &file.name, FileForm::BlockIncr),
            (None, None) => {
                let form = FileForm::Whole(self.manifest.data.options.compress_type);
                layout::backup_file(self.stanza, label, &file.name, form)
            }
        }
    }

    /// Creates an empty file, or a sparse file of zeros.
    fn write_zeros(&self, file: &ManifestFile) -> Result<()> {
        let path = restored_path(self.pg_path, &file.name);
        let out = self.create(file, &path, OFlags::WRONLY, false)?;
        if file.size != 0 {
            out.set_len(file.size)
                .map_err(|error| Error::from_io(ErrorCode::FileWrite, format!("unable to truncate '{path}'"), error))?;
        }
        set_time(&out, file.timestamp, &path)
    }

    /// Opens a file for writing, with its mode if it is new, and sets its owner. `keep` keeps its content.
    fn create(&self, file: &ManifestFile, path: &str, access: OFlags, keep: bool) -> Result<File> {
        let mode = Mode::from_raw_mode(u32::from(file.mode) & MODE_MASK);
        let (out, metadata) = self.place(file)?.write(access, mode, keep, path)?;
        self.wrote(&metadata, file);
        let owner = self.ownership.of(file.user, file.group);
        if self.ownership.is_root() && (owner != Owner { uid: metadata.uid(), gid: metadata.gid() }) {
            std::os::unix::fs::fchown(&out, Some(owner.uid), Some(owner.gid)).map_err(|error| {
                Error::from_io(ErrorCode::FileOwner, format!("unable to set ownership for '{path}'"), error)
            })?;
        }
        Ok(out)
    }

    fn wrote(&self, metadata: &Metadata, file: &ManifestFile) {
        if let Some(file_systems) = self.file_systems {
            file_systems.wrote(metadata.dev(), &file.name);
        }
    }

    fn place<'p>(&'p self, file: &'p ManifestFile) -> Result<Place<'p>> {
        self.places.content(restored_name(&file.name))
    }
}

fn geometry(block: BlockIncr) -> BlockGeometry {
    BlockGeometry { block_size: block.size.max(1) as usize, checksum_size: usize::from(block.checksum_size) }
}

/// Returns whether the first page of a file is all zeros. That is rare unless the whole file is zeros.
fn begins_with_zeros(file: &File, path: &str) -> Result<bool> {
    let mut page = [0; PAGE_BYTES];
    let read = file.read_at(&mut page, 0);
    let read = read.map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{path}'"), error))?;
    Ok(page.iter().take(read).all(|&byte| byte == 0))
}

fn check_sha1(file: &ManifestFile, path: &str, actual: Sha1) -> Result<()> {
    // The manifest was validated: every file has a checksum
    let Some(expected) = file.checksum.filter(|expected| *expected != actual) else { return Ok(()) };
    Err(Error::new(
        ErrorCode::Checksum,
        format!("error restoring '{path}': actual checksum '{actual}' does not match expected checksum '{expected}'"),
    ))
}

fn size_error(file: &ManifestFile, path: &str, actual: &str) -> Error {
    Error::new(
        ErrorCode::Checksum,
        format!("error restoring '{path}': actual size {actual} than expected size {}", file.size),
    )
}

/// Sets access and modification time, which the next backup and later deltas compare.
pub(super) fn set_time(file: &File, timestamp: i64, path: &str) -> Result<()> {
    let time = Timespec { tv_sec: timestamp, tv_nsec: 0 };
    rustix::fs::futimens(file.as_fd(), &Timestamps { last_access: time, last_modification: time })
        .map_err(|error| Error::from_io(ErrorCode::FileInfo, format!("unable to set time for '{path}'"), error.into()))
}

/// Reads and throws away.
fn skip(stored: &mut impl Read, size: u64, repo_file: &RepoPath) -> Result<()> {
    if size == 0 {
        return Ok(());
    }
    let skipped = std::io::copy(&mut stored.take(size), &mut std::io::sink())
        .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{repo_file}'"), error))?;
    if skipped == size {
        Ok(())
    } else {
        Err(Error::new(ErrorCode::FileRead, format!("unexpected end of '{repo_file}'")))
    }
}

#[cfg(test)]
mod tests {
    use repo_format::compress::CompressType;
    use repo_format::label::BackupType;
    use repo_format::manifest::ManifestData;
    use repo_format::pg::PgVersion;

    use super::super::fixture;
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{WriteOptions, put};
    use crate::users::Users;
    use crate::work::turn::Turn;

    const NAME: &str = "pg_data/base/1/1259";

    /// Restores a file of 7 bytes that is stored as a whole, with this record of blocks, into an empty directory.
    fn restore(block: Option<BlockIncr>, size_repo: u64) -> Result<Vec<u8>> {
        restore_sized(block, 7, size_repo)
    }

    /// The same with another size in the manifest.
    fn restore_sized(block: Option<BlockIncr>, size: u64, size_repo: u64) -> Result<Vec<u8>> {
        let label = "20260101-000000F".parse().unwrap();
        let mut manifest = Manifest::new(ManifestData::new(label, BackupType::Full, 1, PgVersion::V15, 202_209_061));
        let mut file = ManifestFile::new(NAME, size, 1_700_000_000);
        file.checksum = Some(Sha1::of(b"catalog"));
        file.block = block;
        file.size_repo = size_repo;
        manifest.files.push(file);
        let storage = MemoryStorage::new();
        let stanza: Stanza = "demo".parse().unwrap();
        for form in [FileForm::Whole(CompressType::None), FileForm::BlockIncr] {
            let path = layout::backup_file(&stanza, &manifest.data.label, NAME, form).unwrap();
            let content: &[u8] = if form == FileForm::BlockIncr { b"blocks!" } else { b"catalog" };
            put(&storage, &path, content, WriteOptions::ATOMIC).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("base/1")).unwrap();
        let current = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let ownership = Ownership::new(&manifest, &Users::new(), current, None);
        let context = FileContext {
            manifest: &manifest,
            storage: &storage,
            stanza: &stanza,
            pg_path: dir.path().to_str().unwrap(),
            places: &fixture::places(dir.path()),
            file_systems: None,
            ownership: &ownership,
            zero: None,
            delta: false,
            delta_by_time: false,
            page_cache: None,
            cipher: Cipher::None,
        };
        let job = RestoreJob { files: vec![0], size: 7 };
        let mut pipeline = RestorePipeline::new(Cipher::None, CompressType::None, &Turn::FREE);
        context.restore(&mut pipeline, &job, None, &CancelToken::new())?;
        Ok(std::fs::read(dir.path().join("base/1/1259")).unwrap())
    }

    #[test]
    fn file_with_a_block_size_but_no_map_is_restored_whole() {
        let block = BlockIncr { size: 8192, checksum_size: 6, map_size: 0 };
        assert_eq!(restore(Some(block), 7).unwrap(), b"catalog");
        assert_eq!(restore(None, 7).unwrap(), b"catalog");
    }

    #[test]
    fn file_of_another_size_with_the_right_checksum_is_an_error() {
        for (size, message) in
            [(6, "actual size is larger than expected size 6"), (8, "actual size 7 is smaller than expected size 8")]
        {
            let error = restore_sized(None, size, 7).unwrap_err();
            assert_eq!(error.code, ErrorCode::Checksum);
            assert!(error.message.contains(message), "{error}");
            let place = format!(" (stored in '/backup/demo/20260101-000000F/{NAME}' at offset 0)");
            assert!(error.message.ends_with(&place), "{error}");
        }
    }

    #[test]
    fn map_that_the_repository_does_not_have_is_an_error() {
        let block = BlockIncr { size: 8192, checksum_size: 6, map_size: 20 };
        // More bytes than any machine has memory, and more than there are
        for size_repo in [u64::MAX / 4, 1 << 20] {
            assert!(restore(Some(block), size_repo).is_err());
        }
    }
}
