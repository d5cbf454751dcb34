//! Converts options back to text, for log lines and arguments of other processes.

use super::decl::{Command, OptionDecl, Role, ValueKind};
use super::options::{ALL, opt};
use super::{Config, Slot, Source, Value};

/// What another process gets instead of this process's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Nothing.
    Omit,
    /// `--name` or `--no-name`.
    Bool(bool),
    /// `--name=text`.
    Text(String),
    /// `--name=text` for each text.
    Texts(Vec<String>),
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

    /// Returns the arguments with which another process runs `command` with the options of this process. The command
    /// comes last.
    ///
    /// The arguments contain options that the other process knows and that are not secret. `replace` contains changes,
    /// by full name. A process on the same host (`local`) reads the same files and environment, so it gets only options
    /// from the command line. With `quote`, values are quoted if a shell needs it.
    pub fn options_for_exec(
        &self,
        command: Command,
        role: Role,
        replace: &[(&str, Replacement)],
        local: bool,
        quote: bool,
    ) -> Vec<String> {
        let mut args = Vec::new();
        for (index, decl) in ALL.iter().enumerate() {
            // Without the passphrase the cipher type is useless
            if !decl.is_valid(command, role) || decl.secure || decl.name == opt::REPO_CIPHER_TYPE.decl().name {
                continue;
            }
            let keys = decl.group.map_or_else(|| vec![0], |group| self.keys(group).to_vec());
            for (position, key) in keys.into_iter().enumerate() {
                let name = decl.indexed_name(key);
                let slot = self.slots[index].get(position);
                let replaced = replace.iter().find(|(replaced, _)| *replaced == name).map(|(_, value)| value);
                self.exec_args(&mut args, decl, key, slot, replaced, local, quote);
            }
        }
        args.push(command.role_name(role));
        args
    }

    /// Returns what an option of another number gets that takes over the value of this one.
    pub(crate) fn taken_over(&self, decl: &OptionDecl, key: u32, slot: &Slot) -> Replacement {
        match &slot.value {
            Some(_) if slot.source == Source::Default => Replacement::Omit,
            Some(Value::Bool(value)) => Replacement::Bool(*value),
            Some(_) => Replacement::Texts(self.texts(decl, key, slot)),
            None => Replacement::Omit,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the body of one loop")]
    fn exec_args(
        &self,
        args: &mut Vec<String>,
        decl: &OptionDecl,
        key: u32,
        slot: Option<&Slot>,
        replaced: Option<&Replacement>,
        local: bool,
        quote: bool,
    ) {
        let name = decl.indexed_name(key);
        let quoted = |value: &str| if quote { quote_for_shell(value) } else { value.to_owned() };
        match (replaced, slot) {
            (Some(Replacement::Omit), _) | (None, None) => (),
            (Some(Replacement::Bool(value)), _) => {
                args.push(format!("--{}{name}", if *value { "" } else { "no-" }));
            }
            (Some(Replacement::Text(value)), _) => args.push(format!("--{name}={}", quoted(value))),
            (Some(Replacement::Texts(values)), _) => {
                args.extend(values.iter().map(|value| format!("--{name}={}", quoted(value))));
            }
            (None, Some(slot)) if slot.negate || slot.source != Source::Default => {
                if local && slot.source != Source::CommandLine {
                    return;
                }
                match &slot.value {
                    _ if slot.negate => args.push(format!("--no-{name}")),
                    Some(Value::Bool(value)) => args.push(format!("--{}{name}", if *value { "" } else { "no-" })),
                    _ => {
                        args.extend(
                            self.texts(decl, key, slot).iter().map(|value| format!("--{name}={}", quoted(value))),
                        );
                    }
                }
            }
            (None, Some(slot)) if slot.reset => args.push(format!("--reset-{name}")),
            (None, Some(_)) => (),
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
