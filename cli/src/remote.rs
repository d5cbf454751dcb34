//! How to start the process on another host that serves a repository.
//!
//! Source: pgBackRest `protocolRemoteParam` and `protocolRemoteParamSsh` (`src/protocol/helper.c`). The other host may
//! run pgBackRest, so the command line is the one that pgBackRest sends.

use engine::Result;
use repo_format::lock_file::lock_name;

use crate::config::decl::{IndexGroup, Role};
use crate::config::{Config, ExecTarget, Replacement, Source, opt};
use crate::repos;

/// Returns the arguments of the SSH client that starts the process on a repository's host.
///
/// # Errors
/// The repository has no host.
pub fn ssh_arguments(config: &Config, key: u32) -> Result<Vec<String>> {
    let fixed = ["-o", "LogLevel=error", "-o", "Compression=no", "-o", "PasswordAuthentication=no"];
    let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
    if let Some(port) = config.find_at(opt::REPO_HOST_PORT, key) {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    let (user, host) = (config.get_at(opt::REPO_HOST_USER, key)?, config.get_at(opt::REPO_HOST, key)?);
    arguments.push(format!("{user}@{host}"));
    let mut command = vec![config.get_at(opt::REPO_HOST_CMD, key)?.to_owned()];
    command.extend(process_arguments(config, key)?);
    arguments.push(command.join(" "));
    Ok(arguments)
}

/// Returns the arguments of the process on a repository's host, with the command last.
fn process_arguments(config: &Config, key: u32) -> Result<Vec<String>> {
    let text = |text: &str| Replacement::Text(text.to_owned());
    // The host has its own configuration files
    let of_host = |option| match config.source_at(option, key) {
        Source::Default => Replacement::Omit,
        _ => config.find_at(option, key).map_or(Replacement::Omit, text),
    };
    let file_level = match config.find(opt::LOG_SUBPROCESS) {
        Some(true) => config.find(opt::LOG_LEVEL_FILE).unwrap_or("off"),
        _ => "off",
    };
    let mut replace = vec![
        ("config".to_owned(), of_host(opt::REPO_HOST_CONFIG)),
        ("config-include-path".to_owned(), of_host(opt::REPO_HOST_CONFIG_INCLUDE_PATH)),
        ("config-path".to_owned(), of_host(opt::REPO_HOST_CONFIG_PATH)),
        ("repo".to_owned(), Replacement::Text(key.to_string())),
        // The process of number 0 takes the locks. pgBackRest starts others for its workers
        ("process".to_owned(), text("0")),
        ("log-path".to_owned(), Replacement::Omit),
        ("lock-path".to_owned(), Replacement::Omit),
        ("log-level-file".to_owned(), text(file_level)),
        ("log-level-stderr".to_owned(), text("error")),
        // Standard output belongs to the protocol
        ("log-level-console".to_owned(), text("off")),
        ("remote-type".to_owned(), text("repo")),
        ("lock".to_owned(), Replacement::Texts(lock_files(config)?)),
    ];
    // Options of other repositories would be incomplete there
    let others = config.each_slot().filter(|(decl, other, _)| decl.group == Some(IndexGroup::Repo) && *other != key);
    replace.extend(others.map(|(decl, other, _)| (decl.indexed_name(other), Replacement::Omit)));
    let replace: Vec<(&str, Replacement)> =
        replace.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let (command, role) = (config.command(), Role::Remote);
    Ok(config.options_for_exec(&ExecTarget { command, role, replace: &replace, local: false, quote: true }))
}

/// Returns the names of the locks that the process on the other host takes.
fn lock_files(config: &Config) -> Result<Vec<String>> {
    if !opt::LOCK.decl().is_valid(config.command(), Role::Remote) {
        return Ok(Vec::new());
    }
    let (stanza, keys) = (repos::stanza(config)?, config.repo_keys_selected());
    let kinds = repos::lock_types(config.command());
    Ok(kinds.iter().flat_map(|kind| keys.iter().map(|key| lock_name(&stanza, *kind, *key))).collect())
}
