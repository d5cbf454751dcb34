//! Complete offline backups of a small data directory, without PostgreSQL.

mod archive_keys;
mod lost_connection;
mod lost_manifest;
mod one_connection;
mod other_host;
mod two_hosts;
mod unreadable;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{Cipher, Framing, Keyring, decrypt_framed};
use repo_format::compress::{CompressType, Compression, Decompressor};
use repo_format::format::RepoFormat;
use repo_format::hash::Sha1;
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::{self, FileForm, RepoPath};
use repo_format::manifest::pg_path;
use repo_format::pg::control::PgControl;
use tempfile::TempDir;

use super::*;
use crate::ErrorCode;
use crate::claim::Claimant;
use crate::lock::{Lock, LockRequest, LockType};
use crate::pg::PgSettings;
use crate::progress::Progress;
use crate::storage::faulty::{FaultyStorage, Op};
use crate::storage::posix::PosixStorage;
use crate::storage::{RepoStorage, exists, get};
use crate::verify::VerifyRequest;

const CONTROL: &[u8] = include_bytes!("../../../tests/fixtures/pg/pg_control_15");

/// A data directory and a stanza for it.
struct World {
    dir: TempDir,
    repo: Repo,
}

impl World {
    fn new(passphrase: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn RepoStorage> = Arc::new(PosixStorage::new(dir.path().join("repo")));
        let cipher = passphrase.map_or(Cipher::None, |text| Cipher::Aes256Cbc(Passphrase::new(text)));
        let world = World { repo: Repo { key: 1, storage, cipher }, dir };
        let files = ["PG_VERSION", "base/5/1", "base/5/2", "base/5/3", "pg_wal/x", "postgresql.conf"];
        for (number, file) in files.iter().enumerate() {
            world.write(file, &vec![number as u8; 20_000 * number]);
        }
        let mut control = CONTROL.to_vec();
        control.resize(8192, 0);
        world.write("global/pg_control", &control);
        let control = PgControl::parse(CONTROL, None).unwrap();
        let pass = || info_files::generate_passphrase(&world.repo, RepoFormat::V5).unwrap();
        let archive = ArchiveInfo::new(control.version, control.system_id, pass().map(Keyring::single));
        info_files::save_archive_info(&world.repo, &stanza(), &archive).unwrap();
        let info = BackupInfo::new(control.version, control.system_id, control.catalog_version, pass()).unwrap();
        info_files::save_backup_info(&world.repo, &stanza(), &info).unwrap();
        world
    }

    fn pg_path(&self) -> PathBuf {
        self.dir.path().join("pg")
    }

    /// Writes a file of the data directory as if some time ago.
    fn write(&self, file: &str, content: &[u8]) {
        let path = self.pg_path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.set_age(file, 3600);
    }

    fn set_age(&self, file: &str, seconds: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        fs::File::options().write(true).open(self.pg_path().join(file)).unwrap().set_modified(time).unwrap();
    }

