//! Reads what the plan needs to know: lists the archives and reads the manifests, one directory or backup at a time.

use std::collections::VecDeque;

use repo_format::cipher::Cipher;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::manifest::Manifest;
use repo_format::pg::PgVersion;

use super::info_file::{FilePair, Parse, Retry};
use super::memory::{Shown, StoredStates};
use super::plan::{self, Fact, ManifestFact, Unfinished, UnfinishedPlace, WalDir};
use super::repair::{HalfWhole, PairKind};
use super::scope::{Scope, WalScope};
use crate::repo::wal_header;
use crate::storage::{self, Entry, EntryKind, FileSize};
use crate::work::retry::is_missing;
use crate::{Error, Repo, Result, detail};

/// Where to look and how to read.
#[derive(Clone)]
pub(super) struct WalkSettings<'a> {
    pub repo: &'a Repo,
    pub stanza: &'a Stanza,
    pub archive_cipher: Cipher,
    pub manifest_cipher: Cipher,
    pub version_force: Option<PgVersion>,
    pub retry: Retry<'a>,
    /// Backups that may be in progress, or were interrupted.
    pub unfinished: Unfinished,
    /// Look at the sizes and times of stored files.
    pub states: bool,
}

/// What is left to look at.
pub(super) struct Walk<'a> {
    settings: WalkSettings<'a>,
    archive_ids: VecDeque<String>,
    archive: Option<ArchiveWalk>,
    labels: VecDeque<BackupLabel>,
    wal: WalScope,
    /// Manifests of which either the file or the copy is damaged.
    pub half_whole: Vec<HalfWhole>,
    /// Backups whose files can't be listed, and why.
    pub unlisted: Vec<(BackupLabel, Error)>,
    /// The stored files of the latest fact, if they were wanted.
    states: StoredStates,
}

/// The archive of one cluster.
struct ArchiveWalk {
    id: String,
    path: RepoPath,
    dirs: VecDeque<String>,
    /// In bytes; 0 until a segment was read.
    segment_size: u32,
}

impl<'a> Walk<'a> {
    pub fn new(settings: WalkSettings<'a>, archive_ids: Vec<String>, scope: Scope) -> Self {
        Walk {
            settings,
            archive_ids: archive_ids.into(),
            archive: None,
            labels: scope.labels.into(),
            wal: scope.wal,
            half_whole: Vec::new(),
            unlisted: Vec::new(),
            states: StoredStates::default(),
        }
    }

    /// Returns the next fact: first those about the archives, then those about the backups.
    ///
    /// # Errors
    /// A directory of the archives can't be listed.
    pub fn next(&mut self) -> Result<Option<Fact>> {
        if let Some(archive) = &mut self.archive
            && let Some(dir) = archive.dirs.pop_front()
        {
            let (dir, states) = read_wal_dir(&self.settings, &self.wal, archive, &dir)?;
            self.states = states;
            return Ok(Some(dir));
        }
        if let Some(id) = self.archive_ids.pop_front() {
            return self.start_archive(id).map(Some);
        }
        let Some(label) = self.labels.pop_front() else { return Ok(None) };
        self.states = StoredStates::default();
        Ok(Some(self.read_backup(label)))
    }

    /// Returns what the repository shows of a file of the latest fact. Files that other backups hold are listed with them.
    pub fn shown(&mut self, path: &RepoPath) -> Shown {
        let holder = || {
            let below = path.as_str().strip_prefix(layout::backup_stanza(self.settings.stanza).as_str())?;
            below.split('/').nth(1)?.parse::<BackupLabel>().ok()
        };
        if !self.states.has_dir_of(path)
            && let Some(holder) = holder()
        {
            self.list_backup(&holder);
        }
        self.states.of(&*self.settings.repo.storage, path)
    }

    /// Lists the stored files of a backup.
    fn list_backup(&mut self, label: &BackupLabel) {
        let (repo, path) = (self.settings.repo, layout::backup_path(self.settings.stanza, label));
        match self.settings.retry.run(|| repo.storage.list_files(&path)) {
            Ok(files) => self.states.add(&path, files.into_iter()),
            Err(error) => {
                self.states.add_unlisted(&path);
                if !self.unlisted.iter().any(|(known, _)| known == label) {
                    self.unlisted.push((label.clone(), error));
                }
            }
        }
    }

    fn start_archive(&mut self, id: String) -> Result<Fact> {
        let path = layout::archive_stanza(self.settings.stanza).join(&id)?;
        let dirs = list(self.settings.repo, &path, plan::is_wal_dir)?;
        if dirs.is_empty() {
            detail!("archive path '{id}' is empty");
        }
        self.archive = Some(ArchiveWalk { id: id.clone(), path, dirs: dirs.into(), segment_size: 0 });
        Ok(Fact::Archive(id))
    }

