//! Claims of several hosts on one repository in memory.

use std::sync::atomic::{AtomicU32, Ordering};

use object_store::memory::InMemory;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{Cipher, Passphrase};
use repo_format::pg::PgVersion;

use super::*;
use crate::storage::faulty::{FaultyStorage, Op};
use crate::storage::memory::MemoryStorage;
use crate::storage::object::ObjectStorage;
use crate::storage::{RepoStorage, WriteOptions, put};

const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(5);

fn stanza() -> Stanza {
    "demo".parse().unwrap()
}

/// A repository with a stanza.
fn repo(passphrase: Option<&str>) -> (MemoryStorage, Repo) {
    let storage = MemoryStorage::new();
    let passphrase = passphrase.map(Passphrase::new);
    let repo =
        Repo { key: 1, storage: Arc::new(storage.clone()), cipher: Cipher::from_passphrase(passphrase.as_ref()) };
    let info = BackupInfo::new(PgVersion::V15, 7, 202_209_061, passphrase).unwrap();
    info_files::save_backup_info(&repo, &stanza(), &info).unwrap();
    (storage, repo)
}

const RENEWING: Timing = Timing { interval: SOON, patience: NEVER, trusted: NEVER, look: SOON };
const SILENT: Timing = Timing { interval: NEVER, patience: NEVER, trusted: NEVER, look: SOON };
const IMPATIENT: Timing = Timing { interval: NEVER, patience: Duration::from_millis(40), trusted: SOON, look: SOON };

fn acquire(repo: &Repo, who: &Claimant) -> Result<Claim> {
    Claim::acquire(repo, &stanza(), who, "backup", &CancelToken::new())
}

fn claims(storage: &MemoryStorage) -> Vec<String> {
    storage.paths().into_iter().filter(|path| path.contains(format::CLAIM_PREFIX)).collect()
}

#[test]
fn claim_is_given_back_when_dropped_and_needs_a_stanza() {
    let (storage, repo) = repo(Some("secret"));
    let claim = acquire(&repo, &Claimant::on_host("a", RENEWING)).unwrap();
    assert_eq!(claims(&storage), ["backup/demo/backup.claim.77-a"]);
    claim.check().unwrap();
    drop(claim);
    assert!(claims(&storage).is_empty());
    let missing = "other".parse().unwrap();
    let error = Claim::acquire(&repo, &missing, &Claimant::on_host("a", RENEWING), "backup", &CancelToken::new())
        .err()
        .unwrap();
    assert_eq!(error.code, ErrorCode::FileMissing);
    assert!(claims(&storage).is_empty());
}

#[test]
fn claim_that_is_renewed_elsewhere_is_refused_and_says_by_whom() {
    let (storage, repo) = repo(Some("secret"));
    let _first = acquire(&repo, &Claimant::on_host("a", RENEWING)).unwrap();
    let error = acquire(&repo, &Claimant::on_host("b", RENEWING)).err().unwrap();
    assert_eq!(error.code, ErrorCode::LockAcquire);
    assert!(error.message.contains("backup on host 'a' (process 77, since 2"), "{error}");
    assert_eq!(claims(&storage), ["backup/demo/backup.claim.77-a"]);
}

#[test]
fn claim_that_is_not_renewed_elsewhere_is_taken_and_its_holder_notices() {
    let (storage, repo) = repo(None);
    let silent = acquire(&repo, &Claimant::on_host("a", SILENT)).unwrap();
    let label = "20260101-000000F".parse().unwrap();
    silent.mark(&label).unwrap();
    let guarded = silent.guard(&repo);
    let file = RepoPath::new("backup/demo/x").unwrap();
    put(&*guarded.storage, &file, b"1", WriteOptions::ATOMIC).unwrap();
    let _second = acquire(&repo, &Claimant::on_host("b", IMPATIENT)).unwrap();
    assert_eq!(silent.check().unwrap_err().code, ErrorCode::LockAcquire);
    // From then on it refuses changes
    assert!(put(&*guarded.storage, &file, b"2", WriteOptions::ATOMIC).is_err());
    assert!(guarded.storage.remove(&file).is_err());
    assert_eq!(storage::get(&storage, &file, 9).unwrap().unwrap(), b"1");
    // And does not come back
    assert!(silent.lease.renew().is_err());
    assert!(!claims(&storage).contains(&"backup/demo/backup.claim.77-a".to_owned()));
}

