//! A connection to the repository that ends: when a backup is complete, or while one is verified.

use crate::expire::ExpireRequest;
use crate::repo::RepoSettings;
use crate::restore::RestoreRequest;
use crate::session::RepoSource;
use crate::storage::open::{OpenStorage, OpenedStorage};
use crate::work::retry::is_of_peer;

use super::*;

/// Opens the next connection each time.
#[derive(Clone)]
struct Connections {
    left: Arc<Mutex<Vec<FaultyStorage>>>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connections")
    }
}

impl OpenStorage for Connections {
    fn open(&self) -> Result<OpenedStorage> {
        let next = self.left.lock().unwrap().pop();
        next.map(OpenedStorage::from).ok_or_else(|| crate::Error::new(ErrorCode::HostConnect, "no connection"))
    }
}

#[test]
fn what_follows_a_complete_backup_gets_a_new_connection_if_that_of_the_backup_has_ended() {
    for reconnects in [true, false] {
        let world = World::new(None);
        let [first, second] = [(); 2].map(|()| FaultyStorage::new(Arc::clone(&world.repo.storage)));
        let mut left = vec![first.clone()];
        if reconnects {
            left.insert(0, second.clone());
        }
        let connections = Connections { left: Arc::new(Mutex::new(left)) };
        let session = |source: RepoSource| {
            let session = Session::new(stanza(), [source]).unwrap();
            session.with_lock_path(world.dir.path().join("lock")).with_exec_id("1-x")
        };
        let of_backup = session(RepoSettings::new(connections.clone()).into());
        let mut turn = of_backup.begin_backup().unwrap();
        let summary = turn.run(&world.settings(BackupType::Full)).unwrap();
        assert!(turn.repo().is_some() && second.calls().is_empty());
        first.end();
        let repo = turn.repo().cloned();
        assert_eq!(repo.is_some(), reconnects);
        let claims = || {
            let names = world.repo.storage.names(&layout::backup_stanza(&stanza())).unwrap().unwrap();
            names.iter().filter(|name| name.starts_with("backup.claim")).count()
        };
        assert_eq!(claims(), 1);
        // The host of the repository may answer again
        connections.left.lock().unwrap().push(second);
        let source = repo.map_or_else(|| RepoSettings::new(connections).into(), RepoSource::Claimed);
        session(source).expire(&ExpireRequest::default()).unwrap();
        // Nobody renews the claim of the connection that has ended. So expire takes its own, and gives it back
        assert_eq!(claims(), usize::from(reconnects));
        turn.keep_phases(&summary, None);
        drop(turn);
        assert_eq!(world.has("proof/demo/backups.json"), reconnects);
        assert_eq!(claims(), 0);
    }
}

#[test]
fn verify_whose_connection_ends_took_what_it_could_not_read_for_damaged() {
    let world = World::new(None);
    (0..20).for_each(|number| world.write(&format!("base/7/{number}"), &[number; 100]));
    world.run(world.settings(BackupType::Full)).unwrap();
    // A retry would be waited for
    let request = VerifyRequest { job_retry_interval: Duration::from_secs(60), ..VerifyRequest::default() };
    let run_on = |storage: &FaultyStorage| {
        let repo = Repo { storage: Arc::new(storage.clone()), ..world.repo.clone() };
        crate::verify::run(&request, &world.session(&repo), &repo)
    };
    let whole = FaultyStorage::new(Arc::clone(&world.repo.storage));
    assert_eq!(run_on(&whole).unwrap().errors, 0);
    let begin = Instant::now();
    for left in 0..whole.calls().len() {
        let calls = Arc::new(AtomicUsize::new(0));
        let storage = Arc::new(Mutex::new(None::<FaultyStorage>));
        let ending = Arc::clone(&storage);
        let faulty = FaultyStorage::new(Arc::clone(&world.repo.storage)).before(move |_, _| {
            if calls.fetch_add(1, Ordering::SeqCst) >= left {
                ending.lock().unwrap().iter().for_each(FaultyStorage::end);
            }
        });
        *storage.lock().unwrap() = Some(faulty.clone());
        let error = run_on(&faulty).err().unwrap_or_else(|| panic!("{left} calls"));
        assert_eq!((error.code, &*error.message), (ErrorCode::Format, "unexpected EOF"), "{left} calls");
        storage.lock().unwrap().take();
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

/// Storage whose connection ends with a call about a path that contains this text.
fn ending_at(storage: &Arc<dyn RepoStorage>, op: Op, text: &'static str) -> FaultyStorage {
    let ended = Arc::new(Mutex::new(None::<FaultyStorage>));
    let ending = Arc::clone(&ended);
    let faulty = FaultyStorage::new(Arc::clone(storage)).before(move |called, path| {
        if called == op && path.as_str().contains(text) {
            ending.lock().unwrap().iter().for_each(FaultyStorage::end);
        }
    });
    *ended.lock().unwrap() = Some(faulty.clone());
    faulty
}

#[test]
fn jobs_were_retried_over_a_connection_that_had_ended() {
    let world = World::new(None);
    (0..20).for_each(|number| world.write(&format!("base/7/{number}"), &[number; 100]));
    let begin = Instant::now();
    let on = |storage: FaultyStorage| Repo { storage: Arc::new(storage), ..world.repo.clone() };
    let repo = on(ending_at(&world.repo.storage, Op::Write, "base/7/1"));
    // A retry would be waited for
    let job_retry_interval = Duration::from_secs(60);
    let settings = BackupRequest { job_retry_interval, ..world.settings(BackupType::Full) };
    let error = world.run_on(&repo, settings).unwrap_err();
    assert!(error.message.starts_with("unexpected EOF") && error.code == ErrorCode::Format, "{error}");
    world.run(world.settings(BackupType::Full)).unwrap();
    let repo = on(ending_at(&world.repo.storage, Op::Read, "base/7/1"));
    let path = world.dir.path().join("restored");
    let request = RestoreRequest { job_retry_interval, ..RestoreRequest::new(path.to_str().unwrap()) };
    let error = world.session(&repo).restore(&request).unwrap_err();
    assert!(error.message.starts_with("unexpected EOF") && error.code == ErrorCode::Format, "{error}");
    // It proves nothing about the backup
    assert!(is_of_peer(&error));
    assert!(begin.elapsed() < Duration::from_secs(50), "{:?}", begin.elapsed());
}
