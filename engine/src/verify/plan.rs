//! Decides what to check, based only on facts: no storage, no clock, no logging.
//!
//! A fact is a directory of WAL segments or the manifest of a backup. It becomes steps: files to check, and files whose
//! result follows from another check, because an earlier backup holds their bytes.

mod wal;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use repo_format::archive_info::ArchiveCluster;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{Cipher, Framing};
use repo_format::claim::RUNNING_SUFFIX;
use repo_format::compress::CompressType;
use repo_format::hash::Sha1;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, FileForm, Stanza};
use repo_format::manifest::{Manifest, ManifestFile};

pub(super) use self::wal::{BadName, Segments, WalDir, is_wal_dir, is_wal_file, segment_part};
use super::file::{BlockCheck, FileCheck, StoredPart};
use super::info_file::Unusable;
use crate::storage::ReadRange;
use crate::work::retry::is_missing;
use crate::{Error, Result};

/// What the repository contains. What follows belongs to the latest archive or backup.
pub(super) enum Fact {
    /// The archive of the cluster with this id.
    Archive(String),
    /// A directory of its segments.
    WalDir(WalDir),
    /// A backup.
    Backup(BackupLabel, ManifestFact),
}

/// What reading a manifest and its copy yielded.
pub(super) enum ManifestFact {
    /// There is none yet, and the copy was not read.
    InProgress,
    Loaded(Box<Manifest>),
    Unusable(Box<Unusable>),
}

/// What to do next. What follows belongs to the latest archive or backup.
pub(super) enum CheckStep {
    /// Begin the results of an archive.
    Archive(String),
    /// Count the segments of a directory.
    Segments(Segments),
    /// Report a segment that can't be checked because of its name.
    BadSegment { file: BadName, error: Error },
    /// Check a segment.
    CheckSegment(NamedCheck),
    /// Begin the results of a backup. Steps about its files follow only if it can be checked.
    Backup(BackupLabel, BackupState),
    /// Check a file of the backup.
    CheckFile(NamedCheck),
    /// Give a file of the backup the result of a part that is checked for another backup.
    Follow(StoredPart),
    /// Count a file that is valid, because nothing of it is stored.
    Nowhere,
}

/// A file to check and its name in messages.
#[derive(Debug)]
pub(super) struct NamedCheck {
    /// The path below the stanza's archive or backups.
    pub name: String,
    pub check: FileCheck,
}

/// Whether a backup can be checked.
pub(super) enum BackupState {
    /// Its files are checked, which may be in these backups.
    Checked(Arc<Vec<BackupLabel>>),
    /// It is the newest and has no manifest yet.
    InProgress,
    /// Neither manifest nor copy exist: the backup may have expired since its directory was listed.
    ManifestMissing,
    /// Neither manifest nor copy can be used.
    Unusable { shown: String, unusable: Box<Unusable> },
    /// The manifest is about a cluster that backup.info does not list.
    Foreign { pg_id: u32, pg_version: String, pg_system_id: u64 },
    /// The manifest has no files.
    NoFiles,
}

/// What all decisions depend on.
pub(super) struct PlanSettings<'a> {
    pub stanza: &'a Stanza,
    pub archive_cipher: Cipher,
    pub history: &'a [ArchiveCluster],
}

/// Turns facts into steps, in order.
pub(super) struct Plan<'a> {
    settings: PlanSettings<'a>,
    /// Steps that are decided. The files of a backup, of which there may be millions, follow one by one.
    steps: VecDeque<CheckStep>,
    backup: Option<OpenBackup>,
    /// Backups without bundles among those that were begun. They store empty files too.
    plain: BTreeSet<BackupLabel>,
    checked: CheckedParts,
}

/// A backup whose files are being planned.
struct OpenBackup {
    /// The directory's name, which counts even if the manifest has another one.
    label: BackupLabel,
    manifest: Box<Manifest>,
    references: Arc<Vec<BackupLabel>>,
    /// The index of the next file.
    next: usize,
}

/// The parts that have been handed out to be checked.
///
/// Later backups refer to files of earlier ones. Each part is read once. A part that the holder's manifest describes
/// differently is another part and is read.
#[derive(Default)]
struct CheckedParts {
    hasher: RandomState,
    /// Hashes of parts and their expected values. A million files must not use much memory.
    hashes: HashSet<u64>,
}

