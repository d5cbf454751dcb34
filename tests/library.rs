//! The engine as a library: its examples, with a real server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::annotate::AnnotateRequest;
use engine::check::CheckRequest;
use engine::info::{InfoRequest, StatusCode};
use engine::objectives;
use engine::pg::{PgHost, PgSettings};
use engine::repo::RepoSettings;
use engine::stanza::{StanzaChange, StanzaDeleteRequest, StanzaRequest};
use engine::storage::posix::PosixSettings;
use engine::{ErrorCode, Session};

use crate::env::{Scenario, ScenarioOptions, restored_matches};
use crate::test_restore::archive_now;

#[allow(dead_code, reason = "the tests call its functions, not its main function")]
#[path = "../engine/examples/backup.rs"]
mod backup;
#[allow(dead_code, reason = "the tests call its functions, not its main function")]
#[path = "../engine/examples/expire.rs"]
mod expire;
#[allow(dead_code, reason = "the tests call its functions, not its main function")]
#[path = "../engine/examples/restore.rs"]
mod restore;
#[allow(dead_code, reason = "the tests call its functions, not its main function")]
#[path = "../engine/examples/verify.rs"]
mod verify;

fn session(scenario: &Scenario) -> Session {
    let repo = RepoSettings::new(PosixSettings::new(scenario.space.path("repo")));
    let session = Session::new("demo".parse().unwrap(), [repo]).unwrap();
    session.with_lock_path(scenario.space.path("lock"))
}

fn cluster(scenario: &Scenario) -> PgSettings {
    PgSettings {
        socket_path: Some(PathBuf::from(scenario.cluster.socket())),
        user: Some("postgres".to_owned()),
        ..PgSettings::new(scenario.cluster.data())
    }
}

/// Gives everything in a folder to the user of the servers, because the tests themselves may run as root.
fn give(scenario: &Scenario, path: &Path) {
    scenario.space.user().own(path);
    if path.is_dir() && !path.is_symlink() {
        for entry in path.read_dir().unwrap() {
            give(scenario, &entry.unwrap().path());
        }
    }
}

#[test]
fn examples_back_up_and_restore_a_cluster_and_their_summaries_agree_with_pgbackrest() {
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let session = session(&scenario);
    let made = backup::make_backup(&session, cluster(&scenario)).unwrap();
    give(&scenario, &scenario.space.path("repo"));

    let info = scenario.pgbackrest(&["info", "--output=json", "--log-level-console=off"]).success().json();
    let theirs = &info[0]["backup"][0];
    assert_eq!(theirs["label"], made.label.as_str());
    assert_eq!(theirs["info"]["size"], made.entry.size);
    assert_eq!(theirs["info"]["repository"]["delta"], made.entry.repo_size_delta);
    assert_eq!(theirs["archive"]["start"], made.entry.archive_start.unwrap().to_string());
    assert_eq!((made.page_errors, made.warnings.total, made.repo_key), (0, 0, 1));
    assert!(made.files > 900 && !made.duration.is_zero(), "{made:?}");
    let listed: Vec<_> = session.backups().unwrap().into_iter().map(|backup| (backup.label, backup.entry)).collect();
    assert_eq!(listed, [(made.label.clone(), made.entry.clone())]);

    let dump = scenario.cluster.dump();
    let target = scenario.space.folder("restored");
    let command = format!(
        "{} --config={} --pg1-path={} --stanza=demo archive-get %f \"%p\"",
        scenario.space.path("bin/rbr").display(),
        scenario.space.text("pgbackrest.conf"),
        target.display()
    );
    let restored = restore::restore(&session, target.to_str().unwrap(), &command).unwrap();
    assert_eq!((&restored.label, restored.files, restored.size), (&made.label, made.files, made.entry.size));
    assert_eq!(restored.wal, made.entry.archive_start.zip(made.entry.archive_stop));
    assert_eq!((restored.files_kept, restored.page_errors, restored.warnings.total), (0, 0, 0));
    let mut cluster =
        crate::env::Cluster::existing(&scenario.space, scenario.oracles, scenario.options.version, "restored");
    restored_matches(&mut cluster, &dump);

    // Its directory is no longer empty
    let error = restore::restore(&session, target.to_str().unwrap(), &command).unwrap_err();
    assert_eq!(error.code, ErrorCode::PathNotEmpty);
}

