use std::sync::Arc;
use std::time::{Duration, Instant};

use repo_format::cipher::{Cipher, Passphrase};
use repo_format::compress::CompressType;
use repo_format::layout::RepoPath;

use super::*;
use crate::storage::faulty::{FaultyStorage, Op};
use crate::storage::memory::MemoryStorage;
use crate::storage::{self, ReadRange, RepoStorage, WriteOptions};
use crate::{ErrorCode, Repo};

const NOW: u32 = 1_800_000_000;
const DAY: u32 = 86400;

fn check(path: &str) -> FileCheck {
    FileCheck {
        path: RepoPath::new(path).unwrap(),
        range: ReadRange::default(),
        cipher: Cipher::None,
        compress_type: CompressType::None,
        checksum: Sha1::of(b"x"),
        size: Some(7),
        block: None,
    }
}

fn key(name: &str) -> FileKey {
    FileKey::of(&check(name), Some(StoredState { size: 7, modified: 1 }))
}

fn earlier(time: u32) -> Knowledge {
    Knowledge::Earlier { time, is_bad: false }
}

const UNKNOWN: Knowledge = Knowledge::Earlier { time: 0, is_bad: false };
const BAD: Knowledge = Knowledge::Earlier { time: 0, is_bad: true };

fn repo(storage: impl RepoStorage + 'static, cipher: Cipher) -> Repo {
    Repo { key: 1, storage: Arc::new(storage), cipher }
}

fn load(repo: &Repo) -> (Keeper<'_>, Memory) {
    Keeper::load(repo, &"demo".parse().unwrap(), NOW).unwrap()
}

fn files(repo: &Repo) -> Vec<String> {
    repo.storage.names(&RepoPath::new("proof/demo/verified").unwrap()).unwrap().unwrap_or_default()
}

#[test]
fn key_depends_on_everything_that_a_result_depends_on() {
    let state = Some(StoredState { size: 7, modified: 1 });
    let original = FileKey::of(&check("a"), state);
    assert_eq!(original, FileKey::of(&check("a"), state));
    let range = |offset, limit| FileCheck { range: ReadRange { offset, limit }, ..check("a") };
    let mut keys = vec![
        original,
        FileKey::of(&check("b"), state),
        FileKey::of(&FileCheck { checksum: Sha1::of(b"y"), ..check("a") }, state),
        FileKey::of(&FileCheck { size: Some(8), ..check("a") }, state),
        FileKey::of(&FileCheck { size: None, ..check("a") }, state),
        FileKey::of(&range(1, None), state),
        FileKey::of(&range(1, Some(7)), state),
        FileKey::of(&check("a"), None),
        FileKey::of(&check("a"), Some(StoredState { size: 8, modified: 1 })),
        FileKey::of(&check("a"), Some(StoredState { size: 7, modified: 2 })),
        FileKey::of(&check("a"), Some(StoredState { size: 7, modified: -1 })),
    ];
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 11);
}

#[test]
fn records_are_read_back_from_an_encrypted_repository() {
    let repo = repo(MemoryStorage::new(), Cipher::Aes256Cbc(Passphrase::new("secret")));
    let (mut keeper, mut memory) = load(&repo);
    assert_eq!(memory.look_up(&key("a")), UNKNOWN);
    memory.record(key("a"), NOW - DAY, None);
    memory.record(key("b"), NOW - 2 * DAY, Some(FileFault::Checksum));
    assert_eq!(memory.look_up(&key("b")), Knowledge::Now(Some(FileFault::Checksum)));
    keeper.save_all(&memory).unwrap();
    let (_, mut memory) = load(&repo);
    assert_eq!((memory.look_up(&key("a")), memory.look_up(&key("b"))), (earlier(NOW - DAY), BAD));
    let path = RepoPath::new(format!("proof/demo/verified/{}", files(&repo)[0])).unwrap();
    let stored = storage::get(&*repo.storage, &path, 1 << 20).unwrap().unwrap();
    assert!(stored.starts_with(repo_format::cipher::MAGIC));
}

#[test]
fn runs_of_two_hosts_at_once_keep_the_records_of_both_and_the_failure() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    memory.record(key("both"), NOW - 9, None);
    keeper.save_all(&memory).unwrap();

    let ((mut keeper_a, mut a), (mut keeper_b, mut b)) = (load(&repo), load(&repo));
    for memory in [&mut a, &mut b] {
        memory.look_up(&key("both"));
    }
    a.record(key("a"), NOW - 5, None);
    b.record(key("b"), NOW - 5, None);
    b.record(key("both"), NOW - 5, Some(FileFault::Missing));
    keeper_b.save_all(&b).unwrap();
    // The first still believes that the file is good
    keeper_a.save_all(&a).unwrap();
    assert_eq!(files(&repo).len(), 2);
    let (mut keeper, mut memory) = load(&repo);
    let known = ["a", "b", "both"].map(|name| memory.look_up(&key(name)));
    assert_eq!(known, [earlier(NOW - 5), earlier(NOW - 5), BAD]);
    keeper.save_all(&memory).unwrap();
    assert_eq!(files(&repo).len(), 1);
}

