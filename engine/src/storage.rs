//! Where a repository is stored: the trait that every storage driver implements.
//!
//! It contains only what a repository needs. PostgreSQL's data directory, with its owners, links and renames, is in
//! `crate::pg::data_dir`.

pub(crate) mod as_of;
pub mod azure;
mod concurrency;
pub(crate) mod decorator;
pub mod faulty;
pub(crate) mod full;
#[cfg(test)]
mod gateway;
pub mod gcs;
pub mod http;
pub mod memory;
pub mod network;
pub mod object;
pub mod on_turn;
pub(crate) mod open;
pub(crate) mod paced;
pub(crate) mod page_cache;
pub(crate) mod pages;
pub mod posix;
pub(crate) mod read_ahead;
pub(crate) mod remote;
pub mod s3;
pub mod sftp;
pub(crate) mod sums;
pub mod temporary;
pub(crate) mod unreachable;
pub(crate) mod versions;
pub(crate) mod whole_sync;

use std::io::{Read, Write};

pub use repo_format::layout::RepoPath;

pub use self::concurrency::Concurrency;
pub use self::open::{OpenStorage, OpenedStorage};
pub use self::read_ahead::{PendingRead, ReadAhead};
pub use self::remote::RemoteRepoSettings;
pub use self::sums::{ContentSum, StoredContent};
pub use self::versions::VersionedStorage;

use crate::{Error, ErrorCode, Result};

/// No system has longer paths. Limits the depth of directories that a server invents.
pub(crate) const PATH_SIZE_MAX_BYTES: usize = 32 << 10;

/// The type of a directory entry.
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
    /// The name without its directory. Bytes that are not UTF-8 are shown as replacement characters. Such an entry is
    /// visible, and no command looks for it, but it can't be opened.
    pub name: String,
    /// The type of the entry.
    pub kind: EntryKind,
    /// Size in bytes; 0 for anything except a file.
    pub size: u64,
    /// Modification time in seconds since the epoch; 0 if the store has none.
    pub modified: i64,
    /// The version of the file, if a store with versions was listed as of a time.
    pub version: Option<String>,
}

/// One file below a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSize {
    /// Its path, relative to the directory.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its modification time in seconds since the epoch; 0 if the store has none.
    pub modified: i64,
}

/// The part of a file to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadRange {
    /// First byte.
    pub offset: u64,
    /// Maximum number of bytes; `None` reads to the end.
    pub limit: Option<u64>,
}

/// How a file is written. Object stores ignore all of it, because an object always appears complete and durable or not
/// at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Write to a temporary name of this writer ([`temporary`]) and rename, so that the final name never refers to half
    /// a file.
    pub atomic: bool,
    /// Sync the file before it counts as written.
    pub sync_file: bool,
    /// Sync the directory after the file is in place.
    pub sync_path: bool,
}

impl WriteOptions {
    /// For info files, manifests and WAL: complete or absent, and durable when `finish` returns.
    pub const ATOMIC: Self = WriteOptions { atomic: true, sync_file: true, sync_path: true };
    /// For backup data files and bundles: written in place. Directories are synced once at the end of the backup.
    pub const IN_PLACE: Self = WriteOptions { atomic: false, sync_file: true, sync_path: false };
    /// For backup data files within a [`SyncBatch`], which makes them durable together.
    pub const BATCH: Self = WriteOptions { atomic: false, sync_file: false, sync_path: false };
}

/// A file being read.
pub trait RepoReader: Read + Send {
    /// Returns whether the next read returns without waiting for a server.
    fn is_ready(&self) -> bool {
        true
    }
}

impl RepoReader for std::io::Empty {}

/// A file being written. Dropping it without [`RepoWriter::finish`] abandons it. An atomic write then leaves nothing.
pub trait RepoWriter: Write + Send {
    /// Returns whether the next write returns without waiting for a server.
    fn is_ready(&self) -> bool {
        true
    }

    /// Makes the file appear under its name, as durable as its [`WriteOptions`] require.
    ///
    /// # Errors
    /// The write, sync or rename failed. The file must not be trusted.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Makes everything durable that was written below its path since it began, files and directory entries alike. Syncing
/// a million small files at once takes a fraction of the time of a million syncs.
pub trait SyncBatch: Send {
    /// Syncs.
    ///
    /// # Errors
    /// [`ErrorCode::FileSync`] if anything written since the batch began may be lost.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Settings of a bucket that protect its objects and limit their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Whether old versions of objects are kept when objects are replaced or removed.
    pub versions: bool,
    /// Whether there are rules that remove objects, old versions or unfinished uploads.
    pub lifecycle: bool,
}

/// What a driver supports beyond objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Empty directories can exist, and the driver creates directories.
    pub paths: bool,
    /// Hard links can be made.
    pub hard_links: bool,
    /// Symbolic links can be made.
    pub symlinks: bool,
    /// Directories must be synced for their entries to be durable.
    pub path_sync: bool,
    /// An error about one file, for example that it is damaged or may not be read, is the same after a pause. On a
    /// server it may be an error of the moment.
    pub errors_last: bool,
}

