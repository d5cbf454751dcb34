//! How to reach the processes on other hosts that serve a repository or a cluster.
//!
//! Source: pgBackRest `protocolRemoteParam`, `protocolRemoteParamSsh` and `protocolRemoteExec` (`src/protocol/helper.c`).
//! The other host may run pgBackRest, so the command line is the one that pgBackRest sends.

use std::path::PathBuf;
use std::time::Duration;

use engine::Result;
use engine::remote::{RemoteSettings, SshSettings, Way};
use engine::tcp::KeepAlive;
use engine::tls::ClientSettings;
use repo_format::layout::Stanza;
use repo_format::lock_file::lock_name;

use crate::config::decl::{Command, IndexGroup, Role};
use crate::config::handle::OptIndexed;
use crate::config::{Config, ExecTarget, Replacement, Source, opt};
use crate::exit::cancel_token;

/// How long a connection is without data before the first probe. Firewalls forget connections after some minutes.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// The time between probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// The number of unanswered probes that end a connection. Linux tries to send data for about as long, 15 minutes.
const PROBES: u32 = 30;

/// What a process on another host serves, with the options that tell where it is.
pub struct Served {
    /// The value of `--remote-type`.
    kind: &'static str,
    group: IndexGroup,
    host: OptIndexed<String>,
    protocol: OptIndexed<String>,
    user: OptIndexed<String>,
    port: OptIndexed<i64>,
    program: OptIndexed<String>,
    ca_file: OptIndexed<String>,
    ca_path: OptIndexed<String>,
    cert_file: OptIndexed<String>,
    key_file: OptIndexed<String>,
    /// The options of the host's configuration, with the option of the process that each becomes.
    config: [(&'static str, OptIndexed<String>); 3],
}

/// A repository.
pub const REPO: Served = Served {
    kind: "repo",
    group: IndexGroup::Repo,
    host: opt::REPO_HOST,
    protocol: opt::REPO_HOST_TYPE,
    user: opt::REPO_HOST_USER,
    port: opt::REPO_HOST_PORT,
    program: opt::REPO_HOST_CMD,
    ca_file: opt::REPO_HOST_CA_FILE,
    ca_path: opt::REPO_HOST_CA_PATH,
    cert_file: opt::REPO_HOST_CERT_FILE,
    key_file: opt::REPO_HOST_KEY_FILE,
    config: [
        ("config", opt::REPO_HOST_CONFIG),
        ("config-include-path", opt::REPO_HOST_CONFIG_INCLUDE_PATH),
        ("config-path", opt::REPO_HOST_CONFIG_PATH),
    ],
};

/// A cluster.
pub const PG: Served = Served {
    kind: "pg",
    group: IndexGroup::Pg,
    host: opt::PG_HOST,
    protocol: opt::PG_HOST_TYPE,
    user: opt::PG_HOST_USER,
    port: opt::PG_HOST_PORT,
    program: opt::PG_HOST_CMD,
    ca_file: opt::PG_HOST_CA_FILE,
    ca_path: opt::PG_HOST_CA_PATH,
    cert_file: opt::PG_HOST_CERT_FILE,
    key_file: opt::PG_HOST_KEY_FILE,
    config: [
        ("config", opt::PG_HOST_CONFIG),
        ("config-include-path", opt::PG_HOST_CONFIG_INCLUDE_PATH),
        ("config-path", opt::PG_HOST_CONFIG_PATH),
    ],
};

impl Served {
    /// Returns the host of what has this number; `None` if that is this host.
    pub fn host<'a>(&self, config: &'a Config, key: u32) -> Option<&'a str> {
        config.find_at(self.host, key)
    }

    /// Returns how to reach a process on the host. Process 0 belongs to the command itself, others to its workers.
    ///
    /// # Errors
    /// An option is missing.
    pub fn settings(&self, config: &Config, key: u32, process: u32) -> Result<RemoteSettings> {
        let way = match config.get_at(self.protocol, key)? {
            "tls" => Way::Tls {
                client: Box::new(self.tls_settings(config, key)?),
                // They do not pass through a shell
                arguments: self.process_arguments(config, key, process, false)?,
            },
            _ => Way::Ssh(SshSettings {
                program: config.get(opt::CMD_SSH)?.to_owned(),
                arguments: self.ssh_arguments(config, key, process)?,
            }),
        };
        Ok(RemoteSettings {
            host: config.get_at(self.host, key)?.to_owned(),
            process,
            way,
            timeout: config.get(opt::PROTOCOL_TIMEOUT)?,
            key,
            asks_passphrase: false,
            target_time: None,
            network_level: network_level(config),
            cancel: cancel_token().clone(),
        })
    }

