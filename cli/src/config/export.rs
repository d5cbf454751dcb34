//! Converts options back to text, for log lines and arguments of other processes.

use super::decl::{Command, IndexGroup, OptionDecl, Role, Section, ValueKind};
use super::options::{ALL, opt};
use super::{Config, Slot, Source, Value};

/// What another process gets instead of this process's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Nothing.
    Omit,
    /// `--name` or `--no-name`.
    Bool(bool),
    /// `--reset-name`.
    Reset,
    /// `--name=text`.
    Text(String),
    /// `--name=text` for each text.
    Texts(Vec<String>),
}

/// The process that gets the options of this one.
#[derive(Clone, Copy, Debug)]
pub struct ExecTarget<'a> {
    /// Its command.
    pub command: Command,
    /// Its role.
    pub role: Role,
    /// Values that it gets instead, by full name.
    pub replace: &'a [(&'a str, Replacement)],
    /// A process on the same host reads the same files and environment, so it gets only options from the command line.
    pub local: bool,
    /// Whether to quote values if a shell needs it.
    pub quote: bool,
}

impl Config {
    /// Returns the text after `command begin` in the log: parameters and configured options, without secrets. It begins
    /// with a space unless it is empty.
    pub fn begin_text(&self) -> String {
        let mut text = String::new();
        if !self.params.is_empty() {
            let params: Vec<String> = self.params.iter().map(|param| quote_blanks(param)).collect();
            text = format!(" [{}]", params.join(", "));
        }
        for (decl, key, slot) in self.each_slot() {
            // Consecutive commands do not show each other's options
            if !decl.is_valid(self.command, self.role) {
                continue;
            }
            let name = decl.indexed_name(key);
            if slot.negate {
                text += &format!(" --no-{name}");
            } else if slot.reset {
                text += &format!(" --reset-{name}");
            } else if slot.source != Source::Default {
                if decl.secure {
                    text += &format!(" --{name}=<redacted>");
                } else if decl.kind == ValueKind::Boolean {
                    text += &format!(" --{name}");
                } else {
                    for value in self.texts(decl, key, slot) {
                        text += &format!(" --{name}={}", quote_blanks(&value));
                    }
                }
            }
        }
        text
    }

    /// Returns the arguments with which another process runs a command with the options of this process. The command
    /// comes last.
    ///
    /// The arguments contain options that the other process knows and that are not secret.
    pub fn options_for_exec(&self, target: &ExecTarget<'_>) -> Vec<String> {
        let mut args = Vec::new();
        let quoted = |value: &str| if target.quote { quote_for_shell(value) } else { value.to_owned() };
        for (index, decl) in ALL.iter().enumerate() {
            // Without the passphrase the cipher type is useless
            if !decl.is_valid(target.command, target.role)
                || decl.secure
                || decl.name == opt::REPO_CIPHER_TYPE.decl().name
            {
                continue;
            }
            let keys = decl.group.map_or_else(|| vec![0], |group| self.keys(group).to_vec());
            for (position, key) in keys.into_iter().enumerate() {
                let name = decl.indexed_name(key);
                let replaced = target.replace.iter().find(|(replaced, _)| *replaced == name);
                let argument = match (replaced, self.slots[index].get(position)) {
                    (Some((_, value)), _) => value.clone(),
                    (None, Some(slot)) => self.argument(decl, key, slot, target.local),
                    (None, None) => Replacement::Omit,
                };
                match argument {
                    Replacement::Omit => (),
                    Replacement::Bool(true) => args.push(format!("--{name}")),
                    Replacement::Bool(false) => args.push(format!("--no-{name}")),
                    Replacement::Reset => args.push(format!("--reset-{name}")),
                    Replacement::Text(value) => args.push(format!("--{name}={}", quoted(&value))),
                    Replacement::Texts(values) => {
                        args.extend(values.iter().map(|value| format!("--{name}={}", quoted(value))));
                    }
                }
            }
        }
        args.push(target.command.role_name(target.role));
        args
    }

