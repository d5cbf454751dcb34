//! Sessions with the server of another host, as its client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::{CertificateDer, ServerName};

use super::peer::{ServerCheck, Trust, check_name, refusal};
use super::session::{HandshakeError, Session};
use super::{Identity, authorities_in, ciphers};
use crate::system_text;
use crate::tcp::{self, KeepAlive};
use crate::work::retry::Failures;
use crate::{Error, ErrorCode, Result};

/// The pause before another try.
const PAUSE: Duration = Duration::from_millis(250);

/// How to reach a server and prove who this host is.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The host, which must be in the server's certificate.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// Trust only the authorities in this file.
    pub ca_file: Option<PathBuf>,
    /// Trust only the authorities in the files of this directory.
    pub ca_path: Option<PathBuf>,
    /// This host's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The allowed cipher suites of TLS 1.2, if not all.
    pub ciphers_12: Option<String>,
    /// The allowed cipher suites of TLS 1.3, if not all.
    pub ciphers_13: Option<String>,
    /// The maximum time until there is a session.
    pub connect_timeout: Duration,
    /// How to notice a server that is gone.
    pub keep_alive: KeepAlive,
}

/// Begins a session with a server and checks its certificate.
///
/// # Errors
/// [`ErrorCode::HostConnect`] if there is no connection, [`ErrorCode::Crypto`] if a certificate or key can't be used or the
/// server's is not valid, [`ErrorCode::FileRead`] if others may read the key or the server is silent,
/// [`ErrorCode::Service`] if the server refuses or does not speak TLS.
pub fn connect(settings: &ClientSettings) -> Result<Session> {
    let provider = Arc::new(provider(settings.ciphers_12.as_deref(), settings.ciphers_13.as_deref())?);
    let trust = Trust::new(authorities(settings)?, Arc::clone(&provider));
    let identity = Identity::load(&settings.certificate, &settings.key, &provider)?;
    let config = config(provider, ServerCheck { trust, accept_all: false }, Some(&identity))?;
    let session = open(&settings.host, settings.port, settings.connect_timeout, &settings.keep_alive, &config)?;
    check_name(&settings.host, session.peer_certificate().as_ref())?;
    Ok(session)
}

/// Begins a session with a server that is not checked and does not learn who this host is.
///
/// # Errors
/// The same as [`connect`], except those of certificates.
pub fn connect_unchecked(host: &str, port: u16, timeout: Duration, keep_alive: &KeepAlive) -> Result<Session> {
    let provider = Arc::new(provider(None, None)?);
    let trust = Trust::new(Vec::new(), Arc::clone(&provider));
    let config = config(provider, ServerCheck { trust, accept_all: true }, None)?;
    open(host, port, timeout, keep_alive, &config)
}

fn provider(ciphers_12: Option<&str>, ciphers_13: Option<&str>) -> Result<CryptoProvider> {
    let provider = ciphers::provider(ciphers_12, ciphers_13)?;
    // pgBackRest's server has this curve only. Another first choice costs a round trip
    let mut kx_groups = vec![kx_group::SECP256R1];
    kx_groups.extend(provider.kx_groups.iter().filter(|group| group.name() != kx_group::SECP256R1.name()));
    Ok(CryptoProvider { kx_groups, ..provider })
}

/// The authorities of the options, or those of the system.
fn authorities(settings: &ClientSettings) -> Result<Vec<CertificateDer<'static>>> {
    let chosen =
        authorities_in(settings.ca_file.as_deref(), settings.ca_path.as_deref(), "a ca-file or ca-path option")?;
    if let Some(chosen) = chosen {
        return Ok(chosen);
    }
    // Files that can't be read are no error as long as others can be
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), system_text);
        let text = format!("unable to load the system's certificate authorities: {why}");
        return Err(Error::new(ErrorCode::Crypto, text));
    }
    Ok(found.certs)
}

fn config(provider: Arc<CryptoProvider>, check: ServerCheck, identity: Option<&Identity>) -> Result<Arc<ClientConfig>> {
    let failed = |e| Error::new(ErrorCode::Crypto, format!("unable to set up TLS: {e}"));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match identity {
        Some(identity) => {
            let certified = identity.certified().as_ref().clone();
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Connects and negotiates, with as many tries as fit into the time.
fn open(
    host: &str,
    port: u16,
    timeout: Duration,
    keep_alive: &KeepAlive,
    config: &Arc<ClientConfig>,
) -> Result<Session> {
    let server = ServerName::try_from(host.to_owned())
        .map_err(|_| Error::new(ErrorCode::HostConnect, format!("'{host}' is no name of a host")))?;
    let end = Instant::now() + timeout;
    let mut failures = Failures::begin();
    loop {
        let (tcp, name) = tcp::connect(host, port, end, keep_alive)?;
        let tls = ClientConnection::new(Arc::clone(config), server.clone())
            .map_err(|e| Error::new(ErrorCode::Crypto, format!("unable to set up TLS: {e}")))?;
        let failure = match Session::negotiate(&name, tcp, tls.into(), end) {
            Ok(session) => return Ok(session),
            // Another try would have the same result
            Err(HandshakeError::Tls(error)) => {
                return Err(refusal(&name, &error).unwrap_or_else(|| HandshakeError::Tls(error).into_error(&name)));
            }
            Err(failure) => failure.into_error(&name),
        };
        failures.add(failure);
        if Instant::now() + PAUSE >= end {
            return Err(failures.into_error(|| Error::new(ErrorCode::Assert, "a try failed without an error")));
        }
        std::thread::sleep(PAUSE);
    }
}
