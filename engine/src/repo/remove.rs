//! Removes files and directories that a user names.

use repo_format::layout::RepoPath;

use super::Repo;
use crate::claim::{self, Claimant};
use crate::storage::EntryKind;
use crate::{CancelToken, Error, ErrorCode, Result};

/// Removes a file, a link or a directory. A directory that is not empty needs `recurse`. A missing path is not an error.
///
/// The claim may take minutes, and `archive-push` takes none. So without `recurse` nothing is removed but what is an empty
/// directory at the moment of its removal.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`] for a directory that is not empty, [`ErrorCode::LockAcquire`] if another process works on
/// the stanza, and errors of the repository.
pub fn remove(repo: &Repo, path: &RepoPath, recurse: bool, who: &Claimant, cancel: &CancelToken) -> Result<()> {
    let storage = &*repo.storage;
    // A link goes itself, never what it leads to
    let is_file = !path.as_str().is_empty() && storage.info(path)?.is_some_and(|entry| entry.kind != EntryKind::Path);
    if !is_file && !recurse {
        // Before there is a claim, which would be an entry of the directory
        check_empty(repo, path)?;
    }
    let claims = claim::claim_path(repo, path, who, cancel)?;
    if is_file {
        return storage.remove(path);
    }
    if recurse {
        return storage.remove_all(path);
    }
    // They may be in the directory
    drop(claims);
    storage.remove_empty(path).map_err(|error| check_empty(repo, path).err().unwrap_or(error))
}

fn check_empty(repo: &Repo, path: &RepoPath) -> Result<()> {
    if repo.storage.list(path)?.is_some_and(|entries| !entries.is_empty()) {
        let text = "recurse option must be used to delete non-empty path";
        return Err(Error::new(ErrorCode::OptionInvalid, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use repo_format::backup_info::BackupInfo;
    use repo_format::cipher::Cipher;
    use repo_format::layout;
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::claim::Timing;
    use crate::repo::info_files;
    use crate::storage::faulty::{FaultyStorage, Op};
    use crate::storage::posix::PosixStorage;

    /// A repository in this directory with a stanza. As soon as a claim is written, another process stores this file.
    fn repo_that_gets(dir: &Path, late: &'static str) -> Repo {
        let root = dir.to_owned();
        let storage = FaultyStorage::new(Arc::new(PosixStorage::new(dir))).after(move |op, path| {
            if op == Op::Finish && path.as_str().contains("backup.claim") {
                fs::create_dir_all(root.join(late).parent().unwrap()).unwrap();
                fs::write(root.join(late), "late").unwrap();
            }
        });
        let repo = Repo { key: 1, storage: Arc::new(storage), cipher: Cipher::None };
        let info = BackupInfo::new(PgVersion::V15, 7, 202_209_061, None).unwrap();
        info_files::save_backup_info(&repo, &"demo".parse().unwrap(), &info).unwrap();
        repo
    }

    fn remove_in(repo: &Repo, path: &str, recurse: bool) -> Result<()> {
        let who = Claimant::on_host("a", Timing::DEFAULT);
        remove(repo, &RepoPath::new(path).unwrap(), recurse, &who, &CancelToken::new())
    }

    #[test]
    fn directory_that_got_a_file_during_the_wait_for_the_claim_stays() {
        let dir = tempfile::tempdir().unwrap();
        let late = "archive/demo/15-1/0000000100000001/x";
        let repo = repo_that_gets(dir.path(), late);
        let directory = dir.path().join(late).parent().unwrap().to_owned();
        fs::create_dir_all(&directory).unwrap();
        for _ in 0..2 {
            let error = remove_in(&repo, "archive/demo/15-1/0000000100000001", false).unwrap_err();
            assert_eq!(error.code, ErrorCode::OptionInvalid);
            assert_eq!(fs::read(dir.path().join(late)).unwrap(), b"late");
        }
        assert!(
            !repo
                .storage
                .names(&layout::backup_stanza(&"demo".parse().unwrap()))
                .unwrap()
                .unwrap()
                .iter()
                .any(|name| name.starts_with("backup.claim"))
        );
        remove_in(&repo, "archive/demo/15-1/0000000100000001", true).unwrap();
        assert!(!directory.exists());
    }

    #[test]
    fn empty_directory_is_removed_even_if_the_claim_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let repo = repo_that_gets(dir.path(), "else/x");
        for empty in ["archive/demo/15-1", "backup/demo/20260101-000000F", "archive/missing"] {
            fs::create_dir_all(dir.path().join(empty)).unwrap();
            remove_in(&repo, empty, false).unwrap();
            assert!(!dir.path().join(empty).exists(), "{empty}");
            remove_in(&repo, empty, false).unwrap();
        }
        assert_eq!(remove_in(&repo, "backup/demo", false).unwrap_err().code, ErrorCode::OptionInvalid);
        fs::remove_file(dir.path().join("backup/demo/backup.info")).unwrap();
        fs::remove_file(dir.path().join("backup/demo/backup.info.copy")).unwrap();
        remove_in(&repo, "backup/demo", false).unwrap();
        assert!(!dir.path().join("backup/demo").exists());
    }
}
