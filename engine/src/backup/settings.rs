//! What a backup is asked to do.

use std::collections::BTreeMap;
use std::time::Duration;

use repo_format::compress::Compression;
use repo_format::label::BackupType;
use repo_format::layout::Stanza;
use repo_format::pg::PgVersion;

use crate::pg::PgSettings;

/// Where the files of an online backup are copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyChoice {
    /// From the primary.
    Never,
    /// From a standby where one can be reached, otherwise from the primary with a warning.
    Prefer,
    /// From a standby; without one the backup fails.
    Always,
}

/// Small files stored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleSettings {
    /// Bytes of files after which a bundle is complete.
    pub size: u64,
    /// Files larger than this, in bytes, are stored alone.
    pub limit: u64,
}

/// Block incremental storage. A list that is not empty replaces the built-in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSettings {
    /// Bytes of a super block in a full backup.
    pub super_full: u64,
    /// Bytes of a super block in other backups.
    pub super_other: u64,
    /// File size in bytes and the block size in bytes from that size on.
    pub size_map: Vec<(u64, u64)>,
    /// File age in days and what the block size is multiplied with from that age on; 0 for no blocks.
    pub age_map: Vec<(u32, u32)>,
    /// Block size in bytes and the checksum size in bytes from that size on.
    pub checksum_size_map: Vec<(u64, u8)>,
}

/// What a backup is asked to do.
#[derive(Clone, Debug)]
pub struct BackupSettings {
    /// The stanza.
    pub stanza: Stanza,
    /// The type; changed to full where there is no prior backup.
    pub kind: BackupType,
    /// PostgreSQL runs and is told of the backup.
    pub online: bool,
    /// Go on offline though PostgreSQL seems to run.
    pub force: bool,
    /// The clusters; offline the first one is copied.
    pub pg: Vec<PgSettings>,
    /// Take the version of the cluster as given, not from `pg_control`.
    pub version_force: Option<PgVersion>,
    /// Copy from a standby.
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
    /// Compression level between hosts, which the manifest records.
    pub compress_level_network: u32,
    /// Check page checksums; `None` decides by the cluster.
    pub checksum_page: Option<bool>,
    /// Fail when a page is wrong, instead of a warning.
    pub checksum_page_error: bool,
    /// Check page headers too.
    pub page_header_check: bool,
    /// Find changed files by checksum.
    pub delta: bool,
    /// Go on with an interrupted full backup.
    pub resume: bool,
    /// Hard-link unchanged files.
    pub hardlink: bool,
    /// Store small files together.
    pub bundle: Option<BundleSettings>,
    /// Store parts of files; only with bundles.
    pub block: Option<BlockSettings>,
    /// Paths to leave out.
    pub exclude: Vec<String>,
    /// Notes for the backup; those with an empty value are not kept.
    pub annotation: BTreeMap<String, String>,
    /// Workers.
    pub process_max: u32,
    /// Buffer size in bytes, which the manifest records; unchanged files whose stored form fits it are noticed early.
    pub buffer_size: u64,
    /// Bytes copied after which the manifest is saved for resume.
    pub manifest_save_threshold: u64,
    /// How often a failed job is tried again.
    pub job_retry: u32,
    /// How long to wait before each retry but the first.
    pub job_retry_interval: Duration,
}