    fn read_backup(&mut self, label: BackupLabel) -> Fact {
        let WalkSettings { repo, stanza, ref manifest_cipher, retry, ref unfinished, .. } = self.settings;
        let pair = FilePair {
            repo,
            path: layout::manifest(stanza, &label),
            shown: plan::shown_manifest(&label),
            cipher: manifest_cipher.clone(),
            retry,
        };
        let parse: Parse<'_, Manifest> = &|reader, origin| Manifest::read(reader, origin);
        let load_copy = |file: Result<_>| (file.as_ref().is_err_and(is_missing), pair.with_copy(file, parse));
        let file = pair.load_file(parse);
        let place = unfinished.place(&label, file.as_ref().err());
        if place == Some(UnfinishedPlace::Newest) && !was_complete(&self.settings, &label) {
            return Fact::Backup(label, ManifestFact::InProgress);
        }
        let (mut is_missing, mut loaded) = load_copy(file);
        // Asked only if there is a copy: some object stores list the directories of expired backups
        let was_complete = place == Some(UnfinishedPlace::Newest)
            || place.is_some() && loaded.is_ok() && was_complete(&self.settings, &label);
        if was_complete {
            // It may have been completed since
            (is_missing, loaded) = load_copy(pair.load_file(parse));
        }
        let manifest = match loaded {
            Ok(loaded) if place.is_some() && is_missing && !plan::is_copied(&loaded.content) => {
                ManifestFact::InProgress
            }
            Ok(loaded) => {
                if loaded.from_copy {
                    detail!("{label}/{} is missing or unusable, using copy", layout::BACKUP_MANIFEST);
                } else if loaded.repair.is_some() {
                    detail!("backup '{label}' manifest.copy does not match manifest");
                }
                // The copy is all that a backup has that never was complete
                if place.is_none() || !is_missing || was_complete {
                    self.half_whole.extend(HalfWhole::of(PairKind::Manifest, &pair.path, loaded.repair));
                }
                ManifestFact::Loaded(Box::new(loaded.content))
            }
            Err(unusable) => ManifestFact::Unusable(unusable),
        };
        Fact::Backup(label, manifest)
    }
}

/// Returns whether a backup without a manifest once had one: the history got it next. So it is damaged, however new it is.
fn was_complete(settings: &WalkSettings<'_>, label: &BackupLabel) -> bool {
    let path = layout::history_manifest(settings.stanza, label);
    // What reading the copy yields then tells more than this
    settings.retry.run(|| storage::exists(&*settings.repo.storage, &path)).unwrap_or(true)
}

/// Lists the segments of one directory, and determines their size from the first one if it is not known yet.
fn read_wal_dir(
    settings: &WalkSettings<'_>,
    wal: &WalScope,
    archive: &mut ArchiveWalk,
    dir: &str,
) -> Result<(Fact, StoredStates)> {
    let path = archive.path.join(dir)?;
    let mut entries = settings.repo.storage.list(&path)?.unwrap_or_default();
    entries.retain(|entry| plan::is_wal_file(&entry.name) && wal.has(&archive.id, plan::segment_part(&entry.name)));
    let mut states = StoredStates::default();
    if settings.states {
        let file = |entry: &Entry| FileSize { path: entry.name.clone(), size: entry.size, modified: entry.modified };
        // A link shows nothing of the file that it leads to
        states.add(&path, entries.iter().filter(|entry| entry.kind == EntryKind::File).map(file));
    }
    let files: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    if archive.segment_size == 0 {
        archive.segment_size = first_segment_size(settings, &path, &files);
    }
    let name = format!("{}/{dir}", archive.id);
    Ok((Fact::WalDir(WalDir { path, name, files, segment_size: archive.segment_size }), states))
}

/// Returns the segment size from the first readable segment; 0 if none is readable, each of which is then a fault of its
/// own. pgBackRest gives up at the first one.
fn first_segment_size(settings: &WalkSettings<'_>, path: &RepoPath, files: &[String]) -> u32 {
    for file in files {
        let size = path.join(file).and_then(|path| settings.retry.run(|| segment_size(settings, &path)));
        match size {
            Ok(size) => return size,
            Err(error) => detail!("unable to get the segment size from '{file}': {error}"),
        }
    }
    0
}

fn segment_size(settings: &WalkSettings<'_>, path: &RepoPath) -> Result<u32> {
    let (storage, force) = (&*settings.repo.storage, settings.version_force);
    Ok(wal_header::read(storage, path, &settings.archive_cipher, force)?.segment_size)
}

/// Returns the names in a directory that are wanted, in order.
fn list(repo: &Repo, path: &RepoPath, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let entries = repo.storage.list(path)?.unwrap_or_default();
    Ok(entries.into_iter().map(|entry| entry.name).filter(|name| is_wanted(name)).collect())
}
