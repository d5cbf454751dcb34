//! Repairs backup.info from the actual content of the repository (pgBackRest `infoBackupLoadFileReconstruct`).

use repo_format::backup_info::BackupInfo;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};
use repo_format::manifest::Manifest;

use super::info_files::manifest_cipher;
use super::unreadable::LoadedBackups;
use super::{Repo, formats, manifest_store};
use crate::{Error, ErrorCode, Result};

/// The repaired backup.info.
#[derive(Debug)]
pub(crate) struct Reconstructed {
    /// The repaired file.
    pub info: BackupInfo,
    /// Whether anything changed, or the file can't be read. The caller has to save it.
    pub changed: bool,
    /// The labels of all backups with a directory, complete or not, in ascending order.
    pub labels: Vec<BackupLabel>,
    /// Those of them that could be added but had no manifest when it was looked up, because they were running or
    /// interrupted. They may be complete by now.
    pub unfinished: Vec<BackupLabel>,
}

/// Loads backup.info, removes backups that no longer exist and adds complete backups that it lacks.
///
/// # Errors
/// The info files differ in format; backup.info or the manifest of a missing backup can't be loaded; the directory
/// can't be listed.
pub(crate) fn load_backup_info_reconstruct(repo: &Repo, stanza: &Stanza) -> Result<Reconstructed> {
    let (info, names) = repo.both(|| load(repo, stanza), || names(repo, stanza));
    reconstruct(repo, stanza, info?, names?.iter().map(String::as_str))
}

/// Like [`load_backup_info_reconstruct`], with the names in the directory of the stanza's backups, which the caller has
/// just listed.
///
/// # Errors
/// The same as [`load_backup_info_reconstruct`].
pub(crate) fn load_listed<'a>(
    repo: &Repo,
    stanza: &Stanza,
    names: impl Iterator<Item = &'a str>,
) -> Result<Reconstructed> {
    reconstruct(repo, stanza, load(repo, stanza)?, names)
}

/// Loads backup.info, which the caller may save.
fn load(repo: &Repo, stanza: &Stanza) -> Result<LoadedBackups> {
    formats::load_backup(repo, stanza)
}

fn reconstruct<'a>(
    repo: &Repo,
    stanza: &Stanza,
    loaded: LoadedBackups,
    names: impl Iterator<Item = &'a str>,
) -> Result<Reconstructed> {
    let (mut info, is_renewed) = loaded.warned(repo, stanza);
    let mut names = names.peekable();
    if names.peek().is_none() {
        let directory = repo.storage.display(&layout::backup_stanza(stanza));
        return Err(Error::new(
            ErrorCode::PathMissing,
            format!("listing of '{directory}' is empty but backup.info was read from it"),
        )
        .hint("does the server, or a gateway in front of it, return wrong listings?"));
    }
    let labels = labels_of(names);
    let removed = remove_missing(repo, stanza, &mut info)?;
    let Additions { added, unfinished } = add_found(repo, stanza, &mut info, &labels)?;
    Ok(Reconstructed { info, changed: removed || added || is_renewed, labels, unfinished })
}

/// Returns the labels of all backups with a directory, complete or not, in ascending order.
///
/// # Errors
/// The directory can't be listed.
pub(crate) fn backup_labels(repo: &Repo, stanza: &Stanza) -> Result<Vec<BackupLabel>> {
    Ok(labels_of(names(repo, stanza)?.iter().map(String::as_str)))
}

fn names(repo: &Repo, stanza: &Stanza) -> Result<Vec<String>> {
    Ok(repo.storage.names(&layout::backup_stanza(stanza))?.unwrap_or_default())
}

