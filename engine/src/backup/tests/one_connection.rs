//! The end of one of several connections to another host, at each call of each job in turn. The command has a connection that
//! still works, so whatever the job takes for a fact, it can act on.

use std::borrow::Borrow;

use crate::annotate::AnnotateRequest;
use crate::expire::ExpireRequest;
use crate::expire::plan::Retention;
use crate::info::InfoRequest;
use crate::recovery_points::RecoveryPointsRequest;
use crate::restore::RestoreRequest;
use crate::stanza::StanzaRequest;
use crate::work::retry::is_of_peer;

use super::*;

/// How a connection ends.
type End = fn(FaultyStorage, usize) -> FaultyStorage;

/// Before a call, after it, and while the file is transferred that it has opened.
const ENDS: [End; 3] = [FaultyStorage::end_one_at, FaultyStorage::lose_one_at, FaultyStorage::cut_one_at];

/// Returns whether an error, or one that led to it, is about the connection.
fn is_of_connection(error: &crate::Error) -> bool {
    let mut cause = error.source.as_deref();
    let mut found = is_of_peer(error);
    while let Some(error) = cause.and_then(|cause| cause.downcast_ref::<crate::Error>()) {
        found |= is_of_peer(error);
        cause = error.source.as_deref();
    }
    found
}

/// Runs a job in a world of its own for each call at which a connection can end. It succeeds or its error tells of the
/// connection. `after` gets what came of it.
fn sweep<W: Borrow<World>, T>(
    ends: &[End],
    prepare: impl Fn() -> W + Sync,
    job: impl Fn(&World, &Repo) -> Result<T> + Sync,
    after: impl Fn(&str, &World, &FaultyStorage, Result<T>) + Sync,
) {
    const AT_A_TIME: usize = 64;
    for end in ends {
        let one = &|n: usize| {
            let world = prepare();
            let world = world.borrow();
            // The error has the code of a missing file
            let storage = FaultyStorage::new(Arc::clone(&world.repo.storage)).ends_with(ErrorCode::FileMissing);
            let storage = end(storage, n);
            let done = job(world, &Repo { storage: Arc::new(storage.clone()), ..world.repo.clone() });
            let calls = storage.calls();
            let Some((op, path)) = calls.get(n - 1) else { return false };
            let place = format!("call {n}: {op:?} {path}");
            if let Err(error) = &done {
                assert!(is_of_connection(error), "{place}: {error}");
            }
            after(&place, world, &storage, done);
            true
        };
        let mut count = 0;
        // In parallel, because a backup may wait for the next second
        for first in (1..).step_by(AT_A_TIME) {
            let fired = std::thread::scope(|scope| {
                let start = |n| scope.spawn(move || one(n));
                let threads: Vec<_> = (first..first + AT_A_TIME).map(start).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|fired| *fired).count()
            });
            count += fired;
            if fired < AT_A_TIME {
                break;
            }
        }
        assert!(count > 0);
    }
}

/// Verifies without faults.
fn check_sound(place: &str, world: &World) {
    let summary = verify(world);
    assert_eq!(summary.errors, 0, "{place}: {}", summary.text);
}

/// Returns a copy of a world.
fn copy_of(world: &World) -> World {
    let dir = tempfile::tempdir().unwrap();
    let from = world.dir.path().join(".");
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(dir.path()).status().unwrap();
    assert!(done.success());
    let storage: Arc<dyn RepoStorage> = Arc::new(PosixStorage::new(dir.path().join("repo")));
    World { repo: Repo { storage, ..world.repo.clone() }, dir }
}

fn change(world: &World) {
    world.write("base/5/2", b"other");
    world.set_age("base/5/2", 10);
}

fn sweep_full(ends: &[End], settings: impl Fn(&World) -> BackupRequest + Sync) {
    sweep(
        ends,
        || World::new(None),
        |world, repo| world.run_on(repo, settings(world)),
        |place, world, _, done| {
            if let Ok(label) = &done {
                world.check(label);
            }
            let next = world.run(settings(world)).unwrap_or_else(|error| panic!("{place}: next: {error}"));
            world.check(&next);
            check_sound(place, world);
            if let Ok(label) = done {
                assert!(world.info().backups.contains_key(&label), "{place}");
            }
        },
    );
}

#[test]
fn full_backup_over_a_connection_that_ends_is_whole_or_fails() {
    sweep_full(&ENDS[..1], |world| BackupRequest { process_max: 1, ..world.settings(BackupType::Full) });
}

