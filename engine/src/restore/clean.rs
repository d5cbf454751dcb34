//! Checks whether the target directories may be cleaned, before a restore changes anything.
//!
//! Source: pgBackRest `restoreCleanBuild` in `src/command/restore/clean.c.inc`, its first step.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use repo_format::layout::TEMP_SUFFIX;
use repo_format::manifest::{Manifest, ManifestPath, PG_DATA, Target};

use super::names::target_path;
use super::ownership::Ownership;
use crate::{Error, ErrorCode, Result, detail};

/// The manifest's copy in the data directory during a restore. It identifies the directory for a later restore with
/// `--delta`.
pub(super) const BACKUP_MANIFEST: &str = "backup.manifest";

/// Permission bits of user, group and others, the only ones that a backup records: a hostile manifest must not set the
/// set-user-id bit.
pub(super) const MODE_MASK: u32 = 0o777;

/// The hint about directories that are not empty.
const DELTA_HINT: &str = "try using --delta if this is what you intended.";

/// Replaces the hint to use `--delta` after that option was disabled, because there it can't help.
pub(super) fn hint_without_delta(mut error: Error) -> Error {
    for hint in error.hints.iter_mut().filter(|hint| *hint == DELTA_HINT) {
        "--delta and --force are disabled because the data directory is new: restore tablespaces and links to empty \
         directories with --tablespace-map, --tablespace-map-all or --link-map, or empty this directory."
            .clone_into(hint);
    }
    error
}

/// Settings of cleaning, in addition to the manifest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CleanSettings<'a> {
    /// The data directory.
    pub pg_path: &'a str,
    /// Existing files are expected (`--delta` or `--force`).
    pub delta: bool,
    /// Files of the data directory that stay unchanged.
    pub keep: &'a [&'a str],
    /// The directory of this version and catalog in a tablespace.
    pub tablespace_dir: &'a str,
}

/// A target directory and the manifest name of what is in it.
pub(super) struct Directory<'a> {
    /// The data directory, link or tablespace.
    pub target: &'a Target,
    /// Its manifest name.
    pub name: String,
    /// Its path.
    pub path: String,
}

/// Checks that every target directory is writable and, without delta, empty. Changes nothing.
///
/// # Errors
/// [`ErrorCode::PathOpen`], [`ErrorCode::PathNotEmpty`], [`ErrorCode::FileExists`].
pub fn check(manifest: &Manifest, ownership: &Ownership, settings: &CleanSettings<'_>) -> Result<()> {
    let mut checked = HashSet::new();
    for directory in directories(manifest, settings) {
        if checked.insert(directory.path.clone()) {
            detail!("check '{}' exists", directory.path);
        }
        let Some(metadata) = metadata(&directory.path)? else { continue };
        if !ownership.is_root() && metadata.uid() != ownership.current().uid {
            return Err(Error::new(
                ErrorCode::PathOpen,
                format!("unable to restore to path '{}' not owned by current user", directory.path),
            ));
        }
        if metadata.mode() & 0o700 != 0o700 {
            return Err(Error::new(
                ErrorCode::PathOpen,
                format!("unable to restore to path '{}' without rwx permissions", directory.path),
            ));
        }
        if settings.delta {
            continue;
        }
        match &directory.target.file {
            None => check_empty(&directory, settings)?,
            Some(file) => {
                let file = format!("{}/{file}", directory.path);
                if self::metadata(&file)?.is_some() {
                    return Err(Error::new(
                        ErrorCode::FileExists,
                        format!("unable to restore file '{file}' because it already exists"),
                    )
                    .hint(DELTA_HINT));
                }
            }
        }
    }
    Ok(())
}

pub(super) fn directories<'a>(manifest: &'a Manifest, settings: &CleanSettings<'_>) -> Vec<Directory<'a>> {
    manifest
        .targets
        .iter()
        .map(|target| {
            let mut name = target.name.clone();
            let mut path = target_path(manifest, settings.pg_path, target);
            if target.tablespace.is_some() {
                name = format!("{name}/{}", settings.tablespace_dir);
                path = format!("{path}/{}", settings.tablespace_dir);
            }
            Directory { target, name, path }
        })
        .collect()
}

pub(super) fn manifest_path<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a ManifestPath> {
    manifest
        .path(name)
        .ok_or_else(|| Error::new(ErrorCode::Format, format!("unable to find '{name}' in manifest path list")))
}

pub(super) fn check_empty(directory: &Directory<'_>, settings: &CleanSettings<'_>) -> Result<()> {
    for entry in entries(&directory.path)? {
        let kept = directory.name == PG_DATA
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && is_kept(entry.file_name().to_str(), settings);
        if !kept {
            return Err(Error::new(
                ErrorCode::PathNotEmpty,
                format!("unable to restore to path '{}' because it contains files", directory.path),
            )
            .hint(DELTA_HINT));
        }
    }
    Ok(())
}

pub(super) fn is_kept(name: Option<&str>, settings: &CleanSettings<'_>) -> bool {
    name.is_some_and(|name| {
        // Including the manifest that a restore was writing when it was killed
        name.strip_suffix(TEMP_SUFFIX).unwrap_or(name) == BACKUP_MANIFEST || settings.keep.contains(&name)
    })
}

/// The entries of a directory in the order of their names.
pub(super) fn entries(path: &str) -> Result<Vec<fs::DirEntry>> {
    let fail =
        |error| Error::from_io(ErrorCode::PathOpen, format!("unable to list file info for path '{path}'"), error);
    let mut entries = fs::read_dir(path).map_err(fail)?.collect::<io::Result<Vec<_>>>().map_err(fail)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// Returns the attributes of a path's destination, following links; `None` if it is missing.
pub(super) fn metadata(path: &str) -> Result<Option<fs::Metadata>> {
    missing_is_none(path, fs::metadata(path))
}

/// Returns the attributes of the path itself; `None` if it is missing.
pub(super) fn symlink_metadata(path: &str) -> Result<Option<fs::Metadata>> {
    missing_is_none(path, fs::symlink_metadata(path))
}

fn missing_is_none(path: &str, result: io::Result<fs::Metadata>) -> Result<Option<fs::Metadata>> {
    match result {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => {
            Err(Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{path}'"), error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_after_delta_was_disabled_names_what_helps_instead() {
        let error = hint_without_delta(Error::new(ErrorCode::PathNotEmpty, "x").hint("a").hint(DELTA_HINT));
        assert_eq!(error.hints[0], "a");
        assert!(
            error.hints[1].contains("--tablespace-map") && !error.hints[1].contains("try using --delta"),
            "{error}"
        );
    }
}
