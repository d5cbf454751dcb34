//! Reading and writing one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use repo_format::layout::TEMP_SUFFIX;

use super::directory::{changed_paths, sync_path, with_parents};
use super::{FILE_MODE, error};
use crate::storage::{RepoWriter, WriteOptions};
use crate::{Error, ErrorCode, Result};

/// The name of a file until it is complete.
pub(super) fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMP_SUFFIX);
    PathBuf::from(name)
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
    /// Whether the file system tells by their numbers whether two files are the same.
    has_inodes: bool,
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
        let open = || if options.atomic { create_new(&path_open) } else { create(&path_open) };
        let sync_paths = if options.sync_path { changed_paths(&path) } else { Vec::new() };
        let file = with_parents(&path, open)
            .and_then(|file| {
                file.map_err(|e| error(ErrorCode::FileOpen, "unable to open file '{}' for write", &path, e))
            })
            .inspect_err(|_| sync_made(&sync_paths))?;
        let mut writer = PosixWriter { file: Some(file), path, path_open, options, has_inodes: true, sync_paths };
        // Some network file systems make the numbers up
        writer.has_inodes = options.atomic && !writer.is_replaced();
        Ok(writer)
    }

    /// Takes it on trust that the temporary name is still that of this file.
    #[must_use]
    pub(super) fn without_inodes(mut self) -> Self {
        self.has_inodes = false;
        self
    }

    /// Whether the temporary name is that of another file, which another process writes: on another host, or after the operator
    /// has stopped and started the stanza.
    fn is_replaced(&self) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| self.has_inodes) else { return false };
        // One that is missing or can't be looked at can't be renamed either
        self.path_open.exists() && !is_named(file, &self.path_open).unwrap_or(true)
    }
}

/// Whether a path leads to this open file.
///
/// # Errors
/// It can't be looked at.
pub(crate) fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Opens a file to write it from its start.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Makes a file in the place of one that there may be. Who still writes that one must not write into this one.
fn create_new(path: &Path) -> io::Result<File> {
    let create_new = || OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
    match create_new() {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => create_new(),
        },
        file => file,
    }
}

/// Makes directories durable whose file did not come: the next attempt finds them there and takes their entries for durable.
/// The first path is the file's own directory, where nothing is to be kept.
fn sync_made(sync_paths: &[PathBuf]) {
    for path in sync_paths.iter().skip(1) {
        // An error is on its way already; one here leaves what a crash before this had left
        let _ = sync_path(path);
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
            if self.is_replaced() {
                let path = self.path_open.display();
                return Err(Error::new(ErrorCode::FileMove, format!("file '{path}' is written by another process")));
            }
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
        if self.file.is_none() {
            return;
        }
        if self.options.atomic && !self.is_replaced() {
            // The file was abandoned, most often because of an error that is already on its way; a temporary file that
            // can't be removed does no harm and is overwritten by the next attempt
            let _ = fs::remove_file(&self.path_open);
        }
        sync_made(&self.sync_paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn two_writers_of_a_file_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut first = Box::new(PosixWriter::open(path.clone(), WriteOptions::ATOMIC).unwrap());
        first.write_all(b"first").unwrap();
        let mut second = Box::new(PosixWriter::open(path.clone(), WriteOptions::ATOMIC).unwrap());
        second.write_all(b"sec").unwrap();
        first.write_all(b" more").unwrap();
        let error = first.finish().unwrap_err();
        assert_eq!(error.code, ErrorCode::FileMove);
        assert!(error.message.ends_with("is written by another process"), "{error}");
        second.write_all(b"ond").unwrap();
        second.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
