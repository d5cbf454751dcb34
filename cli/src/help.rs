//! Help in pgBackRest's layout (its `src/command/help/help.c`), which shell completion parses. The texts are those of
//! the declarations.

mod advice;
mod more;

use std::fmt::Write as _;

use engine::{Error, ErrorCode, Result};

use crate::config::decl::{COMMANDS, DefaultValue, HelpGroup, OptionDecl, Range, Support, ValueKind};
use crate::config::options::ALL;
use crate::config::{Command, Config, NameMatch, Role, find_option, opt, suggest};
use crate::identity::ProgramName;

/// Columns of a line.
const WIDTH: usize = 80;
/// The mark in a description where the allowed values stand.
const VALUES: &str = "{values}";
/// Shown for an option whose value or default differs between indexes.
const MULTI: &str = "<multi>";

/// Renders the help that the configuration asks for.
///
/// # Errors
/// [`ErrorCode::ParamInvalid`] for more than one option, [`ErrorCode::OptionInvalid`] for an option that the command
/// does not know.
pub fn render(config: &Config) -> Result<String> {
    let identity = ProgramName::of(config.program());
    if !config.is_help() {
        if config.find(opt::VERSION) == Some(true) && config.find(opt::HELP) != Some(true) {
            return Ok(format!("{}\n", identity.version_line()));
        }
        return Ok(general(identity));
    }
    match config.params() {
        [] => Ok(of_command(config, identity)),
        [name] => of_option(config, identity, name),
        _ => Err(Error::new(ErrorCode::ParamInvalid, "only one option allowed for option help")),
    }
}

/// The list of commands.
fn general(identity: ProgramName) -> String {
    let shown = || COMMANDS.iter().filter(|decl| !decl.internal);
    let width = shown().map(|decl| decl.name.len()).max().unwrap_or(0);
    let mut text = format!("{} - General help\n\nUsage:\n", identity.title());
    let _ = write!(text, "    {} [options] [command]\n\nCommands:\n", identity.program());
    for decl in shown() {
        let summary = list_summary(decl.summary);
        let _ = writeln!(text, "    {:width$}  {}", decl.name, wrap(&summary, width + 6, false));
    }
    let _ = write!(text, "\nUse '{} help [command]' for more information.\n", identity.program());
    text
}

/// A command with the list of its options.
fn of_command(config: &Config, identity: ProgramName) -> String {
    let command = config.command();
    let decl = command.decl();
    let mut detail = decl.detail.to_owned();
    if decl.internal {
        detail += "\n\nFOR INTERNAL USE ONLY. DO NOT USE IN PRODUCTION.";
    }
    let mut text = format!(
        "{} - '{}' command help\n\n{}\n\n{}\n",
        identity.title(),
        decl.name,
        wrap(decl.summary, 0, true),
        wrap(&detail, 0, true)
    );

    let shown: Vec<&OptionDecl> = options_of(command).filter(|option| !option.internal_for(command)).collect();
    let width = shown.iter().map(|option| option.name.len()).max().unwrap_or(0);
    for group in HelpGroup::ALL {
        let mut of_group = shown.iter().filter(|option| option.help == group).peekable();
        if of_group.peek().is_some() {
            let _ = write!(text, "\n{} Options:\n\n", group.title());
        }
        for option in of_group {
            let mut summary = list_summary(summary_of(option, command).0);
            let (value, default) = (current(config, option), default(config, option));
            match (value, default) {
                (None, None) => (),
                (None, Some(default)) => summary += &format!(" [default={default}]"),
                (Some(value), None) => summary += &format!(" [current={value}]"),
                (Some(value), Some(default)) => summary += &format!(" [current={value}, default={default}]"),
            }
            let _ = writeln!(text, "  --{:width$}  {}", option.name, wrap(&summary, width + 6, false));
        }
    }
    let _ = write!(text, "\nUse '{} help {} [option]' for more information.\n", identity.program(), decl.name);
    text
}

/// The options that a command knows, by name.
fn options_of(command: Command) -> impl Iterator<Item = &'static OptionDecl> {
    ALL.iter().copied().filter(move |option| option.is_valid(command, Role::Main))
}

