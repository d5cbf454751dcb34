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
    let request = VerifyRequest { job_retry_interval: Duration::from_secs(600), ..VerifyRequest::default() };
    let run_on = |storage: &FaultyStorage| {
        let repo = Repo { storage: Arc::new(storage.clone()), ..world.repo.clone() };
        crate::verify::run(&request, &world.session(&repo), &repo)
    };
    let whole = FaultyStorage::new(Arc::clone(&world.repo.storage));
    assert_eq!(run_on(&whole).unwrap().errors, 0);
    let begin = Instant::now();
    for left in 0..whole.calls().len() {
        let error = run_on(&ending_after(&world.repo.storage, left)).err().unwrap_or_else(|| panic!("{left} calls"));
        assert_eq!((error.code, &*error.message), (ErrorCode::Format, "unexpected EOF"), "{left} calls");
    }
    assert!(begin.elapsed() < Duration::from_secs(500), "{:?}", begin.elapsed());
}

#[test]
fn interrupted_backup_was_removed_because_a_connection_ended_while_its_manifest_was_read() {
    for ends_max in [1, usize::MAX] {
        let world = World::new(None);
        let settings = || BackupRequest { process_max: 1, ..world.settings(BackupType::Full) };
        interrupt_at(&world, "base/5/1", settings());
        let interrupted = reconstruct::backup_labels(&world.repo, &stanza()).unwrap().remove(0);
        let copy = layout::manifest_copy(&stanza(), &interrupted);
        let storage = FaultyStorage::new(Arc::clone(&world.repo.storage));
        let (seen, calls, ends) = (storage.clone(), storage.clone(), AtomicUsize::new(0));
        let storage = storage.before(move |op, path| {
            if op == Op::Read && *path == copy && ends.fetch_add(1, Ordering::SeqCst) < ends_max {
                let _ = calls.clone().end_one_at(calls.calls().len() + 1);
            }
        });
        let repo = Repo { storage: Arc::new(storage), ..world.repo.clone() };
        match world.run_on(&repo, settings()) {
            Ok(label) => assert!(ends_max == 1 && label == interrupted, "{label}"),
            Err(error) => assert!(ends_max > 1 && is_of_peer(&error), "{error}"),
        }
        // A new backup may get the same label
        let directory = layout::backup_path(&stanza(), &interrupted);
        assert!(!seen.calls().contains(&(Op::RemoveAll, directory)));
    }
}

/// The end of a host is found on one connection before it is on that of the command.
#[test]
fn one_of_several_connections_that_ended_made_verify_report_a_fault() {
    let world = World::new(None);
    (0..5).for_each(|number| world.write(&format!("base/7/{number}"), &[number; 100]));
    world.run(world.settings(BackupType::Full)).unwrap();
    let request = VerifyRequest { job_retry_interval: Duration::from_secs(600), ..VerifyRequest::default() };
    let run_on = |storage: &FaultyStorage| {
        let repo = Repo { storage: Arc::new(storage.clone()), ..world.repo.clone() };
        crate::verify::run(&request, &world.session(&repo), &repo)
    };
    let whole = FaultyStorage::new(Arc::clone(&world.repo.storage));
    assert_eq!(run_on(&whole).unwrap().errors, 0);
    for call in 1..=whole.calls().len() {
        let storage = FaultyStorage::new(Arc::clone(&world.repo.storage)).ends_with(ErrorCode::Term).end_one_at(call);
        match run_on(&storage) {
            Ok(summary) => assert_eq!(summary.errors, 0, "call {call}: {}", summary.text),
            Err(error) => assert!(is_of_peer(&error), "call {call}: {error}"),
        }
    }
}

