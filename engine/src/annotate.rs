//! `annotate`: changes the annotations of a backup.

use std::collections::BTreeMap;

use repo_format::json::check_key;
use repo_format::label::BackupLabel;
use repo_format::layout::Stanza;

use crate::claim::{Claim, Claimant};
use crate::repo::reconstruct::load_backup_info_reconstruct;
use crate::repo::{Repo, info_files};
use crate::{CancelToken, Error, ErrorCode, Result};

/// The settings of `annotate`.
#[derive(Clone, Debug)]
pub struct AnnotateSettings {
    /// The stanza.
    pub stanza: Stanza,
    /// The backup.
    pub label: BackupLabel,
    /// Keys and texts. An empty text removes an annotation.
    pub annotation: BTreeMap<String, String>,
    /// The identity of this process for claims.
    pub claimant: Claimant,
}

/// Sets annotations of a backup in every repository that has it. An empty text removes an annotation. Changes only
/// backup.info, never the backup itself. A failure in one repository is logged and does not prevent changes in others.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] if a key could not be read back, [`ErrorCode::Command`] if any repository failed,
/// and [`ErrorCode::BackupSetInvalid`] if no repository has the backup.
pub fn annotate(repos: &[Repo], settings: &AnnotateSettings, cancel: &CancelToken) -> Result<()> {
    for key in settings.annotation.keys() {
        check_key(key).map_err(|error| error.context("annotation"))?;
    }
    let (mut found, mut errors) = (false, 0);
    for repo in repos {
        match annotate_in(repo, settings, cancel) {
            Ok(here) => found |= here,
            Err(error) => {
                crate::error!(error.code, "repo{}: {error}", repo.key);
                errors += 1;
            }
        }
    }
    if errors > 0 {
        let text = format!("annotate command encountered {errors} error(s), check the log file for details");
        return Err(Error::new(ErrorCode::Command, text));
    }
    if !found {
        return Err(Error::new(ErrorCode::BackupSetInvalid, "no backup set to annotate found"));
    }
    Ok(())
}

fn annotate_in(repo: &Repo, settings: &AnnotateSettings, cancel: &CancelToken) -> Result<bool> {
    let AnnotateSettings { stanza, label, annotation, claimant } = settings;
    // A repository without the backup is not changed
    if !load_backup_info_reconstruct(repo, stanza)?.info.backups.contains_key(label) {
        return Ok(false);
    }
    let claim = Claim::acquire(repo, stanza, claimant, "annotate", cancel)?;
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
