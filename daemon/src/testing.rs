//! What several tests need.

use std::cell::RefCell;
use std::time::Duration;

use engine::log::facade;
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
        holds: None,
    }
}

thread_local! {
    /// The log lines of this thread.
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the lines of each thread, since tests run side by side.
struct LineLog;

impl facade::Log for LineLog {
    fn enabled(&self, _: &facade::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &facade::Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Runs something and returns what this thread logged meanwhile.
pub(crate) fn log_lines(run: impl FnOnce()) -> Vec<String> {
    // Another test may have set it
    let _ = facade::set_logger(&LineLog);
    facade::set_max_level(facade::LevelFilter::Debug);
    LINES.set(Vec::new());
    run();
    LINES.take()
}
