//! Writes log lines to standard output, standard error and the log file, in pgBackRest's formats (its
//! `src/common/log.c`).
//!
//! ```text
//! 2026-11-22 07:02:21.494 P00   INFO: message          standard output and file
//! INFO: message                                        standard error
//! ```
//!
//! With `--log-format=json` each line is an object instead, everywhere (`docs/output.md`).

mod json;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::log::kv::Key;
use ::log::{LevelFilter, Log, Metadata, Record};
use engine::log::{CODE, PROCESS, TARGET};
use engine::{Error, ErrorCode};

use crate::render::control::visible_text;

/// Mode of log files before the umask.
const FILE_MODE: u32 = 0o640;
const BANNER: &str = "-------------------PROCESS START-------------------\n";

/// The importance of a line, in pgBackRest's words. `log-level-*` options show this level and all above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is shown (only for options).
    Off,
    /// The command fails, or a part of it did.
    Error,
    /// Something that the operator should check.
    Warn,
    /// The steps of a command.
    Info,
    /// One line per file.
    Detail,
    /// For debugging.
    Debug,
    /// For debugging, with every call (only for options).
    Trace,
}

impl Level {
    /// Returns the level of a record.
    fn of(record: &Record<'_>) -> Self {
        match record.level() {
            ::log::Level::Error => Level::Error,
            ::log::Level::Warn => Level::Warn,
            ::log::Level::Info => Level::Info,
            ::log::Level::Debug => Level::Detail,
            ::log::Level::Trace => Level::Debug,
        }
    }

    /// Returns the filter for records of this level and above.
    fn filter(self) -> LevelFilter {
        match self {
            Level::Off => LevelFilter::Off,
            Level::Error => LevelFilter::Error,
            Level::Warn => LevelFilter::Warn,
            Level::Info => LevelFilter::Info,
            Level::Detail => LevelFilter::Debug,
            Level::Debug | Level::Trace => LevelFilter::Trace,
        }
    }
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As pgBackRest writes them.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Finds the format that the arguments of a process ask for, before they are parsed.
    pub fn of_arguments(args: &[OsString]) -> Self {
        let is_json = |args: &[OsString]| args[0] == "--log-format=json";
        let is_split = |args: &[OsString]| args[0] == "--log-format" && args[1] == "json";
        if args.windows(1).any(is_json) || args.windows(2).any(is_split) { LogFormat::Json } else { LogFormat::Text }
    }
}

/// The `log-*` options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least important level on standard output.
    pub console: Level,
    /// The least important level on standard error. Such lines do not also go to standard output.
    pub stderr: Level,
    /// The least important level in the log file.
    pub file: Level,
    /// Whether lines begin with the time.
    pub timestamp: bool,
    /// Digits of the process number: 2, or 3 with more than 99 workers.
    pub process_width: usize,
    /// Whether lines are marked as a dry run.
    pub dry_run: bool,
    /// How lines are written.
    pub format: LogFormat,
    /// Whether standard output is for a report, so that nothing else may go there.
    pub is_report: bool,
}

impl LogSettings {
    /// Until the command line is parsed: only errors, to standard error.
    pub const EARLY: LogSettings = LogSettings {
        console: Level::Error,
        stderr: Level::Error,
        file: Level::Off,
        timestamp: false,
        process_width: 2,
        dry_run: false,
        format: LogFormat::Text,
        is_report: false,
    };
    /// While the configuration is read, so that its warnings are shown.
    pub const PARSING: LogSettings = LogSettings { console: Level::Warn, stderr: Level::Off, ..Self::EARLY };
    /// The same if standard output is for a report.
    pub const PARSING_FOR_REPORT: LogSettings =
        LogSettings { console: Level::Off, stderr: Level::Warn, is_report: true, ..Self::EARLY };
}

/// The state of the log of this process.
struct LogOutput {
    settings: LogSettings,
    file: Option<File>,
    banner_written: bool,
    /// The live progress line, which is hidden while a log line is written.
    live: Option<indicatif::ProgressBar>,
    /// The command that runs and its stanza, for JSON.
    command: Option<String>,
    stanza: Option<String>,
}

static OUTPUT: Mutex<LogOutput> = Mutex::new(LogOutput {
    settings: LogSettings::EARLY,
    file: None,
    banner_written: false,
    live: None,
    command: None,
    stanza: None,
});

