//! What surrounds every command: process settings, the log, begin and end lines.

use std::time::Instant;

use engine::{Error, ErrorCode, Result};

use crate::config::{Command, Config, Role, Source, opt};
use crate::log::{self, Level, LogFormat, LogSettings};
use crate::{exit, running, summary};

/// Prepares the process for a command (log, user, umask, priority, id) and logs the begin line. `started` is when the
/// process started.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`] if root is not allowed, [`ErrorCode::FeatureNotSupported`], [`ErrorCode::Kernel`], and
/// the errors of [`Config::adjust`].
pub fn start(config: &mut Config, started: Instant) -> Result<()> {
    configure_log(config);
    if config.is_help() {
        return config.adjust();
    }
    running::set(config, started);
    match (config.command(), config.role()) {
        // It ends its jobs first
        (Command::Daemon, _) => (),
        (Command::Schedule, _) if config.params().first().is_some_and(|word| word == "run") => (),
        // init may wait for an answer
        (Command::ArchivePush | Command::ArchiveGet | Command::Init, Role::Main) => exit::end_on_signals()?,
        // Its signals do not only end it
        (Command::Server, _) => {}
        _ => exit::catch_signals()?,
    }
    check_root(config)?;
    if let Some(path) = config.find(opt::JOB_FILE) {
        daemon::trace::begin(std::path::Path::new(path))?;
    }
    if config.find(opt::NEUTRAL_UMASK) == Some(true) {
        rustix::process::umask(rustix::fs::Mode::empty());
    }
    if config.source(opt::PRIORITY) != Source::Default
        && let Some(priority) = config.find(opt::PRIORITY)
    {
        set_priority(priority)?;
    }
    open_log_file(config);
    if config.is_valid(opt::EXEC_ID.decl()) && config.find(opt::EXEC_ID).is_none() {
        config.set_text(opt::EXEC_ID, engine::lock::new_exec_id()?, Source::CommandLine);
    }
    running::begin(config);
    // After the begin line, so that the log shows what was requested
    config.adjust()
}

/// Sets up the log as the options say.
pub(crate) fn configure_log(config: &Config) {
    log::configure(log_settings(config));
}

fn log_settings(config: &Config) -> LogSettings {
    let level = |option| config.find(option).map_or(Level::Off, level_of);
    let (console, stderr) = (level(opt::LOG_LEVEL_CONSOLE), level(opt::LOG_LEVEL_STDERR));
    // Log lines would make what a program reads from standard output unreadable
    let is_report = match config.command() {
        Command::Schedule => config.params().first().is_none_or(|word| word != "run"),
        Command::Metrics => true,
        Command::TestRestore => config.find(opt::OUTPUT) == Some("json"),
        Command::Check => config.find(opt::DIAGNOSE) == Some("json") || summary::is_wanted(config),
        _ => summary::is_wanted(config),
    };
    let (console, stderr) = if is_report { (Level::Off, stderr.max(console)) } else { (console, stderr) };
    LogSettings {
        console,
        stderr,
        file: level(opt::LOG_LEVEL_FILE),
        timestamp: config.find(opt::LOG_TIMESTAMP).unwrap_or(true),
        process_width: if config.find(opt::PROCESS_MAX).unwrap_or(1) > 99 { 3 } else { 2 },
        dry_run: config.find(opt::DRY_RUN).unwrap_or(false),
        format: if config.find(opt::LOG_FORMAT) == Some("json") { LogFormat::Json } else { LogFormat::Text },
        is_report,
    }
}

/// The level of a word that the option allows.
fn level_of(word: &str) -> Level {
    match word {
        "off" => Level::Off,
        "error" => Level::Error,
        "warn" => Level::Warn,
        "info" => Level::Info,
        "detail" => Level::Detail,
        "debug" => Level::Debug,
        _ => Level::Trace,
    }
}

/// Refuses root unless it is allowed. Files that root creates are the usual reason why later commands of the right user
/// fail.
fn check_root(config: &Config) -> Result<()> {
    if config.is_help() || config.find(opt::ALLOW_ROOT) != Some(false) || !rustix::process::getuid().is_root() {
        return Ok(());
    }
    let text = format!("the '{}' command must not be run as the root user", config.command().name());
    Err(Error::new(ErrorCode::OptionInvalid, text)
        .hint("running as root can create files that the regular user cannot access, causing later commands to fail.")
        .hint("set the 'allow-root' option to allow running this command as root."))
}

fn set_priority(priority: i64) -> Result<()> {
    // The option's range fits
    let priority = i32::try_from(priority).unwrap_or(0);
    rustix::process::setpriority_process(None, priority)
        .map_err(|error| Error::from_io(ErrorCode::Kernel, "unable to set process priority", error.into()))
}

/// Opens the log file if the command has one. If that fails, the option is set accordingly.
pub(crate) fn open_log_file(config: &mut Config) {
    // Asynchronous archiving logs to a file although the command does not
    let wanted = config.command().decl().log_file
        || config.role() == Role::Async
        // The command on the other host asks for it, if its processes have log files of their own
        || config.role() == Role::Remote && config.source(opt::LOG_LEVEL_FILE) == Source::CommandLine;
    if wanted
        && !config.is_help()
        && let Some(path) = log_file_name(config)
        && !log::open_file(&path)
    {
        config.set_text(opt::LOG_LEVEL_FILE, "off".to_owned(), Source::CommandLine);
    }
}

/// `<log-path>/<stanza or all>-<command>[-async][-role][-NNN].log`
fn log_file_name(config: &Config) -> Option<String> {
    log_file_name_of(config, config.role())
}

/// Like [`log_file_name`], for the process of this command in another role.
pub(crate) fn log_file_name_of(config: &Config, role: Role) -> Option<String> {
    let is_child = matches!(role, Role::Local | Role::Remote);
    let mut name = format!(
        "{}/{}-{}",
        config.find(opt::LOG_PATH)?,
        config.find(opt::STANZA).unwrap_or("all"),
        config.command().name()
    );
    if is_child && config.find(opt::ARCHIVE_ASYNC) == Some(true) {
        name += "-async";
    }
    if let Some(role) = role.name() {
        name += &format!("-{role}");
    }
    if is_child {
        name += &format!("-{:03}", config.find(opt::PROCESS).unwrap_or(0));
    }
    Some(name + ".log")
}

/// Continues with another command in the same process, as backup does with expire: ends the current command, begins the
/// other with its own log file, and returns its options.
pub fn switch(config: &Config, command: Command) -> Config {
    running::end(None);
    let mut next = config.with_command(command);
    running::set(&next, Instant::now());
    open_log_file(&mut next);
    running::begin(&next);
    next
}
