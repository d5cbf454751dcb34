//! `check --diagnose` finds what is wrong with real servers, and says how to mend it.

use crate::env::{Run, Scenario, ScenarioOptions, Weed};

/// Looks, and returns the severity and text of what was found about a topic, worst first.
fn found(run: &Run, topic: &str) -> Vec<(String, String)> {
    let json: serde_json::Value = serde_json::from_str(&run.stdout).expect("nothing but JSON");
    let all = json[0]["found"].as_array().expect("array").iter().filter(|found| found["topic"] == topic);
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let mut found: Vec<_> = all.map(|found| (text(&found["severity"]), text(&found["text"]))).collect();
    let order = |severity: &str| ["error", "warning", "advice", "ok"].iter().position(|known| *known == severity);
    found.sort_by_key(|(severity, _)| order(severity));
    assert!(!found.is_empty(), "nothing about {topic}: {}", run.describe());
    found
}

/// Runs it. Standard output contains nothing but JSON.
fn diagnose(scenario: &Scenario) -> Run {
    scenario.rbr(&["check", "--diagnose=json"])
}

#[track_caller]
fn is(run: &Run, topic: &str, severity: &str, text: &str) {
    let found = found(run, topic);
    assert!(found[0].0 == severity && found[0].1.contains(text), "{topic}: {found:?}\n{}", run.describe());
}

#[test]
fn what_is_wrong_is_found_until_all_is_well() {
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    let run = diagnose(&scenario).fails(104);
    is(&run, "stanza", "error", "there is no stanza 'demo'");
    is(&run, "connection", "ok", "primary");

    scenario.rbr(&["stanza-create"]).success();
    // What could not be archived before is archived now
    scenario.rbr(&["check"]).success();
    let run = diagnose(&scenario).success();
    is(&run, "backups", "warning", "no backup yet");
    scenario.rbr(&["backup"]).success();
    let before = std::fs::read_dir(scenario.space.path("repo/backup/demo")).unwrap().count();
    let run = diagnose(&scenario).success();
    for topic in ["stanza", "repository", "backups", "retention", "archive-settings", "archive-queue", "clock"] {
        is(&run, topic, "ok", "");
    }
    is(&run, "archiving", "ok", "a WAL segment");
    assert_eq!(std::fs::read_dir(scenario.space.path("repo/backup/demo")).unwrap().count(), before);
    scenario.rbr(&["check", "--diagnose"]).success().says("status: 0 error(s)").says("archive_command is");

    let set = |command: &str| {
        scenario.cluster.sql(&format!("alter system set archive_command = '{command}'"));
        scenario.cluster.sql("select pg_reload_conf()");
        std::thread::sleep(std::time::Duration::from_secs(1));
    };
    set("cp %p /dev/null");
    is(&diagnose(&scenario).fails(104), "archive-settings", "error", "another tool");
    scenario.rbr(&["check", "--diagnose"]).fails(104).says("-> set archive_command =").says("check found 1 error(s)");
    set("rbr --stanza=other archive-push %p");
    is(&diagnose(&scenario).fails(104), "archive-settings", "error", "the stanza 'other'");
    // The stop file and what is above are found at once
    scenario.rbr(&["stop"]).success();
    let run = diagnose(&scenario).fails(104);
    is(&run, "stop-file", "error", "stop file exists");
    is(&run, "archive-settings", "error", "the stanza 'other'");
    scenario.rbr(&["start"]).success();
    set("exit 1 # rbr --stanza=demo archive-push %p");
    scenario.cluster.switch_wal();
    let failed = "select last_failed_time > coalesce(last_archived_time, '-infinity') from pg_stat_archiver";
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while scenario.cluster.sql(failed) != "t" {
        assert!(std::time::Instant::now() < end, "the archiver does not fail:\n{}", scenario.cluster.log_text());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    is(&diagnose(&scenario).fails(104), "archive-queue", "error", "the last attempt to archive failed");
}

#[test]
fn diagnosis_is_an_option_of_the_command_line_only() {
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    scenario.pgbackrest(&["check", "--diagnose"]).fails(31);
    let space = &scenario.space;
    let text = std::fs::read_to_string(space.path("pgbackrest.conf")).unwrap();
    space.write("pgbackrest.conf", text.replace("[global]", "[global]\ndiagnose=y"));
    scenario.rbr(&["stanza-create"]).success().says("contains invalid option 'diagnose'");
}

#[test]
fn bucket_without_versions_or_rules_is_told() {
    let Some(weed) = Weed::start() else { return };
    let global = weed.options(weed.port());
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["check"]).success();
    is(&diagnose(&scenario).success(), "bucket", "advice", "keeps no old versions");
    weed.keep_versions();
    is(&diagnose(&scenario).success(), "bucket", "warning", "forever");
}
