//! Suggests the names that a user may have meant by one that does not exist.
//!
//! pgBackRest suggests nothing. Its error numbers and texts stay; the suggestion is a hint after them.

use std::collections::BTreeSet;

use engine::Error;

use super::decl::{COMMANDS, Command, Role};
use super::names::KEY_MAX;
use super::options::ALL;

/// The most names of one suggestion. More say nothing.
const NAMES_MAX: usize = 3;
/// The longest name that is looked at.
const LENGTH_MAX: usize = 64;

/// Returns a hint with the commands that are similar to this name.
pub(super) fn command(name: &str) -> Option<String> {
    let name = name.split(':').next().unwrap_or(name);
    let known = COMMANDS.iter().filter(|decl| !decl.internal).map(|decl| decl.name);
    hint(similar(&plain(name), known).into_iter().map(ToOwned::to_owned), "")
}

/// Returns a hint with the options that are similar to this name from the command line, which does not accept secrets.
pub(super) fn option_on_command_line(name: &str) -> Option<String> {
    hint(options(name, |decl| !decl.secure), "--")
}

/// Returns a hint with the options that are similar to this name from a configuration file or the environment.
pub(super) fn option_in_file(name: &str) -> Option<String> {
    hint(options(name, |decl| !decl.own), "")
}

/// Adds the hint to an error.
pub(crate) fn hinted(error: Error, hint: Option<String>) -> Error {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Adds the hint to the text of a warning.
pub(super) fn with_hint(text: String, hint: Option<String>) -> String {
    match hint {
        Some(hint) => format!("{text}\nHINT: {hint}"),
        None => text,
    }
}

/// Returns a hint with the options of a command that are similar to this name.
pub(crate) fn option_of(command: Command, name: &str) -> Option<String> {
    hint(options(name, |decl| decl.is_valid(command, Role::Main)), "")
}

fn hint(names: impl IntoIterator<Item = String>, dashes: &str) -> Option<String> {
    let names: Vec<String> = names.into_iter().map(|name| format!("'{dashes}{name}'")).collect();
    let (last, others) = names.split_last()?;
    Some(match others {
        [] => format!("did you mean {last}?"),
        _ => format!("did you mean {} or {last}?", others.join(", ")),
    })
}

/// Returns the names of similar options, with the prefix and the index of the name.
fn options(name: &str, allowed: impl Fn(&super::OptionDecl) -> bool) -> Vec<String> {
    let name = plain(name);
    let prefix = ["no-", "reset-"].into_iter().find(|prefix| name.starts_with(prefix)).unwrap_or_default();
    let (base, key) = split_index(&name[prefix.len()..]);
    let fits = |decl: &&&'static super::OptionDecl| {
        let can = match prefix {
            "no-" => decl.can_negate(),
            "reset-" => decl.can_reset(),
            _ => true,
        };
        can && !decl.internal && allowed(decl)
    };
    let known: Vec<_> = ALL.iter().filter(fits).collect();
    let names = similar(&base, known.iter().map(|decl| decl.name));
    let written = |name: &str| {
        let decl = known.iter().find(|decl| decl.name == name)?;
        Some(format!("{prefix}{}", decl.indexed_name(key.unwrap_or(1))))
    };
    names.into_iter().filter_map(written).collect()
}

/// The name in the form of names: lower case, dashes.
fn plain(name: &str) -> String {
    name.chars().take(LENGTH_MAX).map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Splits `repo1-pth` into `repo-pth` and 1.
fn split_index(name: &str) -> (String, Option<u32>) {
    let (head, rest) = name.split_at(name.find('-').unwrap_or(name.len()));
    let group = head.trim_end_matches(|c: char| c.is_ascii_digit());
    match head[group.len()..].parse() {
        Ok(key) if (1..=KEY_MAX).contains(&key) => (format!("{group}{rest}"), Some(key)),
        _ => (name.to_owned(), None),
    }
}

/// Returns the names that are most similar to one: those that differ by few letters; otherwise those that have the same
/// words in another order, or that end with it.
fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Vec<&'a str> {
    let most = name.chars().count().div_ceil(4).clamp(1, 3);
    let near = known.clone().map(|known| (strsim::osa_distance(name, known), known));
    let near: Vec<_> = near.filter(|(distance, known)| *distance <= most && *distance < known.len()).collect();
    if let Some(least) = near.iter().map(|(distance, _)| *distance).min() {
        return near
            .into_iter()
            .filter(|(distance, _)| *distance == least)
            .map(|(_, known)| known)
            .take(NAMES_MAX)
            .collect();
    }
    let words = |name: &'a str| name.split('-').collect::<BTreeSet<_>>();
    let wanted: BTreeSet<&str> = name.split('-').collect();
    let reordered: Vec<&str> = known.clone().filter(|known| words(known) == wanted).collect();
    if !reordered.is_empty() {
        return reordered;
    }
    let ending = known.filter(|known| known.strip_suffix(name).is_some_and(|before| before.ends_with('-')));
    let ending: Vec<&str> = ending.collect();
    if ending.len() <= NAMES_MAX { ending } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_a_typing_error_suggests_the_right_one() {
        for (typed, meant) in [
            ("bakup", "'backup'"),
            ("bakcup", "'backup'"),
            ("retore", "'restore'"),
            ("create-stanza", "'stanza-create'"),
            ("Stanza_Create", "'stanza-create'"),
            ("upgrade", "'stanza-upgrade'"),
        ] {
            assert_eq!(command(typed), Some(format!("did you mean {meant}?")), "{typed}");
        }
        for (typed, meant) in [
            ("stnaza", "'--stanza'"),
            ("compres-type", "'--compress-type'"),
            ("repo2-retention-ful", "'--repo2-retention-full'"),
            ("retention-full", "'--repo1-retention-full'"),
            ("no-detla", "'--no-delta'"),
            ("proces_max", "'--process-max'"),
            ("verify-exitcode", "'--verify-exit-code'"),
        ] {
            assert_eq!(option_on_command_line(typed), Some(format!("did you mean {meant}?")), "{typed}");
        }
    }

    #[test]
    fn name_that_resembles_nothing_suggests_nothing() {
        for typed in ["bogus", "", "x", "-", "frobnicate", &"a".repeat(500), "ä-ö", "ÄÖÜ"] {
            assert_eq!(command(typed), None, "{typed}");
            assert_eq!(option_on_command_line(typed), None, "{typed}");
        }
    }

    #[test]
    fn secret_is_only_suggested_where_it_may_be_set() {
        assert_eq!(option_on_command_line("repo1-cipher-pas"), None);
        assert_eq!(option_in_file("repo1-cipher-pas"), Some("did you mean 'repo1-cipher-pass'?".into()));
        // Only the command line accepts options that pgBackRest does not have
        assert_eq!(option_in_file("verify-exit-cod"), None);
    }
}
