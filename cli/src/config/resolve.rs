//! Resolves what was found to the configuration: precedence, dependencies, defaults, checks.

mod values;

use std::borrow::Cow;
use std::sync::Arc;

use engine::{Error, ErrorCode, Result};

use super::decl::{Command, DefaultValue, Depend, IndexGroup, OptionDecl, Role, ValueKind};
use super::env::Environment;
use super::file::{ConfigFiles, Ini};
use super::names::KEY_MAX;
use super::options::{self, ALL, COUNT, OptionIndex, RESOLVE_ORDER, opt};
use super::parse::{CommandLine, FoundOption, FoundOptions};
use super::{Config, GroupState, Slot, Source, Value, env, file};

/// The sources of a configuration, kept to resolve the configuration of another stanza.
#[derive(Clone)]
pub(super) struct ConfigInput(Arc<InputData>);

struct InputData {
    line: CommandLine,
    environment: Environment,
    ini: Option<Ini>,
}

impl ConfigInput {
    /// The content of the files, if there are any.
    pub(super) fn ini(&self) -> Option<&Ini> {
        self.0.ini.as_ref()
    }

    /// The command line.
    pub(super) fn line(&self) -> &CommandLine {
        &self.0.line
    }

    /// The environment and the content of the files, if there are any.
    pub(super) fn environment_and_files(&self) -> (&Environment, Option<&Ini>) {
        (&self.0.environment, self.0.ini.as_ref())
    }

