//! `test-restore` proves real backups with real servers, and says why it can't prove damaged ones.

mod attest;
mod damage;
mod isolation;
mod leftovers;
mod targets;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::env::{Run, Scenario, ScenarioOptions};

/// Blocks and bundles, as most repositories have them.
pub const BLOCKS: [&str; 4] = ["repo1-bundle=y", "repo1-block=y", "compress-type=zst", "repo1-bundle-limit=64KiB"];

/// Starts a cluster with these lines in `[global]` and a stanza.
pub fn with_stanza(options: ScenarioOptions) -> Option<Scenario> {
    let scenario = Scenario::start(options)?;
    scenario.space.folder("scratch");
    scenario.rbr(&["stanza-create"]).success();
    Some(scenario)
}

/// Starts a cluster with a full and an incremental backup, and WAL after it.
pub fn with_chain(mut options: ScenarioOptions) -> Option<Scenario> {
    options.global.extend(BLOCKS.map(str::to_owned));
    let scenario = with_stanza(options)?;
    scenario.rbr(&["--type=full", "backup"]).success();
    scenario.change(1);
    scenario.rbr(&["--type=incr", "backup"]).success();
    scenario.change(2);
    archive_now(&scenario);
    Some(scenario)
}

/// Ends the current WAL segment and waits until it is in the archive.
#[track_caller]
pub fn archive_now(scenario: &Scenario) {
    let segment = scenario.cluster.switch_wal();
    let end = Instant::now() + Duration::from_secs(60);
    while scenario.cluster.sql("select last_archived_wal from pg_stat_archiver") < segment {
        assert!(Instant::now() < end, "{segment} is not archived:\n{}", scenario.cluster.log_text());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs test-restore with the scenario's PostgreSQL.
pub fn test_restore(scenario: &Scenario, arguments: &[&str]) -> Run {
    scenario.rbr(&all_arguments(scenario, arguments).iter().map(String::as_str).collect::<Vec<_>>())
}

pub fn all_arguments(scenario: &Scenario, arguments: &[&str]) -> Vec<String> {
    let programs = scenario.oracles.postgres[&scenario.options.version].display();
    let mut all = vec![
        "test-restore".to_owned(),
        format!("--scratch-path={}", scenario.space.text("scratch")),
        format!("--pg-bin-path={programs}"),
        "--output=json".to_owned(),
        "--log-level-console=warn".to_owned(),
    ];
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    all
}

/// Runs test-restore, which must prove the backup, and returns the report.
#[track_caller]
pub fn proven(scenario: &Scenario, arguments: &[&str]) -> Value {
    let report = test_restore(scenario, arguments).success().json();
    assert_eq!(report["result"], "passed", "{report:#}");
    assert_eq!(report.get("reason"), None);
    assert_eq!(leftovers(scenario), [""; 0]);
    report
}

/// Runs test-restore, which must fail because of this check, and returns the reason.
#[track_caller]
pub fn not_proven(scenario: &Scenario, arguments: &[&str], check: &str) -> String {
    let run = test_restore(scenario, arguments).fails(104);
    let report = run.json();
    assert_eq!(report["result"], "failed");
    assert_eq!(outcome(&report, check), "failed", "{report:#}");
    let reason = report["reason"].as_str().expect("reason").to_owned();
    assert!(reason.starts_with(&format!("{check}: ")), "{reason}");
    assert_eq!(leftovers(scenario), [""; 0]);
    reason
}

/// The outcome of a check; empty if it did not run.
pub fn outcome<'a>(report: &'a Value, check: &str) -> &'a str {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|found| found["name"] == check);
    found.and_then(|found| found["result"].as_str()).unwrap_or("")
}

/// What is left in the scratch path.
pub fn leftovers(scenario: &Scenario) -> Vec<String> {
    let entries = std::fs::read_dir(scenario.space.path("scratch")).expect("scratch path");
    let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| !(name.starts_with(".rbr-test-restore-") && name.ends_with(".lock"))).collect()
}
