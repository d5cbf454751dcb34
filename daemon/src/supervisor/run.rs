//! One run of a job, from phase to phase.

use std::sync::Arc;
use std::time::Duration;

use engine::Result;
use jiff::Timestamp;

use super::{Supervisor, is_started, tell};
use crate::job::{Job, JobKey};
use crate::plan::{self, LATE, Next, Planned};
use crate::state::{JobState, OpenRun, Outcome, RunResult, Stage};
use crate::world::{Launch, Moment, ProcessEnd, ProcessId, Processes, Program, Records, Reservation, Stop};

/// How long a look at PostgreSQL and the repository may take.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(60);
/// How long a process may take to end after it was asked to.
const END_MAX: Duration = Duration::from_secs(120);
/// The option with the path of the job's trace.
const TRACE_OPTION: &str = "job-file";

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Probe,
    Before,
    Command,
    After,
    Failure,
}

/// A run in progress.
pub(super) struct Active {
    pub(super) job: Arc<Job>,
    pub(super) planned: Planned,
    pub(super) phase: Phase,
    pub(super) process: ProcessId,
    /// When the process has to have ended.
    pub(super) deadline: Option<Duration>,
    /// Why the process was asked to end.
    pub(super) ended_because: Option<String>,
    /// Whether the daemon asked the process to end because it ends itself.
    pub(super) is_stopping: bool,
    pub(super) started: Timestamp,
    pub(super) outcome: Option<Outcome>,
    /// Held until the run is over.
    pub(super) reservation: Option<Box<dyn Reservation>>,
}

impl Active {
    /// Asks the run to end because the daemon ends. What follows the command is not interrupted.
    pub(super) fn stop(&mut self, processes: &mut impl Processes) {
        self.is_stopping = true;
        match self.phase {
            Phase::Probe => processes.stop(self.process, Stop::Kill),
            Phase::Before | Phase::Command => processes.stop(self.process, Stop::Terminate),
            Phase::After | Phase::Failure => (),
        }
    }
}

impl<P: Processes, R: Records> Supervisor<P, R> {
    /// Starts a run whose repositories are reserved, unless its state says otherwise by now.
    pub(super) fn start_reserved(
        &mut self,
        job: Arc<Job>,
        planned: Planned,
        reservation: Box<dyn Reservation>,
        now: Moment,
    ) {
        let key = job.key.clone();
        // Somebody else may have run it
        self.change(&key, |_| ());
        self.note_going_on(&key, now);
        let Some(managed) = self.jobs.get(&key) else { return };
        if is_started(&managed.state) {
            self.wake_at(now.elapsed);
            return;
        }
        match plan::next(&managed.job, &managed.state, now.time, &self.settings.host) {
            Next::Run(again) if again == planned => (),
            _ => return self.wake_at(now.elapsed),
        }
        self.take_turn(job, planned, reservation, now);
    }

    /// Begins with the hook before the command, or the command.
    pub(super) fn begin(
        &mut self,
        job: Arc<Job>,
        planned: Planned,
        reservation: Option<Box<dyn Reservation>>,
        now: Moment,
    ) {
        self.begin_active(
            Active {
                job,
                planned,
                phase: Phase::Before,
                process: ProcessId(0),
                deadline: None,
                ended_because: None,
                is_stopping: false,
                started: now.time,
                outcome: None,
                reservation,
            },
            now,
        );
    }

    /// The same for a run that counts from an earlier time.
    pub(super) fn begin_active(&mut self, active: Active, now: Moment) {
        let (job, planned) = (Arc::clone(&active.job), active.planned.clone());
        let key = job.key.clone();
        engine::info!("job {key}: {}", start_text(&job, &planned, now.time));
        let open = OpenRun {
            due: planned.due,
            attempt: planned.attempt,
            missed: planned.missed,
            stage: Stage::Started(now.time),
        };
        // The trace of the run before must not be taken for that of this one
        let cleared = self.records.clear_trace(&key).map(|path| path.display().to_string());
        self.change(&key, |state| state.open = Some(open.clone()));
        self.active.insert(key.clone(), active);
        let started = match (cleared, &job.hooks.before) {
            (Err(error), _) => Err(error),
            (Ok(_), Some(hook)) => self.start_hook(&key, Phase::Before, hook, now),
            (Ok(path), None) => self.start_command(&key, &path, now),
        };
        if let Err(error) = started {
            self.failed(&key, error.to_string(), now);
        }
    }

    fn start_hook(&mut self, key: &JobKey, phase: Phase, hook: &str, now: Moment) -> Result<()> {
        let Some(active) = self.active.get_mut(key) else { return Ok(()) };
        let input =
            tell::body(&active.job, &active.planned, active.outcome.as_ref(), phase_event(phase), &self.settings);
        let launch = Launch { program: Program::Shell(hook.to_owned()), input: format!("{input}\n"), captures: false };
        let deadline = now.elapsed + active.job.hook_timeout;
        active.process = self.processes.start(&launch)?;
        (active.phase, active.deadline, active.ended_because) = (phase, Some(deadline), None);
        self.wake_at(deadline);
        Ok(())
    }

