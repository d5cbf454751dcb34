//! The configuration: the options of this process, and the source of each value.

mod adjust;
mod command_decl;
mod commands;
pub(crate) mod copy;
pub mod decl;
mod env;
mod export;
mod file;
pub mod handle;
mod names;
pub mod options;
mod origin;
mod parse;
mod report;
mod resolve;
mod schedule;
pub(crate) mod suggest;
mod text;
pub mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use engine::{Error, ErrorCode, Result};

pub use self::decl::{Command, IndexGroup, OptionDecl, Role};
pub use self::env::Environment;
pub(crate) use self::export::FileLine;
pub use self::export::{ExecTarget, Replacement, quote_for_shell};
pub(crate) use self::file::DEFAULT_FILE;
pub use self::file::{ConfigFiles, SystemFiles};
use self::handle::{Opt, OptIndexed};
pub use self::names::{FoundName, Match as NameMatch, find_option};
pub use self::options::opt;
pub use self::origin::Origin;
pub(crate) use self::origin::variable_name;
pub use self::parse::CommandLine;
pub use self::report::{ConfigReport, Setting, SettingValue};
pub use self::schedule::ScheduleSection;

use self::options::OptionIndex;

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The declaration, or other options that determine the value.
    Default,
    /// A configuration file.
    File,
    /// A `PGBACKREST_*` variable.
    Environment,
    /// The command line, or this process on behalf of its children.
    CommandLine,
}

/// A value in the form of its kind.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    /// An integer, a size in bytes, or a time in milliseconds.
    Number(i64),
    Text(Cow<'static, str>),
    List(Vec<String>),
    /// Pairs in the order in which the user gave them.
    Map(Vec<(String, String)>),
}

/// An option, or one index of an indexed option.
#[derive(Clone)]
pub(crate) struct Slot {
    value: Option<Value>,
    /// The value as typed; derived from the value if nobody typed it.
    display: Option<Cow<'static, str>>,
    /// The default as help shows it.
    default: Option<Cow<'static, str>>,
    source: Source,
    negate: bool,
    reset: bool,
}

impl Slot {
    const EMPTY: Slot =
        Slot { value: None, display: None, default: None, source: Source::Default, negate: false, reset: false };

    /// Returns whether nothing has set the value.
    pub(crate) fn is_default(&self) -> bool {
        self.source == Source::Default && !self.negate
    }

    /// Returns whether the command line decides the value, also by saying that it is the default.
    pub(crate) fn is_from_command_line(&self) -> bool {
        self.source == Source::CommandLine || self.negate || self.reset
    }
}

/// The indexes in use of one group.
#[derive(Clone, Default)]
pub(crate) struct GroupState {
    /// The user's numbers, ascending; empty if the command has no options of the group.
    keys: Vec<u32>,
    /// The position of the repository or cluster that commands for a single one use.
    default: usize,
}

/// The resolved options of one command. `Debug` never shows values, so it cannot show secrets.
#[derive(Clone)]
pub struct Config {
    command: Command,
    role: Role,
    help: bool,
    params: Vec<String>,
    program: String,
    /// The slots of each option, one per key of its group; empty if the command does not know the option.
    slots: Vec<Vec<Slot>>,
    groups: [GroupState; 2],
    input: resolve::ConfigInput,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("command", &self.command.role_name(self.role)).finish_non_exhaustive()
    }
}

impl Config {
    /// Returns the command. For `help COMMAND` it returns that command.
    pub fn command(&self) -> Command {
        self.command
    }

    /// The role of this process.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns whether the user asked for help about the command.
    pub fn is_help(&self) -> bool {
        self.help
    }

    /// The parameters after the command.
    pub fn params(&self) -> &[String] {
        &self.params
    }

    /// The path by which the program was started.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Returns whether the command knows the option.
    pub fn is_valid(&self, decl: &OptionDecl) -> bool {
        options::find(decl.name).is_some_and(|index| !self.slots[index].is_empty())
    }