#[test]
fn record_of_a_file_that_is_gone_is_dropped() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    memory.record(key("a"), NOW - 9, None);
    memory.record(key("gone"), NOW - 9, None);
    keeper.save_all(&memory).unwrap();
    let (mut keeper, mut memory) = load(&repo);
    memory.look_up(&key("a"));
    keeper.save_all(&memory).unwrap();
    assert_eq!(load(&repo).1.look_up(&key("gone")), UNKNOWN);
    assert_eq!(load(&repo).1.look_up(&key("a")), earlier(NOW - 9));
}

#[test]
fn run_that_was_killed_leaves_what_it_had_read_and_what_was_there() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    memory.record(key("a"), NOW - 9, None);
    keeper.save_all(&memory).unwrap();
    {
        let (mut killed, mut memory) = load(&repo);
        memory.record(key("b"), NOW - 5, None);
        killed.save_new(&memory);
        memory.record(key("c"), NOW - 4, None);
        killed.save_new(&memory);
    }
    assert_eq!(files(&repo).len(), 2);
    let (_, mut memory) = load(&repo);
    let known = ["a", "b", "c"].map(|name| memory.look_up(&key(name)));
    assert_eq!(known, [earlier(NOW - 9), earlier(NOW - 5), earlier(NOW - 4)]);
}

#[test]
fn damaged_records_mean_that_nothing_is_known_and_are_replaced() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    memory.record(key("a"), NOW - 9, None);
    keeper.save_all(&memory).unwrap();
    let good = RepoPath::new(format!("proof/demo/verified/{}", files(&repo)[0])).unwrap();
    let bytes = storage::get(&*repo.storage, &good, 1 << 20).unwrap().unwrap();
    let other = RepoPath::new("proof/demo/verified/other.bin").unwrap();
    let mut damages = vec![Vec::new(), b"x".to_vec(), vec![0; 100], [&bytes[..], b"x"].concat()];
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[index] ^= 0x10;
        damages.push(damaged);
        damages.push(bytes[..index].to_vec());
    }
    for damaged in damages {
        storage::put(&*repo.storage, &other, &damaged, WriteOptions::ATOMIC).unwrap();
        assert_eq!(load(&repo).1.look_up(&key("a")), UNKNOWN);
    }
    let (mut keeper, mut memory) = load(&repo);
    memory.record(key("b"), NOW, None);
    keeper.save_all(&memory).unwrap();
    assert_eq!((files(&repo).len(), load(&repo).1.look_up(&key("b"))), (1, earlier(NOW)));
}

#[test]
fn numbers_of_a_stored_form_that_lie_are_an_error_and_take_no_memory() {
    for groups in [1, u32::MAX] {
        let mut bytes = b"RBRVFY1\n".to_vec();
        bytes.extend(groups.to_le_bytes());
        bytes.extend([0, 0, 0, 1, 0]);
        bytes.extend(u32::MAX.to_le_bytes());
        bytes.extend(Sha1::of(&bytes).0);
        let error = format::decode(&bytes, NOW, &mut Memory::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
    }
}

#[test]
fn record_of_a_clock_that_was_ahead_does_not_count() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    memory.record(key("a"), NOW + DAY, None);
    memory.record(key("b"), NOW + 10, None);
    keeper.save_all(&memory).unwrap();
    let (_, mut memory) = load(&repo);
    assert_eq!([key("a"), key("b")].map(|key| memory.look_up(&key)), [UNKNOWN, earlier(NOW + 10)]);
}

#[test]
fn records_that_can_not_be_written_are_an_error_and_the_earlier_ones_stay() {
    let memory_storage = MemoryStorage::new();
    let good = repo(memory_storage.clone(), Cipher::None);
    let (mut keeper, mut memory) = load(&good);
    memory.record(key("a"), NOW - 9, None);
    keeper.save_all(&memory).unwrap();
    let faulty = FaultyStorage::new(Arc::new(memory_storage)).fail_path(Op::Write, "proof/demo");
    let faulty = repo(faulty, Cipher::None);
    let (mut keeper, mut memory) = load(&faulty);
    memory.record(key("a"), NOW, None);
    keeper.save_all(&memory).unwrap_err();
    keeper.save_new(&memory);
    assert_eq!(load(&good).1.look_up(&key("a")), earlier(NOW - 9));
}

