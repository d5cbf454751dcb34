//! Removes temporary files of killed processes. Segments are excluded: the next push of a segment removes leftovers of
//! earlier pushes, and other leftovers are removed with their directory.

use repo_format::layout::{self, ArchiveId, RepoPath, Stanza};

use crate::Repo;
use crate::storage::temporary;

/// Removes temporary files next to the info files, the timelines' histories and the newest manifests. What can't be
/// checked is left for the next run.
pub(super) fn remove(repo: &Repo, stanza: &Stanza) {
    let storage = &*repo.storage;
    // An object appears whole or not at all
    if !storage.features().paths {
        return;
    }
    // Saved by the backup just before, or some time ago; then files seem younger than they are
    let written = layout::backup_info(stanza);
    let sweep = |directory: &RepoPath| -> Vec<String> {
        let names = storage.names(directory).ok().flatten().unwrap_or_default();
        temporary::sweep(storage, directory, names.iter().map(String::as_str), Some(&written));
        names
    };
    sweep(&layout::backup_stanza(stanza));
    let archives = sweep(&layout::archive_stanza(stanza));
    if let Some(newest) = archives.iter().filter_map(|name| name.parse::<ArchiveId>().ok()).max() {
        sweep(&layout::archive_path(stanza, newest));
    }
    let history = layout::history(stanza);
    let years = sweep(&history);
    let is_year = |name: &&String| name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(Ok(newest)) = years.iter().filter(is_year).max().map(|year| history.join(year)) {
        sweep(&newest);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use repo_format::cipher::Cipher;

    use super::*;
    use crate::storage::posix::PosixStorage;

    #[test]
    fn files_of_killed_writers_are_removed_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["archive/demo", "archive/demo/15-1", "backup/demo", "backup/demo/backup.history/2026"];
        for folder in folders {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            let left = fs::File::create(dir.path().join(folder).join("x.pgbackrest.tmp")).unwrap();
            left.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        fs::write(dir.path().join("backup/demo/backup.info"), "").unwrap();
        let storage = Arc::new(PosixStorage::new(dir.path()));
        let repo = Repo { key: 1, storage, cipher: Cipher::None };
        remove(&repo, &"demo".parse().unwrap());
        for folder in folders {
            assert!(!dir.path().join(folder).join("x.pgbackrest.tmp").exists(), "{folder}");
        }
    }
}
