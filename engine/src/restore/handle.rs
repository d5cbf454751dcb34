//! Operations on the entries of an open directory. None of them follows a link.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::path::Arg;

use super::ownership::Owner;

/// Returns the attributes of an entry, or `None` if it is missing.
pub(super) fn stat(dir: BorrowedFd<'_>, name: impl Arg) -> rustix::io::Result<Option<Stat>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the type of an entry.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns whether an entry is a regular file.
pub(super) fn is_file(stat: &Stat) -> bool {
    kind(stat) == FileType::RegularFile
}

/// Returns the names in a directory, sorted.
pub(super) fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a directory, to read and change its entries.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Removes a directory with its content.
pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    let sub_dir = open_dir(dir, name)?;
    for entry in names(sub_dir.as_fd())? {
        match fs::unlinkat(&sub_dir, &entry, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(sub_dir.as_fd(), &entry)?,
            result => result?,
        }
    }
    drop(sub_dir);
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// An entry whose attributes were read, opened only to change them. Opening fails if something else has replaced it
/// since.
pub(super) struct HandleEntry<'a> {
    dir: BorrowedFd<'a>,
    name: &'a CStr,
    stat: &'a Stat,
    fd: OwnedFd,
}

impl<'a> HandleEntry<'a> {
    pub(super) fn open(dir: BorrowedFd<'a>, name: &'a CStr, stat: &'a Stat) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(dir, name, flags, Mode::empty())?;
        check_same(&fd, stat)?;
        Ok(HandleEntry { dir, name, stat, fd })
    }

    pub(super) fn set_owner(&self, owner: Owner) -> io::Result<()> {
        set_owner(self.fd.as_fd(), owner)
    }

    /// Sets the mode of a file or directory.
    pub(super) fn set_mode(&self, mode: Mode) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(self.dir, self.name, flags, Mode::empty()) {
            Ok(fd) => {
                check_same(&fd, self.stat)?;
                Ok(fs::fchmod(&fd, mode)?)
            }
            // The mode forbids reading. The path of the handle leads to the opened entry, whatever has its name now
            Err(Errno::ACCESS) => Ok(fs::chmod(format!("/proc/self/fd/{}", self.fd.as_raw_fd()), mode)?),
            Err(error) => Err(error.into()),
        }
    }
}

fn check_same(fd: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let now = fs::fstat(fd)?;
    if (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino) {
        return Ok(());
    }
    Err(io::Error::other("something else has taken its place"))
}

/// Sets the owner of an open file or directory.
pub(super) fn set_owner(fd: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    Ok(fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}