#[test]
fn full_backup_repeats_what_a_connection_that_ended_has_cut() {
    sweep_full(&ENDS[2..], |world| BackupRequest { job_retry: 1, ..bundled(world.settings(BackupType::Full)) });
}

#[test]
fn backup_on_another_over_a_connection_that_ends_keeps_its_prior() {
    let template = World::new(None);
    let full = template.run(template.settings(BackupType::Full)).unwrap();
    change(&template);
    let settings = |world: &World| BackupRequest { process_max: 1, ..world.settings(BackupType::Incr) };
    sweep(
        &ENDS[1..2],
        || copy_of(&template),
        |world, repo| world.run_on(repo, settings(world)),
        |place, world, _, done| {
            if let Ok(label) = &done {
                world.check(label);
                assert_eq!(label.full_label(), full, "{place}");
            }
            assert!(world.info().backups.contains_key(&full));
            world.write("base/5/1", b"again");
            world.set_age("base/5/1", 5);
            let next = world.run(settings(world)).unwrap_or_else(|error| panic!("{place}: next: {error}"));
            world.check(&next);
            assert_eq!(next.full_label(), full, "{place}");
            check_sound(place, world);
            if let Ok(label) = done {
                assert!(world.info().backups.contains_key(&label), "{place}");
            }
        },
    );
}

