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
        stored_size: None,
        block: None,
    }
}

fn key(name: &str) -> FileKey {
    FileKey::of(&check(name))
}

const STATE: StoredState = StoredState { size: 7, modified: 1 };

fn earlier(time: u32) -> Knowledge {
    Knowledge::Earlier { time, standing: EarlierStanding::Good }
}

const fn open(time: u32) -> Knowledge {
    Knowledge::Earlier { time, standing: EarlierStanding::Open }
}

const UNKNOWN: Knowledge = open(0);
const BAD: Knowledge = Knowledge::Earlier { time: 0, standing: EarlierStanding::Suspect };

/// What is known about a file that still has the same size and time.
fn known(memory: &mut Memory, name: &str) -> Knowledge {
    memory.look_up(&key(name), Shown::Listed(STATE))
}

fn add(memory: &mut Memory, name: &str, time: u32, fault: Option<FileFault>) {
    memory.record(key(name), (time, Some(StateMark::of(STATE))), fault);
}

fn save(keeper: &mut Keeper<'_>, memory: &Memory) {
    keeper.save_all(memory, Unseen::Forget).unwrap();
}

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
fn key_depends_on_everything_that_is_expected_of_a_file() {
    let original = FileKey::of(&check("a"));
    assert_eq!(original, FileKey::of(&check("a")));
    let range = |offset, limit| FileCheck { range: ReadRange { offset, limit }, ..check("a") };
    let mut keys = vec![
        original,
        FileKey::of(&check("b")),
        FileKey::of(&FileCheck { checksum: Sha1::of(b"y"), ..check("a") }),
        FileKey::of(&FileCheck { size: Some(8), ..check("a") }),
        FileKey::of(&FileCheck { size: None, ..check("a") }),
        FileKey::of(&range(1, None)),
        FileKey::of(&range(1, Some(7))),
    ];
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 7);
}

#[test]
fn file_that_is_missing_or_has_another_size_is_read_whatever_the_limits_are() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "a", NOW - 9, None);
    add(&mut memory, "bad", NOW - 9, Some(FileFault::Checksum));
    save(&mut keeper, &memory);
    let mut memory = load(&repo).1;
    let listed = |size, modified| Shown::Listed(StoredState { size, modified });
    for (name, shown, expected) in [
        ("a", listed(7, 1), earlier(NOW - 9)),
        ("a", Shown::Missing, BAD),
        ("a", listed(6, 1), BAD),
        ("a", listed(7 << 32, 1), BAD),
        // A copy of a repository may have other times
        ("a", listed(7, 2), UNKNOWN),
        ("a", listed(7, -1), UNKNOWN),
        ("a", Shown::Unknown, open(NOW - 9)),
        ("bad", Shown::Unknown, BAD),
        ("bad", listed(9, 9), BAD),
        ("never read", listed(7, 1), UNKNOWN),
        ("never read", Shown::Unknown, UNKNOWN),
        ("never read", Shown::Missing, BAD),
    ] {
        assert_eq!(memory.look_up(&key(name), shown), expected, "{name} {shown:?}");
    }
    // Nothing else has room
    let nothing = Cutoff { time: 0, bytes: 0 };
    let mut limits = Limits { cutoff: Some(nothing), fresh_from: Some(1), ..Limits::default() };
    limits.deadline = Some(Instant::now());
    for (known, expected) in [(BAD, Decision::Read), (open(5), Decision::Left), (UNKNOWN, Decision::Left)] {
        assert_eq!(limits.decide(known, 5), expected);
    }
}

#[test]
fn file_whose_directory_can_not_be_listed_takes_its_turn_and_never_counts_as_good() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    memory.record(key("a"), (NOW - 9, None), None);
    assert_eq!(memory.look_up(&key("a"), Shown::Unknown), Knowledge::Now(None), "other passes of this run know it");
    save(&mut keeper, &memory);
    let mut memory = load(&repo).1;
    assert_eq!(memory.look_up(&key("a"), Shown::Unknown), open(NOW - 9));
    assert_eq!(known(&mut memory, "a"), open(NOW - 9), "its size was not known when it was read");
    // It does not use up the limit of those that were never read
    let mut survey = Survey::default();
    survey.add(open(NOW - 9), 10, Some(NOW - DAY));
    survey.add(UNKNOWN, 10, Some(NOW - DAY));
    assert_eq!(survey.take(10), Some(Cutoff { time: NOW - 9, bytes: 0 }));
}

