//! Stops a backup after each of its calls to the repository, while another host works on the stanza.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use repo_format::claim;

use super::*;
use crate::annotate::AnnotateRequest;
use crate::claim::Timing;
use crate::expire::plan::{FullRetention, Retention};
use crate::expire::{self, ExpireRequest};
use crate::stanza::StanzaRequest;
use crate::storage::memory::MemoryStorage;
use crate::verify::VerifyRequest;

const NEVER: Duration = Duration::from_secs(3600);
/// The timing of the host that is stopped. Its claim is soon no longer trusted.
const STANDS_STILL: Timing =
    Timing { interval: NEVER, patience: NEVER, trusted: Duration::from_millis(50), look: Duration::from_millis(1) };
/// The timing of the host that waits in vain for the other to renew its claim.
const WAITS: Timing = Timing {
    interval: NEVER,
    patience: Duration::from_millis(3),
    trusted: Duration::from_millis(300),
    look: Duration::from_millis(1),
};
/// The timing of a host that is not disturbed.
const ALONE: Timing = Timing { trusted: NEVER, ..STANDS_STILL };

/// What the other host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Backup(BackupType),
    Expire,
    /// pgBackRest removes the newest backup without a manifest, as it does before its own backup.
    RemovesUnfinished,
    /// pgBackRest expires everything before the newest full backup and removes the backups that backup.info does not
    /// list.
    PgBackRestExpires,
}

const OTHERS: [Other; 5] = [
    Other::Backup(BackupType::Full),
    Other::Backup(BackupType::Incr),
    Other::Expire,
    Other::RemovesUnfinished,
    Other::PgBackRestExpires,
];

fn retention() -> Retention {
    Retention {
        full_type: FullRetention::Count,
        full: Some(1),
        diff: None,
        archive_type: BackupType::Full,
        archive: None,
        history: None,
    }
}

/// Removes the directory of a backup. A thread of the first host may still add a file until it stops.
fn remove_backup(world: &World, label: &BackupLabel) {
    while world.repo.storage.remove_all(&layout::backup_path(&stanza(), label)).is_err() {}
}

fn newest_unfinished(world: &World) -> Option<BackupLabel> {
    let label = reconstruct::backup_labels(&world.repo, &stanza()).unwrap().pop()?;
    (!manifest_store::is_complete(&world.repo, &stanza(), &label).unwrap()).then_some(label)
}

impl Other {
    fn run(self, world: &World) {
        let (repo, storage) = (&world.repo, &world.repo.storage);
        match self {
            Other::Backup(kind) => {
                // It may fail, for example if another backup began in the same second
                let _ = backup_on(world, repo, kind, "b", WAITS);
            }
            Other::Expire => {
                let session = world.session(repo).with_claimant(Claimant::on_host("b", WAITS));
                let request = ExpireRequest { checksum_page_error: false, ..ExpireRequest::default() };
                let request = request.keep(repo.key, retention());
                let run = || expire::run(&request, &session, std::slice::from_ref(repo), &[]);
                // On a busy machine its own claim may seem too old
                while run().is_err_and(|error| error.message.contains("in time")) {}
            }
            Other::RemovesUnfinished => {
                if let Some(label) = newest_unfinished(world) {
                    remove_backup(world, &label);
                }
            }
            Other::PgBackRestExpires => {
                let mut info = reconstruct::load_backup_info_reconstruct(repo, &stanza()).unwrap().info;
                let full = info.backups.keys().filter(|label| label.backup_type() == BackupType::Full).max().cloned();
                let full = full.unwrap();
                let goes = |label: &BackupLabel| label.full_label() != full;
                for label in info.backups.keys().filter(|label| goes(label)) {
                    storage.remove(&layout::manifest(&stanza(), label)).unwrap();
                    storage.remove(&layout::manifest_copy(&stanza(), label)).unwrap();
                }
                info.backups.retain(|label, _| !goes(label));
                info_files::save_backup_info(repo, &stanza(), &info).unwrap();
                let keeps = newest_unfinished(world);
                for label in reconstruct::backup_labels(repo, &stanza()).unwrap() {
                    if !info.backups.contains_key(&label) && Some(&label) != keeps.as_ref() {
                        remove_backup(world, &label);
                    }
                }
            }
        }
    }
}

