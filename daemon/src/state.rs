//! What is known about a job, as JSON in its state file.
//!
//! | member | content |
//! | --- | --- |
//! | `version` | 1 |
//! | `schedule` | the schedule for which `since` counts |
//! | `since` | since when the job has this schedule; earlier times are not missed |
//! | `handled` | the newest time of the schedule that needs no run any more |
//! | `open` | the run that is not finished: `due`, `attempt`, `missed`, and where it is |
//! | `last`, `success` | the last result, and the last success |
//! | `failures` | failures since the last success |
//! | `events` | results that the webhook has not received |

use engine::{Error, ErrorCode, Result};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

const VERSION: u64 = 1;
/// Times from here on are not valid in a state file, so that calculations with times do not overflow.
const TIME_END: &str = "9000-01-01T00:00:00Z";
/// The highest valid count of missed runs and failures, for the same reason.
const COUNT_MAX: u64 = 1 << 40;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunResult {
    /// The command succeeded.
    Success,
    /// The command, a hook or the start failed.
    Failure,
    /// Another host has done it, or it is another host's turn.
    Elsewhere,
    /// The daemon was stopped or killed meanwhile.
    Stopped,
    /// It was not made up for, as configured.
    Missed,
}

impl RunResult {
    /// Every result.
    pub const ALL: [RunResult; 5] =
        [RunResult::Success, RunResult::Failure, RunResult::Elsewhere, RunResult::Stopped, RunResult::Missed];

    /// Its name in files and events.
    pub fn name(self) -> &'static str {
        match self {
            RunResult::Success => "success",
            RunResult::Failure => "failure",
            RunResult::Elsewhere => "elsewhere",
            RunResult::Stopped => "stopped",
            RunResult::Missed => "missed",
        }
    }
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub result: RunResult,
    /// The time of the schedule; `None` if a user started it.
    pub due: Option<Timestamp>,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Which try it was, from 1.
    pub attempt: u32,
    /// How many earlier times of the schedule had no run.
    pub missed: u64,
    /// The exit status of the command, if it ended by itself.
    pub exit_status: Option<u8>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Where an unfinished run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It failed and is tried again at this time.
    Retry(Timestamp),
    /// It is another host's turn. Whether it still is, is looked up at this time.
    Elsewhere(Timestamp),
    /// The daemon ended before it was done.
    Stopped,
    /// Its command may be running since this time.
    Started(Timestamp),
}

/// An unfinished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRun {
    /// The time of the schedule; `None` if a user started it.
    pub due: Option<Timestamp>,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// How many earlier times of the schedule had no run.
    pub missed: u64,
    /// Where it is.
    pub stage: Stage,
}

/// A result for the webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The request's body.
    pub body: Value,
    /// How often it was sent in vain.
    pub tries: u32,
    /// When it is sent again.
    pub not_before: Timestamp,
    /// When it is given up.
    pub until: Timestamp,
}

/// All that is known about a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobState {
    /// The schedule for which `since` counts.
    pub schedule: String,
    /// Since when the job has this schedule.
    pub since: Timestamp,
    /// The newest time of the schedule that needs no run any more.
    pub handled: Option<Timestamp>,
    /// The run that is not finished.
    pub open: Option<OpenRun>,
    /// The last result.
    pub last: Option<Outcome>,
    /// The last success.
    pub success: Option<Outcome>,
    /// Failures since the last success.
    pub failures: u64,
    /// Results that the webhook has not received, oldest first.
    pub events: Vec<Event>,
}

impl JobState {
    /// The state of a new job.
    pub fn new(schedule: String, since: Timestamp) -> Self {
        JobState {
            schedule,
            since,
            handled: None,
            open: None,
            last: None,
            success: None,
            failures: 0,
            events: Vec::new(),
        }
    }

    /// Records the end of a run.
    pub fn record(&mut self, outcome: Outcome) {
        match outcome.result {
            RunResult::Success => {
                self.failures = 0;
                self.success = Some(outcome.clone());
            }
            RunResult::Failure => self.failures += 1,
            RunResult::Elsewhere | RunResult::Stopped | RunResult::Missed => (),
        }
        self.last = Some(outcome);
    }

