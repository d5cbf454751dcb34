//! Checks of the whole table.

use super::*;
use crate::config::decl::{DefaultValue, Depend, Range, Role, Section, ValueKind};
use crate::config::value::{parse_integer, parse_size, parse_time};
use crate::config::{NameMatch, find_option};

fn number(decl: &OptionDecl, text: &str) -> Option<i64> {
    match decl.kind {
        ValueKind::Integer => parse_integer(text),
        ValueKind::Size => parse_size(text).and_then(|size| i64::try_from(size).ok()),
        ValueKind::Time => parse_time(text),
        _ => None,
    }
}

/// Every dependency of an option, of all commands.
fn depends(decl: &OptionDecl) -> impl Iterator<Item = Depend> {
    decl.depend.into_iter().chain(decl.overrides.iter().filter_map(|special| special.depend))
}

/// Every default of an option, of all commands.
fn defaults(decl: &OptionDecl) -> Vec<&'static str> {
    let all = std::iter::once(decl.default).chain(decl.overrides.iter().filter_map(|special| special.default));
    all.flat_map(|default| match default {
        DefaultValue::None | DefaultValue::Program => Vec::new(),
        DefaultValue::Fixed(text) => vec![text],
        DefaultValue::ByDepend(map) => map.iter().map(|(_, text)| *text).collect(),
    })
    .collect()
}

#[test]
fn table_has_every_option_of_the_release_sorted() {
    assert_eq!(ALL.iter().filter(|decl| !decl.own).count(), 202);
    assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name));
    for (index, decl) in ALL.iter().enumerate() {
        assert_eq!(find(decl.name), Some(index));
    }
}

#[test]
fn command_table_is_in_the_order_of_the_enum() {
    for (index, decl) in COMMANDS.iter().enumerate() {
        assert_eq!(decl.command as usize, index, "{}", decl.name);
        assert!(decl.roles.has(Role::Main), "{}", decl.name);
        assert!(decl.summary.ends_with('.') && !decl.detail.is_empty(), "{}", decl.name);
    }
}

#[test]
fn resolve_order_has_each_option_once_behind_what_it_depends_on() {
    let place = |name: &str| RESOLVE_ORDER.iter().position(|&index| ALL[usize::from(index)].name == name).unwrap();
    let mut seen: Vec<u16> = RESOLVE_ORDER.to_vec();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), COUNT);
    for decl in ALL {
        for depend in depends(decl) {
            assert!(place(depend.option) < place(decl.name), "{}", decl.name);
        }
    }
}

#[test]
fn names_fit_their_group_and_the_limit() {
    for decl in ALL {
        assert!(decl.name.len() + 4 <= 64, "{}", decl.name);
        if let Some(group) = decl.group {
            assert!(decl.name.starts_with(&format!("{}-", group.name())), "{}", decl.name);
        }
    }
}

#[test]
fn texts_are_there() {
    for decl in ALL {
        assert!(decl.summary.ends_with('.') && decl.summary.len() <= 60, "{}", decl.name);
        assert!(decl.detail.ends_with('.'), "{}", decl.name);
        for special in decl.overrides {
            assert_eq!(special.summary.is_empty(), special.detail.is_empty(), "{}", decl.name);
        }
    }
}

#[test]
fn overrides_are_for_commands_that_know_the_option() {
    for decl in ALL {
        for (index, special) in decl.overrides.iter().enumerate() {
            assert!(decl.commands.has(special.command), "{} {}", decl.name, special.command.name());
            let again = decl.overrides[..index].iter().any(|other| other.command == special.command);
            assert!(!again, "{} {}", decl.name, special.command.name());
        }
    }
}

#[test]
fn dependencies_are_possible() {
    for decl in ALL {
        for depend in depends(decl) {
            let other = ALL[find(depend.option).unwrap()];
            for value in depend.values {
                let possible = match other.kind {
                    ValueKind::Boolean => matches!(*value, "y" | "n"),
                    _ => COMMANDS.iter().any(|command| other.allow_for(command.command).contains(value)),
                };
                assert!(possible, "{}: {}={value}", decl.name, other.name);
            }
            if let Some(otherwise) = depend.otherwise {
                let fits = match decl.kind {
                    ValueKind::Boolean => matches!(otherwise, "y" | "n"),
                    _ => number(decl, otherwise).is_some(),
                };
                assert!(fits, "{}", decl.name);
            }
        }
    }
}

