//! Labels, manifests and files for the tests.

use repo_format::archive_info::ArchiveCluster;
use repo_format::cipher::Cipher;
use repo_format::hash::Sha1;
use repo_format::label::BackupLabel;
use repo_format::layout::Stanza;
use repo_format::manifest::{BlockIncr, Bundle, Manifest, ManifestData, ManifestFile};
use repo_format::pg::PgVersion;

use super::plan::{Plan, PlanSettings};

pub const FULL: &str = "20260101-000000F";
pub const DIFF: &str = "20260101-000000F_20260102-000000D";
pub const INCR: &str = "20260101-000000F_20260103-000000I";

const HISTORY: &[ArchiveCluster] = &[ArchiveCluster { id: 1, version: PgVersion::V15, system_id: 7 }];

/// A plan for a stanza with cluster 1, PostgreSQL 15.
pub fn plan(stanza: &Stanza) -> Plan<'_> {
    Plan::new(PlanSettings { stanza, archive_cipher: Cipher::None, history: HISTORY })
}

/// A stanza.
pub fn stanza() -> Stanza {
    "demo".parse().unwrap()
}

/// A manifest of cluster 1, PostgreSQL 15, with these files.
pub fn manifest(label: &str, files: impl IntoIterator<Item = ManifestFile>) -> Manifest {
    let label: BackupLabel = label.parse().unwrap();
    let backup_type = label.backup_type();
    let mut manifest = Manifest::new(ManifestData::new(label, backup_type, 1, PgVersion::V15, 1));
    (manifest.data.pg_id, manifest.data.pg_system_id) = (1, 7);
    manifest.files.extend(files);
    manifest
}

/// The same for a backup with bundles.
pub fn bundling(label: &str, files: impl IntoIterator<Item = ManifestFile>) -> Manifest {
    let mut manifest = manifest(label, files);
    manifest.data.bundle = true;
    manifest
}

/// A file of 10 bytes that is stored as it is.
pub fn plain(name: &str) -> ManifestFile {
    ManifestFile {
        checksum: Some(Sha1::of(b"x")),
        checksum_repo: Some(Sha1::of(b"x")),
        ..ManifestFile::new(name, 10, 1)
    }
}

/// An empty file.
pub fn empty(name: &str) -> ManifestFile {
    ManifestFile { checksum: Some(Sha1::of(b"")), ..ManifestFile::new(name, 0, 1) }
}

/// A file that is stored in blocks.
pub fn block(name: &str) -> ManifestFile {
    ManifestFile { block: Some(BlockIncr { size: 8192, checksum_size: 6, map_size: 5 }), ..plain(name) }
}

/// The same file in a bundle.
pub fn in_bundle(file: ManifestFile, id: u64, offset: u64) -> ManifestFile {
    ManifestFile { bundle: Bundle::new(id, offset), ..file }
}

/// The same file in another backup, an index into the references.
pub fn in_backup(file: ManifestFile, reference: u32) -> ManifestFile {
    ManifestFile { reference: Some(reference), ..file }
}
