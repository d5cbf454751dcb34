//! Where a repository lives: the trait that every storage driver implements.
//!
//! Only what a repository needs is here. PostgreSQL's data directory, with its owners, links and renames, is another
//! subject and goes through `crate::pg::data_dir`.

pub(crate) mod as_of;
pub mod azure;
pub mod faulty;
#[cfg(test)]
mod gateway;
pub mod gcs;
pub mod http;
pub mod memory;
pub mod network;
pub mod object;
pub(crate) mod page_cache;
pub(crate) mod pages;
pub mod posix;
pub mod read_ahead;
pub mod s3;
pub mod sftp;
pub mod temporary;
pub(crate) mod whole_sync;

use std::io::{Read, Write};

pub use repo_format::layout::RepoPath;

pub use self::read_ahead::{PendingRead, ReadAhead};

use crate::{Error, ErrorCode, Result};

/// No system has longer paths. Limits the depth of directories that a server invents.
pub(crate) const PATH_SIZE_MAX_BYTES: usize = 32 << 10;

/// What kind of thing a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file or an object.
    File,
    /// A directory, or a common prefix of an object store.
    Path,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device.
    Special,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name without its directory. One that is no UTF-8 is shown with replacement characters: it can be seen, and is
    /// nothing that any command looks for, but it can't be reached.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes; 0 for anything but a file.
    pub size: u64,
    /// Modification time in seconds since the epoch; 0 where the store has none.
    pub modified: i64,
    /// Which version of the file it is, where a store that keeps versions was listed as of a time.
    pub version: Option<String>,
}

/// One file below a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSize {
    /// Its path, relative to the directory.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its modification time in seconds since the epoch; 0 where the store has none.
    pub modified: i64,
}

/// Which part of a file to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes at the most; `None` reads to the end.
    pub limit: Option<u64>,
}

/// How a file is written. Object stores ignore all of it: an object appears whole and durable or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Write under a name of this writer's own ([`temporary`]) and rename, so that the final name never holds half a file.
    pub atomic: bool,
    /// Sync the file before it counts as written.
    pub sync_file: bool,
    /// Sync the directory after the file is in place.
    pub sync_path: bool,
}

impl WriteOptions {
    /// For info files, manifests and WAL: whole or absent, and durable when `finish` returns.
    pub const ATOMIC: Self = WriteOptions { atomic: true, sync_file: true, sync_path: true };
    /// For backup data files and bundles: written in place, directories are synced once at the end of the backup.
    pub const IN_PLACE: Self = WriteOptions { atomic: false, sync_file: true, sync_path: false };
    /// For backup data files within a [`SyncBatch`], which makes them durable together.
    pub const BATCH: Self = WriteOptions { atomic: false, sync_file: false, sync_path: false };
}

/// A file being written. Dropping it without [`RepoWriter::finish`] abandons it: an atomic write leaves nothing.
pub trait RepoWriter: Write + Send {
    /// Makes the file appear under its name, as durable as its [`WriteOptions`] ask.
    ///
    /// # Errors
    /// The write, sync or rename failed; the file must not be trusted.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Makes everything durable that was written below its path since it was begun, files and directory entries alike. A million small files
/// are synced at once in a fraction of the time that a million syncs take.
pub trait SyncBatch: Send {
    /// Syncs.
    ///
    /// # Errors
    /// [`ErrorCode::FileSync`] if anything written since the batch was begun may be lost.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// What a driver can do beyond objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Empty directories can exist and are made.
    pub paths: bool,
    /// Hard links can be made.
    pub hard_links: bool,
    /// Symbolic links can be made.
    pub symlinks: bool,
    /// Directories must be synced for their entries to be durable.
    pub path_sync: bool,
    /// Every call waits for a server, so that several at a time take hardly longer than one.
    pub remote: bool,
}

/// A place that holds a repository. Shared by all worker threads.
///
/// Missing files are no errors: `info`, `list` and `read` answer `None`, removals succeed.
pub trait RepoStorage: Send + Sync {
    /// What this driver can do.
    fn features(&self) -> Features;

