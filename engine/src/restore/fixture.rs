//! Manifests for tests.

use repo_format::hash::Sha1;
use repo_format::label::BackupType;
use repo_format::manifest::{
    Manifest, ManifestData, ManifestFile, ManifestLink, ManifestPath, OwnerId, Tablespace, Target, TargetType,
};
use repo_format::pg::PgVersion;

use super::places::Places;
use super::target_dir::TargetDir;

/// The directory of PostgreSQL 15 in a tablespace.
pub(super) const TABLESPACE_DIR: &str = "PG_15_202209061";

pub(super) fn path(name: &str) -> ManifestPath {
    ManifestPath { name: name.to_owned(), mode: 0o700, user: OwnerId::UNKNOWN, group: OwnerId::UNKNOWN }
}

pub(super) fn file(name: &str, content: &[u8]) -> ManifestFile {
    let mut file = ManifestFile::new(name, content.len() as u64, 1_700_000_000);
    file.size_repo = content.len() as u64;
    file.checksum = Some(Sha1::of(content));
    file
}

pub(super) fn link(name: &str, destination: &str) -> ManifestLink {
    ManifestLink {
        name: name.to_owned(),
        destination: destination.to_owned(),
        user: OwnerId::UNKNOWN,
        group: OwnerId::UNKNOWN,
    }
}

pub(super) fn target(name: &str, path: &str, file: Option<&str>) -> Target {
    let target_type = if name == "pg_data" { TargetType::Path } else { TargetType::Link };
    Target {
        name: name.to_owned(),
        target_type,
        path: path.to_owned(),
        file: file.map(str::to_owned),
        tablespace: None,
    }
}

/// Returns a data directory at `/old/pg` with a tablespace, a linked directory and a linked file below `/old`.
pub(super) fn manifest() -> Manifest {
    let label = "20260101-000000F".parse().unwrap();
    let mut manifest =
        Manifest::new(ManifestData::new(label, BackupType::Full, 1_700_000_000, PgVersion::V15, 202_209_061));
    manifest.targets = vec![
        target("pg_data", "/old/pg", None),
        target("pg_data/pg_hba.conf", "/old/conf", Some("hba.conf")),
        target("pg_data/pg_wal", "/old/wal", None),
        Target {
            tablespace: Some(Tablespace { id: 16384, name: "ts1".to_owned() }),
            ..target("pg_tblspc/16384", "/old/ts1", None)
        },
    ];
    manifest.links = vec![
        link("pg_data/pg_hba.conf", "/old/conf/hba.conf"),
        link("pg_data/pg_tblspc/16384", "/old/ts1"),
        link("pg_data/pg_wal", "/old/wal"),
    ];
    manifest.paths = [
        "pg_data",
        "pg_data/base",
        "pg_data/base/1",
        "pg_data/global",
        "pg_data/pg_tblspc",
        "pg_data/pg_wal",
        "pg_tblspc",
        "pg_tblspc/16384",
        "pg_tblspc/16384/PG_15_202209061",
        "pg_tblspc/16384/PG_15_202209061/1",
    ]
    .map(path)
    .to_vec();
    manifest.files = vec![
        file("pg_data/PG_VERSION", b"15\n"),
        file("pg_data/base/1/1259", b"catalog"),
        file("pg_data/base/1/2600", b""),
        file("pg_data/global/pg_control", b"control"),
        file("pg_data/pg_hba.conf", b"local all all trust"),
        file("pg_data/postgresql.auto.conf", b"# none\n"),
        file("pg_tblspc/16384/PG_15_202209061/1/3000", b"table"),
    ];
    manifest.sort();
    manifest
}

/// Opens a data directory.
pub(super) fn places(pg_path: &std::path::Path) -> Places {
    let mut places = Places::default();
    places.add_directory("pg_data", TargetDir::open(pg_path.to_str().unwrap()).unwrap());
    places
}

/// Runs a test on a thread without root's rights that owns this directory, because file modes do not restrict root.
pub(super) fn without_root<T: Send>(dir: &std::path::Path, run: impl FnOnce() -> T + Send) -> T {
    const NOBODY: u32 = 65534;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(dir, Some(NOBODY), None).unwrap();
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
            }
            run()
        });
        thread.join().unwrap()
    })
}
