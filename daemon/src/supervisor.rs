//! Runs the jobs: starts what is due, follows it to its end, tells the result.
//!
//! The supervisor does nothing by itself. Its owner calls [`Supervisor::step`] when time has passed and
//! [`Supervisor::ended`] when a process has ended. Everything that takes time or memory is a process: the command of a
//! job, hooks, the webhook, and the look at PostgreSQL and the repository. So nothing can hold up the supervisor.
//!
//! A run passes through these phases: probe (is it this host's turn), the hook before, the command, the hook after, the
//! hook for failures. The state file says that a run has started before its command does, and has its result before the
//! hooks after it run.

mod recover;
mod run;
mod tell;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::{Error, ErrorCode, Result};
use jiff::Timestamp;

use crate::job::{Job, JobKey};
use crate::plan::{self, Next, Planned};
use crate::state::{JobState, Outcome, Stage};
use crate::world::{Moment, ProcessEnd, Processes, Records, Stop};
use run::Active;
use tell::Delivery;

/// How soon to try again what waits for another process.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// Settings of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorSettings {
    /// The name of this host, for events and delays.
    pub host: String,
    /// How many jobs may run at once.
    pub job_max: usize,
}

/// A configured job and its state.
struct Managed {
    job: Arc<Job>,
    state: JobState,
    /// Since when a run waits for others, so that the log says so once. The schedule may replace the run by a later one
    /// meanwhile.
    waiting_since: Option<Duration>,
    /// Whether the state could not be written, which was told.
    is_unsaved: bool,
    /// How many looks in a row did not show whose turn it is.
    unclear: u32,
    /// Since when the state says that a process has started that has left no trace.
    traceless_since: Option<Duration>,
}

impl Managed {
    fn new(job: Job, state: JobState) -> Self {
        Managed { job: Arc::new(job), state, waiting_since: None, is_unsaved: false, unclear: 0, traceless_since: None }
    }
}

/// See the module documentation.
pub struct Supervisor<P, R> {
    processes: P,
    records: R,
    settings: SupervisorSettings,
    jobs: BTreeMap<JobKey, Managed>,
    active: BTreeMap<JobKey, Active>,
    deliveries: BTreeMap<JobKey, Delivery>,
    is_stopping: bool,
    /// The earliest time at which a step has something to do.
    wake: Option<Duration>,
}

/// What a reload changed, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobChanges {
    /// New jobs.
    pub added: Vec<String>,
    /// Jobs that are gone. Their running processes go on.
    pub removed: Vec<String>,
    /// Jobs with other settings, each with what changed.
    pub changed: Vec<(String, Vec<String>)>,
}

impl<P: Processes, R: Records> Supervisor<P, R> {
    /// A supervisor without jobs.
    pub fn new(processes: P, records: R, settings: SupervisorSettings) -> Self {
        Supervisor {
            processes,
            records,
            settings,
            jobs: BTreeMap::new(),
            active: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            is_stopping: false,
            wake: None,
        }
    }

    /// Access to the processes.
    pub fn processes(&mut self) -> &mut P {
        &mut self.processes
    }

    /// Replaces the jobs. Runs in progress go on with their old settings.
    pub fn set_jobs(&mut self, jobs: Vec<Job>, settings: SupervisorSettings, now: Moment) -> JobChanges {
        self.settings = settings;
        let mut changes = JobChanges::default();
        let mut old = std::mem::take(&mut self.jobs);
        for job in jobs {
            let name = job.key.to_string();
            let mut waiting_since = None;
            match old.remove(&job.key) {
                None => changes.added.push(name),
                Some(old) => {
                    waiting_since = old.waiting_since;
                    let differences = differences(&old.job, &job);
                    if !differences.is_empty() {
                        changes.changed.push((name, differences));
                    }
                }
            }
            let schedule = job.schedule_text();
            let (state, saved) = self.records.update(&job.key, &mut |state| state_for(state, &schedule, now.time));
            let key = job.key.clone();
            self.jobs.insert(key.clone(), Managed { waiting_since, ..Managed::new(job, state) });
            self.warn_unsaved(&key, saved);
            self.recover(&key, now);
        }
        changes.removed = old.into_keys().map(|key| key.to_string()).collect();
        changes
    }

    /// Starts what is due, ends what takes too long, and returns how long nothing else is to be done; `None` if only the
    /// end of a process matters.
    pub fn step(&mut self, now: Moment) -> Option<Duration> {
        self.wake = None;
        self.enforce_limits(now);
        if !self.is_stopping {
            self.start_due(now);
            self.deliver(now);
        }
        self.wake.map(|at| at.saturating_sub(now.elapsed))
    }

    /// Like [`Supervisor::step`], but starts no job by its schedule.
    pub fn step_without_schedule(&mut self, now: Moment) -> Option<Duration> {
        self.wake = None;
        self.enforce_limits(now);
        if !self.is_stopping {
            self.deliver(now);
        }
        self.wake.map(|at| at.saturating_sub(now.elapsed))
    }

