//! A repository in a directory of this machine (types `posix` and `cifs`).
//!
//! Modes, temporary names, sync rules and message texts are pgBackRest's (`src/storage/posix`). Files are made with mode
//! 0640 and directories with 0750; the process's umask applies, which the program clears by default (`neutral-umask`).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use repo_format::layout::TEMP_SUFFIX;

use super::{
    Entry, EntryKind, Features, ReadRange, RepoPath, RepoStorage, RepoWriter, SyncBatch, WriteOptions, page_cache,
    whole_sync,
};
use crate::{Error, ErrorCode, Result, warn};

/// Mode of a repository file.
pub const FILE_MODE: u32 = 0o640;
/// Mode of a repository directory.
pub const PATH_MODE: u32 = 0o750;

/// A repository below a directory.
#[derive(Clone, Debug)]
pub struct PosixStorage {
    root: PathBuf,
    features: Features,
}

impl PosixStorage {
    /// The repository below `root`, which may be a symbolic link and need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        PosixStorage {
            root: root.into(),
            features: Features { paths: true, hard_links: true, symlinks: true, path_sync: true, remote: false },
        }
    }

    /// A repository on a CIFS mount: neither links nor directory syncs.
    pub fn cifs(root: impl Into<PathBuf>) -> Self {
        PosixStorage {
            root: root.into(),
            features: Features { paths: true, hard_links: false, symlinks: false, path_sync: false, remote: false },
        }
    }

    /// The same repository, which may be told not to make symbolic links.
    #[must_use]
    pub fn with_symlinks(self, symlinks: bool) -> Self {
        PosixStorage { features: Features { symlinks, ..self.features }, ..self }
    }

    /// The directory that holds the repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn absolute(&self, path: &RepoPath) -> PathBuf {
        if path.as_str().is_empty() { self.root.clone() } else { self.root.join(path.as_str()) }
    }
}

/// Runs `make` once more after making the parent directories of `path`, if they were missing.
fn with_parents<T>(path: &Path, mut make: impl FnMut() -> io::Result<T>) -> Result<io::Result<T>> {
    match make() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                create_path(parent)?;
            }
            Ok(make())
        }
        result => Ok(result),
    }
}

/// The directories that get a new entry when `path` and its missing parents are made: the parent first, the deepest
/// directory that exists already last.
fn changed_paths(path: &Path) -> Vec<PathBuf> {
    let mut changed = Vec::new();
    for parent in path.ancestors().skip(1) {
        // An empty ancestor of a relative path is the working directory
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        changed.push(parent.to_owned());
        if parent.exists() {
            break;
        }
    }
    changed
}

fn error(code: ErrorCode, message: &str, path: &Path, error: io::Error) -> Error {
    Error::from_io(code, message.replace("{}", &path.to_string_lossy()), error)
}

/// Makes a directory and its parents with [`PATH_MODE`].
///
/// # Errors
/// [`ErrorCode::PathCreate`].
pub fn create_path(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(PATH_MODE)
        .create(path)
        .map_err(|e| error(ErrorCode::PathCreate, "unable to create path '{}'", path, e))
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// [`ErrorCode::PathMissing`], [`ErrorCode::PathOpen`] or [`ErrorCode::PathSync`].
pub fn sync_path(path: &Path) -> Result<()> {
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let text = format!("unable to sync missing path '{}'", path.display());
            return Err(Error::new(ErrorCode::PathMissing, text).cause(e));
        }
        Err(e) => return Err(error(ErrorCode::PathOpen, "unable to open path '{}' for sync", path, e)),
    };
    directory.sync_all().map_err(|e| error(ErrorCode::PathSync, "unable to sync path '{}'", path, e))
}

