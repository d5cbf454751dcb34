//! Renders `docs/reference.md` and the sample configuration file: every command and option.

use std::fmt::Write as _;

use crate::config::decl::{
    COMMANDS, DefaultValue, HelpGroup, IndexGroup, OptionDecl, Range, Section, Support, ValueKind,
};
use crate::config::options::ALL;

const HEAD: &str = "# Reference

This page is generated from the option table by `rbr docs reference`. A test compares the two.

Set an option on the command line (`--name=value`), in the environment (`PGBACKREST_NAME=value`) or in a configuration file
(`name=value` in `[global]`, `[global:COMMAND]`, `[STANZA]` or `[STANZA:COMMAND]`). The command line takes precedence over the
environment, and the environment over files. In files, sections of the stanza take precedence over global sections, and sections
of the command over general sections. `N` in a name is a number: each repository (`repoN-...`) and each cluster (`pgN-...`) has
its own options.
";

/// The reference.
pub(super) fn render() -> String {
    let mut text = HEAD.to_owned();
    text += "\n## Commands\n";
    for decl in COMMANDS.iter().filter(|decl| !decl.internal) {
        let _ = write!(text, "\n### {}\n\n{} {}\n", decl.name, decl.summary, decl.detail);
    }
    for group in HelpGroup::ALL {
        let _ = write!(text, "\n## {} options\n", group.title());
        for decl in ALL.iter().filter(|decl| decl.help == group && !decl.internal) {
            option(&mut text, decl);
        }
    }
    text
}

/// The name with `N` for the index.
fn name(decl: &OptionDecl) -> String {
    match decl.group {
        None => decl.name.to_owned(),
        Some(group) => format!("{}N{}", group.name(), &decl.name[group.name().len()..]),
    }
}

fn kind(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Boolean => "y or n",
        ValueKind::Integer => "a number",
        ValueKind::Size => "a size (`b`, `k`, `m`, `g`, `t`, `p`; bytes without a unit)",
        ValueKind::Time => "a time (`ms`, `s`, `m`, `h`, `d`, `w`; seconds without a unit)",
        ValueKind::Path => "an absolute path",
        ValueKind::String => "a text",
        ValueKind::StringId => "a word",
        ValueKind::List => "a text, may be repeated",
        ValueKind::Hash => "`key=value`, may be repeated",
    }
}

fn option(text: &mut String, decl: &OptionDecl) {
    let _ = write!(text, "\n### {}\n\n{} {}\n\n", name(decl), decl.summary, decl.detail);
    let _ = writeln!(text, "- value: {}", kind(decl.kind));
    if !decl.allow.is_empty() {
        let _ = writeln!(text, "- allowed: {}", decl.allow.join(", "));
    }
    match decl.range {
        Range::Any => (),
        Range::Fixed(min, max) => {
            let _ = writeln!(text, "- range: {min} to {max}");
        }
        Range::ByDepend(map) => {
            let parts: Vec<String> = map.iter().map(|(value, min, max)| format!("{min} to {max} ({value})")).collect();
            let _ = writeln!(text, "- range: {}", parts.join(", "));
        }
    }
    values(text, decl.values);
    if let Some(default) = default(decl.default) {
        let _ = writeln!(text, "- default: {default}");
    }
    if let Some(depend) = decl.depend {
        let values = if depend.values.is_empty() { String::new() } else { format!(" = {}", depend.values.join(", ")) };
        let _ = writeln!(text, "- only with: {}{values}", depend.option);
    }
    let commands: Vec<&str> = decl.commands.iter().map(|command| command.name()).collect();
    let _ = writeln!(text, "- commands: {}", commands.join(", "));
    overrides(text, decl);
    if decl.own && decl.section == Section::CommandLine {
        text.push_str("- not in pgBackRest: on the command line only, by its full name\n");
    } else if decl.own {
        text.push_str("- not in pgBackRest: on the command line by its full name, in `[global:daemon]`, in `[STANZA:daemon]`, or in the section of a schedule\n");
    } else if decl.section == Section::CommandLine {
        text.push_str("- not in configuration files\n");
    }
    if decl.secure {
        text.push_str("- secret: not on the command line\n");
    }
    if !decl.deprecated.is_empty() {
        let _ = writeln!(text, "- deprecated names: {}", decl.deprecated.join(", "));
    }
    match decl.support {
        Support::Full => (),
        Support::Moot(reason) => {
            let _ = writeln!(text, "- no effect yet: {reason}");
        }
    }
}

/// Appends what is different for some commands.
fn overrides(text: &mut String, decl: &OptionDecl) {
    for special in decl.overrides {
        let mut parts = Vec::new();
        parts.extend(special.default.and_then(default).map(|default| format!("default {default}")));
        parts.extend(special.required.map(|required| if required { "required" } else { "optional" }.to_owned()));
        if !special.allow.is_empty() {
            parts.push(format!("allowed {}", special.allow.join(", ")));
        }
        if let Some(depend) = special.depend {
            parts.push(format!("only with {}", depend.option));
        }
        if !parts.is_empty() {
            let _ = writeln!(text, "- {}: {}", special.command.name(), parts.join("; "));
            values(text, special.values);
        }
    }
}

/// Appends the meaning of the allowed words.
fn values(text: &mut String, values: &[(&str, &str)]) {
    for (value, meaning) in values {
        let _ = writeln!(text, "  - {value}: {meaning}");
    }
}

fn default(value: DefaultValue) -> Option<String> {
    match value {
        DefaultValue::None => None,
        DefaultValue::Fixed(value) => Some(value.to_owned()),
        DefaultValue::ByDepend(map) => {
            let parts: Vec<String> = map.iter().map(|(value, default)| format!("{default} ({value})")).collect();
            Some(parts.join(", "))
        }
        DefaultValue::Program => Some("the path of the program".to_owned()),
    }
}

/// Returns a configuration file with every supported option, commented out.
pub(super) fn sample() -> String {
    let mut text =
        "# Sample configuration, generated from the option table (rbr docs sample). Lines are key=value; everything after\n\
                    # the first = belongs to the value.\n\n[global]\n"
            .to_owned();
    let in_files = |section: Section, own: bool| {
        ALL.iter().filter(move |decl| decl.section == section && decl.own == own && !decl.internal)
    };
    for decl in in_files(Section::Global, false) {
        sample_option(&mut text, decl);
    }
    text += "\n# One section per stanza; choose any name\n[demo]\n";
    for decl in in_files(Section::Stanza, false) {
        sample_option(&mut text, decl);
    }
    text += "\n# Schedules are in sections such as [demo:schedule:nightly], with the keys schedule and command, and any option of\n\
             # the command (rbr help daemon). pgBackRest ignores these sections. Options for all schedules:\n[global:daemon]\n";
    for decl in in_files(Section::Global, true) {
        sample_option(&mut text, decl);
    }
    text
}

fn sample_option(text: &mut String, decl: &OptionDecl) {
    let value = match decl.default {
        DefaultValue::Fixed(value) => value,
        DefaultValue::ByDepend([(_, value), ..]) => value,
        _ => "",
    };
    let name = match decl.group {
        Some(IndexGroup::Pg | IndexGroup::Repo) => decl.indexed_name(1),
        None => decl.name.to_owned(),
    };
    let _ = write!(text, "\n# {}\n#{name}={value}\n", decl.summary);
}
