//! A backup killed with SIGKILL leaves nothing that a later run mistakes for complete.

use std::thread::sleep;
use std::time::Duration;

use crate::env::{Scenario, ScenarioOptions, Tool, restored_matches};

/// Times of the kill in milliseconds after the start, spread over the duration of a backup.
const KILLED_AFTER_MS: [u64; 8] = [20, 60, 120, 200, 350, 500, 800, 1200];

fn later_backup_succeeds(global: &[&str]) {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 15,
        // A single worker makes the copy phase longer
        global: global.iter().map(|&line| line.to_owned()).chain(["process-max=1".into()]).collect(),
        on_disk: true,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    let mut killed = 0;
    for after_ms in KILLED_AFTER_MS {
        let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full"]);
        sleep(Duration::from_millis(after_ms));
        killed += usize::from(backup.kill());
        // Neither program may list what is left as a backup that it is not
        let arguments = ["info", "--output=json", "--log-level-console=warn"];
        let (ours, theirs) =
            (scenario.rbr(&arguments).success().json(), scenario.pgbackrest(&arguments).success().json());
        assert_eq!(ours[0]["backup"], theirs[0]["backup"]);
    }
    assert!(killed >= 3, "only {killed} of the backups were still running when they were killed");
    scenario.rbr(&["backup", "--type=full"]).success();
    let dump = scenario.cluster.dump();
    let verify = scenario.pgbackrest(&["verify", "--verbose", "--output=text", "--log-level-console=error"]).success();
    assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    let mut restored = scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
}

#[test]
fn backup_killed_at_many_moments_next_one_succeeds() {
    later_backup_succeeds(&["compress-type=gz"]);
}

#[test]
fn bundled_backup_killed_at_many_moments_next_one_succeeds() {
    later_backup_succeeds(&["compress-type=zst", "repo1-bundle=y"]);
}

/// Full and incremental backups in one repository, each killed at another time or left to complete: 50 rounds.
#[test]
fn full_matrix_of_kills_leaves_a_clean_repository() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 17,
        global: ["compress-type=zst", "repo1-bundle=y", "repo1-block=y", "process-max=2"].map(str::to_owned).to_vec(),
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    let mut killed = 0;
    for round in 1..=50_u32 {
        let kind = ["--type=full", "--type=incr", "--type=diff"][round as usize % 3];
        // Rows that change in every round, so that an incremental backup has something to copy
        scenario.cluster.sql(&format!("update plain set note = md5(note || {round}) where id % 50 = {round} % 50"));
        let mut backup = scenario.start_command(Tool::Rbr, &["backup", kind]);
        sleep(Duration::from_millis(u64::from(round * 7919 % 900)));
        killed += usize::from(backup.kill());
        if round % 5 == 0 {
            scenario.rbr(&["backup", kind]).success();
        }
    }
    println!("{killed} of 50 backups were killed");
    assert!(killed >= 15, "only {killed} of the backups were still running when they were killed");
    scenario.rbr(&["backup", "--type=incr"]).success();
    let dump = scenario.cluster.dump();
    let verify = scenario.pgbackrest(&["verify", "--verbose", "--output=text", "--log-level-console=error"]).success();
    assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    let mut restored = scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
}