/// A location that contains a repository. All worker threads share it.
///
/// Missing files are not errors: `info`, `list` and `read` return `None`, and removals succeed.
pub trait RepoStorage: Send + Sync {
    /// Returns what this driver supports.
    fn features(&self) -> Features;

    /// Returns how many calls are best in progress at a time.
    fn concurrency(&self) -> Concurrency {
        Concurrency::LOCAL
    }

    /// Returns whether the connection to the repository has ended for good, so that it has to be opened again.
    fn has_ended(&self) -> bool {
        self.connected().is_err()
    }

    /// Returns why the connection to the repository has ended for good, if it has.
    ///
    /// # Errors
    /// That error.
    fn connected(&self) -> Result<()> {
        Ok(())
    }

    /// Returns the path for messages: absolute, including the name of the store.
    fn display(&self, path: &RepoPath) -> String;

    /// Returns what protects the objects of a bucket; `None` if the store has no such settings, or they are not known.
    ///
    /// # Errors
    /// The settings can't be read, for example because the key may not.
    fn protection(&self) -> Result<Option<Protection>> {
        Ok(None)
    }

    /// Returns how many bytes can still be written below a directory; `None` if the storage does not know it.
    fn bytes_free(&self, _path: &RepoPath) -> Option<u64> {
        None
    }

    /// Returns the error of opening if the storage could not be opened, so that no use of it adds what it was for.
    ///
    /// # Errors
    /// That error.
    fn opened(&self) -> Result<()> {
        Ok(())
    }

    /// Checks that a file can have this path. Some stores restrict names beyond what a path allows.
    ///
    /// # Errors
    /// [`ErrorCode::Format`]
    fn check_name(&self, _path: &RepoPath) -> Result<()> {
        Ok(())
    }

    /// Returns the attributes of one entry (without following links).
    ///
    /// # Errors
    /// The store can't be read.
    fn info(&self, path: &RepoPath) -> Result<Option<Entry>>;

    /// Returns the entries of one directory, sorted by name (byte order); `None` if there is no such directory.
    ///
    /// # Errors
    /// The directory can't be read.
    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>>;

    /// Returns all files below a directory, sorted by path (byte order). A missing directory has none.
    ///
    /// # Errors
    /// A directory can't be read.
    fn list_files(&self, path: &RepoPath) -> Result<Vec<FileSize>> {
        let mut files = list_files_below(self, path)?;
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Returns the names in one directory, sorted (byte order), for callers that need no attributes; `None` if there is
    /// no such directory.
    ///
    /// # Errors
    /// The directory can't be read.
    fn names(&self, path: &RepoPath) -> Result<Option<Vec<String>>> {
        Ok(self.list(path)?.map(|entries| entries.into_iter().map(|entry| entry.name).collect()))
    }

    /// Returns the names in one directory that sort after `after`, sorted (byte order), for callers that need a few of
    /// many.
    ///
    /// # Errors
    /// The directory can't be read.
    fn names_after(&self, path: &RepoPath, after: &str) -> Result<Vec<String>> {
        let mut names = self.names(path)?.unwrap_or_default();
        names.retain(|name| name.as_str() > after);
        Ok(names)
    }

    /// Returns the destination of a symbolic link; `None` if it is missing or the driver has no links.
    ///
    /// # Errors
    /// The link can't be read.
    fn link_destination(&self, _path: &RepoPath) -> Result<Option<String>> {
        Ok(None)
    }

    /// Opens a file for reading; `None` if it is missing. A range past the end reads nothing.
    ///
    /// # Errors
    /// The file exists but can't be opened.
    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>>;

    /// Returns the old versions, if the store keeps them.
    fn versions(&self) -> Option<&dyn VersionedStorage> {
        None
    }

    /// Returns how to read several ranges efficiently.
    fn read_ahead(&self) -> ReadAhead {
        ReadAhead::NEAR
    }

    /// Starts what [`RepoStorage::read`] does. A remote driver does not wait for the answer.
    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        PendingRead::opened(self.read(path, range))
    }

    /// Returns whether [`RepoStorage::sum`] is of use.
    fn sums(&self) -> bool {
        false
    }