    /// Returns the value of an option that always has one.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] if the command does not know the option, or it has no value.
    pub fn get<T: FromValue>(&self, option: Opt<T>) -> Result<T::Out<'_>> {
        self.find(option).ok_or_else(|| self.missing(option.decl(), 0))
    }

    /// Returns the value of an option, if the command knows it and it has one.
    pub fn find<T: FromValue>(&self, option: Opt<T>) -> Option<T::Out<'_>> {
        T::from_value(self.slot(option.decl(), 0)?.value.as_ref()?)
    }

    /// Returns the source of an option's value.
    pub fn source<T: FromValue>(&self, option: Opt<T>) -> Source {
        self.slot(option.decl(), 0).map_or(Source::Default, |slot| slot.source)
    }

    /// Returns the value of an indexed option that always has one. `key` is the user's number.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] if the command does not know the option, the key is not in use, or the option has no
    /// value.
    pub fn get_at<T: FromValue>(&self, option: OptIndexed<T>, key: u32) -> Result<T::Out<'_>> {
        self.find_at(option, key).ok_or_else(|| self.missing(option.decl(), key))
    }

    /// Returns the value of an indexed option, if the command knows it and it has one. `key` is the user's number.
    pub fn find_at<T: FromValue>(&self, option: OptIndexed<T>, key: u32) -> Option<T::Out<'_>> {
        T::from_value(self.slot(option.decl(), key)?.value.as_ref()?)
    }

    /// Returns the source of an indexed option's value.
    pub fn source_at<T: FromValue>(&self, option: OptIndexed<T>, key: u32) -> Source {
        self.slot(option.decl(), key).map_or(Source::Default, |slot| slot.source)
    }

    /// Returns the numbers of the configured repositories, ascending. There is at least one if the command has
    /// repository options.
    pub fn repo_keys(&self) -> &[u32] {
        self.keys(IndexGroup::Repo)
    }

    /// Returns the numbers of the configured clusters, ascending. They always include 1.
    pub fn pg_keys(&self) -> &[u32] {
        self.keys(IndexGroup::Pg)
    }

    /// Returns the number of the cluster that commands for a single cluster use: `--pg`, otherwise the lowest.
    pub fn pg_default(&self) -> u32 {
        let group = &self.groups[IndexGroup::Pg as usize];
        group.keys.get(group.default).copied().unwrap_or(1)
    }

    /// Returns the number of the repository that commands for a single repository use: `--repo`, otherwise the lowest.
    pub fn repo_default(&self) -> u32 {
        let group = &self.groups[IndexGroup::Repo as usize];
        group.keys.get(group.default).copied().unwrap_or(1)
    }

    /// Returns the repositories that the command applies to: the one of `--repo`, otherwise all.
    pub fn repo_keys_selected(&self) -> Vec<u32> {
        match self.find(opt::REPO) {
            Some(_) => vec![self.repo_default()],
            None => self.repo_keys().to_vec(),
        }
    }

    fn keys(&self, group: IndexGroup) -> &[u32] {
        &self.groups[group as usize].keys
    }

    /// Returns the stanzas that have sections in the configuration files, sorted.
    pub fn stanzas(&self) -> Vec<String> {
        self.input.stanzas()
    }

    /// Returns whether there are configuration files.
    pub(crate) fn has_files(&self) -> bool {
        self.input.ini().is_some()
    }

    /// Returns whether a section of the configuration files has this key.
    pub(crate) fn files_set(&self, section: &str, key: &str) -> bool {
        self.input.ini().is_some_and(|ini| ini.keys(section).iter().any(|(known, _)| *known == key))
    }

    /// Returns whether a section of the configuration files sets a key to this value.
    pub(crate) fn files_set_to(&self, section: &str, key: &str, value: &str) -> bool {
        let is_set = |(known, values): &(&str, Vec<&str>)| *known == key && values.contains(&value);
        self.input.ini().is_some_and(|ini| ini.keys(section).iter().any(is_set))
    }

    /// Returns the path of the main configuration file, whether or not it exists; `None` with `--no-config`.
    pub(crate) fn file_path(&self) -> Option<String> {
        file::main_path(self)
    }

    /// Returns the arguments that set an option on this command line.
    pub(crate) fn arguments_of(&self, decl: &OptionDecl) -> Vec<String> {
        self.input.line().arguments_of(decl)
    }

    /// Returns the configuration of the same command for another stanza, for commands that process all stanzas.
    ///
    /// # Errors
    /// The stanza's options are invalid or incomplete.
    pub fn with_stanza(&self, stanza: &str) -> Result<Config> {
        let mut config = resolve::with_stanza(self, stanza)?;
        if let Some(exec_id) = self.find(opt::EXEC_ID) {
            config.set_text(opt::EXEC_ID, exec_id.to_owned(), Source::CommandLine);
        }
        config.adjust()?;
        Ok(config)
    }

    /// Returns the configuration that another command would have with the same environment and files.
    ///
    /// # Errors
    /// The options that it would use are invalid or incomplete.
    pub fn of_command(&self, command: Command) -> Result<Config> {
        resolve::of_command(self, command)
    }

    /// Returns the configuration for another command that this process continues with. Options that this command does
    /// not know keep their values. Options that only the other command knows stay unset.
    pub fn with_command(&self, command: Command) -> Config {
        Config { command, role: Role::Main, ..self.clone() }
    }

    /// Returns an option's value as typed, for messages, or adjusted values in their natural form.
    pub fn display(&self, decl: &OptionDecl, key: u32) -> Option<Cow<'_, str>> {
        let slot = self.slot(decl, key)?;
        if let Some(display) = &slot.display {
            return Some(Cow::Borrowed(display));
        }
        Some(match slot.value.as_ref()? {
            Value::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Value::Number(value) if decl.kind == decl::ValueKind::Time => Cow::Owned(value::format_time(*value)),
            Value::Number(value) => Cow::Owned(value.to_string()),
            Value::Text(value) => Cow::Borrowed(value),
            Value::List(values) => Cow::Owned(values.join(", ")),
            Value::Map(values) => {
                let pairs: Vec<String> = values.iter().map(|(key, value)| format!("{key}={value}")).collect();
                Cow::Owned(pairs.join(", "))
            }
        })
    }

    /// Returns what help shows of an option for each index in use: the configured value and the default.
    pub fn shown_values(&self, decl: &OptionDecl) -> Vec<(u32, Option<String>, Option<String>)> {
        let keys = decl.group.map_or_else(|| vec![0], |group| self.keys(group).to_vec());
        let shown = |key| {
            let slot = self.slot(decl, key)?;
            let set = slot.source != Source::Default;
            let value = self.display(decl, key).filter(|_| set).map(Cow::into_owned);
            Some((key, value, slot.default.as_ref().map(|default| default.clone().into_owned())))
        };
        keys.into_iter().filter_map(shown).collect()
    }

    pub(crate) fn slot(&self, decl: &OptionDecl, key: u32) -> Option<&Slot> {
        let index = options::find(decl.name)?;
        self.slots[index].get(self.position(decl, key)?)
    }

    fn slot_mut(&mut self, decl: &OptionDecl, key: u32) -> Option<&mut Slot> {
        let index = options::find(decl.name)?;
        let position = self.position(decl, key)?;
        self.slots[index].get_mut(position)
    }

    /// The slot that belongs to the user's number.
    fn position(&self, decl: &OptionDecl, key: u32) -> Option<usize> {
        match decl.group {
            None => Some(0),
            Some(group) => self.keys(group).iter().position(|&known| known == key),
        }
    }

    fn missing(&self, decl: &OptionDecl, key: u32) -> Error {
        let name = decl.indexed_name(key);
        if self.is_valid(decl) {
            Error::new(ErrorCode::Assert, format!("option '{name}' is null but non-null was requested"))
        } else {
            Error::new(ErrorCode::Assert, format!("option '{name}' is not valid for the current command"))
        }
    }

    /// Sets an option of this process, as if the user had typed it or as a derived default.
    pub(crate) fn set_text(&mut self, option: Opt<String>, value: String, source: Source) {
        if let Some(slot) = self.slot_mut(option.decl(), 0) {
            slot.value = Some(Value::Text(value.clone().into()));
            slot.display = Some(value.into());
            slot.source = source;
        }
    }

    /// Iterates over each slot of each option that the command knows, in table order, with the option's declaration and
    /// the user's number.
    pub(crate) fn each_slot(&self) -> impl Iterator<Item = (&'static OptionDecl, u32, &Slot)> {
        self.slots.iter().enumerate().flat_map(move |(index, slots): (OptionIndex, _)| {
            let decl = options::ALL[index];
            let keys = decl.group.map(|group| self.keys(group));
            slots.iter().enumerate().map(move |(position, slot)| {
                let key = keys.and_then(|keys| keys.get(position)).copied().unwrap_or(0);
                (decl, key, slot)
            })
        })
    }
}

