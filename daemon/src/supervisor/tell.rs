//! Tells results: the JSON for hooks and the webhook, and what the webhook has not received yet.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Supervisor, SupervisorSettings};
use crate::job::{Job, JobKey, Webhook};
use crate::plan::Planned;
use crate::state::{Event, JobState, OpenRun, Outcome, RunResult, Stage, time};
use crate::world::{Launch, Moment, ProcessEnd, ProcessId, Processes, Program, Records, Stop};

/// How many results wait for the webhook, per job.
const EVENTS_MAX: usize = 100;
/// How long a result is offered to the webhook.
const EVENT_AGE_MAX: SignedDuration = SignedDuration::from_hours(24);
/// The pause after the first request in vain. It doubles with each one.
const PAUSE_FIRST: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// A request of the webhook in progress.
pub(super) struct Delivery {
    pub(super) process: ProcessId,
    deadline: Duration,
    /// The event's body, which identifies it. Another process may have changed the list meanwhile.
    body: Value,
}

/// Returns the JSON that a hook reads. `outcome` is `None` before the command.
pub(super) fn body(
    job: &Job,
    planned: &Planned,
    outcome: Option<&Outcome>,
    event: &str,
    settings: &SupervisorSettings,
) -> Value {
    let mut body = json!({
        "event": event,
        "host": settings.host,
        "stanza": job.key.stanza,
        "name": job.key.name,
        "command": job.command,
        "schedule": job.schedule_text(),
        "due": planned.due.map(time),
        "attempt": planned.attempt,
        "attempts": job.retry + 1,
        "missed": planned.missed,
    });
    if let (Some(outcome), Some(members)) = (outcome, body.as_object_mut()) {
        members.insert("result".to_owned(), Value::from(outcome.result.name()));
        members.insert("started".to_owned(), time(outcome.started));
        members.insert("ended".to_owned(), time(outcome.ended));
        members.insert("exit_status".to_owned(), Value::from(outcome.exit_status));
        members.insert("error".to_owned(), Value::from(outcome.error.clone()));
    }
    body
}

/// Returns the event of an outcome, if the webhook wants it.
pub(super) fn event(
    job: &Job,
    outcome: &Outcome,
    open: Option<&OpenRun>,
    settings: &SupervisorSettings,
    now: Timestamp,
) -> Option<Event> {
    let is_wanted = match (job.webhook, outcome.result) {
        (Webhook::None, _) | (_, RunResult::Elsewhere) => false,
        (Webhook::Failures, result) => matches!(result, RunResult::Failure | RunResult::Missed),
        (Webhook::Results, _) => true,
    };
    if !is_wanted {
        return None;
    }
    let planned = Planned { due: outcome.due, attempt: outcome.attempt, missed: outcome.missed };
    let mut body = body(job, &planned, Some(outcome), "result", settings);
    if let (Some(members), Some(Stage::Retry(at))) = (body.as_object_mut(), open.map(|open| &open.stage)) {
        members.insert("retry_at".to_owned(), time(*at));
    }
    let until = now.checked_add(EVENT_AGE_MAX).unwrap_or(Timestamp::MAX);
    Some(Event { body, tries: 0, not_before: now, until })
}

/// Adds an event to those that the webhook has to receive.
pub(super) fn add(state: &mut JobState, event: Option<Event>) {
    state.events.extend(event);
    let excess = state.events.len().saturating_sub(EVENTS_MAX);
    if excess > 0 {
        engine::warn!("{excess} result(s) are not told to the webhook: too many wait for it");
        state.events.drain(..excess);
    }
}

/// Removes an event that the webhook need not receive any more.
fn forget(state: &mut JobState, body: &Value) {
    if let Some(at) = state.events.iter().position(|event| event.body == *body) {
        state.events.remove(at);
    }
}

impl<P: Processes, R: Records> Supervisor<P, R> {
    /// Starts the requests that are due, and ends those that take too long.
    pub(super) fn deliver(&mut self, now: Moment) {
        for delivery in self.deliveries.values().filter(|delivery| delivery.deadline <= now.elapsed) {
            self.processes.stop(delivery.process, Stop::Kill);
        }
        let keys: Vec<JobKey> = self.jobs.keys().cloned().collect();
        for key in keys {
            let Some(managed) = self.jobs.get(&key) else { continue };
            let Some(event) = managed.state.events.first() else { continue };
            if let Some(deadline) = self.deliveries.get(&key).map(|delivery| delivery.deadline) {
                if deadline > now.elapsed {
                    self.wake_at(deadline);
                }
                continue;
            }
            if managed.job.webhook == Webhook::None {
                // The webhook was removed from the configuration
                self.change(&key, |state| state.events.clear());
                continue;
            }
            // No pause is that long, so a clock that was wrong made a later time
            if event.not_before > now.time && event.not_before <= now.time + PAUSE_MAX {
                let time = event.not_before;
                self.wake_at_time(time, now);
                continue;
            }
            let mut arguments = managed.job.helper.clone();
            arguments.extend(["webhook".to_owned(), key.name.clone()]);
            let launch = Launch {
                program: Program::Own { arguments, environment: managed.job.environment.clone() },
                input: event.body.to_string(),
                captures: false,
            };
            let (deadline, body) = (now.elapsed + managed.job.hook_timeout, event.body.clone());
            match self.processes.start(&launch) {
                Ok(process) => {
                    self.deliveries.insert(key, Delivery { process, deadline, body });
                    self.wake_at(deadline);
                }
                Err(error) => self.undelivered(&key, &body, &error.to_string(), now),
            }
        }
    }

    /// Continues after a request has ended.
    pub(super) fn delivered(&mut self, key: &JobKey, end: &ProcessEnd, now: Moment) {
        let Some(Delivery { body, .. }) = self.deliveries.remove(key) else { return };
        match end.status {
            Ok(0) => self.change(key, |state| forget(state, &body)),
            // The next daemon sends it
            _ if self.is_stopping => (),
            Ok(status) => self.undelivered(key, &body, &format!("exit status {status}"), now),
            Err(signal) => self.undelivered(key, &body, &format!("ended by signal {signal}"), now),
        }
    }

    fn undelivered(&mut self, key: &JobKey, body: &Value, problem: &str, now: Moment) {
        let events = self.jobs.get(key).map(|managed| &managed.state.events);
        let Some(event) = events.and_then(|events| events.iter().find(|event| event.body == *body)) else { return };
        if now.time >= event.until {
            engine::warn!("job {key}: the webhook did not take a result for a day, which is given up: {problem}");
            self.change(key, |state| forget(state, body));
            return;
        }
        let doubled = 1_u32.checked_shl(event.tries).unwrap_or(u32::MAX);
        let pause = PAUSE_FIRST.saturating_mul(doubled).min(PAUSE_MAX);
        let at = now.time.checked_add(pause).unwrap_or(Timestamp::MAX);
        engine::warn!("job {key}: the webhook did not take a result, next try in {}s: {problem}", pause.as_secs());
        let until = now.time.checked_add(EVENT_AGE_MAX).unwrap_or(Timestamp::MAX);
        self.change(key, |state| {
            if let Some(event) = state.events.iter_mut().find(|event| event.body == *body) {
                event.tries = event.tries.saturating_add(1);
                event.not_before = at;
                // It was later if the clock was wrong
                event.until = event.until.min(until);
            }
        });
    }
}