#[test]
fn records_of_what_could_not_be_listed_or_read_are_kept() {
    for (unseen, expected) in [
        (Unseen::Forget, [UNKNOWN, UNKNOWN]),
        (Unseen::KeepBad, [UNKNOWN, BAD]),
        (Unseen::KeepAll, [earlier(NOW - 9), BAD]),
    ] {
        let repo = repo(MemoryStorage::new(), Cipher::None);
        let (mut keeper, mut memory) = load(&repo);
        add(&mut memory, "good", NOW - 9, None);
        add(&mut memory, "bad", NOW - 9, Some(FileFault::Size));
        save(&mut keeper, &memory);
        let (mut keeper, memory) = load(&repo);
        keeper.save_all(&memory, unseen).unwrap();
        let mut memory = load(&repo).1;
        assert_eq!(["good", "bad"].map(|name| known(&mut memory, name)), expected, "{unseen:?}");
    }
}

#[test]
fn damaged_records_of_good_files_do_not_lose_those_of_bad_ones() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "good", NOW - 9, None);
    add(&mut memory, "bad", NOW - 9, Some(FileFault::Size));
    save(&mut keeper, &memory);
    let [bad, good] = <[String; 2]>::try_from(files(&repo)).unwrap();
    assert!(bad.ends_with(".bad") && good.ends_with(".bin"));
    damage(&repo, &good);
    let (mut keeper, mut memory) = load(&repo);
    assert_eq!(keeper.faults.len(), 1);
    assert_eq!(["good", "bad"].map(|name| known(&mut memory, name)), [UNKNOWN, BAD]);
    // Even if the next run does not read it
    save(&mut keeper, &memory);
    let (keeper, mut memory) = load(&repo);
    assert_eq!((keeper.faults.len(), known(&mut memory, "bad")), (0, BAD));
}

#[test]
fn damaged_records_of_bad_files_are_used_as_far_as_they_go_and_no_file_counts_as_good() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "good", NOW - 9, None);
    add(&mut memory, "bad", NOW - 9, Some(FileFault::Size));
    save(&mut keeper, &memory);
    damage(&repo, &files(&repo)[0]);
    let (mut keeper, mut memory) = load(&repo);
    assert_eq!(keeper.faults.len(), 1);
    assert_eq!(["good", "bad"].map(|name| known(&mut memory, name)), [UNKNOWN, BAD]);
    save(&mut keeper, &memory);
    assert_eq!(known(&mut load(&repo).1, "bad"), BAD);
}

/// Changes the checksum at the end of a file of records.
fn damage(repo: &Repo, name: &str) {
    let path = RepoPath::new(format!("proof/demo/verified/{name}")).unwrap();
    let mut bytes = storage::get(&*repo.storage, &path, 1 << 20).unwrap().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    storage::put(&*repo.storage, &path, &bytes, WriteOptions::ATOMIC).unwrap();
}

#[test]
fn records_that_can_not_be_read_are_kept_and_those_of_bad_files_let_none_count_as_good() {
    let inner = MemoryStorage::new();
    let readable = repo(inner.clone(), Cipher::None);
    let (mut keeper, mut memory) = load(&readable);
    add(&mut memory, "good", NOW - 9, None);
    add(&mut memory, "bad", NOW - 9, Some(FileFault::Size));
    save(&mut keeper, &memory);
    for (suffix, expected) in [(".bin", [UNKNOWN, BAD]), (".bad", [open(NOW - 9), UNKNOWN])] {
        let faulty = repo(FaultyStorage::new(Arc::new(inner.clone())).fail_path(Op::Read, suffix), Cipher::None);
        let (mut keeper, mut memory) = load(&faulty);
        assert_eq!(keeper.faults.len(), 1, "{suffix}");
        assert_eq!(["good", "bad"].map(|name| known(&mut memory, name)), expected, "{suffix}");
        save(&mut keeper, &memory);
        let mut memory = load(&readable).1;
        assert_eq!(["good", "bad"].map(|name| known(&mut memory, name)), [earlier(NOW - 9), BAD], "{suffix}");
    }
}

