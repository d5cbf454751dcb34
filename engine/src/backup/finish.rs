//! The steps after the copy: files that the server returned, WAL, and the files that complete the backup.
//!
//! Source of order and messages: pgBackRest `src/command/backup/complete.c.inc` and `db.c.inc`.

use std::time::Duration;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupEntry;
use repo_format::cipher::{Cipher, Framing};
use repo_format::hash::Sha1;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, FileForm, RepoPath, Stanza};
use repo_format::manifest::{Manifest, ManifestFile};
use repo_format::wal_name::WalSegment;

use super::source::Stop;
use super::{Backup, wal_copy, whole};
use crate::cancel::CancelToken;
use crate::claim::Claim;
use crate::pg::data_dir::TARGET_PGDATA;
use crate::pipeline::encode::StreamEncoder;
use crate::repo::archive_find::WalSegmentFind;
use crate::repo::{Repo, formats, info_files, manifest_store, reconstruct};
use crate::storage::{self, SyncBatch, WriteOptions};
use crate::{Error, ErrorCode, Result, detail, ending, warn};

/// The longest time that pgBackRest may take between its check for a manifest and its first removal of a file.
const REMOVAL_BEGINS: Duration = Duration::from_secs(3);

/// Makes all copied files durable. If that fails, the backup must not be resumed: its files may look correct while they
/// are in memory, and the kernel reports lost data only once.
///
/// # Errors
/// The errors of the batch.
pub(super) fn sync(repo: &Repo, stanza: &Stanza, label: &BackupLabel, batch: Box<dyn SyncBatch>) -> Result<()> {
    batch.finish().inspect_err(|_| {
        if let Err(error) = repo.storage.remove(&layout::manifest_copy(stanza, label)) {
            warn!("unable to prevent backup '{label}' from being resumed, remove it: {error}");
        }
    })
}

/// Stores the files that the server returned at the end of the backup.
///
/// # Errors
/// They can't be written.
pub(super) fn put_stop_files(backup: &Backup<'_>, manifest: &mut Manifest, stop: &Stop) -> Result<()> {
    let Some(online) = &stop.online else { return Ok(()) };
    put_file(backup, manifest, "backup_label", stop.timestamp, online.backup_label.as_bytes())?;
    if let Some(map) = &online.tablespace_map {
        put_file(backup, manifest, "tablespace_map", stop.timestamp, map.as_bytes())?;
    }
    Ok(())
}

fn put_file(backup: &Backup<'_>, manifest: &mut Manifest, name: &str, timestamp: i64, content: &[u8]) -> Result<()> {
    let Backup { repo, stanza, settings, .. } = *backup;
    let manifest_name = format!("{TARGET_PGDATA}/{name}");
    let form = FileForm::Whole(settings.compression.kind);
    let path = layout::backup_file(stanza, &manifest.data.label, &manifest_name, form)?;
    let cipher = Cipher::from_passphrase(manifest.cipher_pass.as_ref());
    let mut encoder = StreamEncoder::new(settings.compression, &cipher, Framing::Full)?;
    let mut stored = Vec::new();
    encoder.push(content, &mut stored)?;
    encoder.finish(&mut stored)?;
    storage::put(&*repo.storage, &path, &stored, WriteOptions::ATOMIC)?;
    let size = content.len() as u64;
    add_file(
        manifest,
        &manifest_name,
        size,
        stored.len() as u64,
        timestamp,
        Sha1::of(content),
        encoder.transforms().then(|| Sha1::of(&stored)),
    );
    detail!("wrote '{name}' file returned from backup stop function");
    Ok(())
}

/// Adds a file that was not in the scan, with owner and mode of the data directory.
pub(super) fn add_file(
    manifest: &mut Manifest,
    name: &str,
    size: u64,
    size_repo: u64,
    timestamp: i64,
    checksum: Sha1,
    checksum_repo: Option<Sha1>,
) {
    let mut file = ManifestFile::new(name, size, timestamp);
    if let Some(base) = manifest.base_path() {
        (file.mode, file.user, file.group) = (base.mode & 0o644, base.user, base.group);
    }
    file.size_repo = size_repo;
    file.checksum = Some(checksum);
    file.checksum_repo = checksum_repo;
    match manifest.files.binary_search_by(|known| (*known.name).cmp(name)) {
        Ok(index) => manifest.files[index] = file,
        Err(index) => manifest.files.insert(index, file),
    }
}

/// The WAL that a backup needs.
pub(super) struct Wal<'a> {
    pub(super) archive: &'a ArchiveInfo,
    pub(super) segments: &'a [WalSegment],
    /// Bytes of a segment.
    pub(super) segment_size: u32,
}