    fn settings(&self, kind: BackupType) -> BackupRequest {
        let mut pg = PgSettings::new(self.pg_path());
        pg.db_timeout = Duration::from_secs(1);
        BackupRequest {
            kind,
            online: false,
            archive_check: false,
            archive_mode_check: false,
            archive_timeout: Duration::from_secs(1),
            compression: Compression::new(CompressType::Lz4, None).unwrap(),
            annotation: [("a", "b"), ("c", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            process_max: 2,
            manifest_save_threshold: 1,
            job_retry: 0,
            job_retry_interval: Duration::ZERO,
            ..BackupRequest::new(pg)
        }
    }

    fn run(&self, settings: BackupRequest) -> Result<BackupLabel> {
        self.run_on(&self.repo, settings)
    }

    fn lock(&self, directory: &str, exec_id: &str) -> Result<Lock> {
        Lock::acquire(LockRequest {
            lock_path: &self.dir.path().join(directory),
            stanza: &stanza(),
            kinds: &[LockType::Backup],
            repo_keys: &[1],
            exec_id,
        })
    }

    fn run_on(&self, repo: &Repo, settings: BackupRequest) -> Result<BackupLabel> {
        self.session(repo).backup(&settings).map(|summary| summary.label)
    }

    fn session(&self, repo: &Repo) -> Session {
        let session = Session::new(stanza(), [repo.clone()]).unwrap();
        session.with_lock_path(self.dir.path().join("lock")).with_exec_id("1-x")
    }

    fn info(&self) -> BackupInfo {
        info_files::load_backup_info(&self.repo, &stanza()).unwrap()
    }

    /// Loads a manifest and compares every file that is stored as a whole with it and with the data directory.
    fn check(&self, label: &BackupLabel) -> Manifest {
        let cipher = info_files::manifest_cipher(&self.info());
        let manifest = manifest_store::load(&self.repo, &stanza(), label, &cipher).unwrap();
        manifest.validate(true).unwrap();
        let cipher = Cipher::from_passphrase(manifest.cipher_pass.as_ref());
        for file in manifest.files.iter().filter(|file| file.block.is_none() && file.size > 0) {
            let holder = manifest.holder(file);
            let (path, offset, framing) = match file.bundle {
                Some(bundle) => (layout::bundle(&stanza(), holder, bundle.id()), bundle.offset, Framing::Full),
                None => {
                    let form = FileForm::Whole(CompressType::Lz4);
                    (layout::backup_file(&stanza(), holder, &file.name, form).unwrap(), 0, Framing::Full)
                }
            };
            let stored = get(&*self.repo.storage, &path, 1 << 30).unwrap().unwrap();
            let stored = &stored[offset as usize..(offset + file.size_repo) as usize];
            assert_eq!(file.checksum_repo, Some(Sha1::of(stored)), "{}", file.name);
            let compressed = decrypt_framed(&cipher, framing, stored).unwrap();
            let mut plain = Vec::new();
            Decompressor::new(CompressType::Lz4, framing, &*compressed).unwrap().read_to_end(&mut plain).unwrap();
            let now = fs::read(self.pg_path().join(pg_path(&file.name))).unwrap();
            assert!(plain == now && file.size == now.len() as u64, "{}", file.name);
            assert_eq!(file.checksum, Some(Sha1::of(&plain)));
        }
        manifest
    }

    fn has(&self, path: &str) -> bool {
        Path::new(&self.dir.path().join("repo").join(path)).exists()
    }
}

#[test]
fn save_of_the_manifest_that_blocks_does_not_hold_up_workers() {
    let world = World::new(None);
    let names: Vec<String> = (0..40).map(|number| format!("base/6/{number}")).collect();
    names.iter().for_each(|name| world.write(name, name.as_bytes()));
    let settings = BackupRequest { process_max: 1, ..world.settings(BackupType::Full) };
    let (stored, all_stored) = mpsc::channel();
    let all_stored = Mutex::new(all_stored);
    let saves = Arc::new(AtomicUsize::new(0));
    let save_number = Arc::clone(&saves);
    let storage = FaultyStorage::new(Arc::clone(&world.repo.storage))
        .before(move |op, path| {
            let is_save = op == Op::Write && path.as_str().ends_with("/backup.manifest.copy");
            // The first one precedes the copy
            if is_save && save_number.fetch_add(1, Ordering::SeqCst) == 1 {
                let all_stored = all_stored.lock().unwrap();
                for left in (0..40).rev() {
                    let file = all_stored.recv_timeout(Duration::from_secs(60));
                    assert!(file.is_ok(), "{left} files were not stored while the manifest was saved");
                }
            }
        })
        .after(move |op, path| {
            if op == Op::Finish && path.as_str().contains("/base/6/") {
                // Nobody listens after the last file
                let _ = stored.send(());
            }
        });
    let repo = Repo { storage: Arc::new(storage), ..world.repo.clone() };
    let label = world.run_on(&repo, settings).unwrap();
    world.check(&label);
    assert!(saves.load(Ordering::SeqCst) > 2);
}

fn verify(world: &World) -> crate::verify::VerifySummary {
    crate::verify::run(&verify_request(), &world.session(&world.repo), &world.repo).unwrap()
}

fn verify_request() -> VerifyRequest {
    VerifyRequest { job_retry: 0, ..VerifyRequest::default() }
}

fn stanza() -> layout::Stanza {
    "demo".parse().unwrap()
}

fn bundled(settings: BackupRequest) -> BackupRequest {
    BackupRequest { bundle: Some(BundleSettings { size: 50_000, limit: 70_000 }), ..settings }
}

#[test]
fn full_backup_stores_every_file_and_its_facts() {
    for passphrase in [None, Some("secret")] {
        for bundle in [false, true] {
            let world = World::new(passphrase);
            let settings = world.settings(BackupType::Full);
            let label = world.run(if bundle { bundled(settings) } else { settings }).unwrap();
            let manifest = world.check(&label);
            let names: Vec<&str> = manifest.files.iter().map(|file| pg_path(&file.name)).collect();
            // Offline, the content of the WAL directory belongs to the cluster
            let expected =
                ["PG_VERSION", "base/5/1", "base/5/2", "base/5/3", "global/pg_control", "pg_wal/x", "postgresql.conf"];
            assert_eq!(names, expected);
            assert_eq!(manifest.files.iter().filter(|file| file.bundle.is_some()).count(), if bundle { 4 } else { 0 });
            assert_eq!(manifest.annotation.len(), 1);
            assert_eq!(manifest.data.options.checksum_page, Some(false));
            let info = world.info();
            assert_eq!(info.backups.keys().collect::<Vec<_>>(), [&label]);
            assert!(world.has("backup/demo/latest/backup.manifest"));
            assert!(world.has(layout::history_manifest(&stanza(), &label).as_str()));
            assert_eq!(world.has(&format!("backup/demo/{label}/pg_data/base")), !bundle);
        }
    }
}

#[test]
fn incremental_backup_without_prior_becomes_full() {
    let world = World::new(None);
    let label = world.run(world.settings(BackupType::Incr)).unwrap();
    assert_eq!(label.backup_type(), BackupType::Full);
}

#[test]
fn incremental_backup_stores_only_what_changed() {
    let world = World::new(Some("secret"));
    let full = world.run(world.settings(BackupType::Full)).unwrap();
    let error = world.run(world.settings(BackupType::Incr)).unwrap_err();
    assert!(error.message.starts_with("no files have changed"), "{error}");

    world.write("base/5/2", b"other");
    world.write("base/5/9", b"new");
    fs::remove_file(world.pg_path().join("base/5/3")).unwrap();
    world.set_age("base/5/2", 10);
    let incr = world.run(world.settings(BackupType::Incr)).unwrap();
    assert_eq!(incr.full_label(), full);
    let manifest = world.check(&incr);
    let stored: Vec<&str> =
        manifest.files.iter().filter(|file| file.reference.is_none()).map(|file| &*file.name).collect();
    assert_eq!(stored, ["pg_data/base/5/2", "pg_data/base/5/9"]);
    assert_eq!(manifest.file("pg_data/base/5/3"), None);
    assert_eq!(manifest.references, [full, incr]);
}

#[test]
fn backup_of_another_cluster_is_refused() {
    let world = World::new(None);
    let other = BackupInfo::new(repo_format::pg::PgVersion::V15, 1, 2, None).unwrap();
    info_files::save_backup_info(&world.repo, &stanza(), &other).unwrap();
    assert_eq!(world.run(world.settings(BackupType::Full)).unwrap_err().code, ErrorCode::BackupMismatch);
}

#[test]
fn backup_of_a_running_cluster_needs_force_offline() {
    let world = World::new(None);
    world.write("postmaster.pid", b"1");
    assert_eq!(world.run(world.settings(BackupType::Full)).unwrap_err().code, ErrorCode::PgRunning);
    world.run(BackupRequest { force: true, ..world.settings(BackupType::Full) }).unwrap();
}

#[test]
fn annotation_that_could_not_be_read_again_is_refused_before_anything_is_copied() {
    let world = World::new(None);
    let mut settings = world.settings(BackupType::Full);
    settings.annotation.insert("a\"b".to_owned(), "c".to_owned());
    assert_eq!(world.run(settings).unwrap_err().code, ErrorCode::OptionInvalidValue);
    assert!(!world.has("backup/demo/latest"));
}

/// Runs a backup that dies at its nth change of the repository, and the next backup. Returns whether the first was
/// still running then.
fn dies_and_is_followed(wanted: BackupType, bundle: bool, change: u64) -> bool {
    let world = World::new(None);
    let settings = |kind| {
        let settings = BackupRequest { process_max: 1, ..world.settings(kind) };
        if bundle { bundled(settings) } else { settings }
    };
    let first = (wanted == BackupType::Incr).then(|| world.run(settings(BackupType::Full)).unwrap());
    world.write("base/5/2", b"changed since");
    world.set_age("base/5/2", 10);
    let dying = FaultyStorage::new(Arc::clone(&world.repo.storage)).crash_at(change);
    let repo = Repo { storage: Arc::new(dying), ..world.repo.clone() };
    let died = world.run_on(&repo, settings(wanted)).is_err();
    // What remains is a backup or nothing: its manifest exists only if everything else does
    let cipher = info_files::manifest_cipher(&world.info());
    for label in reconstruct::backup_labels(&world.repo, &stanza()).unwrap() {
        if manifest_store::is_complete(&world.repo, &stanza(), &label).unwrap() {
            manifest_store::load(&world.repo, &stanza(), &label, &cipher).unwrap().validate(true).unwrap();
            if first.as_ref() != Some(&label) {
                world.check(&label);
            }
        }
    }
    world.write("base/5/1", b"changed again");
    world.set_age("base/5/1", 5);
    let label = world.run(settings(wanted)).unwrap();
    world.check(&label);
    assert!(world.info().backups.contains_key(&label));
    assert!(first.is_none_or(|first| world.info().backups.contains_key(&first)));
    died
}

#[test]
fn backup_that_dies_at_any_change_is_followed_by_a_good_one() {
    // In parallel, because each waits for the next second before its second backup
    const AT_A_TIME: u64 = 12;
    for (wanted, bundle) in [(BackupType::Full, false), (BackupType::Full, true), (BackupType::Incr, false)] {
        let mut crashes = 0;
        for first in (1..).step_by(AT_A_TIME as usize) {
            let died = std::thread::scope(|scope| {
                let start = |change| scope.spawn(move || dies_and_is_followed(wanted, bundle, change));
                let running: Vec<_> = (first..first + AT_A_TIME).map(start).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).filter(|died| *died).count()
            });
            crashes += died;
            if died < AT_A_TIME as usize {
                break;
            }
        }
        assert!(crashes > 10, "{crashes}");
    }
}

#[test]
fn resumed_backup_keeps_its_label_and_copies_only_what_is_missing() {
    let world = World::new(Some("secret"));
    let settings = || BackupRequest { process_max: 1, ..world.settings(BackupType::Full) };
    // Dies while the last small files are copied
    let mut change = 1;
    let (interrupted, stored) = loop {
        let dying = FaultyStorage::new(Arc::clone(&world.repo.storage)).crash_at(change);
        world.run_on(&Repo { storage: Arc::new(dying), ..world.repo.clone() }, settings()).unwrap_err();
        let labels = reconstruct::backup_labels(&world.repo, &stanza()).unwrap();
        let cipher = info_files::manifest_cipher(&world.info());
        let copy =
            labels.last().and_then(|label| manifest_store::load_copy(&world.repo, &stanza(), label, &cipher).ok());
        if let Some(copy) = copy {
            let stored = copy.files.iter().filter(|file| file.checksum.is_some() && file.size > 0).count();
            if stored >= 3 {
                break (copy, stored);
            }
        }
        change += 1;
    };
    assert!(stored < interrupted.files.len());
    let calls = FaultyStorage::new(Arc::clone(&world.repo.storage));
    let repo = Repo { storage: Arc::new(calls.clone()), ..world.repo.clone() };
    let label = world.run_on(&repo, settings()).unwrap();
    assert_eq!(label, interrupted.data.label);
    let manifest = world.check(&label);
    assert_eq!(manifest.cipher_pass, interrupted.cipher_pass);
    let largest = "pg_data/postgresql.conf.lz4";
    let written = calls.calls().iter().any(|(op, path)| *op == Op::Write && path.as_str().ends_with(largest));
    assert!(!written, "what was stored is stored again: {:?}", calls.calls());

    // Without resume it starts over
    let world = World::new(None);
    let dying = FaultyStorage::new(Arc::clone(&world.repo.storage)).crash_at(8);
    let settings = world.settings(BackupType::Full);
    world.run_on(&Repo { storage: Arc::new(dying), ..world.repo.clone() }, settings.clone()).unwrap_err();
    let label = world.run(BackupRequest { resume: false, ..settings }).unwrap();
    world.check(&label);
    assert_eq!(reconstruct::backup_labels(&world.repo, &stanza()).unwrap(), [label]);
}

/// Runs a backup with one worker that dies when it stores this file, of which the existing content stays.
fn interrupt_at(world: &World, file: &str, settings: BackupRequest) {
    let failing = FaultyStorage::new(Arc::clone(&world.repo.storage));
    let failing = failing.fail_path(Op::Write, file).fail_path(Op::Remove, file);
    let repo = Repo { storage: Arc::new(failing), ..world.repo.clone() };
    let error = world.run_on(&repo, BackupRequest { process_max: 1, ..settings }).unwrap_err();
    assert_eq!(error.code, ErrorCode::Service, "{error}");
}

#[test]
fn resumed_backup_bundles_what_was_stored_alone() {
    let world = World::new(None);
    let settings = || world.settings(BackupType::Full);
    interrupt_at(&world, "base/5/1.lz4", settings());
    let interrupted = reconstruct::backup_labels(&world.repo, &stanza()).unwrap();
    let alone = |name: &str| world.has(&format!("backup/demo/{}/pg_data/{name}.lz4", interrupted[0]));
    assert!(alone("base/5/2") && alone("base/5/3") && alone("postgresql.conf"));

    let label = world.run(bundled(settings())).unwrap();
    assert_eq!(label, interrupted[0]);
    let manifest = world.check(&label);
    for (name, is_bundled) in [("base/5/2", true), ("base/5/3", true), ("postgresql.conf", false)] {
        let file = manifest.file(&format!("pg_data/{name}")).unwrap();
        assert_eq!((file.bundle.is_some(), alone(name)), (is_bundled, !is_bundled), "{name}");
    }
}

#[test]
fn file_that_changed_between_interruptions_is_not_taken_from_the_first_run() {
    let world = World::new(None);
    let settings = |delta| BackupRequest { delta, ..world.settings(BackupType::Full) };
    interrupt_at(&world, "base/5/1.lz4", settings(false));
    world.write("base/5/2", &[9; 40_000]);
    world.set_age("base/5/2", 10);
    // The first of these records the new time, but dies before it stores the file again
    for delta in [true, false] {
        interrupt_at(&world, "base/5/2.lz4", settings(delta));
    }
    let label = world.run(settings(false)).unwrap();
    assert_eq!(reconstruct::backup_labels(&world.repo, &stanza()).unwrap(), std::slice::from_ref(&label));
    let manifest = world.check(&label);
    assert_eq!(manifest.data.options.delta, Some(true));
}

#[test]
fn job_that_fails_once_is_tried_again_and_one_that_always_fails_ends_the_backup() {
    let world = World::new(None);
    let storage = |faulty: fn(FaultyStorage) -> FaultyStorage| {
        let faulty = faulty(FaultyStorage::new(Arc::clone(&world.repo.storage)));
        Repo { storage: Arc::new(faulty), ..world.repo.clone() }
    };
    let settings = || BackupRequest {
        resume: false,
        job_retry_interval: Duration::from_millis(5),
        ..world.settings(BackupType::Full)
    };
    // The first two are claims
    let once = || storage(|faulty| faulty.fail(Op::Write, 4));
    assert_eq!(world.run_on(&once(), settings()).unwrap_err().code, ErrorCode::Service);
    let label = world.run_on(&once(), BackupRequest { job_retry: 1, ..settings() }).unwrap();
    world.check(&label);
    let always = storage(|faulty| faulty.fail_path(Op::Write, "base/5/1.lz4"));
    let error = world.run_on(&always, BackupRequest { job_retry: 2, ..settings() }).unwrap_err();
    assert!(error.message.contains("[ServiceError] on 2 retries from "), "{error}");
    assert_eq!(world.info().backups.len(), 1);
}

/// A change of settings.
type Change = fn(BackupRequest) -> BackupRequest;

/// Forms of storage with their names.
const FORMS: [(&str, Change); 6] = [
    ("plain", |settings| settings),
    ("gz", |settings| BackupRequest { compression: Compression::new(CompressType::Gz, None).unwrap(), ..settings }),
    ("bundle", bundled),
    ("block", in_blocks),
    ("hardlink", |settings| BackupRequest { hardlink: true, ..settings }),
    ("hardlink with bundle and block", |settings| BackupRequest { hardlink: true, ..in_blocks(settings) }),
];

fn in_blocks(settings: BackupRequest) -> BackupRequest {
    let block = BlockSettings {
        super_full: 1 << 20,
        super_other: 1 << 18,
        size_map: vec![(1, 8192)],
        ..BlockSettings::default()
    };
    BackupRequest { block: Some(block), ..bundled(settings) }
}

/// A chain of three: one form, another, and the first again.
fn chain_changes(first: usize, second: usize, passphrase: Option<&str>) {
    let world = World::new(passphrase);
    world.write("base/5/empty", b"");
    let backup = |kind, form: usize| FORMS[form].1(world.settings(kind));
    for (link, form) in [first, second, first].into_iter().enumerate() {
        world.write("base/5/2", &vec![link as u8 + 50; 40_000]);
        world.set_age("base/5/2", 1000 - link as u64);
        let kind = if link == 0 { BackupType::Full } else { BackupType::Incr };
        let settings = backup(kind, form);
        world.run(settings).unwrap_or_else(|error| panic!("{} after {}: {error}", FORMS[form].0, FORMS[second].0));
    }
    let verified = verify(&world);
    assert_eq!(verified.errors, 0, "{}, {}: {}", FORMS[first].0, FORMS[second].0, verified.text);
    assert_eq!(world.info().backups.len(), 3);
}

#[test]
fn chain_whose_options_change_between_two_backups_goes_on() {
    // In parallel, because each waits for the next second before each backup
    std::thread::scope(|scope| {
        for first in 0..FORMS.len() {
            for second in 0..FORMS.len() {
                let passphrase = ((first + second) % 2 == 1).then_some("secret");
                scope.spawn(move || chain_changes(first, second, passphrase));
            }
        }
    });
}

#[test]
fn backup_whose_file_is_removed_before_its_end_does_not_count() {
    let world = World::new(None);
    let first = world.run(world.settings(BackupType::Full)).unwrap();
    // Another host removes a file, which the backup detects when it lists its directory
    let inner = Arc::clone(&world.repo.storage);
    let storage = FaultyStorage::new(Arc::clone(&inner)).before(move |op, path| {
        let stored = path.join("3.lz4").unwrap();
        if op == Op::List && path.as_str().ends_with("base/5") && exists(&*inner, &stored).unwrap() {
            inner.remove(&stored).unwrap();
        }
    });
    let repo = Repo { storage: Arc::new(storage), ..world.repo.clone() };
    let error = world.run_on(&repo, world.settings(BackupType::Full)).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileMissing, "{error}");
    assert!(error.message.contains("base/5/3.lz4' is missing"), "{error}");
    assert_eq!(world.info().backups.keys().collect::<Vec<_>>(), [&first]);
    // The remaining files are reused
    let label = world.run(world.settings(BackupType::Full)).unwrap();
    world.check(&label);
    assert_eq!(reconstruct::backup_labels(&world.repo, &stanza()).unwrap(), [first, label]);
}

