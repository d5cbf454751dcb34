//! `recovery-points`: what it finds in the WAL of real servers, and whether restores to these points show it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::env::{Scenario, ScenarioOptions, Shutdown, Tool};

fn start(version: u32, settings: &[&str]) -> Option<Scenario> {
    let scenario = Scenario::start(ScenarioOptions {
        version,
        global: vec!["compress-type=zst".into(), "repo1-bundle=y".into(), "log-level-console=warn".into()],
        settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
        segment_mib: 1,
        ..ScenarioOptions::default()
    })?;
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    Some(scenario)
}

/// Switches the segment and waits until it is archived.
#[track_caller]
fn archive(scenario: &Scenario) {
    let segment = scenario.cluster.switch_wal();
    let archived = format!("select last_archived_wal >= '{segment}' from pg_stat_archiver");
    for _ in 0..300 {
        if scenario.cluster.sql(&archived) == "t" {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the last segment is not archived");
}

/// Returns the archive in the JSON output, the only one.
#[track_caller]
fn points(scenario: &Scenario, arguments: &[&str]) -> Value {
    let mut all = vec!["recovery-points", "--output=json"];
    all.extend(arguments);
    let json = scenario.rbr(&all).success().json();
    let archives = json["repo"][0]["archive"].as_array().expect("archives").clone();
    assert_eq!(archives.len(), 1);
    archives[0].clone()
}

fn events<'a>(archive: &'a Value, kind: &str) -> Vec<&'a Value> {
    let events = archive["scan"]["event"].as_array().expect("events");
    events.iter().filter(|event| event["kind"] == kind).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn has(list: &Value, oid: &str) -> bool {
    let oid: u64 = oid.parse().expect("oid");
    list.as_array().is_some_and(|list| list.iter().any(|item| item.as_u64() == Some(oid)))
}

/// Drops and truncates tables while pgbench runs, finds both, and restores to the moments before.
fn mistakes_are_found_and_undone(version: u32) {
    let Some(scenario) = start(version, &[]) else { return };
    let cluster = &scenario.cluster;
    cluster.client("pgbench", &["-i", "-q", "-s", "2"]).success();
    let oid = |table: &str| cluster.sql(&format!("select '{table}'::regclass::oid"));
    let (dropped, truncated) = (oid("plain"), oid("wide"));
    let database = cluster.sql("select oid from pg_database where datname = current_database()");
    std::thread::scope(|scope| {
        let load = scope.spawn(|| cluster.client("pgbench", &["-T", "6", "-c", "2", "-n"]));
        std::thread::sleep(std::time::Duration::from_millis(1500));
        cluster.sql("select pg_create_restore_point('it''s the point')");
        cluster.sql("truncate wide");
        std::thread::sleep(std::time::Duration::from_millis(1000));
        cluster.sql("drop table plain");
        load.join().expect("thread").success();
    });
    archive(&scenario);

    let found = points(&scenario, &["--scan"]);
    let window = &found["timeline"][0]["window"];
    assert_eq!(window.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(window[0]["end"]["reason"], "newest");
    let commits = window[0]["commit"]["total"].as_u64().expect("commits");
    let counted = cluster.sql("select count(*) from pgbench_history").parse::<u64>().expect("number");
    assert!(commits > counted && counted > 50, "{commits} {counted}");
    assert_eq!(text(events(&found, "restore-point")[0], "name"), "it's the point");

    let drops = events(&found, "drop");
    let is_table = |event: &&&Value| {
        has(if version >= 15 { &event["dropped-relation"] } else { &event["changed-relation"] }, &dropped)
    };
    let drop = drops.iter().find(is_table).expect("the drop");
    assert_eq!(drop["database"].to_string(), database);
    let truncates = events(&found, "truncate-or-rewrite");
    let truncate = truncates.iter().find(|event| has(&event["changed-relation"], &truncated)).expect("the truncate");
    assert!(text(truncate, "time") < text(drop, "time"));

    for (name, event, rows) in [("before-drop", drop, "20000 0"), ("before-truncate", truncate, "20000 100")] {
        let target = format!("--target={}", text(event, "lsn"));
        let arguments = ["--type=lsn", &target, "--target-exclusive", "--target-action=promote"];
        let mut restored = scenario.restore(Tool::Rbr, name, &arguments);
        restored.start();
        restored.wait_writable();
        let count = "select (select count(*) from plain) || ' ' || (select count(*) from wide)";
        assert_eq!(restored.sql(count), rows, "PostgreSQL {version}, {name}");
        restored.stop(Shutdown::Fast);
    }
    // The record itself is what makes the difference
    let target = format!("--target={}", text(drop, "lsn"));
    let mut after = scenario.restore(Tool::Rbr, "after-drop", &["--type=lsn", &target, "--target-action=promote"]);
    after.start();
    after.wait_writable();
    assert_eq!(after.sql("select to_regclass('plain') is null"), "t");
    after.stop(Shutdown::Fast);
}

#[test]
fn mistakes_are_found_and_undone_pg13() {
    mistakes_are_found_and_undone(13);
}

#[test]
fn mistakes_are_found_and_undone_pg18() {
    mistakes_are_found_and_undone(18);
}

#[test]
fn truncate_is_known_as_such_with_logical_wal() {
    let Some(scenario) = start(17, &["wal_level = logical"]) else { return };
    let oid = scenario.cluster.sql("select 'wide'::regclass::oid");
    scenario.cluster.sql("truncate wide");
    archive(&scenario);
    let found = points(&scenario, &["--scan"]);
    assert!(events(&found, "truncate").iter().any(|event| has(&event["truncated-table"], &oid)), "{found}");
}

/// The stored segments of the first timeline, in order.
fn segments(scenario: &Scenario) -> Vec<PathBuf> {
    let archive = fs::read_dir(scenario.space.path("repo/archive/demo")).expect("archive");
    let id = archive.map(|entry| entry.expect("entry").path()).find(|path| path.is_dir()).expect("archive id");
    let mut segments: Vec<PathBuf> = fs::read_dir(id.join("0000000100000000"))
        .expect("directory")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| !path.to_string_lossy().ends_with(".backup"))
        .collect();
    segments.sort();
    segments
}

#[test]
fn damaged_and_missing_segments_end_the_window() {
    let Some(scenario) = start(15, &[]) else { return };
    for round in 1..=6 {
        scenario.cluster.sql(&format!("create table t{round} as select generate_series(1, 5000) as id"));
        archive(&scenario);
    }
    let whole = points(&scenario, &["--scan"]);
    assert_eq!(whole["timeline"][0]["window"][0]["end"]["reason"], "newest");
    let stored = segments(&scenario);
    let name = |path: &PathBuf| path.file_name().expect("name").to_string_lossy()[..24].to_owned();

    // One bit in the middle of a segment: only a scan sees it
    let damaged = &stored[stored.len() - 2];
    let mut bytes = fs::read(damaged).expect("segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let original = fs::read(damaged).expect("segment");
    fs::write(damaged, &bytes).expect("write");
    assert_eq!(points(&scenario, &[])["timeline"][0]["window"][0]["end"]["reason"], "newest");
    let found = points(&scenario, &["--scan"]);
    let end = &found["timeline"][0]["window"][0]["end"];
    assert_eq!((text(end, "reason"), text(end, "segment")), ("damaged", name(damaged).as_str()), "{found}");
    fs::write(damaged, original).expect("write");

    let missing = &stored[stored.len() - 3];
    fs::remove_file(missing).expect("remove");
    let found = points(&scenario, &[]);
    let end = &found["timeline"][0]["window"][0]["end"];
    assert_eq!((text(end, "reason"), text(end, "segment")), ("missing", name(missing).as_str()), "{found}");
    let report = scenario.rbr(&["recovery-points"]).success();
    assert!(report.stdout.contains(&format!("WAL segment {} is missing", name(missing))), "{}", report.stdout);
}

#[test]
fn timeline_after_a_promotion_has_the_windows_of_its_parent() {
    let Some(scenario) = start(17, &[]) else { return };
    scenario.cluster.sql("create table first as select 1 as id; select pg_create_restore_point('here')");
    archive(&scenario);
    let arguments = ["--type=name", "--target=here", "--target-action=promote"];
    let mut promoted = scenario.restore(Tool::Rbr, "promoted", &arguments);
    promoted.start();
    promoted.wait_writable();
    promoted.sql("create table second as select 1 as id");
    let segment = promoted.switch_wal();
    // A restored cluster of the tests does not archive
    let path = format!("--pg1-path={}", promoted.data_text());
    for name in ["00000002.history", &segment] {
        let file = promoted.data().join("pg_wal").join(name);
        scenario.rbr(&[&path, "archive-push", &file.to_string_lossy()]).success();
    }
    scenario.cluster.sql("create table third as select 1 as id");
    archive(&scenario);

    let found = points(&scenario, &["--scan"]);
    let timelines = found["timeline"].as_array().expect("timelines");
    assert_eq!(timelines.len(), 2, "{found}");
    assert_eq!(timelines[0]["parent"], Value::Null);
    assert_eq!(timelines[1]["parent"]["timeline"], 1);
    let label = scenario.labels().remove(0);
    for timeline in timelines {
        assert_eq!(timeline["window"][0]["backup"][0], label.as_str(), "{found}");
        assert_eq!(timeline["window"][0]["end"]["reason"], "newest", "{found}");
    }
    let begins = events(&found, "timeline");
    assert_eq!((begins.len(), &begins[0]["timeline"], &begins[0]["previous"]), (1, &2.into(), &1.into()), "{found}");
    // The first segment of timeline 2 has a copy of the record
    let points = events(&found, "restore-point");
    assert_eq!(points.iter().filter(|event| event["name"] == "here").count(), 1, "{found}");
    promoted.stop(Shutdown::Fast);
}

#[test]
fn range_of_time_limits_what_is_read() {
    let Some(scenario) = start(18, &[]) else { return };
    let work = |name: &str| {
        scenario.cluster.sql(&format!("select pg_create_restore_point('{name}')"));
        archive(&scenario);
    };
    work("one");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scenario.rbr(&["backup", "--type=incr"]).success();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let since = scenario.cluster.sql("select to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SSOF')");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    work("two");
    let names = |archive: &Value| -> Vec<String> {
        let names = events(archive, "restore-point").into_iter().map(|event| text(event, "name").to_owned());
        // A backup makes one, too
        names.filter(|name| !name.starts_with("pgBackRest")).collect()
    };
    let all = points(&scenario, &["--scan"]);
    assert_eq!(names(&all), ["one", "two"]);
    let later = points(&scenario, &["--scan", &format!("--since={since}")]);
    assert_eq!(names(&later), ["two"]);
    let bytes = |archive: &Value| archive["scan"]["bytes"].as_u64().expect("bytes");
    assert!(bytes(&later) < bytes(&all), "{} {}", bytes(&later), bytes(&all));
    let earlier = points(&scenario, &["--scan", &format!("--until={since}")]);
    assert_eq!(names(&earlier), ["one"]);
    let last = scenario.labels().pop().expect("label");
    let of_set = points(&scenario, &["--scan", &format!("--set={last}")]);
    assert_eq!(names(&of_set), ["two"]);
    assert_eq!(of_set["timeline"][0]["window"][0]["backup"], serde_json::json!([last]));

    scenario.rbr(&["recovery-points", "--since=2026-01-01 00:00:00"]).fails(31);
    scenario.rbr(&["recovery-points", "--scan", "--since=yesterday"]).fails(29);
    scenario.rbr(&["recovery-points", "--set=20000101-000000F"]).fails(75);
}

/// A DROP TABLE in the middle of 2 GB of WAL of pgbench is found, and the restore to the moment before brings the table
/// back. Prints how fast the WAL was read.
#[test]
fn drop_in_two_gigabytes_of_wal_is_found_and_undone_full_matrix() {
    const WAL_BYTES: u64 = 2 << 30;
    let global = ["compress-type=zst", "repo1-bundle=y", "log-level-console=warn", "archive-async=y"];
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 17,
        global: global.map(str::to_owned).into(),
        settings: vec!["max_wal_size = '256MB'".to_owned(), "synchronous_commit = off".to_owned()],
        on_disk: true,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    let cluster = &scenario.cluster;
    cluster.client("pgbench", &["-i", "-q", "-s", "20"]).success();
    scenario.archiving_ends(&["lock"]);
    scenario.rbr(&["backup", "--type=full"]).success();
    let written = || cluster.sql("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')").parse::<u64>().expect("bytes");
    let begin = written();
    let load_up_to = |bytes: u64| {
        while written() - begin < bytes {
            cluster.client("pgbench", &["-T", "5", "-c", "2", "-n"]).success();
            // Full pages, as with a checkpoint every few minutes on a large cluster
            cluster.sql("update pgbench_accounts set abalance = abalance + 1 where aid % 5 = 0; checkpoint");
        }
    };
    load_up_to(WAL_BYTES / 2);
    let table = cluster.sql("select 'plain'::regclass::oid");
    cluster.sql("drop table plain");
    load_up_to(WAL_BYTES);
    cluster.switch_wal();
    scenario.archiving_ends(&["lock"]);

    let found = points(&scenario, &["--scan", "--process-max=1"]);
    let drops = events(&found, "drop");
    let drop = drops.iter().find(|event| has(&event["dropped-relation"], &table)).expect("the drop");
    let scan = &found["scan"];
    let (bytes, ms) = (scan["bytes"].as_u64().expect("bytes"), scan["milliseconds"].as_u64().expect("time"));
    assert!(bytes >= WAL_BYTES, "{bytes}");
    println!("{} MiB of WAL in {ms} ms with one worker: {} MB/s", bytes >> 20, bytes / 1000 / ms.max(1));
    let target = format!("--target={}", text(drop, "lsn"));
    let arguments = ["--type=lsn", &target, "--target-exclusive", "--target-action=promote"];
    let mut restored = scenario.restore(Tool::Rbr, "before-drop", &arguments);
    restored.start();
    let end = Instant::now() + Duration::from_secs(1800);
    while restored.try_sql("select 1 where not pg_is_in_recovery()").stdout.trim() != "1" {
        assert!(Instant::now() < end, "still in recovery:\n{}", restored.log_text());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(restored.sql("select count(*) from plain"), "20000");
    restored.stop(Shutdown::Fast);
}