#[test]
fn end_of_a_connection_made_verify_forget_damage_that_it_had_found() {
    let world = World::new(None);
    (0..20).for_each(|number| world.write(&format!("base/7/{number}"), &[number; 100]));
    let label = world.run(world.settings(BackupType::Full)).unwrap();
    let run_on = |storage: &FaultyStorage, points| {
        let repo = Repo { storage: Arc::new(storage.clone()), ..world.repo.clone() };
        let request =
            VerifyRequest { points, job_retry_interval: Duration::from_secs(600), ..VerifyRequest::default() };
        crate::verify::run(&request, &world.session(&repo), &repo)
    };
    let calls = |points| {
        let whole = FaultyStorage::new(Arc::clone(&world.repo.storage));
        (run_on(&whole, points).unwrap().errors, whole.calls())
    };
    // All files were checked before the end, and none was bad
    let (files, all) = (calls(false).1.len(), calls(true).1.len());
    assert!(files < all);
    for left in files..all {
        let summary = run_on(&ending_after(&world.repo.storage, left), true).unwrap();
        assert!(summary.ended.is_none() && summary.backups[0].valid == summary.backups[0].total, "{left} calls");
        assert_eq!((summary.errors, summary.unread.total), (1, 1), "{left} calls");
        assert_eq!(summary.into_error().unwrap().code, ErrorCode::Format);
    }

    let bad = format!("backup/demo/{label}/pg_data/base/7/0.lz4");
    assert!(world.has(&bad));
    fs::write(world.dir.path().join("repo").join(&bad), "damage").unwrap();
    let (errors, all) = calls(true);
    assert_eq!(errors, 1);
    let read = all.iter().position(|(op, path)| *op == Op::Read && path.as_str() == bad).unwrap();
    assert!(read + 5 < files);
    for left in 0..all.len() {
        match run_on(&ending_after(&world.repo.storage, left), true) {
            Err(error) => {
                assert_eq!((error.code, &*error.message), (ErrorCode::Format, "unexpected EOF"), "{left} calls");
                assert!(left <= read, "{left} calls");
            }
            Ok(summary) => {
                assert!(left > read && summary.errors == 2 && summary.unread.total == 1, "{left} calls");
                assert!(summary.first_faults.len() == 1 && summary.first_faults[0].contains("base/7/0"));
                if left < files {
                    assert!(summary.text.contains("status: error\n  the rest could not be checked: unexpected EOF"));
                    let ended = summary.ended.as_ref().unwrap();
                    assert!(ended.code == ErrorCode::Format && ended.message.contains(&summary.first_faults[0]));
                }
                let error = summary.into_error().unwrap();
                assert!(error.code == ErrorCode::Command && error.message.contains("base/7/0"), "{error}");
            }
        }
    }
}

#[test]
fn process_on_the_other_host_that_was_told_to_stop_made_verify_forget_damage() {
    let world = World::new(None);
    (0..20).for_each(|number| world.write(&format!("base/7/{number}"), &[number; 100]));
    let label = world.run(world.settings(BackupType::Full)).unwrap();
    let bad = world.dir.path().join(format!("repo/backup/demo/{label}/pg_data/base/7/0.lz4"));
    fs::write(bad, "damage").unwrap();
    for code in [ErrorCode::Term, ErrorCode::Assert] {
        let reads = Arc::new(AtomicUsize::new(0));
        let is_late = move |op, path: &RepoPath| {
            let is_file = op == Op::Read && path.as_str().contains("base/7/");
            is_file && reads.fetch_add(1, Ordering::SeqCst) >= 15
        };
        let storage = ending_when(&world.repo.storage, is_late).ends_with(code);
        let repo = Repo { storage: Arc::new(storage), ..world.repo.clone() };
        let request = VerifyRequest { job_retry_interval: Duration::from_secs(600), ..VerifyRequest::default() };
        let summary = crate::verify::run(&request, &world.session(&repo), &repo).unwrap();
        assert_eq!((summary.errors, summary.unread.total), (2, 1), "{code:?}");
        assert!(summary.first_faults[0].contains("base/7/0"), "{:?}", summary.first_faults);
        assert_eq!(summary.ended.map(|error| error.code), Some(code));
    }
}

