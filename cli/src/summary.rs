//! What a command did, as one JSON object on standard output (`--output=json`), described in `docs/output.md`.
//!
//! Commands add members while they run. The object is printed when the process ends, however it ends.

use std::ffi::OsString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::{Error, Result};
use serde_json::{Map, Value, json};

use crate::config::decl::{COMMANDS, OptionDecl};
use crate::config::{Command, CommandLine, Config, opt};
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
    let is_json = args.iter().any(|arg| arg == "--output=json")
        || args.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    let is_plan = args.iter().any(|arg| arg == "--plan" || arg == "--report" || arg == "help");
    let names = COMMANDS.iter().filter(|decl| has_summary(decl.command)).map(|decl| decl.name);
    let mut found = names.filter(|name| args.iter().any(|arg| arg == name));
    if let (true, false, Some(name)) = (is_json, is_plan, found.next()) {
        begin_with(name, None);
    }
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