    fn start_command(&mut self, key: &JobKey, trace: &str, now: Moment) -> Result<()> {
        let Some(active) = self.active.get_mut(key) else { return Ok(()) };
        let mut arguments = vec![format!("--{TRACE_OPTION}={trace}")];
        arguments.extend(active.job.arguments.iter().cloned());
        let environment = active.job.environment.clone();
        let launch = Launch { program: Program::Own { arguments, environment }, input: String::new(), captures: false };
        active.process = self.processes.start(&launch)?;
        let deadline = active.job.time_limit.map(|limit| now.elapsed + limit);
        (active.phase, active.deadline, active.ended_because) = (Phase::Command, deadline, None);
        if let Some(deadline) = deadline {
            self.wake_at(deadline);
        }
        Ok(())
    }

    /// Ends processes that take too long: first politely, then at once.
    pub(super) fn enforce_limits(&mut self, now: Moment) {
        let mut wake = Vec::new();
        for (key, active) in &mut self.active {
            let Some(deadline) = active.deadline else { continue };
            if deadline > now.elapsed {
                wake.push(deadline);
            } else if active.ended_because.is_none() {
                let limit = match active.phase {
                    Phase::Probe => PROBE_MAX,
                    Phase::Command => active.job.time_limit.unwrap_or_default(),
                    _ => active.job.hook_timeout,
                };
                let text = format!("it took longer than {} and was stopped", seconds(limit));
                engine::warn!("job {key}: {}: {text}", phase_name(active.phase));
                active.ended_because = Some(text);
                self.processes.stop(active.process, Stop::Terminate);
                active.deadline = Some(now.elapsed + END_MAX);
                wake.push(now.elapsed + END_MAX);
            } else {
                self.processes.stop(active.process, Stop::Kill);
                active.deadline = None;
            }
        }
        wake.into_iter().for_each(|at| self.wake_at(at));
    }

    /// Continues after the process of a phase has ended.
    pub(super) fn advance(&mut self, key: &JobKey, end: &ProcessEnd, now: Moment) {
        let Some(active) = self.active.get_mut(key) else { return };
        active.deadline = None;
        match active.phase {
            Phase::Probe => self.probed(key, end, now),
            Phase::Before if active.is_stopping => self.stopped(key, now),
            Phase::Before => {
                let problem = problem(active, end);
                let path = self.records.clear_trace(key).map(|path| path.display().to_string());
                let started = match (problem, path) {
                    (Some(problem), _) => return self.failed(key, format!("hook-before failed: {problem}"), now),
                    (None, path) => path.and_then(|path| self.start_command(key, &path, now)),
                };
                if let Err(error) = started {
                    self.failed(key, error.to_string(), now);
                }
            }
            Phase::Command => self.command_ended(key, end, now),
            Phase::After | Phase::Failure => {
                if let Some(problem) = problem(active, end) {
                    engine::warn!("job {key}: {} failed: {problem}", phase_name(active.phase));
                }
                self.next_hook(key, now);
            }
        }
    }

    fn command_ended(&mut self, key: &JobKey, end: &ProcessEnd, now: Moment) {
        let trace = self.records.trace(key).unwrap_or_default();
        let Some(active) = self.active.get(key) else { return };
        let exit_status = end.status.ok();
        let problem = match (problem(active, end), trace.error) {
            (Some(problem), Some(error)) if active.ended_because.is_none() => Some(format!("{problem}: {error}")),
            (problem, _) => problem,
        };
        let result = match problem {
            None => RunResult::Success,
            Some(_) if active.is_stopping => RunResult::Stopped,
            Some(_) => RunResult::Failure,
        };
        let outcome =
            Outcome { result, exit_status, error: problem, ..outcome(&active.planned, active.started, now.time) };
        self.finish(key, outcome, now);
    }

    /// The run could not start its command.
    fn failed(&mut self, key: &JobKey, error: String, now: Moment) {
        let Some(active) = self.active.get(key) else { return };
        let outcome = Outcome {
            result: RunResult::Failure,
            error: Some(error),
            ..outcome(&active.planned, active.started, now.time)
        };
        self.finish(key, outcome, now);
    }

    /// The daemon ends before the command has started.
    fn stopped(&mut self, key: &JobKey, now: Moment) {
        let Some(active) = self.active.get(key) else { return };
        let outcome = Outcome {
            result: RunResult::Stopped,
            error: Some("the daemon was stopped".to_owned()),
            ..outcome(&active.planned, active.started, now.time)
        };
        self.finish(key, outcome, now);
    }

