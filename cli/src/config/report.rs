//! Reports what the environment and the configuration files contain, for `check --report`.
//!
//! The report also covers sections and options that the command does not use, without a check of their values.

use std::collections::BTreeMap;

use engine::Result;

use super::Config;
use super::env::PREFIX;
use super::names::{Match, find_option, secure_option_in, shown};
use super::options::ALL;
use super::text;

/// The content of environment and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigReport {
    /// The variables of the environment, by name.
    pub environment: Vec<Setting>,
    /// The sections of all files by name, each with its settings by name; `None` if there are no files.
    pub sections: Option<Vec<(String, Vec<Setting>)>>,
}

/// One option that somebody set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name as written.
    pub name: String,
    /// The value; `None` if there is no such option.
    pub value: Option<SettingValue>,
    /// What is wrong with the name.
    pub warning: Option<&'static str>,
}

/// The value of a setting as written, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingValue {
    /// Of an option with a single value.
    One(String),
    /// Of an option that may be repeated.
    Many(Vec<String>),
}

impl Config {
    /// Reports what environment and configuration files contain.
    ///
    /// # Errors
    /// [`engine::ErrorCode::OptionInvalid`] for a name that exists but can't be written like this.
    pub fn report(&self) -> Result<ConfigReport> {
        let (environment, ini) = self.input.environment_and_files();
        let variables: BTreeMap<&str, &str> =
            environment.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let variables = variables.into_iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
        let variable = |(name, value): (&str, &str)| {
            let key = name.to_ascii_lowercase().replace('_', "-");
            // A name that is not shown in messages is not shown here either
            let name = if shown(&key) == key { name } else { &shown(&key) };
            setting(format!("{PREFIX}{name}"), &key, &[value], ":")
        };
        let section = |name: &str, ini: &super::file::Ini| {
            let keys: BTreeMap<&str, Vec<&str>> = ini.keys(name).into_iter().collect();
            let settings = keys.iter().map(|(key, values)| setting(shown(key), key, values, ""));
            Ok((text::show(name), settings.collect::<Result<_>>()?))
        };
        let sections = ini.map(|ini| ini.sections().map(|name| section(name, ini)).collect::<Result<_>>());
        Ok(ConfigReport {
            environment: variables.map(variable).collect::<Result<_>>()?,
            sections: sections.transpose()?,
        })
    }
}

/// Reports one setting. `name` is what the report shows, `key` the option's name as written. A single value of an option
/// that may be repeated is split at `separator`, unless that is empty.
fn setting(name: String, key: &str, values: &[&str], separator: &str) -> Result<Setting> {
    let name = text::show(&name);
    // pgBackRest does not know our own options
    let Some(found) = find_option(key, Match::Exact)?.filter(|found| !ALL[found.option].own) else {
        return Ok(Setting { name, value: None, warning: Some("invalid option") });
    };
    let decl = ALL[found.option];
    let show = |value: &str| match decl.secure || secure_option_in(value).is_some() {
        true => format!("<{}>", text::show(key)),
        false => text::show(value),
    };
    let value = match (decl.kind.is_multi(), values) {
        (true, [value]) if !separator.is_empty() => SettingValue::Many(value.split(separator).map(show).collect()),
        (true, values) => SettingValue::Many(values.iter().map(|value| show(value)).collect()),
        (false, values) => SettingValue::One(values.first().map(|value| show(value)).unwrap_or_default()),
    };
    let warning = match found {
        _ if found.negate => Some("invalid negate option"),
        _ if found.reset => Some("invalid reset option"),
        _ => None,
    };
    Ok(Setting { name, value: Some(value), warning })
}