/// Removes a directory and all below it; links in it are removed and not followed.
fn remove_tree(path: &Path) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(error(ErrorCode::PathOpen, "unable to list file info for path '{}'", path, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| error(ErrorCode::PathOpen, "unable to list file info for path '{}'", path, e))?;
        let child = entry.path();
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(error(ErrorCode::FileOpen, "unable to get info for path/file '{}'", &child, e)),
        };
        if kind.is_dir() {
            remove_tree(&child)?;
        } else {
            remove_entry(&child, ErrorCode::PathRemove)?;
        }
    }
    match fs::remove_dir(path) {
        // The directory itself was reached through a link: what it led to is empty now, the link goes
        Err(e) if e.kind() == ErrorKind::NotADirectory => remove_entry(path, ErrorCode::PathRemove),
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(error(ErrorCode::PathRemove, "unable to remove path '{}'", path, e))
        }
        _ => Ok(()),
    }
}

fn remove_entry(path: &Path, code: ErrorCode) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(error(code, "unable to remove file '{}'", path, e)),
        _ => Ok(()),
    }
}

/// The names in a directory, in no order; `None` when it is missing.
fn read_names(path: &Path) -> Result<Option<Vec<OsString>>> {
    let list_error = |e| error(ErrorCode::PathOpen, "unable to list file info for path '{}'", path, e);
    let directory = match fs::read_dir(path) {
        Ok(directory) => directory,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(list_error(e)),
    };
    directory.map(|item| item.map(|item| item.file_name()).map_err(list_error)).collect::<Result<_>>().map(Some)
}

/// A name as text. Commands look for names that they know: one that is no text is another's, and no reason to stop.
fn name_text(name: OsString) -> String {
    name.into_string().unwrap_or_else(|name| name.to_string_lossy().into_owned())
}

fn entry(name: String, path: &Path) -> Result<Option<Entry>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error(ErrorCode::FileOpen, "unable to get info for path/file '{}'", path, e)),
    };
    let kind = match metadata.file_type() {
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_dir() => EntryKind::Path,
        kind if kind.is_symlink() => EntryKind::Link,
        _ => EntryKind::Special,
    };
    let modified = metadata.modified().map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs().cast_signed(),
        Err(before) => -(before.duration().as_secs().cast_signed()),
    });
    let size = if kind == EntryKind::File { metadata.len() } else { 0 };
    Ok(Some(Entry { name, kind, size, modified, version: None }))
}

impl RepoStorage for PosixStorage {
    fn features(&self) -> Features {
        self.features
    }

    fn display(&self, path: &RepoPath) -> String {
        self.absolute(path).to_string_lossy().into_owned()
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        entry(path.file_name().to_owned(), &self.absolute(path))
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        let path = self.absolute(path);
        let Some(names) = read_names(&path)? else { return Ok(None) };
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let child = path.join(&name);
            // Gone since the directory was read: it is simply not there
            if let Some(entry) = entry(name_text(name), &child)? {
                entries.push(entry);
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    fn names(&self, path: &RepoPath) -> Result<Option<Vec<String>>> {
        let Some(names) = read_names(&self.absolute(path))? else { return Ok(None) };
        let mut names: Vec<_> = names.into_iter().map(name_text).collect();
        names.sort_unstable();
        Ok(Some(names))
    }

    fn link_destination(&self, path: &RepoPath) -> Result<Option<String>> {
        let path = self.absolute(path);
        match fs::read_link(&path) {
            Ok(destination) => Ok(Some(destination.to_string_lossy().into_owned())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error(ErrorCode::FileRead, "unable to get destination for link '{}'", &path, e)),
        }
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn Read + Send>>> {
        let path = self.absolute(path);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(ErrorCode::FileOpen, "unable to open file '{}' for read", &path, e)),
        };
        if range.offset != 0 {
            file.seek(SeekFrom::Start(range.offset)).map_err(|e| {
                let message = format!("unable to seek to {} in file '{{}}'", range.offset);
                error(ErrorCode::FileOpen, &message, &path, e)
            })?;
        }
        Ok(Some(Box::new(PosixReader { file, path, left: range.limit.unwrap_or(u64::MAX) })))
    }

    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        let path = self.absolute(path);
        let options = WriteOptions { sync_path: options.sync_path && self.features.path_sync, ..options };
        Ok(Box::new(PosixWriter::open(path, options)?))
    }

