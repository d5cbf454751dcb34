//! A world of its own: days pass in milliseconds, jobs take as long and end as the test says, and daemons are killed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::cron::Cron;
use crate::job::{RunOn, Webhook};
use crate::state::RunResult;
use crate::testing::job;
use crate::verdict::{ClusterRole, FoundBackup, Probe};
use crate::world::{Launch, ProcessId, Program, Reservation, StateChange, Trace};

/// What a process is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Command(JobKey),
    Probe(JobKey),
    Webhook(Value),
    Hook(String, Value),
}

#[derive(Clone, Debug)]
struct Running {
    id: ProcessId,
    purpose: Purpose,
    began: Timestamp,
    ends: Timestamp,
    status: std::result::Result<u8, i32>,
    output: String,
    ignores_term: bool,
    /// Whether the daemon that started or adopted it is alive.
    is_followed: bool,
}

#[derive(Clone, Debug)]
struct Ended {
    purpose: Purpose,
    began: Timestamp,
    ended: Timestamp,
    status: std::result::Result<u8, i32>,
}

/// How a process goes.
struct Course {
    seconds: i64,
    status: std::result::Result<u8, i32>,
    output: String,
    ignores_term: bool,
}

impl Course {
    fn of(seconds: i64, status: u8) -> Self {
        Course { seconds, status: Ok(status), output: String::new(), ignores_term: false }
    }
}

/// Decides how the process for a purpose goes; the number counts processes.
type Script = Box<dyn FnMut(&Purpose, u64, Timestamp) -> Course>;

struct World {
    now: Timestamp,
    zero: Timestamp,
    count: u64,
    running: Vec<Running>,
    ended: Vec<Ended>,
    states: BTreeMap<JobKey, String>,
    traces: BTreeMap<JobKey, Trace>,
    reserved: Vec<(String, u32)>,
    script: Script,
    disk_is_full: bool,
}

type Shared = Rc<RefCell<World>>;

#[derive(Clone)]
struct Fake(Shared);

struct FakeReservation(Shared, Vec<(String, u32)>);

impl Reservation for FakeReservation {}

impl Drop for FakeReservation {
    fn drop(&mut self) {
        self.0.borrow_mut().reserved.retain(|slot| !self.1.contains(slot));
    }
}

impl Processes for Fake {
    fn start(&mut self, launch: &Launch) -> Result<ProcessId> {
        let mut world = self.0.borrow_mut();
        let purpose = match &launch.program {
            Program::Shell(text) => Purpose::Hook(text.clone(), serde_json::from_str(&launch.input).unwrap()),
            Program::Own { arguments, .. } => {
                let stanza = arguments.iter().find_map(|argument| argument.strip_prefix("--stanza=")).unwrap();
                let key = |name: &str| JobKey::new(stanza, name).unwrap();
                match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                    [.., "schedule", "probe", name] => Purpose::Probe(key(name)),
                    [.., "schedule", "webhook", _] => Purpose::Webhook(serde_json::from_str(&launch.input).unwrap()),
                    [file, ..] => Purpose::Command(key(file.strip_prefix("--job-file=").unwrap())),
                    [] => panic!(),
                }
            }
        };
        world.count += 1;
        let (count, now) = (world.count, world.now);
        let course = (world.script)(&purpose, count, now);
        if let Purpose::Command(key) = &purpose {
            // No two jobs of a stanza run at once
            let same =
                |other: &Running| matches!(&other.purpose, Purpose::Command(known) if known.stanza == key.stanza);
            assert!(!world.running.iter().any(same), "{key} overlaps");
            world.traces.insert(key.clone(), Trace { is_running: true, ..Trace::default() });
        }
        let id = ProcessId(count);
        world.running.push(Running {
            id,
            purpose,
            began: now,
            ends: now + SignedDuration::from_secs(course.seconds),
            status: course.status,
            output: course.output,
            ignores_term: course.ignores_term,
            is_followed: true,
        });
        Ok(id)
    }

    fn adopt(&mut self, key: &JobKey, _trace: &Trace) -> Result<ProcessId> {
        let mut world = self.0.borrow_mut();
        let purpose = Purpose::Command(key.clone());
        let found = world.running.iter_mut().find(|running| running.purpose == purpose).unwrap();
        found.is_followed = true;
        Ok(found.id)
    }

    fn stop(&mut self, process: ProcessId, how: Stop) {
        let mut world = self.0.borrow_mut();
        let now = world.now;
        let Some(found) = world.running.iter_mut().find(|running| running.id == process) else { return };
        match how {
            Stop::Terminate if found.ignores_term => (),
            Stop::Terminate => (found.ends, found.status) = (now, Ok(63)),
            Stop::Kill => (found.ends, found.status) = (now, Err(9)),
        }
    }
}

impl Records for Fake {
    fn update(&mut self, key: &JobKey, change: &mut StateChange<'_>) -> (JobState, Result<()>) {
        let mut world = self.0.borrow_mut();
        let state = world.states.get(key).map(|text| JobState::parse(text).unwrap());
        let state = change(state);
        if world.disk_is_full {
            return (state, Err(Error::new(ErrorCode::FileWrite, "no space")));
        }
        world.states.insert(key.clone(), state.to_json().to_string());
        (state, Ok(()))
    }