impl CheckedParts {
    /// Returns whether the part has not been handed out yet with these expectations, and records it.
    fn is_new(&mut self, part: &StoredPart, check: &FileCheck) -> bool {
        self.hashes.insert(self.hasher.hash_one((part, check.checksum.0, check.size)))
    }
}

impl<'a> Plan<'a> {
    pub fn new(settings: PlanSettings<'a>) -> Self {
        Plan {
            settings,
            steps: VecDeque::new(),
            backup: None,
            plain: BTreeSet::new(),
            checked: CheckedParts::default(),
        }
    }

    /// Adds a fact. Call it when [`Plan::next`] has returned `None`.
    pub fn add(&mut self, fact: Fact) {
        match fact {
            Fact::Archive(id) => self.steps.push_back(CheckStep::Archive(id)),
            Fact::WalDir(dir) => self.steps.extend(wal::steps(&dir, &self.settings.archive_cipher)),
            Fact::Backup(label, manifest) => self.add_backup(label, manifest),
        }
    }

    /// Returns the next step; `None` if another fact is needed.
    ///
    /// # Errors
    /// A manifest names a file that no path of a repository can have.
    pub fn next(&mut self) -> Result<Option<CheckStep>> {
        if let Some(step) = self.steps.pop_front() {
            return Ok(Some(step));
        }
        let Some(mut backup) = self.backup.take() else { return Ok(None) };
        let Some(file) = backup.manifest.files.get(backup.next) else { return Ok(None) };
        let step = self.file_step(&backup, file)?;
        backup.next += 1;
        self.backup = Some(backup);
        Ok(Some(step))
    }

    fn add_backup(&mut self, label: BackupLabel, manifest: ManifestFact) {
        let state = match manifest {
            ManifestFact::InProgress => BackupState::InProgress,
            ManifestFact::Unusable(unusable) if unusable.is_missing() => BackupState::ManifestMissing,
            ManifestFact::Unusable(unusable) => BackupState::Unusable { shown: shown_manifest(&label), unusable },
            ManifestFact::Loaded(manifest) if !self.is_known_cluster(&manifest) => BackupState::Foreign {
                pg_id: manifest.data.pg_id,
                pg_version: manifest.data.pg_version.to_string(),
                pg_system_id: manifest.data.pg_system_id,
            },
            ManifestFact::Loaded(manifest) if manifest.files.is_empty() => BackupState::NoFiles,
            ManifestFact::Loaded(manifest) => {
                if !manifest.data.bundle {
                    self.plain.insert(label.clone());
                }
                let references = Arc::new(manifest.references.clone());
                let state = BackupState::Checked(Arc::clone(&references));
                self.backup = Some(OpenBackup { label: label.clone(), manifest, references, next: 0 });
                state
            }
        };
        self.steps.push_back(CheckStep::Backup(label, state));
    }

    fn is_known_cluster(&self, manifest: &Manifest) -> bool {
        let data = &manifest.data;
        self.settings
            .history
            .iter()
            .any(|pg| pg.id == data.pg_id && pg.system_id == data.pg_system_id && pg.version == data.pg_version)
    }

    fn file_step(&mut self, backup: &OpenBackup, file: &ManifestFile) -> Result<CheckStep> {
        let manifest = &backup.manifest;
        let holder = if file.reference.is_some() { manifest.holder(file) } else { &backup.label };
        // A bundled backup stores no empty files, and a later plain backup refers to them nevertheless
        let is_nowhere = manifest.data.bundle || (file.reference.is_some() && !self.plain.contains(holder));
        if file.size == 0 && is_nowhere {
            return Ok(CheckStep::Nowhere);
        }
        let check = file_check(self.settings.stanza, backup, file, holder)?;
        let part = check.part();
        if !self.checked.is_new(&part, &check) {
            return Ok(CheckStep::Follow(part));
        }
        let root = layout::backup_stanza(self.settings.stanza);
        let path = check.path.as_str();
        let name = path.strip_prefix(root.as_str()).unwrap_or(path).trim_start_matches('/').to_owned();
        Ok(CheckStep::CheckFile(NamedCheck { name, check }))
    }
}