fn segment(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

#[test]
fn expire_over_a_connection_that_ends_removes_only_what_it_had_to() {
    let template = World::new(None);
    let mut labels = vec![template.run(template.settings(BackupType::Full)).unwrap()];
    change(&template);
    labels.push(template.run(template.settings(BackupType::Incr)).unwrap());
    labels.push(template.run(template.settings(BackupType::Full)).unwrap());
    labels.push(template.run(template.settings(BackupType::Full)).unwrap());
    let mut info = template.info();
    for (number, label) in labels.iter().enumerate() {
        let entry = info.backups.get_mut(label).unwrap();
        entry.archive_start = Some(segment(2 * number as u32 + 2).parse().unwrap());
        entry.archive_stop = Some(segment(2 * number as u32 + 3).parse().unwrap());
    }
    info_files::save_backup_info(&template.repo, &stanza(), &info).unwrap();
    let archive = |world: &World| world.dir.path().join("repo/archive/demo/15-1/0000000100000000");
    fs::create_dir_all(archive(&template)).unwrap();
    for number in 1..=12 {
        fs::write(archive(&template).join(format!("{}-{}", segment(number), "0".repeat(40))), "x").unwrap();
    }
    interrupt_at(&template, "base/5/1", template.settings(BackupType::Full));
    let interrupted = reconstruct::backup_labels(&template.repo, &stanza()).unwrap().pop().unwrap();
    // As old as what expires usually is. Younger directories without a manifest may be of a running backup
    for label in &labels {
        let path = template.dir.path().join("repo").join(layout::backup_path(&stanza(), label).as_str());
        let touch = ["-exec", "touch", "-d", "2001-01-01", "{}", "+"];
        assert!(std::process::Command::new("find").arg(path).args(touch).status().unwrap().success());
    }
    assert!(!labels.contains(&interrupted));
    let wal = |world: &World| {
        let entries = fs::read_dir(archive(world)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut numbers: Vec<u32> = names.map(|name| u32::from_str_radix(&name[16..24], 16).unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    let by_retention = || {
        let retention = Retention { full: Some(2), archive: Some(2), history: Some(0), ..Retention::default() };
        ExpireRequest::default().keep(1, retention)
    };
    let by_set = || ExpireRequest { set: Some(labels[0].clone()), ..by_retention() };
    for (request, ends) in [(by_retention(), &ENDS[..1]), (by_set(), &ENDS[1..2])] {
        let check_done = |place: &str, world: &World| {
            assert_eq!(reconstruct::backup_labels(&world.repo, &stanza()).unwrap()[..2], labels[2..], "{place}");
            assert!(world.info().backups.keys().eq(&labels[2..]), "{place}");
            assert_eq!(wal(world), (6..=12).collect::<Vec<u32>>(), "{place}");
        };
        sweep(
            ends,
            || copy_of(&template),
            |world, repo| world.session(repo).expire(&request),
            |place, world, _, done| {
                if done.is_ok() {
                    check_done(place, world);
                }
                for label in &labels[2..] {
                    world.check(label);
                    assert!(world.info().backups.contains_key(label));
                }
                assert!(world.has(layout::backup_path(&stanza(), &interrupted).as_str()), "{place}");
                assert!(wal(world).ends_with(&(6..=12).collect::<Vec<u32>>()), "{place}");
                let again = world.session(&world.repo).expire(&by_retention());
                again.unwrap_or_else(|error| panic!("{place}: next: {error}"));
                check_done(place, world);
            },
        );
    }
}

#[test]
fn stanza_over_a_connection_that_ends_is_created_or_not() {
    for (passphrase, ends) in [(None, &ENDS[..1]), (Some("secret"), &ENDS[1..])] {
        let request = |world: &World| StanzaRequest::new(PgSettings::new(world.pg_path())).offline();
        sweep(
            ends,
            || {
                let world = World::new(passphrase);
                fs::remove_dir_all(world.dir.path().join("repo")).unwrap();
                world
            },
            |world, repo| world.session(repo).stanza_create(&request(world)),
            |place, world, _, done| {
                if done.is_ok() {
                    for name in ["backup/demo/backup.info", "archive/demo/archive.info"] {
                        assert!(world.has(name) && world.has(&format!("{name}.copy")), "{place}");
                    }
                }
                let has = |name: &str| world.has(name) || world.has(&format!("{name}.copy"));
                // As in pgBackRest. It is for the operator to remove half a stanza
                let is_half = has("archive/demo/archive.info") && !has("backup/demo/backup.info");
                match world.session(&world.repo).stanza_create(&request(world)) {
                    Ok(_) => check_sound(place, world),
                    Err(error) => assert!(is_half && error.code == ErrorCode::FileMissing, "{place}: {error}"),
                }
            },
        );
    }
}

#[test]
fn stanza_over_a_connection_that_ends_is_upgraded_by_the_next_upgrade() {
    for (passphrase, format, ends) in [(None, None, &ENDS[..1]), (Some("secret"), Some(RepoFormat::V6), &ENDS[1..2])] {
        let request = |world: &World| {
            let request = StanzaRequest::new(PgSettings::new(world.pg_path())).offline();
            format.map_or(request.clone(), |format| request.format(1, format))
        };
        sweep(
            ends,
            || {
                let world = World::new(passphrase);
                let control = PgControl::parse(CONTROL, None).unwrap();
                let pass = || info_files::generate_passphrase(&world.repo, RepoFormat::V5).unwrap();
                fs::remove_dir_all(world.dir.path().join("repo")).unwrap();
                let archive = ArchiveInfo::new(control.version, 7, pass().map(Keyring::single));
                info_files::save_archive_info(&world.repo, &stanza(), &archive).unwrap();
                let info = BackupInfo::new(control.version, 7, control.catalog_version, pass()).unwrap();
                info_files::save_backup_info(&world.repo, &stanza(), &info).unwrap();
                world
            },
            |world, repo| world.session(repo).stanza_upgrade(&request(world)),
            |place, world, _, done| {
                let is_new = || {
                    let archive = info_files::load_archive_info(&world.repo, &stanza()).unwrap();
                    archive.history.len() == 2 && world.info().history.len() == 2
                };
                assert!(done.is_err() || is_new(), "{place}");
                let again = world.session(&world.repo).stanza_upgrade(&request(world));
                again.unwrap_or_else(|error| panic!("{place}: next: {error}"));
                assert!(is_new());
                check_sound(place, world);
            },
        );
    }
}

#[test]
fn annotation_over_a_connection_that_ends_is_set_or_fails() {
    let template = World::new(None);
    let label = template.run(template.settings(BackupType::Full)).unwrap();
    let request = || AnnotateRequest::new(label.clone()).set("key", "value");
    sweep(
        &ENDS,
        || copy_of(&template),
        |world, repo| world.session(repo).annotate(&request()),
        |place, world, _, done| {
            let has = || world.info().backups[&label].annotation.contains_key("key");
            assert!(done.is_err() || has(), "{place}");
            let again = world.session(&world.repo).annotate(&request());
            again.unwrap_or_else(|error| panic!("{place}: next: {error}"));
            assert!(has());
            check_sound(place, world);
        },
    );
}

#[test]
fn report_over_a_connection_that_ends_is_whole_or_tells_of_it() {
    let template = World::new(None);
    let label = template.run(template.settings(BackupType::Full)).unwrap();
    let pick = |which: usize, world: &World, repo: &Repo| -> Result<String> {
        let session = world.session(repo);
        Ok(match which {
            0 => format!("{:?}", session.info(&InfoRequest::default())?),
            1 => format!("{:?}", session.info(&InfoRequest::default().set(&label))?),
            2 => format!("{:?}", session.backups()?),
            3 => format!("{:?}", session.backup_phases()?),
            4 => format!("{:?}", session.recovery_points(&RecoveryPointsRequest::default())?),
            5 => format!("{:?}", session.recovery_objectives()),
            6 => format!("{:?}", {
                let control = PgControl::parse(CONTROL, None).unwrap();
                crate::stanza::check_info(repo, &stanza(), control.version, control.system_id)?.warnings
            }),
            _ => {
                let job_retry_interval = Duration::from_secs(600);
                let request = VerifyRequest { job_retry_interval, ..VerifyRequest::default() };
                let summary = crate::verify::run(&request, &session, repo)?;
                format!("{} {}", summary.errors, summary.text)
            }
        })
    };
    for which in 0..8 {
        let expected = pick(which, &template, &template.repo).unwrap();
        let check = |place: &str, _: &World, _: &FaultyStorage, done: Result<String>| {
            let is_told = |text: &String| *text == expected || text.contains("unexpected EOF");
            assert!(done.as_ref().map_or(true, is_told), "{which}: {place}: {done:?}\n{expected}");
        };
        // verify keeps what it has read
        match which {
            7 => sweep(&ENDS, || copy_of(&template), |world, repo| pick(which, world, repo), check),
            _ => sweep(&ENDS, || &template, |world, repo| pick(which, world, repo), check),
        }
    }
}

#[test]
fn restore_over_a_connection_that_ends_is_whole_or_fails() {
    let template = World::new(None);
    template.run(template.settings(BackupType::Full)).unwrap();
    change(&template);
    template.run(bundled(template.settings(BackupType::Incr))).unwrap();
    for (process_max, job_retry, delta, ends) in [(1, 0, false, &ENDS[..1]), (2, 1, true, &ENDS[1..])] {
        let request = |world: &World, delta| {
            let path = world.dir.path().join("restored").to_str().unwrap().to_owned();
            let interval = Duration::ZERO;
            RestoreRequest { process_max, job_retry, delta, job_retry_interval: interval, ..RestoreRequest::new(path) }
        };
        let check_done = |place: &str, world: &World| {
            for file in ["PG_VERSION", "base/5/1", "base/5/2", "base/5/3", "postgresql.conf"] {
                let read = |path: PathBuf| fs::read(path.join(file)).unwrap();
                assert!(read(world.dir.path().join("restored")) == read(world.pg_path()), "{place}: {file}");
            }
        };
        sweep(
            ends,
            || {
                let world = copy_of(&template);
                if delta {
                    world.session(&world.repo).restore(&request(&world, false)).unwrap();
                    fs::write(world.dir.path().join("restored/base/5/1"), "x").unwrap();
                    fs::write(world.dir.path().join("restored/base/5/9"), "x").unwrap();
                }
                world
            },
            |world, repo| world.session(repo).restore(&request(world, delta)),
            |place, world, _, done| {
                if done.is_ok() {
                    check_done(place, world);
                }
                let again = world.session(&world.repo).restore(&request(world, true));
                again.unwrap_or_else(|error| panic!("{place}: next: {error}"));
                check_done(place, world);
            },
        );
    }
}

#[test]
fn connection_that_ended_made_an_interrupted_backup_look_like_one_of_another_program() {
    let world = World::new(None);
    let settings = || BackupRequest { process_max: 1, ..world.settings(BackupType::Full) };
    let storage = FaultyStorage::new(Arc::clone(&world.repo.storage));
    let ending = storage.clone();
    let storage = storage.before(move |op, path| {
        if op == Op::Write && path.as_str().contains("base/5/1") {
            ending.end();
        }
    });
    world.run_on(&Repo { storage: Arc::new(storage), ..world.repo.clone() }, settings()).unwrap_err();
    let interrupted = reconstruct::backup_labels(&world.repo, &stanza()).unwrap().remove(0);
    // A resume that was interrupted may have removed the mark. The copy of the manifest still says that the backup ran
    let directory = layout::backup_path(&stanza(), &interrupted);
    let names = world.repo.storage.names(&directory).unwrap().unwrap();
    let mark = names.iter().find(|name| name.starts_with("backup.claim")).unwrap();
    world.repo.storage.remove(&directory.join(mark).unwrap()).unwrap();
    let copy = layout::manifest_copy(&stanza(), &interrupted);
    let storage = FaultyStorage::new(Arc::clone(&world.repo.storage));
    let (calls, ends) = (storage.clone(), AtomicUsize::new(0));
    let storage = storage.before(move |op, path| {
        if op == Op::Read && *path == copy && ends.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = calls.clone().end_one_at(calls.calls().len() + 1);
        }
    });
    let label = world.run_on(&Repo { storage: Arc::new(storage), ..world.repo.clone() }, settings()).unwrap();
    assert_eq!(label, interrupted);
}
