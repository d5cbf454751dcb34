//! The files that the collector writes and the server serves.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use engine::{Error, ErrorCode, Result};

/// The largest file that is read.
const SIZE_MAX: u64 = 64 << 20;
/// Others may not read what annotations and errors say.
const MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;
/// The collector of node_exporter runs as another user.
const METRICS_MODE: u32 = 0o644;

/// A file below the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorFile {
    /// Metrics without their end mark.
    Metrics,
    /// The snapshot.
    Snapshot,
    /// The stanzas of the snapshot.
    Stanzas,
    /// The jobs of the snapshot.
    Jobs,
    /// The JSON of `info`.
    Info,
    /// The status page.
    Page,
}

impl MonitorFile {
    fn name(self) -> &'static str {
        match self {
            MonitorFile::Metrics => "metrics",
            MonitorFile::Snapshot => "status.json",
            MonitorFile::Stanzas => "stanzas.json",
            MonitorFile::Jobs => "jobs.json",
            MonitorFile::Info => "info.json",
            MonitorFile::Page => "index.html",
        }
    }

    /// Its path.
    pub fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.name())
    }

    /// Reads it; `None` if it is not there.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`]
    pub fn read(self, directory: &Path) -> Result<Option<Vec<u8>>> {
        let path = self.path(directory);
        let failed = |error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", path.display()), error);
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        file.take(SIZE_MAX).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Replaces it.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`]
    pub fn write(self, directory: &Path, text: &str) -> Result<()> {
        replace(&self.path(directory), text, MODE)
    }
}

/// Creates the directory of the files. Others may not read what annotations and errors say.
///
/// # Errors
/// [`ErrorCode::PathCreate`]
pub fn create(directory: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(|error| {
        Error::from_io(ErrorCode::PathCreate, format!("unable to create path '{}'", directory.display()), error)
    })?;
    // What a collection left that was killed. Only one runs at a time
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(".tmp") {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Replaces the file for the text collector of node_exporter.
///
/// # Errors
/// [`ErrorCode::FileWrite`]
pub fn write_metrics_file(path: &Path, text: &str) -> Result<()> {
    replace(path, text, METRICS_MODE)
}

/// Writes a file beside the other and renames it. Nothing is synced: the next collection replaces what a crash leaves.
fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The text collector reads names that end with .prom
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let write = || {
        // A left-over of a killed process of the same number
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", path.display()), error)
            .hint("the directory must exist, and this user must be able to create files in it.")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn file_is_replaced_as_a_whole_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rbr.prom");
        for text in ["a 1\n", "a 2\n"] {
            write_metrics_file(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & 0o755, 0o644 & mode & 0o777);
    }

    #[test]
    fn missing_directory_is_an_error_that_names_the_file() {
        let error = write_metrics_file(Path::new("/nonexistent/rbr.prom"), "").unwrap_err();
        assert!(error.to_string().contains("'/nonexistent/rbr.prom'"), "{error}");
        assert_eq!(MonitorFile::Page.read(Path::new("/nonexistent")).unwrap(), None);
    }

    #[test]
    fn left_overs_of_a_killed_collection_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/.monitor");
        create(&path).unwrap();
        fs::write(path.join(".index.html.1.tmp"), "part").unwrap();
        MonitorFile::Page.write(&path, "page").unwrap();
        create(&path).unwrap();
        let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["index.html"]);
    }

    #[test]
    fn link_at_the_temporary_name_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("rbr.prom"), directory.path().join("victim"));
        fs::write(&victim, "kept").unwrap();
        let temporary = directory.path().join(format!(".rbr.prom.{}.tmp", std::process::id()));
        std::os::unix::fs::symlink(&victim, temporary).unwrap();
        write_metrics_file(&path, "a 1\n").unwrap();
        assert_eq!(fs::read_to_string(victim).unwrap(), "kept");
    }
}
