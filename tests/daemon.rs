//! The daemon with a real cluster, next to the real pgBackRest, which reads the same configuration file.

mod container;
mod day;
mod host;
mod idle;
mod sections;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::env::{Background, Scenario, Tool};

/// How long a test waits for the daemon to do something.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// A scenario with a stanza and schedules.
struct Scheduled {
    scenario: Scenario,
    config: String,
}

impl Scheduled {
    /// Appends sections to the configuration. `STATE` stands for the state directory.
    fn start(sections: &str) -> Option<Self> {
        let scenario = Scenario::start(Default::default())?;
        scenario.rbr(&["stanza-create"]).success();
        let config = fs::read_to_string(scenario.space.path("pgbackrest.conf")).unwrap();
        let scheduled = Scheduled { scenario, config };
        scheduled.write(sections);
        Some(scheduled)
    }

    /// Rewrites the sections of schedules.
    fn write(&self, sections: &str) {
        let space = &self.scenario.space;
        let state = space.text("state");
        let text =
            format!("{}\n[global:daemon]\nstate-path={state}\nmonitor-address=127.0.0.1:0\n{sections}\n", self.config);
        // The daemon never sees a part of the file
        let written = space.write("pgbackrest.conf.new", text);
        fs::rename(written, space.path("pgbackrest.conf")).unwrap();
    }

    fn daemon(&self) -> Background {
        self.daemon_of("pgbackrest.conf")
    }

    /// Starts a daemon with this configuration file. Each has a log of its own.
    fn daemon_of(&self, config: &str) -> Background {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let space = &self.scenario.space;
        let mut command = space.command(self.scenario.program(Tool::Rbr));
        command.arg(format!("--config={}", space.text(config))).args(["--log-level-console=info", "daemon"]);
        Background::of(command, space.path(&format!("log/daemon-{}.log", COUNT.fetch_add(1, Ordering::Relaxed))))
    }

    /// What `schedule` shows of a job.
    fn job(&self, name: &str) -> Value {
        let shown = self.scenario.rbr(&["--output=json", "schedule"]).success().json();
        let jobs = shown["jobs"].as_array().unwrap();
        jobs.iter().find(|job| job["name"] == name).unwrap_or_else(|| panic!("{shown}")).clone()
    }

    /// The processes of commands of this test, by the path of its configuration.
    fn commands(&self, word: &str) -> Vec<u32> {
        let config = self.scenario.space.text("pgbackrest.conf");
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.contains(&config) && line.split('\0').any(|argument| argument == word)
            })
            .collect()
    }
}

#[track_caller]
fn wait_for(what: &str, log: impl Fn() -> String, mut is_done: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT_MAX;
    while !is_done() {
        assert!(Instant::now() < end, "{what} did not happen\n{}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server that receives results.
struct Receiver {
    port: u16,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// Refuses the first requests.
    fn start(refused: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for (count, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut text = String::new();
                let mut buffer = [0; 4096];
                let body = loop {
                    let count = stream.read(&mut buffer).unwrap_or(0);
                    text += &String::from_utf8_lossy(&buffer[..count]);
                    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
                    match body.and_then(|body| serde_json::from_str(body).ok()) {
                        Some(body) => break Some(body),
                        None if count == 0 => break None,
                        None => (),
                    }
                };
                // A client may be killed before it has sent all
                let Some(body) = body else { continue };
                let is_refused = count < refused;
                let status = if is_refused { "503 Later" } else { "204 No Content" };
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n").as_bytes());
                if !is_refused {
                    received.lock().unwrap().push(body);
                }
            }
        });
        Receiver { port, bodies }
    }

    fn results(&self) -> Vec<String> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().map(|body| format!("{} {}", body["name"], body["result"]).replace('"', "")).collect()
    }
}

