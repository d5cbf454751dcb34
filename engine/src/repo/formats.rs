//! Checks that all info files of a stanza have the same format.
//!
//! An upgrade to another repository format writes four files. An interrupted upgrade leaves some of them unchanged. A
//! command that continues with the old files and saves them reverts the stanza to the old format. The keys in the new
//! files are then lost, and with them all WAL that was pushed meanwhile. So every command that saves info files checks
//! all four first. pgBackRest 2.60 only compares archive.info with backup.info.

use std::fmt::Write as _;
use std::io::BufReader;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{Decryptor, Framing};
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::{REPOSITORY_FORMAT, info};

use super::{Repo, info_files};
use crate::storage::ReadRange;
use crate::{Error, ErrorCode, Result};

/// Bytes at the start of a file that contain its format.
const HEAD_BYTES: u64 = 1024;

/// Checks that all existing, readable info files have the same format.
///
/// # Errors
/// [`ErrorCode::FileInvalid`] if they differ; a file can't be read although it exists.
pub fn check(repo: &Repo, stanza: &Stanza) -> Result<()> {
    check_beside(repo, stanza, &[])
}

/// Loads both info files, and checks the formats like [`check`].
///
/// # Errors
/// The same as [`check`], and the errors of loading.
pub fn load(repo: &Repo, stanza: &Stanza) -> Result<(ArchiveInfo, BackupInfo)> {
    let load = || {
        let load_archive = || info_files::load_archive_info(repo, stanza);
        let (archive, backup) = repo.both(load_archive, || info_files::load_backup_info(repo, stanza));
        Ok((archive?, backup?))
    };
    load_beside(repo, stanza, &[layout::archive_info(stanza), layout::backup_info(stanza)], load)
}

/// Loads backup.info, and checks the formats like [`check`].
///
/// # Errors
/// The same as [`check`], and the errors of loading.
pub(crate) fn load_backup(repo: &Repo, stanza: &Stanza) -> Result<BackupInfo> {
    load_beside(repo, stanza, &[layout::backup_info(stanza)], || info_files::load_backup_info(repo, stanza))
}

/// Runs `load` and checks the formats of the files that it does not read. It succeeds only for files of [`REPOSITORY_FORMAT`].
fn load_beside<T: Send>(
    repo: &Repo,
    stanza: &Stanza,
    loaded: &[RepoPath],
    load: impl Fn() -> Result<T> + Send + Sync,
) -> Result<T> {
    let (result, checked) = repo.both(&load, || check_beside(repo, stanza, loaded));
    match result {
        Ok(result) => checked.map(|()| result),
        // A difference is the better answer, because it says what to do
        Err(error) => Err(check(repo, stanza).err().filter(|e| e.code == ErrorCode::FileInvalid).unwrap_or(error)),
    }
}

/// Checks the formats, of which those of the files in `known` are known to be [`REPOSITORY_FORMAT`].
fn check_beside(repo: &Repo, stanza: &Stanza, known: &[RepoPath]) -> Result<()> {
    let (archive, backup) = (layout::archive_info(stanza), layout::backup_info(stanza));
    let paths = [archive.clone(), layout::copy(&archive), backup.clone(), layout::copy(&backup)];
    let number = |path: &RepoPath| {
        if known.contains(path) { Ok(Some(u64::from(REPOSITORY_FORMAT))) } else { number(repo, path) }
    };
    let numbers = repo.each(&paths, number)?;
    let files: Vec<(&RepoPath, u64)> =
        paths.iter().zip(numbers).filter_map(|(path, number)| Some((path, number?))).collect();
    let Some(newest) = files.iter().map(|(_, number)| *number).max() else { return Ok(()) };
    if files.iter().all(|(_, number)| *number == newest) {
        return Ok(());
    }
    let mut text = "backup info file and archive info file are at different repository formats".to_owned();
    for (path, number) in files {
        // Writing into a String can't fail
        let _ = write!(text, "\n{}: format = {number}", path.file_name());
    }
    Err(Error::new(ErrorCode::FileInvalid, text).hint(format!(
        "run stanza-upgrade of pgBackRest 2.60 or newer with --{}-format={newest} to complete an interrupted upgrade.",
        repo.name()
    )))
}

