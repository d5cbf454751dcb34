//! Loads archive.info and backup.info, or their copies if the files can't be used.

use std::io::BufRead;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::format::{self, RepoFormat};
use repo_format::info::{self, Origin};
use repo_format::layout::{self, RepoPath, Stanza};

use super::stored::{load_file, stored_format};
use crate::repo::unreadable::{self, LoadedBackups};
use crate::work::retry::{is_about_content, is_of_peer, made_of};
use crate::{Error, ErrorCode, Repo, Result};

/// What an info file is loaded for. It decides whether a copy of an older format can stand in for a damaged file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Only to read. What the copy knows can still be read, as in pgBackRest.
    Read,
    /// To save it. A copy from before an upgrade lacks keys, which may still be in the damaged file.
    Save,
    /// The same for backup.info. It has one key, which stays for good, so its copy also serves if the file can't be read.
    SaveBackups,
}

/// Loads archive.info.
///
/// # Errors
/// Neither the file nor its copy can be used. Code and message cover both.
pub fn load_archive_info(repo: &Repo, stanza: &Stanza) -> Result<ArchiveInfo> {
    load_archive(repo, stanza, Purpose::Read)
}

/// Loads archive.info for a command that may save it.
///
/// # Errors
/// The same as [`load_archive_info`], the file can't be read at the moment, or it is damaged and has a newer format than
/// its copy.
pub(crate) fn load_archive_info_to_save(repo: &Repo, stanza: &Stanza) -> Result<ArchiveInfo> {
    load_archive(repo, stanza, Purpose::Save)
}

/// Loads archive.info for a command that saves it only to make it more recent; `None` if the file is damaged and may have
/// cipher keys that its copy lacks. Then it has to stay as it is.
///
/// # Errors
/// The same as [`load_archive_info`], and the file can't be read at the moment, which tells nothing about its content.
pub(crate) fn load_archive_info_to_refresh(repo: &Repo, stanza: &Stanza) -> Result<Option<ArchiveInfo>> {
    let path = layout::archive_info(stanza);
    let is_damaged = match load_file(repo, &path, |reader, origin| ArchiveInfo::read(reader, origin)) {
        Ok(info) => return Ok(Some(info)),
        Err(error) if !is_about_content(&error) => return Err(unread(repo, &path, error)),
        Err(error) => error.code != ErrorCode::FileMissing,
    };
    let info = load_archive_info(repo, stanza)?;
    Ok((!is_damaged || !has_rotating_keys(&info)).then_some(info))
}

/// The error for a file that can't be read at the moment.
fn unread(repo: &Repo, path: &RepoPath, error: Error) -> Error {
    error.context(format_args!("unable to load info file '{}'", repo.storage.display(path)))
}

/// Returns whether archive.info has cipher keys to which others are added.
pub(crate) fn has_rotating_keys(info: &ArchiveInfo) -> bool {
    info.format > RepoFormat::V5 && info.keys.is_some()
}

fn load_archive(repo: &Repo, stanza: &Stanza, purpose: Purpose) -> Result<ArchiveInfo> {
    let read = |reader: &mut dyn BufRead, origin| ArchiveInfo::read(reader, origin);
    repo.storage.opened()?;
    let loaded = load_pair(repo, &layout::archive_info(stanza), purpose, read, |info| info.format);
    loaded.map(|(info, _)| info).map_err(|error| {
        error
            .hint("archive.info cannot be opened but is required to push/get WAL segments.")
            .hint("is archive_command configured correctly in postgresql.conf?")
            .hint("has a stanza-create been performed?")
            .hint("use --no-archive-check to disable archive checks during backup if you have an alternate archiving scheme.")
    })
}

/// Loads backup.info as it is.
///
/// # Errors
/// Neither the file nor its copy can be used. Code and message cover both.
pub(crate) fn load_backup_info(repo: &Repo, stanza: &Stanza) -> Result<BackupInfo> {
    load_backup(repo, stanza, Purpose::Read).map(|loaded| loaded.info)
}

/// Loads backup.info for a command that may save it. If this system can't read it for good, its copy serves.
///
/// # Errors
/// The same as [`load_backup_info`], the file can't be read at the moment, or it is damaged and has a newer format than
/// its copy.
pub(crate) fn load_backup_info_to_save(repo: &Repo, stanza: &Stanza) -> Result<LoadedBackups> {
    load_backup(repo, stanza, Purpose::SaveBackups)
}