    fn tls_settings(&self, config: &Config, key: u32) -> Result<ClientSettings> {
        Ok(ClientSettings {
            host: config.get_at(self.host, key)?.to_owned(),
            port: port(config.get_at(self.port, key)?),
            ca_file: config.find_at(self.ca_file, key).map(PathBuf::from),
            ca_path: config.find_at(self.ca_path, key).map(PathBuf::from),
            certificate: PathBuf::from(config.get_at(self.cert_file, key)?),
            key: PathBuf::from(config.get_at(self.key_file, key)?),
            ciphers_12: config.find(opt::TLS_CIPHER_12).map(str::to_owned),
            ciphers_13: config.find(opt::TLS_CIPHER_13).map(str::to_owned),
            connect_timeout: config.get(opt::IO_TIMEOUT)?,
            keep_alive: keep_alive(config),
        })
    }

    /// Returns the arguments of the SSH client.
    fn ssh_arguments(&self, config: &Config, key: u32, process: u32) -> Result<Vec<String>> {
        let fixed = ["-o", "LogLevel=error", "-o", "Compression=no", "-o", "PasswordAuthentication=no"];
        let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
        if let Some(port) = config.find_at(self.port, key) {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        let (user, host) = (config.get_at(self.user, key)?, config.get_at(self.host, key)?);
        arguments.push(format!("{user}@{host}"));
        let mut command = vec![config.get_at(self.program, key)?.to_owned()];
        command.extend(self.process_arguments(config, key, process, true)?);
        arguments.push(command.join(" "));
        Ok(arguments)
    }

    /// Returns the arguments of the process, with the command last. With `quote`, they are quoted for a shell.
    fn process_arguments(&self, config: &Config, key: u32, process: u32, quote: bool) -> Result<Vec<String>> {
        let text = |text: &str| Replacement::Text(text.to_owned());
        let file_level = match config.find(opt::LOG_SUBPROCESS) {
            Some(true) => config.find(opt::LOG_LEVEL_FILE).unwrap_or("off"),
            _ => "off",
        };
        let mut replace = vec![
            // The process of number 0 takes the locks
            ("process".to_owned(), Replacement::Text(process.to_string())),
            ("log-path".to_owned(), Replacement::Omit),
            ("lock-path".to_owned(), Replacement::Omit),
            ("log-level-file".to_owned(), text(file_level)),
            ("log-level-stderr".to_owned(), text("error")),
            // Standard output belongs to the protocol
            ("log-level-console".to_owned(), text("off")),
            ("remote-type".to_owned(), text(self.kind)),
            ("lock".to_owned(), Replacement::Texts(lock_files(config)?)),
        ];
        // The host has its own configuration files
        replace.extend(self.config.iter().map(|&(name, option)| {
            let is_default = config.source_at(option, key) == Source::Default;
            let value = config.find_at(option, key).filter(|_| !is_default);
            (name.to_owned(), value.map_or(Replacement::Omit, text))
        }));
        replace.extend(self.group_options(config, key));
        let replace: Vec<(&str, Replacement)> =
            replace.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let (command, role) = (far_command(config.command()), Role::Remote);
        Ok(config.options_for_exec(&ExecTarget { command, role, replace: &replace, local: false, quote }))
    }

    /// Returns what becomes of the options with numbers.
    fn group_options(&self, config: &Config, key: u32) -> Vec<(String, Replacement)> {
        let omit = |name: String| (name, Replacement::Omit);
        if self.group == IndexGroup::Repo {
            // Options of other repositories would be incomplete there
            let others = config.each_slot().filter(|(decl, other, _)| decl.group == Some(self.group) && *other != key);
            let mut replace: Vec<_> = others.map(|(decl, other, _)| omit(decl.indexed_name(other))).collect();
            replace.push(("repo".to_owned(), Replacement::Text(key.to_string())));
            return replace;
        }
        // The process works on the cluster with the first number, whichever it has here
        let first = config.pg_keys().first().copied().unwrap_or(key);
        let mut replace = vec![omit("repo".to_owned())];
        for (decl, number, slot) in config.each_slot() {
            match decl.group {
                Some(IndexGroup::Repo) => replace.push(omit(decl.indexed_name(number))),
                Some(IndexGroup::Pg) if number != first => {
                    if number == key {
                        let value = match config.argument(decl, key, slot, false) {
                            Replacement::Reset => Replacement::Omit,
                            value => value,
                        };
                        replace.push((decl.indexed_name(first), value));
                    }
                    replace.push(omit(decl.indexed_name(number)));
                }
                _ => {}
            }
        }
        replace
    }
}

/// Returns the command whose role serves a command. pgBackRest knows none of rbr's own; what they do with a repository, the one
/// of `verify` serves.
fn far_command(command: Command) -> Command {
    if command.decl().own { Command::Verify } else { command }
}

/// Returns the level of compression between hosts. 0 disables it.
pub fn network_level(config: &Config) -> Option<i32> {
    config.find(opt::COMPRESS_LEVEL_NETWORK).and_then(|level| i32::try_from(level).ok()).filter(|level| *level != 0)
}

/// Returns the port of an option, whose range fits.
pub fn port(value: i64) -> u16 {
    u16::try_from(value).unwrap_or_default()
}

/// Returns how connections notice that the other host is gone.
///
/// The systems' defaults wait for two hours. A host that was switched off and started again knows nothing of its
/// connections, so the processes that served it would wait, with their locks, until `protocol-timeout`. An answer to
/// the first probe ends them. A host that does not answer at all may come back: it has about as long as TCP tries to send
/// data.
pub fn keep_alive(config: &Config) -> KeepAlive {
    let seconds = |option| config.find(option).and_then(|value| u64::try_from(value).ok()).map(Duration::from_secs);
    let count = config.find(opt::TCP_KEEP_ALIVE_COUNT).and_then(|count| u32::try_from(count).ok());
    KeepAlive {
        enabled: config.find(opt::SCK_KEEP_ALIVE).unwrap_or(true),
        count: count.or(Some(PROBES)),
        idle: seconds(opt::TCP_KEEP_ALIVE_IDLE).or(Some(PROBE_AFTER)),
        interval: seconds(opt::TCP_KEEP_ALIVE_INTERVAL).or(Some(PROBE_INTERVAL)),
    }
}

/// Returns the names of the locks that the process on the other host takes.
fn lock_files(config: &Config) -> Result<Vec<String>> {
    if !opt::LOCK.decl().is_valid(config.command(), Role::Remote) {
        return Ok(Vec::new());
    }
    let (stanza, keys): (Stanza, _) = (config.get(opt::STANZA)?.parse()?, config.repo_keys_selected());
    let kinds = config.command().decl().lock.types();
    Ok(kinds.iter().flat_map(|kind| keys.iter().map(|key| lock_name(&stanza, *kind, *key))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn host_that_was_switched_off_is_noticed_before_the_protocol_timeout_without_options() {
        let all = keep_alive(&resolved("info"));
        assert!(all.enabled);
        let (count, idle, interval) = (all.count.unwrap(), all.idle.unwrap(), all.interval.unwrap());
        assert_eq!(idle, Duration::from_secs(60));
        assert!(idle + interval * count < Duration::from_secs(1860), "{all:?}");
    }

    #[test]
    fn command_that_pgbackrest_does_not_know_was_sent_to_the_other_host() {
        let host = "--stanza=demo --repo1-host=far --repo1-host-user=backup";
        for (command, sent) in [
            ("recovery-points", "verify:remote"),
            ("test-restore --scratch-path=/scratch", "verify:remote"),
            ("restore --pg1-path=/data", "restore:remote"),
        ] {
            let arguments = REPO.process_arguments(&resolved(&format!("{command} {host}")), 1, 0, false).unwrap();
            assert_eq!(arguments.last().map(String::as_str), Some(sent), "{arguments:?}");
        }
    }

    #[test]
    fn probes_are_those_of_the_options() {
        let options = "--tcp-keep-alive-count=3 --tcp-keep-alive-idle=600 --tcp-keep-alive-interval=7";
        let all = keep_alive(&resolved(&format!("info {options}")));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!((all.count, all.idle, all.interval), (Some(3), seconds(600), seconds(7)));
        assert!(!keep_alive(&resolved("info --no-sck-keep-alive")).enabled);
    }
}
