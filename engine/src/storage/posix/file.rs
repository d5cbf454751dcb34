//! Reads and writes one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::directory::{changed_paths, sync_path, with_parents};
use super::{FILE_MODE, error};
use crate::storage::{RepoReader, RepoWriter, WriteOptions, temporary};
use crate::{Error, ErrorCode, Result};

/// A name for a file until it is complete.
pub(super) fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(temporary::name(&name))
}

/// Reads one file, at most `left` more bytes of it.
pub(super) struct PosixReader {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) left: u64,
}

impl Read for PosixReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let done = match self.file.read(&mut buffer[..size]) {
            // `read_exact` and similar functions retry this error themselves, so it must stay unchanged
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            done => done.map_err(|e| error(ErrorCode::FileRead, "unable to read '{}'", &self.path, e))?,
        };
        self.left -= done as u64;
        Ok(done)
    }
}

impl RepoReader for PosixReader {}

/// Writes one file. Also used for local files outside a repository with the same rules (spool, stop files).
pub struct PosixWriter {
    /// `None` (closed) once finished.
    file: Option<File>,
    path: PathBuf,
    /// Where the bytes are written: the temporary name, or `path` itself if the write is not atomic.
    path_open: PathBuf,
    options: WriteOptions,
    /// Bytes written.
    size: u64,
    /// Whether to check the file again when it has its name.
    checked: bool,
    /// To be synced at the end: the file's directory and, if directories were created for it, those above them too. A
    /// file is not durable until the entries of all its directories are.
    sync_paths: Vec<PathBuf>,
}

impl PosixWriter {
    /// Opens the file (or its temporary name) for writing from its start, and creates missing directories.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`], [`ErrorCode::PathCreate`].
    pub fn open(path: PathBuf, options: WriteOptions) -> Result<Self> {
        let path_open = if options.atomic { temporary_name(&path) } else { path.clone() };
        let open = || create(&path_open, options.atomic);
        let sync_paths = if options.sync_path { changed_paths(&path) } else { Vec::new() };
        let file = with_parents(&path, open)
            .and_then(|file| {
                file.map_err(|e| error(ErrorCode::FileOpen, "unable to open file '{}' for write", &path, e))
            })
            .inspect_err(|_| sync_made(&sync_paths))?;
        Ok(PosixWriter { file: Some(file), path, path_open, options, size: 0, checked: false, sync_paths })
    }

    /// Makes [`RepoWriter::finish`] check the file again. Files of the spool must not be checked, because they may be
    /// removed as soon as they exist.
    #[must_use]
    pub(super) fn checked(mut self) -> Self {
        self.checked = true;
        self
    }

    /// Checks that a name has all the bytes that were written.
    fn check_size(&self, path: &Path) -> Result<()> {
        let found = fs::metadata(path)
            .map_err(|e| error(ErrorCode::FileOpen, "unable to get info for path/file '{}' after write", path, e))?;
        // A device has no size
        if !found.is_file() || found.len() == self.size {
            return Ok(());
        }
        Err(wrong_size(&path.to_string_lossy(), found.len(), self.size))
    }
}

/// Returns the error for a file that does not have the bytes that were written to it.
pub(in crate::storage) fn wrong_size(path: &str, found: u64, written: u64) -> Error {
    Error::new(ErrorCode::FileWrite, format!("file '{path}' has {found} byte(s) after write instead of {written}"))
        .hint("is another process writing the same file?")
}

/// Returns whether a path refers to this open file.
///
/// # Errors
/// The path can't be checked.
pub(crate) fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Opens a file for writing from its start. With `new` it must not exist. Otherwise, one that exists is replaced, not truncated: it is
/// mostly left over from an attempt that failed, and a process on this host may still be about to write to it for that attempt.
fn create(path: &Path, new: bool) -> io::Result<File> {
    let create_new = || OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(path);
    match create_new() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && !new => {}
        opened => return opened,
    }
    let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    if is_file && fs::remove_file(path).is_ok() {
        match create_new() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened,
        }
    }
    // A device or a link, or a file that can't be replaced
    OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(path)
}

/// Makes directories durable whose file was not completed, because the next attempt finds them and assumes that their
/// entries are durable. The first path is the file's own directory, where nothing has to be kept.
fn sync_made(sync_paths: &[PathBuf]) {
    for path in sync_paths.iter().skip(1) {
        // An earlier error is being reported; an error here leaves the same state as an earlier crash
        let _ = sync_path(path);
    }
}

impl Write for PosixWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Err(io::Error::other("written to after its end")) };
        match file.write(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => Err(e),
            done => {
                let size = done.map_err(|e| error(ErrorCode::FileWrite, "unable to write '{}'", &self.path_open, e))?;
                self.size += size as u64;
                Ok(size)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RepoWriter for PosixWriter {
    fn finish(mut self: Box<Self>) -> Result<()> {
        // Taken only at the end: after an earlier error, `drop` removes the temporary file
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
        if self.checked {
            self.check_size(&self.path)?;
        }
        self.sync_paths.iter().try_for_each(|path| sync_path(path))
    }
}

impl Drop for PosixWriter {
    fn drop(&mut self) {
        if self.file.is_none() {
            return;
        }
        if self.options.atomic {
            // The file was abandoned, usually because of an error that is already being reported; a temporary file that
            // can't be removed is harmless, and a later run removes it
            let _ = fs::remove_file(&self.path_open);
        }
        sync_made(&self.sync_paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_write_of_a_lost_attempt_reached_the_file_of_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let open = || Box::new(PosixWriter::open(path.clone(), WriteOptions::IN_PLACE).unwrap().checked());
        let mut lost = open();
        lost.write_all(b"lost").unwrap();
        let mut next = open();
        next.write_all(b"what is right").unwrap();
        lost.write_all(b" and rubbish").unwrap();
        next.finish().unwrap();
        drop(lost);
        assert_eq!(fs::read(&path).unwrap(), b"what is right");
        // Neither a link nor what it leads to is replaced
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut writer = Box::new(PosixWriter::open(link.clone(), WriteOptions::IN_PLACE).unwrap());
        writer.write_all(b"new").unwrap();
        writer.finish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn abandoned_file_leaves_only_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("15-1/0000000100000001/file");
        let mut writer = PosixWriter::open(path.clone(), WriteOptions::ATOMIC).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(writer.sync_paths.len(), 3);
        drop(writer);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        // A file where a directory should be
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(PosixWriter::open(dir.path().join("file/a/b"), WriteOptions::ATOMIC).is_err());
    }

    #[test]
    fn file_that_is_cut_while_it_is_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for options in [WriteOptions::ATOMIC, WriteOptions::IN_PLACE] {
            let mut writer = Box::new(PosixWriter::open(path.clone(), options).unwrap().checked());
            writer.write_all(b"whole").unwrap();
            OpenOptions::new().write(true).truncate(true).open(&writer.path_open).unwrap();
            let error = writer.finish().unwrap_err();
            assert_eq!(error.code, ErrorCode::FileWrite);
            assert!(error.message.contains("has 0 byte(s) after write instead of 5"), "{error}");
        }
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
}
