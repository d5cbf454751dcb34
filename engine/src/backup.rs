//! Backups of a PostgreSQL cluster.
//!
//! Source of order and messages: pgBackRest `src/command/backup/backup.c`.

mod block_size;
mod build;
mod copy;
mod draft;
mod finish;
mod incr;
mod label;
mod names;
mod queue;
mod report;
mod resume;
mod saver;
mod settings;
mod shared;
mod source;
#[cfg(test)]
mod tests;
mod unfinished;
mod wal_copy;
mod whole;

use std::borrow::Borrow;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::{BackupEntry, BackupInfo};
use repo_format::cipher::{Cipher, Passphrase};
use repo_format::json;
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::manifest::{Database, Manifest, ManifestData, ManifestFile};
use repo_format::size::format_size;
use repo_format::wal_name::WalSegment;

use self::block_size::BlockSizes;
use self::copy::{CopyPhase, Processed};
use self::draft::{BackupFile, Draft, FileState};
use self::queue::{JobSettings, Queues};
use self::report::ReportSettings;
pub use self::settings::{BackupRequest, BackupSummary, BlockSettings, BundleSettings, StandbyChoice};
use self::source::{Source, Start, Stop};
use self::unfinished::Unfinished;
use crate::cancel::CancelToken;
use crate::claim::Claim;
use crate::host_locks::HeldLocks;
use crate::pg::data_dir::{self, ScanOptions};
use crate::pipeline::backup::{CopyFrom, CopyMethod, CopyRules};
use crate::progress::Progress;
use crate::repo::manifest_store::{CopyProgress, ManifestCopy};
use crate::repo::{Repo, archive_find, info_files, manifest_store, reconstruct};
use crate::session::Session;
use crate::storage::{SyncBatch, WriteOptions, exists};
use crate::work::crew::CrewSettings;
use crate::work::retry::RetryPolicy;
use crate::{ErrorCode, Result, detail, ending, info, log, warn};

/// From this number of files on, files are synced together. A batch also syncs what others wrote to the same file
/// system, so it is not worth it for a few files.
const BATCH_FILES_MIN: usize = 1000;

/// Makes a backup in the first repository of the session.
///
/// The caller holds the lock of the stanza's backups on this host, and a claim on the stanza in the repository.
///
/// # Errors
/// Anything that keeps the backup from being complete. The next full backup can resume from the files that were copied.
pub(crate) fn run(request: &BackupRequest, session: &Session, held: &mut Held<'_>) -> Result<BackupSummary> {
    let started = Instant::now();
    let (made, warnings) = log::collect_warnings(|| make(request, session, held));
    let Made { manifest, entry, page_errors } = made?;
    Ok(BackupSummary {
        repo_key: held.repo.key,
        files: manifest.files.len(),
        label: manifest.data.label,
        entry,
        page_errors,
        warnings,
        duration: started.elapsed(),
    })
}

/// A complete backup.
struct Made {
    manifest: Manifest,
    /// Its line in backup.info.
    entry: BackupEntry,
    /// Number of files with invalid pages.
    page_errors: u32,
}

/// What must be held while a backup runs.
pub(crate) struct Held<'a> {
    /// The repository.
    pub(crate) repo: &'a Repo,
    /// The lock of the stanza's backups on this host.
    pub(crate) lock: &'a mut dyn HeldLocks,
    /// The claim on the stanza in the repository.
    pub(crate) claim: &'a Claim,
}

