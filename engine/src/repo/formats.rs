//! Checks that all info files of a stanza have the same format.
//!
//! An upgrade to another repository format writes four files. An interrupted upgrade leaves some of them unchanged. A
//! command that continues with the old files and saves them reverts the stanza to the old format. The keys in the new
//! files are then lost, and with them all WAL that was pushed meanwhile. So every command that saves info files checks
//! all four first. pgBackRest 2.60 only compares archive.info with backup.info.

use std::fmt::Write as _;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::format::RepoFormat;
use repo_format::layout::{self, RepoPath, Stanza};

use super::unreadable::{self, LoadedBackups};
use super::{Repo, info_files};
use crate::{Error, ErrorCode, Result};

/// A file and its format.
type Numbered = (RepoPath, u64);

/// Checks that all existing, readable info files have the same format.
///
/// # Errors
/// [`ErrorCode::FileInvalid`] if they differ; a file can't be read although it exists.
pub fn check(repo: &Repo, stanza: &Stanza) -> Result<()> {
    compare(repo, stanza, &numbers_beside(repo, stanza, &[])?.numbers)
}

/// Both info files of a stanza.
#[derive(Debug)]
pub struct LoadedInfos {
    /// archive.info.
    pub archive: ArchiveInfo,
    /// backup.info.
    pub backup: BackupInfo,
    /// Warnings about those of the four files that can't be read: nothing else tells that the next command that saves backup.info
    /// writes it anew.
    pub warnings: Vec<String>,
}

/// Loads both info files, and checks the formats like [`check`].
///
/// # Errors
/// The same as [`check`], and the errors of loading.
pub fn load(repo: &Repo, stanza: &Stanza) -> Result<LoadedInfos> {
    let load = || {
        let load_archive = || info_files::load_archive_info_to_save(repo, stanza);
        let (archive, backup) = repo.both(load_archive, || info_files::load_backup_info_to_save(repo, stanza));
        Ok((archive?, backup?))
    };
    let paths = [layout::archive_info(stanza), layout::backup_info(stanza)];
    let formats = |(archive, backup): &(ArchiveInfo, LoadedBackups)| [archive.format, backup.info.format];
    let ((archive, backup), unreadable) = load_beside(repo, stanza, paths, load, formats)?;
    let beside =
        unreadable.iter().map(|(path, error)| format!("'{}' can't be read: {error}", repo.storage.display(path)));
    let warnings = beside.chain(backup.warning(repo, stanza)).collect();
    Ok(LoadedInfos { archive, backup: backup.info, warnings })
}

/// Loads backup.info, and checks the formats like [`check`].
///
/// # Errors
/// The same as [`check`], and the errors of loading.
pub(crate) fn load_backup(repo: &Repo, stanza: &Stanza) -> Result<LoadedBackups> {
    let load = || info_files::load_backup_info_to_save(repo, stanza);
    let loaded = load_beside(repo, stanza, [layout::backup_info(stanza)], load, |loaded| [loaded.info.format]);
    loaded.map(|(backups, _)| backups)
}

/// Runs `load`, which reads the files in `loaded`, and checks the formats of all files. Returns also which of the other files can't be
/// read.
fn load_beside<T: Send, const N: usize>(
    repo: &Repo,
    stanza: &Stanza,
    loaded: [RepoPath; N],
    load: impl Fn() -> Result<T> + Send + Sync,
    formats: impl Fn(&T) -> [RepoFormat; N],
) -> Result<(T, Vec<Unread>)> {
    let (content, beside) = repo.both(&load, || numbers_beside(repo, stanza, &loaded));
    let content = match content {
        Ok(content) => content,
        // A difference is the better answer, because it says what to do
        Err(error) => {
            let difference = check(repo, stanza).err().filter(|error| error.code == ErrorCode::FileInvalid);
            return Err(difference.unwrap_or(error));
        }
    };
    let mut files: Vec<Numbered> =
        loaded.into_iter().zip(formats(&content).map(|format| format.number().into())).collect();
    let Beside { numbers, unreadable } = beside?;
    files.extend(numbers);
    files.sort_unstable();
    compare(repo, stanza, &files).map(|()| (content, unreadable))
}

/// A file that can't be read for good, and why.
type Unread = (RepoPath, Error);

/// The formats of files that are not loaded.
#[derive(Default)]
struct Beside {
    numbers: Vec<Numbered>,
    unreadable: Vec<Unread>,
}

