//! Shows schedules, next runs, last results, and what is late.

use daemon::job::Job;
use daemon::plan;
use daemon::service::DaemonPlan;
use daemon::state::{JobState, Stage, outcome_json, time};
use daemon::store::StateDirectory;
use engine::{ErrorCode, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::Config;
use crate::{ExitStatus, jobs, print};

/// How many next runs the JSON contains.
const NEXT_COUNT: usize = 3;

/// What is shown of a job.
struct Shown {
    job: Job,
    state: Option<JobState>,
    next: Vec<Timestamp>,
    late: Option<Timestamp>,
}

/// Prints the schedules.
///
/// # Errors
/// The configuration is not valid, or the state can't be read.
pub(super) fn run(config: &Config, as_json: bool) -> Result<ExitStatus> {
    let (shown, has_daemon) = shown(config)?;
    let text = if as_json {
        let jobs: Vec<Value> = shown.iter().map(json_of).collect();
        format!("{}\n", json!({ "daemon": has_daemon, "jobs": jobs }))
    } else {
        text_of(&shown, has_daemon)
    };
    print(&text)?;
    Ok(ExitStatus::SUCCESS)
}

/// Returns each job as JSON, and whether a daemon is running.
///
/// # Errors
/// The same as [`run`].
pub(crate) fn jobs_json(config: &Config) -> Result<(Vec<Value>, bool)> {
    let (shown, has_daemon) = shown(config)?;
    Ok((shown.iter().map(json_of).collect(), has_daemon))
}

fn shown(config: &Config) -> Result<(Vec<Shown>, bool)> {
    let DaemonPlan { jobs, settings, .. } = jobs::plan(config)?;
    let path = jobs::state_path(config)?;
    let store = if path.exists() { Some(StateDirectory::open(path)?) } else { None };
    let has_daemon = store.as_ref().map_or(Ok(false), StateDirectory::has_daemon)?;
    let now = Timestamp::now();
    let mut shown = Vec::new();
    for job in jobs {
        let state = match store.as_ref().map(|store| store.state(&job.key)) {
            // The other jobs are shown nevertheless, and the daemon replaces the file
            Some(Err(error)) if error.code == ErrorCode::Format => {
                engine::warn!("job {}: {error}", job.key);
                None
            }
            state => state.transpose()?.flatten(),
        };
        let late = state.as_ref().and_then(|state| plan::late(&job, state, now, &settings.host));
        let next = std::iter::successors(job.cron.next(now, &job.zone), |time| job.cron.next(*time, &job.zone));
        let next = next.take(NEXT_COUNT).collect();
        shown.push(Shown { job, state, next, late });
    }
    Ok((shown, has_daemon))
}

fn json_of(shown: &Shown) -> Value {
    let Shown { job, state, next, late } = shown;
    let state = state.as_ref();
    let open = state.and_then(|state| state.open.as_ref());
    let at = |wanted: fn(&Stage) -> Option<Timestamp>| open.and_then(|open| wanted(&open.stage)).map(time);
    json!({
        "stanza": job.key.stanza,
        "name": job.key.name,
        "command": job.command,
        "schedule": job.cron.to_string(),
        "time_zone": job.zone_name,
        "next": next.iter().copied().map(time).collect::<Vec<_>>(),
        "running_since": at(|stage| match stage { Stage::Started(at) => Some(*at), _ => None }),
        "retry_at": at(|stage| match stage { Stage::Retry(at) => Some(*at), _ => None }),
        "left_to_another_host": open.is_some_and(|open| matches!(open.stage, Stage::Elsewhere(_))),
        "last": state.and_then(|state| state.last.as_ref()).map(outcome_json),
        "success": state.and_then(|state| state.success.as_ref()).map(outcome_json),
        "failures": state.map_or(0, |state| state.failures),
        "late_since": late.map(time),
        "untold": state.map_or(0, |state| state.events.len()),
    })
}

fn text_of(shown: &[Shown], has_daemon: bool) -> String {
    if shown.is_empty() {
        return "No schedules exist in the configuration.\n".to_owned();
    }
    let mut text = String::new();
    for Shown { job, state, next, late } in shown {
        let local = |time: &Timestamp| time.to_zoned(job.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string();
        let never = || "never".to_owned();
        text += &format!("job: {}\n", job.key);
        text += &format!("    command: {}\n", job.command);
        text += &format!("    schedule: {}\n", job.schedule_text());
        text += &format!("    next run: {}\n", next.first().map_or_else(never, local));
        let open = state.as_ref().and_then(|state| state.open.as_ref());
        match open.map(|open| &open.stage) {
            Some(Stage::Started(at)) => text += &format!("    running since: {}\n", local(at)),
            Some(Stage::Retry(at)) => text += &format!("    retry at: {}\n", local(at)),
            Some(Stage::Elsewhere(_)) => {
                text += "    waits: for another host, or for an answer of the cluster or the repository\n"
            }
            Some(Stage::Stopped) => text += "    waits: for the daemon, which was stopped\n",
            None => (),
        }
        if let Some(last) = state.as_ref().and_then(|state| state.last.as_ref()) {
            let seconds = last.ended.duration_since(last.started).as_secs();
            text += &format!("    last result: {}, {}, {seconds}s", last.result.name(), local(&last.started));
            text += &last.error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
            text.push('\n');
        }
        let success = state.as_ref().and_then(|state| state.success.as_ref());
        text += &format!("    last success: {}\n", success.map_or_else(never, |success| local(&success.ended)));
        if let Some(late) = late {
            text += &format!("    late since: {}\n", local(late));
        }
        text.push('\n');
    }
    text += if has_daemon { "daemon: running\n" } else { "daemon: not running\n" };
    crate::render::control::visible_text(&text).into_owned()
}