    /// Returns checksum and size of what a stored file decodes to, made beside the data; `None` if this storage can't, or if the
    /// file is missing. Not more is checked there than a reader here checks, so whoever needs to know what is wrong with a
    /// file reads it.
    ///
    /// # Errors
    /// The file can't be read or decoded there.
    fn sum(&self, content: &StoredContent<'_>) -> Result<Option<ContentSum>> {
        let _ = content;
        Ok(None)
    }

    /// Returns this storage for files that are neither compressed nor encrypted, if it then compresses on their way what is
    /// read.
    fn compressing_reads(&self) -> Option<Box<dyn RepoStorage + '_>> {
        None
    }

    /// Starts writing a file, and creates missing parent directories.
    ///
    /// # Errors
    /// The file can't be created.
    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>>;

    /// Creates a directory and its parents. Does nothing if [`Features::paths`] is false.
    ///
    /// # Errors
    /// It can't be created.
    fn create_path(&self, path: &RepoPath) -> Result<()>;

    /// Removes one file or link.
    ///
    /// # Errors
    /// It exists and can't be removed.
    fn remove(&self, path: &RepoPath) -> Result<()>;

    /// Removes several files or links. After an error the first of them may be removed, or any of them on a server.
    ///
    /// # Errors
    /// One of them exists and can't be removed.
    fn remove_many(&self, paths: &[RepoPath]) -> Result<()> {
        paths.iter().try_for_each(|path| self.remove(path))
    }

    /// Removes a directory and everything below it. A link is removed itself and never followed, except one in the place of
    /// the repository: what it leads to is emptied, and then the removal fails.
    ///
    /// # Errors
    /// Something in it can't be removed.
    fn remove_all(&self, path: &RepoPath) -> Result<()>;

    /// Removes a directory that is empty. It decides that in one step with the removal, so nothing that another process
    /// stores at the same time is lost. Does nothing if [`Features::paths`] is false.
    ///
    /// # Errors
    /// It is not empty, or it exists and can't be removed.
    fn remove_empty(&self, path: &RepoPath) -> Result<()>;

    /// Makes the entries of a directory durable. Does nothing if [`Features::path_sync`] is false.
    ///
    /// # Errors
    /// [`crate::ErrorCode::PathSync`].
    fn sync_path(&self, path: &RepoPath) -> Result<()>;

    /// Makes the next reads of these files come from the storage and not from this host's memory, which may differ from
    /// the disk after a failed write. Does nothing if nothing is cached.
    fn forget_cached(&self, files: &[RepoPath]) {
        let _ = files;
    }

    /// Begins a batch of writes with [`WriteOptions::BATCH`], all below `path`, which exists. Returns `None` if the
    /// driver can't sync many files at once there. Then they must be synced one by one ([`WriteOptions::IN_PLACE`]).
    ///
    /// # Errors
    /// The storage can't be checked.
    fn begin_batch(&self, path: &RepoPath) -> Result<Option<Box<dyn SyncBatch>>> {
        let _ = path;
        Ok(None)
    }

    /// Creates (or replaces) a symbolic link with this text as its destination.
    ///
    /// # Errors
    /// It can't be created, or the driver has no symbolic links.
    fn symlink(&self, destination: &str, link: &RepoPath) -> Result<()>;

    /// Creates a hard link `link` to the file `existing`.
    ///
    /// # Errors
    /// It can't be created, or the driver has no hard links.
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

/// Returns the error for a missing file that is required, with pgBackRest's text.
pub fn missing(storage: &dyn RepoStorage, path: &RepoPath) -> Error {
    let path = storage.display(path);
    Error::new(ErrorCode::FileMissing, format!("unable to open missing file '{path}' for read"))
}

/// Returns whether a file exists (or a link, which is assumed to lead to a file).
///
/// # Errors
/// The storage can't be read.
pub fn exists(storage: &dyn RepoStorage, path: &RepoPath) -> Result<bool> {
    Ok(storage.info(path)?.is_some_and(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Link)))
}

/// Reads a file into memory; `None` if it is missing.
///
/// # Errors
/// The file can't be read, or [`ErrorCode::FileRead`] if it is larger than `size_max` bytes. A repository is untrusted
/// input, and a file that grew without limit must not use all memory.
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

/// Writes a file.
///
/// # Errors
/// It can't be written. With an atomic write the earlier file then still exists.
pub fn put(storage: &dyn RepoStorage, path: &RepoPath, bytes: &[u8], options: WriteOptions) -> Result<()> {
    let mut writer = storage.write(path, options)?;
    writer
        .write_all(bytes)
        .map_err(|e| Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", storage.display(path)), e))?;
    writer.finish()
}
