//! Checks that everything that a manifest names is in the repository, before the manifest completes the backup.
//!
//! The manifest records what was stored, but another host may have removed it since.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use repo_format::backup_info::BackupInfo;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, FileForm, RepoPath, Stanza};
use repo_format::manifest::{Manifest, ManifestFile};

use crate::repo::{Repo, manifest_store};
use crate::{Error, ErrorCode, Result};

/// Checks that every stored file is listed with its size, and that the referenced backups are complete.
///
/// # Errors
/// [`ErrorCode::FileMissing`] for the first missing file or backup, and errors of listing.
pub(super) fn check(repo: &Repo, stanza: &Stanza, manifest: &Manifest) -> Result<()> {
    let label = &manifest.data.label;
    let directory = layout::backup_path(stanza, label);
    let earlier: Vec<&BackupLabel> = needed(manifest).collect::<BTreeSet<_>>().into_iter().collect();
    let (files, complete) = repo.both(
        || repo.storage.list_files(&directory),
        || repo.each(&earlier, |label| manifest_store::is_complete(repo, stanza, label)),
    );
    let (files, complete) = (files?, complete?);
    if let Some((label, _)) = earlier.iter().zip(complete).find(|(_, complete)| !complete) {
        return Err(missing(manifest, &format!("backup '{label}', which it needs, is no longer complete")));
    }
    let sizes = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    let listed = Listing { repo, manifest, directory: &directory, sizes };
    let mut bundles: BTreeMap<u64, u64> = BTreeMap::new();
    for file in manifest.files.iter().filter(|file| file.reference.is_none()) {
        if let Some(bundle) = file.bundle {
            let end = bundles.entry(bundle.id()).or_default();
            *end = (*end).max(bundle.offset.saturating_add(file.size_repo));
        } else if file.size > 0 {
            // An empty file is not always stored, and nothing reads it
            let path = stored_path(manifest, stanza, file)?;
            listed.check_size(&path, |size| size == file.size_repo)?;
        }
    }
    for (id, end) in bundles {
        let path = layout::bundle(stanza, label, id);
        listed.check_size(&path, |size| size >= end)?;
    }
    Ok(())
}

/// Returns the backups that this backup depends on.
fn needed(manifest: &Manifest) -> impl Iterator<Item = &BackupLabel> {
    manifest.references.iter().filter(|reference| **reference != manifest.data.label).chain(&manifest.data.prior)
}

/// Checks that backup.info lists the backups that this backup depends on. A host that expires a backup removes it from
/// backup.info.
///
/// # Errors
/// [`ErrorCode::FileMissing`] for the first backup that is not listed.
pub(super) fn check_needed(info: &BackupInfo, manifest: &Manifest) -> Result<()> {
    match needed(manifest).find(|label| !info.backups.contains_key(label)) {
        Some(label) => Err(missing(manifest, &format!("backup '{label}', which it needs, was expired"))),
        None => Ok(()),
    }
}

fn stored_path(manifest: &Manifest, stanza: &Stanza, file: &ManifestFile) -> Result<RepoPath> {
    let form = match file.block {
        Some(block) if block.map_size > 0 => FileForm::BlockIncr,
        _ => FileForm::Whole(manifest.data.options.compress_type),
    };
    layout::backup_file(stanza, &manifest.data.label, &file.name, form)
}

/// The files of a backup's directory.
struct Listing<'a> {
    repo: &'a Repo,
    manifest: &'a Manifest,
    directory: &'a RepoPath,
    /// By path below the directory.
    sizes: HashMap<&'a str, u64>,
}

impl Listing<'_> {
    fn check_size(&self, path: &RepoPath, fits: impl Fn(u64) -> bool) -> Result<()> {
        let name = path.as_str().strip_prefix(self.directory.as_str());
        let name = name.map_or(path.as_str(), |name| name.trim_start_matches('/'));
        let problem = match self.sizes.get(name) {
            Some(size) if fits(*size) => return Ok(()),
            Some(size) => format!("has {size} byte(s) instead of the size that was written"),
            None => "is missing".to_owned(),
        };
        Err(missing(self.manifest, &format!("file '{}' {problem}", self.repo.storage.display(path))))
    }
}

