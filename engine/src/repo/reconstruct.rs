//! Repairing backup.info from what the repository really holds (pgBackRest `infoBackupLoadFileReconstruct`).

use repo_format::backup_info::BackupInfo;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};
use repo_format::manifest::Manifest;

use super::info_files::{load_backup_info, manifest_cipher};
use super::{Repo, manifest_store};
use crate::Result;

/// Loads backup.info, takes out backups that are gone and adds complete ones that it does not have. Says whether anything
/// was changed; saving is the caller's.
///
/// # Errors
/// backup.info or the manifest of a backup that it lacks can't be loaded, or the directory not be listed.
pub fn load_backup_info_reconstruct(repo: &Repo, stanza: &Stanza) -> Result<(BackupInfo, bool)> {
    let mut info = load_backup_info(repo, stanza)?;
    let labels = backup_labels(repo, stanza)?;
    let removed = remove_missing(repo, stanza, &mut info, &labels)?;
    let added = add_found(repo, stanza, &mut info, &labels)?;
    Ok((info, removed || added))
}

/// The labels of all backups that have a directory, complete or not, in ascending order.
///
/// # Errors
/// The directory can't be listed.
pub fn backup_labels(repo: &Repo, stanza: &Stanza) -> Result<Vec<BackupLabel>> {
    let entries = repo.storage.list(&layout::backup_stanza(stanza))?.unwrap_or_default();
    // Everything else that is there has no label's name
    Ok(entries.iter().filter_map(|entry| entry.name.parse().ok()).collect())
}

fn remove_missing(repo: &Repo, stanza: &Stanza, info: &mut BackupInfo, labels: &[BackupLabel]) -> Result<bool> {
    let mut changed = false;
    let current: Vec<BackupLabel> = info.backups.keys().cloned().collect();
    for label in current {
        // Without its directory there is no need to look for the manifest; a dependent may be gone already
        let is_there = labels.binary_search(&label).is_ok() && manifest_store::is_complete(repo, stanza, &label)?;
        if is_there || !info.backups.contains_key(&label) {
            continue;
        }
        for dependent in info.dependents(&label).into_iter().rev() {
            crate::warn!("backup '{dependent}' missing manifest removed from backup.info");
            info.backups.remove(&dependent);
            changed = true;
        }
    }
    Ok(changed)
}

fn add_found(repo: &Repo, stanza: &Stanza, info: &mut BackupInfo, labels: &[BackupLabel]) -> Result<bool> {
    let mut changed = false;
    for label in labels {
        // A dependent whose whole set is unknown could not be added, whatever its manifest says; a full backup that this
        // loop adds comes before its dependents
        let full = label.full_label();
        let set_is_known = *label == full || info.has_set(&full);
        if info.backups.contains_key(label) || !set_is_known || !manifest_store::is_complete(repo, stanza, label)? {
            continue;
        }
        let manifest = manifest_store::load(repo, stanza, label, &manifest_cipher(info))?;
        if manifest.data.label == *label && is_valid(info, &manifest) {
            crate::warn!("backup '{label}' found in repository added to backup.info");
            info.add_manifest(&manifest)?;
            changed = true;
        } else {
            crate::warn!("invalid backup '{label}' cannot be added to current backups");
        }
    }
    Ok(changed)
}

/// Whether the backup is of a cluster of this stanza and what it is based on is there.
fn is_valid(info: &BackupInfo, manifest: &Manifest) -> bool {
    let data = &manifest.data;
    let of_stanza = info
        .history
        .iter()
        .any(|pg| (pg.id, pg.system_id, pg.version) == (data.pg_id, data.pg_system_id, data.pg_version));
    of_stanza && data.prior.as_ref().is_none_or(|prior| info.backups.contains_key(prior))
}
