//! Loading and saving archive.info and backup.info (pgBackRest `src/info/{info,infoArchive,infoBackup}.c`).
//!
//! Each file has a copy with the same bytes, encrypted with the repository's main passphrase. A load takes the copy when the
//! file itself can't be used; a save writes the file first, so that one of both is whole at any time.

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{self, Cipher, Passphrase};
use repo_format::info;
use repo_format::layout::{self, RepoPath, Stanza};

use super::Repo;
use crate::storage::{self, WriteOptions};
use crate::{Error, Result};

/// The most bytes of an info file: far above any honest one (a backup takes some hundred), and well below what memory holds.
const SIZE_MAX: u64 = 1 << 30;

/// How files below the archive directory are encrypted.
pub fn archive_cipher(info: &ArchiveInfo) -> Cipher {
    Cipher::from_passphrase(info.cipher_pass.as_ref())
}

/// How manifests are encrypted.
pub fn manifest_cipher(info: &BackupInfo) -> Cipher {
    Cipher::from_passphrase(info.cipher_pass.as_ref())
}

/// A new passphrase for the files that depend on an info file, where the repository is encrypted.
///
/// # Errors
/// The system gives no random bytes.
pub fn generate_passphrase(repo: &Repo) -> Result<Option<Passphrase>> {
    if repo.cipher.is_none() { Ok(None) } else { Passphrase::generate().map(Some) }
}

/// Loads archive.info.
///
/// # Errors
/// Neither the file nor its copy can be used: the code and message tell of both.
pub fn load_archive_info(repo: &Repo, stanza: &Stanza) -> Result<ArchiveInfo> {
    load_pair(repo, &layout::archive_info(stanza), ArchiveInfo::parse).map_err(|error| {
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
/// Neither the file nor its copy can be used: the code and message tell of both.
pub fn load_backup_info(repo: &Repo, stanza: &Stanza) -> Result<BackupInfo> {
    load_pair(repo, &layout::backup_info(stanza), BackupInfo::parse).map_err(|error| {
        error
            .hint("backup.info cannot be opened and is required to perform a backup.")
            .hint("has a stanza-create been performed?")
    })
}

/// Saves archive.info and its copy.
///
/// # Errors
/// One of them can't be written.
pub fn save_archive_info(repo: &Repo, stanza: &Stanza, info: &ArchiveInfo) -> Result<()> {
    save_pair(repo, &layout::archive_info(stanza), &info.serialize()?)
}

/// Saves backup.info and its copy.
///
/// # Errors
/// One of them can't be written.
pub fn save_backup_info(repo: &Repo, stanza: &Stanza, info: &BackupInfo) -> Result<()> {
    save_pair(repo, &layout::backup_info(stanza), &info.serialize()?)
}

fn load_pair<T>(repo: &Repo, path: &RepoPath, parse: impl Fn(&[u8]) -> Result<T>) -> Result<T> {
    let load = |path: &RepoPath| -> Result<T> {
        let stored = storage::get(&*repo.storage, path, SIZE_MAX)?
            .ok_or_else(|| storage::missing(&*repo.storage, path))?;
        parse(&info::decrypt(&repo.cipher, &stored)?)
    };
    load(path).or_else(|first| {
        load(&layout::copy(path)).map_err(|second| {
            let name = repo.storage.display(path);
            info::pair_error(&format!("unable to load info file '{name}' or '{name}.copy'"), &first, &second)
        })
    })
}

fn save_pair(repo: &Repo, path: &RepoPath, text: &[u8]) -> Result<()> {
    // The same bytes, salt included, for both
    let stored = cipher::encrypt(&repo.cipher, text)?;
    let put = |path: &RepoPath| storage::put(&*repo.storage, path, &stored, WriteOptions::ATOMIC);
    put(path)?;
    put(&layout::copy(path))
}

/// Makes the one of file and copy that is missing from the other, byte for byte; says whether it had to.
pub(crate) fn copy_if_missing(repo: &Repo, path: &RepoPath) -> Result<bool> {
    let copy = layout::copy(path);
    let (from, to) = match (exists(repo, path)?, exists(repo, &copy)?) {
        (true, false) => (path, &copy),
        (false, true) => (&copy, path),
        _ => return Ok(false),
    };
    let bytes =
        storage::get(&*repo.storage, from, SIZE_MAX)?.ok_or_else(|| storage::missing(&*repo.storage, from))?;
    storage::put(&*repo.storage, to, &bytes, WriteOptions::ATOMIC)?;
    Ok(true)
}

pub(crate) fn exists(repo: &Repo, path: &RepoPath) -> Result<bool> {
    storage::exists(&*repo.storage, path)
}

/// Whether the file or its copy is there.
pub(crate) fn exists_any(repo: &Repo, path: &RepoPath) -> Result<bool> {
    Ok(exists(repo, path)? || exists(repo, &layout::copy(path))?)
}