    /// Returns what another process gets for an option that nothing replaces.
    pub(crate) fn argument(&self, decl: &OptionDecl, key: u32, slot: &Slot, local: bool) -> Replacement {
        if !slot.negate && slot.source == Source::Default {
            return if slot.reset { Replacement::Reset } else { Replacement::Omit };
        }
        if local && slot.source != Source::CommandLine {
            return Replacement::Omit;
        }
        match &slot.value {
            _ if slot.negate => Replacement::Bool(false),
            Some(Value::Bool(value)) => Replacement::Bool(*value),
            _ => Replacement::Texts(self.texts(decl, key, slot)),
        }
    }

    /// Returns the values of an option, one for each time that it would be written.
    fn texts(&self, decl: &OptionDecl, key: u32, slot: &Slot) -> Vec<String> {
        match &slot.value {
            None => Vec::new(),
            Some(Value::List(values)) => values.clone(),
            Some(Value::Map(pairs)) => pairs.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            Some(_) => self.display(decl, key).map(std::borrow::Cow::into_owned).into_iter().collect(),
        }
    }
}

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileLine {
    /// Whether it belongs into the section of the stanza.
    pub(crate) of_stanza: bool,
    /// The option's name with its index.
    pub(crate) key: String,
    /// The value as in the file.
    pub(crate) value: String,
    /// Whether the value is a secret.
    pub(crate) secure: bool,
    /// Whether it is from the command line.
    pub(crate) typed: bool,
}

impl Config {
    /// Returns what command line and environment set and a configuration file can contain. How much this process prints
    /// is not part of it.
    pub(crate) fn lines_for_file(&self) -> Vec<FileLine> {
        let mut lines = Vec::new();
        for (decl, key, slot) in self.each_slot() {
            let is_set = matches!(slot.source, Source::CommandLine | Source::Environment);
            let is_of_process =
                [opt::LOG_LEVEL_CONSOLE.decl().name, opt::LOG_LEVEL_STDERR.decl().name].contains(&decl.name);
            if !is_set || is_of_process || decl.section == Section::CommandLine {
                continue;
            }
            let values = match &slot.value {
                Some(Value::Bool(value)) => vec![if *value { "y" } else { "n" }.to_owned()],
                _ => self.texts(decl, key, slot),
            };
            let line = |value| FileLine {
                of_stanza: decl.section == Section::Stanza || decl.group == Some(IndexGroup::Pg),
                key: decl.indexed_name(key),
                value,
                secure: decl.secure,
                typed: slot.source == Source::CommandLine,
            };
            lines.extend(values.into_iter().map(line));
        }
        lines
    }
}

/// The text in quotes if it has a blank.
fn quote_blanks(text: &str) -> String {
    if text.contains(' ') { format!("\"{text}\"") } else { text.to_owned() }
}

/// Returns the text as one word of a shell command line. Text without special characters is not quoted. Blanks are
/// quoted as pgBackRest does, which quotes nothing else, so that a shell executes parts of some paths.
pub fn quote_for_shell(text: &str) -> String {
    let special = |char: char| char.is_whitespace() || char.is_control() || "\"'\\$`&|;<>()*?[]{}!".contains(char);
    // These mean something at the beginning of a word only
    if !text.is_empty() && !text.contains(special) && !text.starts_with(['~', '#']) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for char in text.chars() {
        if matches!(char, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(char);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_needs_no_quotes_looks_as_pgbackrest_writes_it() {
        for text in ["/var/lib/pg-15/data_1", "a=b,c:d@e+f%g", "/x/~a#b", "ä"] {
            assert_eq!(quote_for_shell(text), text);
        }
        assert_eq!(quote_for_shell("/with a blank"), "\"/with a blank\"");
    }

    #[test]
    fn every_text_is_one_word_to_a_shell() {
        let all: String = (1u8..=127).map(char::from).collect();
        let mut texts: Vec<String> =
            all.chars().flat_map(|char| [format!("{char}"), format!("a{char}b"), format!("{char} x")]).collect();
        texts
            .extend(["", "$HOME", "`id`", "a\\ b", "$(id)", "~root", "# no", "a'b\"c", "ä ö", "\\"].map(str::to_owned));
        texts.push(all);
        let words: Vec<String> = texts.iter().map(|text| quote_for_shell(text)).collect();
        let script = format!("printf '%s\\0' {}", words.join(" "));
        let output = std::process::Command::new("/bin/sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let read = String::from_utf8(output.stdout).unwrap();
        let read: Vec<&str> = read.split_terminator('\0').collect();
        assert_eq!(read, texts);
    }
}