    /// The path as messages show it: absolute, with whatever names the store.
    fn display(&self, path: &RepoPath) -> String;

    /// Makes sure that a file can have this path, which for some stores is more than being a path.
    ///
    /// # Errors
    /// [`ErrorCode::Format`]
    fn check_name(&self, _path: &RepoPath) -> Result<()> {
        Ok(())
    }

    /// Attributes of one entry (links are not followed).
    ///
    /// # Errors
    /// The store can't tell.
    fn info(&self, path: &RepoPath) -> Result<Option<Entry>>;

    /// The entries of one directory, sorted by name (byte order); `None` when there is no such directory.
    ///
    /// # Errors
    /// The directory can't be read.
    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>>;

    /// All files below a directory, sorted by path (byte order). A missing directory has none.
    ///
    /// # Errors
    /// A directory can't be read.
    fn list_files(&self, path: &RepoPath) -> Result<Vec<FileSize>> {
        let mut files = list_files_below(self, path)?;
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// The names in one directory, sorted (byte order), for callers that need no more; `None` when there is no such directory.
    ///
    /// # Errors
    /// The directory can't be read.
    fn names(&self, path: &RepoPath) -> Result<Option<Vec<String>>> {
        Ok(self.list(path)?.map(|entries| entries.into_iter().map(|entry| entry.name).collect()))
    }

    /// The names in one directory that sort after `after`, sorted (byte order), for callers that look for a few of many.
    ///
    /// # Errors
    /// The directory can't be read.
    fn names_after(&self, path: &RepoPath, after: &str) -> Result<Vec<String>> {
        let mut names = self.names(path)?.unwrap_or_default();
        names.retain(|name| name.as_str() > after);
        Ok(names)
    }

    /// What a symbolic link points to; `None` when it is missing or the driver has no links.
    ///
    /// # Errors
    /// The link can't be read.
    fn link_destination(&self, _path: &RepoPath) -> Result<Option<String>> {
        Ok(None)
    }

    /// Opens a file for reading; `None` when it is missing. A range past the end reads nothing.
    ///
    /// # Errors
    /// The file is there but can't be opened.
    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn Read + Send>>>;

    /// How several ranges are best read.
    fn read_ahead(&self) -> ReadAhead {
        ReadAhead::NEAR
    }

    /// Begins what [`RepoStorage::read`] does; where answers take their time, without waiting for it.
    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        PendingRead::opened(self.read(path, range))
    }

    /// Starts writing a file, making missing parent directories.
    ///
    /// # Errors
    /// The file can't be made.
    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>>;

    /// Makes a directory and its parents; nothing where [`Features::paths`] is false.
    ///
    /// # Errors
    /// It can't be made.
    fn create_path(&self, path: &RepoPath) -> Result<()>;

    /// Removes one file or link.
    ///
    /// # Errors
    /// It is there and can't be removed.
    fn remove(&self, path: &RepoPath) -> Result<()>;

    /// Removes several files or links. After an error the first of them may be gone, or any of them where
    /// [`Features::remote`] is true.
    ///
    /// # Errors
    /// One of them is there and can't be removed.
    fn remove_many(&self, paths: &[RepoPath]) -> Result<()> {
        paths.iter().try_for_each(|path| self.remove(path))
    }

    /// Removes a directory and all below it. A link is removed itself and never followed.
    ///
    /// # Errors
    /// Something in it can't be removed.
    fn remove_all(&self, path: &RepoPath) -> Result<()>;

    /// Makes the entries of a directory durable; nothing where [`Features::path_sync`] is false.
    ///
    /// # Errors
    /// [`crate::ErrorCode::PathSync`].
    fn sync_path(&self, path: &RepoPath) -> Result<()>;

