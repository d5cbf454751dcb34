//! The command line of rbr: options, configuration, help, log lines and exit codes.
//!
//! Every option is declared once (see [`config::options`]). Each command is one file in [`mod@command`] that converts
//! the configuration to settings of the engine and shows the result.

pub mod allocator;
mod archive;
mod collect;
pub mod command;
pub mod config;
pub mod docs;
pub mod exit;
pub mod help;
pub mod identity;
mod init;
mod jobs;
pub mod lifecycle;
pub mod log;
mod monitor_server;
pub mod object_store;
pub mod pg;
pub mod progress;
mod remote;
pub mod render;
pub mod repos;
mod running;
pub mod serve;
#[doc(hidden)]
pub mod server;
pub mod sftp_store;
mod summary;
mod throttle;
mod wal_command;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use engine::{Error, ErrorCode, Result};

use config::copy::ConfigCopy;
use config::{CommandLine, ConfigFiles, Environment, SystemFiles};
use log::{LogFormat, LogSettings};

pub use config::{Command, Config, Role, Source, opt};
pub use exit::{ExitStatus, cancel_token};

/// Writes a text to standard output and flushes it.
///
/// # Errors
/// [`ErrorCode::FileWrite`]
pub fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::from_io(ErrorCode::FileWrite, "unable to write to stdout", error))
}

/// Runs the program with these arguments, the first of which is its path, and returns the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let started = Instant::now();
    let mut args: Vec<OsString> = args.into_iter().collect();
    let format = LogFormat::of_arguments(&args);
    log::configure(LogSettings { format, ..LogSettings::EARLY });
    if format == LogFormat::Json {
        log::report_panics_as_json();
    }
    if let Some(status) = docs::run_if_asked(&args) {
        return exit::finish(status, None);
    }
    if args.is_empty() {
        args.push(OsString::from("rbr"));
    }
    summary::begin_of_arguments(&args);
    let mut config = match resolve(args, format) {
        Ok(config) => config,
        Err(error) => return exit::finish(Err(error), None),
    };
    summary::begin(&config);
    // Help and version have no log, and a signal may interrupt them anywhere
    let prepared = match config.command() {
        Command::Help | Command::Version => Ok(()),
        _ => lifecycle::start(&mut config, started),
    };
    // The command ends here, so nothing continues with state that a panic left incomplete
    let run = AssertUnwindSafe(|| prepared.and_then(|()| command::run(&config)));
    let outcome = catch_unwind(run).unwrap_or_else(|panic| Err(exit::panicked(&*panic)));
    exit::finish(outcome, Some(&config))
}

fn resolve(args: Vec<OsString>, format: LogFormat) -> Result<Config> {
    let line = CommandLine::parse(args)?;
    log::set_command(&line.command().role_name(line.role()), None);
    summary::begin_of_line(&line);
    if line.role() == Role::Main {
        // Standard output may be for a summary only
        let settings = if summary::has_begun() { LogSettings::PARSING_FOR_REPORT } else { LogSettings::PARSING };
        log::configure(LogSettings { format, ..settings });
    }
    let environment = Environment::from_process();
    let copy = config_copy(&line)?;
    let files: &dyn ConfigFiles = copy.as_ref().map_or(&SystemFiles, |copy| copy);
    Config::resolve(line, environment, files, &mut |text| engine::warn!("{text}"))
}

/// Returns the configuration that the daemon passes on, if it does. If somebody has removed it, the files are better than
/// no backup.
fn config_copy(line: &CommandLine) -> Result<Option<ConfigCopy>> {
    let Some(path) = line.value_of(opt::CONFIG_COPY.decl()) else { return Ok(None) };
    let copy = ConfigCopy::read(std::path::Path::new(path))?;
    if copy.is_none() {
        engine::warn!("the daemon's copy of the configuration '{path}' is gone, so the files are read");
    }
    Ok(copy)
}