    /// Returns the stanzas that have sections in the files, sorted and unique.
    pub(super) fn stanzas(&self) -> Vec<String> {
        let sections = self.0.ini.iter().flat_map(Ini::sections);
        let mut names: Vec<String> = sections
            .filter(|&section| section != "global" && !section.starts_with("global:"))
            .map(|section| section.split(':').next().unwrap_or(section).to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Config {
    /// Resolves the options of a command line, the environment and the configuration files. `warn` receives warnings in
    /// the order of discovery.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalid`], [`ErrorCode::OptionInvalidValue`], [`ErrorCode::OptionRequired`], and the errors
    /// of reading and parsing the files.
    pub fn resolve(
        line: CommandLine,
        environment: Environment,
        files: &dyn ConfigFiles,
        warn: &mut dyn FnMut(String),
    ) -> Result<Config> {
        let mut found = line.found.clone();
        // Help and version must work even if everything else is wrong
        let mut ini = None;
        if !matches!(line.command, Command::Help | Command::Version) {
            env::add(&mut found, &environment, line.command, line.role, warn)?;
            ini = match line.command {
                // It writes the file. What an existing one sets is not what it was asked to write
                Command::Init => file::load_existing(files, &found)?,
                _ => file::load(files, &found)?,
            };
            if let Some(ini) = ini.as_ref().filter(|_| line.command != Command::Init) {
                file::add(&mut found, ini, line.command, line.role, warn)?;
            }
        }
        build(ConfigInput(Arc::new(InputData { line, environment, ini })), found, warn)
    }
}

/// Resolves the configuration of another stanza from the same sources.
pub(super) fn with_stanza(config: &Config, stanza: &str) -> Result<Config> {
    let input = config.input.clone();
    let line = &input.0.line;
    let mut found = line.found.clone();
    if let Some(index) = options::find(opt::STANZA.decl().name) {
        let values = vec![stanza.to_owned()];
        found.replace(index, FoundOption { negate: false, reset: false, source: Source::CommandLine, values });
    }
    // The first run has already said what is wrong
    let mut ignore = |_| ();
    env::add(&mut found, &input.0.environment, line.command, line.role, &mut ignore)?;
    if let Some(ini) = &input.0.ini {
        file::add(&mut found, ini, line.command, line.role, &mut ignore)?;
    }
    build(input, found, &mut ignore)
}

/// Resolves the configuration of a command of a schedule, or of the daemon for a schedule, from the same files and
/// environment. `found` is what precedes these.
pub(super) fn with_found(
    config: &Config,
    command: Command,
    mut found: FoundOptions,
    warn: &mut dyn FnMut(String),
) -> Result<Config> {
    let InputData { line, environment, ini } = &*config.input.0;
    env::add(&mut found, environment, command, Role::Main, warn)?;
    if let Some(ini) = ini {
        file::add(&mut found, ini, command, Role::Main, warn)?;
    }
    let line = CommandLine { command, role: Role::Main, help: false, params: Vec::new(), ..line.clone() };
    let (environment, ini) = (environment.clone(), ini.clone());
    build(ConfigInput(Arc::new(InputData { line, environment, ini })), found, warn)
}

/// Reads the files again.
pub(super) fn reread(config: &Config, files: &dyn ConfigFiles) -> Result<Config> {
    let InputData { line, environment, .. } = &*config.input.0;
    // The children warn about what concerns them
    Config::resolve(line.clone(), environment.clone(), files, &mut |_| ())
}

/// Resolves the configuration that another command would have with the same environment and files, and with those
/// options of this command line that it knows.
pub(super) fn of_command(config: &Config, command: Command) -> Result<Config> {
    let InputData { line, environment, ini } = &*config.input.0;
    let line = CommandLine { command, role: Role::Main, help: false, params: Vec::new(), ..line.clone() };
    let mut found = line.found.clone();
    found.keep_valid(command, line.role);
    if let (Some(index), Some(stanza)) = (options::find(opt::STANZA.decl().name), config.find(opt::STANZA)) {
        let values = vec![stanza.to_owned()];
        found.replace(index, FoundOption { negate: false, reset: false, source: Source::CommandLine, values });
    }
    // The first run has already said what is wrong
    let mut ignore = |_| ();
    env::add(&mut found, environment, command, line.role, &mut ignore)?;
    if let Some(ini) = ini {
        file::add(&mut found, ini, command, line.role, &mut ignore)?;
    }
    let input = InputData { line, environment: environment.clone(), ini: ini.clone() };
    build(ConfigInput(Arc::new(input)), found, &mut ignore)
}

fn build(input: ConfigInput, found: FoundOptions, warn: &mut dyn FnMut(String)) -> Result<Config> {
    let line = &input.0.line;
    let mut config = Config {
        command: line.command,
        role: line.role,
        help: line.help,
        params: line.params.clone(),
        program: line.program.clone(),
        slots: vec![Vec::new(); COUNT],
        groups: find_groups(line, &found)?,
        input: input.clone(),
    };
    let mut keep: [Vec<bool>; 2] = IndexGroup::ALL.map(|group| vec![false; config.keys(group).len()]);
    for index in RESOLVE_ORDER.iter().map(|&index| OptionIndex::from(index)) {
        let decl = ALL[index];
        if !decl.is_valid(config.command, config.role) {
            continue;
        }
        let keys = decl.group.map_or_else(|| vec![1], |group| config.keys(group).to_vec());
        let mut slots = Vec::with_capacity(keys.len());
        for (position, key) in keys.into_iter().enumerate() {
            let slot = Resolver { config: &config, decl, key, position }.resolve(found.get(index, key), warn)?;
            if let Some(group) = decl.group
                && slot.source != Source::Default
            {
                keep[group as usize][position] = true;
            }
            slots.push(slot);
        }
        config.slots[index] = slots;
    }
    for group in IndexGroup::ALL {
        config.drop_default_keys(group, &keep[group as usize]);
    }
    config.select_default_keys()?;
    Ok(config)
}

/// Finds the indexes of each group that are in use, from everything that was set.
fn find_groups(line: &CommandLine, found: &FoundOptions) -> Result<[GroupState; 2]> {
    let mut used = [[false; KEY_MAX as usize + 1]; 2];
    let mut valid = [false; 2];
    for (index, decl) in ALL.iter().enumerate() {
        if !decl.is_valid(line.command, line.role) {
            if found.of(index).is_empty() {
                continue;
            }
            let text = format!("option '{}' not valid for command '{}'", decl.name, line.command.name());
            return Err(Error::new(ErrorCode::OptionInvalid, text));
        }
        let Some(group) = decl.group else { continue };
        valid[group as usize] = true;
        for (key, found) in found.of(index) {
            if !found.reset {
                used[group as usize][*key as usize] = true;
            }
        }
    }
    Ok(IndexGroup::ALL.map(|group| {
        let mut keys: Vec<u32> = (1..=KEY_MAX).filter(|&key| used[group as usize][key as usize]).collect();
        // Every valid group has at least one index, and cluster 1 always exists
        if valid[group as usize] && (keys.is_empty() || (group == IndexGroup::Pg && keys[0] != 1)) {
            keys.insert(0, 1);
        }
        GroupState { keys, default: 0 }
    }))
}

impl Config {
    /// Removes indexes whose options all have default values, but keeps one. An index that is left with only defaults
    /// becomes 1, so that an unused option does not determine it.
    fn drop_default_keys(&mut self, group: IndexGroup, keep: &[bool]) {
        let state = &mut self.groups[group as usize];
        let mut kept: Vec<bool> = keep.to_vec();
        for position in (0..keep.len()).rev() {
            if state.keys.len() == 1 {
                break;
            }
            if !keep[position] {
                state.keys.remove(position);
                kept.remove(position);
                for (decl, slots) in ALL.iter().zip(&mut self.slots) {
                    if decl.group == Some(group) && !slots.is_empty() {
                        slots.remove(position);
                    }
                }
            }
        }
        if let ([key], [false]) = (state.keys.as_mut_slice(), kept.as_slice()) {
            *key = 1;
        }
    }

    /// Finds the positions of `--pg` and `--repo`.
    fn select_default_keys(&mut self) -> Result<()> {
        for (group, option) in [(IndexGroup::Pg, opt::PG), (IndexGroup::Repo, opt::REPO)] {
            let Some(chosen) = self.find(option) else { continue };
            let position = self.keys(group).iter().position(|&key| i64::from(key) == chosen);
            let Some(position) = position else {
                let name = option.decl().name;
                let display = self.display(option.decl(), 0).unwrap_or_default();
                let text = format!("key '{display}' is not valid for '{name}' option");
                return Err(Error::new(ErrorCode::OptionInvalidValue, text));
            };
            self.groups[group as usize].default = position;
        }
        Ok(())
    }
}

/// Whether an option is valid because of the option that it depends on.
struct DependState {
    valid: bool,
    /// The other option's value, if it is one of a list.
    matched: Option<&'static str>,
}

/// Resolves one option of one index.
struct Resolver<'a> {
    config: &'a Config,
    decl: &'static OptionDecl,
    key: u32,
    position: usize,
}

impl Resolver<'_> {
    fn resolve(&self, found: Option<&FoundOption>, warn: &mut dyn FnMut(String)) -> Result<Slot> {
        let decl = self.decl;
        let mut slot = Slot {
            negate: found.is_some_and(|found| found.negate),
            reset: found.is_some_and(|found| found.reset),
            ..Slot::EMPTY
        };
        let set = found.filter(|found| (decl.kind == ValueKind::Boolean || !found.negate) && !found.reset);
        let mut matched = None;
        if let Some(depend) = decl.depend_for(self.config.command) {
            let state = self.depend_state(&depend);
            if !state.valid {
                if set.is_some_and(|found| found.source == Source::CommandLine) {
                    return Err(self.depend_error(&depend));
                }
                if let Some(otherwise) = depend.otherwise {
                    slot = Slot {
                        value: Some(self.own_value(otherwise)?),
                        display: Some(otherwise.into()),
                        ..Slot::EMPTY
                    };
                }
                return Ok(slot);
            }
            matched = state.matched.map(|value| (depend, value));
        }

        if let Some(found) = set {
            slot.source = found.source;
            self.set_value(&mut slot, found, matched, warn)?;
        } else if let Some(found) = found.filter(|found| found.negate) {
            slot.source = found.source;
        }

        if (slot.value.is_none() && !slot.negate) || self.config.help {
            if let Some(default) = self.default_text(matched.map(|(_, value)| value)) {
                if slot.value.is_none() {
                    slot.value = Some(match &default {
                        Cow::Borrowed(text) => self.own_value(text)?,
                        Cow::Owned(text) => Value::Text(text.clone().into()),
                    });
                    slot.display = Some(default.clone());
                }
                slot.default = Some(default);
            } else if !self.config.help && slot.value.is_none() && decl.required_for(self.config.command) {
                let text = format!("{} command requires option: {}", self.config.command.name(), self.name());
                let error = Error::new(ErrorCode::OptionRequired, text);
                return Err(match decl.section {
                    super::decl::Section::Stanza => error.hint("does this stanza exist?"),
                    _ => error,
                });
            }
        }
        Ok(slot)
    }

    fn name(&self) -> String {
        self.decl.indexed_name(self.key)
    }

    /// Returns the slot of the option that this option depends on, if the command knows it.
    fn depend_slot(&self, depend: &Depend) -> Option<(&'static OptionDecl, &Slot)> {
        let index = options::find(depend.option)?;
        let decl = ALL[index];
        let position = if decl.group.is_some() { self.position } else { 0 };
        self.config.slots[index].get(position).map(|slot| (decl, slot))
    }

    fn depend_state(&self, depend: &Depend) -> DependState {
        let value = self.depend_slot(depend).and_then(|(_, slot)| slot.value.as_ref());
        match value {
            None => DependState { valid: false, matched: None },
            Some(_) if depend.values.is_empty() => DependState { valid: true, matched: None },
            Some(value) => {
                let value = match value {
                    Value::Bool(true) => "y",
                    Value::Bool(false) => "n",
                    Value::Text(text) => text,
                    Value::Number(_) | Value::List(_) | Value::Map(_) => "",
                };
                let matched = depend.values.iter().find(|known| **known == value).copied();
                DependState { valid: matched.is_some(), matched }
            }
        }
    }

    fn depend_error(&self, depend: &Depend) -> Error {
        let (name, slot) = match self.depend_slot(depend) {
            Some((decl, slot)) => (decl.indexed_name(self.key), Some((decl, slot))),
            None => (depend.option.to_owned(), None),
        };
        let mut text = format!("option '{}' not valid without option '", self.name());
        match slot.filter(|(_, slot)| slot.value.is_some()) {
            None => text += &format!("{name}'"),
            Some((decl, _)) if decl.kind == ValueKind::Boolean => {
                let negation = if depend.values.contains(&"n") { "no-" } else { "" };
                text += &format!("{negation}{name}'");
            }
            Some(_) => {
                let values: Vec<String> = depend.values.iter().map(|value| format!("'{value}'")).collect();
                text += &match values.as_slice() {
                    [only] => format!("{name}' = {only}"),
                    _ => format!("{name}' in ({})", values.join(", ")),
                };
            }
        }
        Error::new(ErrorCode::OptionInvalid, text)
    }

    fn default_text(&self, matched: Option<&str>) -> Option<Cow<'static, str>> {
        match self.decl.default_for(self.config.command) {
            DefaultValue::None => None,
            DefaultValue::Fixed(text) => Some(text.into()),
            DefaultValue::ByDepend(map) => {
                map.iter().find(|(value, _)| Some(*value) == matched).map(|(_, text)| (*text).into())
            }
            DefaultValue::Program => Some(self.config.program.clone().into()),
        }
    }
}
