//! `docs/compatibility.md`: what exists and what does not.

use std::fmt::Write as _;

use crate::command;
use crate::config::decl::{COMMANDS, Role, Support};
use crate::config::options::ALL;

const HEAD: &str = "# Compatibility with pgBackRest

This page is made from the option table (`rbr docs compatibility`); a test compares it.

rbr reads and writes repositories of pgBackRest 2.60 (format 5) and takes its commands, options, configuration files and
environment variables. What is not built yet is refused with error 67 when it is asked for. Options that are accepted although
there is nothing that they could apply to yet are listed with the reason.
";

/// The page.
pub(super) fn render() -> String {
    let mut text = HEAD.to_owned();

    text += "\n## Commands\n\n| command | main process | other roles |\n| --- | --- | --- |\n";
    for decl in &COMMANDS {
        let main = if command::handler(decl.command, Role::Main).is_some() { "yes" } else { "not yet" };
        let others: Vec<&str> = Role::ALL
            .into_iter()
            .filter(|&role| decl.roles.has(role) && command::handler(decl.command, role).is_some())
            .filter_map(Role::name)
            .collect();
        let others = if others.is_empty() { "-".to_owned() } else { others.join(", ") };
        let _ = writeln!(text, "| {} | {main} | {others} |", decl.name);
    }

    let count = ALL.iter().filter(|decl| decl.support == Support::Full).count();
    let _ = write!(text, "\n## Options\n\n{count} of {} options are supported. The others:\n\n", ALL.len());
    text += "| option | state |\n| --- | --- |\n";
    for decl in &ALL {
        match decl.support {
            Support::Full => (),
            Support::Moot(reason) => {
                let _ = writeln!(text, "| {} | accepted, has no effect yet: {reason} |", decl.name);
            }
            Support::NotYet(feature) => {
                let _ = writeln!(text, "| {} | not yet: needs {feature} |", decl.name);
            }
        }
    }

    text += "\n## Values\n\nValues of supported options that are refused:\n\n| option | value | state |\n| --- | --- | --- |\n";
    for decl in &ALL {
        for (value, feature) in decl.not_yet {
            let _ = writeln!(text, "| {} | {value} | not yet: needs {feature} |", decl.name);
        }
        for special in decl.overrides {
            for (value, feature) in special.not_yet {
                let name = special.command.name();
                let _ = writeln!(text, "| {} ({name}) | {value} | not yet: needs {feature} |", decl.name);
            }
        }
    }
    text
}
