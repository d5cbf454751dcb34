//! Backups of a PostgreSQL cluster.
//!
//! Source of order and messages: pgBackRest `src/command/backup/backup.c`.

mod block_size;
mod build;
mod copy;
mod directory;
mod draft;
mod finish;
mod incr;
mod label;
mod names;
pub(crate) mod phases;
mod plan;
mod queue;
mod refresh;
mod report;
mod resume;
mod saver;
mod settings;
mod shared;
mod source;
mod stop;
#[cfg(test)]
mod tests;
mod unfinished;
mod wal_copy;
mod whole;

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Instant;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupEntry;
use repo_format::cipher::{Cipher, Passphrase};
use repo_format::format::RepoFormat;
use repo_format::json;
use repo_format::layout::{self, Stanza};
use repo_format::manifest::{Manifest, ManifestFile};
use repo_format::size::format_size;

use self::copy::{Processed, Running};
use self::draft::Draft;
use self::incr::Basis;
use self::phases::PhaseClock;
pub use self::phases::{BackupPhase, PhaseFigures};
use self::plan::Begin;
pub use self::settings::{BackupRequest, BackupSummary, BlockSettings, BundleSettings, StandbyChoice};
use self::source::{BackupSource, Start};
use self::stop::Span;
use crate::cancel::CancelToken;
use crate::claim::Claim;
use crate::host_locks::HeldLocks;
use crate::repo::archive_find::WalSegmentFind;
use crate::repo::manifest_store::{CopyProgress, ManifestCopy};
use crate::repo::{Repo, info_files, manifest_store, reconstruct};
use crate::session::Session;
use crate::storage::WriteOptions;
use crate::throttle::{Pace, RateLimit};
use crate::{Result, info, log, warn};

