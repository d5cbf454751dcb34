//! Two hosts with one repository. Two lock paths on one machine are equivalent, because no lock file shows the other
//! process.

use std::time::{Duration, Instant};

use crate::env::{Background, Run, Scenario, ScenarioOptions, Tool, Weed, restored_matches};

/// The maximum time until a backup reaches the phase in which the second one begins.
const PHASE_MAX: Duration = Duration::from_secs(60);

/// The option that the other host adds to each command.
const ELSEWHERE: &str = "--lock-path";

/// When the second command begins: the text that the first has logged by then.
const PHASES: [(&str, &str); 5] = [
    ("before the scan", "execute backup start"),
    ("at the first file", "backup file "),
    ("while it copies", "50."),
    ("at the stop", "execute backup stop"),
    ("at the end", "new backup label"),
];

/// A cluster that takes some time to back up, with a full backup that retention expires after the next one.
fn scenario(global: &[&str], store: &[String]) -> Option<Scenario> {
    let mut all: Vec<String> =
        ["compress-type=bz2", "process-max=1", "repo1-retention-full=1"].map(str::to_owned).into();
    all.extend(global.iter().map(|&line| line.to_owned()));
    all.extend(store.iter().cloned());
    let scenario = Scenario::start(ScenarioOptions { global: all, ..ScenarioOptions::default() })?;
    scenario.cluster.sql(
        "create table large as select g, (select string_agg(md5((g * 100 + n)::text), '') from generate_series(1, 40) n) as note \
         from generate_series(1, 12000) g; checkpoint",
    );
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    scenario.cluster.sql("update large set note = md5(note) where g % 3 = 0; checkpoint");
    Some(scenario)
}

fn elsewhere(scenario: &Scenario, tool: Tool, arguments: &[&str]) -> Run {
    let lock_path = format!("{ELSEWHERE}={}", scenario.space.text("lock-elsewhere"));
    let mut all = vec![lock_path.as_str()];
    all.extend(arguments);
    scenario.run(tool, &all)
}