#[test]
fn bad_file_is_read_whatever_the_limits_are() {
    let nothing = Cutoff { time: 0, bytes: 0 };
    let mut limits = Limits { cutoff: Some(nothing), fresh_from: Some(1), ..Limits::default() };
    limits.deadline = Some(Instant::now());
    assert_eq!(limits.decide(BAD, 5), Decision::Read);
    assert_eq!(limits.decide(UNKNOWN, 5), Decision::Left);
    assert_eq!(limits.decide(earlier(NOW), 5), Decision::Known(None));
    assert_eq!(limits.decide(Knowledge::Now(Some(FileFault::Size)), 5), Decision::Known(Some(FileFault::Size)));
}

#[test]
fn file_is_read_again_when_it_was_read_long_enough_ago() {
    let mut limits = Limits { fresh_from: Some(NOW - 7 * DAY), ..Limits::default() };
    assert_eq!(limits.decide(UNKNOWN, 1), Decision::Read);
    assert_eq!(limits.decide(earlier(NOW - 7 * DAY), 2), Decision::Read);
    assert_eq!(limits.decide(earlier(NOW - 7 * DAY + 1), 4), Decision::Known(None));
    assert_eq!(limits.decide(earlier(NOW - DAY), 8), Decision::Known(None));
    let figures = limits.figures;
    assert_eq!(
        (figures.read, figures.remembered),
        (ReadAmount { files: 2, bytes: 3 }, ReadAmount { files: 2, bytes: 12 })
    );
    assert_eq!(figures.oldest, Some(i64::from(NOW - 7 * DAY + 1)));
    // Without limits, everything is read
    assert_eq!(Limits::default().decide(earlier(NOW), 1), Decision::Read);
}

/// The times of the files that are read of these, in order, with a limit in bytes. Each has 10 bytes.
fn read_of(times: &[u32], bytes: u64, fresh_from: Option<u32>) -> Vec<u32> {
    let mut survey = Survey::default();
    for &time in times {
        survey.add(earlier(time), 10, fresh_from);
    }
    let mut limits = Limits { cutoff: survey.take(bytes), fresh_from, ..Limits::default() };
    times.iter().copied().filter(|&time| limits.decide(earlier(time), 10) == Decision::Read).collect()
}

#[test]
fn limit_in_bytes_reads_the_files_that_were_read_longest_ago() {
    let times = [500, 0, 300, 100, 0, 300, 400];
    assert_eq!(read_of(&times, 0, None), [0; 0]);
    assert_eq!(read_of(&times, 10, None), [0]);
    assert_eq!(read_of(&times, 30, None), [0, 100, 0]);
    assert_eq!(read_of(&times, 40, None), [0, 300, 100, 0]);
    assert_eq!(read_of(&times, 70, None), times);
    assert_eq!(read_of(&times, 70, Some(300)), [0, 300, 100, 0, 300]);
    // The last file may exceed it, so that a large one is read some day
    assert_eq!(read_of(&times, 5, None), [0]);
}

#[test]
fn survey_goes_on_where_it_ended() {
    let mut survey = Survey::default();
    for time in [0, 0, 100, 200] {
        survey.add(earlier(time), 10, None);
    }
    assert_eq!(survey.take(15), Some(Cutoff { time: 0, bytes: 15 }));
    assert_eq!(survey.take(10), Some(Cutoff { time: 100, bytes: 5 }));
    assert_eq!(survey.take(u64::MAX), None);
}

#[test]
fn nothing_is_read_after_the_deadline() {
    let deadline = Instant::now().checked_add(Duration::from_secs(600));
    let mut limits = Limits { deadline, ..Limits::default() };
    assert_eq!(limits.decide(UNKNOWN, 1), Decision::Read);
    limits.deadline = Some(Instant::now());
    assert_eq!((limits.decide(UNKNOWN, 1), limits.decide(earlier(5), 1)), (Decision::Left, Decision::Known(None)));
    assert_eq!((limits.figures.never.files, limits.figures.due.files), (1, 1));
}

#[test]
fn many_files_need_twelve_bytes_each() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    for number in 0..20_000u32 {
        memory.record(key(&format!("backup/demo/20260101-000000F/pg_data/base/5/{number}")), NOW - number % 60, None);
    }
    keeper.save_all(&memory).unwrap();
    assert_eq!(load(&repo).1.records.len(), 20_000);
    let path = RepoPath::new(format!("proof/demo/verified/{}", files(&repo)[0])).unwrap();
    let size = repo.storage.info(&path).unwrap().unwrap().size;
    assert!((240_000..241_000).contains(&size), "{size}");
}
