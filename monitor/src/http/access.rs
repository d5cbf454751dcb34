//! Who may ask.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use engine::{Error, ErrorCode, Result};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST};
use rustls::ServerConfig;

/// The shortest token in bytes. A shorter one can be guessed.
const TOKEN_MIN: usize = 16;
/// The longest token in bytes.
const TOKEN_MAX: usize = 4096;

/// Who may ask.
#[derive(Clone, Default)]
pub struct Access {
    /// The SHA-256 of the token. Comparing hashes tells nothing about the length.
    token: Option<digest::Digest>,
    tls: Option<Arc<ServerConfig>>,
    /// Whether TLS asks clients for a certificate.
    checks_clients: bool,
}

impl Access {
    /// Requires the token in this file.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`], or [`ErrorCode::OptionInvalidValue`] if it is too short or too long, or has characters
    /// that no header may have.
    pub fn with_token_file(self, path: &Path) -> Result<Self> {
        let read = || {
            let mut text = String::new();
            File::open(path)?.take(TOKEN_MAX as u64 + 2).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|error| {
            Error::from_io(ErrorCode::FileRead, format!("unable to read token file '{}'", path.display()), error)
        })?;
        let token = text.trim();
        let is_valid =
            (TOKEN_MIN..=TOKEN_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_valid {
            let text = format!("token file '{}' does not contain a valid token", path.display());
            return Err(Error::new(ErrorCode::OptionInvalidValue, text).hint(format!(
                "a token has {TOKEN_MIN} to {TOKEN_MAX} visible characters; openssl rand -hex 32 makes one."
            )));
        }
        Ok(Access { token: Some(digest::digest(&digest::SHA256, token.as_bytes())), ..self })
    }

    /// Speaks TLS.
    #[must_use]
    pub fn with_tls(self, config: Arc<ServerConfig>, checks_clients: bool) -> Self {
        Access { tls: Some(config), checks_clients, ..self }
    }

    /// The settings of TLS.
    pub(super) fn tls(&self) -> Option<&Arc<ServerConfig>> {
        self.tls.as_ref()
    }

    /// Checks that only those who may can ask on this address.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalid`] if anybody could ask.
    pub fn check(&self, address: SocketAddr) -> Result<()> {
        check_protected(address, self.token.is_some() || self.checks_clients)
    }

    /// Returns whether a token crosses the network in plain text.
    pub fn is_plain(&self, address: SocketAddr) -> bool {
        self.tls.is_none() && !address.ip().is_loopback()
    }

    /// Returns whether a request has the token, or none is required.
    pub(super) fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, given) = given.split_once(' ').unwrap_or_default();
        let given = digest::digest(&digest::SHA256, given.trim().as_bytes());
        scheme.eq_ignore_ascii_case("bearer") && verify_slices_are_equal(given.as_ref(), token.as_ref()).is_ok()
    }

    /// Returns whether the request may come from a page of another site. Such a page can make a name of its own point to
    /// this host, and its visitor's browser then reads what only loopback protects. An address can't be made to.
    pub(super) fn is_foreign(&self, headers: &HeaderMap) -> bool {
        if self.token.is_some() || self.checks_clients {
            return false;
        }
        let Some(host) = headers.get(HOST) else { return false };
        !host.to_str().is_ok_and(is_own_name)
    }
}

/// Checks that not anybody could ask on an address. `is_protected` says that clients need a token or a certificate.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`]
pub fn check_protected(address: SocketAddr, is_protected: bool) -> Result<()> {
    if is_protected || address.ip().is_loopback() {
        return Ok(());
    }
    let text = format!("anybody who reaches {address} could read metrics and the status page");
    Err(Error::new(ErrorCode::OptionInvalid, text).hint(
        "set monitor-token-file, or monitor-tls-cert-file, monitor-tls-key-file and monitor-tls-ca-file, or listen on a \
         loopback address.",
    ))
}

/// Returns whether a header `Host` names an address or localhost.
fn is_own_name(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}