    /// Records that all times up to this one need no run.
    pub fn handle(&mut self, due: Option<Timestamp>) {
        self.handled = self.handled.max(due);
    }

    /// Returns the state as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "version": VERSION,
            "schedule": self.schedule,
            "since": time(self.since),
            "handled": self.handled.map(time),
            "open": self.open.as_ref().map(open_json),
            "last": self.last.as_ref().map(outcome_json),
            "success": self.success.as_ref().map(outcome_json),
            "failures": self.failures,
            "events": self.events.iter().map(event_json).collect::<Vec<_>>(),
        })
    }

    /// Parses a state file.
    ///
    /// # Errors
    /// [`ErrorCode::Format`]
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Error::new(ErrorCode::Format, format!("it is not valid JSON: {error}")))?;
        Self::from_json(&value).ok_or_else(|| Error::new(ErrorCode::Format, "it is not a state of this version"))
    }

    fn from_json(value: &Value) -> Option<Self> {
        if value.get("version")?.as_u64()? != VERSION {
            return None;
        }
        Some(JobState {
            schedule: value.get("schedule")?.as_str()?.to_owned(),
            since: time_of(value.get("since")?)?,
            handled: optional(value, "handled", time_of)?,
            open: optional(value, "open", open_of)?,
            last: optional(value, "last", outcome_of)?,
            success: optional(value, "success", outcome_of)?,
            failures: count_of(value.get("failures")?)?,
            events: value.get("events")?.as_array()?.iter().map(event_of).collect::<Option<_>>()?,
        })
    }
}

/// Returns a time as it stands in files and events.
pub fn time(time: Timestamp) -> Value {
    Value::String(time.to_string())
}

fn time_of(value: &Value) -> Option<Timestamp> {
    let end: Timestamp = TIME_END.parse().ok()?;
    value.as_str()?.parse().ok().filter(|time| (Timestamp::UNIX_EPOCH..end).contains(time))
}

fn count_of(value: &Value) -> Option<u64> {
    value.as_u64().filter(|count| *count <= COUNT_MAX)
}

/// Reads a member that may be null. The outer `None` means that it is invalid.
fn optional<T>(value: &Value, name: &str, read: fn(&Value) -> Option<T>) -> Option<Option<T>> {
    match value.get(name)? {
        Value::Null => Some(None),
        value => read(value).map(Some),
    }
}

/// Returns the end of a run as JSON.
pub fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "result": outcome.result.name(),
        "due": outcome.due.map(time),
        "started": time(outcome.started),
        "ended": time(outcome.ended),
        "attempt": outcome.attempt,
        "missed": outcome.missed,
        "exit_status": outcome.exit_status,
        "error": outcome.error,
    })
}

fn outcome_of(value: &Value) -> Option<Outcome> {
    let name = value.get("result")?.as_str()?;
    Some(Outcome {
        result: RunResult::ALL.into_iter().find(|result| result.name() == name)?,
        due: optional(value, "due", time_of)?,
        started: time_of(value.get("started")?)?,
        ended: time_of(value.get("ended")?)?,
        attempt: u32::try_from(value.get("attempt")?.as_u64()?).ok()?,
        missed: count_of(value.get("missed")?)?,
        exit_status: optional(value, "exit_status", |value| u8::try_from(value.as_u64()?).ok())?,
        error: optional(value, "error", |value| Some(value.as_str()?.to_owned()))?,
    })
}

fn open_json(open: &OpenRun) -> Value {
    let (stage, at) = match open.stage {
        Stage::Retry(at) => ("retry", Some(at)),
        Stage::Elsewhere(at) => ("elsewhere", Some(at)),
        Stage::Stopped => ("stopped", None),
        Stage::Started(at) => ("started", Some(at)),
    };
    json!({
        "due": open.due.map(time),
        "attempt": open.attempt,
        "missed": open.missed,
        "stage": stage,
        "at": at.map(time),
    })
}