    fn reserve(&mut self, stanza: &str, repos: &[u32]) -> Result<Option<Box<dyn Reservation>>> {
        let slots: Vec<(String, u32)> = repos.iter().map(|&repo| (stanza.to_owned(), repo)).collect();
        let mut world = self.0.borrow_mut();
        if slots.iter().any(|slot| world.reserved.contains(slot)) {
            return Ok(None);
        }
        world.reserved.extend(slots.iter().cloned());
        Ok(Some(Box::new(FakeReservation(Rc::clone(&self.0), slots))))
    }

    fn clear_trace(&mut self, key: &JobKey) -> Result<PathBuf> {
        self.0.borrow_mut().traces.remove(key);
        Ok(PathBuf::from(&key.name))
    }

    fn trace(&mut self, key: &JobKey) -> Result<Trace> {
        Ok(self.0.borrow().traces.get(key).cloned().unwrap_or_default())
    }
}

struct Simulation {
    world: Shared,
    supervisor: Option<Supervisor<Fake, Fake>>,
    jobs: fn() -> Vec<Job>,
    /// How many times the supervisor woke up.
    steps: u64,
}

impl Simulation {
    fn new(begin: &str, jobs: fn() -> Vec<Job>, script: Script) -> Self {
        let now: Timestamp = begin.parse().unwrap();
        let world = World {
            now,
            zero: now,
            count: 0,
            running: Vec::new(),
            ended: Vec::new(),
            states: BTreeMap::new(),
            traces: BTreeMap::new(),
            reserved: Vec::new(),
            script,
            disk_is_full: false,
        };
        let mut simulation = Simulation { world: Rc::new(RefCell::new(world)), supervisor: None, jobs, steps: 0 };
        simulation.start_daemon();
        simulation
    }

    fn moment(&self) -> Moment {
        let world = self.world.borrow();
        Moment { time: world.now, elapsed: world.now.duration_since(world.zero).try_into().unwrap() }
    }

    fn start_daemon(&mut self) {
        let fake = Fake(Rc::clone(&self.world));
        let settings = SupervisorSettings { host: "host".to_owned(), job_max: 2 };
        let mut supervisor = Supervisor::new(fake.clone(), fake, settings.clone());
        supervisor.set_jobs((self.jobs)(), settings, self.moment());
        self.supervisor = Some(supervisor);
    }

    /// Kills the daemon, and commands too if so requested.
    fn kill_daemon(&mut self, kills_jobs: bool) {
        self.supervisor = None;
        let mut world = self.world.borrow_mut();
        let now = world.now;
        for running in &mut world.running {
            running.is_followed = false;
            if kills_jobs || !matches!(running.purpose, Purpose::Command(_)) {
                (running.ends, running.status) = (now, Err(9));
            }
        }
        drop(world);
        self.end_processes();
    }

    /// Ends the processes whose time has come.
    fn end_processes(&mut self) {
        loop {
            let mut world = self.world.borrow_mut();
            let now = world.now;
            let Some(at) = world.running.iter().position(|running| running.ends <= now) else { return };
            let running = world.running.remove(at);
            if let Purpose::Command(key) = &running.purpose {
                let error = running.status.ok().filter(|&status| status != 0).map(|_| "what went wrong".to_owned());
                let trace = Trace { exit_status: running.status.ok(), error, ..Trace::default() };
                world.traces.insert(key.clone(), trace);
            }
            let (purpose, status) = (running.purpose.clone(), running.status);
            world.ended.push(Ended { purpose, began: running.began, ended: now, status });
            drop(world);
            let end = ProcessEnd { process: running.id, status: running.status, output: running.output };
            let moment = self.moment();
            if let Some(supervisor) = self.supervisor.as_mut().filter(|_| running.is_followed) {
                supervisor.ended(&end, moment);
            }
        }
    }

    /// Lets time pass.
    fn run_until(&mut self, end: Timestamp) {
        loop {
            let moment = self.moment();
            let mut pause = None;
            if let Some(supervisor) = &mut self.supervisor {
                self.steps += 1;
                pause = supervisor.step(moment);
            }
            let mut world = self.world.borrow_mut();
            let wake = pause.map(|pause| moment.time + SignedDuration::try_from(pause).unwrap());
            let next = world.running.iter().map(|running| running.ends).chain(wake).chain([end]).min().unwrap();
            world.now = next.max(world.now);
            drop(world);
            self.end_processes();
            if self.world.borrow().now >= end {
                return;
            }
        }
    }

    fn run_for(&mut self, seconds: i64) {
        let end = self.world.borrow().now + SignedDuration::from_secs(seconds);
        self.run_until(end);
    }

    /// The commands that have ended, with their status.
    fn commands(&self, name: &str) -> Vec<(String, std::result::Result<u8, i32>)> {
        let world = self.world.borrow();
        let of = |ended: &Ended| match &ended.purpose {
            Purpose::Command(key) if key.name == name => Some((ended.began.to_string(), ended.status)),
            _ => None,
        };
        world.ended.iter().filter_map(of).collect()
    }