fn load_backup(repo: &Repo, stanza: &Stanza, purpose: Purpose) -> Result<LoadedBackups> {
    let read = |reader: &mut dyn BufRead, origin| BackupInfo::read(reader, origin);
    repo.storage.opened()?;
    let loaded = load_pair(repo, &layout::backup_info(stanza), purpose, read, |info| info.format);
    loaded.map(|(info, unreadable)| LoadedBackups { info, unreadable }).map_err(|error| {
        error
            .hint("backup.info cannot be opened and is required to perform a backup.")
            .hint("has a stanza-create been performed?")
    })
}

/// Loads the copy of archive.info; `None` if it is missing or damaged.
///
/// # Errors
/// It can't be read now, or has a format that can't be read.
pub(crate) fn load_archive_info_copy(repo: &Repo, stanza: &Stanza) -> Result<Option<ArchiveInfo>> {
    let path = layout::copy(&layout::archive_info(stanza));
    unless_damaged(load_file(repo, &path, |reader, origin| ArchiveInfo::read(reader, origin)))
}

/// Loads the copy of backup.info; `None` if it is missing or damaged.
///
/// # Errors
/// It can't be read now, or has a format that can't be read.
pub(crate) fn load_backup_info_copy(repo: &Repo, stanza: &Stanza) -> Result<Option<BackupInfo>> {
    let path = layout::copy(&layout::backup_info(stanza));
    unless_damaged(load_file(repo, &path, |reader, origin| BackupInfo::read(reader, origin)))
}

fn unless_damaged<T>(loaded: Result<T>) -> Result<Option<T>> {
    match loaded {
        Ok(info) => Ok(Some(info)),
        Err(error) if is_about_content(&error) && !format::is_unsupported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Loads a file, or its copy. With the copy comes why the file can't be read, if that is the reason and will stay.
fn load_pair<T>(
    repo: &Repo,
    path: &RepoPath,
    purpose: Purpose,
    parse: impl Fn(&mut dyn BufRead, Origin) -> Result<T>,
    format_of: impl Fn(&T) -> RepoFormat,
) -> Result<(T, Option<Error>)> {
    let load = |path: &RepoPath| load_file(repo, path, &parse);
    let name = || repo.storage.display(path);
    let lasts = |error: &Error| purpose == Purpose::SaveBackups && unreadable::lasts(repo, error);
    let file = if purpose == Purpose::SaveBackups { unreadable::read_twice(repo, || load(path)) } else { load(path) };
    let first = match file {
        Ok(info) => return Ok((info, None)),
        // The copy may have the format from before an upgrade, and would replace the file when it is saved
        Err(error) if format::is_unsupported(&error) => return Err(unread(repo, path, error)),
        // Nor does it replace a file that may be intact
        Err(error) if purpose != Purpose::Read && !is_about_content(&error) && !lasts(&error) => {
            let error = unread(repo, path, error);
            return Err(if purpose == Purpose::SaveBackups && !is_of_peer(&error) {
                let name = name();
                error.hint(format!("may the user of the repository read '{name}', and is its disk sound?")).hint(
                    "if it stays unreadable, its copy serves: where the repository is a local path, expire writes the file anew. \
                     Elsewhere replace it with the copy, which may be older.",
                )
            } else {
                error
            });
        }
        Err(error) => error,
    };
    let copy = load(&layout::copy(path)).map_err(|second| {
        let name = name();
        let text = format!("unable to load info file '{name}' or '{name}.copy'");
        made_of(info::pair_error(&text, &first, &second), &[&first, &second])
    })?;
    // Its format can't be known. An upgrade writes archive.info first, so that tells whether the copy is too old
    if lasts(&first) {
        return Ok((copy, Some(first)));
    }
    // The same if the file is damaged besides. Its header still tells the format
    let is_older = |number| number > u64::from(format_of(&copy).number());
    if purpose != Purpose::Read && stored_format(repo, path)?.is_some_and(is_older) {
        let text = format!("unable to load info file '{}', whose copy has an older format", name());
        return Err(first.context(text).hint(
            "the copy lacks cipher keys of files that were archived since the upgrade. Replace the file with an intact one \
             from elsewhere.",
        ));
    }
    Ok((copy, None))
}
