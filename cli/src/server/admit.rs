//! Who may do what: checks the command line that a client sends.
//!
//! Source of the order: pgBackRest `protocolServer` (`src/protocol/helper.c`). pgBackRest checks the client's name and
//! the stanza only. Here a client can't run anything but the role `remote` either, and can't name other places of this
//! host than its configuration ([`mod@super::places`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use engine::{Error, ErrorCode, Result};

use super::command_line::{ConfigOption, parse, resolve};
use super::places;
use crate::config::opt;
use crate::repos;

/// What decides about clients.
pub(super) struct Gate {
    /// Names of clients with the stanzas that each may access.
    pub(super) auth: BTreeMap<String, String>,
    /// The program that serves a client.
    pub(super) program: PathBuf,
    /// The options by which the program finds the server's configuration.
    pub(super) config_options: Vec<ConfigOption>,
}

/// A client that may do what it asks for.
pub(super) struct Admitted {
    /// The arguments of the process that serves it.
    pub(super) arguments: Vec<String>,
    /// What it does, for the log.
    pub(super) purpose: String,
}

/// Checks the command line of a client with this name.
///
/// # Errors
/// [`ErrorCode::Access`] if the client may not do that, and errors of the options.
pub(super) fn admit(gate: &Gate, client: &str, arguments: &[String]) -> Result<Admitted> {
    let allowed = gate
        .auth
        .get(client)
        .ok_or_else(|| denied(format!("option tls-server-auth of this server has no entry for '{client}'.")))?;
    let program = gate.program.to_string_lossy().into_owned();
    // Before anything is opened that the client names
    let (own, all) = with_own_files(&gate.config_options, &program, arguments)?;
    let config = resolve(&program, &all)?;
    // The name becomes part of file names, of the log too
    let stanza = repos::stanza_if_set(&config)?;
    let wanted = config.find(opt::STANZA);
    if !is_allowed(allowed, wanted) {
        return Err(denied(match wanted {
            Some(stanza) => {
                format!("option tls-server-auth of this server does not allow '{client}' stanza '{stanza}'.")
            }
            None => format!("option tls-server-auth of this server allows '{client}' no command without a stanza."),
        }));
    }
    places::check(&config, &program, &own)?;
    let purpose = config.command().role_name(config.role());
    let purpose = stanza.map_or_else(|| purpose.clone(), |stanza| format!("{purpose} of stanza '{stanza}'"));
    Ok(Admitted { arguments: all, purpose })
}

/// Returns the options by which the server was told its configuration files, and the client's arguments with them. A client
/// may name the same files.
///
/// # Errors
/// [`ErrorCode::Access`] for other files and another role than `remote`; errors of the syntax.
fn with_own_files(
    config_options: &[ConfigOption],
    program: &str,
    arguments: &[String],
) -> Result<(Vec<String>, Vec<String>)> {
    // What looks like an option may be the value of another
    let line = parse(program, arguments)?;
    let (mut own, mut all) = (Vec::new(), Vec::new());
    for option in config_options {
        let named = line.arguments_of(option.decl);
        if let Some(other) = named.iter().find(|named| **named != option.argument) {
            let name = option.decl.name;
            let text = format!("access denied: '{other}' is not the '{name}' of this host");
            return Err(Error::new(ErrorCode::Access, text).hint(format!(
                "the server must have been started with the same '{name}', or the client's options name none."
            )));
        }
        if option.is_set {
            own.push(option.argument.clone());
            all.extend(named.is_empty().then(|| option.argument.clone()));
        }
    }
    all.extend(arguments.iter().cloned());
    Ok((own, all))
}

/// Why a client is denied. Only the log of the server tells it: the client gets what pgBackRest says.
#[derive(Debug)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}

fn denied(reason: String) -> Error {
    Error::new(ErrorCode::Access, "access denied").cause(Reason(reason))
}

/// The error of [`admit`] for the log of the server, with the reason that the client does not get.
pub(super) fn explained(error: Error) -> Error {
    let reason = error.source.as_ref().and_then(|source| source.downcast_ref()).map(|Reason(reason)| reason.clone());
    match reason {
        Some(reason) => error.hint(reason),
        None => error,
    }
}