    /// Has `step` called at this time.
    fn wake_at(&mut self, at: Duration) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Has `step` called at this time of day.
    fn wake_at_time(&mut self, time: Timestamp, now: Moment) {
        let pause = time.duration_since(now.time).try_into().unwrap_or(Duration::ZERO);
        self.wake_at(now.elapsed + pause);
    }

    fn start_due(&mut self, now: Moment) {
        let mut due: Vec<(Planned, JobKey)> = Vec::new();
        let keys: Vec<JobKey> = self.jobs.keys().filter(|key| !self.active.contains_key(*key)).cloned().collect();
        for key in keys {
            self.recover(&key, now);
            let Some(managed) = self.jobs.get(&key).filter(|_| !self.active.contains_key(&key)) else { continue };
            if is_started(&managed.state) {
                // Another process runs it
                self.wake_at(now.elapsed + BUSY_PAUSE);
                if let Some(managed) = self.jobs.get_mut(&key) {
                    managed.waiting_since = None;
                }
                continue;
            }
            if plan::is_from_the_future(&managed.state, now.time) {
                engine::warn!(
                    "job {key}: its last run is in the future, so the clock was wrong; it counts from now on"
                );
                self.change(&key, |state| {
                    (state.since, state.handled, state.open) = (now.time, None, None);
                });
            }
            let Some(managed) = self.jobs.get(&key) else { continue };
            match plan::next(&managed.job, &managed.state, now.time, &self.settings.host) {
                Next::Run(planned) => {
                    due.push((planned, key));
                    continue;
                }
                Next::Skip(outcome) => self.skip(&key, outcome, now),
                Next::Wait(time) => self.wake_at_time(time, now),
                Next::Never => (),
            }
            // Nothing of it is due any more
            if let Some(managed) = self.jobs.get_mut(&key) {
                managed.waiting_since = None;
            }
        }
        // The one that has waited longest is first. The time of its run does not tell, since a later one may have taken its place
        due.sort_by_cached_key(|(planned, key)| {
            let since = self.jobs.get(key).and_then(|managed| managed.waiting_since);
            (since.unwrap_or(now.elapsed), planned.due, key.clone())
        });
        for (planned, key) in due {
            self.try_start(&key, planned, now);
        }
    }

    /// Starts a run if nothing else keeps it from running.
    fn try_start(&mut self, key: &JobKey, planned: Planned, now: Moment) {
        let Some(managed) = self.jobs.get(key) else { return };
        let job = Arc::clone(&managed.job);
        if self.active.len() >= self.settings.job_max {
            // The end of another run wakes the supervisor
            self.note_waiting(key, "as many jobs run as job-max allows", now);
            return;
        }
        let busy = self.active.values().find(|active| {
            active.job.key.stanza == key.stanza && active.job.repos.iter().any(|repo| job.repos.contains(repo))
        });
        if let Some(busy) = busy {
            let text = format!("job {} is running", busy.job.key);
            self.note_waiting(key, &text, now);
            return;
        }
        match self.records.reserve(&key.stanza, &job.repos) {
            Ok(Some(reservation)) => self.start_reserved(job, planned, reservation, now),
            Ok(None) => {
                self.note_waiting(key, "another process runs a job of this stanza", now);
                self.wake_at(now.elapsed + BUSY_PAUSE);
            }
            Err(error) => {
                self.note_waiting(key, &error.to_string(), now);
                self.wake_at(now.elapsed + BUSY_PAUSE);
            }
        }
    }

    fn note_waiting(&mut self, key: &JobKey, reason: &str, now: Moment) {
        let Some(managed) = self.jobs.get_mut(key) else { return };
        if managed.waiting_since.is_none() {
            engine::info!("job {key} waits: {reason}");
            managed.waiting_since = Some(now.elapsed);
        }
    }

    /// Tells that a run waits no longer, if it did.
    fn note_going_on(&mut self, key: &JobKey, now: Moment) {
        let Some(managed) = self.jobs.get_mut(key) else { return };
        if let Some(since) = managed.waiting_since.take() {
            engine::info!("job {key} goes on after waiting for {}s", now.elapsed.saturating_sub(since).as_secs());
        }
    }

    /// Records that a missed run is not made up for.
    fn skip(&mut self, key: &JobKey, outcome: Outcome, now: Moment) {
        engine::warn!("job {key} missed {} run(s), which are not made up for", outcome.missed);
        self.settle(key, None, outcome, now);
        self.wake_at(now.elapsed);
    }