/// A thread that panicked while logging leaves the state valid.
fn output() -> MutexGuard<'static, LogOutput> {
    OUTPUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line of the log, without time.
#[derive(Debug, PartialEq, Eq)]
struct LogLine {
    level: Level,
    /// The worker that the line is about, 0 for the main thread.
    process: u32,
    /// The error number, for error lines.
    code: Option<ErrorCode>,
    /// The text, possibly of several lines.
    text: String,
}

impl LogLine {
    /// Returns the line of a record; `None` if the record is from another library, whose text may be secret.
    fn of(record: &Record<'_>) -> Option<Self> {
        if !is_own(record.metadata()) {
            return None;
        }
        let number = |key| record.key_values().get(Key::from_str(key)).and_then(|value| value.to_u64());
        Some(LogLine {
            level: Level::of(record),
            process: number(PROCESS).and_then(|process| u32::try_from(process).ok()).unwrap_or(0),
            code: number(CODE).and_then(|code| ErrorCode::from_number(u8::try_from(code).ok()?)),
            text: record.args().to_string(),
        })
    }

    /// A line of the main thread.
    fn of_main(level: Level, text: &str) -> Self {
        LogLine { level, process: 0, code: None, text: text.to_owned() }
    }
}

/// Receives the records of rbr's crates.
struct ProgramLog;

impl Log for ProgramLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_own(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(line) = LogLine::of(record) {
            output().write(&line, None);
        }
    }

    fn flush(&self) {}
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET
}

/// Starts logging with these settings, or changes them.
pub fn configure(settings: LogSettings) {
    // It fails if it was called before, which has the same effect
    let _ = ::log::set_logger(&ProgramLog);
    let mut output = output();
    output.settings = settings;
    ::log::set_max_level(output.level_max().filter());
}

/// Names the command that runs, and its stanza, for lines in JSON.
pub(crate) fn set_command(command: &str, stanza: Option<&str>) {
    let mut output = output();
    output.command = Some(command.to_owned());
    output.stanza = stanza.map(str::to_owned);
}

/// Reports panics as lines in JSON on standard error.
pub(crate) fn report_panics_as_json() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        let line = LogLine { code: Some(ErrorCode::Assert), ..LogLine::of_main(Level::Error, &text) };
        // The thread may have panicked while it held the lock of the output
        let (command, stanza) = match OUTPUT.try_lock() {
            Ok(output) => (output.command.clone(), output.stanza.clone()),
            Err(_) => (None, None),
        };
        let context = json::LineContext {
            command: command.as_deref(),
            stanza: stanza.as_deref(),
            dry_run: false,
            time: Some(json::now()),
        };
        let _ = io::stderr().lock().write_all(json::render(&line, &context, None).as_bytes());
    }));
}

/// Returns whether lines of this level are shown.
pub(crate) fn shows(level: Level) -> bool {
    level <= output().level_max()
}

/// Logs a line of the program itself, whose level depends on the command.
pub(crate) fn line(level: Level, text: &str) {
    output().write(&LogLine::of_main(level, text), None);
}

/// Opens the log file of a command and closes the previous one. Nothing is written to it before the first line. Returns
/// whether it succeeded. If not, it logs a warning, and there is no log file until a later command opens its own.
pub fn open_file(path: &str) -> bool {
    {
        let mut output = output();
        output.file = None;
        output.banner_written = false;
        if output.settings.file == Level::Off {
            return true;
        }
    }
    match OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path) {
        Ok(file) => {
            let mut output = output();
            output.file = Some(file);
            ::log::set_max_level(output.level_max().filter());
            true
        }
        Err(error) => {
            // "No such file or directory (os error 2)" without the number
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or(&text);
            engine::warn!("unable to open log file '{path}': {text}\nNOTE: process will continue without log file.");
            ::log::set_max_level(output().level_max().filter());
            false
        }
    }
}

/// Returns whether begin and end lines show the time.
pub fn has_timestamp() -> bool {
    output().settings.timestamp
}

/// Logs the error that ends the command. On outputs that show debug messages, `detail` follows the message.
pub fn error(error: &Error, detail: impl FnOnce() -> String) {
    let line = LogLine { code: Some(error.code), ..LogLine::of_main(Level::Error, &error.to_string()) };
    let mut output = output();
    let detail = (output.level_max() >= Level::Debug).then(detail);
    output.write(&line, detail.as_deref());
}