/// Returns the format of a file; `None` if it is missing or too damaged.
fn number(repo: &Repo, path: &RepoPath) -> Result<Option<u64>> {
    let range = ReadRange { offset: 0, limit: Some(HEAD_BYTES) };
    let Some(stored) = repo.storage.read(path, range)? else { return Ok(None) };
    let plain = Decryptor::new(&repo.cipher, Framing::Full, stored);
    Ok(info::find_format(BufReader::new(plain)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::{Cipher, Passphrase};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{self, WriteOptions};

    fn stanza() -> Stanza {
        "main".parse().unwrap()
    }

    fn saved(pass: Option<&str>) -> (MemoryStorage, Repo) {
        let memory = MemoryStorage::new();
        let pass = pass.map(Passphrase::new);
        let repo = Repo { key: 2, storage: Arc::new(memory.clone()), cipher: Cipher::from_passphrase(pass.as_ref()) };
        let archive = ArchiveInfo::new(PgVersion::V15, 7, pass.clone());
        info_files::save_archive_info(&repo, &stanza(), &archive).unwrap();
        let backup = BackupInfo::new(PgVersion::V15, 7, 202_209_061, pass).unwrap();
        info_files::save_backup_info(&repo, &stanza(), &backup).unwrap();
        (memory, repo)
    }

    fn put(memory: &MemoryStorage, path: &str, bytes: &[u8]) {
        storage::put(memory, &RepoPath::new(path).unwrap(), bytes, WriteOptions::ATOMIC).unwrap();
    }

    #[test]
    fn formats_of_a_whole_stanza_agree() {
        for pass in [None, Some("secret")] {
            let (memory, repo) = saved(pass);
            check(&repo, &stanza()).unwrap();
            put(&memory, "archive/main/archive.info", b"damaged");
            put(&memory, "archive/main/archive.info.copy", b"");
            check(&repo, &stanza()).unwrap();
        }
    }

    #[test]
    fn formats_of_a_half_upgraded_stanza_are_told() {
        let new = b"[backrest]\nbackrest-format=6\nbackrest-version=\"2.60.0\"\n";
        for (pass, bytes) in [(None, new.as_slice()), (Some("secret"), b"PGBR006_saltsaltciphertext")] {
            for path in ["archive.info", "archive.info.copy", "backup.info", "backup.info.copy"] {
                let (memory, repo) = saved(pass);
                put(&memory, &format!("{}/main/{path}", &path[..path.find('.').unwrap()]), bytes);
                let error = check(&repo, &stanza()).unwrap_err();
                assert_eq!(error.code, ErrorCode::FileInvalid);
                assert!(error.message.contains(&format!("\n{path}: format = 6")), "{error}");
                assert!(error.hints[0].contains("--repo2-format=6"), "{error}");
                for other in [load(&repo, &stanza()).map(drop), load_backup(&repo, &stanza()).map(drop)] {
                    assert_eq!(other.unwrap_err().message, error.message);
                }
            }
        }
    }

    #[test]
    fn info_file_of_a_newer_format_is_not_replaced_by_its_copy() {
        for (pass, bytes) in
            [(None, b"[backrest]\nbackrest-format=6\n".as_slice()), (Some("secret"), b"PGBR006_saltsaltciphertext")]
        {
            let (memory, repo) = saved(pass);
            put(&memory, "archive/main/archive.info", bytes);
            put(&memory, "backup/main/backup.info", bytes);
            let errors = [
                info_files::load_archive_info(&repo, &stanza()).unwrap_err(),
                info_files::load_backup_info(&repo, &stanza()).unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.code, ErrorCode::Format);
                assert!(error.message.contains("repository format 6"), "{error}");
                assert!(error.hints.iter().any(|hint| hint.contains("2.60")), "{error}");
            }
        }
    }
}
