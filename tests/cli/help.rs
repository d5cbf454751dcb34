//! `help` has pgBackRest's layout and its complete list of commands and options, as far as shell completion and people
//! parse it.

use std::collections::BTreeSet;

use cli::config::decl::COMMANDS;
use cli::config::options::ALL;

use crate::env::{Space, oracles};

/// Returns the first words of the lines that are indented by exactly `indent` spaces, between a heading and the last
/// line.
fn first_words(text: &str, indent: usize) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.len() > indent && line[..indent].trim().is_empty() && !line[indent..].starts_with(' '))
        .filter_map(|line| line[indent..].split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn general_help_lists_the_commands_of_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    let space = Space::new();
    let theirs = space.run(&oracles.pgbackrest, &["help"]).success().stdout;
    let ours = space.run(space.path("bin/rbr"), &["help"]).success().stdout;
    let commands = |text: &str| -> BTreeSet<String> {
        first_words(text, 4).into_iter().filter(|word| word != "rbr" && word != "pgbackrest").collect()
    };
    let (expected, mut found) = (commands(&theirs), commands(&ours));
    for own in COMMANDS.iter().filter(|decl| decl.own) {
        assert!(found.remove(own.name), "{ours}");
    }
    assert!(expected.len() > 15, "{theirs}");
    assert_eq!(expected, found, "{ours}");
}

#[test]
fn command_help_lists_the_options_of_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    let space = Space::new();
    let general = space.run(&oracles.pgbackrest, &["help"]).success().stdout;
    let mut commands = first_words(&general, 4);
    commands.remove("pgbackrest");
    for command in commands {
        let theirs = space.run(&oracles.pgbackrest, &["help", &command]).success().stdout;
        let ours = space.run(space.path("bin/rbr"), &["help", &command]).success().stdout;
        let options = |text: &str| -> BTreeSet<String> {
            first_words(text, 2).into_iter().filter(|word| word.starts_with("--")).collect()
        };
        let mut found = options(&ours);
        for own in ALL.iter().filter(|decl| decl.own) {
            found.remove(&format!("--{}", own.name));
        }
        // Only for an option that pgBackRest does not have
        if command == "verify" {
            found.remove("--lock-path");
        }
        for decl in COMMANDS.iter().filter(|decl| decl.name == command) {
            for own in ALL.iter().filter(|option| option.own_commands.has(decl.command)) {
                found.remove(&format!("--{}", own.name));
            }
        }
        assert_eq!(options(&theirs), found, "{command}");
        let headings = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.ends_with("Options:")).map(str::to_owned).collect()
        };
        assert_eq!(headings(&theirs), headings(&ours), "{command}");
    }
}

/// Returns what shell completion for pgBackRest extracts from the help of an option: the words after asterisks, the
/// allowed sizes, and the default.
fn extracted(text: &str) -> (Vec<&str>, String, Vec<&str>) {
    let words = text.lines().filter_map(|line| line.strip_prefix("* ")?.split_whitespace().next()).collect();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("Allowed values"));
    let sizes = format!("{} {}", lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    (words, sizes, text.lines().filter(|line| line.starts_with("default: ")).collect())
}

#[test]
fn option_help_gives_completion_what_pgbackrest_gives() {
    let Some(oracles) = oracles(&[]) else { return };
    let space = Space::new();
    let general = space.run(&oracles.pgbackrest, &["help"]).success().stdout;
    let mut commands = first_words(&general, 4);
    commands.remove("pgbackrest");
    let mut seen = BTreeSet::new();
    for command in commands {
        let list = space.run(&oracles.pgbackrest, &["help", &command]).success().stdout;
        for option in first_words(&list, 2).iter().filter_map(|word| word.strip_prefix("--")) {
            // Most options are the same for all commands
            if option == "cmd" || !seen.insert(option.to_owned()) && !matches!(option, "type" | "output") {
                continue;
            }
            let theirs = space.run(&oracles.pgbackrest, &["help", &command, option]).success().stdout;
            let ours = space.run(space.path("bin/rbr"), &["help", &command, option]).success().stdout;
            // A value that is not built yet is not offered
            let (mut expected, mut found) = (extracted(&theirs), extracted(&ours));
            // Our own
            if (command.as_str(), option) == ("verify", "output") {
                found.0.retain(|word| *word != "json");
            }
            if option == "repo-gcs-key-type" && !found.0.contains(&"web-id") {
                expected.0.retain(|word| *word != "web-id");
            }
            assert_eq!(found, expected, "{command} {option}");
        }
    }
    assert!(seen.len() > 150, "{}", seen.len());
}

#[test]
fn option_help_names_default_and_option() {
    let space = Space::new();
    let text = space.run(space.path("bin/rbr"), &["help", "backup", "process-max"]).success().stdout;
    assert!(text.contains("'backup' command - 'process-max' option help") && text.contains("default: 1"), "{text}");
    space.run(space.path("bin/rbr"), &["help", "nosuch"]).fails(48);
}
