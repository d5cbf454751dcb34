//! What a command did, as one JSON object on standard output (`--output=json`), described in `docs/output.md`.
//!
//! Commands add members while they run. The object is printed when the process ends, however it ends.

use std::ffi::OsString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::{Error, Result};
use serde_json::{Map, Value, json};

use crate::config::decl::{COMMANDS, OptionDecl, ValueKind};
use crate::config::options::ALL;
use crate::config::{Command, CommandLine, Config, NameMatch, find_option, opt};
use crate::render::control::valid_json;

/// The object, if it was asked for and is not printed yet.
static SUMMARY: Mutex<Option<Map<String, Value>>> = Mutex::new(None);

fn summary() -> MutexGuard<'static, Option<Map<String, Value>>> {
    SUMMARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether the command prints a summary. Some commands have output of their own in JSON instead.
pub(crate) fn is_wanted(config: &Config) -> bool {
    !config.is_help()
        && config.find(opt::OUTPUT) == Some("json")
        && has_summary(config.command())
        && config.find(opt::PLAN) != Some(true)
        && config.find(opt::REPORT) != Some(true)
}

fn has_summary(command: Command) -> bool {
    command == Command::Verify || opt::OUTPUT.decl().own_commands.has(command)
}

/// Begins the summary of a command whose arguments were not parsed yet, if they ask for one. So there is one if they are
/// not valid.
pub(crate) fn begin_of_arguments(args: &[OsString]) {
    if let Some(name) = command_of_arguments(args) {
        begin_with(name, None);
    }
}

/// Returns the command, if its arguments ask for a summary. The word after an option that takes a value may be its value.
fn command_of_arguments(args: &[OsString]) -> Option<&'static str> {
    let (mut is_json, mut command) = (false, None);
    let mut args = args.iter().skip(1).map(|arg| arg.to_string_lossy()).peekable();
    while let Some(arg) = args.next() {
        match arg.strip_prefix("--") {
            Some("") => break,
            Some("plan" | "report") => return None,
            Some("output=json") => is_json = true,
            Some("output") => is_json |= args.next().is_some_and(|value| value == "json"),
            Some(option) if takes_word(option) => drop(args.next()),
            Some(_) => (),
            // What follows the command are its parameters and options
            None if command.is_none() => {
                command = Some(COMMANDS.iter().find(|decl| decl.name == arg && has_summary(decl.command))?.name);
            }
            None => (),
        }
    }
    command.filter(|_| is_json)
}

/// Returns whether the value of an option is the next argument.
fn takes_word(option: &str) -> bool {
    let found = find_option(option, NameMatch::Prefix).ok().flatten();
    found.is_some_and(|found| {
        let decl = ALL[found.option];
        let is_flag = decl.kind == ValueKind::Boolean || decl.bool_like;
        !option.contains('=') && !is_flag && !found.negate && !found.reset
    })
}

/// Begins the summary of a command whose options are not resolved yet.
pub(crate) fn begin_of_line(line: &CommandLine) {
    let sets = |decl: &OptionDecl| !line.arguments_of(decl).is_empty();
    let is_json = line.arguments_of(opt::OUTPUT.decl()) == ["--output=json"];
    let is_summary = has_summary(line.command()) && !line.is_help();
    if is_summary && is_json && !sets(opt::PLAN.decl()) && !sets(opt::REPORT.decl()) {
        begin_with(line.command().name(), None);
    } else {
        *summary() = None;
    }
}

/// Begins the summary of a command, if it prints one.
pub(crate) fn begin(config: &Config) {
    if is_wanted(config) {
        begin_with(config.command().name(), config.find(opt::STANZA));
    } else {
        *summary() = None;
    }
}

fn begin_with(command: &str, stanza: Option<&str>) {
    let mut begun = Map::new();
    begun.insert("command".to_owned(), json!(command));
    begun.insert("stanza".to_owned(), json!(stanza));
    // Replaced at the end
    begun.insert("status".to_owned(), Value::Null);
    begun.insert("error".to_owned(), Value::Null);
    *summary() = Some(begun);
}

/// Returns whether a summary will be printed.
pub(crate) fn has_begun() -> bool {
    summary().is_some()
}

/// Adds what a command did. `render` is called only if the summary is printed.
pub(crate) fn add(name: &str, render: impl FnOnce() -> Value) {
    if let Some(begun) = &mut *summary() {
        begun.insert(name.to_owned(), render());
    }
}

/// Adds an item to a list of what a command did.
pub(crate) fn push(name: &str, render: impl FnOnce() -> Value) {
    if let Some(begun) = &mut *summary() {
        match begun.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(items) => items.push(render()),
            other => *other = render(),
        }
    }
}

/// Prints the summary of a command that ended, with the error that ended it.
///
/// # Errors
/// [`ErrorCode::FileWrite`](engine::ErrorCode::FileWrite)
pub(crate) fn end(error: Option<&Error>) -> Result<()> {
    let Some(mut ended) = summary().take() else { return Ok(()) };
    ended.insert("status".to_owned(), json!(if error.is_some() { "error" } else { "ok" }));
    ended.insert("error".to_owned(), error.map_or(Value::Null, error_json));
    let text = format!("{}\n", Value::Object(ended));
    crate::print(&valid_json(&text))
}

fn error_json(error: &Error) -> Value {
    json!({
        "code": error.code.number(),
        "name": error.code.name(),
        "message": error.message,
        "hints": error.hints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn value_of_an_option_is_not_taken_for_the_command() {
        let command = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            command_of_arguments(&args)
        };
        assert_eq!(command("rbr --output=json --stanza=demo backup"), Some("backup"));
        assert_eq!(command("rbr --stanza backup --output json expire"), Some("expire"));
        assert_eq!(command("rbr --stanza backup --output=json info"), None);
        assert_eq!(command("rbr --no-online --delta backup --output=json --stanza check"), Some("backup"));
        assert_eq!(command("rbr --repo1-path restore verify --output=json"), Some("verify"));
        assert_eq!(command("rbr restore --output=json --plan"), None);
        assert_eq!(command("rbr help backup --output=json"), None);
        assert_eq!(command("rbr backup --output=text"), None);
        // What is not valid is still a command that failed
        assert_eq!(command("rbr backup --output=json --unknown"), Some("backup"));
        assert_eq!(command("rbr"), None);
    }

    #[test]
    fn only_json_of_commands_without_json_of_their_own_is_a_summary() {
        let wanted = |line: &str| is_wanted(&resolved(line));
        assert!(wanted("backup --stanza=demo --pg1-path=/pg --output=json"));
        assert!(wanted("verify --stanza=demo --output=json"));
        assert!(wanted("restore --stanza=demo --pg1-path=/pg --output=json"));
        assert!(!wanted("restore --stanza=demo --pg1-path=/pg --output=json --plan"));
        assert!(!wanted("check --report --output=json"));
        assert!(!wanted("backup --stanza=demo --pg1-path=/pg"));
        assert!(!wanted("verify --stanza=demo --output=text"));
        assert!(!wanted("info --output=json"));
    }
}
