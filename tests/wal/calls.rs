//! The cost of a call by PostgreSQL whose work is already done.

use std::fs;
use std::path::Path;

use crate::env::{Run, Scenario, ScenarioOptions, Tool, oracle};

/// The maximum number of system calls of an archive-push that finds its `.ok` file. There are about 110, mostly for
/// starting a process and reading its configuration.
const PUSH_CALLS_MAX: usize = 170;
/// The maximum number of system calls of an archive-get that finds its prefetched segment. There are about 117.
const GET_CALLS_MAX: usize = 190;
/// Calls that start threads or processes, or use a network.
const NEVER: [&str; 8] =
    ["clone(", "clone3(", "fork(", "vfork(", "socket(", "connect(", "epoll_create1(", "io_uring_setup("];

/// The system calls of a command of rbr, one line each.
fn traced(scenario: &Scenario, arguments: &[&str]) -> Vec<String> {
    let log = scenario.space.text("log/strace");
    let program = scenario.program(Tool::Rbr);
    let config = format!("--config={}", scenario.space.text("pgbackrest.conf"));
    let mut all = vec!["-f", "-qq", "-o", &log, program.to_str().expect("UTF-8"), &config, "--stanza=demo"];
    all.extend(arguments);
    let run: Run = scenario.space.run("strace", &all).success();
    run.says("asynchronously");
    let lines = fs::read_to_string(log).expect("trace");
    lines.lines().filter(|line| line.contains('(') && !line.contains(" resumed>")).map(str::to_owned).collect()
}

#[track_caller]
fn within(calls: &[String], limit: usize) {
    let list = || calls.join("\n");
    assert!(calls.iter().any(|call| call.contains("exit_group(")), "no end in the trace:\n{}", list());
    for call in calls {
        assert!(!NEVER.iter().any(|never| call.contains(&format!(" {never}"))), "{call}");
    }
    println!("{} system calls", calls.len());
    assert!(calls.len() <= limit, "{} system calls instead of {limit} at the most:\n{}", calls.len(), list());
}

#[test]
fn calls_that_find_their_work_done_make_few_system_calls_and_no_threads() {
    if !Path::new("/usr/bin/strace").exists() {
        return oracle::skip("no strace");
    }
    let Some(scenario) = Scenario::start(ScenarioOptions {
        global: vec!["archive-async=y".into(), "archive-get-queue-max=32MiB".into()],
        settings: vec!["archive_command = 'false'".into()],
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    let segment = scenario.cluster.switch_wal();
    let source = scenario.cluster.data().join("pg_wal").join(&segment);
    let content = fs::read(&source).expect("segment");
    for folder in ["spool/archive", "spool/archive/demo", "spool/archive/demo/out", "spool/archive/demo/in"] {
        scenario.space.folder(folder);
    }

    scenario.space.write(&format!("spool/archive/demo/out/{segment}.ok"), "");
    let calls = traced(&scenario, &["archive-push", source.to_str().expect("UTF-8")]);
    within(&calls, PUSH_CALLS_MAX);

    // The requested segment and enough further segments that no worker is needed, all fetched for this cluster since
    // the machine was started
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("boot id");
    let control = fs::read(scenario.cluster.data().join("global/pg_control")).expect("pg_control");
    let system_id = u64::from_le_bytes(control[..8].try_into().expect("system identifier"));
    scenario.space.write(&format!("spool/archive/demo/in/boot.{}.{system_id}", boot.trim()), "");
    let mut name = segment.clone();
    for number in 0..4 {
        scenario.space.write(&format!("spool/archive/demo/in/{name}"), &content);
        name = format!("{}{:08X}", &segment[..16], 0xA0 + number);
    }
    let target = scenario.space.text("fetched");
    let calls = traced(&scenario, &["archive-get", &segment, &target]);
    within(&calls, GET_CALLS_MAX);
    assert!(fs::read(target).expect("fetched") == content);
}
