//! Decides what a job does next, from its state and the time.

use jiff::{SignedDuration, Timestamp};

use crate::job::{Job, RETRY_PAUSE_MAX};
use crate::state::{JobState, OpenRun, Outcome, RunResult, Stage};

/// A run that starts later than this was missed.
pub const LATE: SignedDuration = SignedDuration::from_secs(60);
/// How far in the future times may be that were handled, before the clock must have been wrong.
const CLOCK_WRONG: SignedDuration = SignedDuration::from_hours(1);
/// How many times of the schedule may be delayed at once.
const DELAYED_MAX: usize = 1000;
/// Up to how many missed times are counted.
const MISSED_MAX: u64 = 1000;

/// What a job does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A run starts.
    Run(Planned),
    /// A missed run is not made up for.
    Skip(Outcome),
    /// Nothing until this time.
    Wait(Timestamp),
    /// Nothing at all: the schedule has no more times.
    Never,
}

/// A run that should start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The time of the schedule; `None` if a user started it.
    pub due: Option<Timestamp>,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// How many earlier times of the schedule had no run.
    pub missed: u64,
}

/// Returns what the job does next. A run that started is not its subject. `host` is the name of this host.
pub fn next(job: &Job, state: &JobState, now: Timestamp, host: &str) -> Next {
    let base = base(state);
    // An unfinished run is not in `handled`, but later times replace it
    let open = state.open.as_ref().filter(|open| !matches!(open.stage, Stage::Started(_)));
    let after = open.and_then(|open| open.due).map_or(base, |due| base.max(due));
    let (due, later) = newest(job, after, now, host);
    let Some(due) = due else { return unfinished(open, now, later) };
    let mut missed = count(job, after, due);
    // A failure was told, and what another host does is not missed
    let is_untold = |open: &&OpenRun| open.stage == Stage::Stopped && open.attempt == 1 && open.due.is_some();
    if let Some(open) = open.filter(is_untold) {
        missed = missed.saturating_add(open.missed).saturating_add(1);
    }
    if !job.catch_up && now.duration_since(due + job.delay(due, host)) > LATE {
        return Next::Skip(Outcome {
            result: RunResult::Missed,
            due: Some(due),
            started: now,
            ended: now,
            attempt: 0,
            missed: missed + 1,
            exit_status: None,
            error: None,
        });
    }
    Next::Run(Planned { due: Some(due), attempt: 1, missed })
}

/// Returns the time of the newest run that should have succeeded or be running by now, but has not and is not.
pub fn late(job: &Job, state: &JobState, now: Timestamp, host: &str) -> Option<Timestamp> {
    let (due, _) = newest(job, state.since, now, host);
    let due = due.filter(|due| now.duration_since(*due + job.delay(*due, host)) > LATE)?;
    let is_done = state.handled.is_some_and(|handled| handled >= due);
    let is_running = state.open.as_ref().is_some_and(|open| matches!(open.stage, Stage::Started(_)));
    let has_failed = state.failures > 0;
    ((!is_done || has_failed) && !is_running).then_some(due)
}

/// Returns the newest time of the schedule after `after` whose run starts by now, and when the next run starts.
fn newest(job: &Job, after: Timestamp, now: Timestamp, host: &str) -> (Option<Timestamp>, Option<Timestamp>) {
    let start = |due: Timestamp| due + job.delay(due, host);
    let mut later = job.cron.next(now, &job.zone).map(start);
    let mut until = now;
    for _ in 0..DELAYED_MAX {
        match job.cron.last(after, until, &job.zone) {
            None => break,
            Some(due) if start(due) <= now => return (Some(due), later),
            Some(due) => {
                // Not before its delay has passed
                later = later.into_iter().chain([start(due)]).min();
                until = due - SignedDuration::from_secs(1);
            }
        }
    }
    (None, later)
}

/// Returns whether the state knows of times that are far in the future. Nothing would run until the clock gets there.
pub fn is_from_the_future(state: &JobState, now: Timestamp) -> bool {
    // An unfinished run hides all times up to its own
    let open = state.open.as_ref().and_then(|open| open.due);
    base(state).max(open.unwrap_or(state.since)) > now + CLOCK_WRONG
}

/// Returns the time up to which nothing is due any more.
fn base(state: &JobState) -> Timestamp {
    state.since.max(state.handled.unwrap_or(state.since))
}

/// Returns what happens to an unfinished run while no other one is due before `later`.
fn unfinished(open: Option<&OpenRun>, now: Timestamp, later: Option<Timestamp>) -> Next {
    let wait = |at: Option<Timestamp>| at.into_iter().chain(later).min().map_or(Next::Never, Next::Wait);
    let Some(open) = open else { return wait(None) };
    let planned = Planned { due: open.due, attempt: open.attempt, missed: open.missed };
    match open.stage {
        // No pause is that long, so a clock that was wrong made a later time
        Stage::Retry(at) | Stage::Elsewhere(at) if at > now && at <= now + RETRY_PAUSE_MAX => wait(Some(at)),
        _ => Next::Run(planned),
    }
}