/// Waits until a backup has logged a text, or has ended.
fn wait_for(backup: &mut Background, text: &str) {
    let end = Instant::now() + PHASE_MAX;
    while !backup.log().contains(text) && backup.is_running() {
        assert!(Instant::now() < end, "'{text}' is not said:\n{}", backup.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Checks that every listed backup is complete, and that the newest one restores.
fn repository_is_whole(scenario: &Scenario) {
    let folder = |number| {
        (0..).map(|round| format!("restored-{number}-{round}")).find(|name| !scenario.space.path(name).exists())
    };
    let dump = scenario.cluster.dump();
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let verify =
            scenario.run(tool, &["verify", "--verbose", "--output=text", "--log-level-console=error"]).success();
        assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    }
    scenario.cluster.switch_wal();
    for (number, label) in scenario.labels().iter().enumerate() {
        let set = format!("--set={label}");
        let mut restored = scenario.restore(Tool::Rbr, &folder(number).expect("free name"), &[&set]);
        restored_matches(&mut restored, &dump);
    }
}

#[test]
fn commands_of_another_host_are_refused_while_a_backup_runs() {
    let Some(scenario) = scenario(&[], &[]) else { return };
    let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full"]);
    wait_for(&mut backup, "backup file ");
    let running = "backup on host '";
    for kind in ["--type=full", "--type=incr"] {
        elsewhere(&scenario, Tool::Rbr, &["backup", kind]).fails(50).says(running);
    }
    elsewhere(&scenario, Tool::Rbr, &["expire"]).fails(104).says(running);
    scenario.rbr(&["repo-rm", "--recurse", "backup/demo"]).fails(50).says(running);
    elsewhere(&scenario, Tool::Rbr, &["stop"]).success();
    elsewhere(&scenario, Tool::Rbr, &["stanza-delete", "--force"]).fails(50).says(running);
    elsewhere(&scenario, Tool::Rbr, &["start"]).success();
    assert_eq!(backup.wait(), 0, "{}", backup.log());
    // Nothing of the backup is left, and nothing blocks the next one
    let left = scenario.rbr(&["repo-ls", "--recurse", "--log-level-console=off"]).success();
    assert!(!left.stdout.contains("claim"), "{}", left.stdout);
    elsewhere(&scenario, Tool::Rbr, &["backup", "--type=incr"]).success();
    repository_is_whole(&scenario);
}

#[test]
fn backup_killed_on_this_host_is_resumed_at_once_from_another_lock_path() {
    let Some(scenario) = scenario(&[], &[]) else { return };
    let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full"]);
    wait_for(&mut backup, "backup file ");
    assert!(backup.kill());
    elsewhere(&scenario, Tool::Rbr, &["backup", "--type=full"]).success().says("resumable backup");
    repository_is_whole(&scenario);
}

#[test]
fn backup_of_pgbackrest_that_runs_elsewhere_is_left_alone() {
    let Some(scenario) = scenario(&[], &[]) else { return };
    let mut backup = scenario.start_command(Tool::PgBackRest, &["backup", "--type=full"]);
    wait_for(&mut backup, "backup file ");
    for kind in ["--type=full", "--type=incr"] {
        elsewhere(&scenario, Tool::Rbr, &["backup", kind]).fails(50).says("is being made by another process");
    }
    elsewhere(&scenario, Tool::Rbr, &["expire"]).success();
    assert_eq!(backup.wait(), 0, "{}", backup.log());
    repository_is_whole(&scenario);
}

#[test]
fn backup_whose_directory_pgbackrest_takes_does_not_count() {
    let Some(scenario) = scenario(&["repo1-bundle=y"], &[]) else { return };
    let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full"]);
    wait_for(&mut backup, "backup file ");
    elsewhere(&scenario, Tool::PgBackRest, &["backup", "--type=full"]).success().says("cannot be resumed");
    assert_eq!(backup.wait(), 50, "{}", backup.log());
    assert!(backup.log().contains("another process has taken over"), "{}", backup.log());
    repository_is_whole(&scenario);
}

/// Starts one backup during a phase of another. A backup that succeeds is listed, and every listed backup is complete.
fn meet(first: (Tool, &str), second: (Tool, &str), phase: (&str, &str), global: &[&str], store: &[String]) {
    let Some(scenario) = scenario(global, store) else { return };
    let mut backup = scenario.start_command(first.0, &["backup", first.1]);
    wait_for(&mut backup, phase.1);
    let other = elsewhere(&scenario, second.0, &["backup", second.1]);
    let code = backup.wait();
    println!("{first:?} met by {second:?} {}, {global:?}: {code} and {}", phase.0, other.code);
    assert!(code == 0 || other.code == 0, "{}\n{}", backup.log(), other.describe());
    if first.0 == Tool::Rbr && second.0 == Tool::Rbr {
        assert_eq!(code, 0, "{}", backup.log());
        assert!(matches!(other.code, 0 | 50), "{}", other.describe());
    }
    repository_is_whole(&scenario);
    // And goes on
    elsewhere(&scenario, Tool::Rbr, &["backup", "--type=incr"]).success();
    repository_is_whole(&scenario);
}

#[test]
fn full_matrix_of_two_hosts_leaves_a_whole_repository() {
    let server = Weed::start();
    let store = server.as_ref().map(|weed| weed.options(weed.port())).unwrap_or_default();
    let tools = [(Tool::Rbr, Tool::Rbr), (Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr)];
    let kinds = [
        ("--type=full", "--type=full"),
        ("--type=full", "--type=incr"),
        ("--type=incr", "--type=diff"),
        ("--type=diff", "--type=full"),
    ];
    let mut number = 0_usize;
    for (first, second) in tools {
        for (first_kind, second_kind) in kinds {
            for phase in PHASES {
                for bundle in ["repo1-bundle=n", "repo1-bundle=y"] {
                    // Each combination meets every phase in one of the two stores
                    number += 1;
                    let mut path = Vec::new();
                    if number.div_ceil(2).is_multiple_of(2) {
                        path.clone_from(&store);
                        path.push(format!("repo1-path=/two-hosts-{number}"));
                    }
                    meet((first, first_kind), (second, second_kind), phase, &[bundle], &path);
                }
            }
        }
    }
}
