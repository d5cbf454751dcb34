//! What several tests need.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::cron::Cron;
use crate::job::{Hooks, Job, JobKey, RunOn, Webhook};

/// A job of the command `backup` in UTC, without retries, hooks and conditions.
pub(crate) fn job(stanza: &str, name: &str, schedule: &str) -> Job {
    Job {
        key: JobKey::new(stanza, name).unwrap(),
        command: "backup".to_owned(),
        arguments: vec![format!("--stanza={stanza}"), "backup".to_owned()],
        completion: None,
        helper: vec![format!("--stanza={stanza}"), "schedule".to_owned()],
        environment: Vec::new(),
        repos: vec![1],
        cron: Cron::parse(schedule).unwrap(),
        zone: TimeZone::UTC,
        zone_name: None,
        jitter: Duration::ZERO,
        retry: 0,
        retry_interval: Duration::from_secs(300),
        time_limit: None,
        catch_up: true,
        run_on: RunOn::Any,
        leaves_backup: false,
        hooks: Hooks::default(),
        hook_timeout: Duration::from_secs(60),
        webhook: Webhook::None,
        settings: Vec::new(),
        secret_mark: 0,
    }
}
