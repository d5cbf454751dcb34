//! The command line: the command, and the options that are set, negated and reset.

use std::borrow::Cow;
use std::ffi::OsString;

use engine::{Error, ErrorCode, Result};

use super::Source;
use super::decl::{Command, CommandDecl, OptionDecl, Role, ValueKind};
use super::names::{FoundName, Match, find_option, shown};
use super::options::{self, ALL, COUNT, OptionIndex};
use super::{suggest, text};

/// What was found about an option (of one index), before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundOption {
    pub(super) negate: bool,
    pub(super) reset: bool,
    pub(super) source: Source,
    /// Empty for booleans without a value, and for negated and reset options.
    pub(super) values: Vec<String>,
}

/// Everything found, per option and the user's number.
#[derive(Clone, Debug)]
pub(super) struct FoundOptions(Vec<Vec<(u32, FoundOption)>>);

impl FoundOptions {
    pub(super) fn new() -> Self {
        FoundOptions(vec![Vec::new(); COUNT])
    }

    /// All that was found about one option.
    pub(super) fn of(&self, option: OptionIndex) -> &[(u32, FoundOption)] {
        &self.0[option]
    }

    /// Returns what was found about one index of an option.
    pub(super) fn get(&self, option: OptionIndex, key: u32) -> Option<&FoundOption> {
        self.0[option].iter().find(|(known, _)| *known == key).map(|(_, found)| found)
    }

    fn get_mut(&mut self, option: OptionIndex, key: u32) -> Option<&mut FoundOption> {
        self.0[option].iter_mut().find(|(known, _)| *known == key).map(|(_, found)| found)
    }

    /// Adds an option that was not there.
    pub(super) fn add(&mut self, option: OptionIndex, key: u32, found: FoundOption) {
        self.0[option].push((key, found));
    }

    /// Sets one index of an option.
    pub(super) fn set(&mut self, option: OptionIndex, key: u32, found: FoundOption) {
        match self.get_mut(option, key) {
            Some(known) => *known = found,
            None => self.add(option, key, found),
        }
    }

    /// Drops options that a command does not know.
    pub(super) fn keep_valid(&mut self, command: Command, role: Role) {
        for (found, decl) in self.0.iter_mut().zip(ALL) {
            if !decl.is_valid(command, role) {
                found.clear();
            }
        }
    }

    /// Sets the only value of an option.
    pub(super) fn replace(&mut self, option: OptionIndex, found: FoundOption) {
        self.0[option] = vec![(1, found)];
    }
}

/// The parsed command line.
#[derive(Clone, Debug)]
pub struct CommandLine {
    pub(super) program: String,
    pub(super) command: Command,
    pub(super) role: Role,
    /// `help COMMAND`
    pub(super) help: bool,
    pub(super) params: Vec<String>,
    pub(super) found: FoundOptions,
}

impl CommandLine {
    /// Returns the arguments that set an option, in the form `--name=value`, `--no-name` or `--reset-name`.
    pub(crate) fn arguments_of(&self, decl: &OptionDecl) -> Vec<String> {
        let Some(option) = options::find(decl.name) else { return Vec::new() };
        let mut arguments = Vec::new();
        for (key, found) in self.found.of(option) {
            let name = decl.indexed_name(*key);
            match found {
                FoundOption { negate: true, .. } => arguments.push(format!("--no-{name}")),
                FoundOption { reset: true, .. } => arguments.push(format!("--reset-{name}")),
                FoundOption { values, .. } => arguments.extend(values.iter().map(|value| format!("--{name}={value}"))),
            }
        }
        arguments
    }

    /// Returns the value of an option without indexes.
    pub(crate) fn value_of(&self, decl: &OptionDecl) -> Option<&str> {
        let found = self.found.get(options::find(decl.name)?, 1)?;
        found.values.first().map(String::as_str)
    }

    /// Parses the arguments. The first is the path of the program. The default command is `help`.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalid`], [`ErrorCode::OptionInvalidValue`], [`ErrorCode::CommandInvalid`],
    /// [`ErrorCode::CommandRequired`], [`ErrorCode::ParamInvalid`]
    pub fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self> {
        let raw = clap_lex::RawArgs::new(args);
        let mut cursor = raw.cursor();
        let mut line = CommandLine {
            program: raw.next_os(&mut cursor).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            command: Command::Help,
            role: Role::Main,
            help: false,
            params: Vec::new(),
            found: FoundOptions::new(),
        };
        let mut command_set = false;
        let mut help_set = false;
        while let Some(arg) = raw.next(&mut cursor) {
            let text = &*arg.to_value().map_or_else(|bad| Cow::Owned(text::decode_os(bad)), Cow::Borrowed);
            if let Some(option) = text.strip_prefix("--") {
                line.add_option(option, || raw.next_os(&mut cursor).map(OsString::from))?;
            } else if text.starts_with('-') {
                let text = format!("option '{text}' must begin with --");
                return Err(Error::new(ErrorCode::OptionInvalid, text));
            } else if command_set {
                if !text::is_whole(text) {
                    let text = format!("parameter '{}' is not valid UTF-8", text::show(text));
                    return Err(Error::new(ErrorCode::ParamInvalid, text));
                }
                line.params.push(text.to_owned());
            } else {
                line.command = find_command(text)?;
                if line.command == Command::Help && !help_set {
                    help_set = true;
                } else {
                    line.role = find_role(text, line.command, help_set)?;
                    line.help = help_set;
                    command_set = true;
                }
            }
        }

        if !command_set && !help_set {
            let unknown_to_help = |option: OptionIndex| !ALL[option].is_valid(Command::Help, Role::Main);
            if (0..COUNT).any(|option| !line.found.of(option).is_empty() && unknown_to_help(option)) {
                return Err(Error::new(ErrorCode::CommandRequired, "no command found"));
            }
        }
        let decl: &CommandDecl = line.command.decl();
        if !line.params.is_empty() && !line.help && !decl.parameters {
            return Err(Error::new(ErrorCode::ParamInvalid, "command does not allow parameters"));
        }
        Ok(line)
    }