    /// What the webhook has received.
    fn told(&self) -> Vec<Value> {
        let world = self.world.borrow();
        let received = world.ended.iter().filter(|ended| ended.status == Ok(0));
        received
            .filter_map(|ended| match &ended.purpose {
                Purpose::Webhook(body) => Some(body.clone()),
                _ => None,
            })
            .collect()
    }

    fn hooks(&self) -> Vec<(String, Value)> {
        let world = self.world.borrow();
        let hook = |ended: &Ended| match &ended.purpose {
            Purpose::Hook(text, body) => Some((text.clone(), body.clone())),
            _ => None,
        };
        world.ended.iter().filter_map(hook).collect()
    }

    fn state(&self, stanza: &str, name: &str) -> JobState {
        let world = self.world.borrow();
        JobState::parse(&world.states[&JobKey::new(stanza, name).unwrap()]).unwrap()
    }
}

fn hourly() -> Vec<Job> {
    let mut job = job("demo", "hourly", "0 * * * *");
    job.webhook = Webhook::Results;
    vec![job]
}

fn takes(seconds: i64) -> Script {
    Box::new(move |purpose, _, _| match purpose {
        Purpose::Command(_) => Course::of(seconds, 0),
        _ => Course::of(1, 0),
    })
}

#[test]
fn day_has_a_run_for_each_time_and_a_result_for_each_run() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(600));
    simulation.run_for(24 * 3600);
    assert_eq!(simulation.commands("hourly").len(), 24);
    let told = simulation.told();
    assert_eq!(told.len(), 24);
    assert!(told.iter().all(|body| body["result"] == "success" && body["missed"] == 0), "{told:?}");
    assert_eq!(told[0]["due"], "2026-06-01T01:00:00Z");
    // It wakes for nothing but runs and requests: start, end, request, end of the request
    assert!(simulation.steps < 24 * 6, "{}", simulation.steps);
}

#[test]
fn job_that_takes_longer_than_its_period_leaves_runs_out_and_tells_so() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(2 * 3600 + 1800));
    simulation.run_for(12 * 3600);
    let told = simulation.told();
    assert_eq!(told[0]["due"], "2026-06-01T01:00:00Z");
    assert_eq!((&told[1]["due"], &told[1]["missed"]), (&Value::from("2026-06-01T03:00:00Z"), &Value::from(1)));
}

#[test]
fn failed_job_is_tried_again_with_growing_pauses() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.cron = Cron::parse("0 3 * * *").unwrap();
        job.retry = 2;
        vec![job]
    }
    let fails = |purpose: &Purpose, _, _| match purpose {
        Purpose::Command(_) => Course::of(60, 82),
        _ => Course::of(1, 0),
    };
    let mut simulation = Simulation::new("2026-06-01T00:00:00Z", jobs, Box::new(fails));
    simulation.run_for(24 * 3600);
    let began: Vec<String> = simulation.commands("hourly").into_iter().map(|(began, _)| began).collect();
    assert_eq!(began, ["2026-06-01T03:00:00Z", "2026-06-01T03:06:00Z", "2026-06-01T03:17:00Z"]);
    let told = simulation.told();
    let seen: Vec<_> = told.iter().map(|body| (body["result"].clone(), body["attempt"].clone())).collect();
    assert_eq!(seen, [1, 2, 3].map(|attempt| (Value::from("failure"), Value::from(attempt))));
    assert_eq!(told[0]["error"], "exit status 82: what went wrong");
    assert!(told[0]["retry_at"].is_string() && told[2]["retry_at"].is_null());
    assert_eq!(simulation.state("demo", "hourly").failures, 3);
}

#[test]
fn killed_job_is_a_failure_that_is_told() {
    let mut simulation = Simulation::new(
        "2026-06-01T00:30:00Z",
        hourly,
        Box::new(|purpose, _, _| match purpose {
            Purpose::Command(_) => Course { status: Err(9), ..Course::of(60, 0) },
            _ => Course::of(1, 0),
        }),
    );
    simulation.run_for(3600);
    assert_eq!(simulation.told()[0]["error"], "ended by signal 9");
}

#[test]
fn job_beyond_its_time_limit_is_asked_to_end_and_then_killed() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.time_limit = Some(Duration::from_secs(600));
        vec![job]
    }
    for (ignores_term, ended, status) in
        [(false, "2026-06-01T01:10:00Z", Ok(63)), (true, "2026-06-01T01:12:00Z", Err(9))]
    {
        let script: Script = Box::new(move |purpose, _, _| match purpose {
            Purpose::Command(_) => Course { ignores_term, ..Course::of(100_000, 0) },
            _ => Course::of(1, 0),
        });
        let mut simulation = Simulation::new("2026-06-01T00:30:00Z", jobs, script);
        simulation.run_for(3600);
        let world = simulation.world.borrow();
        assert_eq!((world.ended[0].ended.to_string().as_str(), world.ended[0].status), (ended, status));
        drop(world);
        assert_eq!(simulation.told()[0]["error"], "it took longer than 600s and was stopped");
    }
}