/// Waits until all WAL of the backup is in the archive and, if requested, copies it into the backup.
///
/// # Errors
/// [`ErrorCode::ArchiveTimeout`] if a segment does not arrive, and errors of reading and writing.
pub(super) fn check_archive(
    backup: &Backup<'_>,
    wal: &Wal<'_>,
    manifest: &mut Manifest,
    cancel: &CancelToken,
) -> Result<()> {
    let Backup { repo, stanza, settings, .. } = *backup;
    let archive_id = wal.archive.current().archive_id();
    let mut find = WalSegmentFind::new(&*repo.storage, stanza, archive_id, settings.archive_timeout, cancel);
    for segment in wal.segments {
        let Some(found) = find.find(segment, false)? else {
            let message = format!("WAL segment {segment} was not archived");
            return Err(Error::new(ErrorCode::ArchiveTimeout, message));
        };
        if settings.archive_copy {
            // Copying is slow, so each segment is logged
            detail!("copy segment {segment} to backup");
            wal_copy::copy_segment(repo, stanza, settings.compression, wal, manifest, segment, &found)?;
        }
    }
    Ok(())
}

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
    let cipher = &backup.manifest_cipher();
    // From here on a signal would only cause the backup to be made again
    let _saving = ending::saving();
    let storage = &*repo.storage;
    manifest.validate(true)?;
    // Another host may have started an upgrade to another format since the backup began
    formats::check(repo, stanza)?;
    let check = || {
        let (whole, held) = repo.both(|| whole::check(repo, stanza, manifest), || claim.check());
        whole.and(held)
    };
    check()?;
    manifest_store::save(repo, stanza, manifest, cipher)?;
    let withdraw = |error| {
        withdraw(repo, claim, &layout::manifest(stanza, &manifest.data.label));
        error
    };
    let held = if is_alone() {
        claim.check()
    } else {
        // pgBackRest may have checked for the manifest just before it was written. In that case it removes the
        // directory now
        std::thread::sleep(REMOVAL_BEGINS);
        check()
    };
    if let Err(error) = held {
        // If this process stood still, another host may have added the backup to backup.info, and expired earlier ones
        // in favor of it. Then only a manifest that names something that is missing may go
        return Err(match whole::check(repo, stanza, manifest) {
            Err(missing) if missing.code == ErrorCode::FileMissing => withdraw(error),
            Err(_) => error,
            Ok(()) => error.hint(format!(
                "backup '{}' is complete: the next command that needs backup.info adds it.",
                manifest.data.label
            )),
        });
    }

    let save_history = || manifest_store::save_history(repo, stanza, manifest, cipher);
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
    let load_archive_info = || info_files::load_archive_info(repo, stanza);
    // Anew: others may have changed it while files were copied
    let load_backup_info = || info_files::load_backup_info(repo, stanza);
    let (loaded, done) =
        repo.both(|| Ok(repo.both(load_archive_info, load_backup_info)), || steps(repo, [&save_history, &link_latest]));
    done?;
    let (archive, info) = loaded?;
    let mut info = info?;
    if whole::check_needed(&info, manifest).is_err() {
        // backup.info may have lacked this backup from the start. If the reconstructed backup.info lacks it too,
        // another host has expired it
        info = reconstruct::load_backup_info_reconstruct(repo, stanza)?.info;
        whole::check_needed(&info, manifest).map_err(withdraw)?;
    }

    let entry = BackupEntry::from_manifest(manifest)?;
    info.backups.insert(manifest.data.label.clone(), entry.clone());
    let save_info = || info_files::save_backup_info(repo, stanza, &info);
    // Rewritten only to be as recent as the backup, so that a store's lifecycle rule does not remove it earlier
    let save_archive_info = || match &archive {
        Ok(archive) => info_files::save_archive_info(repo, stanza, archive),
        Err(_) => Ok(()),
    };
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

/// Removes a manifest that was written into a directory which another process has taken meanwhile.
fn withdraw(repo: &Repo, claim: &Claim, manifest: &RepoPath) {
    if let Err(error) = claim.withdraw(manifest) {
        warn!("remove '{}', the backup is not complete: {error}", repo.storage.display(manifest));
    }
}

/// Runs independent steps, in parallel if each waits for a server.
fn steps<const N: usize>(repo: &Repo, steps: [&(dyn Fn() -> Result<()> + Sync); N]) -> Result<()> {
    repo.each(&steps, |step| step()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::memory::MemoryStorage;

    struct FailingBatch;

    impl SyncBatch for FailingBatch {
        fn finish(self: Box<Self>) -> Result<()> {
            Err(Error::new(ErrorCode::FileSync, "lost"))
        }
    }

    #[test]
    fn sync_that_fails_leaves_nothing_to_resume() {
        let storage = MemoryStorage::new();
        let repo = Repo { key: 1, storage: Arc::new(storage.clone()), cipher: Cipher::None };
        let (stanza, label) = ("demo".parse().unwrap(), "20260101-000000F".parse().unwrap());
        let copy = layout::manifest_copy(&stanza, &label);
        storage::put(&storage, &copy, b"x", WriteOptions::ATOMIC).unwrap();
        let error = sync(&repo, &stanza, &label, Box::new(FailingBatch)).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileSync);
        assert!(!storage::exists(&storage, &copy).unwrap());
    }
}
