//! A directory that a restore writes into, only through its handle.
//!
//! Whoever can write to the directory can replace anything in it with a link, even during the restore, and a restore
//! that runs as root could then follow the link anywhere. So names below the directory are opened from its handle with
//! `openat2`, which follows no links. If the kernel lacks `openat2`, or a filter forbids it, each directory on the way
//! is opened separately without following links.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::handle;
use super::ownership::Owner;
use crate::{Error, ErrorCode, Result};

/// How many directories on the way are kept open if each is opened separately.
const STEPS_MAX: usize = 64;

/// How names are opened.
#[derive(Debug)]
enum OpenWay {
    /// With one call.
    Openat2,
    /// Directory by directory. Contains the opened directories by name.
    Steps(Mutex<HashMap<Box<str>, Arc<OwnedFd>>>),
}

/// A directory. The restore may change everything below it, and nothing else.
#[derive(Debug)]
pub(super) struct TargetDir {
    path: String,
    dir: Arc<OwnedFd>,
    way: OpenWay,
}

impl TargetDir {
    /// Opens the directory at an absolute path. Links in this path are followed, because the user or the backup chose
    /// it.
    ///
    /// # Errors
    /// [`ErrorCode::PathOpen`].
    pub(super) fn open(path: &str) -> Result<Self> {
        Self::of(path, Self::open_dir(path)?)
    }

    fn of(path: &str, dir: OwnedFd) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let way = match fs::openat2(&dir, ".", flags, Mode::empty(), RESOLVE) {
            #[cfg(test)]
            Ok(_) if WITHOUT_OPENAT2.get() => OpenWay::Steps(Mutex::default()),
            Ok(_) => OpenWay::Openat2,
            // An old kernel, or a filter of system calls
            Err(Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => OpenWay::Steps(Mutex::default()),
            Err(error) => return Err(path_open(path, error)),
        };
        Ok(TargetDir { path: path.to_owned(), dir: Arc::new(dir), way })
    }

    /// Creates the directory at an absolute path and its missing parents, with this mode and owner.
    ///
    /// # Errors
    /// [`ErrorCode::PathCreate`].
    pub(super) fn make(path: &str, mode: Mode, owner: Option<Owner>) -> Result<Self> {
        let fail =
            |error: io::Error| Error::from_io(ErrorCode::PathCreate, format!("unable to create path '{path}'"), error);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = fs::open("/", flags, Mode::empty()).map_err(|error| fail(error.into()))?;
        for part in Path::new(path).components() {
            if matches!(part, Component::RootDir | Component::CurDir) {
                continue;
            }
            let part = part.as_os_str();
            dir = match fs::openat(&dir, part, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    fs::mkdirat(&dir, part, mode).map_err(|error| fail(error.into()))?;
                    let new = fs::openat(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty());
                    let new = new.map_err(|error| fail(error.into()))?;
                    if let Some(owner) = owner {
                        handle::set_owner(new.as_fd(), owner).map_err(|error| {
                            Error::from_io(ErrorCode::FileOwner, format!("unable to set ownership for '{path}'"), error)
                        })?;
                    }
                    new
                }
                known => known.map_err(|error| fail(error.into()))?,
            };
        }
        let dir = fs::openat(&dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Self::of(path, dir.map_err(|error| fail(error.into()))?)
    }