/// Logs that a signal ends the process, in text as a line without time and level.
pub fn signal(name: &str, quiet: bool) {
    let level = if quiet { Level::Debug } else { Level::Info };
    let text = format!("terminated on signal {name}");
    let mut output = output();
    match output.settings.format {
        LogFormat::Text => output.write_plain(level, &format!("{text}\n")),
        LogFormat::Json => {
            output.write(&LogLine { code: Some(ErrorCode::Term), ..LogLine::of_main(level, &text) }, None);
        }
    }
}

/// Shows a live line, or none. Log lines are written above it.
pub(crate) fn set_live(live: Option<indicatif::ProgressBar>) {
    output().live = live;
}

/// Returns whether standard output has no place for a live line: it is for a report or JSON, or shows a line per file,
/// between which it would flicker.
pub(crate) fn console_is_busy() -> bool {
    let settings = output().settings;
    settings.console >= Level::Detail || settings.is_report || settings.format == LogFormat::Json
}

impl LogOutput {
    fn level_max(&self) -> Level {
        let file = if self.file.is_some() { self.settings.file } else { Level::Off };
        self.settings.console.max(self.settings.stderr).max(file)
    }

    fn write(&mut self, line: &LogLine, detail: Option<&str>) {
        if line.level > self.level_max() {
            return;
        }
        match self.settings.format {
            LogFormat::Text => self.write_text(line, detail),
            LogFormat::Json => self.write_json(line, detail),
        }
    }

    fn write_json(&mut self, line: &LogLine, detail: Option<&str>) {
        let settings = self.settings;
        let render = |limit: Level| {
            let context = json::LineContext {
                command: self.command.as_deref(),
                stanza: self.stanza.as_deref(),
                dry_run: settings.dry_run,
                time: settings.timestamp.then(json::now),
            };
            json::render(line, &context, detail.filter(|_| limit >= Level::Debug))
        };
        if line.level <= settings.stderr {
            let text = render(settings.stderr.max(settings.console));
            self.above_live(|| io::stderr().lock().write_all(text.as_bytes()));
        } else if line.level <= settings.console {
            let text = render(settings.console);
            self.above_live(|| write_stdout(&text));
        }
        if line.level <= settings.file {
            let text = render(settings.file);
            self.write_file(&text);
        }
    }

    fn write_text(&mut self, line: &LogLine, detail: Option<&str>) {
        let settings = self.settings;
        let LogLine { level, process, code, ref text } = *line;
        let label = match (level, code) {
            (_, Some(ErrorCode::Assert)) => "ASSERT",
            (Level::Off, _) => "OFF",
            (Level::Error, _) => "ERROR",
            (Level::Warn, _) => "WARN",
            (Level::Info, _) => "INFO",
            (Level::Detail, _) => "DETAIL",
            (Level::Debug, _) => "DEBUG",
            (Level::Trace, _) => "TRACE",
        };
        let mut body = String::new();
        if let Some(code) = code {
            let _ = write!(body, "[{:03}]: ", code.number());
        }
        if settings.dry_run {
            body += "[DRY-RUN] ";
        }
        // Debug messages are indented further, continuation lines too
        let padding = match level {
            Level::Debug => "    ",
            Level::Trace => "        ",
            _ => "",
        };
        body += padding;
        body += &visible_text(text);
        let detail = detail.map(visible_text);
        let detail = detail.as_deref();

        let time = if settings.timestamp { now() } else { String::new() };
        let process = format!("P{process:0width$} ", width = settings.process_width);
        let head = format!("{time}{process}{label:>6}: ");
        let line = |detail: Option<&str>| {
            let detail = detail.map(|detail| format!("\n{detail}")).unwrap_or_default();
            indent(&head, &format!("{body}{detail}"), head.len() + padding.len())
        };

        let wants_detail = |limit: Level| detail.filter(|_| limit >= Level::Debug);
        if level <= settings.stderr {
            let head = format!("{label}: ");
            let shown = wants_detail(settings.stderr.max(settings.console));
            let detail = shown.map(|detail| format!("\n{detail}")).unwrap_or_default();
            let text = indent(&head, &format!("{body}{detail}"), head.len() + padding.len());
            self.above_live(|| io::stderr().lock().write_all(text.as_bytes()));
        } else if level <= settings.console {
            let text = line(wants_detail(settings.console));
            self.above_live(|| write_stdout(&text));
        }
        if level <= settings.file {
            let text = line(wants_detail(settings.file));
            self.write_file(&text);
        }
    }