/// Renews a claim of host a. Calls `meanwhile` between the check and the write of the renewal.
fn renewed_late(meanwhile: impl Fn(&MemoryStorage) + Send + Sync + 'static) -> (MemoryStorage, Result<()>) {
    let (storage, repo) = repo(None);
    let there = storage.clone();
    let looked = AtomicU32::new(0);
    let stalls = FaultyStorage::new(Arc::new(storage.clone())).after(move |op, path| {
        // The first check concerns the claim that was just written
        if op == Op::Info && path.as_str().contains(format::CLAIM_PREFIX) && looked.fetch_add(1, Ordering::SeqCst) == 0
        {
            meanwhile(&there);
            std::thread::sleep(2 * SOON);
        }
    });
    let repo = Repo { storage: Arc::new(stalls), ..repo };
    let timing = Timing { trusted: SOON, ..SILENT };
    let claim = acquire(&repo, &Claimant::on_host("a", timing)).unwrap();
    let renewed = claim.lease.renew();
    claim.leave();
    (storage, renewed)
}

#[test]
fn claim_renewed_late_is_lost_when_another_has_one() {
    let other = || format::stanza_claim(&stanza(), "9-b").unwrap();
    let (storage, renewed) = renewed_late(move |storage| {
        storage.remove(&format::stanza_claim(&stanza(), "77-a").unwrap()).unwrap();
        put(storage, &other(), b"x", WriteOptions::ATOMIC).unwrap();
    });
    assert_eq!(renewed.unwrap_err().code, ErrorCode::LockAcquire);
    // The late write did not leave a claim behind
    assert_eq!(claims(&storage), [other().as_str()]);
}

#[test]
fn claim_renewed_late_is_kept_when_nobody_else_has_one() {
    let (storage, renewed) = renewed_late(|_| {});
    renewed.unwrap();
    assert_eq!(claims(&storage).len(), 1);
}

#[test]
fn claim_that_takes_too_long_to_renew_is_not_relied_on() {
    let (storage, repo) = repo(None);
    let slow = FaultyStorage::new(Arc::new(storage)).before(|_, _| std::thread::sleep(SOON));
    let repo = Repo { storage: Arc::new(slow), ..repo };
    let claim = acquire(&repo, &Claimant::on_host("a", Timing { trusted: SOON, ..SILENT })).unwrap();
    assert!(claim.lease.ensure().unwrap_err().message.starts_with("unable to renew claim"));
}

#[test]
fn name_that_the_store_refuses_is_refused_under_a_claim() {
    let (_, repo) = repo(None);
    let claim = acquire(&repo, &Claimant::on_host("a", SILENT)).unwrap();
    let inner = ObjectStorage::new(Arc::new(InMemory::new()), "/repo", 1 << 20, &[]).unwrap();
    let refused = RepoPath::new(format!("backup/demo/{}", "a".repeat(1024))).unwrap();
    let expected = inner.check_name(&refused).unwrap_err();
    let guarded = claim.guard(&Repo { storage: Arc::new(inner), ..repo.clone() });
    assert_eq!(guarded.storage.check_name(&refused).unwrap_err().message, expected.message);
}

#[test]
fn claim_of_a_process_of_this_host_that_is_gone_is_taken_at_once() {
    let (storage, repo) = repo(None);
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let process_id = i32::try_from(child.id()).unwrap();
    child.wait().unwrap();
    let me = Claimant { timing: RENEWING, ..Claimant::this_process("1-me") };
    let gone = Claimant {
        exec_id: "1-gone".into(),
        holder: Holder { process_id, process_start: 1, ..me.holder.clone() },
        timing: SILENT,
    };
    acquire(&repo, &gone).unwrap().leave();
    assert_eq!(claims(&storage).len(), 1);
    let claim = acquire(&repo, &me).unwrap();
    assert_eq!(claims(&storage), ["backup/demo/backup.claim.1-me"]);
    // A command that another starts in the same process joins the claim
    let joined = Claim::join(&repo, &stanza(), &me, "expire", &CancelToken::new()).unwrap();
    joined.check().unwrap();
    drop(joined);
    claim.check().unwrap();
}