#[test]
fn daemon_backs_up_and_expires_by_schedule_and_tells_every_result() {
    let receiver = Receiver::start(0);
    let webhook = format!("webhook-url=http://127.0.0.1:{}/secret-path", receiver.port);
    let sections = format!(
        "{webhook}\n[demo:schedule:full]\nschedule=*/4 * * * * *\ncommand=backup\ntype=full\n\
         repo1-retention-full=2\nhook-before=cat >> HOOKS\nhook-after=cat >> HOOKS\n\
         [demo:schedule:verify]\nschedule=*/10 * * * * *\ncommand=verify\n"
    );
    let Some(scheduled) = Scheduled::start("") else { return };
    let hooks = scheduled.scenario.space.text("hooks");
    scheduled.write(&sections.replace("HOOKS", &hooks));
    let mut daemon = scheduled.daemon();
    let count = |wanted: &str| receiver.results().iter().filter(|result| *result == wanted).count();
    wait_for("backups", || daemon.log(), || count("full success") >= 4 && count("verify success") >= 1);
    daemon.terminate();
    assert_eq!(daemon.wait(), 0, "{}", daemon.log());
    let log = daemon.log();
    assert!(!log.contains("secret-path") && log.contains("job demo/full: backup succeeded"), "{log}");
    assert!(receiver.results().iter().all(|result| result.ends_with("success")), "{:?}", receiver.results());
    // Retention of the schedule, and the real pgBackRest reads the same file without a word about it
    let run = scheduled.scenario.pgbackrest(&["info", "--log-level-console=warn"]).success();
    assert_eq!(run.stderr, "");
    run.never_says("WARN");
    assert_eq!(scheduled.scenario.labels().len(), 2);
    let bodies = receiver.bodies.lock().unwrap().clone();
    let mut due: Vec<String> =
        bodies.iter().filter(|body| body["name"] == "full").map(|b| b["due"].to_string()).collect();
    let all = due.len();
    due.dedup();
    assert_eq!(due.len(), all, "a time of the schedule had two runs");
    let told = fs::read_to_string(hooks).unwrap();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(told.len() >= 8 && told[0]["event"] == "before" && told[1]["event"] == "after", "{told:?}");
    assert_eq!((&told[1]["result"], &told[1]["exit_status"]), (&Value::from("success"), &Value::from(0)));
    let shown = scheduled.job("full");
    // The daemon may have stopped another run
    assert_eq!(
        (shown["success"]["result"].as_str(), shown["failures"].as_u64()),
        (Some("success"), Some(0)),
        "{shown}"
    );
}

#[test]
fn reload_takes_a_good_configuration_and_keeps_the_schedules_if_it_is_bad() {
    let section = |name: &str, schedule: &str| format!("[demo:schedule:{name}]\nschedule={schedule}\ncommand=verify\n");
    let Some(scheduled) = Scheduled::start(&section("one", "0 3 * * *")) else { return };
    let mut daemon = scheduled.daemon();
    let says = |daemon: &Background, text: &str| {
        wait_for(text, || daemon.log(), || daemon.log().contains(text));
    };
    says(&daemon, "1 job(s) are scheduled");
    scheduled.write(&(section("one", "30 4 * * *") + &section("two", "*/2 * * * * *")));
    daemon.hang_up();
    says(&daemon, "job demo/two is new");
    says(&daemon, "job demo/one has changed: schedule: '0 3 * * *' -> '30 4 * * *'");
    says(&daemon, "job demo/two: verify succeeded");
    scheduled.write(&section("two", "0 25 * * *"));
    daemon.hang_up();
    says(
        &daemon,
        "the new configuration is refused, the old schedules stay: section '[demo:schedule:two]': schedule \
                   '0 25 * * *' is not valid: field 2 (hour) '25': 25 is not in 0-23",
    );
    let count = || daemon.log().matches("job demo/two: verify succeeded").count();
    // The commands run with what the daemon has, also if nobody could read the file
    for text in ["", "[demo\npg1-path=/nowhere\n"] {
        if !text.is_empty() {
            fs::write(scheduled.scenario.space.path("pgbackrest.conf"), text).unwrap();
            daemon.hang_up();
            says(&daemon, "the new configuration is refused, the old schedules stay: configuration file");
        }
        let before = count();
        wait_for("two more runs", || daemon.log(), || count() > before + 1);
    }
    assert!(!daemon.log().contains("verify failed"), "{}", daemon.log());
    // A change of the file is noticed without a signal
    scheduled.write(&section("three", "0 3 * * *"));
    says(&daemon, "job demo/three is new");
    says(&daemon, "job demo/two is gone");
    let second = scheduled.daemon().wait();
    assert_eq!(second, 50);
    daemon.terminate();
    assert_eq!(daemon.wait(), 0);
}

/// A backup that takes until it is allowed to end.
fn slow_backup() -> Option<(Scheduled, impl Fn())> {
    let scheduled = Scheduled::start("")?;
    let space = &scheduled.scenario.space;
    // The archiver waits, and so does the backup for its last segment
    let blocker = space.path("blocked");
    fs::write(&blocker, "").unwrap();
    let script = format!(
        "#!/bin/sh\nwhile [ -e {} ]; do sleep 0.1; done\nexec {} --config={} --stanza=demo archive-push \"$1\"\n",
        blocker.display(),
        scheduled.scenario.program(Tool::Rbr).display(),
        space.text("pgbackrest.conf")
    );
    let archiver = space.write_program("bin/slow-rbr", &script);
    let cluster = &scheduled.scenario.cluster;
    cluster.sql(&format!("alter system set archive_command = '{} %p'", archiver.display()));
    cluster.sql("select pg_reload_conf()");
    scheduled.write(
        "[demo:schedule:full]\nschedule=*/3 * * * * *\ncommand=backup\ntype=full\nretry=0\narchive-timeout=60\n",
    );
    Some((scheduled, move || fs::remove_file(&blocker).unwrap()))
}

