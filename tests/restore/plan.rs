//! `restore --plan`: its numbers compared with what the restore then does, and that it changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::env::{Cluster, Scenario, ScenarioOptions, Shutdown};

fn start(global: &[&str]) -> Option<Scenario> {
    let mut lines = vec!["compress-type=zst".to_owned(), "log-level-console=warn".to_owned()];
    lines.extend(global.iter().map(|&line| line.to_owned()));
    let scenario = Scenario::start(ScenarioOptions {
        version: 17,
        global: lines,
        tablespace: true,
        ..ScenarioOptions::default()
    })?;
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    scenario.change(1);
    scenario.rbr(&["backup", "--type=incr"]).success();
    Some(scenario)
}

/// Path, size, change time and inode of everything below a directory.
fn state(path: &Path, all: &mut BTreeMap<String, (u64, i64, i64, u64)>) {
    for entry in fs::read_dir(path).expect("directory") {
        let path = entry.expect("entry").path();
        let data = fs::symlink_metadata(&path).expect("metadata");
        all.insert(path.to_string_lossy().into_owned(), (data.len(), data.ctime(), data.ctime_nsec(), data.ino()));
        if data.is_dir() {
            state(&path, all);
        }
    }
}

fn arguments(scenario: &Scenario, name: &str) -> [String; 2] {
    let map = scenario.space.folder(&format!("{name}-ts"));
    [format!("--pg1-path={}", scenario.space.text(name)), format!("--tablespace-map-all={}", map.display())]
}

#[track_caller]
fn plan(scenario: &Scenario, name: &str, more: &[&str]) -> Value {
    let places = arguments(scenario, name);
    let mut all: Vec<&str> = places.iter().map(String::as_str).collect();
    all.extend(["restore", "--plan", "--output=json"]);
    all.extend(more);
    scenario.rbr(&all).success().json()
}

/// Returns what the log of a restore says about its files: kept, and copied or created.
fn restored(scenario: &Scenario, name: &str, more: &[&str]) -> (u64, u64) {
    let places = arguments(scenario, name);
    let mut all: Vec<&str> = places.iter().map(String::as_str).collect();
    all.extend(["restore", "--log-level-console=detail"]);
    all.extend(more);
    let log = scenario.rbr(&all).success().stdout;
    let lines = || log.lines().filter(|line| line.contains(": restore file "));
    let kept = lines().filter(|line| line.contains(" - exists and ")).count();
    (kept as u64, (lines().count() - kept) as u64)
}

fn number(plan: &Value, object: &str, name: &str) -> u64 {
    plan[object][name].as_u64().unwrap_or_else(|| panic!("no {object}.{name} in {plan}"))
}

/// Compares plan and restore: into an empty directory, over the same files, and over changed files.
fn plan_says_what_the_restore_does(global: &[&str]) {
    let Some(scenario) = start(global) else { return };
    scenario.space.folder("new");
    let fresh = plan(&scenario, "new", &[]);
    assert_eq!(fs::read_dir(scenario.space.path("new")).expect("directory").count(), 0);
    assert_eq!(number(&fresh, "bytes", "total"), number(&fresh, "bytes", "write"), "{fresh}");
    assert_eq!(fresh["backup"], scenario.labels().pop().expect("label").as_str());
    assert_eq!(fresh["backup-chain"].as_array().map(Vec::len), Some(2), "{fresh}");
    assert_eq!((&fresh["missing-total"], &fresh["wal"]["complete"]), (&0.into(), &true.into()), "{fresh}");
    assert!(number(&fresh, "time", "sample-bytes") > 0, "{fresh}");
    let (kept, copied) = restored(&scenario, "new", &[]);
    assert_eq!((kept, copied), (0, number(&fresh, "file", "copy") + number(&fresh, "file", "zero")), "{fresh}");

    // A server ran there and changed some files; one is longer, one is shorter
    let mut cluster = Cluster::existing(&scenario.space, scenario.oracles, 17, "new");
    cluster.start();
    cluster.wait_writable();
    cluster
        .sql("update plain set note = 'x' where id = 77; create table more as select generate_series(1, 9999) as id");
    cluster.stop(Shutdown::Fast);
    fs::write(cluster.data().join("PG_VERSION"), "17\nlonger").expect("write");
    let mut before = BTreeMap::new();
    state(&cluster.data(), &mut before);
    let delta = plan(&scenario, "new", &["--delta"]);
    let mut after = BTreeMap::new();
    state(&cluster.data(), &mut after);
    assert_eq!(before, after, "the plan changed something");
    assert!(number(&delta, "file", "keep") > 500, "{delta}");
    assert!(number(&delta, "bytes", "write") < number(&fresh, "bytes", "write") / 2, "{delta}");
    let (kept, copied) = restored(&scenario, "new", &["--delta"]);
    let planned = (number(&delta, "file", "keep"), number(&delta, "file", "copy") + number(&delta, "file", "zero"));
    assert_eq!((kept, copied), planned, "{delta}");
}

