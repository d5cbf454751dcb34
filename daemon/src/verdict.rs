//! Decides whether a run is due on this host, if several hosts have the same schedule.
//!
//! A helper process (`schedule probe`) finds out what PostgreSQL and the repository say, so that a server that does not
//! answer holds up nothing.

use engine::{Error, ErrorCode, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::job::{Job, RunOn};
use crate::state::{JobState, Outcome, RunResult};

/// How much the clocks of two hosts may differ.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);
/// How long to wait until looking again whether it is still another host's turn.
const PAUSE_MIN: SignedDuration = SignedDuration::from_secs(60);
const PAUSE_MAX: SignedDuration = SignedDuration::from_secs(300);

/// The clusters of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterRole {
    /// There is none, as on a repository's host.
    None,
    /// One is a primary.
    Primary,
    /// All that can be reached are standbys.
    Standby,
    /// None can be reached.
    Unreachable,
}

const ROLES: [(&str, ClusterRole); 4] = [
    ("none", ClusterRole::None),
    ("primary", ClusterRole::Primary),
    ("standby", ClusterRole::Standby),
    ("unreachable", ClusterRole::Unreachable),
];

/// A backup in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBackup {
    /// Its label.
    pub label: String,
    /// When it started.
    pub started: Timestamp,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The clusters of this host.
    pub role: ClusterRole,
    /// The newest backup that would do for the job.
    pub backup: Option<FoundBackup>,
}

impl Probe {
    /// Returns the probe as the helper prints it.
    pub fn to_json(&self) -> Value {
        let role = ROLES.iter().find(|(_, role)| *role == self.role).map(|(name, _)| *name);
        let backup =
            self.backup.as_ref().map(|backup| json!({ "label": backup.label, "started": backup.started.as_second() }));
        json!({ "role": role, "backup": backup })
    }

    /// Parses the output of the helper.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`]
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::new(ErrorCode::JsonFormat, "the answer about cluster and repository is not valid");
        let value: Value = serde_json::from_str(text).map_err(|error| invalid().cause(error))?;
        let name = value.get("role").and_then(Value::as_str).ok_or_else(invalid)?;
        let role = ROLES.iter().find(|(known, _)| *known == name).map(|(_, role)| *role).ok_or_else(invalid)?;
        let backup = match value.get("backup") {
            None | Some(Value::Null) => None,
            Some(backup) => Some(FoundBackup {
                label: backup.get("label").and_then(Value::as_str).ok_or_else(invalid)?.to_owned(),
                started: backup
                    .get("started")
                    .and_then(Value::as_i64)
                    .and_then(|second| Timestamp::from_second(second).ok())
                    .ok_or_else(invalid)?,
            }),
        };
        Ok(Probe { role, backup })
    }
}

/// What to do with a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It runs here.
    Run,
    /// Another host has made this backup for it.
    Done(String),
    /// An earlier try of this run has made this backup, and something failed after it.
    Made(String),
    /// It is another host's turn, and nothing shows whether that host does it.
    NotHere,
    /// It is another host's turn. Look again at this time.
    Later(Timestamp),
    /// No local cluster answers, so nothing shows whose turn it is.
    Unclear,
}

/// Decides about the run for `due`.
pub fn decide(job: &Job, state: &JobState, probe: &Probe, due: Timestamp, now: Timestamp) -> Verdict {
    if let Some(backup) = probe.backup.as_ref().filter(|_| job.leaves_backup) {
        if interrupted_try(job, state, due).is_some_and(|run| has_made(run, backup.started)) {
            return Verdict::Made(backup.label.clone());
        }
        let is_new = backup.started >= due - tolerance(job, due) && !is_own(state, backup.started);
        // Without a condition each host makes its own
        if is_new && job.run_on != RunOn::Any {
            return Verdict::Done(backup.label.clone());
        }
    }
    let is_here = match (job.run_on, probe.role) {
        (RunOn::Any, _) | (_, ClusterRole::None) => true,
        (_, ClusterRole::Unreachable) => return Verdict::Unclear,
        (RunOn::Primary, role) => role == ClusterRole::Primary,
        (RunOn::Standby, role) => role == ClusterRole::Standby,
    };
    match (is_here, job.leaves_backup) {
        (true, _) => Verdict::Run,
        (false, false) => Verdict::NotHere,
        // The host whose turn it is may fail, and this one take its place
        (false, true) => {
            let pause = (now.duration_since(due) / 4).clamp(PAUSE_MIN, PAUSE_MAX);
            Verdict::Later(now + pause)
        }
    }
}