/// Renders the help for one option of a command.
fn of_option(config: &Config, identity: ProgramName, name: &str) -> Result<String> {
    let command = config.command();
    let found = find_option(name, NameMatch::WithoutIndex)?
        .map(|found| ALL[found.option])
        .filter(|option| option.is_valid(command, Role::Main));
    let Some(option) = found else {
        let text = format!("option '{name}' is not valid for command '{}'", command.name());
        let error = Error::new(ErrorCode::OptionInvalid, text);
        return Err(suggest::hinted(error, suggest::option_of(command, name)));
    };
    let mut text = format!(
        "{} - '{}' command - '{}' option help\n\n{}\n\n{}\n",
        identity.title(),
        command.name(),
        option.name,
        wrap(summary_of(option, command).0, 0, true),
        wrap(&full_detail(option, command), 0, true)
    );

    let value = current(config, option);
    let default = default(config, option);
    if value.is_some() || default.is_some() {
        text.push('\n');
    }
    for (label, shown) in [("current", value), ("default", default)] {
        match shown.as_deref() {
            None => (),
            Some(MULTI) => {
                let _ = writeln!(text, "{label}:");
                for (key, slot_value, slot_default) in per_key(config, option) {
                    if let Some(value) = if label == "current" { slot_value } else { slot_default } {
                        let group = option.group.map_or("", |group| group.name());
                        let _ = writeln!(text, "  {group}{key}: {value}");
                    }
                }
            }
            Some(shown) => {
                let _ = writeln!(text, "{label}: {shown}");
            }
        }
    }
    text += &more::render(config, option);
    let old = old_names(option);
    if !old.is_empty() {
        let plural = if old.len() > 1 { "s" } else { "" };
        let _ = write!(text, "\ndeprecated name{plural}: {}\n", old.join(", "));
    }
    Ok(text)
}

/// Returns the description with the allowed values and what is not supported.
fn full_detail(option: &OptionDecl, command: Command) -> String {
    let mut detail = with_values(summary_of(option, command).1, option, command);
    match option.support {
        Support::Full => (),
        Support::Moot(reason) => detail += &format!("\n\nThe option has no effect yet: {reason}."),
    }
    if option.internal_for(command) {
        detail += "\n\nFOR INTERNAL USE ONLY. DO NOT USE IN PRODUCTION.";
    }
    detail
}

/// Returns the description with the allowed values, in place of their mark or at its end. Shell completion for
/// pgBackRest reads them.
pub(crate) fn with_values(detail: &str, option: &OptionDecl, command: Command) -> String {
    let mut values: Vec<String> =
        option.values_for(command).map(|(value, meaning)| format!("* {value} - {meaning}")).collect();
    if let (ValueKind::Size, [others @ .., last]) = (option.kind, option.allow_for(command)) {
        values = vec![format!("Allowed values are {}, and {last}.", others.join(", "))];
    }
    let values = values.join("\n");
    match detail.split_once(VALUES) {
        Some((before, after)) => format!("{before}{values}{after}"),
        None if values.is_empty() => detail.to_owned(),
        None => format!("{detail}\n\n{values}"),
    }
}

/// Returns an example of the option on the command line. There is none if no value stands out, and for secrets.
fn example(option: &OptionDecl, command: Command) -> Option<String> {
    let name = option.indexed_name(1);
    let default = match option.default_for(command) {
        DefaultValue::Fixed(text) => Some(text),
        DefaultValue::ByDepend([(_, text), ..]) => Some(*text),
        _ => None,
    };
    let limit = match option.range {
        Range::Fixed(min, _) => Some(min),
        Range::ByDepend([(_, min, _), ..]) => Some(*min),
        _ => None,
    };
    let other = option.allow_for(command).iter().copied().find(|&word| Some(word) != default);
    let value = match option.kind {
        ValueKind::Boolean if default == Some("y") && option.can_negate() => return Some(format!("--no-{name}")),
        ValueKind::Boolean => return Some(format!("--{name}")),
        _ if option.secure => return None,
        ValueKind::StringId | ValueKind::Size | ValueKind::Time | ValueKind::Integer => other.or(default).or(limit)?,
        ValueKind::Path => default.unwrap_or("/path/to/it"),
        ValueKind::Hash => "key=value",
        ValueKind::String => default?,
        ValueKind::List => return None,
    };
    Some(format!("--{name}={value}"))
}