#[test]
fn jobs_of_a_stanza_take_turns_and_those_of_others_run_beside_them_up_to_the_limit() {
    fn jobs() -> Vec<Job> {
        let of = |stanza, name| job(stanza, name, "0 3 * * *");
        vec![of("a", "one"), of("a", "two"), of("b", "one"), of("c", "one")]
    }
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", jobs, takes(600));
    simulation.run_for(24 * 3600);
    let world = simulation.world.borrow();
    let mut begins: Vec<String> = world
        .ended
        .iter()
        .map(|ended| match &ended.purpose {
            Purpose::Command(key) => format!("{key} {}", ended.began),
            other => panic!("{other:?}"),
        })
        .collect();
    begins.sort();
    assert_eq!(
        begins,
        [
            "a/one 2026-06-01T03:00:00Z",
            "a/two 2026-06-01T03:10:00Z",
            "b/one 2026-06-01T03:00:00Z",
            "c/one 2026-06-01T03:10:00Z"
        ]
    );
}

#[test]
fn hooks_run_around_the_command_and_get_its_result() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.hooks.before = Some("before".to_owned());
        job.hooks.after = Some("after".to_owned());
        job.hooks.failure = Some("failure".to_owned());
        vec![job]
    }
    let script: Script = Box::new(|purpose, _, now| match purpose {
        // The first run succeeds, in the second the command fails, in the third the hook before it
        Purpose::Command(_) => Course::of(60, if now.to_string().contains("T01") { 0 } else { 25 }),
        Purpose::Hook(text, _) if text == "before" && now.to_string().contains("T03") => Course::of(1, 7),
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", jobs, script);
    simulation.run_for(3 * 3600);
    let hooks: Vec<String> = simulation
        .hooks()
        .into_iter()
        .map(|(text, body)| {
            let member = |name: &str| body[name].as_str().unwrap_or("-").to_owned();
            format!("{text} {} {} {}", member("event"), member("result"), member("error"))
        })
        .collect();
    assert_eq!(
        hooks,
        [
            "before before - -",
            "after after success -",
            "before before - -",
            "after after failure exit status 25: what went wrong",
            "failure failure failure exit status 25: what went wrong",
            "before before - -",
            "after after failure hook-before failed: exit status 7",
            "failure failure failure hook-before failed: exit status 7",
        ]
    );
    assert_eq!(simulation.commands("hourly").len(), 2);
}

#[test]
fn hook_that_does_not_end_is_ended() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.hooks.before = Some("before".to_owned());
        vec![job]
    }
    let script: Script = Box::new(|purpose, _, _| match purpose {
        Purpose::Hook(..) => Course { ignores_term: true, ..Course::of(100_000, 0) },
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", jobs, script);
    simulation.run_for(3600);
    assert_eq!(simulation.told()[0]["error"], "hook-before failed: it took longer than 60s and was stopped");
    assert!(simulation.commands("hourly").is_empty());
}

#[test]
fn webhook_that_fails_gets_each_result_later() {
    let mut tries = 0;
    let script: Script = Box::new(move |purpose, _, _| match purpose {
        Purpose::Webhook(_) => {
            tries += 1;
            Course::of(1, if tries <= 5 { 25 } else { 0 })
        }
        _ => Course::of(60, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, script);
    simulation.run_for(4 * 3600);
    let due: Vec<_> = simulation.told().iter().map(|body| body["due"].as_str().unwrap().to_owned()).collect();
    assert_eq!(due, ["2026-06-01T01:00:00Z", "2026-06-01T02:00:00Z", "2026-06-01T03:00:00Z", "2026-06-01T04:00:00Z"]);
}

#[test]
fn killed_daemon_finds_its_running_job_and_does_not_start_it_again() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(1200));
    simulation.run_for(1800 + 300);
    simulation.kill_daemon(false);
    simulation.run_for(60);
    simulation.start_daemon();
    simulation.run_for(1800);
    assert_eq!(simulation.commands("hourly"), [("2026-06-01T01:00:00Z".to_owned(), Ok(0))]);
    assert_eq!(simulation.told().len(), 1);
    assert_eq!(simulation.told()[0]["result"], "success");
}

#[test]
fn result_of_a_job_that_ended_without_a_daemon_is_told_by_the_next() {
    for status in [0, 25] {
        let script: Script = Box::new(move |purpose, _, _| match purpose {
            Purpose::Command(_) => Course::of(600, status),
            _ => Course::of(1, 0),
        });
        let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, script);
        simulation.run_for(1800 + 300);
        simulation.kill_daemon(false);
        simulation.run_for(1200);
        simulation.start_daemon();
        simulation.run_for(600);
        assert_eq!(simulation.commands("hourly").len(), 1);
        assert_eq!(simulation.told()[0]["exit_status"], status);
    }
}