/// Returns whether a list of stanzas contains this one. Only `*` allows a command without a stanza.
fn is_allowed(allowed: &str, stanza: Option<&str>) -> bool {
    allowed.trim() == "*" || stanza.is_some_and(|stanza| allowed.split(',').any(|allowed| allowed.trim() == stanza))
}

#[cfg(test)]
mod tests {
    use engine::ErrorCode;

    use super::{Gate, admit, explained, is_allowed, with_own_files};
    use crate::config::opt;
    use crate::server::command_line::ConfigOption;

    /// A server that was started with `--config=/custom`.
    fn custom() -> [ConfigOption; 2] {
        [(opt::CONFIG, "--config=/custom", true), (opt::CONFIG_INCLUDE_PATH, "--config-include-path=/usual", false)]
            .map(|(option, argument, is_set)| ConfigOption {
                decl: option.decl(),
                argument: argument.to_owned(),
                is_set,
            })
    }

    fn arguments(words: &str) -> Vec<String> {
        words.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn value_that_looks_like_config_does_not_replace_the_configuration_of_the_server() {
        for (client, expected) in [
            (
                "--exec-id --config --stanza=demo info:remote",
                "--config=/custom --exec-id --config --stanza=demo info:remote",
            ),
            ("--stanza=demo info:remote", "--config=/custom --stanza=demo info:remote"),
            ("--config=/custom info:remote", "--config=/custom info:remote"),
            ("--config /custom info:remote", "--config /custom info:remote"),
            ("--config-include-path=/usual info:remote", "--config=/custom --config-include-path=/usual info:remote"),
        ] {
            let (own, all) = with_own_files(&custom(), "rbr", &arguments(client)).unwrap();
            assert_eq!(all, arguments(expected), "{client}");
            assert_eq!(own, ["--config=/custom"], "{client}");
        }
    }

    #[test]
    fn other_configuration_files_are_refused_before_they_are_opened() {
        for client in ["--config=/proc/self/fd/9", "--config=/custom2", "--no-config", "--config-include-path=/other"] {
            let all = arguments(&format!("{client} --stanza=demo info:remote"));
            assert_eq!(
                with_own_files(&custom(), "rbr", &all).err().map(|e| e.code),
                Some(ErrorCode::Access),
                "{client}"
            );
        }
        let other_role = arguments("--stanza=demo info");
        assert_eq!(with_own_files(&custom(), "rbr", &other_role).err().map(|e| e.code), Some(ErrorCode::Access));
    }

    #[test]
    fn client_that_is_denied_is_told_less_than_the_log() {
        let auth = [("pg-host", "demo"), ("other", "*")].map(|(name, list)| (name.to_owned(), list.to_owned()));
        let gate = Gate { auth: auth.into(), program: "/usr/bin/rbr".into(), config_options: Vec::new() };
        for (client, line, reason) in [
            ("stranger", "--stanza=demo info:remote", "has no entry for 'stranger'."),
            ("pg-host", "--stanza=prod info:remote", "does not allow 'pg-host' stanza 'prod'."),
            ("pg-host", "info:remote", "allows 'pg-host' no command without a stanza."),
        ] {
            let arguments = arguments(&format!("--exec-id=1-x --process=0 --remote-type=repo {line}"));
            let error = admit(&gate, client, &arguments).err().unwrap();
            assert_eq!((error.code, error.to_string().as_str()), (ErrorCode::Access, "access denied"), "{client}");
            let expected = format!("access denied\nHINT: option tls-server-auth of this server {reason}");
            assert_eq!(explained(error).to_string(), expected);
        }
    }

    #[test]
    fn list_allows_its_stanzas_and_an_asterisk_everything() {
        for (allowed, stanza, expected) in [
            ("*", Some("demo"), true),
            (" * ", None, true),
            ("demo", Some("demo"), true),
            ("demo", None, false),
            ("a, demo ,b", Some("demo"), true),
            ("a,demo2", Some("demo"), false),
            // Not a pattern
            ("*,a", Some("demo"), false),
            ("d*", Some("demo"), false),
        ] {
            assert_eq!(is_allowed(allowed, stanza), expected, "{allowed} {stanza:?}");
        }
    }
}