/// Returns the check of a file of a backup whose bytes are in the backup `holder`.
fn file_check(stanza: &Stanza, backup: &OpenBackup, file: &ManifestFile, holder: &BackupLabel) -> Result<FileCheck> {
    let manifest = &backup.manifest;
    let compress_type = manifest.data.options.compress_type;
    let cipher = Cipher::from_passphrase(manifest.cipher_pass.as_ref());
    let (path, range) = match file.bundle {
        Some(bundle) => (
            layout::bundle(stanza, holder, bundle.id()),
            ReadRange { offset: bundle.offset, limit: Some(file.size_repo) },
        ),
        None => {
            let form = match file.stored_blocks() {
                Some(_) => FileForm::BlockIncr,
                None => FileForm::Whole(compress_type),
            };
            (layout::backup_file(stanza, holder, &file.name, form)?, ReadRange::default())
        }
    };
    let Some(checksum) = file.checksum_repo else {
        // No finished manifest contains a file without a checksum; it fails like a wrong one
        let checksum = file.checksum.unwrap_or(Sha1([0; 20]));
        let (size, stored_size) = (Some(file.size), Some(file.size_repo));
        return Ok(FileCheck { path, range, cipher, compress_type, checksum, size, stored_size, block: None });
    };
    let block = file.stored_blocks().map(|block| BlockCheck {
        block,
        file_size: file.size,
        cipher,
        stanza: stanza.clone(),
        holder: holder.clone(),
        name: file.name.clone(),
        references: Arc::clone(&backup.references),
    });
    let size = stored_size(manifest, file);
    Ok(FileCheck {
        path,
        range,
        cipher: Cipher::None,
        compress_type: CompressType::None,
        checksum,
        size: Some(size),
        stored_size: Some(size),
        block,
    })
}

/// Returns the stored size of a file. If it follows from the size of the content, that counts, so that a manifest with
/// inconsistent sizes is a fault.
fn stored_size(manifest: &Manifest, file: &ManifestFile) -> u64 {
    let data = &manifest.data;
    if data.options.compress_type != CompressType::None || file.stored_blocks().is_some() {
        return file.size_repo;
    }
    let framing = if data.bundle_raw && file.bundle.is_some() { Framing::Raw } else { Framing::Full };
    Cipher::from_passphrase(manifest.cipher_pass.as_ref()).encrypted_size(framing, file.size)
}

/// Returns how messages describe a backup's manifest if they do not name it.
pub(super) fn shown_manifest(label: &BackupLabel) -> String {
    format!("<REPO:BACKUP>/{label}/{}", layout::BACKUP_MANIFEST)
}

/// Backups that may be in progress, or were interrupted and may be resumed: backup.info does not list them.
#[derive(Clone, Debug, Default)]
pub(super) struct Unfinished {
    /// The newest backup, if it is one of them.
    newest: Option<BackupLabel>,
    /// All, except those that hold files of a listed backup.
    unneeded: BTreeSet<BackupLabel>,
}

impl Unfinished {
    /// Finds them among backups with a directory, in order.
    pub(super) fn among(labels: &[BackupLabel], info: &BackupInfo) -> Self {
        let unlisted = |label: &&BackupLabel| !info.backups.contains_key(*label);
        let needed: BTreeSet<&BackupLabel> =
            info.backups.values().flat_map(|entry| entry.prior.iter().chain(&entry.reference)).collect();
        let unneeded = labels.iter().filter(unlisted).filter(|label| !needed.contains(label)).cloned().collect();
        Unfinished { newest: labels.last().filter(unlisted).cloned(), unneeded }
    }

    /// Returns what a backup whose manifest can't be read with `error` may be, other than damaged: one without a manifest that no
    /// listed backup needs.
    pub(super) fn place(&self, label: &BackupLabel, error: Option<&Error>) -> Option<UnfinishedPlace> {
        if !error.is_some_and(is_missing) {
            None
        } else if self.newest.as_ref() == Some(label) {
            Some(UnfinishedPlace::Newest)
        } else {
            self.unneeded.contains(label).then_some(UnfinishedPlace::Older)
        }
    }
}

/// Where a backup that may be unfinished is among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnfinishedPlace {
    /// pgBackRest takes it for one in progress, and reads nothing of it.
    Newest,
    /// There are newer ones. pgBackRest reads it by the copy of its manifest, because its next backup removes an older one that
    /// was interrupted. rbr leaves one alone that another process may be making.
    Older,
}

/// Returns whether all files of a backup had been copied when this copy of its manifest was saved: the server has been told that
/// the backup ends, and the process of rbr that saved it had nothing left to do. pgBackRest may still have waited for WAL.
pub(super) fn is_copied(copy: &Manifest) -> bool {
    copy.data.timestamp_stop != 0 && !copy.backrest_version.ends_with(RUNNING_SUFFIX)
}

#[cfg(test)]
mod tests;