fn make(request: &BackupRequest, session: &Session, held: &mut Held<'_>) -> Result<Made> {
    let (stanza, cancel, claim) = (session.stanza(), session.cancel_token(), held.claim);
    let mut settings = request.clone();
    check_settings(&settings)?;
    let repo = &claim.guard(held.repo);
    let info = reconstruct::load_listed(repo, stanza, claim.names())?.info;
    let mut source = Source::open(&settings, cancel)?;
    source.check_stanza(&info)?;
    let mut checksum_page = source.checksum_page(settings.checksum_page);
    let archive = match settings.archive_check {
        true => Some(info_files::load_archive_info(repo, stanza)?),
        false => None,
    };
    let timestamp_start = source.time()?;
    let prior = incr::load_prior(repo, stanza, &info, &mut settings, &mut checksum_page)?;

    let start = source.start(&settings)?;
    if let (Some(archive), Some(segment)) = (&archive, &start.wal_segment_check) {
        let before = if start.wal_segment == Some(*segment) { "" } else { "prior " };
        info!("check archive for {before}segment {segment}");
        let id = archive.current().archive_id();
        archive_find::find_one(&*repo.storage, stanza, id, segment, settings.archive_timeout, cancel)?;
    }

    let backup = Backup { settings: &settings, stanza, repo, claim, manifest_pass: info.cipher_pass.clone() };
    let mut draft = backup.scan(&mut source, &start, timestamp_start, checksum_page, info.current().catalog_version)?;
    match &prior {
        Some(prior) => {
            incr::merge(&mut draft, prior, start.wal_segment.as_ref())?;
            draft.manifest.cipher_pass = prior.cipher_pass.clone();
        }
        None => draft.manifest.cipher_pass = info_files::generate_passphrase(repo)?,
    }
    // The prior manifest can be as large as the new one and is no longer needed
    drop(prior);
    backup.choose_label(&mut source, &mut draft, cancel)?;
    names::check(&*repo.storage, stanza, settings.bundle, &draft)?;
    claim.mark(&draft.manifest.data.label)?;

    let batch = backup.begin_batch(&draft)?;
    let files = draft.files.iter().map(|file| file.entry.clone());
    backup.save_copy(ManifestCopy { manifest: &draft.manifest, files, progress: CopyProgress::Runs })?;
    let write_options = if batch.is_some() { WriteOptions::BATCH } else { WriteOptions::IN_PLACE };
    let running = Running { lock: held.lock, progress: session.progress(), cancel };
    let Processed { mut manifest, page_errors } = backup.copy(&mut source, draft, write_options, running)?;
    backup.after_copy(&manifest)?;
    backup.make_durable(&manifest, batch, cancel)?;

    source.ping(true)?;
    let stop = source.stop()?;
    finish::put_stop_files(&backup, &mut manifest, &stop)?;
    backup.describe(&mut manifest, &info, &start, &stop, source.has_standby());
    let wal_segment_size = source.control.wal_segment_size;
    if let Some(archive) = &archive {
        backup.check_archive(&mut manifest, archive, wal_segment_size, &start, &stop, cancel)?;
    }

    info!("new backup label = {}", manifest.data.label);
    let entry = finish::complete(&backup, &manifest, &mut || source.is_alone())?;
    info!(
        "{} backup size = {}, file total = {}",
        manifest.data.backup_type,
        format_size(entry.size_delta),
        manifest.files.len()
    );
    if page_errors > 0 {
        warn!("backup command encountered {page_errors} checksum warning(s), check the log file for details");
    }
    Ok(Made { manifest, entry, page_errors })
}

/// Refuses settings that would otherwise fail only when the manifest is written at the end.
fn check_settings(settings: &BackupRequest) -> Result<()> {
    settings.annotation.keys().try_for_each(|key| json::check_key(key))
}

/// What the copy phase shows to others, and what can end it.
struct Running<'a> {
    lock: &'a mut dyn HeldLocks,
    progress: &'a dyn Progress,
    cancel: &'a CancelToken,
}

/// What the steps of a backup share.
struct Backup<'a> {
    settings: &'a BackupRequest,
    stanza: &'a Stanza,
    repo: &'a Repo,
    claim: &'a Claim,
    /// The passphrase of manifests.
    manifest_pass: Option<Passphrase>,
}