#[test]
fn job_that_was_killed_together_with_the_daemon_is_told_and_runs_again() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(1200));
    simulation.run_for(1800 + 300);
    simulation.kill_daemon(true);
    simulation.run_for(60);
    simulation.start_daemon();
    simulation.run_for(1800);
    let results: Vec<_> = simulation.told().iter().map(|body| body["result"].as_str().unwrap().to_owned()).collect();
    assert_eq!(results, ["failure", "success"]);
    assert_eq!(simulation.commands("hourly").iter().filter(|(_, status)| *status == Ok(0)).count(), 1);
}

#[test]
fn job_whose_daemon_was_killed_before_the_job_left_a_trace_is_not_started_again() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(1200));
    simulation.run_for(1800 + 1);
    let key = JobKey::new("demo", "hourly").unwrap();
    simulation.kill_daemon(false);
    let trace = simulation.world.borrow_mut().traces.remove(&key).unwrap();
    simulation.start_daemon();
    simulation.run_for(2);
    simulation.world.borrow_mut().traces.insert(key, trace);
    simulation.run_for(1800);
    assert_eq!(simulation.commands("hourly"), [("2026-06-01T01:00:00Z".to_owned(), Ok(0))]);
    let results: Vec<_> = simulation.told().iter().map(|body| body["result"].as_str().unwrap().to_owned()).collect();
    assert_eq!(results, ["success"]);
}

#[test]
fn stopped_daemon_ends_its_job_and_the_next_runs_it_again() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(1200));
    simulation.run_for(1800 + 300);
    simulation.supervisor.as_mut().unwrap().stop();
    simulation.run_for(1);
    assert!(simulation.supervisor.as_ref().unwrap().is_idle());
    simulation.supervisor = None;
    simulation.start_daemon();
    simulation.run_for(1800);
    let results: Vec<_> = simulation.told().iter().map(|body| body["result"].as_str().unwrap().to_owned()).collect();
    assert_eq!(results, ["stopped", "success"]);
}

#[test]
fn full_disk_keeps_no_job_from_running() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(600));
    simulation.world.borrow_mut().disk_is_full = true;
    simulation.run_for(3 * 3600);
    assert_eq!(simulation.commands("hourly").len(), 3);
}

#[test]
fn clock_that_was_far_ahead_does_not_keep_the_job_from_running() {
    let mut simulation = Simulation::new("2030-06-01T00:30:00Z", hourly, takes(600));
    simulation.run_for(3600 * 2);
    simulation.supervisor = None;
    let begin: Timestamp = "2026-06-01T00:30:00Z".parse().unwrap();
    (simulation.world.borrow_mut().now, simulation.world.borrow_mut().zero) = (begin, begin);
    simulation.start_daemon();
    simulation.run_for(3600 * 2);
    let began: Vec<String> = simulation.commands("hourly").into_iter().map(|(began, _)| began).collect();
    assert_eq!(began[2..], ["2026-06-01T01:00:00Z", "2026-06-01T02:00:00Z"]);
}

#[test]
fn user_runs_a_job_without_moving_its_schedule() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(60));
    let (moment, key) = (simulation.moment(), JobKey::new("demo", "hourly").unwrap());
    simulation.supervisor.as_mut().unwrap().run_now(&key, moment).unwrap();
    let other = JobKey::new("demo", "other").unwrap();
    assert_eq!(
        simulation.supervisor.as_mut().unwrap().run_now(&other, moment).unwrap_err().code,
        ErrorCode::ParamInvalid
    );
    assert_eq!(simulation.supervisor.as_mut().unwrap().run_now(&key, moment).unwrap_err().code, ErrorCode::LockAcquire);
    simulation.run_for(3600);
    let began: Vec<String> = simulation.commands("hourly").into_iter().map(|(began, _)| began).collect();
    assert_eq!(began, ["2026-06-01T00:30:00Z", "2026-06-01T01:00:00Z"]);
    assert!(simulation.told()[0]["due"].is_null());
}

#[test]
fn reload_tells_what_changed_and_leaves_running_jobs_alone() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(600));
    simulation.run_for(1800 + 300);
    let mut changed = hourly().remove(0);
    changed.cron = Cron::parse("30 * * * *").unwrap();
    changed.settings = vec![("schedule".to_owned(), "30 * * * *".to_owned())];
    let settings = SupervisorSettings { host: "host".to_owned(), job_max: 2 };
    let moment = simulation.moment();
    let supervisor = simulation.supervisor.as_mut().unwrap();
    let changes = supervisor.set_jobs(vec![changed, job("demo", "new", "0 3 * * *")], settings.clone(), moment);
    assert_eq!(changes.added, ["demo/new"]);
    let difference = "schedule: (none) -> '30 * * * *'".to_owned();
    assert_eq!(changes.changed, [("demo/hourly".to_owned(), vec![difference])]);
    let changes = supervisor.set_jobs(vec![job("demo", "new", "0 3 * * *")], settings, moment);
    assert_eq!(changes.removed, ["demo/hourly"]);
    simulation.run_for(3 * 3600);
    assert_eq!(simulation.commands("hourly"), [("2026-06-01T01:00:00Z".to_owned(), Ok(0))]);
    assert_eq!(simulation.state("demo", "hourly").success.unwrap().result, RunResult::Success);
}

