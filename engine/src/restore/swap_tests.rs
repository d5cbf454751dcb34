//! Tests restores while somebody who can write to the data directory replaces its directories with links.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use repo_format::cipher::Cipher;
use repo_format::compress::CompressType;
use repo_format::layout::{self, FileForm, Stanza};
use repo_format::manifest::Manifest;
use rustix::fs::{AtFlags, Mode, OFlags, renameat, symlinkat, unlinkat};

use super::build;
use super::clean::CleanSettings;
use super::file::FileContext;
use super::fixture::{self, TABLESPACE_DIR};
use super::ownership::{Owner, Ownership};
use super::queue::RestoreJob;
use super::sync::SyncSet;
use super::target_dir::WITHOUT_OPENAT2;
use crate::pipeline::restore::RestorePipeline;
use crate::storage::memory::MemoryStorage;
use crate::storage::{WriteOptions, put};
use crate::users::Users;
use crate::work::turn::Turn;
use crate::{CancelToken, Result};

/// The minimum number of restores while links are put in place.
const RESTORES: usize = 50;

/// Returns everything about the files of a directory that a restore could change.
fn state(dir: &Path) -> Vec<String> {
    let mut state = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        let content = if metadata.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        let facts = (metadata.mode(), metadata.uid(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        state.push(format!("{} {facts:?} {content}", path.display()));
        if metadata.is_dir() {
            state.extend(self::state(&path));
        }
    }
    state.sort();
    state
}

/// Returns a manifest with one target, and a repository with its files.
fn backup(pg_path: &str) -> (Manifest, MemoryStorage, Stanza) {
    let mut manifest = fixture::manifest();
    manifest.links.clear();
    manifest.targets.retain(|target| target.name == "pg_data");
    pg_path.clone_into(&mut manifest.targets[0].path);
    manifest.paths.retain(|path| !path.name.starts_with("pg_tblspc"));
    manifest.files.retain(|file| !file.name.starts_with("pg_tblspc"));
    let stanza: Stanza = "demo".parse().unwrap();
    let storage = MemoryStorage::new();
    let contents = ["15\n", "catalog", "", "control", "local all all trust", "# none\n"];
    for (file, content) in manifest.files.iter().zip(contents) {
        let form = FileForm::Whole(CompressType::None);
        let path = layout::backup_file(&stanza, &manifest.data.label, &file.name, form).unwrap();
        put(&storage, &path, content.as_bytes(), WriteOptions::ATOMIC).unwrap();
    }
    (manifest, storage, stanza)
}

/// Runs the steps of a restore that write.
fn restore(manifest: &Manifest, storage: &MemoryStorage, stanza: &Stanza, pg_path: &str, delta: bool) -> Result<()> {
    let current = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    // As root the restore gives everything to another user
    let other = Owner { uid: 12345, gid: 12345 };
    let ownership = Ownership::new(manifest, &Users::new(), current, Some(other));
    let clean = CleanSettings { pg_path, delta: true, keep: &[], tablespace_dir: TABLESPACE_DIR };
    let mut places = build::open_data_dir(manifest, &ownership, &clean)?;
    build::build(manifest, &ownership, &clean, &mut places)?;
    let file_systems = SyncSet::open(manifest, &places, pg_path)?;
    let context = FileContext {
        manifest,
        storage,
        stanza,
        pg_path,
        places: &places,
        file_systems: Some(&file_systems),
        ownership: &ownership,
        zero: None,
        delta,
        delta_by_time: false,
        page_cache: None,
        cipher: Cipher::None,
    };
    let job = RestoreJob { files: (0..manifest.files.len() as u32).collect(), size: 0 };
    let mut pipeline = RestorePipeline::new(Cipher::None, CompressType::None, &Turn::FREE);
    context.restore(&mut pipeline, &job, None, &CancelToken::new())?;
    file_systems.sync(1, "")?;
    build::take_rights(manifest, &places)
}

/// Replaces an entry of the data directory, or of one of its directories, with a link to `outside`, and restores the
/// entry, again and again. It uses handles, so that this function itself changes nothing outside.
fn swap(pg: &Path, place: &str, outside: &Path, done: &AtomicBool) {
    let (parent, name) = place.rsplit_once('/').unwrap_or((".", place));
    let aside = format!("{name}.aside");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    while !done.load(Ordering::Relaxed) {
        let Ok(parent) = rustix::fs::open(pg.join(parent), flags, Mode::empty()) else { continue };
        if renameat(&parent, name, &parent, &aside).is_ok() {
            let _ = symlinkat(outside, &parent, name);
            std::thread::yield_now();
            let _ = unlinkat(&parent, name, AtFlags::empty());
            let _ = renameat(&parent, &aside, &parent, name);
        }
    }
}

#[test]
fn restore_writes_nothing_outside_while_its_directories_become_links() {
    for without_openat2 in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (pg, outside) = (dir.path().join("pg"), dir.path().join("outside"));
        fs::create_dir(&pg).unwrap();
        fs::create_dir_all(outside.join("1/deep")).unwrap();
        for name in ["1/1259", "1/2600", "1/deep/file", "1259", "pg_control", "precious"] {
            fs::write(outside.join(name), "nobody may write here").unwrap();
        }
        let before = state(&outside);
        let pg_path = pg.to_str().unwrap();
        let (manifest, storage, stanza) = backup(pg_path);
        WITHOUT_OPENAT2.set(without_openat2);
        restore(&manifest, &storage, &stanza, pg_path, false).unwrap();

        let done = AtomicBool::new(false);
        let (mut whole, mut failed) = (0, 0);
        std::thread::scope(|scope| {
            let places = [("base", "."), ("base/1", "1"), ("global", "."), ("PG_VERSION", "precious")];
            for (place, end) in places {
                let (pg, end, done) = (&pg, outside.join(end), &done);
                scope.spawn(move || swap(pg, place, &end, done));
            }
            let mut number = 0;
            // On a busy machine more restores are needed until one meets a link
            while number < RESTORES || failed == 0 && number < 20 * RESTORES {
                number += 1;
                match restore(&manifest, &storage, &stanza, pg_path, number % 2 == 0) {
                    Ok(()) => whole += 1,
                    Err(_) => failed += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(state(&outside), before, "without openat2: {without_openat2}");
        assert!(failed > 0, "no restore met a link, {whole} were whole");
        // After the last change
        restore(&manifest, &storage, &stanza, pg_path, true).unwrap();
        assert_eq!(fs::read(pg.join("base/1/1259")).unwrap(), b"catalog");
    }
    WITHOUT_OPENAT2.set(false);
}