/// Returns an earlier try of the run for `due` that may have made a backup before it failed or was stopped. The command
/// expires after the backup, for instance.
pub fn interrupted_try<'a>(job: &Job, state: &'a JobState, due: Timestamp) -> Option<&'a Outcome> {
    let is_try = |run: &&Outcome| run.due == Some(due) && matches!(run.result, RunResult::Failure | RunResult::Stopped);
    state.last.as_ref().filter(|_| job.leaves_backup).filter(is_try)
}

/// Returns how much earlier than the time of the schedule a backup on another host may have started.
fn tolerance(job: &Job, due: Timestamp) -> SignedDuration {
    let before = job.cron.last(Timestamp::MIN, due - SignedDuration::from_secs(1), &job.zone);
    let period = before.map_or(SKEW_MAX, |before| due.duration_since(before));
    (period / 2).min(SKEW_MAX)
}

/// Returns whether a backup of this time is from an earlier run of the job on this host.
fn is_own(state: &JobState, started: Timestamp) -> bool {
    state.last.iter().chain(&state.success).any(|run| has_made(run, started))
}

/// Returns whether a backup of this time was made during the run. The times of backups are whole seconds.
fn has_made(run: &Outcome, started: Timestamp) -> bool {
    run.started - SignedDuration::from_secs(1) <= started && started <= run.ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Outcome, RunResult};
    use crate::testing::job;

    fn at(text: &str) -> Timestamp {
        format!("2026-06-01T{text}Z").parse().unwrap()
    }

    fn verdict(run_on: RunOn, role: ClusterRole, backup: Option<&str>, now: &str) -> Verdict {
        let mut job = job("demo", "nightly", "0 3 * * *");
        job.run_on = run_on;
        job.leaves_backup = true;
        let backup = backup.map(|time| FoundBackup { label: "label".to_owned(), started: at(time) });
        let state = JobState::new(String::new(), at("00:00:00"));
        decide(&job, &state, &Probe { role, backup }, at("03:00:00"), at(now))
    }

    #[test]
    fn backup_runs_where_the_primary_is() {
        use ClusterRole::{None as NoCluster, Primary, Standby, Unreachable};
        let now = "03:00:00";
        for (run_on, role, runs) in [
            (RunOn::Primary, Primary, true),
            (RunOn::Primary, Standby, false),
            (RunOn::Standby, Primary, false),
            (RunOn::Standby, Standby, true),
            (RunOn::Any, Standby, true),
            (RunOn::Primary, NoCluster, true),
            (RunOn::Standby, NoCluster, true),
            (RunOn::Any, Unreachable, true),
        ] {
            let expected = if runs { Verdict::Run } else { Verdict::Later(at("03:01:00")) };
            assert_eq!(verdict(run_on, role, None, now), expected, "{run_on:?} {role:?}");
        }
        for run_on in [RunOn::Primary, RunOn::Standby] {
            assert_eq!(verdict(run_on, Unreachable, None, now), Verdict::Unclear);
            assert_eq!(verdict(run_on, Unreachable, Some("03:00:05"), now), Verdict::Done("label".to_owned()));
        }
        // Each host makes its own
        assert_eq!(verdict(RunOn::Any, Primary, Some("03:00:05"), now), Verdict::Run);
    }

    #[test]
    fn standby_looks_again_until_the_backup_is_there_and_runs_once_it_is_the_primary() {
        let standby = |backup, now| verdict(RunOn::Primary, ClusterRole::Standby, backup, now);
        assert_eq!(standby(None, "03:10:00"), Verdict::Later(at("03:12:30")));
        assert_eq!(standby(None, "09:00:00"), Verdict::Later(at("09:05:00")));
        assert_eq!(standby(Some("02:00:00"), "03:10:00"), Verdict::Later(at("03:12:30")));
        assert_eq!(standby(Some("03:00:05"), "03:10:00"), Verdict::Done("label".to_owned()));
        // Another host's clock may be slow
        assert_eq!(standby(Some("02:59:10"), "03:10:00"), Verdict::Done("label".to_owned()));
        let primary = |backup| verdict(RunOn::Primary, ClusterRole::Primary, backup, "03:10:00");
        assert_eq!(primary(Some("02:00:00")), Verdict::Run);
        assert_eq!(primary(Some("03:00:05")), Verdict::Done("label".to_owned()));
    }

    #[test]
    fn command_that_leaves_no_backup_is_left_to_the_other_host() {
        let mut job = job("demo", "expire", "0 3 * * *");
        job.run_on = RunOn::Primary;
        let state = JobState::new(String::new(), at("00:00:00"));
        let backup = Some(FoundBackup { label: "label".to_owned(), started: at("03:00:00") });
        let decide = |role| {
            let probe = Probe { role, backup: backup.clone() };
            decide(&job, &state, &probe, at("03:00:00"), at("03:00:01"))
        };
        assert_eq!(decide(ClusterRole::Standby), Verdict::NotHere);
        assert_eq!(decide(ClusterRole::Primary), Verdict::Run);
    }

    #[test]
    fn own_backup_of_an_earlier_run_that_took_long_does_not_count() {
        let mut job = job("demo", "often", "*/10 * * * *");
        (job.run_on, job.leaves_backup) = (RunOn::Primary, true);
        let mut state = JobState::new(String::new(), at("00:00:00"));
        let found = |started| Probe {
            role: ClusterRole::Primary,
            backup: Some(FoundBackup { label: "label".to_owned(), started: at(started) }),
        };
        let verdict = |state: &JobState, started| decide(&job, state, &found(started), at("03:00:00"), at("03:06:00"));
        assert_eq!(verdict(&state, "03:01:00"), Verdict::Done("label".to_owned()));
        state.record(Outcome {
            result: RunResult::Success,
            due: Some(at("02:50:00")),
            started: at("03:00:59"),
            ended: at("03:05:00"),
            attempt: 1,
            missed: 0,
            exit_status: Some(0),
            error: None,
        });
        assert_eq!(verdict(&state, "03:01:00"), Verdict::Run);
    }

    #[test]
    fn backup_of_a_try_that_failed_after_it_is_not_made_again() {
        for run_on in [RunOn::Any, RunOn::Primary] {
            let mut job = job("demo", "nightly", "0 3 * * *");
            (job.run_on, job.leaves_backup) = (run_on, true);
            let mut state = JobState::new(String::new(), at("00:00:00"));
            state.record(Outcome {
                result: RunResult::Failure,
                due: Some(at("03:00:00")),
                started: at("03:00:00"),
                ended: at("03:05:00"),
                attempt: 1,
                missed: 0,
                exit_status: Some(55),
                error: None,
            });
            let verdict = |state: &JobState, started| {
                let backup = Some(FoundBackup { label: "label".to_owned(), started: at(started) });
                let probe = Probe { role: ClusterRole::Primary, backup };
                decide(&job, state, &probe, at("03:00:00"), at("03:10:00"))
            };
            assert_eq!(verdict(&state, "03:00:02"), Verdict::Made("label".to_owned()));
            assert_eq!(verdict(&state, "02:00:00"), Verdict::Run);
            // That of the day before
            state.last.as_mut().unwrap().due = Some(at("02:00:00"));
            assert_eq!(verdict(&state, "03:00:02"), Verdict::Run);
        }
    }

    #[test]
    fn probe_is_the_same_after_it_was_printed_and_parsed() {
        for (_, role) in ROLES {
            for backup in [None, Some(FoundBackup { label: "20260601-030000F".to_owned(), started: at("03:00:00") })] {
                let probe = Probe { role, backup };
                assert_eq!(Probe::parse(&probe.to_json().to_string()).unwrap(), probe);
            }
        }
        for bad in ["", "{}", r#"{"role":"king"}"#, r#"{"role":"none","backup":{"label":"x"}}"#] {
            assert_eq!(Probe::parse(bad).unwrap_err().code, ErrorCode::JsonFormat);
        }
    }
}
