use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use repo_format::block_map::BlockMap;
use repo_format::cipher::{self, Framing, Passphrase};
use repo_format::compress::{CompressType, Decompressor};
use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;

use super::*;
use crate::cancel::CancelToken;
use crate::pg::data_dir::DataDir;
use crate::storage::faulty::FaultyStorage;
use crate::storage::memory::MemoryStorage;
use crate::storage::on_turn::OnTurn;
use crate::storage::posix::PosixStorage;
use crate::storage::{RepoStorage, get, put};
use crate::work::turn::{Slots, Turn};
use crate::{ErrorCode, Result};

/// Where files are copied from and to, and how.
#[derive(Clone)]
struct Settings {
    storage: Arc<dyn RepoStorage>,
    data_dir: DataDir,
    rules: CopyRules,
}

/// Rules without compression and encryption.
pub(super) fn rules() -> CopyRules {
    CopyRules {
        compression: Compression::NONE,
        cipher: Cipher::None,
        bundle_raw: true,
        reference: 0,
        page_size: 8192,
        page_header_check: true,
        compare_buffer_bytes: 1 << 20,
        write_options: WriteOptions::IN_PLACE,
        codecs: Arc::new(CodecPool::new(2)),
    }
}

fn settings(root: &Path, storage: &Arc<MemoryStorage>, kind: CompressType, cipher: Cipher) -> Settings {
    let rules = CopyRules { compression: Compression::new(kind, None).unwrap(), cipher, ..rules() };
    Settings { storage: storage.clone(), data_dir: DataDir::new(root), rules }
}

fn file(name: &str, size: u64) -> CopyFile {
    CopyFile {
        name: format!("pg_data/{name}").into(),
        size,
        size_original: size,
        exact_size: false,
        method: CopyMethod::Copy,
        has_reference: false,
        checksum: None,
        checksum_repo: None,
        size_repo: 0,
        page_check: false,
        block: None,
    }
}

const RESUME: CopyMethod = CopyMethod::Resume { compare: false };

fn method(compare: bool) -> CopyMethod {
    if compare { CopyMethod::Compare } else { CopyMethod::Copy }
}

fn job(files: Vec<CopyFile>, bundle_id: Option<u64>) -> CopyJob {
    CopyJob { from: CopyFrom::Primary, path: RepoPath::new("file").unwrap(), bundle_id, files, threads: 1 }
}

fn run(settings: &Settings, job: &CopyJob) -> Result<Vec<CopyResult>> {
    run_on(&Turn::FREE, settings, job)
}

fn run_on(turn: &Turn, settings: &Settings, job: &CopyJob) -> Result<Vec<CopyResult>> {
    let worker = LocalWorker::new(settings.data_dir.clone(), None, &settings.rules, turn);
    let storage = OnTurn::new(&*settings.storage, turn);
    Copier::new(&settings.rules, storage, Box::new(worker)).run(job, &CancelToken::new())
}

fn stored(storage: &MemoryStorage) -> Option<Vec<u8>> {
    get(storage, &RepoPath::new("file").unwrap(), u64::MAX >> 1).unwrap()
}

fn copied(result: &CopyResult) -> &Copied {
    match &result.outcome {
        CopyOutcome::Copied(copied) => copied,
        other => panic!("{other:?}"),
    }
}

/// Bytes that look like nothing but repeat in every run.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn decode(stored: &[u8], kind: CompressType, cipher: &Cipher, framing: Framing) -> Vec<u8> {
    let plain = cipher::decrypt_framed(cipher, framing, stored).unwrap();
    if kind == CompressType::None {
        return plain;
    }
    let mut out = Vec::new();
    Decompressor::new(kind, framing, plain.as_slice()).unwrap().read_to_end(&mut out).unwrap();
    out
}