#[test]
fn sigterm_ends_the_running_backup_cleanly_and_the_next_daemon_repeats_it() {
    let Some((scheduled, unblock)) = slow_backup() else { return };
    let mut daemon = scheduled.daemon();
    wait_for("a backup", || daemon.log(), || !scheduled.commands("backup").is_empty());
    let lock = scheduled.scenario.space.path("lock/demo-backup-1.lock");
    wait_for("its lock", || daemon.log(), || lock.exists());
    assert!(scheduled.job("full")["running_since"].is_string());
    daemon.terminate();
    assert_eq!(daemon.wait(), 0, "{}", daemon.log());
    assert!(!lock.exists() && scheduled.commands("backup").is_empty(), "{}", daemon.log());
    assert!(daemon.log().contains("job demo/full: backup was stopped"), "{}", daemon.log());
    assert_eq!(scheduled.job("full")["last"]["result"], "stopped");
    unblock();
    let mut daemon = scheduled.daemon();
    wait_for("a backup", || daemon.log(), || scheduled.job("full")["success"].is_object());
    daemon.terminate();
    daemon.wait();
    assert!(!scheduled.scenario.labels().is_empty());
}

#[test]
fn killed_daemon_leaves_its_backup_running_and_the_next_daemon_records_its_result() {
    let Some((scheduled, unblock)) = slow_backup() else { return };
    let mut daemon = scheduled.daemon();
    wait_for("a backup", || daemon.log(), || !scheduled.commands("backup").is_empty());
    let running = scheduled.commands("backup");
    daemon.kill_alone();
    assert_eq!(scheduled.commands("backup"), running);
    let mut daemon = scheduled.daemon();
    let adopted = "job demo/full: backup of an earlier daemon is still running";
    wait_for(adopted, || daemon.log(), || daemon.log().contains(adopted));
    // Its times have passed, but there is no second run
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(scheduled.commands("backup"), running);
    unblock();
    wait_for("its result", || daemon.log(), || daemon.log().contains("job demo/full: backup succeeded"));
    daemon.terminate();
    assert_eq!(daemon.wait(), 0);
}

#[test]
fn backup_that_is_killed_with_its_daemon_is_repeated_once_and_told() {
    let Some((scheduled, unblock)) = slow_backup() else { return };
    let mut daemon = scheduled.daemon();
    wait_for("a backup", || daemon.log(), || !scheduled.commands("backup").is_empty());
    daemon.kill_alone();
    for pid in scheduled.commands("backup") {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    wait_for("its end", || daemon.log(), || scheduled.commands("backup").is_empty());
    unblock();
    let mut daemon = scheduled.daemon();
    wait_for("a backup", || daemon.log(), || daemon.log().contains("job demo/full: backup succeeded"));
    daemon.terminate();
    assert_eq!(daemon.wait(), 0);
    let log = daemon.log();
    assert!(log.contains("it ended without a result, together with the daemon"), "{log}");
    // pgBackRest agrees that the backups are whole
    scheduled.scenario.pgbackrest(&["--output=text", "verify"]).success();
}

#[test]
fn schedule_run_runs_a_command_now_and_reports_its_failure() {
    let sections = "[demo:schedule:full]\nschedule=0 3 * * *\ncommand=backup\ntype=full\nretry=0\n\
                    [demo:schedule:broken]\nschedule=0 3 * * *\ncommand=backup\nrepo1-retention-full=1\n\
                    hook-before=exit 3\nretry=0\n";
    let Some(scheduled) = Scheduled::start(sections) else { return };
    let scenario = &scheduled.scenario;
    scenario.rbr(&["schedule", "run", "full"]).success().says("job demo/full: backup succeeded");
    assert_eq!(scenario.labels().len(), 1);
    let shown = scheduled.job("full");
    assert!(shown["success"]["due"].is_null() && shown["late_since"].is_null(), "{shown}");
    scenario.rbr(&["schedule", "run", "broken"]).fails(102).says("hook-before failed: exit status 3");
    scenario.rbr(&["schedule", "run", "other"]).fails(96).says("there is no schedule 'other'");
    scenario.rbr(&["schedule"]).success().says("job: demo/full").says("daemon: not running");
}
