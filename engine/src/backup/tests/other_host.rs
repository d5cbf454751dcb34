//! PostgreSQL on another host: everything works through a pipe, with the same result.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::Error;
use crate::pg::connection::{Expect, PgConnection, Row};
use crate::pg::data_dir::{Scan, ScanOptions, ServerTablespace};
use crate::pg::host::loopback::LoopBack;
use crate::pg::{PgHost, PgSession};
use crate::pipeline::backup::{
    CodecPool, Copier, CopyFile, CopyFrom, CopyJob, CopyMethod, CopyOutcome, CopyRules, CopyWorker,
};
use crate::pipeline::restore::{BlockGeometry, Hashed};
use crate::storage::memory::MemoryStorage;
use crate::storage::on_turn::OnTurn;
use crate::storage::put;
use crate::work::turn::Turn;

/// The content of a backup: every file except manifests.
fn content(world: &World, label: &BackupLabel) -> BTreeMap<String, Vec<u8>> {
    let storage = &*world.repo.storage;
    let path = layout::backup_path(&stanza(), label);
    let files = storage.list_files(&path).unwrap().into_iter().filter(|file| !file.path.starts_with("backup.manifest"));
    files
        .map(|file| (file.path.clone(), get(storage, &path.join(&file.path).unwrap(), 1 << 30).unwrap().unwrap()))
        .collect()
}

/// Makes a backup directly and one through a pipe, and compares them.
fn compare(world: &World, request: &BackupRequest) {
    let through = LoopBack::new(Arc::clone(&request.pg[0]));
    let request = BackupRequest { process_max: 1, ..request.clone() };
    let one = world.run(request.clone()).unwrap();
    let other = world.run(BackupRequest { pg: vec![through.clone()], ..request }).unwrap();
    // Control file, scan and worker
    assert!(through.pipes() >= 3, "{}", through.pipes());
    assert!(content(world, &one) == content(world, &other));
    let cipher = info_files::manifest_cipher(&world.info());
    let load = |label| manifest_store::load(&world.repo, &stanza(), label, &cipher).unwrap();
    let (one, other) = (load(&one), load(&other));
    assert_eq!(one.files, other.files);
    assert_eq!((one.paths, one.links, one.targets), (other.paths, other.links, other.targets));
    assert_eq!(one.owners, other.owners);
    assert_eq!(one.data.options, other.data.options);
}

#[test]
fn backup_of_another_host_equals_one_made_directly() {
    let block = BlockSettings { super_full: 65_536, super_other: 32_768, ..BlockSettings::default() };
    for (bundles, block) in [(false, None), (true, None), (true, Some(block))] {
        let world = World::new(None);
        let noise: Vec<u8> = (0..300_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        world.write("base/5/7", &noise);
        let settings = |kind| BackupRequest {
            checksum_page: Some(true),
            block: block.clone(),
            ..if bundles { bundled(world.settings(kind)) } else { world.settings(kind) }
        };
        compare(&world, &settings(BackupType::Full));
        // Blocks continue the map of the full backup
        let mut changed = noise;
        changed[200_000..200_100].fill(1);
        world.write("base/5/7", &changed);
        world.write("base/5/8", b"new");
        world.set_age("base/5/7", 10);
        compare(&world, &settings(BackupType::Diff));
    }
}

#[test]
fn host_elsewhere_answers_like_this_one() {
    let world = World::new(None);
    let local = Arc::clone(&world.settings(BackupType::Full).pg[0]);
    let other = LoopBack::new(Arc::clone(&local));
    assert_eq!(other.control().unwrap(), local.control().unwrap());
    assert!(!other.has_postmaster_pid().unwrap());
    world.write("postmaster.pid", b"1");
    assert!(other.has_postmaster_pid().unwrap());
    other.check_data_dir().unwrap();

    // The scan asks for tablespaces that are new
    let id = "PG_15_202209061";
    fs::create_dir_all(world.dir.path().join("ts").join(id)).unwrap();
    fs::create_dir_all(world.pg_path().join("pg_tblspc")).unwrap();
    std::os::unix::fs::symlink(world.dir.path().join("ts"), world.pg_path().join("pg_tblspc/16385")).unwrap();
    let options = ScanOptions {
        version: repo_format::pg::PgVersion::V15,
        tablespace_id: id,
        wal_path: "pg_wal",
        online: true,
        exclude: &["postgresql.conf".to_owned()],
        tablespaces: Some(&[]),
    };
    let mut now = || Ok(vec![ServerTablespace { id: 16385, name: "new".to_owned() }]);
    let found = other.scan(&options, &mut now).unwrap();
    assert_eq!(found.targets[1].tablespace.as_ref().unwrap().name, "new");
    assert_eq!(found, local.scan(&options, &mut now).unwrap());

    // Errors keep their number, text and hints
    let mut fails = || Err(Error::new(ErrorCode::DbQuery, "no answer").hint("is it running?"));
    let error = other.scan(&options, &mut fails).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::DbQuery, "no answer"));
    assert_eq!(error.hints, ["is it running?"]);
    fs::remove_file(world.pg_path().join("global/pg_control")).unwrap();
    assert_eq!(other.control().unwrap_err().message, local.control().unwrap_err().message);
}

fn rules() -> CopyRules {
    CopyRules {
        compression: Compression::NONE,
        cipher: Cipher::None,
        bundle_raw: false,
        reference: 0,
        page_size: 8192,
        page_header_check: true,
        compare_buffer_bytes: 1 << 20,
        write_options: WriteOptions::IN_PLACE,
        codecs: Arc::new(CodecPool::new(2)),
    }
}

