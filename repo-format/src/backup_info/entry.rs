//! A backup's entry in backup.info.

use std::collections::BTreeMap;

use crate::json::{ObjectWriter, Reader, check_key};
use crate::label::{BackupLabel, BackupType};
use crate::manifest::Manifest;
use crate::wal_name::WalSegment;
use crate::{Error, ErrorCode, Result, compress::CompressType};

/// What backup.info records about a backup. Sizes are in bytes, times in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupEntry {
    /// The repository format of the backup.
    pub backrest_format: u32,
    /// The version that made the backup.
    pub backrest_version: String,
    /// The operator's annotations.
    pub annotation: BTreeMap<String, String>,
    /// The first WAL segment that the backup needs; `None` for an offline backup.
    pub archive_start: Option<WalSegment>,
    /// The last WAL segment that the backup needs.
    pub archive_stop: Option<WalSegment>,
    /// Whether invalid pages were found; `None` if the backup is older than this flag.
    pub error: Option<bool>,
    /// The stored size of all files of the backup.
    pub repo_size: u64,
    /// The stored size of the files that the backup itself holds.
    pub repo_size_delta: u64,
    /// The size of all block maps, if the backup is block incremental.
    pub repo_size_map: Option<u64>,
    /// The size of the block maps that the backup itself stores, set together with `repo_size_map`.
    pub repo_size_map_delta: Option<u64>,
    /// The size of all files.
    pub size: u64,
    /// The size of the files that the backup itself holds.
    pub size_delta: u64,
    /// The LSN of the start, as PostgreSQL wrote it.
    pub lsn_start: Option<String>,
    /// The LSN of the stop, as PostgreSQL wrote it.
    pub lsn_stop: Option<String>,
    /// The backup that this one is based on.
    pub prior: Option<BackupLabel>,
    /// The backups that contain files of this one, ascending, without this one; empty for a full backup.
    pub reference: Vec<BackupLabel>,
    /// When the backup started.
    pub timestamp_start: i64,
    /// When the backup stopped.
    pub timestamp_stop: i64,
    /// The type.
    pub backup_type: BackupType,
    /// The number of the cluster in the history.
    pub pg_id: u32,
    /// Whether the backup waited for its WAL.
    pub option_archive_check: bool,
    /// Whether the backup contains a copy of its WAL.
    pub option_archive_copy: bool,
    /// Whether files came from a standby.
    pub option_backup_standby: bool,
    /// Whether page checksums were checked.
    pub option_checksum_page: bool,
    /// Whether files are compressed.
    pub option_compress: bool,
    /// Whether unchanged files are hard links.
    pub option_hardlink: bool,
    /// Whether the cluster was running.
    pub option_online: bool,
}

impl BackupEntry {
    /// Creates the entry of a finished backup.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the sum of the sizes exceeds 64 bits.
    pub fn from_manifest(manifest: &Manifest) -> Result<Self> {
        let data = &manifest.data;
        let sum = |own: bool, size: fn(&crate::manifest::ManifestFile) -> u64| {
            let files = manifest.files.iter().filter(|file| !own || file.reference.is_none());
            files
                .map(size)
                .try_fold(0u64, u64::checked_add)
                .ok_or_else(|| Error::new(ErrorCode::Format, format!("sizes in backup '{}' are too large", data.label)))
        };
        let map_size = |file: &crate::manifest::ManifestFile| file.block.map_or(0, |block| block.map_size);
        let mut reference = Vec::new();
        if data.backup_type != BackupType::Full {
            // Manifests that are older than the list of references yield it in the order of their files
            reference.extend(manifest.references.iter().filter(|label| **label != data.label).cloned());
            reference.sort();
        }
        Ok(BackupEntry {
            backrest_format: manifest.format.number(),
            backrest_version: manifest.backrest_version.clone(),
            annotation: manifest.annotation.clone(),
            archive_start: data.archive_start,
            archive_stop: data.archive_stop,
            error: Some(manifest.files.iter().any(|file| file.page_check.as_ref().is_some_and(|check| !check.valid))),
            repo_size: sum(false, |file| file.repo_bytes())?,
            repo_size_delta: sum(true, |file| file.repo_bytes())?,
            repo_size_map: if data.block_incr { Some(sum(false, map_size)?) } else { None },
            repo_size_map_delta: if data.block_incr { Some(sum(true, map_size)?) } else { None },
            size: sum(false, |file| file.size)?,
            size_delta: sum(true, |file| file.size)?,
            lsn_start: data.lsn_start.clone(),
            lsn_stop: data.lsn_stop.clone(),
            prior: if data.backup_type == BackupType::Full { None } else { data.prior.clone() },
            reference,
            timestamp_start: data.timestamp_start,
            timestamp_stop: data.timestamp_stop,
            backup_type: data.backup_type,
            pg_id: data.pg_id,
            option_archive_check: data.options.archive_check,
            option_archive_copy: data.options.archive_copy,
            option_backup_standby: data.options.backup_standby.unwrap_or(false),
            option_checksum_page: data.options.checksum_page.unwrap_or(false),
            option_compress: data.options.compress_type != CompressType::None,
            option_hardlink: data.options.hardlink,
            option_online: data.options.online,
        })
    }

