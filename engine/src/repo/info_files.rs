//! Loads and saves archive.info and backup.info (pgBackRest `src/info/{info,infoArchive,infoBackup}.c`).
//!
//! Each file has a copy with the same bytes, encrypted with the repository's main passphrase. A load uses the copy if
//! the file itself can't be used. While a file is saved, at least one of the two is complete.

mod load;
mod save;
mod stored;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{Cipher, Passphrase};
use repo_format::format::RepoFormat;
use repo_format::layout::{self, RepoPath, Stanza};

pub use self::load::load_archive_info;
pub(crate) use self::load::{
    has_rotating_keys, load_archive_info_copy, load_archive_info_to_refresh, load_archive_info_to_save,
    load_backup_info, load_backup_info_copy, load_backup_info_to_save,
};
pub use self::save::save_archive_info;
pub(crate) use self::save::{DAMAGED_HINT, prepare_archive_info, save_backup_info};
pub(crate) use self::stored::{SIZE_MAX, StoredText, cipher_option_hint, limited, parse_stored, stored_format};
use super::Repo;
use crate::storage::{self, WriteOptions};
use crate::{Error, ErrorCode, Result};

/// Returns how files below the archive directory are encrypted. If a file names a key that `info` lacks, archive.info is
/// loaded anew: another process may have added the key since.
pub fn archive_cipher(repo: &Repo, stanza: &Stanza, info: &ArchiveInfo) -> Cipher {
    let (repo, stanza) = (repo.clone(), stanza.clone());
    info.cipher().with_newer_keys(move || Ok(load_archive_info(&repo, &stanza)?.keys))
}

/// Returns how manifests are encrypted.
pub(crate) fn manifest_cipher(info: &BackupInfo) -> Cipher {
    Cipher::from_passphrase(info.cipher_pass.as_ref())
}

/// Generates a passphrase of this format for the files that depend on an info file or manifest, if the repository is
/// encrypted.
///
/// # Errors
/// The system provides no random bytes.
pub(crate) fn generate_passphrase(repo: &Repo, format: RepoFormat) -> Result<Option<Passphrase>> {
    if repo.cipher.is_none() { Ok(None) } else { Passphrase::generate(format).map(Some) }
}

/// Checks that an info file of an encrypted repository has a key. Otherwise new files would be written in plain
/// text into an encrypted repository.
///
/// # Errors
/// [`ErrorCode::Format`].
pub fn check_keys(repo: &Repo, path: &RepoPath, has_keys: bool) -> Result<()> {
    if has_keys || repo.cipher.is_none() {
        return Ok(());
    }
    let text = format!("'{}' has no cipher key, but the repository is encrypted", repo.storage.display(path));
    Err(Error::new(ErrorCode::Format, text))
}

/// Creates the missing one of file and copy from the other, byte for byte. Returns whether it did.
pub(crate) fn copy_if_missing(repo: &Repo, path: &RepoPath) -> Result<bool> {
    let copy = layout::copy(path);
    let (from, to) = match (exists(repo, path)?, exists(repo, &copy)?) {
        (true, false) => (path, &copy),
        (false, true) => (&copy, path),
        _ => return Ok(false),
    };
    let bytes = storage::get(&*repo.storage, from, SIZE_MAX)?.ok_or_else(|| storage::missing(&*repo.storage, from))?;
    storage::put(&*repo.storage, to, &bytes, WriteOptions::ATOMIC)?;
    Ok(true)
}

pub(crate) fn exists(repo: &Repo, path: &RepoPath) -> Result<bool> {
    storage::exists(&*repo.storage, path)
}

/// Returns whether the file or its copy exists.
pub(crate) fn exists_any(repo: &Repo, path: &RepoPath) -> Result<bool> {
    Ok(exists(repo, path)? || exists(repo, &layout::copy(path))?)
}

#[cfg(test)]
mod tests;
