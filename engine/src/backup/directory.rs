//! The directory of a backup: what makes it a copy of a cluster, and what makes it durable.

use std::collections::{BTreeMap, BTreeSet};

use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::manifest::{Manifest, ManifestFile, PG_DATA, PG_TBLSPC};

use super::Backup;
use super::draft::Draft;
use crate::cancel::CancelToken;
use crate::pipeline::backup::CopyMethod;
use crate::repo::Repo;
use crate::repo::manifest_store::CopyProgress;
use crate::storage::{SyncBatch, exists};
use crate::{Result, detail, ending, warn};

/// From this number of files on, files are synced together. A batch also syncs what others wrote to the same file
/// system, so it is not worth it for a few files.
const BATCH_FILES_MIN: usize = 1000;
/// Hard links that are created before they are logged.
const LINKED_AT_ONCE: usize = 100;

impl Backup<'_> {
    /// Returns whether the backup's directory contains every directory of the cluster, so that a copy of it is a
    /// complete cluster.
    pub(super) fn has_all_paths(&self, manifest: &Manifest) -> bool {
        (manifest.data.backup_type == BackupType::Full && !manifest.data.bundle) || self.hardlink()
    }

    fn hardlink(&self) -> bool {
        self.settings.hardlink && self.repo.storage.features().hard_links
    }

    pub(super) fn create_paths(&self, manifest: &Manifest) -> Result<()> {
        let storage = &*self.repo.storage;
        let member = |name: &str| layout::backup_member(self.stanza, &manifest.data.label, name);
        if storage.features().paths {
            let mut levels: BTreeMap<usize, Vec<RepoPath>> = BTreeMap::new();
            for path in &manifest.paths {
                levels.entry(path.name.matches('/').count()).or_default().push(member(&path.name)?);
            }
            // A directory is created after those above it
            for paths in levels.values() {
                self.repo.each(paths, |path| storage.create_path(path))?;
            }
        }
        if storage.features().symlinks {
            let tablespaces = manifest.targets.iter().filter_map(|target| Some((target, target.tablespace.as_ref()?)));
            for (target, tablespace) in tablespaces {
                let link = member(&format!("{}/{}", PG_DATA, target.name))?;
                storage.symlink(&format!("../../{}/{}", PG_TBLSPC, tablespace.id), &link)?;
            }
        }
        Ok(())
    }

    /// Decides how files are made durable: many small files together, bundles and a few files one by one. Files of an
    /// interrupted run may not be durable yet, because it would have synced them at its end.
    pub(super) fn begin_batch(&self, draft: &Draft) -> Result<Option<Box<dyn SyncBatch>>> {
        let files = draft.pending().count();
        let resumes = draft.files.iter().any(|file| file.pending().is_some_and(CopyMethod::resumes));
        if !resumes && (self.settings.bundle.is_some() || files < BATCH_FILES_MIN) {
            return Ok(None);
        }
        self.repo.storage.begin_batch(&layout::backup_stanza(self.stanza))
    }

    /// Creates hard links to files of prior backups, or logs references to them.
    pub(super) fn after_copy(&self, manifest: &Manifest) -> Result<()> {
        let files: Vec<&ManifestFile> = manifest.files.iter().filter(|file| file.reference.is_some()).collect();
        for files in files.chunks(LINKED_AT_ONCE) {
            let linked = match self.hardlink() {
                true => self.repo.each(files, |file| self.link(manifest, file))?,
                false => Vec::new(),
            };
            for (index, file) in files.iter().enumerate() {
                let what = if linked.get(index) == Some(&true) { "hardlink" } else { "reference" };
                detail!("{what} {} to {}", file.name, manifest.holder(file));
            }
        }
        Ok(())
    }

    /// Creates a hard link to a file of a prior backup, if that stores the file alone. Returns whether it does.
    fn link(&self, manifest: &Manifest, file: &ManifestFile) -> Result<bool> {
        let extension = self.settings.compression.kind.extension();
        let path = |label| layout::backup_member(self.stanza, label, &format!("{}{extension}", file.name));
        let stored = path(manifest.holder(file))?;
        let is_alone = self.is_stored_alone(file, &stored)?;
        if is_alone {
            self.repo.storage.hard_link(&stored, &path(&manifest.data.label)?)?;
        }
        Ok(is_alone)
    }

    /// Returns whether an earlier backup stores the file in a form whose hard link is part of a complete cluster: not
    /// in a bundle, not in blocks, and not only as a line of its manifest. A chain that began with other options may
    /// have all of these.
    fn is_stored_alone(&self, file: &ManifestFile, path: &RepoPath) -> Result<bool> {
        let in_blocks = file.block.is_some_and(|block| block.map_size > 0);
        Ok(file.bundle.is_none() && !in_blocks && (file.size > 0 || exists(&*self.repo.storage, path)?))
    }

    /// Makes the copied files durable. A signal does not interrupt this. After a signal it also saves the manifest, so
    /// that a later backup can resume all of it.
    pub(super) fn make_durable(
        &self,
        manifest: &Manifest,
        batch: Option<Box<dyn SyncBatch>>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let _saving = ending::saving();
        match batch {
            Some(batch) => sync(self.repo, self.stanza, &manifest.data.label, batch)?,
            None => self.sync_paths(manifest)?,
        }
        if cancel.is_cancelled() {
            self.save_copied(manifest, CopyProgress::Ended)?;
        }
        cancel.check()
    }

    /// Makes the entries of all directories durable. The files already are.
    fn sync_paths(&self, manifest: &Manifest) -> Result<()> {
        let storage = &*self.repo.storage;
        if !storage.features().path_sync {
            return Ok(());
        }
        let (stanza, label) = (self.stanza, &manifest.data.label);
        let mut paths = vec![
            (layout::bundle_path(stanza, label), false),
            (layout::backup_path(stanza, label), true),
            (layout::backup_stanza(stanza), true),
        ];
        let (all, own) = (self.has_all_paths(manifest), own_directories(manifest));
        // Other backups do not create directories without files of their own
        for path in manifest.paths.iter().filter(|path| all || own.contains(&*path.name)) {
            paths.push((layout::backup_member(stanza, label, &path.name)?, all));
        }
        let sync = |(path, exists): &(RepoPath, bool)| match *exists || storage.info(path)?.is_some() {
            true => storage.sync_path(path),
            false => Ok(()),
        };
        self.repo.each(&paths, sync).map(drop)
    }
}

