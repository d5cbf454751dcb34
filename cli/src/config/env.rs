//! The environment as a source of options: `PGBACKREST_<NAME>`.

use engine::{Error, ErrorCode, Result};

use super::Source;
use super::decl::{Command, Role, ValueKind};
use super::names::{Match, find_option, shown};
use super::options::ALL;
use super::parse::{FoundOption, FoundOptions};
use super::{suggest, text};

/// The prefix of variable names.
pub(super) const PREFIX: &str = "PGBACKREST_";

/// The variables whose names begin with `PGBACKREST_`, in the order of the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment(pub Vec<(String, String)>);

impl Environment {
    /// The environment of this process.
    pub fn from_process() -> Self {
        let texts = std::env::vars_os().map(|(name, value)| (text::decode_os(&name), text::decode_os(&value)));
        Environment(texts.filter(|(name, _)| name.starts_with(PREFIX)).collect())
    }
}

/// Adds options that the environment sets and the command line does not.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] for an empty value or a wrong boolean, [`ErrorCode::OptionInvalid`] for a name in
/// an impossible form. Unknown names only cause a warning.
pub(super) fn add(
    found: &mut FoundOptions,
    environment: &Environment,
    command: Command,
    role: Role,
    warn: &mut dyn FnMut(String),
) -> Result<()> {
    for (name, value) in &environment.0 {
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        let key = name.to_ascii_lowercase().replace('_', "-");
        // pgBackRest reads the same environment and does not know our own options
        let option = find_option(&key, Match::Exact)?.filter(|option| !ALL[option.option].own);
        let Some(option) = option else {
            let text = format!("environment contains invalid option '{}'", text::show(&shown(&key)));
            warn(suggest::with_hint(text, suggest::option_in_file(&key)));
            continue;
        };
        if option.negate {
            warn(format!("environment contains invalid negate option '{key}'"));
            continue;
        }
        if option.reset {
            warn(format!("environment contains invalid reset option '{key}'"));
            continue;
        }
        let decl = ALL[option.option];
        if !decl.is_valid(command, role) || decl.own_commands.has(command) {
            continue;
        }
        let invalid = |text: String| Err(Error::new(ErrorCode::OptionInvalidValue, text));
        if value.is_empty() {
            return invalid(format!("environment variable '{key}' must have a value"));
        }
        if found.get(option.option, option.key).is_some() {
            continue;
        }
        let mut entry = FoundOption { negate: false, reset: false, source: Source::Environment, values: Vec::new() };
        if decl.kind == ValueKind::Boolean {
            match value.as_str() {
                "y" => (),
                "n" => entry.negate = true,
                _ => return invalid(format!("environment boolean option '{key}' must be 'y' or 'n'")),
            }
        } else if decl.kind.is_multi() {
            entry.values = value.split(':').map(str::to_owned).collect();
        } else {
            entry.values.push(value.clone());
        }
        found.add(option.option, option.key, entry);
    }
    Ok(())
}