fn job(name: &str, method: CopyMethod, content: &[u8]) -> CopyJob {
    let file = CopyFile {
        name: format!("pg_data/{name}").into(),
        method,
        size: content.len() as u64,
        size_original: content.len() as u64,
        exact_size: false,
        has_reference: false,
        checksum: Some(Sha1::of(content)),
        checksum_repo: None,
        size_repo: content.len() as u64,
        page_check: false,
        block: None,
    };
    let path = RepoPath::new("file").unwrap();
    CopyJob { from: CopyFrom::Primary, path, bundle_id: None, files: vec![file], threads: 1 }
}

#[test]
fn worker_elsewhere_resumes_fails_and_finds_nothing_like_a_local_one() {
    let world = World::new(None);
    world.write("large", &[7; 3_000_000]);
    let (rules, path) = (rules(), RepoPath::new("file").unwrap());
    let host = LoopBack::new(Arc::clone(&world.settings(BackupType::Full).pg[0]));
    let run = |storage: &dyn RepoStorage, job: &CopyJob| {
        let worker = host.copy_worker(1, &rules, &Turn::FREE).unwrap();
        let results = Copier::new(&rules, OnTurn::new(storage, &Turn::FREE), worker).run(job, &CancelToken::new());
        results.map(|mut results| results.remove(0).outcome)
    };
    let resume = CopyMethod::Resume { compare: false };
    let storage = Arc::new(MemoryStorage::new());
    put(&*storage, &path, b"content", WriteOptions::IN_PLACE).unwrap();
    let resumed = CopyOutcome::Resumed { size: 7, checksum: Sha1::of(b"content") };
    assert_eq!(run(&*storage, &job("gone", resume, b"content")).unwrap(), resumed);
    // What was stored of a file that is gone is removed
    assert_eq!(run(&*storage, &job("gone", resume, b"others")).unwrap(), CopyOutcome::Removed);
    assert_eq!(get(&*storage, &path, 10).unwrap(), None);

    let full = FaultyStorage::new(Arc::clone(&storage) as Arc<dyn RepoStorage>).full_after(2_000_000);
    let error = run(&full, &job("large", CopyMethod::Copy, &[7; 3_000_000])).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileWrite);
    assert_eq!(get(&*storage, &path, 1 << 30).unwrap(), None);
    let control = job("global/pg_control", CopyMethod::Compare, b"");
    fs::remove_file(world.pg_path().join("global/pg_control")).unwrap();
    assert_eq!(run(&*storage, &control).unwrap_err().code, ErrorCode::FileMissing);
}

/// A host whose server gives prepared answers.
#[derive(Debug)]
struct Scripted(Arc<dyn PgHost>);

impl PgHost for Scripted {
    fn key(&self) -> u32 {
        self.0.key()
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn command(&self) -> &str {
        self.0.command()
    }
    fn control(&self) -> Result<repo_format::pg::PgControl> {
        self.0.control()
    }
    fn has_postmaster_pid(&self) -> Result<bool> {
        self.0.has_postmaster_pid()
    }
    fn check_data_dir(&self) -> Result<()> {
        self.0.check_data_dir()
    }
    fn connect(&self, _: &CancelToken) -> Result<Box<dyn PgConnection>> {
        Ok(Box::new(ScriptedConnection))
    }
    fn scan(&self, options: &ScanOptions<'_>, now: &mut dyn FnMut() -> Result<Vec<ServerTablespace>>) -> Result<Scan> {
        self.0.scan(options, now)
    }
    fn hash_blocks(&self, path: &RepoPath, geometry: BlockGeometry, cancel: &CancelToken) -> Result<Hashed> {
        self.0.hash_blocks(path, geometry, cancel)
    }
    fn copy_worker<'a>(&self, number: u32, rules: &'a CopyRules, turn: &Turn) -> Result<Box<dyn CopyWorker + 'a>> {
        self.0.copy_worker(number, rules, turn)
    }
}

struct ScriptedConnection;

impl PgConnection for ScriptedConnection {
    fn query(&mut self, query: &str, expect: Expect) -> Result<Vec<Row>> {
        let row = |values: &[&str]| Ok(vec![values.iter().map(|value| Some((*value).to_owned())).collect()]);
        match expect {
            Expect::Nothing => Ok(Vec::new()),
            Expect::Rows(_) if query.contains("pg_tablespace") => row(&["1663", "pg_default"]),
            Expect::Rows(_) => Ok(Vec::new()),
            Expect::OneRow(_) if query.contains("server_version_num") => {
                row(&["150004", "/pg", "on", "rbr archive-push %p", "300"])
            }
            Expect::OneRow(_) if query.contains("pg_is_in_recovery") => row(&["f"]),
            Expect::OneRow(_) => Err(Error::new(ErrorCode::DbQuery, format!("unable to execute query '{query}'"))),
        }
    }

    fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_secs(77)
    }
}

#[test]
fn session_with_a_server_elsewhere_has_its_settings_and_errors() {
    let world = World::new(None);
    let far: Arc<dyn PgHost> = Arc::new(Scripted(Arc::clone(&world.settings(BackupType::Full).pg[0])));
    let host: Arc<dyn PgHost> = LoopBack::new(Arc::clone(&far));
    assert_eq!(host.connect(&CancelToken::new()).unwrap().timeout(), std::time::Duration::from_secs(77));
    let mut session = PgSession::connect(&host, &CancelToken::new()).unwrap();
    assert_eq!((session.version(), session.data_directory()), (repo_format::pg::PgVersion::V15, "/pg"));
    assert_eq!((session.archive_mode(), session.is_standby()), ("on", false));
    assert_eq!(*session.control(), far.control().unwrap());
    assert_eq!(session.tablespaces().unwrap()[0].name, "pg_default");
    assert_eq!(session.time_ms().unwrap_err().code, ErrorCode::DbQuery);
}
