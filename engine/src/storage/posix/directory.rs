//! Creates, syncs and removes directories.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{PATH_MODE, error};
use crate::{Error, ErrorCode, Result};

/// Runs `make`, and again after creating the parent directories of `path` if they were missing.
pub(super) fn with_parents<T>(path: &Path, mut make: impl FnMut() -> io::Result<T>) -> Result<io::Result<T>> {
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

/// Returns the directories that get a new entry when `path` and its missing parents are created: the parent first, the
/// deepest existing directory last.
pub(super) fn changed_paths(path: &Path) -> Vec<PathBuf> {
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

/// Creates a directory and its parents with [`PATH_MODE`].
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

/// Removes a directory and everything below it. Links in it are removed and not followed. If the path itself is a link, what
/// it leads to is emptied, and then the removal fails.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
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
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(error(ErrorCode::PathRemove, "unable to remove path '{}'", path, e))
        }
        _ => Ok(()),
    }
}

pub(super) fn remove_entry(path: &Path, code: ErrorCode) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(error(code, "unable to remove file '{}'", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_paths_ends_at_the_first_existing_directory() {
        let dir = tempfile::tempdir().unwrap();
        let changed = changed_paths(&dir.path().join("a/b/file"));
        assert_eq!(changed, [dir.path().join("a/b"), dir.path().join("a"), dir.path().to_owned()]);
        assert_eq!(changed_paths(&dir.path().join("file")), [dir.path().to_owned()]);
    }
}