#[test]
fn bundle_of_files_in_every_form_decodes_to_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let contents = [noise(3_000_000), b"small".to_vec(), vec![7; 100_000], noise(1 << 20)];
    for (index, content) in contents.iter().enumerate() {
        std::fs::write(dir.path().join(index.to_string()), content).unwrap();
    }
    for kind in CompressType::ALL {
        for cipher in [Cipher::None, Cipher::Aes256Cbc(Passphrase::new("x"))] {
            let storage = Arc::new(MemoryStorage::new());
            let settings = settings(dir.path(), &storage, kind, cipher.clone());
            let files =
                contents.iter().enumerate().map(|(n, content)| file(&n.to_string(), content.len() as u64)).collect();
            let results = run(&settings, &job(files, Some(1))).unwrap();
            let stored = stored(&storage).unwrap();
            let mut offset = 0;
            for (result, content) in results.iter().zip(&contents) {
                let copied = copied(result);
                assert_eq!(copied.bundle_offset, offset);
                let part = &stored[offset as usize..(offset + copied.size_repo) as usize];
                assert_eq!(decode(part, kind, &cipher, Framing::Raw), *content, "{kind}");
                assert_eq!(copied.checksum, Sha1::of(content));
                let plain = kind == CompressType::None && cipher.is_none();
                assert_eq!(copied.checksum_repo, (!plain).then(|| Sha1::of(part)));
                offset += copied.size_repo;
            }
            assert_eq!(offset, stored.len() as u64);
        }
    }
}

#[test]
fn unchanged_files_leave_no_bundle() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"abc").unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let settings = settings(dir.path(), &storage, CompressType::Zst, Cipher::None);
    let known = CopyFile { has_reference: true, checksum: Some(Sha1::of(b"abc")), ..file("a", 3) };
    for delta in [false, true] {
        let results = run(&settings, &job(vec![CopyFile { method: method(delta), ..known.clone() }], Some(1))).unwrap();
        let unchanged = CopyOutcome::Unchanged { size: 3, checksum: Sha1::of(b"abc") };
        assert_eq!(results[0].outcome, unchanged);
        assert_eq!(stored(&storage), None);
    }
    // If a changed file follows, the bundle begins with that
    std::fs::write(dir.path().join("b"), b"xyz").unwrap();
    let results = run(&settings, &job(vec![known, file("b", 3)], Some(1))).unwrap();
    assert_eq!(copied(&results[1]).bundle_offset, 0);
}

#[test]
fn vanished_and_truncated_files_are_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("empty"), b"").unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let settings = settings(dir.path(), &storage, CompressType::Gz, Cipher::None);
    let results = run(&settings, &job(vec![file("gone", 5), file("empty", 5)], Some(1))).unwrap();
    assert_eq!(results[0].outcome, CopyOutcome::Removed);
    assert_eq!(results[1].outcome, CopyOutcome::Truncated);
    assert_eq!(stored(&storage), None);
    // Alone, an empty file is stored as one
    let results = run(&settings, &job(vec![file("empty", 5)], None)).unwrap();
    assert_eq!(copied(&results[0]).size, 0);
    assert_eq!(decode(&stored(&storage).unwrap(), CompressType::Gz, &Cipher::None, Framing::Full), b"");
}

#[test]
fn grown_file_is_read_to_the_size_of_the_scan_only_if_wal_replays_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"0123456789").unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
    for (exact_size, expected) in [(true, 4), (false, 10)] {
        let results = run(&settings, &job(vec![CopyFile { exact_size, ..file("a", 4) }], None)).unwrap();
        assert_eq!(copied(&results[0]).size, expected);
        assert_eq!(stored(&storage).unwrap().len() as u64, expected);
    }
}

