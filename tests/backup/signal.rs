//! SIGTERM during a backup.

use std::time::{Duration, Instant};

use crate::env::{Background, Scenario, ScenarioOptions, Tool};

fn wait_for(backup: &Background, text: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while !backup.log().contains(text) {
        assert!(Instant::now() < end, "no '{text}':\n{}", backup.log());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn signal_after_the_label_is_told_leaves_the_backup_successful() {
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full", "--no-expire-auto"]);
    wait_for(&backup, "new backup label");
    backup.terminate();
    assert_eq!(backup.wait(), 0, "{}", backup.log());
    assert!(backup.log().contains("backup command end: completed successfully"), "{}", backup.log());
    assert_eq!(scenario.labels().len(), 1);
}

#[test]
fn what_was_copied_before_a_signal_is_resumed() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        global: vec!["compress-type=bz2".into(), "process-max=1".into(), "log-level-console=detail".into()],
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full"]);
    wait_for(&backup, "backup file ");
    backup.terminate();
    assert_eq!(backup.wait(), 63, "{}", backup.log());
    // Nothing was saved before: the first save is due after far more data than this cluster has
    scenario.rbr(&["backup", "--type=full"]).success().says("checksum resumed file");
}
