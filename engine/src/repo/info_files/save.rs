//! Saves archive.info and backup.info with their copies. What another process has stored since they were loaded is not lost.

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{self, Keyring};
use repo_format::format::{self, RepoFormat};
use repo_format::layout::{self, RepoPath, Stanza};

use super::load::load_archive_info_copy;
use super::stored::{load_file, stored_format};
use crate::storage::{self, WriteOptions};
use crate::work::retry::{is_about_content, is_missing};
use crate::{Error, ErrorCode, Repo, Result};

/// What helps against a damaged archive.info that is not replaced.
pub(crate) const DAMAGED_HINT: &str = "replace it with an intact one from elsewhere, or run verify with --repair, which keeps the damaged file beside it.";

/// Saves archive.info and its copy. Keys that one of the stored files has are never lost.
///
/// # Errors
/// One of the stored files can't be read, or one of them can't be written; [`ErrorCode::FileInvalid`] if a stored file
/// has another key with the same id, or a newer format, or if archive.info is damaged and may have keys that its copy
/// lacks.
pub fn save_archive_info(repo: &Repo, stanza: &Stanza, info: &ArchiveInfo) -> Result<()> {
    prepare_archive_info(repo, stanza, info)?.save(repo)
}

/// Prepares to save archive.info: reads the stored files. So an error of reading differs from one of writing.
///
/// # Errors
/// The same as [`save_archive_info`], except those of writing.
pub(crate) fn prepare_archive_info(repo: &Repo, stanza: &Stanza, info: &ArchiveInfo) -> Result<PreparedInfo> {
    let path = layout::archive_info(stanza);
    let (mut info, mut order) = (info.clone(), PutOrder::Any);
    match info.keys.take() {
        None => {}
        Some(keys) if info.format == RepoFormat::V5 => {
            refuse_upgraded(repo, &path, info.format)?;
            info.keys = Some(keys);
        }
        Some(keys) => {
            let merged = with_stored_keys(repo, stanza, keys)?;
            // Whoever reads the file must know a key before anybody takes it from the copy
            order = if merged.are_stored { PutOrder::Any } else { PutOrder::FileFirst };
            info.keys = Some(merged.keys);
        }
    }
    let text = Text { format: info.format, bytes: info.serialize()? };
    Ok(PreparedInfo { path, order, text })
}

/// An info file that only has to be written.
pub(crate) struct PreparedInfo {
    path: RepoPath,
    order: PutOrder,
    text: Text,
}

impl PreparedInfo {
    /// Saves the file and its copy.
    ///
    /// # Errors
    /// One of them can't be written.
    pub(crate) fn save(&self, repo: &Repo) -> Result<()> {
        save_pair(repo, &self.path, self.order, &self.text)
    }
}

/// Fails if another process has upgraded the stored file to a newer format since it was loaded. Its new keys would be lost.
fn refuse_upgraded(repo: &Repo, path: &RepoPath, format: RepoFormat) -> Result<()> {
    let stored = stored_format(repo, path)?;
    match stored.filter(|number| *number > u64::from(format.number())) {
        None => Ok(()),
        Some(number) => {
            let name = repo.storage.display(path);
            let text = format!("unable to save '{name}': it was upgraded to repository format {number} meanwhile");
            Err(Error::new(ErrorCode::FileInvalid, text).hint("run the command again."))
        }
    }
}

/// The keys to save in archive.info.
pub(super) struct MergedKeys {
    pub(super) keys: Keyring,
    /// Whether the stored file and its copy both have exactly these.
    pub(super) are_stored: bool,
}

/// Adds the keys of the stored archive.info and of its copy. An interrupted rotation leaves the two with different keys,
/// and files may have been archived with any of them.
pub(super) fn with_stored_keys(repo: &Repo, stanza: &Stanza, mut keys: Keyring) -> Result<MergedKeys> {
    let path = layout::archive_info(stanza);
    let load = || match load_file(repo, &path, |reader, origin| ArchiveInfo::read(reader, origin)) {
        Ok(info) => Ok(info.keys),
        Err(error) if is_missing(&error) => Ok(None),
        // It is written before its copy, and so may have the newest key alone
        Err(error) => Err(kept_damaged(repo, &path, error)),
    };
    let (file, copy) = repo.both(load, || load_archive_info_copy(repo, stanza));
    let stored = [file?, copy?.and_then(|copy| copy.keys)];
    for other in stored.iter().flatten() {
        keys.keep(other)
            .map_err(|error| error.context(format_args!("unable to save '{}'", repo.storage.display(&path))))?;
    }
    let are_stored = stored.iter().all(|stored| stored.as_ref() == Some(&keys));
    Ok(MergedKeys { keys, are_stored })
}

/// The error for a damaged archive.info that is not replaced. Other errors stay as they are.
fn kept_damaged(repo: &Repo, path: &RepoPath, error: Error) -> Error {
    if !is_about_content(&error) || format::is_unsupported(&error) {
        return error;
    }
    let name = repo.storage.display(path);
    let text = format!("unable to save '{name}': it is damaged, and may have cipher keys that its copy lacks");
    Error::new(ErrorCode::FileInvalid, text).cause(error).hint(DAMAGED_HINT)
}

/// Saves backup.info and its copy.
///
/// # Errors
/// One of them can't be written.
pub(crate) fn save_backup_info(repo: &Repo, stanza: &Stanza, info: &BackupInfo) -> Result<()> {
    let text = Text { format: info.format, bytes: info.serialize()? };
    save_pair(repo, &layout::backup_info(stanza), PutOrder::Any, &text)
}

/// The order in which a file and its copy are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PutOrder {
    /// At the same time, if the store replaces files atomically.
    Any,
    /// The copy after the file.
    FileFirst,
}

/// The text of an info file.
struct Text {
    format: RepoFormat,
    bytes: Vec<u8>,
}

fn save_pair(repo: &Repo, path: &RepoPath, order: PutOrder, text: &Text) -> Result<()> {
    // The same bytes, salt included, for both
    let stored = cipher::encrypt(&repo.cipher.of_info_file(text.format), &text.bytes)?;
    let put = |path: &RepoPath| storage::put(&*repo.storage, path, &stored, WriteOptions::ATOMIC);
    // Object stores replace a file atomically, so the file and its copy can be written at the same time. Other stores
    // may need several steps, so the copy stays unchanged until the file is written
    let both = [path.clone(), layout::copy(path)];
    let is_serial = order == PutOrder::FileFirst || repo.storage.features().paths;
    if is_serial { both.iter().try_for_each(put) } else { repo.each(&both, put).map(drop) }
}
