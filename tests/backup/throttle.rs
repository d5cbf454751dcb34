//! The rate of backups, restores and verify, measured from outside. A busy machine is slower than a rate, so only the
//! lower limit of the time counts.

use std::fs;
use std::time::{Duration, Instant};

use crate::env::{Cluster, Scenario, ScenarioOptions, Tool, restored_matches};

const MIB: u64 = 1 << 20;

fn scenario() -> Option<Scenario> {
    let global = ["start-fast=y", "compress-type=none"].map(str::to_owned).to_vec();
    let scenario = Scenario::start(ScenarioOptions { global, archive_with: Tool::Rbr, ..ScenarioOptions::default() })?;
    scenario.rbr(&["stanza-create"]).success();
    Some(scenario)
}

/// Runs a command that passes so many bytes with this rate.
fn takes_its_time(scenario: &Scenario, bytes: u64, rate: u64, arguments: &[&str]) {
    let begun = Instant::now();
    let run = scenario.rbr(&[&[format!("--max-rate={rate}MiB").as_str()], arguments].concat()).success();
    let wanted = Duration::from_millis(bytes * 1000 / (rate * MIB) * 95 / 100);
    assert!(begun.elapsed() >= wanted, "{:?} instead of {wanted:?}\n{}", begun.elapsed(), run.describe());
}

#[test]
fn commands_keep_to_the_rate_and_their_results_are_whole() {
    let Some(scenario) = scenario() else { return };
    let size = || {
        let info = scenario.rbr(&["--output=json", "info"]).success().json();
        info[0]["backup"][0]["info"]["repository"]["size"].as_u64().expect("size")
    };
    scenario.rbr(&["--type=full", "backup"]).success();
    let bytes = size();
    assert!(bytes > 20 * MIB, "{bytes}");
    takes_its_time(&scenario, bytes, 10, &["--type=full", "--process-max=4", "backup"]);
    // Two backups, and WAL that is not counted here
    takes_its_time(&scenario, 2 * bytes, 30, &["--process-max=4", "--verify-exit-code", "verify"]);
    let target = format!("--pg1-path={}", scenario.space.folder("slow").display());
    takes_its_time(&scenario, bytes, 15, &[&target, "--process-max=4", "--type=none", "restore"]);
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    restored_matches(&mut scenario.restore(Tool::Rbr, "restored", &["--max-rate=100MiB"]), &dump);
}

/// A backup copies half a MiB a second. Returns how long it needs for what is left.
fn progress_is_shown(scenario: &Scenario) -> Duration {
    let lock = |tool: Tool| {
        let info = scenario.run(tool, &["--output=json", "--log-level-console=off", "info"]).success().json();
        info[0]["status"]["lock"]["backup"].as_object().expect("lock").clone()
    };
    let number = |lock: &serde_json::Map<_, _>, name| lock.get(name).and_then(serde_json::Value::as_u64);
    // It may have copied nothing yet, which is a rate of 0, and the first bytes come faster
    let is_settled = |lock: &_| number(lock, "rbr-rate").is_some_and(|rate| (MIB / 6..2 * MIB).contains(&rate));
    let mut ours = lock(Tool::Rbr);
    let end = Instant::now() + Duration::from_secs(30);
    while !is_settled(&ours) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        ours = lock(Tool::Rbr);
    }
    // The real pgBackRest reads the lock file of rbr
    let theirs = lock(Tool::PgBackRest);
    let [rate, left] = ["rbr-rate", "rbr-seconds-left"].map(|name| number(&ours, name).expect("number"));
    ours.retain(|name, _| !name.starts_with("rbr-"));
    assert!((MIB / 6..2 * MIB).contains(&rate) && (3..200).contains(&left), "{rate} {left} {ours:?}");
    assert!(ours.keys().eq(theirs.keys()), "{ours:?} {theirs:?}");
    assert_eq!(ours["size"], theirs["size"]);
    let text = scenario.rbr(&["info"]).success().stdout;
    assert!(text.contains("backup/expire running - ") && text.contains("    backup rate: "), "{text}");
    let [size, done] = ["size", "size-cplt"].map(|name| ours[name].as_u64().expect("bytes"));
    Duration::from_secs((size - done) / (MIB / 2))
}

#[test]
fn rate_of_a_running_backup_changes_with_its_file() {
    let Some(scenario) = scenario() else { return };
    let file = scenario.space.path("rate");
    fs::write(&file, "512KiB\n").expect("write");
    let option = format!("--max-rate-file={}", file.display());
    let mut backup = scenario.start_command(Tool::Rbr, &["--type=full", &option, "backup"]);
    let left = progress_is_shown(&scenario);
    // It would take more than forty seconds
    assert!(backup.is_running(), "{}", backup.log());
    fs::write(&file, "none\n").expect("write");
    let changed = Instant::now();
    assert_eq!(backup.wait(), 0, "{}", backup.log());
    assert!(changed.elapsed() < left, "{:?} instead of {left:?}\n{}", changed.elapsed(), backup.log());
    assert!(backup.log().contains("rate is now unlimited"), "{}", backup.log());
}

/// Creates a standby of the cluster from its last backup, which follows.
fn standby(scenario: &Scenario) -> Cluster {
    let conninfo = format!("--recovery-option=primary_conninfo=host={} user=postgres", scenario.cluster.socket());
    let mut standby = scenario.restore(Tool::Rbr, "standby", &["--type=standby", &conninfo]);
    standby.start();
    let end = Instant::now() + Duration::from_secs(60);
    while scenario.cluster.sql("select count(*) from pg_stat_replication where state = 'streaming'") != "1" {
        assert!(Instant::now() < end, "the standby does not follow\n{}", standby.log_text());
        std::thread::sleep(Duration::from_millis(100));
    }
    standby
}

#[test]
fn backup_slows_down_while_a_standby_is_behind_and_ends_nevertheless() {
    let Some(scenario) = scenario() else { return };
    scenario.rbr(&["--type=full", "backup"]).success();
    let standby = standby(&scenario);
    standby.sql("select pg_wal_replay_pause()");
    scenario.change(1);
    scenario.cluster.sql("create table behind as select g, md5(g::text) from generate_series(1, 100000) g");
    // Slow enough for the first look to come before the end
    let run = scenario.rbr(&["--type=full", "--max-rate=5MiB", "--max-replica-lag=1MiB", "backup"]).success();
    let run = run.says("backup is slowed down because a standby is ");
    standby.sql("select pg_wal_replay_resume()");
    assert!(run.stdout.contains("new backup label"), "{}", run.describe());
    scenario.rbr(&["--verify-exit-code", "verify"]).success();
}

#[test]
fn cluster_on_another_host_has_no_load_here() {
    let Some(scenario) = scenario() else { return };
    for option in ["--max-load=4", "--max-replica-lag=1MiB"] {
        scenario
            .rbr(&[option, "--pg2-path=/pg", "--pg2-host=localhost", "backup"])
            .fails(67)
            .says(option.split('=').next().expect("name").trim_start_matches("--"));
    }
    scenario.rbr(&["--max-rate=100KiB", "backup"]).fails(32);
}