/// Sends a signal when all files are copied.
struct SignalAfterCopy(CancelToken);

impl Progress for SignalAfterCopy {
    fn start(&self, _files: u64, _bytes: u64) {}

    fn advance(&self, _files: u64, _bytes: u64) {}

    fn finish(&self) {
        self.0.cancel_by_signal(15);
    }
}

/// Gives a signal when the first file is copied.
struct SignalAtFirstFile(CancelToken);

impl Progress for SignalAtFirstFile {
    fn start(&self, _files: u64, _bytes: u64) {}

    fn advance(&self, _files: u64, _bytes: u64) {
        self.0.cancel_by_signal(15);
    }

    fn finish(&self) {}
}

#[test]
fn backup_ended_by_a_signal_no_longer_says_that_it_runs_though_nothing_was_copied_since_it_was_saved() {
    let world = World::new(None);
    let cancel = CancelToken::new();
    // Saved after every file
    let settings = BackupRequest { manifest_save_threshold: 1, process_max: 1, ..world.settings(BackupType::Full) };
    let signal = Arc::new(SignalAtFirstFile(cancel.clone()));
    let session = world.session(&world.repo).with_progress(signal).with_cancel(cancel);
    let error = session.backup(&settings).unwrap_err();
    assert_eq!(error.code, ErrorCode::Term);
    let label = label::used(&*world.repo.storage, &stanza()).unwrap().pop().unwrap();
    let saved = manifest_store::load_copy(&world.repo, &stanza(), &label, &Cipher::None).unwrap();
    assert_eq!(saved.backrest_version, repo_format::BACKREST_VERSION);
}

#[test]
fn signal_after_the_copy_keeps_all_that_was_copied_for_resume() {
    let world = World::new(None);
    let cancel = CancelToken::new();
    // Nothing is saved during the copy
    let settings = BackupRequest { manifest_save_threshold: u64::MAX, ..world.settings(BackupType::Full) };
    let signal = Arc::new(SignalAfterCopy(cancel.clone()));
    let session = world.session(&world.repo).with_progress(signal).with_cancel(cancel);
    assert_eq!(session.backup(&settings).unwrap_err().code, ErrorCode::Term);
    let label = label::used(&*world.repo.storage, &stanza()).unwrap().pop().unwrap();
    let saved = manifest_store::load_copy(&world.repo, &stanza(), &label, &Cipher::None).unwrap();
    assert!(saved.files.iter().filter(|file| file.size > 0).all(|file| file.checksum.is_some()));
    assert_eq!(world.run(world.settings(BackupType::Full)).unwrap(), label);
}