impl Backup<'_> {
    fn manifest_cipher(&self) -> Cipher {
        Cipher::from_passphrase(self.manifest_pass.as_ref())
    }

    /// Lists the data directory and waits until later changes get a later time.
    fn scan(
        &self,
        source: &mut Source,
        start: &Start,
        timestamp_start: i64,
        checksum_page: bool,
        catalog_version: u32,
    ) -> Result<Draft> {
        let settings = self.settings;
        let version = source.version();
        // A placeholder, because the label depends on what can be resumed
        let label = label::preliminary(timestamp_start)?;
        let mut data = ManifestData::new(label, settings.kind, timestamp_start, version, catalog_version);
        data.bundle = settings.bundle.is_some();
        data.block_incr = settings.block.is_some();
        data.bundle_raw = data.block_incr;
        data.options.online = settings.online;
        data.options.checksum_page = Some(checksum_page);
        data.options.compress_type = settings.compression.kind;
        let manifest = Manifest::new(data);

        let host = Arc::clone(&source.hosts.primary);
        let scan = host.scan(
            &ScanOptions {
                version,
                tablespace_id: &version.tablespace_dir(catalog_version),
                wal_path: version.wal_dir(),
                online: settings.online,
                exclude: &settings.exclude,
                tablespaces: start.tablespaces.as_deref(),
            },
            &mut || source.tablespaces(),
        )?;
        let blocks = settings.block.as_ref().map(BlockSizes::new);
        let mut draft = build::fill(manifest, scan, blocks.as_ref(), checksum_page)?;
        build::validate_times(&mut draft, settings.delta, source.time_wait()?);
        Ok(draft)
    }

    /// Resumes an interrupted backup, or creates a new label.
    fn choose_label(&self, source: &mut Source, draft: &mut Draft, cancel: &CancelToken) -> Result<()> {
        let storage = &*self.repo.storage;
        let resume = |source: &mut Source, draft: &mut Draft| {
            let mut unfinished = Unfinished {
                repo: self.repo,
                stanza: self.stanza,
                manifest_cipher: &self.manifest_cipher(),
                sessions: &mut || source.other_backups(),
                now: &|| self.claim.renewed_at(),
                cancel,
            };
            storage
                .concurrency()
                .both(|| resume::resume(&mut unfinished, self.settings, draft), || label::used(storage, self.stanza))
        };
        let mut time = draft.manifest.data.timestamp_start;
        let used = loop {
            let (resumed, used) = resume(source, draft);
            if resumed? {
                return Ok(());
            }
            let unshared = source.label_time(time)?;
            if unshared == time {
                break used?;
            }
            // The other backup may have a directory by now
            time = unshared;
        };
        let create = |used: &[BackupLabel]| {
            let data = &draft.manifest.data;
            label::create(used, data.backup_type, data.prior.as_ref(), time, cancel)
        };
        let label = match create(&used) {
            // It may be the label of an interrupted backup that was removed meanwhile
            Err(error) if error.code == ErrorCode::Clock => create(&label::used(storage, self.stanza)?)?,
            label => label?,
        };
        draft.set_label(label);
        Ok(())
    }

    /// Saves the manifest so far, so that the backup can be resumed.
    fn save_copy<F: IntoIterator<Item: Borrow<ManifestFile>>>(&self, copy: ManifestCopy<'_, F>) -> Result<()> {
        if !self.settings.resume {
            return Ok(());
        }
        manifest_store::save_copy(self.repo, self.stanza, &self.manifest_cipher(), copy)
    }

    /// Saves the manifest of which all files are copied.
    fn save_copied(&self, manifest: &Manifest, progress: CopyProgress) -> Result<()> {
        self.save_copy(ManifestCopy { manifest, files: &manifest.files, progress })
    }

    /// Returns whether the backup's directory contains every directory of the cluster, so that a copy of it is a
    /// complete cluster.
    fn has_all_paths(&self, manifest: &Manifest) -> bool {
        (manifest.data.backup_type == BackupType::Full && !manifest.data.bundle) || self.hardlink()
    }

    fn hardlink(&self) -> bool {
        self.settings.hardlink && self.repo.storage.features().hard_links
    }

    fn create_paths(&self, manifest: &Manifest) -> Result<()> {
        let storage = &*self.repo.storage;
        let member = |name: &str| layout::backup_member(self.stanza, &manifest.data.label, name);
        if storage.features().paths {
            for path in &manifest.paths {
                storage.create_path(&member(&path.name)?)?;
            }
        }
        if storage.features().symlinks {
            let tablespaces = manifest.targets.iter().filter_map(|target| Some((target, target.tablespace.as_ref()?)));
            for (target, tablespace) in tablespaces {
                let link = member(&format!("{}/{}", data_dir::TARGET_PGDATA, target.name))?;
                storage.symlink(&format!("../../{}/{}", data_dir::TARGET_TBLSPC, tablespace.id), &link)?;
            }
        }
        Ok(())
    }

    /// Decides how files are made durable: many small files together, bundles and a few files one by one. Files of an
    /// interrupted run may not be durable yet, because it would have synced them at its end.
    fn begin_batch(&self, draft: &Draft) -> Result<Option<Box<dyn SyncBatch>>> {
        let files = draft.pending().count();
        let resumes = draft.files.iter().any(|file| file.pending().is_some_and(CopyMethod::resumes));
        if !resumes && (self.settings.bundle.is_some() || files < BATCH_FILES_MIN) {
            return Ok(None);
        }
        self.repo.storage.begin_batch(&layout::backup_stanza(self.stanza))
    }

    /// Copies all files.
    fn copy(
        &self,
        source: &mut Source,
        draft: Draft,
        write_options: WriteOptions,
        running: Running<'_>,
    ) -> Result<Processed> {
        let (settings, manifest) = (self.settings, &draft.manifest);
        if self.has_all_paths(manifest) {
            self.create_paths(manifest)?;
        }
        if manifest.data.bundle {
            let alone = |file: &&BackupFile| file.entry.size == 0 && file.state == FileState::Complete;
            for file in draft.files.iter().filter(alone) {
                detail!(
                    "store zero-length file {}",
                    source.hosts.file_path(CopyFrom::Primary, &file.entry.name).display()
                );
            }
        }
        let (queues, total) = Queues::build(self.job_settings(source, manifest), &draft, settings.online)?;
        let rules = self.copy_rules(source, manifest, write_options);
        let hosts = source.hosts.clone();
        // In a backup from a standby, the worker for the primary does not count
        let workers = settings.process_max + u32::from(source.has_standby());
        let phase = CopyPhase {
            rules: &rules,
            storage: &*self.repo.storage,
            crew: CrewSettings {
                jobs_per_worker: self.repo.storage.concurrency().jobs_per_worker,
                ..CrewSettings::new(workers, RetryPolicy::new(settings.job_retry, settings.job_retry_interval))
            },
            save_bytes: settings.manifest_save_threshold.max(total.bytes / 100),
            report: ReportSettings {
                stanza: self.stanza,
                hosts: &hosts,
                page_size: rules.page_size,
                checksum_page_error: settings.checksum_page_error,
                total,
            },
            repo_key: self.repo.key,
            lock: running.lock,
            progress: running.progress,
            cancel: running.cancel,
        };
        let mut look_after = || {
            self.claim.glance(self.repo)?;
            source.ping(false)
        };
        phase.run(queues, draft, &mut look_after, &|copy| self.save_copy(copy))
    }

    fn job_settings(&self, source: &Source, manifest: &Manifest) -> JobSettings {
        let settings = self.settings;
        let super_block_size = |block: &BlockSettings| match manifest.data.backup_type {
            BackupType::Full => block.super_full,
            BackupType::Diff | BackupType::Incr => block.super_other,
        };
        JobSettings {
            stanza: self.stanza.clone(),
            label: manifest.data.label.clone(),
            references: manifest.references.clone(),
            compress_type: settings.compression.kind,
            bundle: settings.bundle,
            super_block_size: settings.block.as_ref().map(super_block_size),
            xact_path: source.version().xact_dir(),
            standby: source.has_standby(),
            threads_max: match settings.compression.gains_from_threads() {
                true => (settings.process_max as usize).min(available_parallelism().map_or(1, NonZero::get)),
                false => 1,
            },
            // While one job waits for a server, others compute
            long_max: match self.repo.storage.concurrency().waits() {
                true => settings.process_max as usize + 1,
                false => usize::MAX,
            },
        }
    }

    fn copy_rules(&self, source: &Source, manifest: &Manifest, write_options: WriteOptions) -> CopyRules {
        let settings = self.settings;
        CopyRules {
            compression: settings.compression,
            cipher: Cipher::from_passphrase(manifest.cipher_pass.as_ref()),
            bundle_raw: manifest.data.bundle_raw,
            reference: u32::try_from(manifest.references.len().saturating_sub(1)).unwrap_or(u32::MAX),
            page_size: source.control.page_size,
            page_header_check: settings.page_header_check,
            compare_buffer_bytes: usize::try_from(settings.buffer_size).unwrap_or(usize::MAX),
            write_options,
        }
    }

    /// Creates hard links to files of prior backups, or logs references to them.
    fn after_copy(&self, manifest: &Manifest) -> Result<()> {
        let extension = self.settings.compression.kind.extension();
        for file in manifest.files.iter().filter(|file| file.reference.is_some()) {
            let holder = manifest.holder(file);
            let path = |label| layout::backup_member(self.stanza, label, &format!("{}{extension}", file.name));
            if self.hardlink() && self.is_stored_alone(file, &path(holder)?)? {
                detail!("hardlink {} to {holder}", file.name);
                self.repo.storage.hard_link(&path(holder)?, &path(&manifest.data.label)?)?;
            } else {
                detail!("reference {} to {holder}", file.name);
            }
        }
        Ok(())
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
    fn make_durable(&self, manifest: &Manifest, batch: Option<Box<dyn SyncBatch>>, cancel: &CancelToken) -> Result<()> {
        let _saving = ending::saving();
        match batch {
            Some(batch) => finish::sync(self.repo, self.stanza, &manifest.data.label, batch)?,
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
        let member = |name: &str| layout::backup_member(self.stanza, &manifest.data.label, name);
        let bundles = layout::bundle_path(self.stanza, &manifest.data.label);
        if storage.info(&bundles)?.is_some() {
            storage.sync_path(&bundles)?;
        }
        for path in &manifest.paths {
            let path = member(&path.name)?;
            // Other backups do not create directories without files of their own
            if self.has_all_paths(manifest) || storage.info(&path)?.is_some() {
                storage.sync_path(&path)?;
            }
        }
        storage.sync_path(&layout::backup_path(self.stanza, &manifest.data.label))?;
        storage.sync_path(&layout::backup_stanza(self.stanza))
    }

    /// Records how the backup was made.
    fn describe(&self, manifest: &mut Manifest, info: &BackupInfo, start: &Start, stop: &Stop, standby: bool) {
        let settings = self.settings;
        let data = &mut manifest.data;
        data.timestamp_stop = stop.timestamp;
        data.lsn_start = start.lsn.map(|lsn| lsn.to_string());
        data.archive_start = start.wal_segment;
        data.lsn_stop = stop.online.as_ref().map(|stop| stop.lsn.to_string());
        data.archive_stop = stop.online.as_ref().map(|stop| stop.wal_segment);
        data.pg_id = info.current().id;
        data.pg_system_id = info.current().system_id;
        let options = &mut data.options;
        options.archive_check = settings.archive_check;
        options.archive_copy = settings.archive_copy;
        options.backup_standby = Some(standby);
        options.buffer_size = u32::try_from(settings.buffer_size).ok();
        // Levels are stored unsigned
        options.compress_level = Some(settings.compression.level.cast_unsigned());
        options.compress_level_network = Some(settings.compress_level_network);
        options.hardlink = settings.hardlink;
        options.process_max = Some(settings.process_max);
        manifest.databases = start
            .databases
            .iter()
            .map(|row| Database { name: row.name.clone(), id: row.oid, last_system_id: row.last_system_oid })
            .collect();
        manifest.databases.sort_by(|a, b| a.name.cmp(&b.name));
        manifest.annotation = settings
            .annotation
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
    }

    /// Waits for the WAL of the backup, and copies it if requested.
    fn check_archive(
        &self,
        manifest: &mut Manifest,
        archive: &ArchiveInfo,
        wal_segment_size: u32,
        start: &Start,
        stop: &Stop,
        cancel: &CancelToken,
    ) -> Result<()> {
        let (Some(start_lsn), Some(first), Some(stop)) = (start.lsn, start.wal_segment, &stop.online) else {
            return Ok(());
        };
        let last = WalSegment::from_lsn(first.timeline, stop.lsn, wal_segment_size);
        info!("check archive for segment(s) {first}:{last}");
        self.save_copied(manifest, CopyProgress::Runs)?;
        let segments: Vec<WalSegment> =
            WalSegment::range(first.timeline, start_lsn, stop.lsn, wal_segment_size)?.collect();
        let wal = finish::Wal { archive, segments: &segments, segment_size: wal_segment_size };
        finish::check_archive(self, &wal, manifest, cancel)
    }
}