/// Makes a backup in the first repository of the session.
///
/// The caller holds the lock of the stanza's backups on this host, and a claim on the stanza in the repository.
///
/// # Errors
/// Anything that keeps the backup from being complete. The next full backup can resume from the files that were copied.
pub(crate) fn run(request: &BackupRequest, session: &Session, held: &mut Held<'_>) -> Result<BackupSummary> {
    let started = Instant::now();
    let (made, warnings) = log::collect_warnings(|| make(request, session, held));
    let Made { manifest, entry, page_errors, phases } = made?;
    Ok(BackupSummary {
        repo_key: held.repo.key,
        files: manifest.files.len(),
        label: manifest.data.label,
        entry,
        page_errors,
        phases,
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
    phases: Vec<PhaseFigures>,
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
    let mut clock = PhaseClock::new();
    let (stanza, cancel, claim) = (session.stanza(), session.cancel_token(), held.claim);
    check_settings(request)?;
    let repo = &claim.guard(held.repo);
    let listed = || reconstruct::load_listed(repo, stanza, claim.names());
    let load_archive = || match request.archive_check {
        true => info_files::load_archive_info(repo, stanza).map(Some),
        false => Ok(None),
    };
    let (info, archive) = repo.with_ahead(listed, load_archive);
    let info = info?.info;
    info_files::check_keys(repo, &layout::backup_info(stanza), info.cipher_pass.is_some())?;
    let mut source = BackupSource::open(request, cancel)?;
    source.check_stanza(&info)?;
    let checksum_page = source.checksum_page(request.checksum_page);
    let archive = archive.unwrap_or_else(load_archive)?;
    let timestamp = source.time()?;
    let Basis { kind, compression, checksum_page, prior } =
        incr::load_prior(repo, stanza, &info, request, checksum_page)?;
    let settings = BackupRequest { kind, compression, ..request.clone() };
    clock.end(BackupPhase::Prepare);

    let start = source.start(&settings)?;
    let manifest_pass = info.cipher_pass.clone();
    let backup = Backup { settings: &settings, stanza, repo, claim, format: info.format, manifest_pass };
    if let Some(archive) = &archive {
        backup.check_first_segment(archive, &start, source.control.wal_segment_size, cancel)?;
    }
    clock.end(BackupPhase::Start);
    let begin = Begin { start: &start, timestamp, checksum_page, catalog_version: info.current().catalog_version };
    let draft = backup.plan(&mut source, &begin, prior, cancel)?;
    clock.end(BackupPhase::Plan);
    let pace = match session.pace().limit() {
        // A limit that applies only while there is too much to do
        None if settings.ease.is_set() => &Pace::new(Arc::new(RateLimit::new(None))),
        _ => session.pace(),
    };
    let running = Running { lock: held.lock, progress: session.progress(), pace, cancel };
    let Processed { mut manifest, page_errors } = backup.copy(&mut source, draft, running)?;
    clock.end(BackupPhase::Copy);

    source.ping(true)?;
    let stop = source.stop()?;
    stop::put_files(&backup, &mut manifest, &stop)?;
    clock.end(BackupPhase::Stop);
    let (standby, wal_segment_size) = (source.has_standby(), source.control.wal_segment_size);
    let span = Span { start: &start, stop: &stop, standby, wal_segment_size };
    backup.describe(&mut manifest, &info, &span);
    if let Some(archive) = &archive {
        backup.check_archive(&mut manifest, archive, &span, cancel)?;
    }
    clock.end(BackupPhase::Archive);

    info!("new backup label = {}", manifest.data.label);
    let entry = finish::complete(&backup, &manifest, &mut || source.is_alone())?;
    clock.end(BackupPhase::Save);
    info!(
        "{} backup size = {}, file total = {}",
        manifest.data.backup_type,
        format_size(entry.size_delta),
        manifest.files.len()
    );
    if page_errors > 0 {
        warn!("backup command encountered {page_errors} checksum warning(s), check the log file for details");
    }
    let wal_bytes = archive.is_some().then(|| span.wal_bytes()).flatten();
    let phases = clock.finish(&[(BackupPhase::Copy, Some(entry.size_delta)), (BackupPhase::Archive, wal_bytes)]);
    Ok(Made { manifest, entry, page_errors, phases })
}

/// Refuses settings that would otherwise fail only when the manifest is written at the end.
fn check_settings(settings: &BackupRequest) -> Result<()> {
    settings.annotation.keys().try_for_each(|key| json::check_key(key))
}

/// What the steps of a backup share.
struct Backup<'a> {
    settings: &'a BackupRequest,
    stanza: &'a Stanza,
    repo: &'a Repo,
    claim: &'a Claim,
    /// The format of new backups.
    format: RepoFormat,
    /// The passphrase of manifests.
    manifest_pass: Option<Passphrase>,
}

impl Backup<'_> {
    fn manifest_cipher(&self) -> Cipher {
        Cipher::from_passphrase(self.manifest_pass.as_ref())
    }

    /// Waits for the segment that shows that the archive works, before anything is copied.
    fn check_first_segment(
        &self,
        archive: &ArchiveInfo,
        start: &Start,
        segment_size: u32,
        cancel: &CancelToken,
    ) -> Result<()> {
        let Some(segment) = &start.wal_segment_check else { return Ok(()) };
        let before = if start.wal_segment == Some(*segment) { "" } else { "prior " };
        info!("check archive for {before}segment {segment}");
        let id = archive.current().archive_id();
        let timeout = self.settings.archive_timeout;
        let find = WalSegmentFind::new(&*self.repo.storage, self.stanza, id, timeout, cancel);
        find.with_segment_size(segment_size).find(segment, false).map(drop)
    }

    /// Copies all files of a draft and makes them durable.
    fn copy(&self, source: &mut BackupSource, draft: Draft, running: Running<'_>) -> Result<Processed> {
        let cancel = running.cancel;
        let batch = self.begin_batch(&draft)?;
        let files = draft.files.iter().map(|file| file.entry.clone());
        self.save_copy(ManifestCopy { manifest: &draft.manifest, files, progress: CopyProgress::Runs })?;
        // Whoever changes a file from here on leaves a later time than that of the copy's start
        source.wait_for_copy()?;
        let write_options = if batch.is_some() { WriteOptions::BATCH } else { WriteOptions::IN_PLACE };
        let processed = self.copy_files(source, draft, write_options, running)?;
        self.after_copy(&processed.manifest)?;
        self.make_durable(&processed.manifest, batch, cancel)?;
        Ok(processed)
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
}
