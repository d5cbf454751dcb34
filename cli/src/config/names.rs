//! Resolves a name that a user wrote to an option: prefixes, indexes, `no-`, `reset-` and deprecated names.

use std::borrow::Cow;

use engine::{Error, ErrorCode, Result};

use super::decl::IndexGroup;
use super::options::{self, ALL, OptionIndex};

/// The largest index, as in `repo256-path`.
pub(super) const KEY_MAX: u32 = 256;
/// The digits of the largest index.
const KEY_DIGITS_MAX: usize = 3;
/// The longest option name that is looked at.
const NAME_MAX: usize = 64;

/// How names are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The whole name (environment and files).
    Exact,
    /// The beginning of a name suffices if it is unambiguous (command line).
    Prefix,
    /// The whole name, where the index may be left out (help).
    WithoutIndex,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundName {
    /// The option.
    pub option: OptionIndex,
    /// The user's number; 1 if none was given.
    pub key: u32,
    /// Whether the name began with `no-`.
    pub negate: bool,
    /// Whether the name began with `reset-`.
    pub reset: bool,
}

/// Returns the name as a message may show it. Text that begins with the name of a secret option may be the secret, if
/// the user forgot the equals sign. Text that does not look like an option may be the rest of a value. Of both,
/// messages show only the part that is the beginning of an option's name.
pub(super) fn shown(name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let base = without_index(name);
    let may_be_value = options::find(&base).is_none()
        && ALL.iter().any(|decl| decl.secure && base.len() > decl.name.len() && base.starts_with(decl.name));
    if is_plain && !may_be_value {
        return name.to_owned();
    }
    let unprefixed = name.strip_prefix("no-").or_else(|| name.strip_prefix("reset-")).unwrap_or(name);
    let prefix_end = name.len() - unprefixed.len();
    let is_beginning = |part: &str| {
        part.len() <= prefix_end || ALL.iter().any(|decl| decl.name.starts_with(without_index(part).as_str()))
    };
    let end = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| is_beginning(&name[..end])).last();
    format!("{}...", &name[..end.unwrap_or(0)])
}

/// Returns the secret option that a text sets, if its name is followed by an equals sign.
pub(super) fn secure_option_in(text: &str) -> Option<&'static str> {
    text.match_indices('=').find_map(|(at, _)| {
        let before = text[..at].trim_end();
        // The name is compared without group and index, because they may be joined to the text before them
        let tail = |name: &'static str| name.find('-').map_or(name, |dash| &name[dash..]);
        ALL.iter().find(|decl| decl.secure && before.ends_with(tail(decl.name))).map(|decl| decl.name)
    })
}

/// The name without `no-`, `reset-` and the index of a group.
fn without_index(name: &str) -> String {
    let name = name.strip_prefix("no-").or_else(|| name.strip_prefix("reset-")).unwrap_or(name);
    let (head, rest) = name.split_at(name.find('-').unwrap_or(name.len()));
    let group = head.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_group =
        IndexGroup::ALL.iter().any(|known| known.name() == group) && head.len() <= group.len() + KEY_DIGITS_MAX;
    format!("{}{rest}", if is_group { group } else { head })
}

/// Finds the option; `None` if there is none of that name.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`] if the option exists but can't be written like this.
pub fn find_option(candidate: &str, matching: Match) -> Result<Option<FoundName>> {
    let invalid = |text: String| Err(Error::new(ErrorCode::OptionInvalid, text));
    if candidate.len() > NAME_MAX {
        let candidate = shown(candidate);
        return invalid(format!("option '{candidate}' exceeds maximum size of {NAME_MAX}"));
    }
    let (name, negate, reset) = if let Some(name) = candidate.strip_prefix("no-") {
        (name, true, false)
    } else if let Some(name) = candidate.strip_prefix("reset-") {
        (name, false, true)
    } else {
        (candidate, false, false)
    };
    let (base, key) = split_index(candidate, name)?;
    let (option, deprecated) = match find_current(&base, matching) {
        Some(option) => (option, false),
        None => match find_deprecated(candidate, &base, key, matching)? {
            Some(option) => (option, true),
            None => return Ok(None),
        },
    };
    let decl = ALL[option];
    if negate && !decl.can_negate() {
        return invalid(format!("option '{candidate}' cannot be negated"));
    }
    if reset && !decl.can_reset() {
        return invalid(format!("option '{candidate}' cannot be reset"));
    }
    // A name without an index may be the old form of an indexed name, e.g. repo-path
    let old_form = key.is_none() && decl.deprecated.contains(&decl.name);
    if !deprecated && !old_form {
        if key.is_some() && decl.group.is_none() {
            return invalid(format!("option '{candidate}' cannot have an index"));
        }
        if key.is_none() && decl.group.is_some() && matching != Match::WithoutIndex {
            return Err(Error::new(ErrorCode::OptionInvalid, format!("option '{candidate}' requires an index"))
                .hint(format!("add the required index, e.g. {}.", decl.indexed_name(1))));
        }
    }
    Ok(Some(FoundName { option, key: key.unwrap_or(1), negate, reset }))
}