#[test]
fn session_keeps_a_stanza_from_its_creation_to_its_deletion_and_its_summaries_agree_with_pgbackrest() {
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    let (session, pg) = (session(&scenario), cluster(&scenario));
    let theirs = |args: &[&str]| {
        give(&scenario, &scenario.space.path("repo"));
        scenario.pgbackrest(args).success()
    };

    // A new stanza works, and both programs agree about it
    let request = StanzaRequest::new(pg.clone());
    let changes = || session.stanza_create(&request).unwrap().repos.iter().map(|repo| repo.change).collect::<Vec<_>>();
    assert_eq!((changes(), changes()), (vec![StanzaChange::Created], vec![StanzaChange::Unchanged]));
    std::fs::remove_file(scenario.space.path("repo/archive/demo/archive.info.copy")).unwrap();
    assert_eq!(changes(), [StanzaChange::Completed]);
    assert_eq!(session.stanza_upgrade(&request).unwrap().repos[0].change, StanzaChange::Unchanged);
    assert_eq!(session.info(&InfoRequest::default()).unwrap().status, StatusCode::NoBackup);
    give(&scenario, &scenario.space.path("repo"));
    let checked = session.check(&CheckRequest::new(pg.clone())).unwrap();
    let (segment, archived) = (checked.segment.unwrap().to_string(), &checked.archived);
    assert!(archived.len() == 1 && Path::new(&archived[0].path).exists(), "{archived:?}");
    assert!(archived[0].path.contains(&segment) && !checked.standby && checked.warnings.total == 0);
    theirs(&["check"]);

    // Annotations and sizes are those that pgBackRest shows
    let back_up = || {
        let made = backup::make_backup(&session, pg.clone()).unwrap();
        // A backup saves archive.info again, which the server's archive command reads
        give(&scenario, &scenario.space.path("repo"));
        made
    };
    let (first, second) = (back_up(), back_up());
    let annotated = session.annotate(&AnnotateRequest::new(second.label.clone()).set("source", "test")).unwrap();
    assert_eq!(annotated.repo_keys, [1]);
    let shown = theirs(&["info", "--output=json", "--log-level-console=off"]).json();
    assert_eq!(shown[0]["backup"][1]["annotation"]["source"], "test");
    let info = session.info(&InfoRequest::default().set(&second.label)).unwrap();
    let labels: Vec<_> = info.backups.iter().map(|backup| &backup.label).collect();
    assert_eq!((info.status, labels), (StatusCode::Ok, vec![&second.label]));
    assert_eq!(shown[0]["status"]["code"], info.status.number());

    // What expire says to have removed is gone, and nothing else is
    let expired = expire::keep_full_backups(&session, 1).unwrap();
    assert_eq!((&expired.repos[0].backups, expired.repos[0].repo_key), (&vec![first.label.clone()], 1));
    assert_eq!(expired.repos[0].directories, expired.repos[0].backups);
    assert!(!expired.repos[0].wal.is_empty(), "{expired:?}");
    let left = session.backups().unwrap();
    assert_eq!(left.iter().map(|backup| &backup.label).collect::<Vec<_>>(), [&second.label]);
    let repeated = expire::keep_full_backups(&session, 1).unwrap();
    assert!(repeated.repos[0].backups.is_empty() && repeated.repos[0].wal.is_empty(), "{repeated:?}");
    theirs(&["verify", "--log-level-console=off"]);

    // A damaged file is found
    assert!(verify::verify(&session).unwrap().is_valid());
    let (first_segment, _) = second.entry.archive_start.zip(second.entry.archive_stop).unwrap();
    let directory = scenario.space.path("repo/archive/demo").join(format!("{}-1", scenario.options.version));
    let directory = directory.join(&first_segment.to_string()[..16]);
    let mut stored = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let prefix = format!("{first_segment}-");
    let stored = stored.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix)).unwrap();
    std::fs::write(&stored, b"damaged").unwrap();
    let verified = verify::verify(&session).unwrap();
    assert!(!verified.is_valid() && verified.errors > 0, "{verified:?}");
    assert_eq!(verified.into_error().unwrap().code, ErrorCode::Command);

    // A stanza is only deleted after it was stopped
    let delete = StanzaDeleteRequest::new(pg);
    assert_eq!(session.stanza_delete(&delete).unwrap_err().code, ErrorCode::FileMissing);
    give(&scenario, &scenario.space.path("lock"));
    scenario.rbr(&["stop"]).success();
    assert_eq!(session.stanza_delete(&delete).unwrap_err().code, ErrorCode::PgRunning);
    assert!(session.stanza_delete(&delete.clone().force()).unwrap().existed);
    assert!(!session.stanza_delete(&delete.force()).unwrap().existed);
    assert!(!scenario.space.path("repo/backup/demo").exists());
}

#[test]
fn recovery_objectives_tell_how_much_wal_of_a_running_server_is_not_archived() {
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    let session = session(&scenario);
    let pg: Vec<Arc<dyn PgHost>> = vec![cluster(&scenario).into()];
    let newest = || {
        let (key, objectives) = session.recovery_objectives().remove(0);
        let objectives = objectives.unwrap();
        assert_eq!((key, objectives.rto), (1, None));
        objectives.rpo.expect("WAL")
    };
    let before = newest();
    let server = objectives::server_wal(&pg, &session).unwrap().expect("primary");
    scenario.cluster.sql("create table not_archived as select repeat('x', 100) from generate_series(1, 10000)");
    let later = objectives::server_wal(&pg, &session).unwrap().expect("primary");
    assert!(later.lsn.0 > server.lsn.0 + 1_000_000, "{server:?} {later:?}");
    assert!(before.unarchived_bytes(&later) > before.unarchived_bytes(&server) + 1_000_000);

    archive_now(&scenario);
    let after = newest();
    assert_eq!(after.segment.to_string(), scenario.cluster.sql("select last_archived_wal from pg_stat_archiver"));
    assert_eq!(after.unarchived_bytes(&later), 0);
    assert!(after.stored >= before.stored);
}