fn open_of(value: &Value) -> Option<OpenRun> {
    let at = optional(value, "at", time_of)?;
    Some(OpenRun {
        due: optional(value, "due", time_of)?,
        attempt: u32::try_from(value.get("attempt")?.as_u64()?).ok()?,
        missed: count_of(value.get("missed")?)?,
        stage: match value.get("stage")?.as_str()? {
            "retry" => Stage::Retry(at?),
            "elsewhere" => Stage::Elsewhere(at?),
            "stopped" => Stage::Stopped,
            "started" => Stage::Started(at?),
            _ => return None,
        },
    })
}

fn event_json(event: &Event) -> Value {
    json!({
        "body": event.body,
        "tries": event.tries,
        "not_before": time(event.not_before),
        "until": time(event.until),
    })
}

fn event_of(value: &Value) -> Option<Event> {
    let body: &Map<String, Value> = value.get("body")?.as_object()?;
    Some(Event {
        body: Value::Object(body.clone()),
        tries: u32::try_from(value.get("tries")?.as_u64()?).ok()?,
        not_before: time_of(value.get("not_before")?)?,
        until: time_of(value.get("until")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn outcome(result: RunResult) -> Outcome {
        Outcome {
            result,
            due: Some(at(100)),
            started: at(101),
            ended: at(160),
            attempt: 2,
            missed: 3,
            exit_status: Some(82),
            error: Some("a \"quoted\" text\nwith lines".to_owned()),
        }
    }

    #[test]
    fn state_is_the_same_after_it_was_written_and_read() {
        let mut states = vec![JobState::new("0 3 * * *".to_owned(), at(5))];
        for stage in [Stage::Retry(at(9)), Stage::Elsewhere(at(9)), Stage::Stopped, Stage::Started(at(9))] {
            let mut state = JobState::new("@daily (Europe/Berlin)".to_owned(), at(5));
            state.open = Some(OpenRun { due: None, attempt: 1, missed: 7, stage });
            state.events.push(Event { body: json!({"a": 1}), tries: 2, not_before: at(6), until: at(7) });
            states.push(state);
        }
        for result in RunResult::ALL {
            let mut state = JobState::new("@daily".to_owned(), at(5));
            state.handle(Some(at(100)));
            state.record(outcome(result));
            states.push(state);
        }
        for state in states {
            assert_eq!(JobState::parse(&state.to_json().to_string()).unwrap(), state);
        }
    }

    #[test]
    fn failures_count_until_a_success_and_other_results_change_nothing() {
        let mut state = JobState::new("@daily".to_owned(), at(5));
        let results = [RunResult::Failure, RunResult::Stopped, RunResult::Failure, RunResult::Elsewhere];
        results.into_iter().for_each(|result| state.record(outcome(result)));
        assert_eq!((state.failures, state.success.is_some()), (2, false));
        state.record(outcome(RunResult::Success));
        state.record(outcome(RunResult::Missed));
        assert_eq!((state.failures, state.success.is_some()), (0, true));
        assert_eq!(state.last.unwrap().result, RunResult::Missed);
    }

    #[test]
    fn damaged_state_is_an_error() {
        let good = JobState::new("@daily".to_owned(), at(5)).to_json();
        let mut other = good.clone();
        other["version"] = json!(2);
        let mut open = good.clone();
        open["open"] = json!({"due": null, "attempt": 1, "missed": 0, "stage": "retry", "at": null});
        for text in ["", "{", "[]", "{}", &other.to_string(), &open.to_string()] {
            assert_eq!(JobState::parse(text).unwrap_err().code, ErrorCode::Format, "{text}");
        }
    }

    #[test]
    fn state_with_times_at_the_end_of_the_calendar_is_an_error() {
        for time in [Timestamp::MIN, Timestamp::MAX] {
            let mut state = JobState::new("@daily".to_owned(), at(5));
            state.open = Some(OpenRun { due: Some(time), attempt: 1, missed: 0, stage: Stage::Stopped });
            assert_eq!(JobState::parse(&state.to_json().to_string()).unwrap_err().code, ErrorCode::Format);
        }
        let mut state = JobState::new("@daily".to_owned(), at(5));
        state.failures = u64::MAX;
        assert!(JobState::parse(&state.to_json().to_string()).is_err());
    }
}
