//! A world of its own: days pass in milliseconds, jobs take as long and end as the test says, and daemons are killed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use jiff::SignedDuration;
use serde_json::Value;

use super::super::*;
use crate::job::Webhook;
use crate::testing::job;
use crate::world::{Launch, ProcessId, Program, Reservation, StateChange, Trace};

/// What a process is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Command(JobKey),
    Probe(JobKey),
    Webhook(Value),
    Hook(String, Value),
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) id: ProcessId,
    pub(super) purpose: Purpose,
    pub(super) began: Timestamp,
    pub(super) ends: Timestamp,
    pub(super) status: std::result::Result<u8, i32>,
    pub(super) output: String,
    pub(super) ignores_term: bool,
    /// Whether the daemon that started or adopted it is alive.
    pub(super) is_followed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) purpose: Purpose,
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
    pub(super) status: std::result::Result<u8, i32>,
}

/// How a process goes.
pub(super) struct Course {
    pub(super) seconds: i64,
    pub(super) status: std::result::Result<u8, i32>,
    pub(super) output: String,
    pub(super) ignores_term: bool,
}

impl Course {
    pub(super) fn of(seconds: i64, status: u8) -> Self {
        Course { seconds, status: Ok(status), output: String::new(), ignores_term: false }
    }
}

/// Decides how the process for a purpose goes; the number counts processes.
pub(super) type Script = Box<dyn FnMut(&Purpose, u64, Timestamp) -> Course>;

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) zero: Timestamp,
    pub(super) count: u64,
    pub(super) running: Vec<Running>,
    pub(super) ended: Vec<Ended>,
    pub(super) states: BTreeMap<JobKey, String>,
    pub(super) traces: BTreeMap<JobKey, Trace>,
    pub(super) reserved: Vec<(String, u32)>,
    pub(super) script: Script,
    pub(super) disk_is_full: bool,
    /// The last argument of each command, in the order of their starts.
    pub(super) command_words: Vec<String>,
}

pub(super) type Shared = Rc<RefCell<World>>;

#[derive(Clone)]
pub(super) struct Fake(Shared);

pub(super) struct FakeReservation(Shared, Vec<(String, u32)>);

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
        if let (Purpose::Command(_), Program::Own { arguments, .. }) = (&purpose, &launch.program) {
            world.command_words.extend(arguments.last().cloned());
        }
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

pub(super) struct Simulation {
    pub(super) world: Shared,
    pub(super) supervisor: Option<Supervisor<Fake, Fake>>,
    pub(super) jobs: fn() -> Vec<Job>,
    /// How many times the supervisor woke up.
    pub(super) steps: u64,
}

impl Simulation {
    pub(super) fn new(begin: &str, jobs: fn() -> Vec<Job>, script: Script) -> Self {
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
            command_words: Vec::new(),
        };
        let mut simulation = Simulation { world: Rc::new(RefCell::new(world)), supervisor: None, jobs, steps: 0 };
        simulation.start_daemon();
        simulation
    }

    pub(super) fn moment(&self) -> Moment {
        let world = self.world.borrow();
        Moment { time: world.now, elapsed: world.now.duration_since(world.zero).try_into().unwrap() }
    }

    pub(super) fn start_daemon(&mut self) {
        let fake = Fake(Rc::clone(&self.world));
        let settings = SupervisorSettings { host: "host".to_owned(), job_max: 2 };
        let mut supervisor = Supervisor::new(fake.clone(), fake, settings.clone());
        supervisor.set_jobs((self.jobs)(), settings, self.moment());
        self.supervisor = Some(supervisor);
    }

    /// Kills the daemon, and commands too if so requested.
    pub(super) fn kill_daemon(&mut self, kills_jobs: bool) {
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
    pub(super) fn end_processes(&mut self) {
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
    pub(super) fn run_until(&mut self, end: Timestamp) {
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

    pub(super) fn run_for(&mut self, seconds: i64) {
        let end = self.world.borrow().now + SignedDuration::from_secs(seconds);
        self.run_until(end);
    }

    /// The commands that have ended, with their status.
    pub(super) fn commands(&self, name: &str) -> Vec<(String, std::result::Result<u8, i32>)> {
        let world = self.world.borrow();
        let of = |ended: &Ended| match &ended.purpose {
            Purpose::Command(key) if key.name == name => Some((ended.began.to_string(), ended.status)),
            _ => None,
        };
        world.ended.iter().filter_map(of).collect()
    }

    /// The commands that were started.
    pub(super) fn command_words(&self) -> Vec<String> {
        self.world.borrow().command_words.clone()
    }

    /// What the webhook has received.
    pub(super) fn told(&self) -> Vec<Value> {
        let world = self.world.borrow();
        let received = world.ended.iter().filter(|ended| ended.status == Ok(0));
        received
            .filter_map(|ended| match &ended.purpose {
                Purpose::Webhook(body) => Some(body.clone()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn hooks(&self) -> Vec<(String, Value)> {
        let world = self.world.borrow();
        let hook = |ended: &Ended| match &ended.purpose {
            Purpose::Hook(text, body) => Some((text.clone(), body.clone())),
            _ => None,
        };
        world.ended.iter().filter_map(hook).collect()
    }

    pub(super) fn state(&self, stanza: &str, name: &str) -> JobState {
        let world = self.world.borrow();
        JobState::parse(&world.states[&JobKey::new(stanza, name).unwrap()]).unwrap()
    }
}

pub(super) fn hourly() -> Vec<Job> {
    let mut job = job("demo", "hourly", "0 * * * *");
    job.webhook = Webhook::Results;
    vec![job]
}

pub(super) fn takes(seconds: i64) -> Script {
    Box::new(move |purpose, _, _| match purpose {
        Purpose::Command(_) => Course::of(seconds, 0),
        _ => Course::of(1, 0),
    })
}