fn labels_of<'a>(names: impl Iterator<Item = &'a str>) -> Vec<BackupLabel> {
    // Everything else that is there has no label's name
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Removes backups whose manifest is missing. Only a lookup of the manifest itself proves that, because a listing can
/// be incomplete.
fn remove_missing(repo: &Repo, stanza: &Stanza, info: &mut BackupInfo) -> Result<bool> {
    let mut changed = false;
    let current: Vec<BackupLabel> = info.backups.keys().cloned().collect();
    let is_there = repo.each(&current, |label| manifest_store::is_complete(repo, stanza, label))?;
    for (label, is_there) in current.into_iter().zip(is_there) {
        // A dependent may be gone already
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

/// The result for backups that backup.info lacks.
#[derive(Default)]
struct Additions {
    /// Whether any was added.
    added: bool,
    /// Those without a manifest.
    unfinished: Vec<BackupLabel>,
}

fn add_found(repo: &Repo, stanza: &Stanza, info: &mut BackupInfo, labels: &[BackupLabel]) -> Result<Additions> {
    let mut found = Additions::default();
    for label in labels {
        // A dependent backup whose whole set is unknown could not be added, whatever its manifest says; a full backup
        // that this loop adds comes before its dependents
        let full = label.full_label();
        let set_is_known = *label == full || info.has_set(&full);
        if info.backups.contains_key(label) || !set_is_known {
            continue;
        }
        if !manifest_store::is_complete(repo, stanza, label)? {
            found.unfinished.push(label.clone());
            continue;
        }
        let manifest = manifest_store::load(repo, stanza, label, &manifest_cipher(info))?;
        if manifest.data.label == *label && is_valid(info, &manifest) {
            crate::warn!("backup '{label}' found in repository added to backup.info");
            info.add_manifest(&manifest)?;
            found.added = true;
        } else {
            crate::warn!("invalid backup '{label}' cannot be added to current backups");
        }
    }
    Ok(found)
}

/// Returns whether the backup belongs to a cluster of this stanza and its prior backup exists.
fn is_valid(info: &BackupInfo, manifest: &Manifest) -> bool {
    let data = &manifest.data;
    let of_stanza = info
        .history
        .iter()
        .any(|pg| (pg.id, pg.system_id, pg.version) == (data.pg_id, data.pg_system_id, data.pg_version));
    of_stanza && data.prior.as_ref().is_none_or(|prior| info.backups.contains_key(prior))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::{Cipher, Passphrase};
    use repo_format::label::BackupType;
    use repo_format::manifest::ManifestData;
    use repo_format::pg::version::PgVersion;

    use super::*;
    use crate::repo::info_files::save_backup_info;
    use crate::repo::manifest_store::{CopyProgress, ManifestCopy};
    use crate::storage::faulty::FaultyStorage;
    use crate::storage::memory::MemoryStorage;

    const FULL: &str = "20260101-000000F";
    const DIFF: &str = "20260101-000000F_20260102-000000D";
    const INCR: &str = "20260101-000000F_20260103-000000I";

    fn manifest(label: &str, prior: Option<&str>, system_id: u64) -> Manifest {
        let label: BackupLabel = label.parse().unwrap();
        let backup_type = label.backup_type();
        let mut data = ManifestData::new(label, backup_type, 1, PgVersion::V15, 202_209_061);
        data.prior = prior.map(|prior| prior.parse().unwrap());
        (data.pg_id, data.pg_system_id) = (1, system_id);
        let mut manifest = manifest_store::smallest(data);
        if backup_type != BackupType::Full {
            manifest.references.insert(0, FULL.parse().unwrap());
        }
        manifest
    }

    struct Fixture {
        repo: Repo,
        stanza: Stanza,
        cipher: Cipher,
    }

    impl Fixture {
        fn new() -> Self {
            let stanza = "main".parse().unwrap();
            let pass = Passphrase::new("main");
            let cipher = Cipher::from_passphrase(Some(&pass));
            let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher };
            let sub = Passphrase::new("sub");
            let info = BackupInfo::new(PgVersion::V15, 7, 202_209_061, Some(sub.clone())).unwrap();
            save_backup_info(&repo, &stanza, &info).unwrap();
            Fixture { repo, stanza, cipher: Cipher::from_passphrase(Some(&sub)) }
        }

        fn save(&self, manifest: &Manifest) {
            manifest_store::save(&self.repo, &self.stanza, manifest, &self.cipher).unwrap();
        }

        fn load(&self) -> (Vec<String>, bool) {
            let Reconstructed { info, changed, .. } = load_backup_info_reconstruct(&self.repo, &self.stanza).unwrap();
            save_backup_info(&self.repo, &self.stanza, &info).unwrap();
            (info.backups.keys().map(BackupLabel::to_string).collect(), changed)
        }
    }

    #[test]
    fn manifest_is_loaded_from_copy_when_damaged() {
        let fixture = Fixture::new();
        let manifest = manifest(FULL, None, 7);
        fixture.save(&manifest);
        let label = &manifest.data.label;
        let path = layout::manifest(&fixture.stanza, label);
        let stored = |path| crate::storage::get(&*fixture.repo.storage, path, 1 << 20).unwrap().unwrap();
        assert_eq!(stored(&path), stored(&layout::copy(&path)));
        let put = |path, bytes: &[u8]| {
            crate::storage::put(&*fixture.repo.storage, path, bytes, crate::storage::WriteOptions::ATOMIC).unwrap();
        };
        put(&path, b"Salted__nonsense");
        let loaded = manifest_store::load(&fixture.repo, &fixture.stanza, label, &fixture.cipher).unwrap();
        assert_eq!(loaded.data, manifest.data);
        put(&layout::copy(&path), b"");
        let error = manifest_store::load(&fixture.repo, &fixture.stanza, label, &fixture.cipher).unwrap_err();
        assert_eq!(error.code, crate::ErrorCode::Crypto);
        assert!(
            error
                .message
                .starts_with("unable to load backup manifest file '/backup/main/20260101-000000F/backup.manifest' or ")
        );
    }

    #[test]
    fn history_is_compressed_then_encrypted() {
        let fixture = Fixture::new();
        let manifest = manifest(FULL, None, 7);
        manifest_store::save_history(&fixture.repo, &fixture.stanza, &manifest, &fixture.cipher).unwrap();
        let path = layout::history_manifest(&fixture.stanza, &manifest.data.label);
        assert_eq!(path.as_str(), "backup/main/backup.history/2026/20260101-000000F.manifest.gz");
        let stored = crate::storage::get(&*fixture.repo.storage, &path, 1 << 20).unwrap().unwrap();
        let plain = repo_format::cipher::decrypt(&fixture.cipher, &stored).unwrap();
        assert_eq!(&plain[..2], &[0x1f, 0x8b]);
    }

    #[test]
    fn reconstruct_adds_found_backups_and_their_dependents() {
        let fixture = Fixture::new();
        assert_eq!(fixture.load(), (vec![], false));
        fixture.save(&manifest(FULL, None, 7));
        fixture.save(&manifest(DIFF, Some(FULL), 7));
        assert_eq!(fixture.load(), (vec![FULL.to_owned(), DIFF.to_owned()], true));
        assert!(!fixture.load().1);
    }

    #[test]
    fn reconstruct_leaves_out_unfinished_foreign_and_orphaned_backups() {
        let fixture = Fixture::new();
        let interrupted = manifest("20260105-000000F", None, 7);
        let copy = ManifestCopy { manifest: &interrupted, files: &interrupted.files, progress: CopyProgress::Ended };
        manifest_store::save_copy(&fixture.repo, &fixture.stanza, &fixture.cipher, copy).unwrap();
        fixture.save(&manifest("20260104-000000F", None, 8));
        fixture.save(&manifest(DIFF, Some(FULL), 7));
        assert_eq!(fixture.load(), (vec![], false));
        fixture.save(&manifest(FULL, None, 7));
        fixture.save(&manifest(INCR, Some("20260101-000000F_20260102-120000D"), 7));
        assert_eq!(fixture.load().0, [FULL, DIFF]);
    }

    #[test]
    fn listing_that_lacks_what_is_there_removes_no_backup() {
        let fixture = Fixture::new();
        fixture.save(&manifest(FULL, None, 7));
        fixture.save(&manifest(DIFF, Some(FULL), 7));
        assert_eq!(fixture.load().0.len(), 2);
        let with_listing = |names: &[&str]| {
            let storage = Arc::new(FaultyStorage::new(Arc::clone(&fixture.repo.storage)).list_only(names));
            load_backup_info_reconstruct(&Repo { storage, ..fixture.repo.clone() }, &fixture.stanza)
        };
        let error = with_listing(&[]).unwrap_err();
        assert_eq!(error.code, ErrorCode::PathMissing);
        let found = with_listing(&["backup.info", FULL]).unwrap();
        assert_eq!((found.info.backups.len(), found.changed), (2, false));
    }

    #[test]
    fn reconstruct_removes_backups_without_manifest_and_their_dependents() {
        let fixture = Fixture::new();
        fixture.save(&manifest(FULL, None, 7));
        fixture.save(&manifest(DIFF, Some(FULL), 7));
        fixture.save(&manifest(INCR, Some(DIFF), 7));
        assert_eq!(fixture.load().0.len(), 3);
        fixture.repo.storage.remove(&layout::manifest(&fixture.stanza, &DIFF.parse().unwrap())).unwrap();
        assert_eq!(fixture.load(), (vec![FULL.to_owned()], true));
    }
}
