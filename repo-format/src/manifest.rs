//! backup.manifest: every file, directory and link of a backup, and how the backup was made.
//!
//! Source: pgBackRest `src/info/manifest/manifest.c`, `src/info/manifest/serialize.c.inc`.

mod file;
mod owner;
mod read;
#[cfg(test)]
mod tests;
mod validate;
mod write;

use std::collections::BTreeMap;

pub use file::{BlockIncr, Bundle, ManifestFile, PageCheck, PageRange};
pub use owner::{OwnerId, OwnerTable};
pub use validate::check_name;

use crate::BACKREST_VERSION;
use crate::cipher::Passphrase;
use crate::compress::CompressType;
use crate::format::RepoFormat;
use crate::label::{BackupLabel, BackupType};
use crate::pg::PgVersion;
use crate::wal_name::WalSegment;

/// The manifest name of the data directory, and the first component of the names of everything in it.
pub const PG_DATA: &str = "pg_data";
/// The first component of the names of tablespaces and everything in them.
pub const PG_TBLSPC: &str = "pg_tblspc";

/// The factor between a block size in bytes and its number in the file.
pub const BLOCK_SIZE_FACTOR: u32 = 8192;
/// The size in bytes of a block's checksum if the file does not specify it.
pub const BLOCK_CHECKSUM_SIZE_DEFAULT: u8 = 6;

/// The facts of a backup as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestData {
    /// The backup's own label.
    pub label: BackupLabel,
    /// The type.
    pub backup_type: BackupType,
    /// The backup that a differential or incremental backup is based on.
    pub prior: Option<BackupLabel>,
    /// When the backup started, in seconds since 1970.
    pub timestamp_start: i64,
    /// The second after which files were copied.
    pub timestamp_copy_start: i64,
    /// When the backup stopped; 0 until then.
    pub timestamp_stop: i64,
    /// The first WAL segment that the backup needs; `None` for an offline backup.
    pub archive_start: Option<WalSegment>,
    /// The last WAL segment that the backup needs.
    pub archive_stop: Option<WalSegment>,
    /// The LSN of the start, as PostgreSQL wrote it. From version 19 on PostgreSQL pads it with zeros, so the text is
    /// kept.
    pub lsn_start: Option<String>,
    /// The LSN of the stop, as PostgreSQL wrote it.
    pub lsn_stop: Option<String>,
    /// Whether small files are bundled.
    pub bundle: bool,
    /// Whether bundled files are compressed and encrypted without headers.
    pub bundle_raw: bool,
    /// Whether files may be stored in blocks.
    pub block_incr: bool,
    /// The number of the cluster in the stanza's history; 0 if it is not known yet.
    pub pg_id: u32,
    /// PostgreSQL's version.
    pub pg_version: PgVersion,
    /// The cluster's system identifier; 0 if it is not known yet.
    pub pg_system_id: u64,
    /// The cluster's catalog version.
    pub pg_catalog_version: u32,
    /// The options that the backup was made with.
    pub options: ManifestOptions,
}

impl ManifestData {
    /// Creates the data of a backup that is about to start. Everything that is not passed is unset.
    pub fn new(
        label: BackupLabel,
        backup_type: BackupType,
        timestamp_start: i64,
        pg_version: PgVersion,
        pg_catalog_version: u32,
    ) -> Self {
        ManifestData {
            label,
            backup_type,
            prior: None,
            timestamp_start,
            timestamp_copy_start: 0,
            timestamp_stop: 0,
            archive_start: None,
            archive_stop: None,
            lsn_start: None,
            lsn_stop: None,
            bundle: false,
            bundle_raw: false,
            block_incr: false,
            pg_id: 0,
            pg_version,
            pg_system_id: 0,
            pg_catalog_version,
            options: ManifestOptions::default(),
        }
    }
}

/// The options of a backup. An option is `None` if it is not known yet (in a partial manifest), or if the manifest is
/// older than the option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestOptions {
    /// Whether the backup waited for its WAL.
    pub archive_check: bool,
    /// Whether the backup contains a copy of its WAL.
    pub archive_copy: bool,
    /// Whether files came from a standby.
    pub backup_standby: Option<bool>,
    /// The buffer size in bytes.
    pub buffer_size: Option<u32>,
    /// Whether page checksums were checked.
    pub checksum_page: Option<bool>,
    /// The compression.
    pub compress_type: CompressType,
    /// The compression level. Negative levels are stored as unsigned 32-bit numbers.
    pub compress_level: Option<u32>,
    /// The compression level between hosts, stored in the same way.
    pub compress_level_network: Option<u32>,
    /// Whether files were compared by checksum instead of time and size.
    pub delta: Option<bool>,
    /// Whether unchanged files are hard links.
    pub hardlink: bool,
    /// Whether the cluster was running.
    pub online: bool,
    /// The number of workers.
    pub process_max: Option<u32>,
}

impl Default for ManifestOptions {
    /// Nothing known, nothing enabled, no compression.
    fn default() -> Self {
        ManifestOptions {
            archive_check: false,
            archive_copy: false,
            backup_standby: None,
            buffer_size: None,
            checksum_page: None,
            compress_type: CompressType::None,
            compress_level: None,
            compress_level_network: None,
            delta: None,
            hardlink: false,
            online: false,
            process_max: None,
        }
    }
}

