//! Sessions with clients on other hosts, as their server.

use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certificate::Decoded;
use super::peer::Trust;
use super::session::Session;
use super::validity::Validity;
use super::{Identity, authorities_in, ciphers};
use crate::{Error, ErrorCode, Result};

/// The files with which a server proves who it is, and checks its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients.
    pub ca: PathBuf,
    /// The allowed cipher suites of TLS 1.2, if not all.
    pub ciphers_12: Option<String>,
    /// The allowed cipher suites of TLS 1.3, if not all.
    pub ciphers_13: Option<String>,
}

/// What a server needs for sessions. The files were read once.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    identity: Identity,
    authorities: Vec<CertificateDer<'static>>,
}

/// A client with a session.
pub struct AcceptedClient {
    /// The session.
    pub session: Session,
    /// The common name in the client's certificate; `None` if it has presented none.
    pub name: Option<String>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// The same as [`Identity::load`]; the authorities can't be read, or there are none.
    pub fn load(files: &ServerFiles) -> Result<Self> {
        let provider = ciphers::provider(files.ciphers_12.as_deref(), files.ciphers_13.as_deref())?;
        let provider = Arc::new(provider);
        let identity = Identity::load(&files.certificate, &files.key, &provider)?;
        let authorities = authorities_in(Some(&files.ca), None, "tls-server-ca-file")?.unwrap_or_default();
        let failed = |e: &dyn std::fmt::Display| Error::new(ErrorCode::Crypto, format!("unable to set up TLS: {e}"));
        let check = ClientCheck::new(authorities.clone(), &provider)?;
        let certified = identity.certified().as_ref().clone();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_client_cert_verifier(Arc::new(check))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // A resumed session would not see a change of the authorities
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.ignore_client_order = true;
        Ok(ServerTls { config: Arc::new(config), identity, authorities })
    }

    /// Negotiates a session on a connection that does not block, before `end`. `peer` is the client in messages.
    ///
    /// # Errors
    /// [`ErrorCode::Service`] if the client does not speak TLS or one of the two refuses the other,
    /// [`ErrorCode::FileRead`] if it is silent, and errors of its common name.
    pub fn accept(&self, peer: &str, tcp: TcpStream, end: Instant) -> Result<AcceptedClient> {
        let tls = ServerConnection::new(Arc::clone(&self.config))
            .map_err(|e| Error::new(ErrorCode::Crypto, format!("unable to set up TLS: {e}")))?;
        let session = Session::negotiate(peer, tcp, tls.into(), end).map_err(|error| error.into_error(peer))?;
        let certificate = session.peer_certificate();
        let name = certificate.map(|certificate| Decoded::of(&certificate)?.common_name()).transpose()?;
        Ok(AcceptedClient { session, name })
    }

    /// Returns whether the certificate or its key differs.
    pub fn has_other_identity(&self, other: &ServerTls) -> bool {
        self.identity.certified().cert != other.identity.certified().cert
    }

    /// Returns whether other authorities are trusted.
    pub fn has_other_authorities(&self, other: &ServerTls) -> bool {
        self.authorities != other.authorities
    }

    /// Returns when the certificate is valid.
    pub fn validity(&self) -> Option<Validity> {
        self.identity.validity()
    }
}

/// Checks clients, which need no certificate.
#[derive(Debug)]
struct ClientCheck {
    trust: Trust,
    /// `None` if none of the trusted certificates may sign others.
    chain: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientCheck {
    fn new(authorities: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let trust = Trust::new(authorities, Arc::clone(provider));
        if trust.store().is_empty() {
            return Ok(ClientCheck { trust, chain: None });
        }
        let chain = WebPkiClientVerifier::builder_with_provider(trust.store(), Arc::clone(provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| Error::new(ErrorCode::Crypto, format!("unable to use the authorities of clients: {e}")))?;
        Ok(ClientCheck { trust, chain: Some(chain) })
    }
}

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        // A client without one only learns that the server is there
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        match (self.trust.check_special(end_entity, now), &self.chain) {
            (Some(result), _) => result.map(|()| ClientCertVerified::assertion()),
            (None, None) => Err(CertificateError::UnknownIssuer.into()),
            (None, Some(chain)) => chain.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.check_signature(message, cert, dss, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.check_signature(message, cert, dss, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
}

#[cfg(test)]
mod tests;