#[test]
fn command_lines_of_hooks_are_not_logged_when_they_change() {
    let with = |hook: &str| {
        let mut job = job("demo", "a", "0 3 * * *");
        job.settings =
            ["hook-after", "hook-before", "hook-failure"].map(|name| (name.to_owned(), hook.to_owned())).to_vec();
        job.settings.push(("hook-timeout".to_owned(), hook.len().to_string()));
        job
    };
    let differences = differences(&with("curl -H 'Authorization: secret'"), &with("curl"));
    assert_eq!(differences, ["hook-after", "hook-before", "hook-failure", "hook-timeout: '31' -> '4'"]);
}

/// A backup whose expire fails, and a repository that shows the backup.
#[test]
fn expire_that_fails_after_the_backup_does_not_make_the_backup_thrice() {
    for run_on in [RunOn::Any, RunOn::Primary] {
        fn jobs_of(run_on: RunOn) -> Vec<Job> {
            let mut job = job("demo", "full", "0 3 * * *");
            (job.run_on, job.leaves_backup, job.retry, job.webhook) = (run_on, true, 2, Webhook::Results);
            vec![job]
        }
        let jobs: fn() -> Vec<Job> = match run_on {
            RunOn::Any => || jobs_of(RunOn::Any),
            _ => || jobs_of(RunOn::Primary),
        };
        let mut made = None;
        let script: Script = Box::new(move |purpose, _, now| match purpose {
            Purpose::Probe(_) => {
                let backup = made.map(|started| FoundBackup { label: "label".to_owned(), started });
                let probe = Probe { role: ClusterRole::Primary, backup };
                Course { output: probe.to_json().to_string(), ..Course::of(1, 0) }
            }
            Purpose::Command(_) => {
                made = Some(now);
                Course::of(600, 82)
            }
            _ => Course::of(1, 0),
        });
        let mut simulation = Simulation::new("2026-06-01T00:00:00Z", jobs, script);
        simulation.run_for(24 * 3600);
        assert_eq!(simulation.commands("full").len(), 1);
        let told = simulation.told();
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|body| body["result"] == "failure" && body["exit_status"] == 82), "{told:?}");
        assert!(told[1]["error"].as_str().unwrap().contains("backup label is complete"), "{told:?}");
        assert!(told[1]["retry_at"].is_null());
        // The next night has its own backup
        simulation.run_for(24 * 3600);
        assert_eq!(simulation.commands("full").len(), 2);
    }
}

#[test]
fn host_whose_cluster_is_down_waits_for_a_while_before_its_backup_fails() {
    fn jobs() -> Vec<Job> {
        let mut job = job("demo", "nightly", "0 3 * * *");
        (job.run_on, job.leaves_backup) = (RunOn::Primary, true);
        vec![job]
    }
    for (minutes, status, runs) in [(5, 0, 0), (5, 25, 0), (60, 0, 1), (60, 25, 1)] {
        // Another host's backup is there after some minutes
        let done: Timestamp = "2026-06-01T03:00:05Z".parse().unwrap();
        let seen = done + SignedDuration::from_mins(minutes);
        let script: Script = Box::new(move |purpose, _, now| match purpose {
            Purpose::Probe(_) => {
                let backup = (now >= seen).then(|| FoundBackup { label: "label".to_owned(), started: done });
                let status = if backup.is_some() { 0 } else { status };
                let probe = Probe { role: ClusterRole::Unreachable, backup };
                Course { output: probe.to_json().to_string(), ..Course::of(1, status) }
            }
            _ => Course::of(1, 25),
        });
        let mut simulation = Simulation::new("2026-06-01T00:00:00Z", jobs, script);
        simulation.run_for(20 * 3600);
        let commands = simulation.commands("nightly");
        assert_eq!(commands.len(), runs, "{minutes} {status}");
        assert!(commands.iter().all(|(began, _)| began.starts_with("2026-06-01T03:10:")), "{commands:?}");
    }
}