    pub(super) fn read(json: &mut Reader<'_>) -> Result<Self> {
        json.object_begin()?;
        let u64 = |json: &mut Reader<'_>, key: &str| json.key_require(key).and_then(|()| json.u64());
        let u32 = |json: &mut Reader<'_>, key: &str| json.key_require(key).and_then(|()| json.u32());
        let bool = |json: &mut Reader<'_>, key: &str| json.key_require(key).and_then(|()| json.bool());
        let time = |json: &mut Reader<'_>, key: &str| json.key_require(key).and_then(|()| json.timestamp());
        let text = |json: &mut Reader<'_>, key: &str| -> Result<Option<String>> {
            if json.key_expect(key)? { Ok(json.string_or_null()?.map(Into::into)) } else { Ok(None) }
        };
        // Fields are evaluated in this order, which is the order of the keys
        Ok(BackupEntry {
            backrest_format: u32(json, "backrest-format")?,
            backrest_version: json.key_require("backrest-version").and_then(|()| json.string())?.into_owned(),
            annotation: if json.key_expect("backup-annotation")? { json.string_map()? } else { BTreeMap::new() },
            archive_start: text(json, "backup-archive-start")?.map(|name| name.parse()).transpose()?,
            archive_stop: text(json, "backup-archive-stop")?.map(|name| name.parse()).transpose()?,
            error: if json.key_expect("backup-error")? { Some(json.bool()?) } else { None },
            repo_size: u64(json, "backup-info-repo-size")?,
            repo_size_delta: u64(json, "backup-info-repo-size-delta")?,
            repo_size_map: if json.key_expect("backup-info-repo-size-map")? { Some(json.u64()?) } else { None },
            repo_size_map_delta: if json.key_expect("backup-info-repo-size-map-delta")? {
                Some(json.u64()?)
            } else {
                None
            },
            size: u64(json, "backup-info-size")?,
            size_delta: u64(json, "backup-info-size-delta")?,
            lsn_start: text(json, "backup-lsn-start")?,
            lsn_stop: text(json, "backup-lsn-stop")?,
            prior: text(json, "backup-prior")?.map(|label| label.parse()).transpose()?,
            reference: read_references(json)?,
            timestamp_start: time(json, "backup-timestamp-start")?,
            timestamp_stop: time(json, "backup-timestamp-stop")?,
            backup_type: json.key_require("backup-type").and_then(|()| json.string())?.parse()?,
            pg_id: u32(json, "db-id")?,
            option_archive_check: bool(json, "option-archive-check")?,
            option_archive_copy: bool(json, "option-archive-copy")?,
            option_backup_standby: bool(json, "option-backup-standby")?,
            option_checksum_page: bool(json, "option-checksum-page")?,
            option_compress: bool(json, "option-compress")?,
            option_hardlink: bool(json, "option-hardlink")?,
            option_online: bool(json, "option-online")?,
        })
        .and_then(|entry| {
            if entry.repo_size_map.is_some() == entry.repo_size_map_delta.is_some() {
                Ok(entry)
            } else {
                let message = "required key 'backup-info-repo-size-map-delta' not found";
                Err(Error::new(ErrorCode::JsonFormat, message))
            }
        })
    }

    pub(super) fn write(&self, json: &mut String) -> Result<()> {
        let mut object = ObjectWriter::new(json);
        object.scalar("backrest-format", self.backrest_format);
        object.string("backrest-version", &self.backrest_version);
        if !self.annotation.is_empty() {
            let mut annotation = object.object("backup-annotation");
            for (key, value) in &self.annotation {
                check_key(key)?;
                annotation.string(key, value);
            }
            annotation.end();
        }
        object.string_or_null("backup-archive-start", self.archive_start.map(|name| name.to_string()).as_deref());
        object.string_or_null("backup-archive-stop", self.archive_stop.map(|name| name.to_string()).as_deref());
        if let Some(error) = self.error {
            object.scalar("backup-error", error);
        }
        object.scalar("backup-info-repo-size", self.repo_size);
        object.scalar("backup-info-repo-size-delta", self.repo_size_delta);
        if let (Some(map), Some(delta)) = (self.repo_size_map, self.repo_size_map_delta) {
            object.scalar("backup-info-repo-size-map", map);
            object.scalar("backup-info-repo-size-map-delta", delta);
        }
        object.scalar("backup-info-size", self.size);
        object.scalar("backup-info-size-delta", self.size_delta);
        if let Some(lsn) = &self.lsn_start {
            object.string("backup-lsn-start", lsn);
        }
        if let Some(lsn) = &self.lsn_stop {
            object.string("backup-lsn-stop", lsn);
        }
        if let Some(prior) = &self.prior {
            object.plain("backup-prior", prior);
        }
        if !self.reference.is_empty() {
            let mut array = object.array("backup-reference");
            for label in &self.reference {
                array.string(label.as_str());
            }
            array.end();
        }
        object.scalar("backup-timestamp-start", self.timestamp_start);
        object.scalar("backup-timestamp-stop", self.timestamp_stop);
        object.plain("backup-type", self.backup_type);
        object.scalar("db-id", self.pg_id);
        object.scalar("option-archive-check", self.option_archive_check);
        object.scalar("option-archive-copy", self.option_archive_copy);
        object.scalar("option-backup-standby", self.option_backup_standby);
        object.scalar("option-checksum-page", self.option_checksum_page);
        object.scalar("option-compress", self.option_compress);
        object.scalar("option-hardlink", self.option_hardlink);
        object.scalar("option-online", self.option_online);
        object.end();
        Ok(())
    }
}

fn read_references(json: &mut Reader<'_>) -> Result<Vec<BackupLabel>> {
    let mut references = Vec::new();
    if json.key_expect("backup-reference")? {
        json.array_begin()?;
        while json.has_more() {
            references.push(json.string()?.parse()?);
        }
        json.array_end()?;
    }
    Ok(references)
}
