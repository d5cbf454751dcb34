//! Files that this system can't read, and will not be able to read later either, such as one on a bad sector.
//!
//! Of an info file, its copy then serves, as for a damaged file. A file that can't be read only at the moment is another
//! matter: it is probably intact, and its copy may be older.

use repo_format::backup_info::BackupInfo;
use repo_format::layout::{self, Stanza};

use super::Repo;
use crate::work::retry::{is_unreadable, patiently};
use crate::{Error, Result};

/// backup.info, or its copy.
#[derive(Debug)]
pub(crate) struct LoadedBackups {
    pub info: BackupInfo,
    /// Why backup.info itself can't be read, if this is the copy for that reason.
    pub unreadable: Option<Error>,
}

impl LoadedBackups {
    /// Warns if backup.info can't be read. Returns what was loaded, and whether the file has to be written anew.
    pub(crate) fn warned(self, repo: &Repo, stanza: &Stanza) -> (BackupInfo, bool) {
        if let Some(text) = self.warning(repo, stanza) {
            crate::warn!("{text}");
        }
        (self.info, self.unreadable.is_some())
    }

    /// Returns the warning about a backup.info that can't be read.
    pub(super) fn warning(&self, repo: &Repo, stanza: &Stanza) -> Option<String> {
        let name = repo.storage.display(&layout::backup_info(stanza));
        self.unreadable.as_ref().map(|error| format!("'{name}' can't be read, its copy is used: {error}"))
    }
}

/// Returns whether the error of reading a file of the repository stays.
pub(crate) fn lasts(repo: &Repo, error: &Error) -> bool {
    repo.storage.features().errors_last && is_unreadable(error)
}

/// Reads, and again if that fails for a reason that seems to last: a file is given up only if it fails twice.
///
/// # Errors
/// Those of the read.
pub(super) fn read_twice<R>(repo: &Repo, mut read: impl FnMut() -> Result<R>) -> Result<R> {
    match read() {
        Err(error) if lasts(repo, &error) => match patiently(read) {
            // Without the same text for each try
            Err(again) if lasts(repo, &again) => Err(error),
            done => done,
        },
        done => done,
    }
}
