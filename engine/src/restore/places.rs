//! Where the entries of a manifest are: in which target directory, and under which name there.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use repo_format::manifest::PG_DATA;
use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use super::handle;
use super::target_dir::TargetDir;
use crate::{Error, ErrorCode, Result};

/// The target directories of a restore, opened.
#[derive(Debug, Default)]
pub struct Places {
    dirs: Vec<TargetDir>,
    /// By the names of the data directory, of directories that are links, and of tablespaces' directories: their number.
    directories: HashMap<String, usize>,
    /// By the names of files that are links: the number of the directory and the name in it.
    files: HashMap<String, (usize, String)>,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The target directory.
    pub(super) dir: &'a TargetDir,
    /// The name there; empty for the directory itself.
    pub(super) name: &'a str,
}

impl Places {
    /// Adds a directory target, by the manifest name of what is in it.
    pub(super) fn add_directory(&mut self, name: &str, dir: TargetDir) {
        self.directories.insert(name.to_owned(), self.dirs.len());
        self.dirs.push(dir);
    }

    /// Adds a file that is a link, by its manifest name. It has the name `file` in the directory.
    pub(super) fn add_file(&mut self, name: &str, dir: TargetDir, file: &str) {
        self.files.insert(name.to_owned(), (self.dirs.len(), file.to_owned()));
        self.dirs.push(dir);
    }

    /// The target directory with this manifest name; `None` before it is added.
    pub(super) fn directory(&self, name: &str) -> Option<&TargetDir> {
        self.dirs.get(*self.directories.get(name)?)
    }

    /// Where the content of a file or directory is, at the end of its link if it is one.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] for a name that is in no target.
    pub(super) fn content<'a>(&'a self, name: &'a str) -> Result<Place<'a>> {
        match self.files.get(name) {
            Some((number, file)) => {
                let dir = self.dirs.get(*number).ok_or_else(|| not_open(name))?;
                Ok(Place { dir, name: file })
            }
            None => self.below(name, name),
        }
    }

    /// Where an entry itself is, which may be a link.
    ///
    /// # Errors
    /// As [`Places::content`].
    pub(super) fn entry<'a>(&'a self, name: &'a str) -> Result<Place<'a>> {
        let (parent, _) = name.rsplit_once('/').ok_or_else(|| not_open(name))?;
        self.below(name, parent)
    }

    /// A name in the target of `above` or of the nearest directory above that.
    fn below<'a>(&'a self, name: &'a str, mut above: &'a str) -> Result<Place<'a>> {
        loop {
            if let Some(dir) = self.directory(above) {
                let below = name.get(above.len()..).unwrap_or_default();
                return Ok(Place { dir, name: below.strip_prefix('/').unwrap_or(below) });
            }
            above = above.rsplit_once('/').ok_or_else(|| not_open(name))?.0;
        }
    }

    /// The data directory.
    ///
    /// # Errors
    /// As [`Places::content`].
    pub(super) fn data_dir(&self) -> Result<&TargetDir> {
        self.directory(PG_DATA).ok_or_else(|| not_open(PG_DATA))
    }
}

fn not_open(name: &str) -> Error {
    Error::new(ErrorCode::Assert, format!("no target directory is open for '{name}'"))
}

impl Place<'_> {
    /// Opens what is there, which is not waited for if it is a pipe.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn open(&self, access: OFlags) -> io::Result<File> {
        self.dir.open_file(self.name, access, Mode::empty())
    }

    /// The attributes of a regular file, in one call. Directories on the way may be links here: nothing is opened.
    pub(super) fn look(&self) -> Option<Stat> {
        let stat = handle::stat(self.dir.handle(), self.name).ok()??;
        handle::is_file(&stat).then_some(stat)
    }

    /// Opens a file for writing, or makes it with this mode. Only with `keep` it keeps its content. `shown` is its path in messages.
    ///
    /// A file that may not be written to, or that other names lead to, is replaced: the mode is that of an earlier restore, and what
    /// the other names stand for is not the restore's.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`], [`ErrorCode::FileMissing`] without its directory, [`ErrorCode::FileWrite`].
    pub(super) fn write(&self, access: OFlags, mode: Mode, keep: bool, shown: &str) -> Result<(File, Metadata)> {
        let flags = access | OFlags::CREATE;
        let fail = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                let message = format!("unable to open file '{shown}' for write in missing path");
                return Error::new(ErrorCode::FileMissing, message).cause(error);
            }
            Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{shown}' for write"), error)
        };
        let replace = |error: io::Error| -> Result<(File, Metadata)> {
            // What is no file, or can't be removed, stays and is the error
            let is_file = self.dir.stat(self.name).is_ok_and(|stat| stat.is_some_and(|stat| handle::is_file(&stat)));
            if !is_file || self.dir.remove_file(self.name).is_err() {
                return Err(fail(error));
            }
            let file = self.dir.open_file(self.name, flags | OFlags::EXCL, mode).map_err(fail)?;
            let metadata = regular(&file, shown)?;
            Ok((file, metadata))
        };
        let file = match self.dir.open_file(self.name, flags, mode) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return replace(error),
            Err(error) => return Err(fail(error)),
        };
        let metadata = regular(&file, shown)?;
        if metadata.nlink() > 1 {
            return replace(Errno::MLINK.into());
        }
        if metadata.len() > 0 && !keep {
            file.set_len(0).map_err(|error| {
                Error::from_io(ErrorCode::FileWrite, format!("unable to truncate file '{shown}'"), error)
            })?;
        }
        Ok((file, metadata))
    }
}

/// Refuses devices, pipes and the like: what was opened is looked at, since it may have changed since its name was.
///
/// # Errors
/// [`ErrorCode::FileOpen`].
pub(super) fn regular(file: &File, shown: &str) -> Result<Metadata> {
    let metadata = file.metadata().map_err(|error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{shown}'"), error)
    })?;
    if metadata.is_file() {
        return Ok(metadata);
    }
    Err(Error::new(ErrorCode::FileOpen, format!("unable to open file '{shown}' for write: it is not a regular file")))
}