/// Returns the directories of the files that this backup may have stored beside its bundles, with those above them.
fn own_directories(manifest: &Manifest) -> BTreeSet<&str> {
    let mut own = BTreeSet::new();
    // With bundles, empty files are only in the manifest
    let is_stored = |file: &&ManifestFile| file.bundle.is_none() && (file.size > 0 || !manifest.data.bundle);
    for file in manifest.files.iter().filter(|file| file.reference.is_none()).filter(is_stored) {
        let mut path: &str = &file.name;
        while let Some((directory, _)) = path.rsplit_once('/') {
            // Those above are there, too
            if !own.insert(directory) {
                break;
            }
            path = directory;
        }
    }
    own
}

/// Makes all copied files durable. If that fails, the backup must not be resumed: its files may look correct while they
/// are in memory, and the kernel reports lost data only once.
///
/// # Errors
/// The errors of the batch.
fn sync(repo: &Repo, stanza: &Stanza, label: &BackupLabel, batch: Box<dyn SyncBatch>) -> Result<()> {
    batch.finish().inspect_err(|_| {
        if let Err(error) = repo.storage.remove(&layout::manifest_copy(stanza, label)) {
            warn!("unable to prevent backup '{label}' from being resumed, remove it: {error}");
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::Cipher;

    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{self, WriteOptions};
    use crate::{Error, ErrorCode};

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
