//! The engine as a library: its examples, with a real server.

use std::path::{Path, PathBuf};

use engine::pg::PgSettings;
use engine::repo::RepoSettings;
use engine::storage::posix::PosixSettings;
use engine::{ErrorCode, Session};

use crate::env::{Scenario, ScenarioOptions, restored_matches};

#[allow(dead_code, reason = "the tests call its functions, not its main function")]
#[path = "../engine/examples/backup.rs"]
mod backup;
#[allow(dead_code, reason = "the tests call its functions, not its main function")]
#[path = "../engine/examples/restore.rs"]
mod restore;

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