#[test]
fn an_option_and_what_it_depends_on_are_known_to_the_same_commands() {
    for decl in ALL {
        for command in decl.commands.iter() {
            let Some(depend) = decl.depend_for(command) else { continue };
            let other = ALL[find(depend.option).unwrap()];
            assert!(other.commands.has(command), "{} needs {} in {}", decl.name, other.name, command.name());
        }
    }
}

#[test]
fn ranges_are_ordered_and_hold_the_defaults() {
    for decl in ALL {
        let ranges: Vec<(&str, &str)> = match decl.range {
            Range::Any => continue,
            Range::Fixed(min, max) => vec![(min, max)],
            Range::ByDepend(map) => map.iter().map(|(_, min, max)| (*min, *max)).collect(),
        };
        let limits: Vec<(i64, i64)> =
            ranges.iter().map(|(min, max)| (number(decl, min).unwrap(), number(decl, max).unwrap())).collect();
        assert!(limits.iter().all(|(min, max)| min < max), "{}", decl.name);
        for default in defaults(decl) {
            let default = number(decl, default).unwrap();
            assert!(limits.iter().any(|(min, max)| (*min..=*max).contains(&default)), "{}", decl.name);
        }
        if let Range::ByDepend(map) = decl.range {
            let depend = decl.depend.unwrap();
            assert!(map.iter().all(|(value, ..)| depend.values.contains(value)), "{}", decl.name);
        }
    }
}

#[test]
fn defaults_fit_the_kind() {
    for decl in ALL {
        for default in defaults(decl) {
            let fits = match decl.kind {
                ValueKind::Boolean => matches!(default, "y" | "n"),
                ValueKind::Integer | ValueKind::Size | ValueKind::Time => number(decl, default).is_some(),
                ValueKind::StringId => {
                    COMMANDS.iter().any(|command| decl.allow_for(command.command).contains(&default))
                }
                ValueKind::Path => default.starts_with('/'),
                ValueKind::String => !default.is_empty(),
                ValueKind::List | ValueKind::Hash => false,
            };
            assert!(fits, "{} {default}", decl.name);
        }
        // A boolean without a default would have three values
        assert!(
            decl.kind != ValueKind::Boolean || decl.default != DefaultValue::None || !decl.required,
            "{}",
            decl.name
        );
    }
}

#[test]
fn word_lists_exist_for_words() {
    for decl in ALL {
        let has_list = !decl.allow.is_empty() || decl.overrides.iter().any(|special| !special.allow.is_empty());
        match decl.kind {
            ValueKind::StringId => assert!(has_list, "{}", decl.name),
            ValueKind::Size => assert!(decl.allow.iter().all(|text| number(decl, text).is_some()), "{}", decl.name),
            ValueKind::Integer => assert!(decl.allow.iter().all(|text| text.parse::<i64>().is_ok()), "{}", decl.name),
            _ => assert!(!has_list, "{}", decl.name),
        }
        assert!(!decl.bool_like || (decl.allow.contains(&"y") && decl.allow.contains(&"n")), "{}", decl.name);
    }
}

#[test]
fn every_old_name_leads_to_its_option() {
    let mut count = 0;
    for (index, decl) in ALL.iter().enumerate() {
        for old in decl.deprecated {
            count += 1;
            let name = old.replace('?', "3");
            let found = find_option(&name, NameMatch::Exact).unwrap().unwrap_or_else(|| panic!("{name}"));
            assert_eq!(found.option, index, "{name}");
            assert_eq!(found.key, if old.contains('?') { 3 } else { 1 }, "{name}");
        }
    }
    assert_eq!(count, 51);
}