#[test]
fn plan_says_what_the_restore_does_with_bundles_and_blocks() {
    plan_says_what_the_restore_does(&["repo1-bundle=y", "repo1-block=y"]);
}

#[test]
fn plan_says_what_the_restore_does_with_single_files() {
    plan_says_what_the_restore_does(&[]);
}

#[test]
fn plan_names_what_is_missing_and_why_the_restore_would_be_refused() {
    let Some(scenario) = start(&[]) else { return };
    let places = arguments(&scenario, "pg");
    let path = places[0].as_str();
    // A server runs there
    scenario.rbr(&[path, "restore", "--plan", "--delta"]).fails(38).says("PostgreSQL is running");
    scenario.space.folder("new");
    let places = arguments(&scenario, "new");
    let all: Vec<&str> = places.iter().map(String::as_str).chain(["restore", "--plan"]).collect();
    scenario.rbr(&all).success();
    let target = [all.as_slice(), &["--type=lsn", "--target=FF/0"]].concat();
    scenario.rbr(&target).fails(55).says("the archive has the WAL only up to");
    wal_gap_that_ends_recovery_early_is_not_complete(&scenario, &all);
    let full = scenario.labels().remove(0);
    let stored = scenario.space.path(&format!("repo/backup/demo/{full}/pg_data/PG_VERSION.zst"));
    fs::remove_file(stored).expect("remove");
    let run = scenario.rbr(&all).fails(55);
    assert!(run.stdout.contains("PG_VERSION.zst"), "{}", run.stdout);
    let text = run.stdout;
    assert!(text.contains("expected time to read and decode"), "{text}");
}

/// Two segments follow the backup, and the first one is lost: PostgreSQL would end a recovery there and call it a success.
fn wal_gap_that_ends_recovery_early_is_not_complete(scenario: &Scenario, all: &[&str]) {
    let clusters = fs::read_dir(scenario.space.path("repo/archive/demo")).expect("archive");
    let clusters = clusters.map(|entry| entry.expect("entry").path());
    let archive = clusters.into_iter().find(|path| path.is_dir()).expect("cluster").join("0000000100000000");
    let stored = |segment: &str| {
        let entries = fs::read_dir(&archive).expect("archive").map(|entry| entry.expect("entry").path());
        entries.into_iter().find(|path| {
            let name = path.file_name().expect("name").to_string_lossy();
            name.starts_with(segment) && !name.contains(".backup")
        })
    };
    // A switch without WAL before it does nothing
    scenario.cluster.sql("create table before_lost (id int)");
    let lost = scenario.cluster.sql("select pg_walfile_name(pg_switch_wal())");
    scenario.cluster.sql("create table after_lost (id int)");
    let last = scenario.cluster.sql("select pg_walfile_name(pg_switch_wal())");
    assert!(lost < last);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while stored(&last).is_none() {
        assert!(std::time::Instant::now() < end, "segment {last} does not arrive");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    scenario.rbr(all).success();
    let path = stored(&lost).expect("segment");
    let hidden = scenario.space.path("hidden");
    fs::rename(&path, &hidden).expect("rename");
    scenario.rbr(all).fails(55).says("the recovery would end early");
    scenario.rbr(&[all, &["--type=immediate"]].concat()).success();
    fs::rename(&hidden, &path).expect("rename");
}
