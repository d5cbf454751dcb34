//! The steps after the copy: what the server returned at the end of the backup, and its WAL.

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{Cipher, Framing};
use repo_format::hash::Sha1;
use repo_format::layout::{self, FileForm};
use repo_format::manifest::{Database, Manifest, ManifestFile, PG_DATA};
use repo_format::wal_name::WalSegment;

use super::Backup;
use super::source::{Start, Stop};
use super::wal_copy::{Wal, WalCopy, add_file};
use crate::cancel::CancelToken;
use crate::pipeline::encode::StreamEncoder;
use crate::repo::archive_find::{self, WalSegmentFind};
use crate::repo::manifest_store::CopyProgress;
use crate::storage::{self, WriteOptions};
use crate::{Error, ErrorCode, Result, detail, info};

/// The backup as the servers saw it.
pub(super) struct Span<'a> {
    pub(super) start: &'a Start,
    pub(super) stop: &'a Stop,
    /// Whether files were copied from a standby.
    pub(super) standby: bool,
    /// Bytes of a WAL segment.
    pub(super) wal_segment_size: u32,
}

impl Span<'_> {
    /// The WAL that was written meanwhile, in bytes; `None` for a backup of a stopped cluster.
    pub(super) fn wal_bytes(&self) -> Option<u64> {
        Some(self.stop.online.as_ref()?.lsn.0.saturating_sub(self.start.lsn?.0))
    }
}

impl Backup<'_> {
    /// Records how the backup was made.
    pub(super) fn describe(&self, manifest: &mut Manifest, info: &BackupInfo, span: &Span<'_>) {
        let &Span { start, stop, standby, .. } = span;
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
    pub(super) fn check_archive(
        &self,
        manifest: &mut Manifest,
        archive: &ArchiveInfo,
        span: &Span<'_>,
        cancel: &CancelToken,
    ) -> Result<()> {
        let &Span { start, stop, wal_segment_size, .. } = span;
        let (Some(start_lsn), Some(first), Some(stop)) = (start.lsn, start.wal_segment, &stop.online) else {
            return Ok(());
        };
        let last = WalSegment::from_lsn(first.timeline, stop.lsn, wal_segment_size);
        info!("check archive for segment(s) {first}:{last}");
        let id = archive.current().archive_id();
        let list = || archive_find::list_in(&*self.repo.storage, self.stanza, id, &first);
        let (saved, listed) = self.repo.with_ahead(|| self.save_copied(manifest, CopyProgress::Runs), list);
        saved?;
        let segments: Vec<WalSegment> =
            WalSegment::range(first.timeline, start_lsn, stop.lsn, wal_segment_size)?.collect();
        let wal = Wal { archive, segments: &segments, segment_size: wal_segment_size };
        let find = WalSegmentFind::new(&*self.repo.storage, self.stanza, id, self.settings.archive_timeout, cancel)
            .with_segment_size(wal_segment_size);
        self.find_wal(&wal, manifest, find.with_listed(listed.transpose()?))
    }

    /// Waits until all WAL of the backup is in the archive and, if requested, copies it into the backup.
    ///
    /// # Errors
    /// [`ErrorCode::ArchiveTimeout`] if a segment does not arrive, and errors of reading and writing.
    fn find_wal(&self, wal: &Wal<'_>, manifest: &mut Manifest, mut find: WalSegmentFind<'_>) -> Result<()> {
        let Backup { repo, stanza, settings, .. } = *self;
        let copier = WalCopy { repo, stanza, compression: settings.compression, wal };
        for segment in wal.segments {
            let Some(found) = find.find(segment, false)? else {
                let message = format!("WAL segment {segment} was not archived");
                return Err(Error::new(ErrorCode::ArchiveTimeout, message));
            };
            if settings.archive_copy {
                // Copying is slow, so each segment is logged
                detail!("copy segment {segment} to backup");
                copier.copy(manifest, segment, &found)?;
            }
        }
        Ok(())
    }
}

/// Stores the files that the server returned at the end of the backup.
///
/// # Errors
/// They can't be written.
pub(super) fn put_files(backup: &Backup<'_>, manifest: &mut Manifest, stop: &Stop) -> Result<()> {
    let Some(online) = &stop.online else { return Ok(()) };
    put_file(backup, manifest, "backup_label", stop.timestamp, online.backup_label.as_bytes())?;
    if let Some(map) = &online.tablespace_map {
        put_file(backup, manifest, "tablespace_map", stop.timestamp, map.as_bytes())?;
    }
    Ok(())
}

fn put_file(backup: &Backup<'_>, manifest: &mut Manifest, name: &str, timestamp: i64, content: &[u8]) -> Result<()> {
    let Backup { repo, stanza, settings, .. } = *backup;
    let manifest_name = format!("{PG_DATA}/{name}");
    let form = FileForm::Whole(settings.compression.kind);
    let path = layout::backup_file(stanza, &manifest.data.label, &manifest_name, form)?;
    let cipher = Cipher::from_passphrase(manifest.cipher_pass.as_ref());
    let mut encoder = StreamEncoder::new(settings.compression, &cipher, Framing::Full)?;
    let mut stored = Vec::new();
    encoder.push(content, &mut stored)?;
    encoder.finish(&mut stored)?;
    storage::put(&*repo.storage, &path, &stored, WriteOptions::ATOMIC)?;
    let file = ManifestFile {
        size_repo: stored.len() as u64,
        checksum: Some(Sha1::of(content)),
        checksum_repo: encoder.transforms().then(|| Sha1::of(&stored)),
        ..ManifestFile::new(&manifest_name, content.len() as u64, timestamp)
    };
    add_file(manifest, file);
    detail!("wrote '{name}' file returned from backup stop function");
    Ok(())
}
