//! What the server has read: its options and files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use engine::tcp::KeepAlive;
use engine::tls::{ServerFiles, ServerTls, ValidityState};
use engine::{Error, ErrorCode, Result};
use jiff::Timestamp;

use super::admit::Gate;
use super::command_line::ConfigOption;
use crate::config::handle::Opt;
use crate::config::{Config, Source, opt};
use crate::identity::own_path;
use crate::remote;

/// The server's options and files. A reload makes a new one; sessions keep theirs.
pub(super) struct ServerState {
    /// The address to listen on.
    pub(super) address: String,
    /// The port to listen on.
    pub(super) port: u16,
    /// Who may do what.
    pub(super) gate: Gate,
    files: ServerFiles,
    /// Certificates.
    pub(super) tls: ServerTls,
    /// How connections notice that a client is gone.
    pub(super) keep_alive: KeepAlive,
    /// The maximum time without a request or progress.
    pub(super) timeout: Duration,
}

impl ServerState {
    /// Reads the files of the options.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalidValue`] for a client without a value; a file can't be used.
    pub(super) fn load(config: &Config) -> Result<Self> {
        let auth = config.get(opt::TLS_SERVER_AUTH)?;
        if auth.values().any(|stanzas| stanzas.trim().is_empty()) {
            return Err(Error::new(ErrorCode::OptionInvalidValue, "'tls-server-auth' option must have a value"));
        }
        let files = ServerFiles {
            certificate: PathBuf::from(config.get(opt::TLS_SERVER_CERT_FILE)?),
            key: PathBuf::from(config.get(opt::TLS_SERVER_KEY_FILE)?),
            ca: PathBuf::from(config.get(opt::TLS_SERVER_CA_FILE)?),
            ciphers_12: config.find(opt::TLS_CIPHER_12).map(str::to_owned),
            ciphers_13: config.find(opt::TLS_CIPHER_13).map(str::to_owned),
        };
        Ok(ServerState {
            address: config.get(opt::TLS_SERVER_ADDRESS)?.to_owned(),
            port: remote::port(config.get(opt::TLS_SERVER_PORT)?),
            gate: Gate { auth, program: own_path(config.program())?, config_options: config_options(config) },
            tls: ServerTls::load(&files)?,
            files,
            keep_alive: remote::keep_alive(config),
            timeout: config.get(opt::PROTOCOL_TIMEOUT)?,
        })
    }

    /// Returns whether the address differs.
    pub(super) fn has_other_address(&self, other: &ServerState) -> bool {
        (&self.address, self.port) != (&other.address, other.port)
    }

    /// Returns what `next` changes, one line each.
    pub(super) fn changes(&self, next: &ServerState) -> Vec<String> {
        let mut changes = Vec::new();
        if self.has_other_address(next) {
            changes.push(format!("address is {}:{}", next.address, next.port));
        }
        changes.extend(auth_changes(&self.gate.auth, &next.gate.auth));
        if self.tls.has_other_identity(&next.tls) {
            changes.push(format!("certificate is {}", next.certificate_text()));
        }
        if self.tls.has_other_authorities(&next.tls) {
            changes.push("certificate authorities of clients differ".to_owned());
        }
        let ciphers = |state: &ServerState| (state.files.ciphers_12.clone(), state.files.ciphers_13.clone());
        if ciphers(self) != ciphers(next) {
            changes.push("cipher suites differ".to_owned());
        }
        if self.timeout != next.timeout {
            changes.push(format!("protocol-timeout is {}s", next.timeout.as_secs_f64()));
        }
        changes
    }

    /// The server's certificate in messages.
    pub(super) fn certificate_text(&self) -> String {
        let file = self.files.certificate.display();
        match self.tls.validity() {
            Some(validity) => format!("'{file}', which {}", validity.text(Timestamp::now())),
            None => format!("'{file}'"),
        }
    }

    /// Returns what an administrator should know about the time in which the server's certificate is valid. The server uses it in
    /// any case, as pgBackRest's does.
    pub(super) fn certificate_warning(&self) -> Option<String> {
        let (validity, now) = (self.tls.validity()?, Timestamp::now());
        let what = match validity.at(now) {
            ValidityState::Valid => return None,
            ValidityState::EndsSoon => " only\nHINT: renew it",
            ValidityState::Early | ValidityState::Expired => ", and clients refuse it\nHINT: replace it",
        };
        let (file, text) = (self.files.certificate.display(), validity.text(now));
        Some(format!("certificate '{file}' {text}{what} and reload the server (SIGHUP)."))
    }
}

fn auth_changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let mut changes = Vec::new();
    for (client, stanzas) in after {
        match before.get(client) {
            None => changes.push(format!("client '{client}' may access '{stanzas}'")),
            Some(before) if before != stanzas => {
                changes.push(format!("client '{client}' may access '{stanzas}' instead of '{before}'"));
            }
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|client| !after.contains_key(*client));
    changes.extend(gone.map(|client| format!("client '{client}' may access nothing")));
    changes
}

fn config_options(config: &Config) -> Vec<ConfigOption> {
    let options = [opt::CONFIG, opt::CONFIG_INCLUDE_PATH, opt::CONFIG_PATH];
    let of = |option: Opt<String>| {
        let name = option.decl().name;
        let argument = match config.find(option) {
            Some(value) => format!("--{name}={value}"),
            None => format!("--no-{name}"),
        };
        ConfigOption { decl: option.decl(), argument, is_set: config.source(option) != Source::Default }
    };
    options.map(of).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_what_a_reload_changes() {
        // Certificates are in the integration tests
        let auth = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(client, stanzas)| ((*client).to_owned(), (*stanzas).to_owned())).collect()
        };
        let before = auth(&[("a", "*"), ("b", "x"), ("c", "x")]);
        let after = auth(&[("a", "*"), ("b", "x,y"), ("d", "z")]);
        assert_eq!(
            auth_changes(&before, &after),
            [
                "client 'b' may access 'x,y' instead of 'x'",
                "client 'd' may access 'z'",
                "client 'c' may access nothing",
            ]
        );
    }
}