#[test]
fn resumed_file_counts_only_with_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"abc").unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
    let known = CopyFile { method: RESUME, checksum: Some(Sha1::of(b"abc")), size_repo: 3, ..file("a", 3) };
    let path = RepoPath::new("file").unwrap();
    for (content, delta, expected) in
        [("abc", false, true), ("abc", true, true), ("abd", false, false), ("abcd", true, false)]
    {
        put(&*storage, &path, content.as_bytes(), WriteOptions::IN_PLACE).unwrap();
        let results = run(
            &settings,
            &job(vec![CopyFile { method: CopyMethod::Resume { compare: delta }, ..known.clone() }], None),
        )
        .unwrap();
        match &results[0].outcome {
            CopyOutcome::Resumed { size: 3, .. } => assert!(expected, "{content}"),
            CopyOutcome::Copied(copied) => assert!(copied.repo_invalid && !expected, "{content}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(stored(&storage).unwrap(), b"abc");
    }
    // The file has changed since: the stored file is useless, which does not mean that the repository is damaged
    std::fs::write(dir.path().join("a"), b"abx").unwrap();
    let results =
        run(&settings, &job(vec![CopyFile { method: CopyMethod::Resume { compare: true }, ..known }], None)).unwrap();
    assert!(!copied(&results[0]).repo_invalid);
}

#[test]
fn resumed_file_in_a_bundle_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"abc").unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
    let resumed = CopyFile { method: RESUME, checksum: Some(Sha1::of(b"abc")), size_repo: 3, ..file("a", 3) };
    let error = run(&settings, &job(vec![resumed], Some(1))).unwrap_err();
    assert_eq!(error.code, ErrorCode::Assert);
}

#[test]
fn control_file_that_is_missing_is_an_error_and_not_a_dropped_file() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
    for delta in [false, true] {
        let results =
            run(&settings, &job(vec![CopyFile { method: method(delta), ..file("base/1/1", 3) }], None)).unwrap();
        assert_eq!(results[0].outcome, CopyOutcome::Removed);
        let control = CopyFile { method: method(delta), ..file("global/pg_control", 8192) };
        assert_eq!(run(&settings, &job(vec![control], None)).unwrap_err().code, ErrorCode::FileMissing);
    }
}

/// Reads a block incremental file back through its map.
fn rebuild(storage: &MemoryStorage, paths: &[RepoPath], map: &BlockMap, settings: &Settings) -> Vec<u8> {
    let mut out = Vec::new();
    for block in &map.0 {
        let file = get(storage, &paths[block.reference as usize], u64::MAX >> 1).unwrap().unwrap();
        let part = &file[block.offset as usize..(block.offset + block.size) as usize];
        let plain = decode(part, settings.rules.compression.kind, &settings.rules.cipher, Framing::Raw);
        assert_eq!(plain.len() as u64, block.super_block_size);
        let begin = block.block as usize * 8192;
        out.extend_from_slice(&plain[begin..plain.len().min(begin + 8192)]);
    }
    out
}

fn map_of(storage: &MemoryStorage, path: &RepoPath, map_size: u64, settings: &Settings) -> BlockMap {
    let file = get(storage, path, u64::MAX >> 1).unwrap().unwrap();
    let map = &file[file.len() - map_size as usize..];
    BlockMap::read(&cipher::decrypt_framed(&settings.rules.cipher, Framing::Raw, map).unwrap(), 8192, 6).unwrap()
}

#[test]
fn block_incremental_chain_rebuilds_every_state() {
    let dir = tempfile::tempdir().unwrap();
    let base = noise(1_000_000);
    let mut changed = base.clone();
    changed[100_000..100_010].fill(1);
    changed[900_000..900_010].fill(1);
    let mut grown = changed.clone();
    grown.extend_from_slice(&noise(50_000));
    let states = [base.clone(), changed, grown, base[..300_001].to_vec()];
    for threads in [1, 4] {
        for (kind, cipher) in
            [(CompressType::None, Cipher::None), (CompressType::Lz4, Cipher::Aes256Cbc(Passphrase::new("x")))]
        {
            let storage = Arc::new(MemoryStorage::new());
            let mut settings = settings(dir.path(), &storage, kind, cipher);
            let mut prior: Option<PriorMap> = None;
            let mut paths = Vec::new();
            for (number, state) in states.iter().enumerate() {
                settings.rules.reference = number as u32;
                std::fs::write(dir.path().join("a"), state).unwrap();
                let block = BlockJob { block_size: 8192, checksum_size: 6, super_block_size: 60_000, prior };
                let path = RepoPath::new(format!("backup{number}")).unwrap();
                let mut job = job(vec![CopyFile { block: Some(block), ..file("a", 1) }], None);
                job.path = path.clone();
                let turn = Slots::new(threads).turn();
                let results = turn.run(|| run_on(&turn, &settings, &job)).unwrap();
                let result = copied(&results[0]);
                let map_size = result.map_size.unwrap();
                assert!(number == 0 || result.size_repo < 200_000, "{number} {}", result.size_repo);
                paths.push(path.clone());
                let map = map_of(&storage, &path, map_size, &settings);
                assert_eq!(rebuild(&storage, &paths, &map, &settings), *state, "{number}");
                prior = Some(PriorMap { path, offset: result.size_repo - map_size, size: map_size });
            }
        }
    }
}

