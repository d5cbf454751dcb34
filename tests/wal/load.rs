//! Failures while PostgreSQL writes WAL as fast as it can.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use repo_format::wal_name::WalSegment;
use rustix::process::{Pid, Signal, kill_process};

use super::full::Disk;
use crate::env::{Scenario, ScenarioOptions, Shutdown, Tool, restored_matches};

/// Each failure lasts this long, and so does the time without failure.
const FAULT: Duration = Duration::from_millis(700);
/// The maximum time until the archiver resumes its work, and between two segments.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
const SEGMENT_BYTES: u32 = 1 << 20;

/// Kills the worker of a scenario, if one is running.
fn kill_worker(scenario: &Scenario) -> bool {
    let mut killed = false;
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains(&scenario.space.text("bin/rbr"))
            && line.contains("archive-push:async")
            && let Some(process) = Pid::from_raw(number)
        {
            killed |= kill_process(process, Signal::KILL).is_ok();
        }
    }
    killed
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Waits until PostgreSQL has nothing left to archive.
fn archive_all(scenario: &Scenario) -> String {
    let last = scenario.cluster.switch_wal();
    let states = scenario.cluster.data().join("pg_wal/archive_status");
    let (mut end, mut least) = (Instant::now() + RECOVERY_MAX, usize::MAX);
    for look in 1.. {
        let names = fs::read_dir(&states).expect("states").flatten().map(|entry| entry.file_name());
        let ready = names.filter(|name| name.to_string_lossy().ends_with(".ready")).count();
        if ready == 0 {
            break;
        }
        if ready < least {
            // It has resumed its work, which may be much
            (end, least) = (Instant::now() + RECOVERY_MAX, ready);
        }
        assert!(Instant::now() < end, "segments wait still:\n{}", scenario.cluster.log_text());
        sleep(Duration::from_millis(500));
        // The archiver sleeps for a minute after three failures, unless new WAL wakes it
        if look % 10 == 0 {
            scenario.cluster.switch_wal();
        }
    }
    last
}

/// Returns how often the archive contains each segment. Leftovers of killed workers do not count.
fn archived(scenario: &Scenario) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for folder in fs::read_dir(scenario.space.path("repo/archive/demo/15-1")).expect("archive").flatten() {
        for file in fs::read_dir(folder.path()).expect("folder").flatten() {
            let name = file.file_name().into_string().expect("UTF-8");
            if !name.ends_with(".tmp") && name.as_bytes().get(24) == Some(&b'-') {
                *count.entry(name[..24].to_owned()).or_default() += 1;
            }
        }
    }
    count
}

#[test]
fn faults_under_load_cost_no_segment_and_recovery_replays_all() {
    let global = ["archive-async=y", "compress-type=lz4", "archive-timeout=3", "archive-get-queue-max=16MiB"];
    let Some(mut scenario) = Scenario::start(ScenarioOptions {
        segment_mib: SEGMENT_BYTES >> 20,
        global: global.iter().map(|&line| line.to_owned()).collect(),
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    let spool = Disk::possible().then(|| Disk::mount(&scenario, "spool"));
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["--archive-timeout=30", "backup"]).success();
    let first = scenario.cluster.switch_wal();
    scenario.cluster.client("pgbench", &["-i", "-q", "-s", "2", "postgres"]).success();

    let socket = scenario.cluster.socket();
    let mut load = scenario.space.start(
        scenario.oracles.client("pgbench"),
        &["-h", &socket, "-U", "postgres", "-n", "-c", "2", "-T", "600", "postgres"],
    );
    let archive = scenario.space.path("repo/archive");
    let away = scenario.space.path("repo/away");
    let mut killed = 0;
    for _ in 0..2 {
        let begun = Instant::now();
        // On a busy machine it may take longer until one is seen
        while begun.elapsed() < FAULT || (killed == 0 && begun.elapsed() < 20 * FAULT) {
            // A worker that keeps up is there for moments only
            let hit = kill_worker(&scenario);
            killed += usize::from(hit);
            sleep(if hit { FAULT / 20 } else { Duration::from_millis(1) });
        }
        fs::rename(&archive, &away).expect("take the archive away");
        sleep(FAULT);
        // What was created in its place meanwhile is empty
        let _ = fs::remove_dir_all(&archive);
        fs::rename(&away, &archive).expect("give it back");
        sleep(FAULT);
        set_mode(&archive.join("demo"), 0);
        sleep(FAULT);
        set_mode(&archive.join("demo"), 0o750);
        if let Some(spool) = &spool {
            spool.fill();
            sleep(FAULT);
            spool.free();
        }
        sleep(FAULT);
    }
    assert!(load.kill(), "the load ended by itself:\n{}", load.log());
    assert!(killed > 0, "no worker was running when it was to be killed");
    let last = archive_all(&scenario);
    scenario.worker_ends();

    let archived = archived(&scenario);
    let first: WalSegment = first.parse().expect("segment");
    let mut name = first.to_string();
    let mut segment = first;
    let mut total = 0;
    while name <= last {
        assert_eq!(archived.get(&name), Some(&1), "{name}");
        segment = segment.next(SEGMENT_BYTES);
        name = segment.to_string();
        total += 1;
    }
    // A slow machine writes little in that time
    assert!(total > 8, "only {total} segments: no load");
    let dump = scenario.cluster.dump();
    scenario.cluster.stop(Shutdown::Fast);
    scenario.pgbackrest(&["verify", "--verbose"]).success().says("checksum invalid: 0");
    let mut restored = scenario.restore(Tool::Rbr, "restored", &["--archive-mode=off"]);
    restored_matches(&mut restored, &dump);
}
