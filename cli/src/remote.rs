//! How to reach the process on another host that serves a repository.
//!
//! Source: pgBackRest `protocolRemoteParam`, `protocolRemoteParamSsh` and `protocolRemoteExec` (`src/protocol/helper.c`).
//! The other host may run pgBackRest, so the command line is the one that pgBackRest sends.

use std::path::PathBuf;
use std::time::Duration;

use engine::Result;
use engine::remote::{RemoteSettings, SshSettings, Way};
use engine::tcp::KeepAlive;
use engine::tls::ClientSettings;
use repo_format::lock_file::lock_name;

use crate::config::decl::{IndexGroup, Role};
use crate::config::{Config, ExecTarget, Replacement, Source, opt};
use crate::repos;

/// Returns how to reach the host of a repository. `asks_passphrase` says whether the host is asked for the passphrase.
///
/// # Errors
/// An option is missing.
pub fn settings(config: &Config, key: u32, asks_passphrase: bool) -> Result<RemoteSettings> {
    let way = match config.get_at(opt::REPO_HOST_TYPE, key)? {
        "tls" => Way::Tls {
            client: Box::new(tls_settings(config, key)?),
            // They do not pass through a shell
            arguments: process_arguments(config, key, false)?,
        },
        _ => Way::Ssh(SshSettings {
            program: config.get(opt::CMD_SSH)?.to_owned(),
            arguments: ssh_arguments(config, key)?,
        }),
    };
    Ok(RemoteSettings {
        host: config.get_at(opt::REPO_HOST, key)?.to_owned(),
        way,
        timeout: config.get(opt::PROTOCOL_TIMEOUT)?,
        key,
        asks_passphrase,
    })
}

fn tls_settings(config: &Config, key: u32) -> Result<ClientSettings> {
    Ok(ClientSettings {
        host: config.get_at(opt::REPO_HOST, key)?.to_owned(),
        port: port(config.get_at(opt::REPO_HOST_PORT, key)?),
        ca_file: config.find_at(opt::REPO_HOST_CA_FILE, key).map(PathBuf::from),
        ca_path: config.find_at(opt::REPO_HOST_CA_PATH, key).map(PathBuf::from),
        certificate: PathBuf::from(config.get_at(opt::REPO_HOST_CERT_FILE, key)?),
        key: PathBuf::from(config.get_at(opt::REPO_HOST_KEY_FILE, key)?),
        ciphers_12: config.find(opt::TLS_CIPHER_12).map(str::to_owned),
        ciphers_13: config.find(opt::TLS_CIPHER_13).map(str::to_owned),
        connect_timeout: config.get(opt::IO_TIMEOUT)?,
        keep_alive: keep_alive(config),
    })
}

/// Returns the port of an option, whose range fits.
pub fn port(value: i64) -> u16 {
    u16::try_from(value).unwrap_or_default()
}

/// Returns how connections notice that the other host is gone.
pub fn keep_alive(config: &Config) -> KeepAlive {
    let seconds = |option| config.find(option).and_then(|value| u64::try_from(value).ok()).map(Duration::from_secs);
    KeepAlive {
        enabled: config.find(opt::SCK_KEEP_ALIVE).unwrap_or(true),
        count: config.find(opt::TCP_KEEP_ALIVE_COUNT).and_then(|count| u32::try_from(count).ok()),
        idle: seconds(opt::TCP_KEEP_ALIVE_IDLE),
        interval: seconds(opt::TCP_KEEP_ALIVE_INTERVAL),
    }
}

/// Returns the arguments of the SSH client that starts the process on a repository's host.
fn ssh_arguments(config: &Config, key: u32) -> Result<Vec<String>> {
    let fixed = ["-o", "LogLevel=error", "-o", "Compression=no", "-o", "PasswordAuthentication=no"];
    let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
    if let Some(port) = config.find_at(opt::REPO_HOST_PORT, key) {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    let (user, host) = (config.get_at(opt::REPO_HOST_USER, key)?, config.get_at(opt::REPO_HOST, key)?);
    arguments.push(format!("{user}@{host}"));
    let mut command = vec![config.get_at(opt::REPO_HOST_CMD, key)?.to_owned()];
    command.extend(process_arguments(config, key, true)?);
    arguments.push(command.join(" "));
    Ok(arguments)
}

/// Returns the arguments of the process on a repository's host, with the command last. With `quote`, they are quoted for
/// a shell.
fn process_arguments(config: &Config, key: u32, quote: bool) -> Result<Vec<String>> {
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
    Ok(config.options_for_exec(&ExecTarget { command, role, replace: &replace, local: false, quote }))
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