#[test]
fn block_incremental_file_without_change_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(2_500_000);
    std::fs::write(dir.path().join("a"), &content).unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let settings = settings(dir.path(), &storage, CompressType::Zst, Cipher::None);
    let block = BlockJob { block_size: 16_384, checksum_size: 6, super_block_size: 1 << 20, prior: None };
    let size = content.len() as u64;
    let first = CopyFile { block: Some(block.clone()), ..file("a", size) };
    let results = run(&settings, &job(vec![first.clone()], None)).unwrap();
    let result = copied(&results[0]).clone();
    let path = RepoPath::new("file").unwrap();
    let prior = PriorMap { path, offset: result.size_repo - result.map_size.unwrap(), size: result.map_size.unwrap() };
    let second = CopyFile {
        block: Some(BlockJob { prior: Some(prior.clone()), ..block.clone() }),
        has_reference: true,
        checksum: Some(Sha1::of(&content)),
        ..first.clone()
    };
    let mut again = job(vec![second], None);
    // A map of the prior backup can't refer to the new one
    let error = run(&settings, &again).unwrap_err();
    assert!(error.message.ends_with("reference to an unknown backup"), "{error}");
    let settings = Settings { rules: CopyRules { reference: 1, ..settings.rules }, ..settings };
    again.path = RepoPath::new("again").unwrap();
    let results = run(&settings, &again).unwrap();
    assert!(matches!(results[0].outcome, CopyOutcome::Unchanged { .. }));
    assert_eq!(get(&*storage, &again.path, 1).unwrap(), None);

    // A map that is not where the manifest says is an error that names the location
    let wrong = PriorMap { size: prior.size + 5, ..prior };
    let bad = CopyFile { block: Some(BlockJob { prior: Some(wrong), ..block }), ..first };
    let error = run(&settings, &job(vec![bad], None)).unwrap_err();
    assert!(error.message.starts_with("unable to read block map for 'pg_data/a' from "), "{error}");
}

#[test]
fn block_incremental_file_that_became_empty_is_truncated_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), noise(50_000)).unwrap();
    for cipher in [Cipher::None, Cipher::Aes256Cbc(Passphrase::new("x"))] {
        let storage = Arc::new(MemoryStorage::new());
        let settings = settings(dir.path(), &storage, CompressType::Zst, cipher);
        let block = BlockJob { block_size: 8192, checksum_size: 6, super_block_size: 16_384, prior: None };
        let first = CopyFile { block: Some(block.clone()), ..file("a", 50_000) };
        let mut prior_job = job(vec![first.clone()], None);
        prior_job.path = RepoPath::new("prior").unwrap();
        let results = run(&settings, &prior_job).unwrap();
        let result = copied(&results[0]);
        let size = result.map_size.unwrap();
        let prior = PriorMap { path: prior_job.path, offset: result.size_repo - size, size };
        let settings = Settings { rules: CopyRules { reference: 1, ..settings.rules }, ..settings };

        std::fs::write(dir.path().join("b"), b"").unwrap();
        std::fs::write(dir.path().join("c"), b"xyz").unwrap();
        for prior in [None, Some(prior)] {
            let empty = CopyFile {
                has_reference: prior.is_some(),
                block: Some(BlockJob { prior, ..block.clone() }),
                ..file("b", 50_000)
            };
            for bundle_id in [None, Some(1)] {
                let results = run(&settings, &job(vec![empty.clone()], bundle_id)).unwrap();
                assert_eq!(results[0].outcome, CopyOutcome::Truncated);
                assert_eq!(stored(&storage), None, "{bundle_id:?}");
            }
            let results = run(&settings, &job(vec![empty, file("c", 3)], Some(1))).unwrap();
            assert_eq!(results[0].outcome, CopyOutcome::Truncated);
            assert_eq!(copied(&results[1]).bundle_offset, 0);
            settings.storage.remove(&RepoPath::new("file").unwrap()).unwrap();
        }
        // What an interrupted run stored of it is removed
        put(&*storage, &RepoPath::new("file").unwrap(), b"half", WriteOptions::IN_PLACE).unwrap();
        let block = Some(block);
        let resumed =
            CopyFile { method: RESUME, checksum: Some(Sha1::of(b"x")), size_repo: 9, block, ..file("b", 50_000) };
        let results = run(&settings, &job(vec![resumed], None)).unwrap();
        assert_eq!(results[0].outcome, CopyOutcome::Truncated);
        assert_eq!(stored(&storage), None);
    }
}

