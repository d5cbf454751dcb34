//! Maps the entries of a manifest to a target directory and the name in it.

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

/// The open target directories of a restore.
#[derive(Debug, Default)]
pub(crate) struct Places {
    dirs: Vec<TargetDir>,
    /// The number of each directory, by the manifest names of the data directory, linked directories and the
    /// directories of tablespaces.
    directories: HashMap<String, usize>,
    /// For each linked file, by its manifest name, the number of its directory and its name there.
    files: HashMap<String, (usize, String)>,
}

/// The location of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The target directory.
    pub(super) dir: &'a TargetDir,
    /// The name in the directory. Empty for the directory itself.
    pub(super) name: &'a str,
}

impl Places {
    /// Adds a directory, by the manifest name of its content.
    pub(super) fn add_directory(&mut self, name: &str, dir: TargetDir) {
        self.directories.insert(name.to_owned(), self.dirs.len());
        self.dirs.push(dir);
    }

    /// Adds a linked file, by its manifest name. Its name in the directory is `file`.
    pub(super) fn add_file(&mut self, name: &str, dir: TargetDir, file: &str) {
        self.files.insert(name.to_owned(), (self.dirs.len(), file.to_owned()));
        self.dirs.push(dir);
    }

    /// Returns the target directory with this manifest name, or `None` before it is added.
    pub(super) fn directory(&self, name: &str) -> Option<&TargetDir> {
        self.dirs.get(*self.directories.get(name)?)
    }

    /// Returns the location of the content of a file or directory. For a link, that is its destination.
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

    /// Returns the location of the entry itself, which may be a link.
    ///
    /// # Errors
    /// The same as [`Places::content`].
    pub(super) fn entry<'a>(&'a self, name: &'a str) -> Result<Place<'a>> {
        let (parent, _) = name.rsplit_once('/').ok_or_else(|| not_open(name))?;
        self.below(name, parent)
    }

    /// Returns the location of `name` in the target of `above`, or of its nearest parent that is a target.
    fn below<'a>(&'a self, name: &'a str, mut above: &'a str) -> Result<Place<'a>> {
        loop {
            if let Some(dir) = self.directory(above) {
                let below = name.get(above.len()..).unwrap_or_default();
                return Ok(Place { dir, name: below.strip_prefix('/').unwrap_or(below) });
            }
            above = above.rsplit_once('/').ok_or_else(|| not_open(name))?.0;
        }
    }

    /// Returns the data directory.
    ///
    /// # Errors
    /// The same as [`Places::content`].
    pub(super) fn data_dir(&self) -> Result<&TargetDir> {
        self.directory(PG_DATA).ok_or_else(|| not_open(PG_DATA))
    }
}

fn not_open(name: &str) -> Error {
    Error::new(ErrorCode::Assert, format!("no target directory is open for '{name}'"))
}

impl Place<'_> {
    /// Opens the file. Does not wait if it is a pipe.
    ///
    /// # Errors
    /// Errors of the system.
    pub(super) fn open(&self, access: OFlags) -> io::Result<File> {
        self.dir.open_file(self.name, access, Mode::empty())
    }

    /// Returns the attributes of a regular file, with a single call. This call may follow links on the way, which is
    /// safe because it opens nothing.
    pub(super) fn look(&self) -> Option<Stat> {
        let stat = handle::stat(self.dir.handle(), self.name).ok()??;
        handle::is_file(&stat).then_some(stat)
    }

    /// Opens a file for writing, or creates it with this mode. The content is kept only if `keep` is set. `shown` is
    /// the path in messages.
    ///
    /// A file that can't be written to, or that has other hard links, is replaced: an earlier restore may have set its
    /// mode, and the other links do not belong to the restore.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`], [`ErrorCode::FileMissing`] if the directory is missing, [`ErrorCode::FileWrite`].
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
            // If it is not a file or can't be removed, the first error is returned
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

/// Returns the attributes of a regular file, and refuses devices, pipes and similar. It checks the open file, because
/// another file may have taken the name since the name was checked.
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
