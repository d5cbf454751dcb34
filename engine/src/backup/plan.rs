//! Decides what a backup contains, and under which label, before anything is stored.

use std::sync::Arc;

use repo_format::label::BackupLabel;
use repo_format::manifest::{Manifest, ManifestData};

use super::block_size::BlockSizes;
use super::draft::Draft;
use super::source::{BackupSource, Start};
use super::unfinished::Unfinished;
use super::{Backup, build, incr, label, names, resume};
use crate::cancel::CancelToken;
use crate::pg::data_dir::ScanOptions;
use crate::repo::info_files;
use crate::{ErrorCode, Result};

/// What is known when the backup begins.
pub(super) struct Begin<'a> {
    pub(super) start: &'a Start,
    /// When the backup began, in seconds since the epoch.
    pub(super) timestamp: i64,
    /// Whether pages are checked.
    pub(super) checksum_page: bool,
    pub(super) catalog_version: u32,
}

impl Backup<'_> {
    /// Lists the data directory, reuses what the prior or an interrupted backup has, and marks the backup's directory.
    pub(super) fn plan(
        &self,
        source: &mut BackupSource,
        begin: &Begin<'_>,
        prior: Option<Manifest>,
        cancel: &CancelToken,
    ) -> Result<Draft> {
        let mut draft = self.scan(source, begin)?;
        match &prior {
            Some(prior) => {
                draft.manifest.format = prior.format;
                incr::merge(&mut draft, prior, begin.start.wal_segment.as_ref())?;
                draft.manifest.cipher_pass = prior.cipher_pass.clone();
            }
            None => {
                draft.manifest.format = self.format;
                draft.manifest.cipher_pass = info_files::generate_passphrase(self.repo, self.format)?;
            }
        }
        // The prior manifest can be as large as the new one and is no longer needed
        drop(prior);
        self.choose_label(source, &mut draft, cancel)?;
        names::check(&*self.repo.storage, self.stanza, self.settings.bundle, &draft)?;
        self.claim.mark(&draft.manifest.data.label)?;
        Ok(draft)
    }

    /// Lists the data directory and waits until later changes get a later time.
    fn scan(&self, source: &mut BackupSource, begin: &Begin<'_>) -> Result<Draft> {
        let &Begin { start, timestamp: timestamp_start, checksum_page, catalog_version } = begin;
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
    fn choose_label(&self, source: &mut BackupSource, draft: &mut Draft, cancel: &CancelToken) -> Result<()> {
        let storage = &*self.repo.storage;
        let resume = |source: &mut BackupSource, draft: &mut Draft| {
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
}
