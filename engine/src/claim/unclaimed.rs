//! Unfinished backups without a claim, which pgBackRest leaves.

use std::time::{Duration, Instant};

use repo_format::claim::claimant;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};

use crate::repo::{manifest_store, reconstruct};
use crate::storage::FileSize;
use crate::{CancelToken, Error, ErrorCode, Repo, Result};

/// How long to watch a directory if nothing else tells whether its backup is running.
const WATCH: Duration = Duration::from_secs(60);
/// The time between two checks.
const LOOK: Duration = Duration::from_secs(3);

/// Watches the unfinished backups of a stanza, or one of them, for signs that they are still running.
///
/// # Errors
/// [`ErrorCode::LockAcquire`] if one changes, and errors of listing.
pub(crate) fn watch_all(repo: &Repo, stanza: &Stanza, only: Option<&BackupLabel>, cancel: &CancelToken) -> Result<()> {
    for label in reconstruct::backup_labels(repo, stanza)? {
        if only.is_none_or(|only| *only == label)
            && !manifest_store::is_complete(repo, stanza, &label)?
            && !has_mark(repo, stanza, &label)?
            && !is_empty(repo, stanza, &label)?
        {
            watch(repo, stanza, &label, cancel)?;
        }
    }
    Ok(())
}

/// Returns whether a command with a claim created the directory of a backup. If the directory has no manifest and the
/// stanza is ours, that command has ended.
///
/// # Errors
/// The directory can't be listed.
pub(crate) fn has_mark(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<bool> {
    let names = repo.storage.names(&layout::backup_path(stanza, label))?.unwrap_or_default();
    Ok(names.iter().any(|name| claimant(name).is_some()))
}

/// Returns whether the directory of a backup is empty.
///
/// # Errors
/// The directory can't be listed.
pub fn is_empty(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<bool> {
    Ok(files(repo, stanza, label)?.is_empty())
}

/// Returns when the directory of a backup last changed, by the clock of the store; 0 if it is empty.
///
/// # Errors
/// The directory can't be listed.
pub(crate) fn last_change(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<i64> {
    Ok(files(repo, stanza, label)?.iter().map(|file| file.modified).max().unwrap_or(0))
}

/// Watches the directory of a backup for a while.
///
/// # Errors
/// [`ErrorCode::LockAcquire`] if it changes, and errors of listing.
pub fn watch(repo: &Repo, stanza: &Stanza, label: &BackupLabel, cancel: &CancelToken) -> Result<()> {
    let before = files(repo, stanza, label)?;
    crate::info!("watch unfinished backup '{label}' for {}s to see whether it is running", WATCH.as_secs());
    let start = Instant::now();
    while start.elapsed() < WATCH {
        cancel.sleep(LOOK)?;
        if files(repo, stanza, label)? != before {
            return Err(runs(label, "its directory changes"));
        }
    }
    Ok(())
}

/// Returns the error for an unfinished backup that another process is making.
pub fn runs(label: &BackupLabel, why: &str) -> Error {
    Error::new(ErrorCode::LockAcquire, format!("backup '{label}' is being made by another process: {why}"))
        .hint("does pgBackRest run on another host, or with another lock-path?")
        .hint("wait until it has ended, or end it where it runs.")
}

fn files(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<Vec<FileSize>> {
    repo.storage.list_files(&layout::backup_path(stanza, label))
}