/// Returns how many times of the schedule are between these two, up to a limit.
fn count(job: &Job, after: Timestamp, before: Timestamp) -> u64 {
    let mut at = after;
    let mut count = 0;
    while count < MISSED_MAX {
        match job.cron.next(at, &job.zone) {
            Some(time) if time < before => at = time,
            _ => break,
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::job;

    fn at(text: &str) -> Timestamp {
        format!("2026-06-{text}Z").parse().unwrap()
    }

    /// A state since the first of the month, with times handled and an open run.
    fn state(handled: Option<&str>, open: Option<(&str, u32, Stage)>) -> JobState {
        let mut state = JobState::new(String::new(), at("01T12:00:00"));
        state.handled = handled.map(at);
        state.open = open.map(|(due, attempt, stage)| OpenRun { due: Some(at(due)), attempt, missed: 0, stage });
        state
    }

    fn run(due: &str, attempt: u32, missed: u64) -> Next {
        Next::Run(Planned { due: Some(at(due)), attempt, missed })
    }

    #[test]
    fn job_runs_once_for_each_time_and_makes_up_for_missed_ones_once() {
        let job = job("demo", "nightly", "0 3 * * *");
        let next = |handled, now| next(&job, &state(handled, None), at(now), "host");
        assert_eq!(next(None, "01T13:00:00"), Next::Wait(at("02T03:00:00")));
        assert_eq!(next(None, "02T02:59:59"), Next::Wait(at("02T03:00:00")));
        assert_eq!(next(None, "02T03:00:00"), run("02T03:00:00", 1, 0));
        assert_eq!(next(Some("02T03:00:00"), "02T03:00:01"), Next::Wait(at("03T03:00:00")));
        assert_eq!(next(Some("02T03:00:00"), "09T12:00:00"), run("09T03:00:00", 1, 6));
        // The clock was put back
        assert!(matches!(next(Some("02T03:00:00"), "02T02:30:00"), Next::Wait(_)));
        assert_eq!(next(Some("02T03:00:00"), "02T03:00:00"), Next::Wait(at("03T03:00:00")));
    }

    #[test]
    fn missed_run_is_told_and_left_out_without_catch_up() {
        let mut job = job("demo", "nightly", "0 3 * * *");
        job.catch_up = false;
        let next = |now| next(&job, &state(Some("02T03:00:00"), None), at(now), "host");
        assert_eq!(next("03T03:01:00"), run("03T03:00:00", 1, 0));
        let Next::Skip(outcome) = next("04T09:00:00") else { panic!() };
        assert_eq!((outcome.result, outcome.due, outcome.missed), (RunResult::Missed, Some(at("04T03:00:00")), 2));
    }

    #[test]
    fn retry_waits_for_its_time_and_gives_way_to_the_next_run() {
        let job = job("demo", "nightly", "0 3 * * *");
        let of = |attempt, stage| state(Some("01T03:00:00"), Some(("02T03:00:00", attempt, stage)));
        let state = |stage| of(2, stage);
        let retry = |now| next(&job, &state(Stage::Retry(at("02T04:00:00"))), at(now), "host");
        assert_eq!(retry("02T03:59:00"), Next::Wait(at("02T04:00:00")));
        assert_eq!(retry("02T04:00:00"), run("02T03:00:00", 2, 0));
        assert_eq!(retry("03T03:00:00"), run("03T03:00:00", 1, 0));
        let elsewhere = |now| next(&job, &state(Stage::Elsewhere(at("02T04:00:00"))), at(now), "host");
        assert_eq!(elsewhere("02T03:59:00"), Next::Wait(at("02T04:00:00")));
        assert_eq!(elsewhere("02T04:00:00"), run("02T03:00:00", 2, 0));
        assert_eq!(elsewhere("03T03:00:00"), run("03T03:00:00", 1, 0));
        let stopped = |attempt, now| next(&job, &of(attempt, Stage::Stopped), at(now), "host");
        assert_eq!(stopped(2, "02T03:30:00"), run("02T03:00:00", 2, 0));
        // The failure of the first try was told
        assert_eq!(stopped(2, "03T03:00:00"), run("03T03:00:00", 1, 0));
        assert_eq!(stopped(1, "03T03:00:00"), run("03T03:00:00", 1, 1));
    }

    #[test]
    fn delay_applies_to_every_run_also_if_it_is_longer_than_the_period() {
        let mut job = job("demo", "often", "* * * * *");
        job.jitter = std::time::Duration::from_secs(600);
        let mut state = state(None, None);
        let mut runs = 0;
        for second in 0..7200 {
            let now = at("01T12:00:00") + SignedDuration::from_secs(second);
            if let Next::Run(planned) = next(&job, &state, now, "host") {
                let due = planned.due.unwrap();
                assert!(due + job.delay(due, "host") <= now);
                state.handle(Some(due));
                runs += 1;
            }
        }
        assert!((10..=120).contains(&runs), "{runs}");
    }

    #[test]
    fn long_time_without_a_daemon_is_counted_up_to_a_limit() {
        let job = job("demo", "often", "* * * * * *");
        assert_eq!(next(&job, &state(None, None), at("30T00:00:00"), "host"), run("30T00:00:00", 1, MISSED_MAX));
    }

    #[test]
    fn state_from_the_future_is_noticed() {
        let now = at("02T03:00:00");
        assert!(!is_from_the_future(&state(Some("02T03:59:00"), None), now));
        assert!(is_from_the_future(&state(Some("02T04:01:00"), None), now));
        for stage in [Stage::Retry(at("09T03:05:00")), Stage::Elsewhere(at("09T03:05:00")), Stage::Stopped] {
            assert!(is_from_the_future(&state(None, Some(("09T03:00:00", 2, stage.clone()))), now));
            assert!(!is_from_the_future(&state(None, Some(("02T03:00:00", 2, stage))), now));
        }
    }

    #[test]
    fn retry_that_a_wrong_clock_put_years_ahead_is_due_now() {
        let job = job("demo", "monthly", "0 3 1 * *");
        let far: Timestamp = "2030-06-01T03:05:00Z".parse().unwrap();
        for stage in [Stage::Retry(far), Stage::Elsewhere(far)] {
            let mut state = state(None, Some(("01T03:00:00", 2, stage)));
            state.since = Timestamp::UNIX_EPOCH;
            assert_eq!(next(&job, &state, at("02T03:00:00"), "host"), run("01T03:00:00", 2, 0));
        }
    }
}
