//! Finds out whether a run is due on this host, before it begins.

use std::sync::Arc;

use engine::{Error, ErrorCode};
use jiff::{SignedDuration, Timestamp};

use super::run::{Active, PROBE_MAX, Phase, outcome, problem};
use super::{Managed, Supervisor};
use crate::job::{Completion, Job, JobKey, RunOn};
use crate::plan::Planned;
use crate::state::{OpenRun, Outcome, RunResult, Stage};
use crate::verdict::{Probe, Verdict, decide, interrupted_try};
use crate::world::{Launch, Moment, ProcessEnd, Processes, Program, Records, Reservation};

/// How often a backup waits for an answer of the cluster or the repository before it begins without. A host whose
/// cluster is down must not take the turn of one that does well.
const UNCLEAR_MAX: u32 = 5;
/// The pause before each look after the first.
const UNCLEAR_PAUSE: SignedDuration = SignedDuration::from_secs(120);

impl<P: Processes, R: Records> Supervisor<P, R> {
    /// Begins the run, after a look at cluster and repository if that may show that it is not needed here.
    pub(super) fn take_turn(
        &mut self,
        job: Arc<Job>,
        planned: Planned,
        reservation: Box<dyn Reservation>,
        now: Moment,
    ) {
        let key = job.key.clone();
        let state = self.jobs.get(&key).map(|managed| &managed.state);
        let may_be_done = |due: &Timestamp| {
            job.run_on != RunOn::Any || state.is_some_and(|state| interrupted_try(&job, state, *due).is_some())
        };
        let Some(due) = planned.due.filter(may_be_done) else {
            return self.begin(job, planned, Some(reservation), now);
        };
        let mut arguments = job.helper.clone();
        arguments.extend(["probe".to_owned(), key.name.clone()]);
        let launch = Launch {
            program: Program::Own { arguments, environment: job.environment.clone() },
            input: String::new(),
            captures: true,
        };
        match self.processes.start(&launch) {
            Ok(process) => {
                let active = Active {
                    job,
                    planned,
                    phase: Phase::Probe,
                    process,
                    deadline: Some(now.elapsed + PROBE_MAX),
                    ended_because: None,
                    is_stopping: false,
                    started: now.time,
                    outcome: None,
                    reservation: Some(reservation),
                };
                self.active.insert(key, active);
                self.wake_at(now.elapsed + PROBE_MAX);
            }
            Err(error) => {
                engine::warn!("job {key}: unable to find out whether the run of {due} is due on this host: {error}");
                self.begin(job, planned, Some(reservation), now);
            }
        }
    }

    /// Continues after the look at cluster and repository.
    pub(super) fn probed(&mut self, key: &JobKey, end: &ProcessEnd, now: Moment) {
        let Some(active) = self.active.remove(key) else { return };
        if active.is_stopping {
            return;
        }
        let (Some(managed), Some(due)) = (self.jobs.get(key), active.planned.due) else { return };
        let probe = match problem(&active, end) {
            Some(problem) => Err(Error::new(ErrorCode::Execute, problem)),
            None => Probe::parse(&end.output),
        };
        let verdict = match probe {
            Ok(probe) => decide(&active.job, &managed.state, &probe, due, now.time),
            Err(error) => {
                engine::warn!("job {key}: unable to find out whether the run of {due} is due on this host: {error}");
                Verdict::Unclear
            }
        };
        match verdict {
            Verdict::Unclear if may_wait(managed, &active) => self.look_again(&active, now),
            Verdict::Run | Verdict::Unclear => {
                self.set_unclear(key, 0);
                self.begin(active.job, active.planned, active.reservation, now);
            }
            Verdict::Later(at) => {
                if active.planned.attempt == 1 && !is_elsewhere(managed) {
                    engine::info!("job {key}: the run of {due} is left to another host unless it fails");
                }
                self.set_unclear(key, 0);
                self.leave(&active, at);
            }
            Verdict::Made(label) => self.made(active, &label, now),
            Verdict::Done(label) => {
                self.not_needed(&active, format!("another job or host has made backup {label}"), now)
            }
            Verdict::NotHere => self.not_needed(&active, "it is another host's turn".to_owned(), now),
        }
    }

