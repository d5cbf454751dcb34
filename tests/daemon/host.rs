//! Two hosts with one schedule: a primary and its standby.

use std::fs;
use std::time::Duration;

use super::{Scheduled, wait_for};
use crate::env::Tool;

#[test]
fn standby_leaves_backups_to_the_primary_until_it_is_promoted() {
    let section = "[demo:schedule:full]\nschedule=*/15 * * * * *\ncommand=backup\ntype=full\nretry=0\n";
    let Some(mut scheduled) = Scheduled::start(section) else { return };
    scheduled.scenario.rbr(&["--type=full", "backup"]).success();
    // The standby follows the archive
    let space = std::sync::Arc::clone(&scheduled.scenario.space);
    let mut standby = scheduled.scenario.restore(Tool::Rbr, "standby", &["--type=standby"]);
    standby.start();
    let text = fs::read_to_string(space.path("pgbackrest.conf")).unwrap();
    let text = text
        .replace(&scheduled.scenario.cluster.data_text(), &standby.data_text())
        .replace(&scheduled.scenario.cluster.socket(), &standby.socket())
        .replace(&space.text("state"), &space.text("state-standby"))
        .replace(&space.text("lock"), &space.text("lock-standby"));
    space.write("standby.conf", text);
    let mut other = scheduled.daemon_of("standby.conf");
    let mut daemon = scheduled.daemon();
    let succeeded = "job demo/full: backup succeeded";
    wait_for("a backup", || daemon.log(), || daemon.log().contains(succeeded));
    let left = "is left to another host unless it fails";
    wait_for(left, || other.log(), || other.log().contains(left));
    assert!(!other.log().contains(succeeded), "{}", other.log());
    // The primary and its daemon fail, and the standby takes over
    daemon.kill();
    scheduled.scenario.cluster.stop(crate::env::Shutdown::Immediate);
    standby.sql("select pg_promote()");
    standby.wait_writable();
    standby.sql("checkpoint");
    // It does not archive, which is no matter of this test
    let text = fs::read_to_string(space.path("standby.conf")).unwrap();
    space.write("standby.conf", text.replace("[demo]", "archive-check=n\n[demo]"));
    wait_for("a backup", || other.log(), || other.log().contains(succeeded));
    std::thread::sleep(Duration::from_millis(100));
    other.terminate();
    assert_eq!(other.wait(), 0, "{}", other.log());
}
