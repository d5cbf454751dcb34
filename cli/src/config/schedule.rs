//! Sections of schedules: `[STANZA:schedule:NAME]`.
//!
//! pgBackRest passes over them. Their keys are `schedule` and `command`, options of the command, and options of the daemon
//! for this schedule.

use std::path::Path;

use daemon::job::Completion;
use engine::{Error, ErrorCode, Result};

use super::copy::{ConfigCopy, CopyingFiles};
use super::decl::{Command, OptionDecl, Role, ValueKind};
use super::env::PREFIX;
use super::file::{self, Ini, SystemFiles, read_values};
use super::names::{FoundName, Match, find_option};
use super::options::{ALL, OptionIndex, find, opt};
use super::parse::{FoundOption, FoundOptions};
use super::{Config, Source, resolve, text};
use super::{ExecTarget, Replacement};

/// The word between stanza and name in the title of a section.
const WORD: &str = "schedule";

/// Options of this process that are not for the processes that it starts. The id of a run is shared by processes that
/// work together, which those of different jobs do not.
const OF_PROCESS: [&str; 2] = [opt::EXEC_ID.decl().name, opt::OUTPUT.decl().name];

/// A schedule as configured.
pub struct ScheduleSection {
    /// The stanza.
    pub stanza: String,
    /// The name.
    pub name: String,
    /// When the command runs.
    pub schedule: String,
    /// The options of the daemon for this schedule.
    pub daemon: Config,
    /// The options of the command.
    pub command: Config,
    /// The arguments with which the command is started, the command last.
    pub arguments: Vec<String>,
    /// The command that completes a run whose backup was made.
    pub completion: Option<Completion>,
    /// Secret options of the command, as variables of the environment.
    pub environment: Vec<(String, String)>,
    /// Keys and values of the section without secrets, sorted.
    pub shown: Vec<(String, String)>,
}

/// An option that a section sets.
#[derive(Clone)]
struct SectionOption {
    found: FoundName,
    decl: &'static OptionDecl,
    value: FoundOption,
}

/// What a section sets.
struct SectionContent {
    schedule: String,
    command: Command,
    options: Vec<SectionOption>,
    shown: Vec<(String, String)>,
}

fn invalid(text: String) -> Error {
    Error::new(ErrorCode::OptionInvalid, text)
}

impl Config {
    /// Reads the configuration files again, and returns what was read with it.
    ///
    /// # Errors
    /// The same as [`Config::resolve`].
    pub(crate) fn reread(&self) -> Result<(Config, ConfigCopy)> {
        let files = CopyingFiles::new(&SystemFiles);
        let config = resolve::reread(self, &files)?;
        Ok((config, files.into_copy()))
    }

    /// Returns the schedules of the configuration, by stanza and name: those of `--stanza`, or all.
    ///
    /// # Errors
    /// A section is not valid. The error names it.
    pub fn schedules(&self) -> Result<Vec<ScheduleSection>> {
        let Some(ini) = self.input.ini() else { return Ok(Vec::new()) };
        let mut schedules = Vec::new();
        for section in ini.sections() {
            let mut parts = section.splitn(3, ':');
            let (stanza, word, name) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
            let Some(name) = name.filter(|_| word == Some(WORD)) else { continue };
            if self.find(opt::STANZA).is_some_and(|wanted| wanted != stanza) {
                continue;
            }
            let schedule = self
                .schedule(ini, section, stanza, name)
                .map_err(|error| error.context(format_args!("section '[{}]'", text::show(section))))?;
            schedules.push(schedule);
        }
        Ok(schedules)
    }

    /// Returns the configuration of the daemon with the options of this command, which shows or helps it.
    ///
    /// # Errors
    /// The same as [`Config::resolve`].
    pub fn for_daemon(&self) -> Result<Config> {
        let mut found = self.found_on_line(Command::Daemon);
        if let (Some(index), Some(stanza)) = (find(opt::STANZA.decl().name), self.find(opt::STANZA)) {
            let values = vec![stanza.to_owned()];
            found.replace(index, FoundOption { negate: false, reset: false, source: Source::CommandLine, values });
        }
        resolve::with_found(self, Command::Daemon, found, &mut |_| ())
    }

