//! The daemon as process 1 of a container.

use std::fs;

use super::{Scheduled, wait_for};
use crate::env::{Background, Tool};

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// The value of a line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_default().trim().to_owned()
}

/// Starts a daemon in namespaces of its own. Returns what waits for it, and its process.
fn in_container(scheduled: &Scheduled) -> (Background, u32) {
    let space = &scheduled.scenario.space;
    let mut command = space.command("unshare");
    command.args(["--user", "--map-current-user", "--pid", "--fork", "--mount-proc", "--"]);
    command.arg(scheduled.scenario.program(Tool::Rbr));
    command.arg(format!("--config={}", space.text("pgbackrest.conf"))).args(["--log-level-console=info", "daemon"]);
    let outer = Background::of(command, space.path("log/container.log"));
    wait_for("the daemon", || outer.log(), || outer.log().contains("job(s) are scheduled"));
    let daemon = children(outer.id())[0];
    assert!(status(daemon, "NSpid").ends_with("\t1"), "{}", status(daemon, "NSpid"));
    (outer, daemon)
}

/// Returns whether users may have namespaces of their own here. Some systems forbid it.
fn has_namespaces(scheduled: &Scheduled) -> bool {
    let mut command = scheduled.scenario.space.command("unshare");
    command.args(["--user", "--map-current-user", "--pid", "--fork", "--mount-proc", "--", "true"]);
    let has = command.status().is_ok_and(|status| status.success());
    assert!(has || std::env::var_os("RBR_REQUIRE_ORACLES").is_none(), "no namespaces for users");
    has
}

#[test]
fn process_1_of_a_container_reaps_orphans_and_ends_its_children_on_sigterm() {
    // The hook leaves an orphan behind
    let sections = "[demo:schedule:orphans]\nschedule=*/2 * * * * *\ncommand=check\nretry=0\n\
                    hook-before=sh -c 'sleep 1.5 >/dev/null 2>&1 &'\n";
    let Some(scheduled) = Scheduled::start(sections) else { return };
    if !has_namespaces(&scheduled) {
        return;
    }
    let (mut outer, daemon) = in_container(&scheduled);
    let is_sleep = |pid: &u32| status(*pid, "Name") == "sleep";
    let mut orphans = std::collections::BTreeSet::new();
    let mut zombies_max = 0;
    let done = "job demo/orphans: check succeeded";
    wait_for(
        "orphans and runs",
        || outer.log(),
        || {
            let now = children(daemon);
            orphans.extend(now.iter().copied().filter(is_sleep));
            zombies_max = zombies_max.max(now.iter().filter(|pid| status(**pid, "State").starts_with('Z')).count());
            orphans.len() >= 4 && outer.log().matches(done).count() >= 1
        },
    );
    // Each was reaped soon after its end
    assert!(zombies_max <= 2, "{zombies_max} zombies");
    wait_for(
        "the end of orphans",
        || outer.log(),
        || {
            let gone = |pid: &&u32| !fs::exists(format!("/proc/{pid}")).unwrap();
            orphans.iter().filter(gone).count() >= 3
        },
    );
    scheduled.write(
        "[demo:schedule:long]\nschedule=*/2 * * * * *\ncommand=verify\nretry=0\nhook-before=sleep 500\n\
         hook-timeout=1d\n",
    );
    let begun = "job demo/long: verify starts";
    wait_for(begun, || outer.log(), || outer.log().contains(begun));
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(outer.wait(), 0, "{}", outer.log());
    let log = outer.log();
    assert!(log.contains("job demo/long: verify was stopped") && !log.contains("panicked"), "{log}");
    assert_eq!(scheduled.job("long")["last"]["result"], "stopped");
}