    fn create_path(&self, path: &RepoPath) -> Result<()> {
        create_path(&self.absolute(path))
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        remove_entry(&self.absolute(path), ErrorCode::FileRemove)
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        let absolute = self.absolute(path);
        // The repository itself is what is behind its link; any other link may lead to what is another's
        if !path.as_str().is_empty() && fs::symlink_metadata(&absolute).is_ok_and(|found| found.is_symlink()) {
            warn!("path '{}' is a link: what it leads to is not removed", absolute.display());
            return remove_entry(&absolute, ErrorCode::PathRemove);
        }
        remove_tree(&absolute)
    }

    fn sync_path(&self, path: &RepoPath) -> Result<()> {
        if self.features.path_sync { sync_path(&self.absolute(path)) } else { Ok(()) }
    }

    fn forget_cached(&self, files: &[RepoPath]) {
        // A file that can't be opened is found out when it is read
        let open = |path: &RepoPath| File::open(self.absolute(path)).ok();
        // All of them lie below one directory of a backup
        let cache = page_cache::PageCache::write_back(files.first().and_then(open).as_ref());
        files.iter().filter_map(open).for_each(|file| cache.forget(&file));
    }

    fn begin_batch(&self, path: &RepoPath) -> Result<Option<Box<dyn SyncBatch>>> {
        if !self.features.path_sync {
            return Ok(None);
        }
        // The directory itself and not the root: it may be a mount point or a link to another file system. Opened before
        // anything is written: errors of writing back are told to those who had the file system open
        let path = self.absolute(path);
        let directory =
            File::open(&path).map_err(|e| error(ErrorCode::PathOpen, "unable to open path '{}' for sync", &path, e))?;
        if !whole_sync::is_trusted(&directory) {
            return Ok(None);
        }
        Ok(Some(Box::new(PosixBatch { directory, path })))
    }

    fn symlink(&self, destination: &str, link: &RepoPath) -> Result<()> {
        if !self.features.symlinks {
            return Err(unsupported("symbolic links"));
        }
        let link = self.absolute(link);
        let make = |at: &Path| std::os::unix::fs::symlink(destination, at);
        let done = match with_parents(&link, || make(&link))? {
            // Replaced by renaming, so that there is no moment without a link
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let temporary = temporary_name(&link);
                remove_entry(&temporary, ErrorCode::FileRemove)?;
                make(&temporary).and_then(|()| fs::rename(&temporary, &link))
            }
            done => done,
        };
        let message = || format!("unable to create symlink '{}' to '{destination}'", link.display());
        done.map_err(|e| Error::from_io(ErrorCode::FileOpen, message(), e))
    }

    fn hard_link(&self, existing: &RepoPath, link: &RepoPath) -> Result<()> {
        if !self.features.hard_links {
            return Err(unsupported("hard links"));
        }
        let (existing, link) = (self.absolute(existing), self.absolute(link));
        let message = || format!("unable to create hardlink '{}' to '{}'", link.display(), existing.display());
        with_parents(&link, || fs::hard_link(&existing, &link))?
            .map_err(|e| Error::from_io(ErrorCode::FileOpen, message(), e))
    }
}

/// Syncs the file system that holds a directory.
struct PosixBatch {
    directory: File,
    path: PathBuf,
}

impl SyncBatch for PosixBatch {
    fn finish(self: Box<Self>) -> Result<()> {
        rustix::fs::syncfs(&self.directory)
            .map_err(|e| error(ErrorCode::FileSync, "unable to sync file system of '{}'", &self.path, e.into()))
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorCode::Assert, format!("this repository has no {what}"))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMP_SUFFIX);
    PathBuf::from(name)
}

/// Reads one file, at most `left` more bytes of it.
struct PosixReader {
    file: File,
    path: PathBuf,
    left: u64,
}

impl Read for PosixReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let done = match self.file.read(&mut buffer[..size]) {
            // `read_exact` and friends retry on this by themselves, so it must stay as it is
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            done => done.map_err(|e| error(ErrorCode::FileRead, "unable to read '{}'", &self.path, e))?,
        };
        self.left -= done as u64;
        Ok(done)
    }
}

