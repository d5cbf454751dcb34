//! A day of a second for each minute: schedules by seconds, and `kill -9` of the daemon and of its commands.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Receiver, Scheduled, wait_for};

/// Kills the commands of this word that run. Returns how many.
fn kill_commands(scheduled: &Scheduled, word: &str) -> usize {
    let running = scheduled.commands(word);
    running
        .iter()
        // It may have ended meanwhile
        .filter(|pid| kill_process(Pid::from_raw(i32::try_from(**pid).unwrap()).unwrap(), Signal::KILL).is_ok())
        .count()
}

/// What was told about the times of a job's schedule: by time, the runs that began, whether one is a result, and how many
/// earlier times it stands for.
#[derive(Default)]
struct Told {
    successes: Vec<String>,
    has_result: bool,
    missed: i64,
}

fn told(bodies: &[Value], name: &str) -> BTreeMap<i64, Told> {
    let mut told: BTreeMap<i64, Told> = BTreeMap::new();
    for body in bodies.iter().filter(|body| body["name"] == name) {
        let due: Timestamp = body["due"].as_str().unwrap_or_else(|| panic!("{body}")).parse().unwrap();
        let entry = told.entry(due.as_second()).or_default();
        let started = body["started"].to_string();
        if body["result"] == "success" && !entry.successes.contains(&started) {
            entry.successes.push(started);
        }
        // The next time of the schedule may come before the retry of a failure and take its place. It does not stand for what was
        // told, and for what was stopped only if that was the first try
        entry.has_result |= body["result"] != "stopped";
        entry.missed = body["missed"].as_i64().unwrap();
    }
    told
}

/// Checks that each time of the schedule has one result or was told as missed, and that none ran twice.
#[track_caller]
fn all_is_accounted_for(bodies: &[Value], name: &str, period: i64) {
    let told = told(bodies, name);
    let twice: Vec<_> = told.iter().filter(|(_, told)| told.successes.len() > 1).map(|(due, _)| due).collect();
    assert!(twice.is_empty(), "{name}: {twice:?} ran twice\n{bodies:#?}");
    let ended: Vec<(i64, &Told)> =
        told.iter().filter(|(_, told)| told.has_result).map(|(due, told)| (*due, told)).collect();
    let (first, last) = (ended.first().unwrap().0, ended.last().unwrap().0);
    let accounted: i64 = ended.iter().skip(1).map(|(_, told)| 1 + told.missed).sum();
    assert_eq!(accounted, (last - first) / period, "{name}: {bodies:#?}");
    assert!(told.values().filter(|told| !told.successes.is_empty()).count() >= 2, "{name}: {bodies:#?}");
}

#[test]
fn day_with_kills_of_the_daemon_and_its_commands_has_one_result_for_each_time() {
    let receiver = Receiver::start(1);
    let sections = format!(
        "webhook-url=http://127.0.0.1:{}/\nretry=1\nretry-interval=1\n\
         [demo:schedule:full]\nschedule=*/6 * * * * *\ncommand=backup\ntype=full\nrepo1-retention-full=2\n\
         [demo:schedule:verify]\nschedule=*/10 * * * * *\ncommand=verify\n\
         [demo:schedule:check]\nschedule=*/4 * * * * *\ncommand=check\nrepo=1\n",
        receiver.port
    );
    let sections = sections.replace("repo=1\n", "");
    let Some(scheduled) = Scheduled::start(&sections) else { return };
    let mut killed = 0;
    let mut daemon = scheduled.daemon();
    for round in 0..8 {
        wait_for(
            "a command",
            || daemon.log(),
            || ["backup", "verify", "check"].iter().any(|word| !scheduled.commands(word).is_empty()),
        );
        std::thread::sleep(Duration::from_millis(400 + 350 * round));
        if round % 2 == 0 {
            daemon.kill_alone();
        }
        if round % 3 != 0 {
            killed += ["backup", "verify", "check"].iter().map(|word| kill_commands(&scheduled, word)).sum::<usize>();
        }
        std::thread::sleep(Duration::from_millis(1500));
        if round % 2 == 0 {
            daemon = scheduled.daemon();
        }
    }
    // On a fast machine every command may have ended before it was killed
    let has_failed = || receiver.bodies.lock().unwrap().iter().any(|body| body["result"] == "failure");
    wait_for(
        "a killed command",
        || daemon.log(),
        || {
            let is_done = killed > 0 && has_failed();
            if !is_done {
                killed +=
                    ["backup", "verify", "check"].iter().map(|word| kill_commands(&scheduled, word)).sum::<usize>();
            }
            is_done
        },
    );
    // Everything is told, whatever was killed
    let count = |name: &str| receiver.results().iter().filter(|result| *result == &format!("{name} success")).count();
    let before = ["full", "verify", "check"].map(count);
    wait_for(
        "later runs",
        || daemon.log(),
        || ["full", "verify", "check"].map(count).iter().zip(before).all(|(now, before)| now >= &(before + 2)),
    );
    daemon.terminate();
    assert_eq!(daemon.wait(), 0, "{}", daemon.log());
    let bodies = receiver.bodies.lock().unwrap().clone();
    for (name, period) in [("full", 6), ("verify", 10), ("check", 4)] {
        all_is_accounted_for(&bodies, name, period);
    }
    scheduled.scenario.pgbackrest(&["--output=text", "verify"]).success();
}