    fn write_plain(&mut self, level: Level, text: &str) {
        if level <= self.settings.stderr {
            self.above_live(|| io::stderr().lock().write_all(text.as_bytes()));
        } else if level <= self.settings.console {
            self.above_live(|| write_stdout(text));
        }
        if level <= self.settings.file {
            self.write_file(text);
        }
    }

    fn write_file(&mut self, text: &str) {
        let Some(file) = &mut self.file else { return };
        let mut out = String::new();
        if !self.banner_written && self.settings.format == LogFormat::Text {
            self.banner_written = true;
            if file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
                out.push('\n');
            }
            out += BANNER;
        }
        out += text;
        // A full disk must not end a backup that could still succeed; the lines are on the console too
        let _ = file.write_all(out.as_bytes());
    }

    fn above_live(&self, write: impl FnOnce() -> io::Result<()>) {
        // Likewise: if the console is closed, nobody reads about it
        let _ = match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        };
    }
}

fn write_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Joins head and body, indents all lines after the first, and adds a line feed.
fn indent(head: &str, body: &str, width: usize) -> String {
    let mut text = String::with_capacity(head.len() + body.len() + 1);
    text += head;
    for (number, line) in body.split('\n').enumerate() {
        if number > 0 {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', width));
        }
        text += line;
    }
    text.push('\n');
    text
}

/// The local time with milliseconds and a blank.
fn now() -> String {
    let now = jiff::Timestamp::now().to_zoned(engine::time_zone::local().clone());
    now.strftime("%Y-%m-%d %H:%M:%S%.3f ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_a_worker_has_its_number_and_pgbackrests_level() {
        let pairs = [(PROCESS, 3)];
        let mut record = Record::builder();
        record.target(TARGET).key_values(&pairs);
        for (facade, own) in [(::log::Level::Warn, Level::Warn), (::log::Level::Debug, Level::Detail)] {
            let line = LogLine::of(&record.level(facade).args(format_args!("file")).build());
            assert_eq!(line, Some(LogLine { process: 3, ..LogLine::of_main(own, "file") }));
        }
    }

    #[test]
    fn record_of_an_error_has_its_number() {
        let pairs = [(CODE, ErrorCode::FileMissing.number())];
        let line = LogLine::of(
            &Record::builder()
                .target(TARGET)
                .level(::log::Level::Error)
                .key_values(&pairs)
                .args(format_args!("gone"))
                .build(),
        );
        let wanted = LogLine { code: Some(ErrorCode::FileMissing), ..LogLine::of_main(Level::Error, "gone") };
        assert_eq!(line, Some(wanted));
    }

    #[test]
    fn record_of_another_library_is_dropped() {
        let record = Record::builder().target("rustls").level(::log::Level::Error).args(format_args!("secret")).build();
        assert_eq!(LogLine::of(&record), None);
    }

    #[test]
    fn filter_lets_every_level_of_records_through_that_is_shown() {
        let shown = |level: Level| {
            let passes = |record: &::log::Level| *record <= level.filter();
            ::log::Level::iter().filter(passes).count()
        };
        let levels = [Level::Off, Level::Error, Level::Warn, Level::Info, Level::Detail, Level::Debug, Level::Trace];
        assert_eq!(levels.map(shown), [0, 1, 2, 3, 4, 5, 5]);
    }

    #[test]
    fn indent_moves_lines_after_the_first() {
        assert_eq!(indent("P00   WARN: ", "a\nHINT: b", 12), "P00   WARN: a\n            HINT: b\n");
    }

    #[test]
    fn now_has_milliseconds() {
        let time = now();
        assert_eq!(time.len(), "2026-11-22 07:02:21.494 ".len(), "{time}");
        assert_eq!(&time[19..20], ".");
    }

    #[test]
    fn log_file_that_cannot_be_opened_is_tried_again_for_the_next_command() {
        let dir = tempfile::tempdir().unwrap();
        configure(LogSettings { console: Level::Off, stderr: Level::Off, file: Level::Info, ..LogSettings::EARLY });
        assert!(!open_file(&format!("{}/missing/demo-backup.log", dir.path().display())));
        let path = dir.path().join("demo-expire.log");
        assert!(open_file(path.to_str().unwrap()));
        assert!(path.exists());
        output().file = None;
        configure(LogSettings::EARLY);
    }
}
