//! PostgreSQL's data directory: what belongs into a backup, and how its files are read.
//!
//! The scan follows pgBackRest (`src/info/manifest/build.c.inc`): it omits the same entries, refuses the same links,
//! and visits entries in the same order, so that both programs find the same files and fail with the same message.

pub mod files;
pub(crate) mod links;
mod names;
mod scan;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use names::{DatabasePaths, from_standby, segment_number};
pub use scan::{Scan, ScanOptions, ScannedFile, ScannedLink, ScannedPath, ScannedTarget, ServerTablespace, scan};

use repo_format::manifest::pg_path;
use rustix::fs::OFlags;

use crate::{Error, ErrorCode, Result};

/// The manifest name of `pg_control`.
pub const PG_CONTROL: &str = "pg_data/global/pg_control";

/// A data directory on this host.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// The data directory at this absolute path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataDir { path: path.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The absolute path of the file with this manifest name.
    pub fn file_path(&self, name: &str) -> PathBuf {
        match pg_path(name) {
            "" => self.path.clone(),
            relative => self.path.join(relative),
        }
    }

    /// Opens a file for reading; `None` if it is missing.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`].
    pub fn open(&self, name: &str) -> Result<Option<File>> {
        open_file(&self.file_path(name))
    }
}

/// Opens a regular file for reading; `None` if it is missing. Anything else that replaced the file since the scan, such
/// as a pipe, is an error, and the backup does not wait for it.
///
/// # Errors
/// [`ErrorCode::FileOpen`].
pub(crate) fn open_file(path: &Path) -> Result<Option<File>> {
    let fail = |error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{}' for read", path.display()), error)
    };
    let file = match File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if !file.metadata().map_err(fail)?.is_file() {
        let text = format!("unable to open '{}' for read: it is not a regular file", path.display());
        return Err(Error::new(ErrorCode::FileOpen, text));
    }
    rustix::fs::fcntl_setfl(&file, OFlags::empty()).map_err(|error| fail(error.into()))?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_of_a_pipe_or_directory_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let data_dir = DataDir::new(dir.path());
        assert_eq!(data_dir.open("pg_data/pipe").unwrap_err().code, ErrorCode::FileOpen);
        assert_eq!(data_dir.open("pg_data").unwrap_err().code, ErrorCode::FileOpen);
    }
}
