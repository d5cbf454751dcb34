//! Places of this host that a client may name: those of the host's own configuration.
//!
//! A client sends all options that it knows, also `pg1-path` and sometimes `repo1-path`. An authorized client of
//! pgBackRest's server can read any file of the server's user that way.

use engine::{Error, ErrorCode, Result};

use super::command_line::resolve;
use crate::config::decl::{IndexGroup, OptionDecl};
use crate::config::{Config, opt};

/// Options that lead to files of this host.
const FILES: [&str; 6] = ["config", "config-include-path", "config-path", "lock-path", "log-path", "spool-path"];
/// Beginnings of repository options that say nothing about a place.
const NO_PLACES: [&str; 7] = [
    "repo-retention",
    "repo-bundle",
    "repo-block",
    "repo-hardlink",
    "repo-symlink",
    "repo-target-time",
    "repo-cipher-type",
];

/// Checks that a client's options name the same places as this host's configuration.
///
/// # Errors
/// [`ErrorCode::Access`] if they do not, and errors of this host's options.
pub(super) fn check(config: &Config, program: &str, config_options: &[String]) -> Result<()> {
    let asks_for_data = config.find(opt::REMOTE_TYPE) == Some("pg");
    let named: Vec<(&OptionDecl, u32)> = config
        .each_slot()
        .filter(|(decl, _, slot)| slot.is_from_command_line() && is_place(decl, asks_for_data))
        .map(|(decl, key, _)| (decl, key))
        .collect();
    if named.is_empty() && !asks_for_data {
        return Ok(());
    }
    let own = own(config, program, config_options, asks_for_data)?;
    for (decl, key) in named {
        let wanted = config.display(decl, key);
        let matches = match decl.group {
            // The client's own number of the cluster is not sent
            Some(IndexGroup::Pg) => own.pg_keys().iter().any(|&key| own.display(decl, key) == wanted),
            _ => own.display(decl, key) == wanted,
        };
        if !matches {
            let name = decl.indexed_name(key);
            let text =
                format!("access denied: '{}' is not the '{name}' of this host", wanted.as_deref().unwrap_or_default());
            return Err(Error::new(ErrorCode::Access, text).hint(format!(
                "the configuration of the host that serves must have the same '{name}', or the client none."
            )));
        }
    }
    Ok(())
}

fn is_place(decl: &OptionDecl, asks_for_data: bool) -> bool {
    match decl.group {
        Some(IndexGroup::Repo) => !NO_PLACES.iter().any(|harmless| decl.name.starts_with(harmless)),
        Some(IndexGroup::Pg) => asks_for_data && decl.name == opt::PG_PATH.decl().name,
        None => FILES.contains(&decl.name),
    }
}

/// Resolves the options that this host has for the client's command.
fn own(config: &Config, program: &str, config_options: &[String], asks_for_data: bool) -> Result<Config> {
    let mut arguments = config_options.to_vec();
    arguments.extend(config.find(opt::STANZA).map(|stanza| format!("--stanza={stanza}")));
    arguments.extend(config.find(opt::REPO).map(|repo| format!("--repo={repo}")));
    if !asks_for_data {
        // A repository's host need not know the cluster, but some commands require its path
        let path = |key| Some(format!("--pg{key}-path={}", config.find_at(opt::PG_PATH, key)?));
        arguments.extend(config.pg_keys().iter().filter_map(|&key| path(key)));
    }
    arguments.push(config.command().role_name(config.role()));
    resolve(program, &arguments).map_err(|error| {
        error.context("access denied: the configuration of the host that serves does not have what the client asks for")
    })
}