#[test]
fn success_of_a_clock_that_is_ahead_does_not_hide_a_later_failure() {
    let state = Some(StateMark::of(STATE));
    let (good, bad) = (|time| Record::earlier(time, state, false), |time| Record::earlier(time, None, true));
    for (records, expected) in [
        ([good(NOW + 250), bad(NOW)], BAD),
        ([bad(NOW), good(NOW + 250)], BAD),
        ([bad(NOW - 301), good(NOW)], earlier(NOW)),
        ([good(NOW), bad(NOW - 301)], earlier(NOW)),
    ] {
        let mut memory = Memory::default();
        records.into_iter().for_each(|record| memory.recall(key("a"), record));
        assert_eq!(known(&mut memory, "a"), expected);
    }
}

#[test]
fn directory_with_the_name_of_a_file_of_records_is_ignored() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "a", NOW - 9, None);
    save(&mut keeper, &memory);
    let inside = RepoPath::new("proof/demo/verified/x.bin/y").unwrap();
    storage::put(&*repo.storage, &inside, b"x", WriteOptions::ATOMIC).unwrap();
    let (mut keeper, mut memory) = load(&repo);
    assert_eq!((keeper.faults.len(), known(&mut memory, "a")), (0, earlier(NOW - 9)));
    keeper.save_all(&memory, Unseen::Forget).unwrap();
}

#[test]
fn records_are_read_back_from_an_encrypted_repository() {
    let repo = repo(MemoryStorage::new(), Cipher::Aes256Cbc(Passphrase::new("secret")));
    let (mut keeper, mut memory) = load(&repo);
    assert_eq!(known(&mut memory, "a"), UNKNOWN);
    add(&mut memory, "a", NOW - DAY, None);
    add(&mut memory, "b", NOW - 2 * DAY, Some(FileFault::Checksum));
    assert_eq!(known(&mut memory, "b"), Knowledge::Now(Some(FileFault::Checksum)));
    save(&mut keeper, &memory);
    let (_, mut memory) = load(&repo);
    assert_eq!((known(&mut memory, "a"), known(&mut memory, "b")), (earlier(NOW - DAY), BAD));
    let path = RepoPath::new(format!("proof/demo/verified/{}", files(&repo)[0])).unwrap();
    let stored = storage::get(&*repo.storage, &path, 1 << 20).unwrap().unwrap();
    assert!(stored.starts_with(repo_format::cipher::MAGIC));
}

#[test]
fn runs_of_two_hosts_at_once_keep_the_records_of_both_and_the_failure() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "both", NOW - 9, None);
    save(&mut keeper, &memory);

    let ((mut keeper_a, mut a), (mut keeper_b, mut b)) = (load(&repo), load(&repo));
    for memory in [&mut a, &mut b] {
        known(memory, "both");
    }
    add(&mut a, "a", NOW - 5, None);
    add(&mut b, "b", NOW - 5, None);
    add(&mut b, "both", NOW - 5, Some(FileFault::Missing));
    save(&mut keeper_b, &b);
    // The first still believes that the file is good
    save(&mut keeper_a, &a);
    assert_eq!(files(&repo).len(), 3, "one of them with the failure");
    let (mut keeper, mut memory) = load(&repo);
    let known = ["a", "b", "both"].map(|name| known(&mut memory, name));
    assert_eq!(known, [earlier(NOW - 5), earlier(NOW - 5), BAD]);
    save(&mut keeper, &memory);
    assert_eq!(files(&repo).len(), 2);
}