fn backup_on(world: &World, repo: &Repo, kind: BackupType, host: &str, timing: Timing) -> Result<BackupLabel> {
    let mut lock = world.lock(&format!("lock of {host}"), host)?;
    let cancel = CancelToken::new();
    let claim = Claim::acquire(repo, &stanza(), &Claimant::on_host(host, timing), "backup", &cancel)?;
    let settings = BackupRequest { process_max: 1, ..bundled(world.settings(kind)) };
    let mut held = Held { repo, lock: &mut lock, claim: &claim };
    run(&settings, &world.session(repo), &mut held).map(|summary| summary.label)
}

/// Whether a call counts. How often a claim is renewed depends on the load of the machine, and each renewal looks at the
/// claims and lists the stanza.
fn counts(path: &RepoPath) -> bool {
    !path.as_str().contains("backup.claim.") && *path != layout::backup_stanza(&stanza())
}

/// Returns the number of calls that a backup makes, without those that renew its claim.
fn count_calls(kind: BackupType, world: &World) -> usize {
    let storage = Arc::new(FaultyStorage::new(Arc::clone(&world.repo.storage)));
    let repo = Repo { storage: Arc::<FaultyStorage>::clone(&storage), ..world.repo.clone() };
    backup_on(world, &repo, kind, "a", ALONE).unwrap();
    storage.calls().iter().filter(|(_, path)| counts(path)).count()
}

/// Runs the other host after the call with this number. Returns whether the result can be judged.
fn stands_still_after(call: usize, kind: BackupType, other: Other, world: &Arc<World>) -> bool {
    let calls = AtomicUsize::new(0);
    let met = Arc::new(Mutex::new(None));
    // Every thread of the first host is stopped meanwhile
    let (gate, seen, there) = (Arc::clone(&met), Arc::clone(&met), Arc::clone(world));
    let storage = FaultyStorage::new(Arc::clone(&world.repo.storage));
    let late = Arc::new(AtomicBool::new(false));
    let is_late = Arc::clone(&late);
    let before = move |op: Op, _: &RepoPath| {
        // It has looked at the claim already, and only then is stopped here. No storage can prevent what it does afterwards
        if gate.try_lock().is_err() && op.changes() {
            is_late.store(true, Ordering::SeqCst);
        }
        drop(gate.lock().unwrap());
    };
    let storage = storage.before(before).after(move |op, path| {
        if counts(path) && calls.fetch_add(1, Ordering::SeqCst) == call {
            let mut seen = seen.lock().unwrap();
            *seen = Some(format!("{op:?} {path}"));
            other.run(&there);
        }
    });
    let repo = Repo { storage: Arc::new(storage), ..world.repo.clone() };
    let result = backup_on(world, &repo, kind, "a", STANDS_STILL);
    if late.load(Ordering::SeqCst) {
        return false;
    }
    let met = met.lock().unwrap().take();
    let context = format!("{kind} and {other:?} after call {call} ({met:?}), which ended with {result:?}");
    let listed = reconstruct::load_backup_info_reconstruct(&world.repo, &stanza()).unwrap().info;
    if let Ok(label) = &result {
        // pgBackRest may still expire a complete backup
        assert!(listed.backups.contains_key(label) || other == Other::PgBackRestExpires, "{context}");
    }
    assert!(!listed.backups.is_empty(), "{context}");
    for (label, backup) in &world.info().backups {
        assert!(backup.prior.iter().all(|prior| world.info().backups.contains_key(prior)), "{label}: {context}");
    }
    let verified = verify(world);
    assert_eq!(verified.errors, 0, "{context}:\n{}", verified.text);
    let left = world.repo.storage.names(&layout::backup_stanza(&stanza())).unwrap().unwrap();
    assert!(left.iter().all(|name| claim::claimant(name).is_none()), "{left:?}: {context}");
    true
}

fn world_of(in_memory: bool) -> World {
    let mut world = World::new(Some("secret"));
    if in_memory {
        let storage = MemoryStorage::new();
        for name in ["archive/demo/archive.info", "backup/demo/backup.info"] {
            for path in [RepoPath::new(name).unwrap(), layout::copy(&RepoPath::new(name).unwrap())] {
                let content = get(&*world.repo.storage, &path, 1 << 20).unwrap().unwrap();
                crate::storage::put(&storage, &path, &content, WriteOptions::ATOMIC).unwrap();
            }
        }
        world.repo.storage = Arc::new(storage);
    }
    let first = backup_on(&world, &world.repo, BackupType::Full, "a", ALONE).unwrap();
    world.write("base/5/2", &[9; 41_000]);
    assert!(world.info().backups.contains_key(&first));
    world
}

