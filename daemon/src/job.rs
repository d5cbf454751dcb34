//! A job: what runs, and when.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use engine::{Error, ErrorCode, Result};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::cron::Cron;

/// The longest name of a job in bytes. The name is part of file names.
const NAME_SIZE_MAX: usize = 64;
/// The longest pause before a failed job is tried again.
pub(crate) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Identifies a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The stanza.
    pub stanza: String,
    /// The name in the section's title.
    pub name: String,
}

impl JobKey {
    /// Checks that stanza and name can be part of a file's name.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalidValue`]
    pub fn new(stanza: &str, name: &str) -> Result<Self> {
        let is_plain = |text: &str| {
            (1..=NAME_SIZE_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                && !text.starts_with('.')
        };
        for (what, text) in [("stanza", stanza), ("schedule", name)] {
            if !is_plain(text) {
                let text = format!("'{text}' is not a valid name of a {what}");
                return Err(Error::new(ErrorCode::OptionInvalidValue, text).hint(format!(
                    "a name has up to {NAME_SIZE_MAX} letters, digits, '-', '_' and '.', and begins with no '.'."
                )));
            }
        }
        Ok(JobKey { stanza: stanza.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stanza, self.name)
    }
}

/// On which of several hosts with the same schedule a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOn {
    /// On each.
    Any,
    /// On the host of the primary.
    Primary,
    /// On the host of a standby.
    Standby,
}

/// Which results go to the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// There is no webhook.
    None,
    /// Failures only.
    Failures,
    /// Every result.
    Results,
}

/// Commands that run around a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the job. If it fails, the job does not run.
    pub before: Option<String>,
    /// After the job, whatever its result.
    pub after: Option<String>,
    /// After a job that failed, following [`Hooks::after`].
    pub failure: Option<String>,
}

/// A command that completes a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The command.
    pub command: String,
    /// The arguments of the program, with the command.
    pub arguments: Vec<String>,
}

/// A job.
#[derive(Clone)]
pub struct Job {
    /// Its identity.
    pub key: JobKey,
    /// The command.
    pub command: String,
    /// The arguments of the program, with the command.
    pub arguments: Vec<String>,
    /// What completes a run whose backup was made, although its command failed after that; `None` if nothing does.
    pub completion: Option<Completion>,
    /// The arguments for helpers of the daemon, such as the webhook, up to the command `schedule`.
    pub helper: Vec<String>,
    /// Secret options, as variables of the environment.
    pub environment: Vec<(String, String)>,
    /// The repositories that it uses. Jobs of the same stanza that share one do not overlap.
    pub repos: Vec<u32>,
    /// When it is due.
    pub cron: Cron,
    /// The time zone of [`Job::cron`].
    pub zone: TimeZone,
    /// Its name, if it is not the time zone of the host.
    pub zone_name: Option<String>,
    /// The maximum of a random delay.
    pub jitter: Duration,
    /// How often it is tried again after a failure.
    pub retry: u32,
    /// The pause before the first retry. It doubles with each one.
    pub retry_interval: Duration,
    /// The longest time that it may take.
    pub time_limit: Option<Duration>,
    /// Whether a run that was missed is made up for.
    pub catch_up: bool,
    /// Where it runs.
    pub run_on: RunOn,
    /// Whether the repository shows that another host has done it.
    pub leaves_backup: bool,
    /// Commands around it.
    pub hooks: Hooks,
    /// The longest time that a hook may take.
    pub hook_timeout: Duration,
    /// What goes to the webhook.
    pub webhook: Webhook,
    /// The settings as text, without secrets, to tell what a reload changes.
    pub settings: Vec<(String, String)>,
    /// Stands for secret settings in comparisons.
    pub secret_mark: u64,
    /// A locked file that its processes need. A run keeps it locked until its end, also after a reload.
    pub holds: Option<Arc<File>>,
}

impl Job {
    /// Adds an argument for all processes of the job that are this program.
    pub fn add_argument(&mut self, argument: &str) {
        let completion = self.completion.iter_mut().map(|completion| &mut completion.arguments);
        for arguments in completion.chain([&mut self.arguments, &mut self.helper]) {
            // The command is last
            arguments.insert(0, argument.to_owned());
        }
    }

    /// Returns the schedule with its time zone, as text.
    pub fn schedule_text(&self) -> String {
        match &self.zone_name {
            Some(name) => format!("{} ({name})", self.cron),
            None => self.cron.to_string(),
        }
    }

    /// Returns how long after its time a run starts. It depends on the host, so that not all hosts with the same schedule
    /// start at once, and is the same after a restart of the daemon.
    pub fn delay(&self, due: Timestamp, host: &str) -> SignedDuration {
        let jitter_ms = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        if jitter_ms == 0 {
            return SignedDuration::ZERO;
        }
        let mut hasher = DefaultHasher::new();
        (host, &self.key, due.as_millisecond()).hash(&mut hasher);
        SignedDuration::from_millis(i64::try_from(hasher.finish() % jitter_ms).unwrap_or(0))
    }

    /// Returns the pause after the failure of this attempt, the first of which is 1.
    pub fn retry_pause(&self, attempt: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.retry_interval.saturating_mul(doubled).min(RETRY_PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::job;

    #[test]
    fn name_that_leads_to_another_file_is_refused() {
        for name in ["", "..", ".a", "a/b", "a b", "ä", "a\0", &"a".repeat(65)] {
            assert_eq!(JobKey::new("demo", name).unwrap_err().code, ErrorCode::OptionInvalidValue, "{name}");
            assert!(JobKey::new(name, "nightly").is_err(), "{name}");
        }
        assert_eq!(JobKey::new("demo", "full-1_a.b").unwrap().to_string(), "demo/full-1_a.b");
    }

    #[test]
    fn delay_is_below_the_jitter_and_differs_between_hosts_and_runs() {
        let mut job = job("demo", "nightly", "0 3 * * *");
        let due = |day: i64| Timestamp::from_second(day * 86_400).unwrap();
        assert_eq!(job.delay(due(1), "a"), SignedDuration::ZERO);
        job.jitter = Duration::from_secs(600);
        let delays: Vec<_> = (0..50).flat_map(|day| ["a", "b"].map(|host| job.delay(due(day), host))).collect();
        assert!(delays.iter().all(|delay| (0..600_000).contains(&delay.as_millis())));
        assert!(delays.iter().max().unwrap().as_secs() > 500 && delays.iter().min().unwrap().as_secs() < 100);
        assert_ne!(job.delay(due(1), "a"), job.delay(due(1), "b"));
        assert_eq!(job.delay(due(1), "a"), job.delay(due(1), "a"));
    }

    #[test]
    fn pauses_between_retries_double_up_to_a_day() {
        let mut job = job("demo", "nightly", "0 3 * * *");
        job.retry_interval = Duration::from_secs(300);
        let pauses = [1, 2, 3, 9, 40].map(|attempt| job.retry_pause(attempt).as_secs());
        assert_eq!(pauses, [300, 600, 1200, 76_800, 86_400]);
    }
}