fn missing(manifest: &Manifest, why: &str) -> Error {
    let text = format!("backup '{}' can't be completed: {why}", manifest.data.label);
    Error::new(ErrorCode::FileMissing, text)
        .hint("did another host, or pgBackRest, back up or expire the same stanza at the same time?")
        .hint("does a rule of the store remove files?")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::Cipher;
    use repo_format::hash::Sha1;
    use repo_format::label::BackupType;
    use repo_format::manifest::{Bundle, ManifestData};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{WriteOptions, put};

    const FULL: &str = "20260101-000000F";
    const DIFF: &str = "20260101-000000F_20260102-000000D";

    /// A backup with a file, an empty file, two files in a bundle, and a file of the full backup.
    fn manifest() -> Manifest {
        let mut data = ManifestData::new(DIFF.parse().unwrap(), BackupType::Diff, 1, PgVersion::V15, 1);
        data.prior = Some(FULL.parse().unwrap());
        let mut manifest = Manifest::new(data);
        manifest.references.insert(0, FULL.parse().unwrap());
        let file = |name: &str, size, size_repo| ManifestFile {
            size_repo,
            checksum: Some(Sha1::EMPTY),
            ..ManifestFile::new(format!("pg_data/{name}").as_str(), size, 1)
        };
        let bundled = |name, offset| ManifestFile { bundle: Bundle::new(3, offset), ..file(name, 9, 5) };
        let referred = ManifestFile { reference: Some(0), ..file("old", 7, 7) };
        manifest.files = vec![file("a", 4, 4), bundled("b", 0), bundled("c", 5), file("empty", 0, 0), referred];
        manifest
    }

    #[test]
    fn backup_needs_what_it_is_based_on_in_backup_info() {
        let mut info = BackupInfo::new(PgVersion::V15, 1, 1, None).unwrap();
        let error = check_needed(&info, &manifest()).unwrap_err();
        assert!(error.message.contains(FULL) && error.code == ErrorCode::FileMissing, "{error}");
        let mut data = ManifestData::new(FULL.parse().unwrap(), BackupType::Full, 1, PgVersion::V15, 1);
        (data.pg_id, data.pg_system_id) = (1, 1);
        info.add_manifest(&Manifest::new(data)).unwrap();
        check_needed(&info, &manifest()).unwrap();
    }

    #[test]
    fn backup_is_whole_only_with_every_file_in_its_size_and_every_backup_it_needs() {
        let stanza: Stanza = "demo".parse().unwrap();
        let stored = [
            (format!("{DIFF}/pg_data/a"), 4),
            (format!("{DIFF}/bundle/3"), 10),
            (format!("{FULL}/backup.manifest"), 1),
        ];
        let fails = |change: &dyn Fn(&str, usize) -> Option<usize>| {
            let storage = MemoryStorage::new();
            for (name, size) in &stored {
                if let Some(size) = change(name, *size) {
                    let path = RepoPath::new(format!("backup/demo/{name}")).unwrap();
                    put(&storage, &path, &vec![0; size], WriteOptions::ATOMIC).unwrap();
                }
            }
            let repo = Repo { key: 1, storage: Arc::new(storage), cipher: Cipher::None };
            check(&repo, &stanza, &manifest()).err().map(|error| {
                assert_eq!(error.code, ErrorCode::FileMissing);
                error.message
            })
        };
        assert_eq!(fails(&|_, size| Some(size)), None);
        for (missing, _) in &stored {
            assert!(fails(&|name, size| (name != missing).then_some(size)).is_some(), "{missing}");
        }
        for (wrong, size, is_wrong) in
            [("pg_data/a", 3, true), ("pg_data/a", 5, true), ("bundle/3", 9, true), ("bundle/3", 11, false)]
        {
            let message = fails(&|name, old| Some(if name.ends_with(wrong) { size } else { old }));
            assert_eq!(message.is_some(), is_wrong, "{wrong} {size}");
        }
    }
}
