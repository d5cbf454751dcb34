//! Checks of the other side's certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::Decoded;
use super::version_1;
use crate::{Error, ErrorCode, Result};

/// The authorities that are trusted.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    /// All certificates that are trusted, also those of no authority.
    certificates: Arc<[CertificateDer<'static>]>,
    /// Those that may have signed others.
    authorities: Arc<[CertificateDer<'static>]>,
    store: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Trusts these certificates. One that is no authority only stands for itself: the owner of its key must not be able to
    /// issue certificates with the names of others.
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Self {
        let may_sign =
            |certificate: &&CertificateDer<'_>| Decoded::of(certificate).is_ok_and(|found| found.is_authority());
        let authorities: Vec<_> = certificates.iter().filter(may_sign).cloned().collect();
        let mut store = RootCertStore::empty();
        // One that is not understood is no authority. The others remain
        store.add_parsable_certificates(authorities.iter().cloned());
        Trust { certificates: certificates.into(), authorities: authorities.into(), store: Arc::new(store), provider }
    }

    /// The authorities in the form of the TLS library.
    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.store)
    }

    /// Returns whether the certificate itself is trusted.
    fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|trusted| trusted == certificate)
    }

    /// Checks a certificate that is itself trusted or of version 1. Returns `None` for any other.
    pub(super) fn check_special(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Option<std::result::Result<(), rustls::Error>> {
        if self.contains(certificate) {
            return Some(version_1::check_itself(certificate, now));
        }
        let decoded = version_1::decode(certificate)?;
        let known = &self.provider.signature_verification_algorithms;
        Some(version_1::check(&decoded, &self.authorities, now, known))
    }

    pub(super) fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
        is_13: bool,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        if let Some(decoded) = version_1::decode(certificate) {
            version_1::check_possession(&decoded, message, signature, known)?;
            return Ok(HandshakeSignatureValid::assertion());
        }
        match is_13 {
            true => rustls::crypto::verify_tls13_signature(message, certificate, signature, known),
            false => rustls::crypto::verify_tls12_signature(message, certificate, signature, known),
        }
    }

    pub(super) fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks a server. Its name is checked after the handshake, with [`check_name`].
#[derive(Debug)]
pub(super) struct ServerCheck {
    pub(super) trust: Trust,
    /// Accept any server.
    pub(super) accept_all: bool,
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.accept_all {
            return Ok(ServerCertVerified::assertion());
        }
        if let Some(result) = self.trust.check_special(end_entity, now) {
            return result.map(|()| ServerCertVerified::assertion());
        }
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.trust.store,
            intermediates,
            now,
            self.trust.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
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

/// Checks that the certificate is for this host.
///
/// # Errors
/// [`ErrorCode::Crypto`] if it is for others.
pub(super) fn check_name(host: &str, certificate: Option<&CertificateDer<'_>>) -> Result<()> {
    let missing = || Error::new(ErrorCode::Crypto, "No certificate presented by the TLS server");
    if Decoded::of(certificate.ok_or_else(missing)?)?.is_for(host)? {
        return Ok(());
    }
    let text = format!("unable to find hostname '{host}' in certificate common name or subject alternative names");
    Err(Error::new(ErrorCode::Crypto, text))
}

/// Returns the error for a certificate that the handshake refused, with OpenSSL's number and text where they are known;
/// `None` for another error.
pub(super) fn refusal(name: &str, error: &rustls::Error) -> Option<Error> {
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    let why = match why {
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "[9] certificate is not yet valid".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "[10] certificate has expired".to_owned()
        }
        CertificateError::BadSignature => "[7] certificate signature failure".to_owned(),
        CertificateError::UnknownIssuer => "[20] unable to get local issuer certificate".to_owned(),
        CertificateError::Revoked => "[23] certificate revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "[26] unsuitable certificate purpose".to_owned()
        }
        other => other.to_string(),
    };
    let text = format!("unable to verify certificate presented by '{name}': {why}");
    Some(Error::new(ErrorCode::Crypto, text))
}