    fn open_dir(path: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).map_err(|error| path_open(path, error))
    }

    /// Returns the absolute path of a name, for messages.
    pub(super) fn shown(&self, name: &str) -> String {
        if name.is_empty() { self.path.clone() } else { format!("{}/{name}", self.path) }
    }

    /// Returns the handle of the directory itself.
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens or creates a file. Does not wait if the name belongs to a pipe or similar.
    ///
    /// # Errors
    /// Errors of the system. A link on the way or instead of the file causes [`Errno::LOOP`] or [`Errno::NOTDIR`].
    pub(super) fn open_file(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match &self.way {
            OpenWay::Openat2 => fs::openat2(&self.dir, name, flags, mode, RESOLVE)?,
            OpenWay::Steps(_) => {
                let (parent, name) = self.parent(name)?;
                fs::openat(&parent, name, flags, mode)?
            }
        };
        Ok(File::from(fd))
    }

    /// Opens a directory for reading. An empty name opens the target directory itself.
    ///
    /// # Errors
    /// Errors of the system.
    pub(super) fn open_sub_dir(&self, name: &str) -> io::Result<File> {
        let name = if name.is_empty() { "." } else { name };
        self.open_file(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// Returns the attributes of an entry, which may be a link, or `None` if it is missing.
    ///
    /// # Errors
    /// Errors of the system.
    pub(super) fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        let missing =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        match self.parent(name) {
            Ok((parent, name)) => Ok(handle::stat(parent.as_fd(), name)?),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// Errors of the system.
    pub(super) fn make_dir(&self, name: &str, mode: Mode) -> io::Result<()> {
        let (parent, name) = self.parent(name)?;
        Ok(fs::mkdirat(&parent, name, mode)?)
    }

    /// Creates a link.
    ///
    /// # Errors
    /// Errors of the system.
    pub(super) fn make_link(&self, name: &str, destination: &str) -> io::Result<()> {
        let (parent, name) = self.parent(name)?;
        Ok(fs::symlinkat(destination, &parent, name)?)
    }

    /// Removes a file or link.
    ///
    /// # Errors
    /// Errors of the system.
    pub(super) fn remove_file(&self, name: &str) -> io::Result<()> {
        let (parent, name) = self.parent(name)?;
        Ok(fs::unlinkat(&parent, name, AtFlags::empty())?)
    }

    /// Like [`TargetDir::remove_file`], but ignores a missing file.
    ///
    /// # Errors
    /// [`ErrorCode::FileRemove`].
    pub(super) fn remove_if_there(&self, name: &str) -> Result<()> {
        match self.remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::from_io(ErrorCode::FileRemove, format!("unable to remove '{}'", self.shown(name)), error))
            }
            _ => Ok(()),
        }
    }

    /// Renames a file within its directory.
    ///
    /// # Errors
    /// Errors of the system.
    pub(super) fn rename(&self, name: &str, base_name: &str) -> io::Result<()> {
        let (parent, name) = self.parent(name)?;
        Ok(fs::renameat(&parent, name, &parent, base_name)?)
    }

    /// Sets the owner of a link.
    ///
    /// # Errors
    /// Errors of the system, or the name belongs to something else.
    pub(super) fn own_link(&self, name: &str, owner: Owner) -> io::Result<()> {
        let (parent, name) = self.parent(name)?;
        let link = fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if handle::kind(&fs::fstat(&link)?) != FileType::Symlink {
            return Err(io::Error::other("it is no link any more"));
        }
        handle::set_owner(link.as_fd(), owner)
    }

    /// Syncs a directory, so that its entries are durable.
    ///
    /// # Errors
    /// [`ErrorCode::PathOpen`], [`ErrorCode::PathSync`].
    pub(super) fn sync_dir(&self, name: &str) -> Result<()> {
        let shown = self.shown(name);
        let dir = self.open_sub_dir(name).map_err(|error| {
            Error::from_io(ErrorCode::PathOpen, format!("unable to open path '{shown}' for sync"), error)
        })?;
        dir.sync_all()
            .map_err(|error| Error::from_io(ErrorCode::PathSync, format!("unable to sync path '{shown}'"), error))
    }

    /// Returns the directory that contains a name, and the name in it.
    ///
    /// # Errors
    /// Errors of the system.
    fn parent<'n>(&self, name: &'n str) -> io::Result<(Arc<OwnedFd>, &'n str)> {
        match name.rsplit_once('/') {
            Some((parent, name)) => Ok((self.dir(parent)?, name)),
            None => Ok((Arc::clone(&self.dir), name)),
        }
    }

    fn dir(&self, name: &str) -> io::Result<Arc<OwnedFd>> {
        const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
        let known = match &self.way {
            OpenWay::Openat2 => return Ok(Arc::new(fs::openat2(&self.dir, name, FLAGS, Mode::empty(), RESOLVE)?)),
            OpenWay::Steps(known) => known,
        };
        let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = lock().get(name) {
            return Ok(Arc::clone(dir));
        }
        let (parent, base_name) = self.parent(name)?;
        let dir = Arc::new(fs::openat(&parent, base_name, FLAGS, Mode::empty())?);
        let mut known = lock();
        if known.len() >= STEPS_MAX {
            known.clear();
        }
        known.insert(name.into(), Arc::clone(&dir));
        Ok(dir)
    }
}

