//! The files that complete a backup.
//!
//! Source of order and messages: pgBackRest `src/command/backup/complete.c.inc` and `db.c.inc`.

use std::time::Duration;

use repo_format::backup_info::BackupEntry;
use repo_format::layout;
use repo_format::manifest::Manifest;

use super::{Backup, refresh, whole};
use crate::repo::{Repo, formats, info_files, manifest_store, reconstruct};
use crate::work::retry::{is_missing, patiently};
use crate::{Result, ending, warn};

/// The longest time that pgBackRest may take between its check for a manifest and its first removal of a file.
const REMOVAL_BEGINS: Duration = Duration::from_secs(3);

/// Completes the backup: writes manifest, history, link, and the info files last. Returns its line in backup.info.
///
/// # Errors
/// [`ErrorCode::Format`] if the manifest is incomplete, [`ErrorCode::FileMissing`] if something that it names is not in
/// the repository, [`ErrorCode::LockAcquire`] if the claim is lost, and errors of writing.
pub(super) fn complete(
    backup: &Backup<'_>,
    manifest: &Manifest,
    is_alone: &mut dyn FnMut() -> bool,
) -> Result<BackupEntry> {
    let Backup { repo, stanza, claim, .. } = *backup;
    // From here on a signal would only cause the backup to be made again
    let _saving = ending::saving();
    let storage = &*repo.storage;
    save_manifest(backup, manifest, is_alone)?;

    let save_history = || manifest_store::save_history(repo, stanza, manifest, &backup.manifest_cipher());
    // Only for people: nothing reads it
    let link_latest = || {
        let latest = layout::latest(stanza);
        if storage.features().symlinks {
            storage.symlink(manifest.data.label.as_str(), &latest)?;
        } else {
            storage.remove(&latest)?;
        }
        storage.sync_path(&layout::backup_stanza(stanza))
    };
    let load_archive_info = || refresh::load(repo, stanza);
    // Anew: others may have changed it while files were copied
    let load_backup_info = || patiently(|| info_files::load_backup_info_to_save(repo, stanza));
    let (loaded, done) =
        repo.both(|| Ok(repo.both(load_archive_info, load_backup_info)), || steps(repo, [&save_history, &link_latest]));
    done?;
    let (archive, info) = loaded?;
    // The start of the backup has warned of a file that stays unreadable
    let mut info = info?.info;
    if whole::check_needed(&info, manifest).is_err() {
        // backup.info may have lacked this backup from the start. If the reconstructed backup.info lacks it too,
        // another host has expired it
        info = reconstruct::load_backup_info_reconstruct(repo, stanza)?.info;
        whole::check_needed(&info, manifest).inspect_err(|_| withdraw(backup, manifest))?;
    }

    let entry = BackupEntry::from_manifest(manifest)?;
    info.backups.insert(manifest.data.label.clone(), entry.clone());
    let save_info = || info_files::save_backup_info(repo, stanza, &info);
    let save_archive_info = || archive.as_ref().map_or(Ok(()), |archive| archive.save(repo, stanza));
    // The manifest completed the backup, so a failure here is only a warning
    let unmark = || {
        if let Err(error) = claim.unmark() {
            warn!("unable to remove the claim on the directory of backup '{}': {error}", manifest.data.label);
        }
        Ok(())
    };
    steps(repo, [&save_info, &save_archive_info, &unmark])?;
    archive?;
    Ok(entry)
}

/// Writes the manifest, which completes the backup. Removes it again if the backup turns out to be incomplete.
fn save_manifest(backup: &Backup<'_>, manifest: &Manifest, is_alone: &mut dyn FnMut() -> bool) -> Result<()> {
    let Backup { repo, stanza, claim, .. } = *backup;
    manifest.validate(true)?;
    let check = || {
        let (whole, held) = repo.both(|| whole::check(repo, stanza, manifest), || claim.check());
        whole.and(held)
    };
    // Another host may have started an upgrade to another format since the backup began
    let (formats, checked) = repo.both(|| formats::check(repo, stanza), check);
    formats.and(checked)?;
    manifest_store::save(repo, stanza, manifest, &backup.manifest_cipher())?;
    let held = if is_alone() {
        claim.check()
    } else {
        // pgBackRest may have checked for the manifest just before it was written. In that case it removes the
        // directory now
        std::thread::sleep(REMOVAL_BEGINS);
        check()
    };
    let Err(error) = held else { return Ok(()) };
    // If this process stood still, another host may have added the backup to backup.info, and expired earlier ones
    // in favor of it. Then only a manifest that names something that is missing may go
    match whole::check(repo, stanza, manifest) {
        Err(missing) if is_missing(&missing) => withdraw(backup, manifest),
        Err(_) => {}
        Ok(()) => {
            let label = &manifest.data.label;
            let text = format!("backup '{label}' is complete: the next command that needs backup.info adds it.");
            return Err(error.hint(text));
        }
    }
    Err(error)
}

/// Removes a manifest that was written into a directory which another process has taken meanwhile.
fn withdraw(backup: &Backup<'_>, manifest: &Manifest) {
    let path = layout::manifest(backup.stanza, &manifest.data.label);
    if let Err(error) = backup.claim.withdraw(&path) {
        warn!("remove '{}', the backup is not complete: {error}", backup.repo.storage.display(&path));
    }
}

/// Runs independent steps, in parallel if each waits for a server.
fn steps<const N: usize>(repo: &Repo, steps: [&(dyn Fn() -> Result<()> + Sync); N]) -> Result<()> {
    repo.each(&steps, |step| step()).map(drop)
}