/// Returns the deprecated names without their indexes, unique, without the current name.
fn old_names(option: &OptionDecl) -> Vec<String> {
    let mut names: Vec<String> = option.deprecated.iter().map(|name| name.replace('?', "")).collect();
    names.retain(|name| name != option.name);
    names.sort();
    names.dedup();
    names
}

/// Returns summary and description of an option for a command.
pub(crate) fn summary_of(option: &OptionDecl, command: Command) -> (&'static str, &'static str) {
    let special = option.for_command(command);
    let of_command = |pick: fn(&crate::config::decl::Override) -> &'static str, general: &'static str| {
        special.map(pick).filter(|text| !text.is_empty()).unwrap_or(general)
    };
    (of_command(|special| special.summary, option.summary), of_command(|special| special.detail, option.detail))
}

/// The value that was set, and the default, for each index.
fn per_key(config: &Config, option: &OptionDecl) -> Vec<(u32, Option<String>, Option<String>)> {
    config.shown_values(option)
}

/// The value that was set.
fn current(config: &Config, option: &OptionDecl) -> Option<String> {
    let value = same(per_key(config, option).into_iter().map(|(_, value, _)| value))?;
    Some(if option.secure { "<redacted>".to_owned() } else { value })
}

/// The default.
fn default(config: &Config, option: &OptionDecl) -> Option<String> {
    same(per_key(config, option).into_iter().map(|(.., default)| default))
}

/// Returns the text that all indexes share, or the mark for several texts.
fn same(mut texts: impl Iterator<Item = Option<String>>) -> Option<String> {
    let first = texts.next()?;
    if texts.all(|text| text == first) { first } else { Some(MULTI.to_owned()) }
}

/// Formats a summary for lists: without its period, and with a lower-case first letter unless the word is an acronym or
/// a name.
fn list_summary(summary: &str) -> String {
    let text = summary.strip_suffix('.').unwrap_or(summary);
    let word = text.split(' ').next().unwrap_or_default();
    let letters = word.chars().filter(char::is_ascii_alphabetic).count();
    let capitals = word.chars().filter(char::is_ascii_uppercase).count();
    match text.chars().next() {
        Some(first) if capitals == 1 && letters != 1 => {
            format!("{}{}", first.to_ascii_lowercase(), &text[first.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}

/// Wraps paragraphs to lines of [`WIDTH`] minus the indent. The first line is not indented unless `indent_first` is
/// set.
fn wrap(text: &str, indent: usize, indent_first: bool) -> String {
    let mut result = String::new();
    for paragraph in text.split('\n') {
        if !result.is_empty() {
            result.push('\n');
        }
        for (number, line) in split(paragraph, WIDTH - indent).into_iter().enumerate() {
            if number > 0 {
                result.push('\n');
            }
            if (number > 0 || indent_first) && !line.is_empty() {
                result.extend(std::iter::repeat_n(' ', indent));
            }
            result += line;
        }
    }
    result
}

/// Splits at blanks into lines shorter than `size`. Only the last line may have `size` characters. A longer single word
/// is not split.
fn split(text: &str, size: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    let mut last: Option<usize> = None;
    loop {
        let from = last.map_or(0, |at| at + 1);
        match rest[from..].find(' ').map(|at| at + from) {
            Some(at) if at >= size => {
                let at = last.unwrap_or(at);
                lines.push(&rest[..at]);
                rest = &rest[at + 1..];
                last = None;
            }
            Some(at) => last = Some(at),
            None => {
                if let Some(at) = last
                    && rest.len() > size
                {
                    lines.push(&rest[..at]);
                    rest = &rest[at + 1..];
                }
                lines.push(rest);
                return lines;
            }
        }
    }
}

#[cfg(test)]
mod tests;
