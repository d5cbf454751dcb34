//! What a backup is asked to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use repo_format::backup_info::BackupEntry;
use repo_format::compress::Compression;
use repo_format::label::{BackupLabel, BackupType};

use super::phases::PhaseFigures;
use crate::log::Warnings;
use crate::pg::PgHost;
use crate::throttle::EaseSettings;

/// Where an online backup copies files from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyChoice {
    /// From the primary.
    Never,
    /// From a standby if one can be reached, otherwise from the primary with a warning.
    Prefer,
    /// From a standby. Without one the backup fails.
    Always,
}

/// Bundling of small files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleSettings {
    /// Bytes of files after which a bundle is complete.
    pub size: u64,
    /// Files larger than this, in bytes, are stored on their own.
    pub limit: u64,
}

/// Block incremental storage. A list that is not empty replaces the built-in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSettings {
    /// Bytes of a super block in a full backup.
    pub super_full: u64,
    /// Bytes of a super block in other backups.
    pub super_other: u64,
    /// Minimum file size and block size, both in bytes.
    pub size_map: Vec<(u64, u64)>,
    /// Minimum file age in days and the factor for the block size; 0 means no blocks.
    pub age_map: Vec<(u32, u32)>,
    /// Minimum block size and checksum size, both in bytes.
    pub checksum_size_map: Vec<(u64, u8)>,
}

/// What a backup is asked to do. [`BackupRequest::new`] sets pgBackRest's defaults.
#[derive(Clone, Debug)]
pub struct BackupRequest {
    /// The type. It becomes full if there is no prior backup.
    pub kind: BackupType,
    /// Whether PostgreSQL is running and is told about the backup.
    pub online: bool,
    /// Continue offline although PostgreSQL seems to be running.
    pub force: bool,
    /// The hosts of the clusters. Offline, the first cluster is copied.
    pub pg: Vec<Arc<dyn PgHost>>,
    /// Whether to copy from a standby.
    pub standby: StandbyChoice,
    /// Start with an immediate checkpoint.
    pub start_fast: bool,
    /// Check that the WAL of the backup is in the archive.
    pub archive_check: bool,
    /// Refuse `archive_mode=always`.
    pub archive_mode_check: bool,
    /// Copy the WAL into the backup.
    pub archive_copy: bool,
    /// How long to wait for one segment.
    pub archive_timeout: Duration,
    /// Compression of files.
    pub compression: Compression,
    /// The compression level between hosts, which the manifest records.
    pub compress_level_network: u32,
    /// Check page checksums; `None` decides by the cluster.
    pub checksum_page: Option<bool>,
    /// Fail on an invalid page instead of logging a warning.
    pub checksum_page_error: bool,
    /// Check page headers too.
    pub page_header_check: bool,
    /// Detect changed files by checksum.
    pub delta: bool,
    /// Resume an interrupted full backup.
    pub resume: bool,
    /// Hard-link unchanged files.
    pub hardlink: bool,
    /// Bundle small files.
    pub bundle: Option<BundleSettings>,
    /// Store changed blocks only. Requires bundles.
    pub block: Option<BlockSettings>,
    /// Paths to exclude.
    pub exclude: Vec<String>,
    /// Annotations of the backup. Those with an empty value are dropped.
    pub annotation: BTreeMap<String, String>,
    /// Number of workers.
    pub process_max: u32,
    /// Buffer size in bytes, which the manifest records. Unchanged files whose stored form fits are detected early.
    pub buffer_size: u64,
    /// Bytes copied after which the manifest is saved for resume.
    pub manifest_save_threshold: u64,
    /// How often a failed job is retried.
    pub job_retry: u32,
    /// The pause before each retry except the first.
    pub job_retry_interval: Duration,
    /// When to slow down, because the server of a cluster on this host has too much to do.
    pub ease: EaseSettings,
}

impl BackupRequest {
    /// An online, incremental backup of this cluster.
    pub fn new(pg: impl Into<Arc<dyn PgHost>>) -> Self {
        BackupRequest {
            kind: BackupType::Incr,
            online: true,
            force: false,
            pg: vec![pg.into()],
            standby: StandbyChoice::Never,
            start_fast: false,
            archive_check: true,
            archive_mode_check: true,
            archive_copy: false,
            archive_timeout: Duration::from_secs(60),
            compression: Compression::default(),
            compress_level_network: 1,
            checksum_page: None,
            checksum_page_error: false,
            page_header_check: true,
            delta: false,
            resume: true,
            hardlink: false,
            bundle: None,
            block: None,
            exclude: Vec::new(),
            annotation: BTreeMap::new(),
            process_max: 1,
            buffer_size: 1 << 20,
            manifest_save_threshold: 1 << 30,
            job_retry: 2,
            job_retry_interval: Duration::from_secs(15),
            ease: EaseSettings::default(),
        }
    }

    /// Makes a backup of this type.
    #[must_use]
    pub fn kind(self, kind: BackupType) -> Self {
        BackupRequest { kind, ..self }
    }

    /// Compresses files this way.
    #[must_use]
    pub fn compression(self, compression: Compression) -> Self {
        BackupRequest { compression, ..self }
    }

    /// Copies with so many workers.
    #[must_use]
    pub fn process_max(self, process_max: u32) -> Self {
        BackupRequest { process_max, ..self }
    }

    /// Starts with an immediate checkpoint.
    #[must_use]
    pub fn start_fast(self) -> Self {
        BackupRequest { start_fast: true, ..self }
    }
}

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupSummary {
    /// The repository that contains it.
    pub repo_key: u32,
    /// Its label.
    pub label: BackupLabel,
    /// What backup.info records: type, prior backup, sizes, WAL range, times.
    pub entry: BackupEntry,
    /// Number of files, including those that earlier backups store.
    pub files: usize,
    /// Number of files with invalid pages.
    pub page_errors: u32,
    /// How long each phase took, in their order.
    pub phases: Vec<PhaseFigures>,
    /// The warnings that were logged.
    pub warnings: Warnings,
    /// How long it took.
    pub duration: Duration,
}