#[test]
fn claim_that_can_not_be_read_is_watched_and_not_ignored() {
    let (storage, repo) = repo(Some("secret"));
    let path = format::stanza_claim(&stanza(), "9-x").unwrap();
    put(&storage, &path, b"not encrypted", WriteOptions::ATOMIC).unwrap();
    let storing = storage.clone();
    let stop = CancelToken::new();
    let (token, changing) = (stop.clone(), path.clone());
    let writer = std::thread::spawn(move || {
        for beat in 0_u64.. {
            if token.is_cancelled() {
                return;
            }
            put(&storing, &changing, &beat.to_be_bytes(), WriteOptions::ATOMIC).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let error = acquire(&repo, &Claimant::on_host("b", RENEWING)).err().unwrap();
    assert!(error.message.contains("an unknown process is running"), "{error}");
    stop.cancel();
    writer.join().unwrap();
    acquire(&repo, &Claimant::on_host("b", IMPATIENT)).unwrap();
    assert!(claims(&storage).is_empty());
}

#[test]
fn mark_that_another_removes_ends_the_claim() {
    let (storage, repo) = repo(None);
    let claim = acquire(&repo, &Claimant::on_host("a", SILENT)).unwrap();
    let label: BackupLabel = "20260101-000000F".parse().unwrap();
    claim.mark(&label).unwrap();
    assert!(unclaimed::has_mark(&repo, &stanza(), &label).unwrap());
    claim.check().unwrap();
    // As pgBackRest does with a directory that it resumes or removes
    storage.remove_all(&layout::backup_path(&stanza(), &label)).unwrap();
    assert_eq!(claim.check().unwrap_err().code, ErrorCode::LockAcquire);
    assert!(claim.lease.renew().is_err());
}

#[test]
fn mark_that_is_taken_away_by_its_own_process_is_not_missed() {
    let (_, repo) = repo(None);
    let claim = acquire(&repo, &Claimant::on_host("a", SILENT)).unwrap();
    claim.mark(&"20260101-000000F".parse().unwrap()).unwrap();
    claim.unmark().unwrap();
    claim.check().unwrap();
}

#[test]
fn claims_of_many_at_once_are_never_held_by_two() {
    let (storage, repo) = repo(None);
    let holding = AtomicU32::new(0);
    let held = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for host in ["a", "b", "c", "d"] {
            let (repo, holding, held) = (&repo, &holding, &held);
            scope.spawn(move || {
                for _ in 0..10 {
                    let timing = Timing { look: Duration::from_millis(1), ..RENEWING };
                    let Ok(claim) = acquire(repo, &Claimant::on_host(host, timing)) else { continue };
                    assert_eq!(holding.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::sleep(Duration::from_millis(2));
                    claim.check().unwrap();
                    holding.fetch_sub(1, Ordering::SeqCst);
                    held.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(held.load(Ordering::SeqCst) > 0);
    assert!(claims(&storage).is_empty());
}

#[test]
fn path_above_or_below_a_claimed_stanza_is_not_free() {
    let (storage, repo) = repo(None);
    let claim_path = |path: &str| {
        let path = RepoPath::new(path).unwrap();
        claim_path(&repo, &path, &Claimant::on_host("b", RENEWING), &CancelToken::new())
    };
    let claim = acquire(&repo, &Claimant::on_host("a", RENEWING)).unwrap();
    for taken in ["", "backup", "archive", "backup/demo", "backup/demo/20260101-000000F/x", "archive/demo/15-1"] {
        assert!(claim_path(taken).is_err(), "{taken}");
    }
    for free in ["backup/other", "archive/other/15-1", "else", "backup/demo/backup.claim.77-a"] {
        assert!(claim_path(free).is_ok(), "{free}");
    }
    drop(claim);
    // It stays claimed until it is removed
    let held = claim_path("backup/demo/20260101-000000F").unwrap();
    assert!(acquire(&repo, &Claimant::on_host("a", RENEWING)).is_err());
    drop(held);
    assert!(claims(&storage).is_empty());
    // What a removal could not remove does not keep the claim
    let above = claim_path("backup/demo").unwrap();
    assert_eq!(claims(&storage), ["backup/demo/backup.claim.77-b"]);
    drop(above);
    assert!(claims(&storage).is_empty());
}

#[test]
fn stanza_that_is_created_while_another_is_claimed_is_claimed_too() {
    let (storage, repo) = repo(None);
    let plain = repo.clone();
    let late = FaultyStorage::new(Arc::new(storage.clone())).after(move |op, path| {
        if op == Op::Finish && path.as_str().starts_with("backup/demo/backup.claim") {
            let info = BackupInfo::new(PgVersion::V15, 7, 202_209_061, None).unwrap();
            info_files::save_backup_info(&plain, &"late".parse().unwrap(), &info).unwrap();
        }
    });
    let repo = Repo { storage: Arc::new(late), ..repo };
    let who = Claimant::on_host("b", RENEWING);
    let held = claim_path(&repo, &RepoPath::root(), &who, &CancelToken::new()).unwrap();
    assert_eq!(claims(&storage), ["backup/demo/backup.claim.77-b", "backup/late/backup.claim.77-b"]);
    drop(held);
}

#[test]
fn command_that_makes_room_does_without_a_claim_on_a_full_disk_unless_another_has_one() {
    let (storage, repo) = repo(None);
    let full = Repo { storage: Arc::new(FaultyStorage::new(Arc::new(storage.clone())).full_after(0)), ..repo.clone() };
    let to_remove = || {
        let who = Claimant::on_host("a", Timing { trusted: Duration::ZERO, ..SILENT });
        Claim::acquire_to_remove(&full, &stanza(), &who, "expire", &CancelToken::new())
    };
    assert!(acquire(&full, &Claimant::on_host("a", SILENT)).is_err());
    let claim = to_remove().unwrap();
    claim.check().unwrap();
    // No time is known to compare ages with
    assert_eq!(claim.renewed_at().unwrap(), 0);
    assert!(!claim.is_held());
    let remove = || claim.guard(&full).storage.remove(&RepoPath::new("backup/demo/x").unwrap());
    remove().unwrap();
    // What was removed made room for the claim of another host
    let other = acquire(&repo, &Claimant::on_host("c", RENEWING)).unwrap();
    assert_eq!(remove().unwrap_err().code, ErrorCode::LockAcquire);
    drop(other);
    assert!(remove().is_err(), "it may have changed the stanza");
    drop(claim);
    let other = acquire(&repo, &Claimant::on_host("b", RENEWING)).unwrap();
    assert!(other.is_held());
    assert_eq!(to_remove().err().unwrap().code, ErrorCode::LockAcquire);
}

#[test]
fn failure_that_may_be_a_full_disk_is_one_only_if_it_repeats() {
    let who = Claimant::on_host("a", SILENT);
    for (failures, is_held) in [(1, true), (2, false)] {
        let (storage, repo) = repo(None);
        let faulty = FaultyStorage::new(Arc::new(storage.clone())).fail_unclearly(failures);
        let repo = Repo { storage: Arc::new(faulty), ..repo };
        let claim = Claim::acquire_to_remove(&repo, &stanza(), &who, "expire", &CancelToken::new()).unwrap();
        assert_eq!(claim.is_held(), is_held, "{failures}");
        assert_eq!(claims(&storage).len(), usize::from(is_held));
    }
    // Whoever removes nothing has the error at once
    let (storage, repo) = repo(None);
    let faulty = FaultyStorage::new(Arc::new(storage)).fail_unclearly(1);
    let error = acquire(&Repo { storage: Arc::new(faulty), ..repo }, &who).err().unwrap();
    assert_eq!(error.code, ErrorCode::FileWrite);
}

#[test]
fn claim_whose_write_fails_after_it_was_done_is_taken_back() {
    let (storage, repo) = repo(None);
    let lost =
        Repo { storage: Arc::new(FaultyStorage::new(Arc::new(storage.clone())).lose_reply(Op::Finish, 1)), ..repo };
    assert!(acquire(&lost, &Claimant::on_host("a", SILENT)).is_err());
    assert!(claims(&storage).is_empty());
}
