//! What help for an option says after pgBackRest's part: where the value comes from, when to change it, how to write it.

use std::fmt::Write as _;

use super::{advice, example, wrap};
use crate::config::decl::{OptionDecl, Section};
use crate::config::{Config, variable_name};

/// Renders the paragraphs after the default.
pub(super) fn render(config: &Config, option: &OptionDecl) -> String {
    let mut text = sources(config, option);
    if let Some(advice) = advice::when_to_change(option.name) {
        let _ = write!(text, "\n{}\n", wrap(&format!("when to change: {advice}"), 0, true));
    }
    if let Some(example) = example(option, config.command()) {
        let _ = write!(text, "\nexample: {example}\n");
        let in_files = !matches!(option.section, Section::CommandLine);
        if let Some(line) = example.strip_prefix("--").filter(|_| in_files) {
            let line = match (line.strip_prefix("no-"), line.contains('=')) {
                (Some(name), false) => format!("{name}=n"),
                (None, false) => format!("{line}=y"),
                _ => line.to_owned(),
            };
            let owner = if option.section == Section::Stanza { "of the stanza" } else { "[global] or of the stanza" };
            let _ = writeln!(text, "in a configuration file: {line} (section {owner})");
        }
    }
    if !option.own {
        let _ = write!(text, "\nenvironment variable: {}\n", variable_name(option, 1));
    }
    text
}

/// The places where the shown values were set.
fn sources(config: &Config, option: &OptionDecl) -> String {
    let values = config.shown_values(option);
    let several = values.len() > 1;
    let mut text = String::new();
    for (key, value, _) in values {
        let Some(origin) = value.and_then(|_| config.origin(option, key)) else { continue };
        match option.group.filter(|_| several) {
            Some(group) => {
                if text.is_empty() {
                    text.push_str("source:\n");
                }
                let _ = writeln!(text, "  {}{key}: {origin}", group.name());
            }
            None => {
                let _ = writeln!(text, "source: {origin}");
            }
        }
    }
    text
}