/// The type in which the program reads values of a kind.
pub trait FromValue: handle::OptionType {
    /// What the accessors return: the type itself, or a borrowed form.
    type Out<'a>;

    /// The value, if it is of this type.
    #[expect(private_interfaces, reason = "only this crate's types implement it")]
    fn from_value(value: &Value) -> Option<Self::Out<'_>>;
}

macro_rules! from_value {
    ($($type:ty => $out:ty: $pattern:pat => $result:expr;)*) => {
        $(impl FromValue for $type {
            type Out<'a> = $out;
            #[expect(private_interfaces, reason = "only this crate's types implement it")]
            fn from_value(value: &Value) -> Option<Self::Out<'_>> {
                match value {
                    $pattern => $result,
                    _ => None,
                }
            }
        })*
    };
}

from_value! {
    bool => bool: Value::Bool(value) => Some(*value);
    i64 => i64: Value::Number(value) => Some(*value);
    u64 => u64: Value::Number(value) => u64::try_from(*value).ok();
    Duration => Duration: Value::Number(value) => u64::try_from(*value).ok().map(Duration::from_millis);
    String => &'a str: Value::Text(value) => Some(&**value);
    Vec<String> => &'a [String]: Value::List(values) => Some(values);
    BTreeMap<String, String> => BTreeMap<String, String>: Value::Map(values) => Some(values.iter().cloned().collect());
}

#[cfg(test)]
pub(crate) mod tests;