    /// Records the result and continues with the hooks.
    pub(super) fn finish(&mut self, key: &JobKey, outcome: Outcome, now: Moment) {
        let Some(job) = self.active.get(key).map(|active| Arc::clone(&active.job)) else { return };
        let text = outcome.error.as_deref().unwrap_or_default();
        let took = outcome.ended.duration_since(outcome.started).as_secs();
        match outcome.result {
            RunResult::Success => engine::info!("job {key}: {} succeeded ({took}s)", job.command),
            RunResult::Stopped => engine::warn!("job {key}: {} was stopped: {text}", job.command),
            _ => engine::warn!("job {key}: {} failed ({took}s): {text}", job.command),
        }
        self.settle(key, Some(&job), outcome.clone(), now);
        if let Some(active) = self.active.get_mut(key) {
            active.outcome = Some(outcome);
            active.phase = Phase::Command;
        }
        self.next_hook(key, now);
    }

    /// Starts the next hook after the command, or ends the run.
    fn next_hook(&mut self, key: &JobKey, now: Moment) {
        loop {
            let Some(active) = self.active.get_mut(key) else { return };
            let is_failure = active.outcome.as_ref().is_some_and(|outcome| outcome.result == RunResult::Failure);
            let (phase, hook) = match active.phase {
                Phase::Command => (Phase::After, active.job.hooks.after.clone()),
                Phase::After => (Phase::Failure, active.job.hooks.failure.clone().filter(|_| is_failure)),
                _ => break,
            };
            active.phase = phase;
            let Some(hook) = hook else { continue };
            match self.start_hook(key, phase, &hook, now) {
                Ok(()) => return,
                Err(error) => engine::warn!("job {key}: {}: {error}", phase_name(phase)),
            }
        }
        self.active.remove(key);
    }

    /// Records an outcome: in the state, and for the webhook.
    pub(super) fn settle(&mut self, key: &JobKey, ran: Option<&Arc<Job>>, outcome: Outcome, now: Moment) {
        let Some(job) = ran.cloned().or_else(|| self.jobs.get(key).map(|managed| Arc::clone(&managed.job))) else {
            return;
        };
        let open = following(&job, &outcome, now.time);
        self.record(&job, outcome, open, now);
    }

    /// Records an outcome that this is to follow.
    pub(super) fn record(&mut self, job: &Job, outcome: Outcome, open: Option<OpenRun>, now: Moment) {
        if let Some(OpenRun { stage: Stage::Retry(at), attempt, .. }) = &open {
            engine::info!("job {}: try {attempt} of {} at {at}", job.key, job.retry + 1);
        }
        let event = tell::event(job, &outcome, open.as_ref(), &self.settings, now.time);
        self.change(&job.key, |state: &mut JobState| {
            state.record(outcome.clone());
            if open.is_none() {
                state.handle(outcome.due);
            }
            state.open.clone_from(&open);
            tell::add(state, event.clone());
        });
    }
}

/// Returns what remains to be done for a run that ended like this.
fn following(job: &Job, outcome: &Outcome, now: Timestamp) -> Option<OpenRun> {
    outcome.due?;
    let open = |attempt, stage| OpenRun { due: outcome.due, attempt, missed: outcome.missed, stage };
    match outcome.result {
        RunResult::Failure if outcome.attempt <= job.retry => {
            let pause = job.retry_pause(outcome.attempt);
            let at = now.checked_add(pause).unwrap_or(Timestamp::MAX);
            Some(open(outcome.attempt + 1, Stage::Retry(at)))
        }
        RunResult::Stopped => Some(open(outcome.attempt, Stage::Stopped)),
        _ => None,
    }
}

/// An outcome of a run, to be completed.
pub(super) fn outcome(planned: &Planned, started: Timestamp, ended: Timestamp) -> Outcome {
    Outcome {
        result: RunResult::Success,
        due: planned.due,
        started,
        ended,
        attempt: planned.attempt,
        missed: planned.missed,
        exit_status: None,
        error: None,
    }
}

/// Returns why a process did not succeed.
pub(super) fn problem(active: &Active, end: &ProcessEnd) -> Option<String> {
    match end.status {
        Ok(0) => None,
        _ if active.ended_because.is_some() => active.ended_because.clone(),
        Ok(status) => Some(format!("exit status {status}")),
        Err(signal) => Some(format!("ended by signal {signal}")),
    }
}

fn start_text(job: &Job, planned: &Planned, now: Timestamp) -> String {
    let mut text = format!("{} starts", job.command);
    match planned.due {
        None => text += " at a user's request",
        Some(due) if now.duration_since(due) > LATE => text += &format!(", due {due}"),
        Some(_) => (),
    }
    if planned.attempt > 1 {
        text += &format!(", try {} of {}", planned.attempt, job.retry.max(planned.attempt - 1) + 1);
    }
    if planned.missed > 0 {
        text += &format!(", also for {} earlier run(s)", planned.missed);
    }
    text
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Probe => "look at cluster and repository",
        Phase::Before => "hook-before",
        Phase::Command => "command",
        Phase::After => "hook-after",
        Phase::Failure => "hook-failure",
    }
}

fn phase_event(phase: Phase) -> &'static str {
    match phase {
        Phase::Before => "before",
        Phase::Failure => "failure",
        _ => "after",
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}