#[test]
fn clock_that_was_far_ahead_while_the_job_failed_does_not_keep_it_from_running() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.retry = 5;
        vec![job]
    }
    let fails: Script = Box::new(|purpose, _, now| match purpose {
        // The webhook does not answer either
        _ if now.to_string().starts_with("2030") => Course::of(1, 25),
        Purpose::Command(_) => Course::of(60, 0),
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2030-06-01T00:30:00Z", jobs, fails);
    simulation.run_for(1800 + 400);
    assert!(matches!(simulation.state("demo", "hourly").open.unwrap().stage, Stage::Retry(_)));
    simulation.supervisor = None;
    let begin: Timestamp = "2026-06-01T00:30:00Z".parse().unwrap();
    {
        let mut world = simulation.world.borrow_mut();
        (world.now, world.zero) = (begin, begin);
        world.running.clear();
    }
    simulation.start_daemon();
    simulation.run_for(3600);
    let last = simulation.commands("hourly").pop().unwrap();
    assert_eq!(last, ("2026-06-01T01:00:00Z".to_owned(), Ok(0)));
    assert!(simulation.told().iter().any(|body| body["result"] == "success"), "{:?}", simulation.told());
    assert!(simulation.state("demo", "hourly").events.is_empty());
}

#[test]
fn result_that_another_process_has_told_meanwhile_does_not_take_the_next_with_it() {
    let mut simulation = Simulation::new(
        "2026-06-01T00:30:00Z",
        hourly,
        Box::new(|purpose, _, _| match purpose {
            Purpose::Webhook(_) => Course::of(30, 0),
            _ => Course::of(60, 0),
        }),
    );
    simulation.run_for(1800 + 70);
    // The request is under way; another process has told the result, and another run has ended
    let key = JobKey::new("demo", "hourly").unwrap();
    let mut state = simulation.state("demo", "hourly");
    assert_eq!(state.events.len(), 1);
    let mut event = state.events.remove(0);
    event.body["due"] = Value::from("another");
    state.events.push(event);
    simulation.world.borrow_mut().states.insert(key, state.to_json().to_string());
    simulation.run_for(600);
    assert!(simulation.told().iter().any(|body| body["due"] == "another"), "{:?}", simulation.told());
    assert!(simulation.state("demo", "hourly").events.is_empty());
}

/// Two hosts with one repository. The primary fails in the middle of its backup.
#[test]
fn failover_during_the_backup_makes_the_other_host_back_up_once() {
    fn jobs() -> Vec<Job> {
        let mut job = job("demo", "nightly", "0 3 * * *");
        (job.run_on, job.leaves_backup) = (RunOn::Primary, true);
        vec![job]
    }
    let repository: Rc<RefCell<Option<Timestamp>>> = Rc::default();
    let host = |role: Rc<RefCell<ClusterRole>>, repository: Rc<RefCell<Option<Timestamp>>>| -> Script {
        Box::new(move |purpose, _, now| match purpose {
            Purpose::Probe(_) => {
                let backup = repository.borrow().map(|started| FoundBackup { label: "label".to_owned(), started });
                let probe = Probe { role: *role.borrow(), backup };
                Course { output: probe.to_json().to_string(), ..Course::of(1, 0) }
            }
            Purpose::Command(_) => {
                // It is in the repository when it has ended, which is soon enough here
                *repository.borrow_mut() = Some(now);
                Course::of(600, 0)
            }
            _ => Course::of(1, 0),
        })
    };
    let role = Rc::new(RefCell::new(ClusterRole::Standby));
    let mut standby = Simulation::new("2026-06-01T00:00:00Z", jobs, host(Rc::clone(&role), Rc::clone(&repository)));
    let until = |text: &str| text.parse::<Timestamp>().unwrap();
    // The primary makes the first night's backup
    standby.run_until(until("2026-06-01T03:05:00Z"));
    assert!(matches!(standby.state("demo", "nightly").open.unwrap().stage, Stage::Elsewhere(_)));
    *repository.borrow_mut() = Some(until("2026-06-01T03:00:10Z"));
    standby.run_until(until("2026-06-02T03:10:00Z"));
    assert_eq!(standby.state("demo", "nightly").last.unwrap().result, RunResult::Elsewhere);
    assert!(standby.commands("nightly").is_empty());
    // In the second night it fails, and the standby is promoted
    *role.borrow_mut() = ClusterRole::Primary;
    standby.run_until(until("2026-06-02T12:00:00Z"));
    let commands = standby.commands("nightly");
    assert_eq!(commands.len(), 1);
    assert!(commands[0].0.as_str() < "2026-06-02T03:16:00Z", "{commands:?}");
    assert_eq!(standby.state("demo", "nightly").last.unwrap().due, Some(until("2026-06-02T03:00:00Z")));
    // The next night it is the primary
    standby.run_until(until("2026-06-03T03:00:02Z"));
    assert_eq!(standby.world.borrow().running.len(), 1);
}

/// What happens at a time of a random day.
#[derive(Clone, Copy, Debug)]
enum Incident {
    KillDaemon { kills_jobs: bool, seconds: i64 },
    StopDaemon { seconds: i64 },
    KillJob,
}

fn incident() -> impl Strategy<Value = Incident> {
    prop_oneof![
        (any::<bool>(), 0..20_000_i64).prop_map(|(kills_jobs, seconds)| Incident::KillDaemon { kills_jobs, seconds }),
        (0..20_000_i64).prop_map(|seconds| Incident::StopDaemon { seconds }),
        Just(Incident::KillJob),
    ]
}

fn busy_day() -> Vec<Job> {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let of = |stanza, name, schedule, retry| {
        let mut job = job(stanza, name, schedule);
        (job.retry, job.webhook, job.zone) = (retry, Webhook::Results, zone.clone());
        job.jitter = Duration::from_secs(if name == "full" { 300 } else { 0 });
        job.hooks.after = (name == "often").then(|| "after".to_owned());
        job
    };
    vec![
        of("a", "full", "30 2 * * *", 2),
        of("a", "often", "*/20 * * * *", 0),
        of("a", "check", "0 2-6 * * *", 1),
        of("b", "hourly", "0 * * * *", 3),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Days on which the clock changes, with failures, kills and stops.
    #[test]
    fn every_run_is_accounted_for_on_a_day_with_incidents(
        begin in prop_oneof![
            Just("2026-03-28T12:00:10Z"), Just("2026-10-24T12:00:10Z"), Just("2026-06-01T12:00:10Z")
        ],
        incidents in prop::collection::btree_map(0..120_000_i64, incident(), 0..6),
        courses in prop::collection::vec((1..3000_i64, prop_oneof![3 => Just(0_u8), 1 => Just(25)]), 20),
    ) {
        let script: Script = Box::new(move |purpose, count, _| {
            let (seconds, status) = courses[usize::try_from(count).unwrap() % courses.len()];
            match purpose {
                Purpose::Command(_) => Course::of(seconds, status),
                // The webhook fails, too
                _ => Course::of(seconds % 20, status),
            }
        });
        let mut simulation = Simulation::new(begin, busy_day, script);
        let begin: Timestamp = begin.parse().unwrap();
        let down = |simulation: &mut Simulation, seconds| {
            simulation.run_for(seconds);
            simulation.start_daemon();
        };
        for (second, incident) in incidents {
            simulation.run_until(begin + SignedDuration::from_secs(second));
            match incident {
                Incident::KillDaemon { kills_jobs, seconds } => {
                    simulation.kill_daemon(kills_jobs);
                    down(&mut simulation, seconds);
                }
                Incident::StopDaemon { seconds } => {
                    simulation.supervisor.as_mut().unwrap().stop();
                    simulation.end_processes();
                    while !simulation.supervisor.as_ref().unwrap().is_idle() {
                        simulation.run_for(1);
                    }
                    simulation.supervisor = None;
                    down(&mut simulation, seconds);
                }
                Incident::KillJob => {
                    let mut world = simulation.world.borrow_mut();
                    let now = world.now;
                    let command = |running: &&mut Running| matches!(running.purpose, Purpose::Command(_));
                    if let Some(running) = world.running.iter_mut().find(command) {
                        (running.ends, running.status) = (now, Err(9));
                    }
                }
            }
        }
        // Everything ends, and is told
        let now = simulation.world.borrow().now;
        simulation.run_until(now.max(begin + SignedDuration::from_secs(120_000)));
        let end = simulation.world.borrow().now;
        simulation.jobs = || busy_day().into_iter().map(|mut job| {
            job.cron = Cron::parse("0 0 1 1 *").unwrap();
            job
        }).collect();
        simulation.run_for(50_000);
        let told = simulation.told();
        for job in busy_day() {
            let is_of = |body: &&Value| {
                body["stanza"] == job.key.stanza.as_str() && body["name"] == job.key.name.as_str()
                    && body["due"].as_str().is_some_and(|due| due.parse::<Timestamp>().unwrap() <= end)
            };
            let of: Vec<&Value> = told.iter().filter(is_of).collect();
            // Each run of the command that succeeded is one time of the schedule
            let succeeded: Vec<&Value> = of.iter().filter(|body| body["result"] == "success").map(|body| &body["due"]).collect();
            let mut distinct: Vec<String> = succeeded.iter().map(|due| due.to_string()).collect();
            distinct.sort();
            distinct.dedup();
            let runs = simulation.commands(&job.key.name);
            let runs_of_day = runs.iter().filter(|(began, status)| *status == Ok(0) && began.parse::<Timestamp>().unwrap() <= end).count();
            prop_assert!(runs_of_day >= distinct.len().saturating_sub(1), "{} {:?}", job.key, runs);
            // The webhook may get a result twice, but no time has two runs that succeeded
            let successes: std::collections::BTreeSet<(String, String)> = of.iter().filter(|body| body["result"] == "success").map(|body| (body["due"].to_string(), body["started"].to_string())).collect();
            prop_assert_eq!(successes.len(), distinct.len(), "{}: a time has two runs", job.key);
            // Every time of the schedule has a result or was told as missed
            let mut results: BTreeMap<Timestamp, (bool, u64)> = BTreeMap::new();
            for body in &of {
                let due: Timestamp = body["due"].as_str().unwrap().parse().unwrap();
                let entry = results.entry(due).or_default();
                entry.0 |= body["result"] != "stopped";
                entry.1 = body["missed"].as_u64().unwrap();
            }
            let last = results.iter().rfind(|(_, (is_final, _))| *is_final).map(|(due, _)| *due);
            let Some(last) = last else { continue };
            let mut due = 0;
            let mut at = begin;
            while let Some(time) = job.cron.next(at, &job.zone).filter(|time| *time <= last) {
                (due, at) = (due + 1, time);
            }
            let accounted: u64 = results.iter().filter(|(time, (is_final, _))| *is_final && **time <= last).map(|(_, (_, missed))| 1 + missed).sum();
            prop_assert_eq!(accounted, due, "{}: {:?}", job.key, results);
        }
    }
}
