//! A second cluster that archives into the stanza of another one, as after copying its configuration.

use std::fs;
use std::time::{Duration, Instant};

use crate::env::{Cluster, Run, Scenario, ScenarioOptions, Shutdown, Tool};

/// PostgreSQL tries to archive at once.
const FAILURE_MAX: Duration = Duration::from_secs(30);

/// Returns the number of files in the stanza's archive, without info files.
fn archived(scenario: &Scenario) -> usize {
    let folders = fs::read_dir(scenario.space.path("repo/archive/demo/15-1")).into_iter().flatten().flatten();
    folders.map(|folder| fs::read_dir(folder.path()).expect("folder").count()).sum()
}

fn failures(cluster: &Cluster) -> usize {
    cluster.log_text().matches("archive command failed with exit code").count()
}

#[test]
fn second_cluster_is_refused_as_by_pgbackrest_and_its_server_says_so() {
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["check"]).success();
    let before = archived(&scenario);
    assert!(before > 0);

    let pg_path = format!("--pg1-path={}", scenario.space.text("other"));
    let command = format!(
        "archive_command = '{} --config={} --stanza=demo {pg_path} archive-push %p'",
        scenario.program(Tool::Rbr).display(),
        scenario.space.text("pgbackrest.conf")
    );
    let settings = ["archive_mode = on".to_owned(), command];
    let mut other = Cluster::create(&scenario.space, scenario.oracles, 15, "other", &settings);
    for archive in ["archive-async=n", "archive-async=y"] {
        scenario.configure(&[archive.to_owned()]);
        let failed = failures(&other);
        other.start();
        let source = other.data().join("pg_wal").join(other.switch_wal());
        let end = Instant::now() + FAILURE_MAX;
        while failures(&other) == failed {
            assert!(Instant::now() < end, "{archive}: no failure in the log:\n{}", other.log_text());
            std::thread::sleep(Duration::from_millis(50));
        }
        other.stop(Shutdown::Immediate);

        let push = |tool| -> Run {
            scenario.worker_ends();
            scenario.run(tool, &[&pg_path, "archive-push", source.to_str().expect("UTF-8")])
        };
        let theirs = push(Tool::PgBackRest);
        let ours = push(Tool::Rbr);
        assert_ne!(theirs.code, 0, "{}", theirs.describe());
        assert_eq!((ours.code, ours.error()), (theirs.code, theirs.error()), "{archive}");
        assert!(!ours.error().is_empty(), "{}", ours.describe());
        let log = other.log_text();
        assert!(log.contains(&format!("archive command failed with exit code {}", ours.code)), "{log}");
        for line in ours.error().lines() {
            assert!(log.contains(line), "'{line}' is not in the server's log:\n{log}");
        }
        assert_eq!(archived(&scenario), before, "{archive}");
    }
}