#[test]
fn end_of_a_connection_made_verify_forget_what_it_had_found_before_it_read_files() {
    let world = World::new(None);
    let label = world.run(world.settings(BackupType::Full)).unwrap();
    let run_on = |storage: &FaultyStorage| {
        let repo = Repo { storage: Arc::new(storage.clone()), ..world.repo.clone() };
        // The first time that manifests are read, their files are only added up
        let max_time = Some(Duration::from_secs(3600));
        let request =
            VerifyRequest { max_time, job_retry_interval: Duration::from_secs(60), ..VerifyRequest::default() };
        crate::verify::run(&request, &world.session(&repo), &repo)
    };
    let check = |found_by: (Op, &str), figures: (u32, u32)| {
        // The first run leaves a record, which all later ones read
        run_on(&FaultyStorage::new(Arc::clone(&world.repo.storage))).unwrap();
        let whole = FaultyStorage::new(Arc::clone(&world.repo.storage));
        let summary = run_on(&whole).unwrap();
        assert_eq!((summary.errors, summary.half_whole), figures);
        let calls = whole.calls();
        let found = calls.iter().position(|(op, path)| (*op, path.as_str()) == found_by).unwrap();
        let is_last = |(op, path): &(Op, RepoPath)| *op == Op::Read && path.as_str().ends_with("backup.manifest");
        let last = calls.iter().rposition(is_last).unwrap();
        assert!(found < last && last < calls.len());
        for left in 0..=last {
            match run_on(&ending_after(&world.repo.storage, left)) {
                Err(error) => assert!(left <= found && error.code == ErrorCode::Format, "{left} calls: {error}"),
                Ok(summary) => {
                    assert!(left > found && summary.verdict() == Some(false), "{left} calls");
                    let faults = (summary.errors - summary.unread.total, summary.half_whole);
                    // With the rest, a manifest may be unread
                    assert!(faults == figures && (1..=2).contains(&summary.unread.total), "{left} calls");
                    let ended = summary.ended.unwrap();
                    let count = format!("verify found {} fault(s), and could not", figures.0 + figures.1);
                    assert!(ended.message.starts_with(&count), "{ended}");
                    assert_eq!(ended.message.contains("archiveIds '99-9' are not in"), figures.0 > 0, "{ended}");
                }
            }
        }
    };
    let repo = world.dir.path().join("repo");
    let copy = format!("backup/demo/{label}/backup.manifest.copy");
    let intact = fs::read(repo.join(&copy)).unwrap();
    fs::write(repo.join(&copy), "damage").unwrap();
    check((Op::Read, &copy), (0, 1));
    fs::write(repo.join(&copy), intact).unwrap();
    fs::create_dir(repo.join("archive/demo/99-9")).unwrap();
    check((Op::List, "archive/demo"), (1, 0));
}

/// Storage whose connection ends after so many calls.
fn ending_after(storage: &Arc<dyn RepoStorage>, left: usize) -> FaultyStorage {
    let calls = Arc::new(AtomicUsize::new(0));
    ending_when(storage, move |_, _| calls.fetch_add(1, Ordering::SeqCst) >= left)
}

/// Storage whose connection ends with a call about a path that contains this text.
fn ending_at(storage: &Arc<dyn RepoStorage>, op: Op, text: &'static str) -> FaultyStorage {
    ending_when(storage, move |called, path| called == op && path.as_str().contains(text))
}

fn ending_when(
    storage: &Arc<dyn RepoStorage>,
    ends: impl Fn(Op, &RepoPath) -> bool + Send + Sync + 'static,
) -> FaultyStorage {
    let ended = Arc::new(Mutex::new(None::<FaultyStorage>));
    let ending = Arc::clone(&ended);
    let faulty = FaultyStorage::new(Arc::clone(storage)).before(move |called, path| {
        if ends(called, path) {
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
    let job_retry_interval = Duration::from_secs(600);
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
    assert!(begin.elapsed() < Duration::from_secs(500), "{:?}", begin.elapsed());
}

#[test]
fn file_and_copy_that_a_lost_connection_kept_unread_counted_as_damaged() {
    let world = World::new(None);
    let label = world.run(world.settings(BackupType::Full)).unwrap();
    let storage = FaultyStorage::new(Arc::clone(&world.repo.storage));
    let repo = Repo { storage: Arc::new(storage.clone()), ..world.repo.clone() };
    let load = || {
        let manifest = manifest_store::load(&repo, &stanza(), &label, &Cipher::None).map(drop);
        let archive = info_files::load_archive_info(&repo, &stanza()).map(drop);
        [manifest, archive, info_files::load_backup_info(&repo, &stanza()).map(drop)]
    };
    assert!(load().iter().all(Result::is_ok));
    storage.end();
    for error in load().into_iter().map(Result::unwrap_err) {
        assert!(error.code == ErrorCode::Format && !crate::work::retry::is_about_content(&error), "{error}");
    }
}