/// Splits a name without prefix into the name without index and the index, which stands before the first dash.
fn split_index<'a>(candidate: &str, name: &'a str) -> Result<(Cow<'a, str>, Option<u32>)> {
    let invalid =
        |problem: &str| Err(Error::new(ErrorCode::OptionInvalid, format!("option '{}' {problem}", shown(candidate))));
    let Some(dash) = name.find('-') else { return Ok((name.into(), None)) };
    if dash == 0 {
        return invalid("cannot begin with a dash");
    }
    let head = name[..dash].trim_end_matches(|c: char| c.is_ascii_digit());
    if head.is_empty() {
        return invalid("cannot begin with a number");
    }
    if head.len() == dash {
        return Ok((name.into(), None));
    }
    match name[head.len()..dash].parse() {
        Ok(key @ 1..=KEY_MAX) => Ok((format!("{head}{}", &name[dash..]).into(), Some(key))),
        _ => invalid(&format!("key must be between 1 and {KEY_MAX}")),
    }
}

/// Finds the option of a name without index that is not deprecated.
fn find_current(base: &str, matching: Match) -> Option<OptionIndex> {
    let exact = options::find(base);
    if exact.is_some() || matching != Match::Prefix {
        return exact;
    }
    let mut starting = (0..ALL.len()).filter(|&index| !ALL[index].own && ALL[index].name.starts_with(base));
    match (starting.next(), starting.next()) {
        (only @ Some(_), None) => only,
        _ => None,
    }
}

/// Finds the option of a deprecated name, whose parts are a name without index and an index.
fn find_deprecated(candidate: &str, base: &str, key: Option<u32>, matching: Match) -> Result<Option<OptionIndex>> {
    let Some(old) = options::find_deprecated(base, matching == Match::Prefix) else { return Ok(None) };
    if key.is_some() && !old.indexed {
        let text = format!("deprecated option '{candidate}' cannot have an index");
        return Err(Error::new(ErrorCode::OptionInvalid, text));
    }
    if key.is_none() && !old.unindexed && matching != Match::WithoutIndex {
        let (head, rest) = base.split_at(base.find('-').unwrap_or(base.len()));
        let text = format!("deprecated option '{candidate}' requires an index");
        return Err(Error::new(ErrorCode::OptionInvalid, text)
            .hint(format!("add the required index, e.g. {head}1{rest}."))
            .hint(format!("consider using the non-deprecated name, e.g. {}.", ALL[old.option].indexed_name(1))));
    }
    Ok(Some(old.option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_name_ends_where_a_passphrase_may_begin() {
        for (name, expected) in [
            ("compres-type", "compres-type"),
            ("repo1-cipher-pass", "repo1-cipher-pass"),
            ("repo1-cipher-passtopsecret", "repo1-cipher-pass..."),
            ("repo1-cipher-pass topsecret", "repo1-cipher-pass..."),
            ("no-repo12-cipher-pass-topsecret", "no-repo12-cipher-pass..."),
            ("TopSecretPass", "..."),
            ("aGVsbG8gd29ybGQ", "a..."),
            ("", ""),
        ] {
            assert_eq!(shown(name), expected, "{name}");
        }
    }

    #[test]
    fn secure_option_in_finds_the_second_of_two_lines_without_line_feed() {
        for (text, expected) in [
            ("s3repo2-s3-key=AKIA", Some("repo-s3-key")),
            ("/a=b repo-cipher-pass = x", Some("repo-cipher-pass")),
            ("s3[repo1-cipher-pass=x", Some("repo-cipher-pass")),
            ("/path/repo1-cipher-pass", None),
            ("repo1-s3-key-type=auto", None),
            ("--repo1-cipher-type=none", None),
            ("", None),
        ] {
            assert_eq!(secure_option_in(text), expected, "{text}");
        }
    }
}