    /// Makes the next reads of these files come from where they are stored and not from this machine's memory, which after a
    /// failed write may hold more than the disk. Nothing where nothing is remembered.
    fn forget_cached(&self, files: &[RepoPath]) {
        let _ = files;
    }

    /// Begins a batch of writes with [`WriteOptions::BATCH`], all of them below `path`, which is there; `None` if many files
    /// can't be synced at once there, which must then be synced one by one ([`WriteOptions::IN_PLACE`]).
    ///
    /// # Errors
    /// The store can't tell.
    fn begin_batch(&self, path: &RepoPath) -> Result<Option<Box<dyn SyncBatch>>> {
        let _ = path;
        Ok(None)
    }

    /// Makes (or replaces) a symbolic link with this text as destination.
    ///
    /// # Errors
    /// It can't be made, or the driver has none.
    fn symlink(&self, destination: &str, link: &RepoPath) -> Result<()>;

    /// Makes a hard link `link` to the file `existing`.
    ///
    /// # Errors
    /// It can't be made, or the driver has none.
    fn hard_link(&self, existing: &RepoPath, link: &RepoPath) -> Result<()>;
}

/// Returns all files below a directory, in no order.
fn list_files_below<S: RepoStorage + ?Sized>(storage: &S, path: &RepoPath) -> Result<Vec<FileSize>> {
    // Not recursive: a server could invent directories without end
    let (mut left, mut files) = (vec![String::new()], Vec::new());
    while let Some(prefix) = left.pop() {
        let directory = if prefix.is_empty() { path.clone() } else { path.join(prefix.trim_end_matches('/'))? };
        for entry in storage.list(&directory)?.unwrap_or_default() {
            let name = format!("{prefix}{}", entry.name);
            match entry.kind {
                EntryKind::Path if name.len() > PATH_SIZE_MAX_BYTES => {
                    let text = format!("path '{}' has no end", storage.display(path));
                    return Err(Error::new(ErrorCode::Format, text));
                }
                EntryKind::Path => left.push(format!("{name}/")),
                EntryKind::File => files.push(FileSize { path: name, size: entry.size, modified: entry.modified }),
                EntryKind::Link | EntryKind::Special => {}
            }
        }
    }
    Ok(files)
}

/// The error for a file that had to be there, in pgBackRest's words.
pub fn missing(storage: &dyn RepoStorage, path: &RepoPath) -> Error {
    let path = storage.display(path);
    Error::new(ErrorCode::FileMissing, format!("unable to open missing file '{path}' for read"))
}

/// Whether there is a file (or a link, which is taken to lead to one).
///
/// # Errors
/// The store can't tell.
pub fn exists(storage: &dyn RepoStorage, path: &RepoPath) -> Result<bool> {
    Ok(storage.info(path)?.is_some_and(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Link)))
}

/// Reads a whole file into memory; `None` when it is missing.
///
/// # Errors
/// The file can't be read, or [`ErrorCode::FileRead`] when it is larger than `size_max` bytes: a repository is input, and
/// a file that grew without limit must not take all memory.
pub fn get(storage: &dyn RepoStorage, path: &RepoPath, size_max: u64) -> Result<Option<Vec<u8>>> {
    let Some(reader) = storage.read(path, ReadRange::default())? else { return Ok(None) };
    let mut bytes = Vec::new();
    let size = reader
        .take(size_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", storage.display(path)), e))?;
    if size as u64 > size_max {
        let path = storage.display(path);
        return Err(Error::new(ErrorCode::FileRead, format!("file '{path}' is larger than {size_max} bytes")));
    }
    Ok(Some(bytes))
}

/// Writes a whole file.
///
/// # Errors
/// It can't be written; with an atomic write the earlier file is then still there.
pub fn put(storage: &dyn RepoStorage, path: &RepoPath, bytes: &[u8], options: WriteOptions) -> Result<()> {
    let mut writer = storage.write(path, options)?;
    writer
        .write_all(bytes)
        .map_err(|e| Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", storage.display(path)), e))?;
    writer.finish()
}
