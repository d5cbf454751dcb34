//! `annotate`: changes the annotations of a backup.

use std::collections::BTreeMap;
use std::time::Duration;

use repo_format::json::check_key;
use repo_format::label::BackupLabel;

use crate::claim::Claim;
use crate::log::{self, Warnings};
use crate::repo::reconstruct::load_backup_info_reconstruct;
use crate::repo::{Repo, info_files, manifest_store};
use crate::session::Session;
use crate::{Error, ErrorCode, Result};

/// Which annotations to change.
#[derive(Clone, Debug)]
pub struct AnnotateRequest {
    /// The backup.
    pub label: BackupLabel,
    /// Keys and texts. An empty text removes an annotation.
    pub annotation: BTreeMap<String, String>,
    /// A lock that another process holds, also on another host, is the error of the call. It is not logged, because the caller tries
    /// again.
    pub is_repeated: bool,
}

impl AnnotateRequest {
    /// Changes nothing yet.
    pub fn new(label: BackupLabel) -> Self {
        AnnotateRequest { label, annotation: BTreeMap::new(), is_repeated: false }
    }

    /// Tries in one repository, for a caller that repeats it while another process holds a lock.
    #[must_use]
    pub fn repeated(self) -> Self {
        AnnotateRequest { is_repeated: true, ..self }
    }

    /// Sets this annotation.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.annotation.insert(key.into(), text.into());
        self
    }

    /// Removes this annotation.
    #[must_use]
    pub fn remove(self, key: impl Into<String>) -> Self {
        self.set(key, "")
    }
}

/// What annotate did.
#[derive(Clone, Debug)]
pub struct AnnotateSummary {
    /// The repositories that have the backup, where the annotations were changed.
    pub repo_keys: Vec<u32>,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}

/// Sets annotations of a backup in every repository that has it. An empty text removes an annotation. Changes only
/// backup.info, never the backup itself. A failure in one repository is logged and does not prevent changes in others.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] if a key could not be read back, [`ErrorCode::Command`] if any repository failed,
/// [`ErrorCode::LockAcquire`] for a caller that tries again, and [`ErrorCode::BackupSetInvalid`] if no repository has the backup.
pub(crate) fn run(request: &AnnotateRequest, session: &Session, repos: &[Repo]) -> Result<AnnotateSummary> {
    let (repo_keys, warnings, duration) = log::observe(|| annotate(request, session, repos))?;
    Ok(AnnotateSummary { repo_keys, warnings, duration })
}

/// Returns the repositories that have the backup.
fn annotate(request: &AnnotateRequest, session: &Session, repos: &[Repo]) -> Result<Vec<u32>> {
    for key in request.annotation.keys() {
        check_key(key).map_err(|error| error.context("annotation"))?;
    }
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for repo in repos {
        match annotate_in(repo, request, session) {
            Ok(true) => found.push(repo.key),
            Ok(false) => {}
            Err(error) if request.is_repeated && error.code == ErrorCode::LockAcquire => return Err(error),
            Err(error) => {
                crate::error!(error.code, "repo{}: {error}", repo.key);
                errors.push(error);
            }
        }
    }
    let count = errors.len();
    if let Some(first) = errors.into_iter().next() {
        let text = format!("annotate command encountered {count} error(s), check the log file for details");
        return Err(Error::new(ErrorCode::Command, text).cause(first));
    }
    if found.is_empty() {
        return Err(Error::new(ErrorCode::BackupSetInvalid, "no backup set to annotate found"));
    }
    Ok(found)
}

fn annotate_in(repo: &Repo, request: &AnnotateRequest, session: &Session) -> Result<bool> {
    let (AnnotateRequest { label, annotation, .. }, stanza) = (request, session.stanza());
    // A repository without the backup is not changed. Only one load of backup.info warns of what it finds
    if !manifest_store::is_complete(repo, stanza, label)? {
        return load_backup_info_reconstruct(repo, stanza).map(|_| false);
    }
    let claim = Claim::acquire(repo, stanza, session.claimant(), "annotate", session.cancel_token())?;
    let repo = &claim.guard(repo);
    // A backup or expire on another host may have changed it before the claim
    let mut info = load_backup_info_reconstruct(repo, stanza)?.info;
    let Some(backup) = info.backups.get_mut(label) else { return Ok(false) };
    crate::info!("backup set '{label}' to annotate found in repo{}", repo.key);
    for (key, text) in annotation {
        if text.is_empty() {
            backup.annotation.remove(key);
        } else {
            backup.annotation.insert(key.clone(), text.clone());
        }
    }
    info_files::save_backup_info(repo, stanza, &info)?;
    Ok(true)
}