/// Writes one file. Also used for local files outside a repository that follow the same rules (spool, stop files).
pub struct PosixWriter {
    /// Closed (and `None`) once finished.
    file: Option<File>,
    path: PathBuf,
    /// Where the bytes go: the temporary name, or `path` itself when not atomic.
    path_open: PathBuf,
    options: WriteOptions,
    /// To be synced at the end: the file's directory and, where directories were made for it, those above them too. A
    /// file is not durable as long as the entry of one of its directories is not.
    sync_paths: Vec<PathBuf>,
}

impl PosixWriter {
    /// Opens the file (or its temporary name) for writing from its start, making missing directories.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`], [`ErrorCode::PathCreate`].
    pub fn open(path: PathBuf, options: WriteOptions) -> Result<Self> {
        let path_open = if options.atomic { temporary_name(&path) } else { path.clone() };
        let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&path_open);
        let sync_paths = if options.sync_path { changed_paths(&path) } else { Vec::new() };
        let file = with_parents(&path, open)?
            .map_err(|e| error(ErrorCode::FileOpen, "unable to open file '{}' for write", &path, e))?;
        Ok(PosixWriter { file: Some(file), path, path_open, options, sync_paths })
    }
}

impl Write for PosixWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Err(io::Error::other("written to after its end")) };
        match file.write(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => Err(e),
            done => Ok(done.map_err(|e| error(ErrorCode::FileWrite, "unable to write '{}'", &self.path_open, e))?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RepoWriter for PosixWriter {
    fn finish(mut self: Box<Self>) -> Result<()> {
        // Taken out only at the end: an error before leaves it to `drop` to remove the temporary file
        if let Some(file) = &self.file
            && self.options.sync_file
        {
            file.sync_all()
                .map_err(|e| error(ErrorCode::FileSync, "unable to sync file '{}' after write", &self.path_open, e))?;
        }
        if self.options.atomic {
            fs::rename(&self.path_open, &self.path).map_err(|e| {
                let to = self.path.display();
                Error::from_io(
                    ErrorCode::FileMove,
                    format!("unable to move '{}' to '{to}'", self.path_open.display()),
                    e,
                )
            })?;
        }
        self.file = None;
        self.sync_paths.iter().try_for_each(|path| sync_path(path))
    }
}

impl Drop for PosixWriter {
    fn drop(&mut self) {
        if self.file.is_some() && self.options.atomic {
            // The file was abandoned, most often because of an error that is already on its way; a temporary file that
            // can't be removed does no harm and is overwritten by the next attempt
            let _ = fs::remove_file(&self.path_open);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::storage::{conformance, get, put};

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn posix_driver_conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance::run(&PosixStorage::new(dir.path().join("repo")));
    }

    #[test]
    fn cifs_driver_conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance::run(&PosixStorage::cifs(dir.path().join("repo")));
    }

    #[test]
    fn write_in_missing_directories_makes_them_with_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let storage = PosixStorage::new(dir.path().join("repo"));
        put(&storage, &path("archive/main/archive.info"), b"x", WriteOptions::ATOMIC).unwrap();
        assert_eq!(mode(&dir.path().join("repo/archive/main")), PATH_MODE);
        assert_eq!(mode(&dir.path().join("repo/archive/main/archive.info")), FILE_MODE);
    }

    #[test]
    fn atomic_write_abandoned_leaves_the_old_file_and_no_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        let storage = PosixStorage::new(dir.path());
        put(&storage, &path("a"), b"old", WriteOptions::ATOMIC).unwrap();
        let mut writer = storage.write(&path("a"), WriteOptions::ATOMIC).unwrap();
        writer.write_all(b"new").unwrap();
        assert!(dir.path().join("a.pgbackrest.tmp").exists());
        drop(writer);
        assert!(!dir.path().join("a.pgbackrest.tmp").exists());
        assert_eq!(get(&storage, &path("a"), 10).unwrap().unwrap(), b"old");
    }

    #[test]
    fn repository_behind_a_link_is_read_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("repo")).unwrap();
        let storage = PosixStorage::new(dir.path().join("repo"));
        put(&storage, &path("a/b"), b"x", WriteOptions::ATOMIC).unwrap();
        assert!(dir.path().join("real/a/b").exists());
        storage.remove_all(&path("a")).unwrap();
        assert!(!dir.path().join("real/a").exists());
    }

    #[test]
    fn remove_all_does_not_follow_links_inside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("repo/a")).unwrap();
        fs::write(dir.path().join("precious"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("repo/a/out")).unwrap();
        PosixStorage::new(dir.path().join("repo")).remove_all(&path("a")).unwrap();
        assert!(dir.path().join("precious").exists());
        assert!(!dir.path().join("repo/a").exists());
    }

    #[test]
    fn remove_all_of_a_link_leaves_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("repo")).unwrap();
        fs::create_dir_all(dir.path().join("precious/deep")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("precious"), dir.path().join("repo/a")).unwrap();
        PosixStorage::new(dir.path().join("repo")).remove_all(&path("a")).unwrap();
        assert!(dir.path().join("precious/deep").exists());
        assert!(dir.path().join("repo/a").symlink_metadata().is_err());
    }

    #[test]
    fn names_that_are_no_text_hinder_nothing_and_stay() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"od\xffd"));
        fs::write(&odd, b"123").unwrap();
        fs::write(dir.path().join("b"), b"x").unwrap();
        let storage = PosixStorage::new(dir.path());
        assert_eq!(storage.names(&RepoPath::root()).unwrap().unwrap(), ["b", "od\u{fffd}d"]);
        let entries = storage.list(&RepoPath::root()).unwrap().unwrap();
        let found: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.kind, entry.size)).collect();
        assert_eq!(found, [("b", EntryKind::File, 1), ("od\u{fffd}d", EntryKind::File, 3)]);
        storage.remove(&path("od\u{fffd}d")).unwrap();
        storage.remove_all(&path("od\u{fffd}d")).unwrap();
        assert!(odd.exists());
    }

    #[test]
    fn batch_below_another_file_system_is_decided_by_that() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc", dir.path().join("backup")).unwrap();
        // Whatever holds the root: what is written goes to /proc, and a sync of the root would not reach it
        assert!(PosixStorage::new(dir.path()).begin_batch(&path("backup")).unwrap().is_none());
        let missing = PosixStorage::new(dir.path()).begin_batch(&path("none")).err().unwrap();
        assert_eq!(missing.code, ErrorCode::PathOpen);
    }

    #[test]
    fn changed_paths_ends_at_the_first_existing_directory() {
        let dir = tempfile::tempdir().unwrap();
        let changed = changed_paths(&dir.path().join("a/b/file"));
        assert_eq!(changed, [dir.path().join("a/b"), dir.path().join("a"), dir.path().to_owned()]);
        assert_eq!(changed_paths(&dir.path().join("file")), [dir.path().to_owned()]);
    }

    #[test]
    fn write_below_a_file_names_path_and_errno() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"x").unwrap();
        let storage = PosixStorage::new(dir.path());
        let error = storage.write(&path("file/x"), WriteOptions::IN_PLACE).err().unwrap();
        assert_eq!(error.code, ErrorCode::FileOpen);
        let name = dir.path().join("file/x");
        assert_eq!(error.message, format!("unable to open file '{}' for write: [20] Not a directory", name.display()));
    }

    #[test]
    fn write_to_a_full_device_reports_no_space() {
        if !Path::new("/dev/full").exists() {
            return;
        }
        let mut writer = PosixWriter::open(PathBuf::from("/dev/full"), WriteOptions::IN_PLACE).unwrap();
        let error = Error::from_io(ErrorCode::Unknown, "outer", writer.write_all(b"x").unwrap_err());
        assert_eq!(error.code, ErrorCode::FileWrite);
        assert_eq!(error.message, "unable to write '/dev/full': [28] No space left on device");
    }

    #[test]
    fn sync_of_missing_path_is_path_missing() {
        let dir = tempfile::tempdir().unwrap();
        let error = PosixStorage::new(dir.path()).sync_path(&path("no")).unwrap_err();
        assert_eq!(error.code, ErrorCode::PathMissing);
    }
}
