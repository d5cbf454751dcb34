//! Runs that an earlier daemon did not see the end of.

use std::sync::Arc;
use std::time::Duration;

use super::run::{Active, Phase, outcome};
use super::{Supervisor, is_started};
use crate::job::JobKey;
use crate::plan::Planned;
use crate::state::{OpenRun, Outcome, RunResult, Stage};
use crate::world::{Moment, Processes, Records};

/// How long a process may take until it begins its trace.
const TRACE_MAX: Duration = Duration::from_secs(10);

impl<P: Processes, R: Records> Supervisor<P, R> {
    /// Takes over a run that the state says has started, although this supervisor did not start it: follows it if it is
    /// still running, and records its result otherwise. Does nothing while another process holds the reservation.
    pub(super) fn recover(&mut self, key: &JobKey, now: Moment) {
        let Some(managed) = self.jobs.get(key) else { return };
        if !is_started(&managed.state) || self.active.contains_key(key) {
            return;
        }
        let job = Arc::clone(&managed.job);
        let Ok(Some(reservation)) = self.records.reserve(&key.stanza, &job.repos) else { return };
        // Whoever had the reservation may have recorded the result
        self.change(key, |_| ());
        let open = self.jobs.get(key).and_then(|managed| managed.state.open.clone());
        let Some(OpenRun { due, attempt, missed, stage: Stage::Started(started) }) = open else { return };
        let planned = Planned { due, attempt, missed };
        let trace = match self.records.trace(key) {
            Ok(trace) => trace,
            Err(error) => return engine::warn!("job {key}: {error}"),
        };
        // The earlier daemon may have been killed right after it started the process
        let has_begun = trace.is_running || trace.pid.is_some() || trace.exit_status.is_some();
        if let Some(managed) = self.jobs.get_mut(key) {
            let since = managed.traceless_since.filter(|_| !has_begun);
            managed.traceless_since = (!has_begun).then(|| since.unwrap_or(now.elapsed));
            let is_young = managed.traceless_since.is_some_and(|since| now.elapsed < since + TRACE_MAX);
            if is_young {
                // The caller comes back, as it does for the processes of others
                return;
            }
            managed.traceless_since = None;
        }
        if trace.is_running {
            match self.processes.adopt(key, &trace) {
                Ok(process) => {
                    engine::info!("job {key}: {} of an earlier daemon is still running", job.command);
                    let deadline = job.time_limit.map(|limit| now.elapsed + limit);
                    let active = Active {
                        job,
                        planned,
                        phase: Phase::Command,
                        process,
                        deadline,
                        ended_because: None,
                        is_stopping: false,
                        started,
                        outcome: None,
                        reservation: Some(reservation),
                    };
                    self.active.insert(key.clone(), active);
                }
                Err(error) => engine::warn!("job {key}: {error}"),
            }
            return;
        }
        let base = outcome(&planned, started, now.time);
        let outcome = match trace.exit_status {
            Some(0) => Outcome { exit_status: Some(0), ..base },
            Some(status) => {
                let error = trace.error.map(|error| format!(": {error}")).unwrap_or_default();
                let error = Some(format!("exit status {status}{error}"));
                Outcome { result: RunResult::Failure, exit_status: Some(status), error, ..base }
            }
            None => {
                let error = Some("it ended without a result, together with the daemon".to_owned());
                Outcome { result: RunResult::Failure, error, ..base }
            }
        };
        let text = outcome.error.clone().unwrap_or_else(|| "success".to_owned());
        let (has_result, is_failure) = (trace.exit_status.is_some(), outcome.result == RunResult::Failure);
        engine::warn!("job {key}: {} ended while no daemon was running: {text}", job.command);
        self.settle(key, Some(&job), outcome, now);
        // What the end of the daemon interrupted is made up for once, even without retries
        if is_failure && !has_result && attempt == 1 && job.retry == 0 && due.is_some() {
            let open = OpenRun { due, attempt: 2, missed, stage: Stage::Retry(now.time) };
            self.change(key, |state| state.open = Some(open.clone()));
        }
    }
}
