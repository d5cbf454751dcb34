//! SIGKILL during a restore.

use std::thread::sleep;
use std::time::Duration;

use crate::env::{Cluster, Scenario, ScenarioOptions, Tool, Tree};

#[test]
fn restore_killed_at_many_moments_never_looks_complete_and_can_be_continued() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 17,
        global: vec!["compress-type=gz".into(), "process-max=1".into()],
        on_disk: true,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    scenario.restore(Tool::Rbr, "whole", &["--type=none"]);
    let whole = Tree::read_restored(&scenario.space.path("whole"));

    scenario.space.folder("killed");
    let path = format!("--pg1-path={}", scenario.space.text("killed"));
    let mut killed = 0;
    for after_ms in [10, 25, 50, 80, 120, 180, 260, 400, 700] {
        let mut restore = scenario.start_command(Tool::Rbr, &[&path, "--delta", "--type=none", "restore"]);
        sleep(Duration::from_millis(after_ms));
        if restore.kill() {
            killed += 1;
            // Without pg_control no server starts on half a cluster
            let mut half = Cluster::existing(&scenario.space, scenario.oracles, 17, "killed");
            if scenario.space.path("killed/global/pg_control").exists() {
                whole.assert_same(&Tree::read_restored(&scenario.space.path("killed")));
            } else {
                assert_ne!(half.try_start().code, 0, "a server started on half a restore");
            }
        }
    }
    assert!(killed >= 2, "only {killed} restores were still running when they were killed");
    scenario.restore(Tool::Rbr, "killed", &["--delta", "--type=none"]);
    whole.assert_same(&Tree::read_restored(&scenario.space.path("killed")));
}