#[test]
fn every_name_and_every_unique_prefix_leads_to_its_option() {
    for (index, decl) in ALL.iter().enumerate() {
        let name = decl.indexed_name(2);
        let found = find_option(&name, NameMatch::Prefix).unwrap().unwrap();
        assert_eq!(found.option, index, "{name}");
        let shorter = &decl.name[..decl.name.len() - 1];
        let is_unique =
            !decl.own && ALL.iter().filter(|other| !other.own && other.name.starts_with(shorter)).count() == 1;
        if is_unique && decl.group.is_none() && shorter.len() > 1 && !shorter.ends_with('-') {
            assert_eq!(find_option(shorter, NameMatch::Prefix).unwrap().unwrap().option, index, "{shorter}");
            assert_eq!(find_option(shorter, NameMatch::Exact).unwrap(), None, "{shorter}");
        }
    }
}

#[test]
fn own_options_never_meet_pgbackrest() {
    for decl in ALL.iter().filter(|decl| decl.own) {
        let name = decl.name;
        assert!(
            decl.section == Section::CommandLine || decl.commands.iter().all(|command| command.decl().own),
            "{name}: pgBackRest would warn about it in a configuration file"
        );
        let is_shared = decl.commands.iter().any(|command| !command.decl().own);
        assert!(!is_shared || !decl.required || decl.default != DefaultValue::None, "{name}");
        let begins_another = ALL.iter().any(|other| !other.own && other.name.starts_with(name));
        assert!(!begins_another, "{name}: it is short for an option of pgBackRest");
        for end in 1..name.len() {
            let found = find_option(&name[..end], NameMatch::Prefix);
            // The beginning of a name may be another name of our own
            let is_own =
                matches!(found, Ok(Some(found)) if ALL[found.option].own && ALL[found.option].name != &name[..end]);
            assert!(!is_own, "{}: what pgBackRest takes for another option must mean the same", &name[..end]);
        }
    }
}

#[test]
fn secrets_can_be_set_in_files() {
    for decl in ALL.iter().filter(|decl| decl.secure) {
        assert_ne!(decl.section, Section::CommandLine, "{}", decl.name);
    }
}

/// Options whose secrecy was not obvious when they were declared. Add a new secret to both lists.
#[test]
fn keys_passphrases_and_tokens_are_secret() {
    for decl in ALL {
        let name = decl.name;
        let holds_secret = name.ends_with("-pass")
            || name.ends_with("-passphrase")
            || name.ends_with("-token")
            || name.ends_with("-secret")
            || name.ends_with("-customer-key")
            || matches!(
                name,
                "webhook-header"
                    | "webhook-url"
                    | "repo-azure-key"
                    | "repo-azure-account"
                    | "repo-azure-endpoint"
                    | "repo-gcs-key"
                    | "repo-s3-key"
            );
        assert_eq!(decl.secure, holds_secret, "{name}");
    }
}

#[test]
fn every_allowed_word_is_explained_and_nothing_else() {
    // Hashes have no other names, and the other option is for processes that rbr starts itself
    let plain = |decl: &OptionDecl| decl.internal || decl.name == "repo-sftp-host-key-hash-type";
    for decl in ALL.iter().filter(|decl| decl.kind == ValueKind::StringId && !plain(decl)) {
        for command in decl.commands.iter() {
            let explained: Vec<&str> = decl.values_for(command).map(|(value, _)| value).collect();
            for word in decl.allow_for(command) {
                assert!(explained.contains(word), "{} of {}: {word}", decl.name, command.name());
            }
        }
    }
}

#[test]
fn no_text_has_a_word_that_was_torn_at_a_line_end() {
    for decl in ALL {
        let own = [decl.summary, decl.detail].into_iter();
        for text in own.chain(decl.overrides.iter().flat_map(|special| [special.summary, special.detail])) {
            let torn = text
                .as_bytes()
                .windows(4)
                .any(|bytes| bytes[0].is_ascii_alphabetic() && &bytes[1..3] == b"- " && bytes[3].is_ascii_alphabetic());
            assert!(!torn, "{}: {text}", decl.name);
        }
    }
}

#[test]
fn option_that_depends_on_one_of_our_own_is_resolved_where_pgbackrest_resolves_it() {
    let place = |name| RESOLVE_ORDER.iter().position(|&index| ALL[usize::from(index)].name == name).unwrap();
    // On verify, lock-path depends on repair
    assert!(place("repair") < place("lock-path"));
    assert!(place("lock-path") < place("tcp-keep-alive-interval"));
}
