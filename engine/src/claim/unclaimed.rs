//! Unfinished backups that no claim tells of: pgBackRest makes none.

use std::time::{Duration, Instant};

use repo_format::claim::claimant;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};

use crate::repo::{manifest_store, reconstruct};
use crate::storage::FileSize;
use crate::{CancelToken, Error, ErrorCode, Repo, Result};

/// How long a directory is watched of which nothing else tells whether its backup runs.
const WATCH: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(3);

/// Watches what was left of backups of a stanza, or of one of them, for signs that they still run.
///
/// # Errors
/// [`ErrorCode::LockAcquire`] if one changes, and what listing gives.
pub fn watch_all(repo: &Repo, stanza: &Stanza, only: Option<&BackupLabel>, cancel: &CancelToken) -> Result<()> {
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

/// Whether a command that had a claim made the directory of a backup. When it has no manifest and the stanza is ours, that
/// command has ended.
///
/// # Errors
/// The directory can't be listed.
pub fn has_mark(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<bool> {
    let names = repo.storage.names(&layout::backup_path(stanza, label))?.unwrap_or_default();
    Ok(names.iter().any(|name| claimant(name).is_some()))
}

/// Whether there is nothing in the directory of a backup.
///
/// # Errors
/// The directory can't be listed.
pub fn is_empty(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<bool> {
    Ok(files(repo, stanza, label)?.is_empty())
}

/// When the directory of a backup changed last, by the clock of the store; 0 if there is nothing in it.
///
/// # Errors
/// The directory can't be listed.
pub fn last_change(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<i64> {
    Ok(files(repo, stanza, label)?.iter().map(|file| file.modified).max().unwrap_or(0))
}

/// Looks at the directory of a backup for a while.
///
/// # Errors
/// [`ErrorCode::LockAcquire`] if it changes, and what listing gives.
pub fn watch(repo: &Repo, stanza: &Stanza, label: &BackupLabel, cancel: &CancelToken) -> Result<()> {
    let before = files(repo, stanza, label)?;
    crate::info!("unfinished backup '{label}' is watched for {}s, to see whether it runs", WATCH.as_secs());
    let start = Instant::now();
    while start.elapsed() < WATCH {
        cancel.sleep(LOOK)?;
        if files(repo, stanza, label)? != before {
            return Err(runs(label, "its directory changes"));
        }
    }
    Ok(())
}

/// The error for an unfinished backup that another process makes.
pub fn runs(label: &BackupLabel, why: &str) -> Error {
    Error::new(ErrorCode::LockAcquire, format!("backup '{label}' is being made by another process: {why}"))
        .hint("does pgBackRest run on another host, or with another lock-path?")
        .hint("wait until it has ended, or end it where it runs.")
}

fn files(repo: &Repo, stanza: &Stanza, label: &BackupLabel) -> Result<Vec<FileSize>> {
    repo.storage.list_files(&layout::backup_path(stanza, label))
}
