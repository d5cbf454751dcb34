//! The command that runs: its begin and end lines.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use engine::ErrorCode;

use crate::config::{Config, opt};
use crate::identity::ProgramName;
use crate::log::{self, Level};

/// The command that runs, for its end line.
struct Running {
    name: String,
    level: Level,
    started: Instant,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

/// Records the running command, so that an end line is due from now on.
pub(crate) fn set(config: &Config, started: Instant) {
    let name = config.command().role_name(config.role());
    log::set_command(&name, config.find(opt::STANZA));
    let running = Running { name, level: level(config), started };
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
}

/// The level of begin and end lines.
fn level(config: &Config) -> Level {
    if config.command().decl().quiet { Level::Debug } else { Level::Info }
}

/// Logs the begin line of a command.
pub(crate) fn begin(config: &Config) {
    let level = level(config);
    if log::shows(level) {
        let name = config.command().role_name(config.role());
        let version = ProgramName::of(config.program()).version();
        let options = config.begin_text();
        log::line(level, &format!("{name} command begin {version}:{options}"));
    }
}

/// Logs the end line of the running command, if one has begun. `code` is the error that ended it.
pub(crate) fn end(code: Option<ErrorCode>) {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Running { name, level, started }) = running else { return };
    let outcome = match code {
        Some(code) => format!("aborted with exception [{:03}]", code.number()),
        None if log::has_timestamp() => format!("completed successfully ({}ms)", started.elapsed().as_millis()),
        None => "completed successfully".to_owned(),
    };
    let requests = engine::storage::network::request_counts();
    if !requests.is_empty() {
        // Counts include earlier commands of the process
        let counts: Vec<String> = requests.into_iter().map(|(method, count)| format!("{method} {count}")).collect();
        engine::debug!("storage requests: {}", counts.join(", "));
    }
    log::line(level, &format!("{name} command end: {outcome}"));
}

/// Returns whether the begin and end lines of the running command are logged at debug level.
pub(crate) fn is_quiet() -> bool {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.as_ref().is_some_and(|running| running.level > Level::Info)
}
