//! Tests: one of several connections to another host ends, at each call of a push and of a get in turn.

use std::path::Path;
use std::sync::Arc;

use engine::ErrorCode;
use engine::repo::{Repo, info_files};
use engine::storage::RepoStorage;
use engine::storage::faulty::FaultyStorage;
use engine::storage::posix::PosixStorage;
use repo_format::archive_info::ArchiveInfo;
use repo_format::cipher::Cipher;
use repo_format::compress::{CompressType, Compression};

use crate::get::{WalCluster, get};
use crate::push::{PushSettings, push};
use crate::repos::Repos;

const SEGMENT: &str = "000000010000000000000001";
const CONTROL: &[u8] = include_bytes!("../../tests/fixtures/pg/pg_control_15");

/// How a connection ends.
type End = fn(FaultyStorage, usize) -> FaultyStorage;
const ENDS: [End; 3] = [FaultyStorage::end_one_at, FaultyStorage::lose_one_at, FaultyStorage::cut_one_at];

/// A cluster with one segment, and a stanza for it.
struct World {
    dir: tempfile::TempDir,
    storage: Arc<dyn RepoStorage>,
    settings: PushSettings,
}

impl World {
    fn new(kind: CompressType) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(dir.path().join("pg/global")).expect("data directory");
        std::fs::write(dir.path().join("pg/global/pg_control"), CONTROL).expect("pg_control");
        std::fs::write(dir.path().join(SEGMENT), [7; 4096]).expect("segment");
        let pg_path = dir.path().join("pg");
        let control = engine::pg::control_file::read(&pg_path, None).expect("control");
        let storage: Arc<dyn RepoStorage> = Arc::new(PosixStorage::new(dir.path().join("repo")));
        let settings = PushSettings {
            pg_path: Some(pg_path),
            ..PushSettings::of_tests(Compression::new(kind, None).expect("compression"))
        };
        let info = ArchiveInfo::new(control.version, control.system_id, None);
        info_files::save_archive_info(&repo(&storage), &settings.stanza, &info).expect("info");
        World { dir, storage, settings }
    }

    fn push(&self, storage: Arc<dyn RepoStorage>) -> engine::Result<()> {
        push(&Repos::from(vec![repo(&storage)]), &self.settings, &self.dir.path().join(SEGMENT))
    }

    fn get(&self, storage: Arc<dyn RepoStorage>, to: &Path) -> engine::Result<bool> {
        let pg_path = self.dir.path().join("pg");
        let cluster = WalCluster { stanza: self.settings.stanza.clone(), pg_path, version_force: None };
        get(&Repos::from(vec![repo(&storage)]), &cluster, SEGMENT, to)
    }

    /// Fails unless the segment can be fetched.
    fn check(&self) {
        let to = self.dir.path().join("RECOVERYXLOG");
        assert!(self.get(Arc::clone(&self.storage), &to).expect("get"));
        assert_eq!(std::fs::read(&to).expect("content"), [7; 4096]);
    }
}

fn repo(storage: &Arc<dyn RepoStorage>) -> Repo {
    Repo { key: 1, storage: Arc::clone(storage), cipher: Cipher::None }
}

/// Runs a job in a new world for each call at which a connection can end.
fn sweep(prepare: impl Fn() -> World, job: impl Fn(&World, Arc<dyn RepoStorage>, &str)) {
    for (how, end) in ENDS.iter().enumerate() {
        for n in 1.. {
            let world = prepare();
            // An error of the connection has the code of a missing file
            let storage = FaultyStorage::new(Arc::clone(&world.storage)).ends_with(ErrorCode::FileMissing);
            let storage = end(storage, n);
            job(&world, Arc::new(storage.clone()), &format!("{how}, call {n}"));
            if storage.calls().len() < n {
                assert!(n > 3, "{n}");
                break;
            }
        }
    }
}

#[test]
fn push_over_a_connection_that_ends_stores_the_segment_or_fails() {
    for (kind, before) in [
        (CompressType::None, None),
        (CompressType::None, Some(CompressType::None)),
        // The intact segment of another compression may only go once the segment is stored again
        (CompressType::Lz4, Some(CompressType::Gz)),
    ] {
        let prepare = || {
            let mut world = World::new(before.unwrap_or(kind));
            if before.is_some() {
                world.push(Arc::clone(&world.storage)).expect("before");
            }
            world.settings.compression = Compression::new(kind, None).expect("compression");
            world
        };
        sweep(prepare, |world, storage, place| {
            match world.push(storage) {
                Ok(()) => world.check(),
                Err(error) => {
                    assert!(error.message.contains("unexpected EOF"), "{place}: {error}");
                    assert!([ErrorCode::Command, ErrorCode::RepoInvalid].contains(&error.code), "{place}: {error}");
                    if before.is_some() {
                        world.check();
                    }
                }
            }
            world.push(Arc::clone(&world.storage)).unwrap_or_else(|error| panic!("{place}: next: {error}"));
            world.check();
        });
    }
}

#[test]
fn get_over_a_connection_that_ends_never_says_that_the_segment_is_missing() {
    for kind in [CompressType::None, CompressType::Lz4] {
        let prepare = || {
            let world = World::new(kind);
            world.push(Arc::clone(&world.storage)).expect("push");
            world
        };
        sweep(prepare, |world, storage, place| {
            let to = world.dir.path().join("RECOVERYXLOG");
            match world.get(storage, &to) {
                Ok(found) => {
                    assert!(found, "{place}");
                    assert_eq!(std::fs::read(&to).expect("content"), [7; 4096]);
                }
                Err(error) => {
                    assert!([ErrorCode::FileRead, ErrorCode::RepoInvalid].contains(&error.code), "{place}: {error}");
                    assert!(!to.exists(), "{place}");
                }
            }
            world.check();
        });
    }
}
