//! SIGKILL during archive-push and archive-get.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::env::{Scenario, ScenarioOptions, Tool};

#[test]
fn push_killed_at_many_moments_next_push_completes_the_segment() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 15,
        // Slow enough to be killed in the middle
        global: vec!["compress-type=gz".into(), "compress-level=9".into()],
        settings: vec!["archive_command = 'true'".into(), "wal_keep_size = '1GB'".into()],
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    let mut killed = 0;
    let mut segments = Vec::new();
    for after_ms in [5, 10, 15, 20, 30, 40, 60, 80, 120] {
        scenario.cluster.sql("insert into wide select g, md5(random()::text) from generate_series(100000, 140000) g on conflict do nothing");
        let segment = scenario.cluster.switch_wal();
        let path = format!("{}/pg_wal/{segment}", scenario.cluster.data_text());
        let mut push = scenario.start_command(Tool::Rbr, &["archive-push", &path]);
        sleep(Duration::from_millis(after_ms));
        killed += usize::from(push.kill());
        scenario.rbr(&["archive-push", &path]).success();
        segments.push(segment);
    }
    assert!(killed >= 2, "only {killed} pushes were still running when they were killed");
    let target = scenario.space.text("fetched");
    for segment in &segments {
        let path = scenario.cluster.data().join("pg_wal").join(segment);
        scenario.pgbackrest(&["archive-get", segment, &target]).success();
        assert!(fs::read(&target).expect("fetched") == fs::read(path).expect("segment"), "{segment} differs");
    }
    let verify = scenario.pgbackrest(&["verify", "--verbose", "--output=text", "--log-level-console=error"]);
    assert!(!verify.stdout.contains("archiveId") || !verify.stdout.contains("invalid: 1"), "{}", verify.describe());
}

#[test]
fn get_killed_at_many_moments_next_get_brings_the_whole_segment() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 15,
        global: vec!["compress-type=bz2".into()],
        settings: vec!["archive_command = 'true'".into(), "wal_keep_size = '1GB'".into()],
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    let segment = scenario.cluster.switch_wal();
    let path = scenario.cluster.data().join("pg_wal").join(&segment);
    scenario.rbr(&["archive-push", path.to_str().expect("UTF-8")]).success();
    let target = scenario.space.text("fetched");
    let mut killed = 0;
    for after_ms in [2, 5, 10, 20, 40, 80, 120] {
        let mut get = scenario.start_command(Tool::Rbr, &["archive-get", &segment, &target]);
        sleep(Duration::from_millis(after_ms));
        killed += usize::from(get.kill());
        scenario.rbr(&["archive-get", &segment, &target]).success();
        assert!(fs::read(&target).expect("fetched") == fs::read(&path).expect("segment"), "after {after_ms} ms");
    }
    assert!(killed >= 2, "only {killed} gets were still running when they were killed");
}