    /// Leaves the run to others until a time.
    fn leave(&mut self, active: &Active, at: Timestamp) {
        let Planned { due, attempt, missed } = active.planned;
        let open = OpenRun { due, attempt, missed, stage: Stage::Elsewhere(at) };
        self.change(&active.job.key, |state| state.open = Some(open.clone()));
    }

    fn look_again(&mut self, active: &Active, now: Moment) {
        let key = &active.job.key;
        let looks = self.jobs.get(key).map_or(0, |managed| managed.unclear);
        if looks == 0 {
            engine::warn!(
                "job {key}: the cluster or the repository does not answer, so nothing shows whether it is this host's turn; \
                 next look in {}s",
                UNCLEAR_PAUSE.as_secs()
            );
        }
        self.set_unclear(key, looks + 1);
        self.leave(active, now.time + UNCLEAR_PAUSE);
    }

    fn set_unclear(&mut self, key: &JobKey, looks: u32) {
        if let Some(managed) = self.jobs.get_mut(key) {
            managed.unclear = looks;
        }
    }

    /// Continues a run whose backup is there, although its command failed after that. Another backup would not mend it.
    /// What follows a backup is done now, with the same hooks. If there is no such command, the failure stands.
    fn made(&mut self, active: Active, label: &str, now: Moment) {
        let key = &active.job.key;
        if let Some(Completion { command, arguments }) = active.job.completion.clone() {
            engine::info!("job {key}: backup {label} is complete and not made again, {command} follows");
            self.set_unclear(key, 0);
            let job = Arc::new(Job { command, arguments, ..(*active.job).clone() });
            // From the beginning of the backup on, so that the next try finds the backup, too
            let begun = self.jobs.get(key).and_then(|managed| managed.state.last.as_ref()).map(|last| last.started);
            let started = begun.unwrap_or(now.time);
            let fresh = Active { phase: Phase::Before, deadline: None, ended_because: None, job, started, ..active };
            return self.begin_active(fresh, now);
        }
        let last = self.jobs.get(key).and_then(|managed| managed.state.last.clone());
        let problem = last.as_ref().and_then(|last| last.error.clone()).unwrap_or_default();
        let text = format!("backup {label} is complete and not made again, but what followed it failed: {problem}");
        engine::warn!("job {key}: {text}");
        let outcome = Outcome {
            result: RunResult::Failure,
            exit_status: last.and_then(|last| last.exit_status),
            error: Some(text),
            ..outcome(&active.planned, now.time, now.time)
        };
        let job = Arc::clone(&active.job);
        self.record(&job, outcome, None, now);
    }

    fn not_needed(&mut self, active: &Active, reason: String, now: Moment) {
        let key = &active.job.key;
        if let Some(due) = active.planned.due {
            engine::info!("job {key}: the run of {due} is not needed: {reason}");
        }
        self.set_unclear(key, 0);
        let outcome = Outcome {
            result: RunResult::Elsewhere,
            error: Some(reason),
            ..outcome(&active.planned, now.time, now.time)
        };
        self.settle(key, None, outcome, now);
    }
}

/// Returns whether a run waits because nothing shows whose turn it is. In the end its command reports what is wrong.
fn may_wait(managed: &Managed, active: &Active) -> bool {
    let (job, planned) = (&active.job, &active.planned);
    let has_others = job.leaves_backup && job.run_on != RunOn::Any;
    has_others && planned.attempt == 1 && managed.unclear < UNCLEAR_MAX
}

fn is_elsewhere(managed: &Managed) -> bool {
    managed.state.open.as_ref().is_some_and(|open| matches!(open.stage, Stage::Elsewhere(_)))
}