/// Returns the formats of all files except those that are loaded anyway.
fn numbers_beside(repo: &Repo, stanza: &Stanza, loaded: &[RepoPath]) -> Result<Beside> {
    let (archive, backup) = (layout::archive_info(stanza), layout::backup_info(stanza));
    let mut paths = vec![archive.clone(), layout::copy(&archive), backup.clone(), layout::copy(&backup)];
    paths.retain(|path| !loaded.contains(path));
    let is_of_backups = |path: &RepoPath| *path == backup || *path == layout::copy(&backup);
    let numbers = repo.each(&paths, |path| {
        match unreadable::read_twice(repo, || info_files::stored_format(repo, path)) {
            // It is written anew. An upgrade that was interrupted has changed archive.info before it
            Err(error) if unreadable::lasts(repo, &error) && is_of_backups(path) => Ok(Err(error)),
            number => number.map(Ok),
        }
    })?;
    let mut beside = Beside::default();
    for (path, number) in paths.into_iter().zip(numbers) {
        match number {
            Ok(Some(number)) => beside.numbers.push((path, number)),
            Ok(None) => {}
            Err(error) => beside.unreadable.push((path, error)),
        }
    }
    Ok(beside)
}

/// Fails unless all files have the same format.
fn compare(repo: &Repo, stanza: &Stanza, files: &[Numbered]) -> Result<()> {
    let Some(newest) = files.iter().map(|(_, number)| *number).max() else { return Ok(()) };
    if files.iter().all(|(_, number)| *number == newest) {
        return Ok(());
    }
    let find = |wanted: &RepoPath| files.iter().find(|(path, _)| path == wanted).map(|(_, number)| *number);
    let mut text = "backup info file and archive info file are at different repository formats".to_owned();
    match (find(&layout::archive_info(stanza)), find(&layout::backup_info(stanza))) {
        (Some(archive), Some(backup)) if archive != backup => {
            // Writing into a String can't fail
            let _ = write!(text, "\narchive: format = {archive}\nbackup : format = {backup}");
        }
        _ => {
            for (path, number) in files {
                let _ = write!(text, "\n{}: format = {number}", path.file_name());
            }
        }
    }
    let error = Error::new(ErrorCode::FileInvalid, text);
    let unknown = files.iter().find_map(|(path, number)| Some((path, RepoFormat::from_number(*number).err()?)));
    Err(match unknown {
        // One changed bit is enough for another number, and no upgrade can read such a file
        Some((path, unsupported)) => error.hint(unsupported.message).hint(format!(
            "if '{}' is damaged, replace it with '{}', which has the same content if it is intact.",
            repo.storage.display(path),
            repo.storage.display(&layout::other_of_pair(path))
        )),
        None => error.hint(format!(
            "run stanza-upgrade with --{}-format={newest} to complete an interrupted upgrade.",
            repo.name()
        )),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::{Cipher, Keyring, Passphrase};
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
        let archive = ArchiveInfo::new(PgVersion::V15, 7, pass.clone().map(Keyring::single));
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
                let named = match path {
                    "archive.info" => "\narchive: format = 6\nbackup : format = 5".to_owned(),
                    "backup.info" => "\narchive: format = 5\nbackup : format = 6".to_owned(),
                    copy => format!("\n{copy}: format = 6"),
                };
                assert!(error.message.contains(&named), "{error}");
                let hint = "run stanza-upgrade with --repo2-format=6 to complete an interrupted upgrade.";
                assert_eq!(error.hints, [hint]);
                for other in [load(&repo, &stanza()).map(drop), load_backup(&repo, &stanza()).map(drop)] {
                    assert_eq!(other.unwrap_err().message, error.message);
                }
            }
        }
    }

    #[test]
    fn info_file_of_a_newer_format_is_not_replaced_by_its_copy() {
        for (pass, bytes) in
            [(None, b"[backrest]\nbackrest-format=7\n".as_slice()), (Some("secret"), b"PGBR007_saltsaltciphertext")]
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
                assert!(error.message.contains("repository format 7"), "{error}");
                assert!(error.hints.iter().any(|hint| hint.contains("2.60")), "{error}");
            }
        }
    }

    #[test]
    fn info_file_with_a_changed_bit_in_its_header_is_not_taken_for_an_interrupted_upgrade() {
        for number in [2, 4, 7] {
            let (memory, repo) = saved(Some("secret"));
            put(&memory, "backup/main/backup.info.copy", format!("PGBR00{number}_saltsaltciphertext").as_bytes());
            let error = check(&repo, &stanza()).unwrap_err();
            assert_eq!(error.code, ErrorCode::FileInvalid);
            assert!(error.message.contains(&format!("backup.info.copy: format = {number}")), "{error}");
            assert!(error.hints[0].contains(&format!("repository format {number}")), "{error}");
            let twins = "'/backup/main/backup.info.copy' is damaged, replace it with '/backup/main/backup.info'";
            assert!(error.hints[1].contains(twins), "{error}");
            assert!(!error.to_string().contains("stanza-upgrade"), "{error}");
        }
    }
}