/// Follows no links, so that nothing leads out of the directory.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

#[cfg(test)]
thread_local! {
    /// Makes tests open directories as on a kernel without `openat2`.
    pub(super) static WITHOUT_OPENAT2: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn path_open(path: &str, error: Errno) -> Error {
    Error::from_io(ErrorCode::PathOpen, format!("unable to open path '{path}'"), error.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Runs a test with both ways of opening, on a new directory that contains `sub/dir` and `link`, a link to `sub`.
    fn in_both_ways(test: impl Fn(&Path, &TargetDir)) {
        for without in [false, true] {
            WITHOUT_OPENAT2.set(without);
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("sub/dir")).unwrap();
            symlink("sub", dir.path().join("link")).unwrap();
            let target = TargetDir::open(dir.path().to_str().unwrap()).unwrap();
            assert_eq!(matches!(target.way, OpenWay::Steps(_)), without);
            test(dir.path(), &target);
        }
        WITHOUT_OPENAT2.set(false);
    }

    #[test]
    fn names_below_are_reached() {
        in_both_ways(|path, target| {
            let make = OFlags::WRONLY | OFlags::CREATE;
            target.open_file("sub/dir/file", make, Mode::RUSR).unwrap();
            target.make_dir("sub/new", Mode::RWXU).unwrap();
            target.make_link("sub/new/link", "nowhere").unwrap();
            target.rename("sub/dir/file", "renamed").unwrap();
            assert!(path.join("sub/dir/renamed").is_file());
            assert!(path.join("sub/new/link").is_symlink());
            assert!(target.stat("sub/dir/renamed").unwrap().is_some());
            assert!(target.stat("sub/none/file").unwrap().is_none());
            target.remove_file("sub/new/link").unwrap();
            for name in ["", "sub", "sub/new"] {
                target.sync_dir(name).unwrap();
            }
            target.remove_if_there("sub/none").unwrap();
        });
    }

    #[test]
    fn nothing_is_reached_through_a_link() {
        in_both_ways(|path, target| {
            std::fs::write(path.join("sub/file"), "x").unwrap();
            let make = OFlags::WRONLY | OFlags::CREATE;
            for name in ["link/file", "link/dir/file", "link"] {
                target.open_file(name, make, Mode::RUSR).unwrap_err();
                target.open_file(name, OFlags::RDONLY, Mode::empty()).unwrap_err();
            }
            for name in ["link", "link/dir"] {
                target.open_sub_dir(name).unwrap_err();
                target.sync_dir(name).unwrap_err();
            }
            target.make_dir("link/new", Mode::RWXU).unwrap_err();
            target.make_link("link/new", "nowhere").unwrap_err();
            target.remove_file("link/file").unwrap_err();
            target.rename("link/file", "other").unwrap_err();
            assert_eq!(std::fs::read_dir(path.join("sub")).unwrap().count(), 2);
            // The link itself is an entry
            assert!(target.stat("link").unwrap().is_some());
            target.remove_file("link").unwrap();
        });
    }

    #[test]
    fn names_with_dots_lead_out_of_no_directory() {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join("target");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(outside.path().join("file"), "x").unwrap();
        let target = TargetDir::open(path.to_str().unwrap()).unwrap();
        for name in ["../file", "/etc/passwd"] {
            target.open_file(name, OFlags::RDONLY, Mode::empty()).unwrap_err();
        }
    }

    #[test]
    fn make_makes_all_that_is_missing_with_mode_and_owner() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        let path = dir.path().join("link/a/b/c");
        let is_root = rustix::process::geteuid().is_root();
        let owner = is_root.then_some(Owner { uid: 12345, gid: 12345 });
        TargetDir::make(path.to_str().unwrap(), Mode::RWXU, owner).unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            let metadata = dir.path().join(made).metadata().unwrap();
            assert_eq!(metadata.mode() & 0o777, 0o700, "{made}");
            assert_eq!(metadata.uid() == 12345, is_root, "{made}");
        }
        // Existing directories keep their owner
        assert_ne!(dir.path().metadata().unwrap().uid(), 12345);
        assert_eq!(TargetDir::make("/proc/none/dir", Mode::RWXU, None).unwrap_err().code, ErrorCode::PathCreate);
    }
}