    /// The command, before options from elsewhere are known.
    pub fn command(&self) -> Command {
        self.command
    }

    /// Returns whether the user asks for help about the command.
    pub fn is_help(&self) -> bool {
        self.help
    }

    /// The role of this process.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Parses one option without its dashes. `next` returns the following argument.
    fn add_option(&mut self, text: &str, next: impl FnOnce() -> Option<OsString>) -> Result<()> {
        let invalid = |text: String| Err(Error::new(ErrorCode::OptionInvalid, text));
        let (name, argument) = match text.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let Some(found) = find_option(name, Match::Prefix)? else {
            let shown = shown(name);
            let shown = if shown == name { text } else { &shown };
            let error = Error::new(ErrorCode::OptionInvalid, format!("invalid option '--{}'", text::show(shown)));
            return Err(suggest::hinted(error, suggest::option_on_command_line(name)));
        };
        let entry = read_argument(found, name, argument, next)?;
        let decl = ALL[found.option];
        let full_name = decl.indexed_name(found.key);
        if decl.secure {
            return Err(Error::new(
                ErrorCode::OptionInvalid,
                format!("option '{full_name}' is not allowed on the command-line"),
            )
            .hint("this option could expose secrets in the process list.")
            .hint("specify the option in a configuration file or an environment variable instead."));
        }
        let Some(known) = self.found.get_mut(found.option, found.key) else {
            self.found.add(found.option, found.key, entry);
            return Ok(());
        };
        let problem = match ((known.negate, known.reset), (entry.negate, entry.reset)) {
            ((true, _), (true, _)) => "is negated multiple times",
            ((_, true), (_, true)) => "is reset multiple times",
            ((_, true), (true, _)) | ((true, _), (_, true)) => "cannot be negated and reset",
            ((was, _), (is, _)) if was != is => "cannot be set and negated",
            ((_, was), (_, is)) if was != is => "cannot be set and reset",
            _ if decl.kind.is_multi() => {
                known.values.extend(entry.values);
                return Ok(());
            }
            _ => "cannot be set multiple times",
        };
        invalid(format!("option '{full_name}' {problem}"))
    }
}

/// Reads the argument of an option, which may be the following argument of the command line.
fn read_argument(
    found: FoundName,
    name: &str,
    argument: Option<&str>,
    next: impl FnOnce() -> Option<OsString>,
) -> Result<FoundOption> {
    let FoundName { negate, reset, .. } = found;
    let decl = ALL[found.option];
    let invalid = |code, text: String| Err(Error::new(code, text));
    let entry = |negate, value: Option<String>| {
        let values = value.into_iter().collect();
        Ok(FoundOption { negate, reset, source: Source::CommandLine, values })
    };
    if (negate || reset) && argument.is_some() {
        return invalid(ErrorCode::OptionInvalid, format!("option '{name}' does not allow an argument"));
    }
    match argument {
        _ if negate && decl.bool_like => entry(false, Some("n".to_owned())),
        _ if negate || reset => entry(negate, None),
        None | Some("y") if decl.kind == ValueKind::Boolean => entry(false, None),
        Some("n") if decl.kind == ValueKind::Boolean => entry(true, None),
        Some(_) if decl.kind == ValueKind::Boolean => {
            let text = format!("boolean option '--{name}' argument must be 'y' or 'n'");
            invalid(ErrorCode::OptionInvalidValue, text)
        }
        Some(argument) => entry(false, Some(argument.to_owned())),
        None if decl.bool_like => entry(false, Some("y".to_owned())),
        None => match next() {
            Some(argument) => entry(false, Some(text::decode_os(&argument))),
            None => invalid(ErrorCode::OptionInvalid, format!("option '--{name}' requires an argument")),
        },
    }
}

/// The command whose name begins with the text up to a colon.
fn find_command(text: &str) -> Result<Command> {
    let name = text.split(':').next().unwrap_or(text);
    let fits = |decl: &&CommandDecl| if decl.own { decl.name == name } else { decl.name.starts_with(name) };
    super::decl::COMMANDS.iter().find(fits).map(|decl| decl.command).ok_or_else(|| {
        let error = Error::new(ErrorCode::CommandInvalid, format!("invalid command '{text}'"));
        suggest::hinted(error, suggest::command(name))
    })
}

/// The role after the colon of the command.
fn find_role(text: &str, command: Command, help: bool) -> Result<Role> {
    let invalid = |text: String| Err(Error::new(ErrorCode::CommandInvalid, text));
    let role = match text.split_once(':') {
        None => Role::Main,
        Some((_, name)) => match Role::ALL.into_iter().find(|role| role.name() == Some(name)) {
            Some(role) => role,
            None => return invalid(format!("invalid command role '{name}'")),
        },
    };
    if !command.decl().roles.has(role) {
        return invalid(format!("invalid command/role combination '{text}'"));
    }
    if help && let Some(name) = role.name() {
        return invalid(format!("help is not available for the '{name}' role"));
    }
    Ok(role)
}