    /// Returns what the command line of this process sets and the command knows.
    fn found_on_line(&self, command: Command) -> FoundOptions {
        let line = &self.input.line().found;
        let mut found = FoundOptions::new();
        // What `schedule` prints is not what its commands print
        let is_of_process = |decl: &OptionDecl| OF_PROCESS.contains(&decl.name);
        let is_known = |decl: &OptionDecl| decl.is_valid(command, Role::Main) && !is_of_process(decl);
        for index in (0..ALL.len()).filter(|&index| is_known(ALL[index])) {
            for (key, value) in line.of(index) {
                found.add(index, *key, value.clone());
            }
        }
        found
    }

    /// Returns the configuration of a backup of the stanza, which knows the clusters.
    ///
    /// # Errors
    /// The same as [`Config::resolve`].
    pub fn for_backup(&self, stanza: &str) -> Result<Config> {
        self.with_section(Command::Backup, stanza, &[])
    }

    /// Returns the configuration of a command on the stanza, ready for use.
    ///
    /// # Errors
    /// The same as [`Config::resolve`].
    pub fn for_stanza(&self, command: Command, stanza: &str) -> Result<Config> {
        let mut config = self.with_section(command, stanza, &[])?;
        config.adjust()?;
        Ok(config)
    }

    /// Returns the files and directories that the configuration is read from, whether or not they exist.
    pub fn config_paths(&self) -> Vec<std::path::PathBuf> {
        file::paths(self)
    }

    fn schedule(&self, ini: &Ini, section: &str, stanza: &str, name: &str) -> Result<ScheduleSection> {
        if stanza == "global" {
            return Err(invalid("a schedule belongs to a stanza".to_owned())
                .hint(format!("use [STANZA:{WORD}:{}].", text::show(name))));
        }
        let content = read_section(ini, section)?;
        let (of_daemon, of_command): (Vec<_>, Vec<_>) = content
            .options
            .into_iter()
            .partition(|option| option.decl.commands.has(Command::Daemon) && option.decl.own);
        let daemon = self.with_section(Command::Daemon, stanza, &of_daemon)?;
        let command = self.with_section(content.command, stanza, &of_command)?;
        // Combinations that the command refuses, too
        command.clone().adjust()?;
        let (arguments, environment) = self.arguments(content.command, stanza, &of_command);
        let completion = self.completion(&command, stanza, &of_command)?;
        Ok(ScheduleSection {
            stanza: stanza.to_owned(),
            name: name.to_owned(),
            schedule: content.schedule,
            daemon,
            command,
            arguments,
            completion,
            environment,
            shown: content.shown,
        })
    }