/// There are many threads, because a backup mostly waits for the clock.
const THREADS: usize = 100;

#[test]
fn backup_that_stands_still_anywhere_while_another_host_works_leaves_a_whole_repository() {
    let mut cases = Vec::new();
    for (kind, in_memory) in [(BackupType::Full, false), (BackupType::Incr, true)] {
        let calls = count_calls(kind, &world_of(in_memory));
        assert!(calls > 20);
        for other in OTHERS {
            cases.extend((0..calls).map(|call| (call, kind, other, in_memory)));
        }
    }
    let total = cases.len();
    let (cases, judged) = (Mutex::new(cases.into_iter()), AtomicUsize::new(0));
    let next = || cases.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((call, kind, other, in_memory)) = next() {
                    if stands_still_after(call, kind, other, &Arc::new(world_of(in_memory))) {
                        judged.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let judged = judged.into_inner();
    assert!(judged > total / 2, "{judged} of {total}");
}

#[test]
fn info_files_are_not_changed_while_another_host_has_a_claim() {
    let world = world_of(false);
    let label = world.info().backups.keys().next().unwrap().clone();
    let renewing = Timing { interval: Duration::from_millis(1), ..ALONE };
    let cancel = CancelToken::new();
    // The info files belong to another cluster and one copy is damaged, so that every command has work to do
    let mut info = world.info();
    info.upgrade(info.current().version, 7, info.current().catalog_version).unwrap();
    info_files::save_backup_info(&world.repo, &stanza(), &info).unwrap();
    let mut archive = info_files::load_archive_info(&world.repo, &stanza()).unwrap();
    archive.upgrade(archive.current().version, 7).unwrap();
    info_files::save_archive_info(&world.repo, &stanza(), &archive).unwrap();
    let copy = layout::copy(&layout::backup_info(&stanza()));
    crate::storage::put(&*world.repo.storage, &copy, b"", WriteOptions::ATOMIC).unwrap();

    let session = world.session(&world.repo).with_claimant(Claimant::on_host("b", renewing));
    let repos = std::slice::from_ref(&world.repo);
    let annotate = || {
        let request = AnnotateRequest::new(label.clone()).set("key", "text");
        crate::annotate::run(&request, &session, repos).map(drop)
    };
    let upgrade = || {
        let request =
            StanzaRequest { online: false, pg: world.settings(BackupType::Full).pg, formats: BTreeMap::new() };
        crate::stanza::upgrade(&request, &session, repos).map(drop)
    };
    let repair = || {
        let request = VerifyRequest { repair: true, ..verify_request() };
        crate::verify::run(&request, &session, &world.repo).unwrap().failure.map_or(Ok(()), Err)
    };
    let before = world.info();
    let claim = Claim::acquire(&world.repo, &stanza(), &Claimant::on_host("a", renewing), "backup", &cancel).unwrap();
    assert_eq!(annotate().unwrap_err().code, ErrorCode::Command);
    // Whoever waits for the lock sees that it is one, also of another host
    let repeated = AnnotateRequest::new(label.clone()).set("key", "text").repeated();
    assert_eq!(crate::annotate::run(&repeated, &session, repos).unwrap_err().code, ErrorCode::LockAcquire);
    assert_eq!(upgrade().unwrap_err().code, ErrorCode::LockAcquire);
    assert_eq!(repair().unwrap_err().code, ErrorCode::LockAcquire);
    assert_eq!(world.info(), before);
    assert!(get(&*world.repo.storage, &copy, 1 << 20).unwrap().unwrap().is_empty());
    drop(claim);
    repair().unwrap();
    annotate().unwrap();
    upgrade().unwrap();
    assert_eq!(world.info().backups[&label].annotation["key"], "text");
    assert_ne!(world.info().current().system_id, 7);
    // A command without work needs no claim
    let _claim = Claim::acquire(&world.repo, &stanza(), &Claimant::on_host("a", renewing), "backup", &cancel).unwrap();
    upgrade().unwrap();
}
