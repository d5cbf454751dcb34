//! From the name that a user wrote to an option: prefixes, indexes, `no-`, `reset-` and old names.

use engine::{Error, ErrorCode, Result};

use super::options::{self, ALL, OptionIndex};

/// The largest index, as in `repo256-path`.
pub(super) const KEY_MAX: u32 = 256;
/// The longest option name that is looked at.
const NAME_MAX: usize = 64;

/// How names are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The whole name (environment and files).
    Exact,
    /// The beginning of a name is enough when it is the only one (command line).
    Prefix,
    /// The whole name, where the index may be left out (help).
    WithoutIndex,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundName {
    /// The option.
    pub option: OptionIndex,
    /// The user's number; 1 where none was given.
    pub key: u32,
    /// It began with `no-`.
    pub negate: bool,
    /// It began with `reset-`.
    pub reset: bool,
}

/// Finds the option; `None` where there is none of that name.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`]: there is one, but it can't be written like this.
pub fn find_option(candidate: &str, matching: Match) -> Result<Option<FoundName>> {
    let invalid = |text: String| Err(Error::new(ErrorCode::OptionInvalid, text));
    if candidate.len() > NAME_MAX {
        return invalid(format!("option '{candidate}' exceeds maximum size of {NAME_MAX}"));
    }
    let (name, negate, reset) = if let Some(name) = candidate.strip_prefix("no-") {
        (name, true, false)
    } else if let Some(name) = candidate.strip_prefix("reset-") {
        (name, false, true)
    } else {
        (candidate, false, false)
    };

    // The index stands before the first dash
    let mut key = None;
    let mut base = std::borrow::Cow::Borrowed(name);
    if let Some(dash) = name.find('-') {
        if dash == 0 {
            return invalid(format!("option '{candidate}' cannot begin with a dash"));
        }
        let head = name[..dash].trim_end_matches(|c: char| c.is_ascii_digit());
        if head.is_empty() {
            return invalid(format!("option '{candidate}' cannot begin with a number"));
        }
        if head.len() < dash {
            key = match name[head.len()..dash].parse() {
                Ok(key @ 1..=KEY_MAX) => Some(key),
                _ => return invalid(format!("option '{candidate}' key must be between 1 and {KEY_MAX}")),
            };
            base = format!("{head}{}", &name[dash..]).into();
        }
    }
    let prefix = matching == Match::Prefix;

    let mut found = options::find(&base);
    if found.is_none() && prefix {
        let mut starting = (0..ALL.len()).filter(|&index| !ALL[index].own && ALL[index].name.starts_with(&*base));
        if let (Some(only), None) = (starting.next(), starting.next()) {
            found = Some(only);
        }
    }
    let mut deprecated = false;
    if found.is_none()
        && let Some(old) = options::find_deprecated(&base, prefix)
    {
        if key.is_some() && !old.indexed {
            return invalid(format!("deprecated option '{candidate}' cannot have an index"));
        }
        let decl = ALL[old.option];
        if key.is_none() && !old.unindexed && matching != Match::WithoutIndex {
            let dash = base.find('-').unwrap_or(base.len());
            return Err(Error::new(
                ErrorCode::OptionInvalid,
                format!("deprecated option '{candidate}' requires an index"),
            )
            .hint(format!("add the required index, e.g. {}1{}.", &base[..dash], &base[dash..]))
            .hint(format!("consider using the non-deprecated name, e.g. {}.", decl.indexed_name(1))));
        }
        found = Some(old.option);
        deprecated = true;
    }

    let Some(option) = found else { return Ok(None) };
    let decl = ALL[option];
    if negate && !decl.can_negate() {
        return invalid(format!("option '{candidate}' cannot be negated"));
    }
    if reset && !decl.can_reset() {
        return invalid(format!("option '{candidate}' cannot be reset"));
    }
    // A name without an index may be the old form of the indexed one, e.g. repo-path
    if key.is_none() && decl.deprecated.contains(&decl.name) {
        deprecated = true;
    }
    if !deprecated {
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
