//! A repository in a directory of this host (types `posix` and `cifs`).
//!
//! Modes, temporary names, sync rules and message texts are pgBackRest's (`src/storage/posix`). Files are created with
//! mode 0640 and directories with 0750. The process's umask applies, which the program clears by default
//! (`neutral-umask`).

mod directory;
mod file;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::OFlags;

pub use directory::{create_path, sync_path};
use directory::{remove_entry, remove_tree, with_parents};
pub use file::PosixWriter;
pub(crate) use file::is_named;
pub(super) use file::wrong_size;
use file::{PosixReader, temporary_name};

use super::{
    Entry, EntryKind, Features, OpenStorage, OpenedStorage, ReadRange, RepoPath, RepoReader, RepoStorage, RepoWriter,
    SyncBatch, WriteOptions, page_cache, whole_sync,
};
use crate::{Error, ErrorCode, Result, warn};

/// Mode of a repository file.
pub const FILE_MODE: u32 = 0o640;
/// Mode of a repository directory.
pub(crate) const PATH_MODE: u32 = 0o750;

/// The settings of a repository in a directory of this host.
#[derive(Clone, Debug)]
pub struct PosixSettings {
    /// The repository's root.
    pub path: PathBuf,
    /// Create symbolic links, which are only for people and for copies of a backup's directory.
    pub symlinks: bool,
}

impl PosixSettings {
    /// A directory in which symbolic links are created.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        PosixSettings { path: path.into(), symlinks: true }
    }
}

impl OpenStorage for PosixSettings {
    fn open(&self) -> Result<OpenedStorage> {
        Ok(PosixStorage::new(&self.path).with_symlinks(self.symlinks).into())
    }
}

/// The settings of a repository on a CIFS mount.
#[derive(Clone, Debug)]
pub struct CifsSettings {
    /// The repository's root.
    pub path: PathBuf,
}

impl OpenStorage for CifsSettings {
    fn open(&self) -> Result<OpenedStorage> {
        Ok(PosixStorage::cifs(&self.path).into())
    }
}

/// A repository below a directory.
#[derive(Clone, Debug)]
pub struct PosixStorage {
    root: PathBuf,
    features: Features,
}

impl PosixStorage {
    /// Creates a repository below `root`, which may be a symbolic link and need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        PosixStorage {
            root: root.into(),
            features: Features { paths: true, hard_links: true, symlinks: true, path_sync: true, errors_last: true },
        }
    }

    /// Creates a repository on a CIFS mount, without links and directory syncs.
    pub fn cifs(root: impl Into<PathBuf>) -> Self {
        PosixStorage {
            root: root.into(),
            features: Features { paths: true, hard_links: false, symlinks: false, path_sync: false, errors_last: true },
        }
    }

    /// Sets whether the repository creates symbolic links.
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

fn error(code: ErrorCode, message: &str, path: &Path, error: io::Error) -> Error {
    Error::from_io(code, message.replace("{}", &path.to_string_lossy()), error)
}

/// Returns the names in a directory, unordered; `None` if it is missing.
fn read_names(path: &Path) -> Result<Option<Vec<OsString>>> {
    let list_error = |e| error(ErrorCode::PathOpen, "unable to list file info for path '{}'", path, e);
    let directory = match fs::read_dir(path) {
        Ok(directory) => directory,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(list_error(e)),
    };
    directory.map(|item| item.map(|item| item.file_name()).map_err(list_error)).collect::<Result<_>>().map(Some)
}

/// Converts a name to text. Commands look for names that they know, so a name that is not text belongs to something
/// else and is no reason to stop.
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

    fn bytes_free(&self, path: &RepoPath) -> Option<u64> {
        let space = rustix::fs::statvfs(self.absolute(path)).ok()?;
        // A file system without an end says that it has no blocks
        (space.f_blocks > 0).then(|| space.f_bavail.saturating_mul(space.f_frsize))
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
            // An entry that was removed since the directory was read does not exist
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

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        let path = self.absolute(path);
        // A FIFO in the place of a file must not block
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
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
        Ok(Box::new(PosixWriter::open(path, options)?.checked()))
    }

    fn create_path(&self, path: &RepoPath) -> Result<()> {
        create_path(&self.absolute(path))
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        remove_entry(&self.absolute(path), ErrorCode::FileRemove)
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        let absolute = self.absolute(path);
        // The repository itself may be behind a link, which stays, as in pgBackRest: what is stored next would create a
        // directory in its place. Any other link may lead to something else
        if !path.as_str().is_empty() && fs::symlink_metadata(&absolute).is_ok_and(|found| found.is_symlink()) {
            warn!("path '{}' is a link: what it leads to is not removed", absolute.display());
            return remove_entry(&absolute, ErrorCode::PathRemove);
        }
        remove_tree(&absolute)
    }

    fn remove_empty(&self, path: &RepoPath) -> Result<()> {
        let absolute = self.absolute(path);
        match fs::remove_dir(&absolute) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(error(ErrorCode::PathRemove, "unable to remove path '{}'", &absolute, e))
            }
            _ => Ok(()),
        }
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
        // The directory itself and not the root, because it may be a mount point or a link to another file system.
        // Opened before anything is written, because write-back errors are reported to those who had the file system
        // open
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
            // Replaced by renaming, so that the link always exists
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let temporary = temporary_name(&link);
                make(&temporary).and_then(|()| {
                    fs::rename(&temporary, &link).inspect_err(|_| {
                        // The error is on its way already
                        let _ = fs::remove_file(&temporary);
                    })
                })
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

/// Syncs the file system that contains a directory.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::storage::{get, put};

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
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
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
        put(&storage, &path("a/b"), b"x", WriteOptions::ATOMIC).unwrap();
        let link = dir.path().join("repo");
        // The error of pgBackRest, which has removed the content
        let expected = format!("unable to remove path '{}': [20] Not a directory", link.display());
        for error in [storage.remove_all(&RepoPath::root()), storage.remove_empty(&RepoPath::root())] {
            assert_eq!(error.unwrap_err().to_string(), expected);
            assert!(link.is_symlink() && dir.path().join("real").exists());
        }
        assert!(!dir.path().join("real/a").exists());
    }

    #[test]
    fn link_of_the_repository_is_not_removed_although_something_was_stored_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("repo")).unwrap();
        let storage = PosixStorage::new(dir.path().join("repo"));
        put(&storage, &path("archive/demo/x"), b"x", WriteOptions::ATOMIC).unwrap();
        assert_eq!(storage.remove_empty(&RepoPath::root()).unwrap_err().code, ErrorCode::PathRemove);
        assert_eq!(get(&storage, &path("archive/demo/x"), 10).unwrap().unwrap(), b"x");
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
        // Whatever contains the root: the data goes to /proc, and a sync of the root would not reach it
        assert!(PosixStorage::new(dir.path()).begin_batch(&path("backup")).unwrap().is_none());
        let missing = PosixStorage::new(dir.path()).begin_batch(&path("none")).err().unwrap();
        assert_eq!(missing.code, ErrorCode::PathOpen);
    }

    #[test]
    fn read_of_a_pipe_does_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let read = || super::super::get(&PosixStorage::new(dir.path()), &path("pipe"), 9);
        assert_eq!(read().unwrap().unwrap(), b"");
        let _writer = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        assert_eq!(read().unwrap_err().code, ErrorCode::FileRead);
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
    fn sync_of_missing_path_is_path_missing() {
        let dir = tempfile::tempdir().unwrap();
        let error = PosixStorage::new(dir.path()).sync_path(&path("no")).unwrap_err();
        assert_eq!(error.code, ErrorCode::PathMissing);
    }
}