#[test]
fn record_of_a_file_that_is_gone_is_dropped() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "a", NOW - 9, None);
    add(&mut memory, "gone", NOW - 9, None);
    save(&mut keeper, &memory);
    let (mut keeper, mut memory) = load(&repo);
    known(&mut memory, "a");
    save(&mut keeper, &memory);
    assert_eq!(known(&mut load(&repo).1, "gone"), UNKNOWN);
    assert_eq!(known(&mut load(&repo).1, "a"), earlier(NOW - 9));
}

#[test]
fn run_that_was_killed_leaves_what_it_had_read_and_what_was_there() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "a", NOW - 9, None);
    save(&mut keeper, &memory);
    {
        let (mut killed, mut memory) = load(&repo);
        add(&mut memory, "b", NOW - 5, None);
        killed.save_new(&memory);
        add(&mut memory, "c", NOW - 4, None);
        killed.save_new(&memory);
    }
    assert_eq!(files(&repo).len(), 2);
    let (_, mut memory) = load(&repo);
    let known = ["a", "b", "c"].map(|name| known(&mut memory, name));
    assert_eq!(known, [earlier(NOW - 9), earlier(NOW - 5), earlier(NOW - 4)]);
}

#[test]
fn damaged_records_do_not_count_and_are_replaced() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "a", NOW - 9, None);
    save(&mut keeper, &memory);
    let good = RepoPath::new(format!("proof/demo/verified/{}", files(&repo)[0])).unwrap();
    let bytes = storage::get(&*repo.storage, &good, 1 << 20).unwrap().unwrap();
    repo.storage.remove(&good).unwrap();
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
        let (keeper, mut memory) = load(&repo);
        assert_eq!((keeper.faults.len(), known(&mut memory, "a")), (1, UNKNOWN));
    }
    let (mut keeper, mut memory) = load(&repo);
    add(&mut memory, "b", NOW, None);
    save(&mut keeper, &memory);
    assert_eq!((files(&repo).len(), known(&mut load(&repo).1, "b")), (1, earlier(NOW)));
}

#[test]
fn numbers_of_a_stored_form_that_lie_are_an_error_and_take_no_memory() {
    for groups in [1, u32::MAX] {
        let mut bytes = b"RBRVFY2\n".to_vec();
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
    add(&mut memory, "a", NOW + DAY, None);
    add(&mut memory, "b", NOW + 10, None);
    save(&mut keeper, &memory);
    let (_, mut memory) = load(&repo);
    assert_eq!(["a", "b"].map(|name| known(&mut memory, name)), [UNKNOWN, earlier(NOW + 10)]);
}

#[test]
fn records_that_can_not_be_written_are_an_error_and_the_earlier_ones_stay() {
    let memory_storage = MemoryStorage::new();
    let good = repo(memory_storage.clone(), Cipher::None);
    let (mut keeper, mut memory) = load(&good);
    add(&mut memory, "a", NOW - 9, None);
    save(&mut keeper, &memory);
    let faulty = FaultyStorage::new(Arc::new(memory_storage)).fail_path(Op::Write, "proof/demo");
    let faulty = repo(faulty, Cipher::None);
    let (mut keeper, mut memory) = load(&faulty);
    add(&mut memory, "a", NOW, None);
    keeper.save_all(&memory, Unseen::Forget).unwrap_err();
    keeper.save_new(&memory);
    assert_eq!(known(&mut load(&good).1, "a"), earlier(NOW - 9));
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
fn many_files_need_twenty_bytes_each() {
    let repo = repo(MemoryStorage::new(), Cipher::None);
    let (mut keeper, mut memory) = load(&repo);
    for number in 0..20_000u32 {
        let name = format!("backup/demo/20260101-000000F/pg_data/base/5/{number}");
        add(&mut memory, &name, NOW - number % 60, None);
    }
    save(&mut keeper, &memory);
    assert_eq!(load(&repo).1.records.len(), 20_000);
    let path = RepoPath::new(format!("proof/demo/verified/{}", files(&repo)[0])).unwrap();
    let size = repo.storage.info(&path).unwrap().unwrap().size;
    assert!((400_000..401_000).contains(&size), "{size}");
}
