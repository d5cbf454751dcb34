//! Data directories that tests copy: a copy takes a tenth of the time of initdb and of filling tables.
//!
//! They are in the folder that cargo keeps for tests, so later runs find them. Each copy gets a system identifier of its
//! own, as if initdb had made it.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cluster::{Cluster, Shutdown};
use super::oracle::Oracles;
use super::space::Space;

/// Where the system identifier is in the header of a segment's first page.
const IDENTIFIER_IN_WAL: std::ops::Range<usize> = 24..32;
/// The part of the control file that the server reads.
const CONTROL_DATA_SIZE: usize = 512;

/// What a data directory is made with.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Template<'a> {
    pub version: u32,
    /// Arguments of initdb, besides the usual ones.
    pub initdb: &'a [&'a str],
    /// Statements that fill the database `postgres`.
    pub sql: Option<&'a str>,
}

impl Template<'_> {
    /// Makes the data directory `name` in `space` by copying the template, which is made first if there is none.
    pub fn copy(&self, space: &Space, oracles: &'static Oracles, name: &str) {
        let template = self.made(oracles);
        let data = space.path(name);
        copy_folder(&template, &data);
        give_identifier(&data);
    }

    /// Returns the path of the template.
    fn made(&self, oracles: &'static Oracles) -> PathBuf {
        // One at a time is made. Another process may make the same
        static MAKING: Mutex<()> = Mutex::new(());
        let path = self.path(oracles);
        if !path.is_dir() {
            let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
            if !path.is_dir() {
                self.make(oracles, &path);
            }
        }
        path
    }

    /// The path says what the template is made with, and by which server and user.
    fn path(&self, oracles: &Oracles) -> PathBuf {
        let server = oracles.postgres[&self.version].join("postgres");
        let installed = fs::metadata(&server).and_then(|file| file.modified()).expect("server");
        let mut hasher = DefaultHasher::new();
        (self, server, installed, super::user::User::for_tests().uid).hash(&mut hasher);
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pg{}-{:016x}", self.version, hasher.finish()))
    }

    fn make(&self, oracles: &'static Oracles, path: &Path) {
        let space = Arc::new(Space::new());
        let mut cluster = Cluster::initialise(&space, oracles, self.version, "pg", self.initdb);
        let settings = fs::read(cluster.data().join("postgresql.conf")).expect("settings");
        if let Some(sql) = self.sql {
            cluster.append_settings(&["archive_mode = off".to_owned()]);
            cluster.start();
            cluster.sql(sql);
            cluster.stop(Shutdown::Fast);
        }
        fs::write(cluster.data().join("postgresql.conf"), settings).expect("settings");
        // Complete under its name at once. The user of the tests can't write there
        let unfinished = path.with_extension(std::process::id().to_string());
        copy_folder(&cluster.data(), &unfinished);
        if fs::rename(&unfinished, path).is_err() {
            assert!(path.is_dir(), "{}", path.display());
            fs::remove_dir_all(&unfinished).expect("another process has made the template");
        }
    }
}

/// Copies a folder with owners and modes, in a process that needs no rights in the folders above.
fn copy_folder(from: &Path, to: &Path) {
    let run = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).output().expect("cp");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// Gives a data directory a new system identifier: in the control file and in the first page of each segment.
fn give_identifier(data: &Path) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("time");
    let unique = u64::from(std::process::id()) << 12 | u64::from(NUMBER.fetch_add(1, Ordering::Relaxed) & 0xFFF);
    let identifier = (now.as_secs() << 32 | unique & 0xFFFF_FFFF).to_le_bytes();

    let path = data.join("global/pg_control");
    let mut control = fs::read(&path).expect("control file");
    let before: [u8; 8] = control[..8].try_into().expect("eight bytes");
    // The checksum covers everything before it. Its place depends on the version
    let is_checksum = |at: &usize| control[*at..at + 4] == crc32c::crc32c(&control[..*at]).to_le_bytes();
    let at = (8..CONTROL_DATA_SIZE).step_by(4).find(is_checksum).expect("checksum of the control file");
    control[..8].copy_from_slice(&identifier);
    let checksum = crc32c::crc32c(&control[..at]).to_le_bytes();
    control[at..at + 4].copy_from_slice(&checksum);
    overwrite(&path, 0, &control);

    for entry in fs::read_dir(data.join("pg_wal")).expect("WAL").flatten() {
        let is_segment = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_segment && identifier_of_segment(&entry.path()) == before {
            overwrite(&entry.path(), IDENTIFIER_IN_WAL.start as u64, &identifier);
        }
    }
}

fn identifier_of_segment(path: &Path) -> [u8; 8] {
    use std::os::unix::fs::FileExt;
    let mut found = [0; 8];
    let file = fs::File::open(path).expect("segment");
    file.read_exact_at(&mut found, IDENTIFIER_IN_WAL.start as u64).expect("segment");
    found
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(path).expect("open");
    file.write_all_at(bytes, offset).expect("write");
}