    /// Runs a job now, at the request of a user.
    ///
    /// # Errors
    /// [`ErrorCode::ParamInvalid`] if there is no such job, [`ErrorCode::LockAcquire`] if another one keeps it from
    /// running.
    pub fn run_now(&mut self, key: &JobKey, now: Moment) -> Result<()> {
        let Some(managed) = self.jobs.get(key) else {
            return Err(Error::new(ErrorCode::ParamInvalid, format!("there is no job '{key}'")));
        };
        let job = Arc::clone(&managed.job);
        let Some(reservation) = self.records.reserve(&key.stanza, &job.repos)? else {
            let text = format!("unable to run job '{key}': another process runs a job of this stanza");
            return Err(Error::new(ErrorCode::LockAcquire, text));
        };
        let open = managed.state.open.as_ref().filter(|open| open.due.is_some());
        // A run that waits for its next try is this one
        let planned = open.map_or(Planned { due: None, attempt: 1, missed: 0 }, |open| Planned {
            due: open.due,
            attempt: open.attempt,
            missed: open.missed,
        });
        self.begin(job, planned, Some(reservation), now);
        Ok(())
    }

    /// Starts nothing any more, and asks running commands to end.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        for delivery in self.deliveries.values() {
            self.processes.stop(delivery.process, Stop::Kill);
        }
        for active in self.active.values_mut() {
            active.stop(&mut self.processes);
        }
    }

    /// Returns whether no process is running.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty() && self.deliveries.is_empty()
    }

    /// The number of jobs, and of running ones.
    pub fn counts(&self) -> (usize, usize) {
        (self.jobs.len(), self.active.len())
    }

    /// The state of a job.
    pub fn state(&self, key: &JobKey) -> Option<&JobState> {
        self.jobs.get(key).map(|managed| &managed.state)
    }

    /// Continues with what follows the end of a process.
    pub fn ended(&mut self, end: &ProcessEnd, now: Moment) {
        let active = self.active.iter().find(|(_, active)| active.process == end.process);
        if let Some(key) = active.map(|(key, _)| key.clone()) {
            self.advance(&key, end, now);
            return;
        }
        let delivery = self.deliveries.iter().find(|(_, delivery)| delivery.process == end.process);
        if let Some(key) = delivery.map(|(key, _)| key.clone()) {
            self.delivered(&key, end, now);
        }
    }

    /// Changes the state of a job in its file and here.
    fn change(&mut self, key: &JobKey, change: impl Fn(&mut JobState)) {
        let managed = self.jobs.get(key);
        let known = managed.map(|managed| managed.state.clone());
        // The file lacks what could not be written
        let is_behind = managed.is_some_and(|managed| managed.is_unsaved);
        let (state, saved) = self.records.update(key, &mut |state| {
            // A file that was removed or damaged meanwhile does not make past runs happen again
            let state = state.filter(|_| !is_behind).or_else(|| known.clone());
            let mut state = state.unwrap_or_else(|| JobState::new(String::new(), Timestamp::UNIX_EPOCH));
            change(&mut state);
            state
        });
        if let Some(managed) = self.jobs.get_mut(key) {
            managed.state = state;
        }
        self.warn_unsaved(key, saved);
    }

    fn warn_unsaved(&mut self, key: &JobKey, saved: Result<()>) {
        let Some(managed) = self.jobs.get_mut(key) else { return };
        match saved {
            Ok(()) => managed.is_unsaved = false,
            Err(error) if !managed.is_unsaved => {
                managed.is_unsaved = true;
                engine::warn!("job {key}: {error}\nNOTE: the job runs, but a restart of the daemon may run it again.");
            }
            Err(_) => (),
        }
    }
}

/// Returns whether the state says that the job is running.
fn is_started(state: &JobState) -> bool {
    state.open.as_ref().is_some_and(|open| matches!(open.stage, Stage::Started(_)))
}

/// Returns the state of a job that has this schedule from now on.
fn state_for(state: Option<JobState>, schedule: &str, now: Timestamp) -> JobState {
    match state {
        Some(state) if state.schedule == schedule => state,
        Some(mut state) => {
            schedule.clone_into(&mut state.schedule);
            state.since = now;
            // What the new schedule asks for may be something else
            state.open = state.open.filter(|open| matches!(open.stage, Stage::Started(_)));
            state
        }
        None => JobState::new(schedule.to_owned(), now),
    }
}

/// Returns the settings that differ, for the log.
fn differences(old: &Job, new: &Job) -> Vec<String> {
    let mut names: Vec<&String> = old.settings.iter().chain(&new.settings).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let value = |job: &Job, name: &String| {
        let values: Vec<&str> =
            job.settings.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect();
        if values.is_empty() { "(none)".to_owned() } else { format!("'{}'", values.join(", ")) }
    };
    let mut differences: Vec<String> = names
        .into_iter()
        .filter(|name| value(old, name) != value(new, name))
        .map(|name| match name.starts_with("hook-") && !name.ends_with("timeout") {
            // Command lines often contain passwords
            true => name.clone(),
            false => format!("{name}: {} -> {}", value(old, name), value(new, name)),
        })
        .collect();
    if old.secret_mark != new.secret_mark {
        differences.push("a secret option".to_owned());
    }
    differences
}