/// Whether a target is the data directory or the destination of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetType {
    /// The data directory.
    Path,
    /// A link's destination.
    Link,
}

/// A location that contains files of the backup: the data directory, a tablespace, or the destination of another link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `pg_data`, `pg_data/<path of the link>` or `pg_tblspc/<oid>`.
    pub name: String,
    /// The kind.
    pub target_type: TargetType,
    /// The directory: absolute for the data directory, otherwise as written in the link.
    pub path: String,
    /// The file's name when the link points to a file in `path`.
    pub file: Option<String>,
    /// The tablespace, if it is one.
    pub tablespace: Option<Tablespace>,
}

/// A tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// The oid, at least 1.
    pub id: u32,
    /// The name; `ts<oid>` in offline backups.
    pub name: String,
}

/// A database of an online backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// The name.
    pub name: String,
    /// The oid.
    pub id: u32,
    /// The oid of `template0`, kept because the format has it.
    pub last_system_id: u32,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestLink {
    /// The manifest name, below `pg_data`.
    pub name: String,
    /// The destination as the link has it.
    pub destination: String,
    /// The owner.
    pub user: OwnerId,
    /// The group.
    pub group: OwnerId,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPath {
    /// The manifest name.
    pub name: String,
    /// The permission bits.
    pub mode: u16,
    /// The owner.
    pub user: OwnerId,
    /// The group.
    pub group: OwnerId,
}

/// The manifest of one backup. All lists are sorted by the bytes of their names ([`Manifest::sort`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The format of the backup.
    pub format: RepoFormat,
    /// The version that wrote the file.
    pub backrest_version: String,
    /// The backup as a whole.
    pub data: ManifestData,
    /// The passphrase of the backup's files.
    pub cipher_pass: Option<Passphrase>,
    /// Where the files came from. A manifest that was read always contains the data directory.
    pub targets: Vec<Target>,
    /// The databases. Only online backups have them.
    pub databases: Vec<Database>,
    /// The operator's annotations.
    pub annotation: BTreeMap<String, String>,
    /// The files.
    pub files: Vec<ManifestFile>,
    /// The links.
    pub links: Vec<ManifestLink>,
    /// The directories.
    pub paths: Vec<ManifestPath>,
    /// The backups that contain files of this one, oldest first, with its own label last. Block maps store indexes into
    /// this list, so its order never changes within a set.
    pub references: Vec<BackupLabel>,
    /// The names of the owners of files, links and directories.
    pub owners: OwnerTable,
}

impl Manifest {
    /// Creates a manifest of format 5 without files that refers only to its own backup.
    pub fn new(data: ManifestData) -> Self {
        Manifest {
            format: RepoFormat::V5,
            backrest_version: BACKREST_VERSION.to_owned(),
            references: vec![data.label.clone()],
            data,
            cipher_pass: None,
            targets: Vec::new(),
            databases: Vec::new(),
            annotation: BTreeMap::new(),
            files: Vec::new(),
            links: Vec::new(),
            paths: Vec::new(),
            owners: OwnerTable::default(),
        }
    }

    /// Sorts every list by name.
    pub fn sort(&mut self) {
        self.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.links.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.paths.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.targets.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.databases.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }

    /// Returns the file with this manifest name. The files must be sorted, as they are after reading.
    pub fn file(&self, name: &str) -> Option<&ManifestFile> {
        let index = self.files.binary_search_by(|file| (*file.name).cmp(name)).ok()?;
        self.files.get(index)
    }

    /// The file with this manifest name, to be changed.
    pub fn file_mut(&mut self, name: &str) -> Option<&mut ManifestFile> {
        let index = self.files.binary_search_by(|file| (*file.name).cmp(name)).ok()?;
        self.files.get_mut(index)
    }

    /// The link with this manifest name.
    pub fn link(&self, name: &str) -> Option<&ManifestLink> {
        let index = self.links.binary_search_by(|link| link.name.as_str().cmp(name)).ok()?;
        self.links.get(index)
    }

    /// The directory with this manifest name.
    pub fn path(&self, name: &str) -> Option<&ManifestPath> {
        let index = self.paths.binary_search_by(|path| path.name.as_str().cmp(name)).ok()?;
        self.paths.get(index)
    }

    /// The target with this name.
    pub fn target(&self, name: &str) -> Option<&Target> {
        let index = self.targets.binary_search_by(|target| target.name.as_str().cmp(name)).ok()?;
        self.targets.get(index)
    }

    /// Returns the data directory's target, which every manifest that was read has.
    pub fn base_target(&self) -> Option<&Target> {
        self.target(PG_DATA)
    }

    /// The data directory's entry among the directories.
    pub fn base_path(&self) -> Option<&ManifestPath> {
        self.path(PG_DATA)
    }

    /// Returns the label of the backup that contains the file's bytes: the one that the file refers to, or this backup.
    pub fn holder(&self, file: &ManifestFile) -> &BackupLabel {
        file.reference.and_then(|index| self.references.get(index as usize)).unwrap_or(&self.data.label)
    }
}

/// Returns the path below the data directory for this manifest name. Names in `pg_data` lose that part. Names of
/// tablespaces lead through the links in the data directory's `pg_tblspc`.
pub fn pg_path(name: &str) -> &str {
    match name.strip_prefix(PG_DATA) {
        Some("") => "",
        Some(rest) => rest.strip_prefix('/').unwrap_or(name),
        None => name,
    }
}
