//! What the daemon needs while it has nothing to do.

use std::fs;
use std::time::Duration;

use super::{Scheduled, wait_for};

/// The processor time of a process, in clock ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Numbers of `/proc/PID/status` of all threads of a process, added up.
fn sum(pid: u32, name: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned)).unwrap_or_default();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    threads.map(|thread| of(fs::read_to_string(thread.path().join("status")).unwrap_or_default())).sum()
}

#[test]
fn idle_daemon_needs_little_memory_and_wakes_less_than_once_a_second() {
    let sections = "[demo:schedule:check]\nschedule=*/20 * * * * *\ncommand=check\n\
                    [demo:schedule:nightly]\nschedule=0 3 * * *\ncommand=backup\n";
    let Some(scheduled) = Scheduled::start(sections) else { return };
    let mut daemon = scheduled.daemon();
    let done = "job demo/check: check succeeded";
    wait_for(done, || daemon.log(), || daemon.log().contains(done));
    scheduled.write("[demo:schedule:nightly]\nschedule=0 3 * * *\ncommand=backup\n");
    daemon.hang_up();
    wait_for("a reload", || daemon.log(), || daemon.log().contains("job demo/check is gone"));
    let pid = daemon.id();
    std::thread::sleep(Duration::from_secs(1));
    // A thread that others keep from a processor does not wake up, so the other switches are none of the daemon
    let before = (sum(pid, "voluntary_ctxt_switches"), ticks(pid));
    std::thread::sleep(Duration::from_secs(20));
    let wakeups = sum(pid, "voluntary_ctxt_switches") - before.0;
    assert!(wakeups < 20, "{wakeups} wakeups in 20 seconds");
    let used = ticks(pid) - before.1;
    assert!(used < 20, "{used} clock ticks in 20 seconds");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    // The program's own pages are shared with other processes, and larger without optimization
    let own = kib("RssAnon:");
    assert!(own < 8 * 1024, "{own} KiB");
    daemon.terminate();
    assert_eq!(daemon.wait(), 0);
}