#[test]
fn job_that_fails_and_finds_no_file_when_tried_again_leaves_nothing() {
    for bundle_id in [None, Some(1)] {
        let (source, repo) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let content = noise(5_000_000);
        std::fs::write(source.path().join("a"), &content).unwrap();
        let mut settings = settings(source.path(), &Arc::new(MemoryStorage::new()), CompressType::None, Cipher::None);
        settings.storage = Arc::new(FaultyStorage::new(Arc::new(PosixStorage::new(repo.path()))).full_after(3_000_000));
        let job = job(vec![file("a", content.len() as u64)], bundle_id);
        assert_eq!(run(&settings, &job).unwrap_err().code, ErrorCode::FileWrite);
        std::fs::remove_file(source.path().join("a")).unwrap();
        assert_eq!(run(&settings, &job).unwrap()[0].outcome, CopyOutcome::Removed);
        assert!(!repo.path().join("file").exists());
    }
}

#[test]
fn resumed_file_that_is_damaged_and_gone_by_now_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(MemoryStorage::new());
    put(&*storage, &RepoPath::new("file").unwrap(), b"hal", WriteOptions::IN_PLACE).unwrap();
    let resumed = CopyFile { method: RESUME, checksum: Some(Sha1::of(b"half")), size_repo: 4, ..file("gone", 4) };
    let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
    assert_eq!(run(&settings, &job(vec![resumed], None)).unwrap()[0].outcome, CopyOutcome::Removed);
    assert_eq!(stored(&storage), None);
}

/// A worker that loses the last byte on the way.
struct Loses<'a>(LocalWorker<'a>);

impl CopyWorker for Loses<'_> {
    fn run(&mut self, job: &CopyJob, store: &mut dyn JobStore, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        struct Short<'a>(&'a mut dyn JobStore);
        impl JobStore for Short<'_> {
            fn write(&mut self, bytes: &[u8]) -> Result<()> {
                self.0.write(&bytes[..bytes.len() - 1])
            }
            fn stored_checksum(&mut self) -> Result<Option<(u64, Sha1)>> {
                self.0.stored_checksum()
            }
            fn prior_map(&mut self, file: &CopyFile) -> Result<Option<BlockMap>> {
                self.0.prior_map(file)
            }
        }
        self.0.run(job, &mut Short(store), cancel)
    }
}

#[test]
fn job_whose_stored_bytes_are_not_those_of_its_results_fails_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"abc").unwrap();
    let storage = Arc::new(MemoryStorage::new());
    let settings = settings(dir.path(), &storage, CompressType::None, Cipher::None);
    let worker = Loses(LocalWorker::new(settings.data_dir.clone(), None, &settings.rules, &Turn::FREE));
    let mut copier = Copier::new(&settings.rules, OnTurn::new(&*settings.storage, &Turn::FREE), Box::new(worker));
    let error = copier.run(&job(vec![file("a", 3)], None), &CancelToken::new()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Assert);
    assert_eq!(stored(&storage), None);
}