    /// Returns the command that does what follows this backup, by the rules of the backup. Another section of the file may
    /// set something else for expire, such as the retention. If that can't be overruled, there is no such command, so that
    /// nothing is removed by the wrong rules.
    fn completion(&self, backup: &Config, stanza: &str, options: &[SectionOption]) -> Result<Option<Completion>> {
        if backup.command() != Command::Backup || backup.find(opt::EXPIRE_AUTO) != Some(true) {
            return Ok(None);
        }
        let is_known = |option: &&SectionOption| option.decl.is_valid(Command::Expire, Role::Main);
        let options: Vec<SectionOption> = options.iter().filter(is_known).cloned().collect();
        let expire = self.with_section(Command::Expire, stanza, &options)?;
        if backup.repo_keys_selected() != expire.repo_keys_selected() {
            return Ok(None);
        }
        let (mut arguments, _) = self.arguments(Command::Expire, stanza, &options);
        for (decl, key, _) in expire.each_slot().filter(|(decl, ..)| backup.is_valid(decl)) {
            let (within, alone) = (backup.display(decl, key), expire.display(decl, key));
            match within {
                _ if within == alone => {}
                Some(within) if !decl.secure && !decl.kind.is_multi() => {
                    arguments.insert(0, format!("--{}={within}", decl.indexed_name(key)));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(Completion { command: Command::Expire.name().to_owned(), arguments }))
    }

    /// Resolves the options of a command with those of a section.
    fn with_section(&self, command: Command, stanza: &str, options: &[SectionOption]) -> Result<Config> {
        // What precedes files: the section, then the command line of the daemon
        let mut found = self.found_on_line(command);
        for option in options {
            found.set(option.found.option, option.found.key, option.value.clone());
        }
        if let Some(index) = find(opt::STANZA.decl().name) {
            let values = vec![stanza.to_owned()];
            found.replace(index, FoundOption { negate: false, reset: false, source: Source::CommandLine, values });
        }
        resolve::with_found(self, command, found, &mut |_| ())
    }

    /// Returns the arguments of the command, and its secrets as variables of the environment.
    fn arguments(
        &self,
        command: Command,
        stanza: &str,
        options: &[SectionOption],
    ) -> (Vec<String>, Vec<(String, String)>) {
        let full_name = |option: &SectionOption| option.decl.indexed_name(option.found.key);
        let names: Vec<String> = options.iter().map(full_name).collect();
        let mut replace: Vec<(&str, Replacement)> =
            names.iter().map(|name| (name.as_str(), Replacement::Omit)).collect();
        replace.push((opt::STANZA.decl().name, Replacement::Text(stanza.to_owned())));
        replace.extend(OF_PROCESS.map(|name| (name, Replacement::Omit)));
        let target = ExecTarget { command, role: Role::Main, replace: &replace, local: true, quote: false };
        let mut all = self.options_for_exec(&target);
        let word = all.pop();
        let mut environment = Vec::new();
        for (option, name) in options.iter().zip(&names) {
            let FoundOption { negate, values, .. } = &option.value;
            if option.decl.secure {
                let variable = format!("{PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"));
                environment.push((variable, values.join(":")));
            } else if option.decl.kind == ValueKind::Boolean {
                all.push(format!("--{name}={}", if *negate { "n" } else { "y" }));
            } else {
                all.extend(values.iter().map(|value| format!("--{name}={value}")));
            }
        }
        all.extend(word);
        (all, environment)
    }

    /// Returns the arguments with which a helper of the daemon is started for a stanza, the command `schedule` last.
    pub fn helper_arguments(&self, stanza: &str) -> Vec<String> {
        let replace = [
            (opt::STANZA.decl().name, Replacement::Text(stanza.to_owned())),
            (OF_PROCESS[0], Replacement::Omit),
            (OF_PROCESS[1], Replacement::Omit),
        ];
        let target =
            ExecTarget { command: Command::Schedule, role: Role::Main, replace: &replace, local: true, quote: false };
        self.options_for_exec(&target)
    }
}

impl Config {
    /// Returns the arguments with which the daemon starts the process that collects metrics, the command last. It writes
    /// to this directory.
    pub fn collector_arguments(&self, path: &Path) -> Vec<String> {
        let text = |text: String| Replacement::Text(text);
        let replace = [
            (opt::MONITOR_PATH.decl().name, text(path.display().to_string())),
            // What could not be collected is in the result
            (opt::LOG_LEVEL_CONSOLE.decl().name, text("off".to_owned())),
            (opt::LOG_LEVEL_STDERR.decl().name, text("error".to_owned())),
            (OF_PROCESS[0], Replacement::Omit),
            (OF_PROCESS[1], Replacement::Omit),
        ];
        let target =
            ExecTarget { command: Command::Metrics, role: Role::Main, replace: &replace, local: true, quote: false };
        self.options_for_exec(&target)
    }
}

fn read_section(ini: &Ini, section: &str) -> Result<SectionContent> {
    let mut words: [Option<String>; 2] = [None, None];
    let mut shown = Vec::new();
    let mut options: Vec<SectionOption> = Vec::new();
    let keys = ini.keys(section);
    for (key, values) in &keys {
        if values.iter().any(|value| !text::is_whole(value)) {
            return Err(text::not_whole(key));
        }
        let slot = match *key {
            "schedule" => &mut words[0],
            "command" => &mut words[1],
            _ => continue,
        };
        let [value] = values.as_slice() else {
            return Err(invalid(format!("key '{key}' cannot be set multiple times")));
        };
        shown.push(((*key).to_owned(), (*value).to_owned()));
        *slot = Some((*value).to_owned());
    }
    let [Some(schedule), Some(word)] = words else {
        return Err(Error::new(ErrorCode::OptionRequired, "keys 'schedule' and 'command' are required"));
    };
    let command = command(&word)?;
    for (key, values) in keys.iter().filter(|(key, _)| !matches!(*key, "schedule" | "command")) {
        let found = option(key, command)?;
        let decl = ALL[found.option];
        let same = |other: &&SectionOption| (other.found.option, other.found.key) == (found.option, found.key);
        if options.iter().find(same).is_some() {
            return Err(invalid(format!("option '{}' is set twice", decl.indexed_name(found.key))));
        }
        let value = read_values(found, section, key, values)?;
        if !decl.secure {
            shown.push(((*key).to_owned(), values.join(", ")));
        }
        options.push(SectionOption { found, decl, value });
    }
    shown.sort();
    Ok(SectionContent { schedule, command, options, shown })
}

/// The command that a schedule may run.
fn command(word: &str) -> Result<Command> {
    let decl = super::decl::COMMANDS.iter().find(|decl| decl.name == word && decl.scheduled);
    decl.map(|decl| decl.command).ok_or_else(|| {
        let names: Vec<&str> =
            super::decl::COMMANDS.iter().filter(|decl| decl.scheduled).map(|decl| decl.name).collect();
        Error::new(ErrorCode::OptionInvalidValue, format!("'{}' is not allowed for key 'command'", text::show(word)))
            .hint(format!("allowed commands are {}.", names.join(", ")))
    })
}

/// The option that a key of a section sets.
fn option(key: &str, command: Command) -> Result<FoundName> {
    let shown = text::show(&super::names::shown(key));
    let Some(found) = find_option(key, Match::Exact)? else {
        return Err(invalid(format!("there is no option '{shown}'")));
    };
    if found.negate || found.reset {
        return Err(invalid(format!("option '{shown}' cannot be negated or reset in a section")));
    }
    let decl = ALL[found.option];
    let of_all = [
        opt::JOB_MAX.decl().name,
        opt::METRICS_DATABASES.decl().name,
        opt::METRICS_FILE.decl().name,
        opt::MONITOR_ADDRESS.decl().name,
        opt::MONITOR_INTERVAL.decl().name,
        opt::MONITOR_TLS_CA_FILE.decl().name,
        opt::MONITOR_TLS_CERT_FILE.decl().name,
        opt::MONITOR_TLS_KEY_FILE.decl().name,
        opt::MONITOR_TOKEN_FILE.decl().name,
        opt::STATE_PATH.decl().name,
    ];
    if of_all.contains(&decl.name) {
        return Err(invalid(format!("option '{shown}' is for all schedules")).hint("set it in [global:daemon]."));
    }
    let of_process: [OptionIndex; 7] = [
        opt::CONFIG.decl().name,
        opt::CONFIG_COPY.decl().name,
        opt::CONFIG_PATH.decl().name,
        opt::CONFIG_INCLUDE_PATH.decl().name,
        opt::EXEC_ID.decl().name,
        opt::JOB_FILE.decl().name,
        opt::STANZA.decl().name,
    ]
    .map(|name| find(name).unwrap_or(usize::MAX));
    let is_of_daemon = decl.own && decl.commands.has(Command::Daemon);
    if of_process.contains(&found.option) || !(is_of_daemon || decl.is_valid(command, Role::Main)) {
        return Err(invalid(format!("option '{shown}' is not valid in a schedule of command '{}'", command.name())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
