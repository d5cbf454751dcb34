//! Certificates of X.509 version 1.
//!
//! The crate `webpki` does not decode them. But `openssl x509 -req` creates them unless it gets extensions, also in
//! pgBackRest's user guide, and OpenSSL accepts them. Such a certificate has no extensions. So it is accepted if a trusted
//! authority itself has signed it.

use der::Encode;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use x509_cert::certificate::Version;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::certificate::Decoded;

const BAD_ENCODING: Error = Error::InvalidCertificate(CertificateError::BadEncoding);

/// Returns the certificate if it is one of version 1.
pub(super) fn decode(certificate: &CertificateDer<'_>) -> Option<Decoded> {
    let decoded = Decoded::of(certificate).ok()?;
    (decoded.certificate().tbs_certificate().version() == Version::V1).then_some(decoded)
}

/// Checks that one of the authorities has signed the certificate, and that both are valid now.
pub(super) fn check(
    certificate: &Decoded,
    authorities: &[CertificateDer<'static>],
    now: UnixTime,
    known: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let mut failure = Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let signed = certificate.certificate();
    for authority in authorities.iter().filter_map(|authority| Decoded::of(authority).ok()) {
        let issuer = authority.certificate().tbs_certificate();
        if issuer.subject() != signed.tbs_certificate().issuer() {
            continue;
        }
        let message = signed.tbs_certificate().to_der().map_err(|_| BAD_ENCODING)?;
        let signature = signed.signature().as_bytes().ok_or(BAD_ENCODING)?;
        let key = issuer.subject_public_key_info();
        if !known.all.iter().any(|algorithm| {
            identifier(signed.signature_algorithm()).is_some_and(|id| id == algorithm.signature_alg_id().as_ref())
                && verifies(*algorithm, key, &message, signature)
        }) {
            failure = Error::InvalidCertificate(CertificateError::BadSignature);
            continue;
        }
        return check_time(certificate, now).and_then(|()| check_time(&authority, now));
    }
    Err(failure)
}

fn check_time(certificate: &Decoded, now: UnixTime) -> Result<(), Error> {
    let (from, until) = certificate.validity();
    match now.as_secs() {
        now if now < from => Err(Error::InvalidCertificate(CertificateError::NotValidYet)),
        now if now > until => Err(Error::InvalidCertificate(CertificateError::Expired)),
        _ => Ok(()),
    }
}

/// Checks the signature with which the peer proves that it has the certificate's key.
pub(super) fn check_possession(
    certificate: &Decoded,
    message: &[u8],
    signature: &DigitallySignedStruct,
    known: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let algorithms = known.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme).map(|(_, found)| *found);
    let algorithms = algorithms.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let key = certificate.certificate().tbs_certificate().subject_public_key_info();
    match algorithms.iter().any(|algorithm| verifies(*algorithm, key, message, signature.signature())) {
        true => Ok(()),
        false => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
    }
}

/// Returns whether the key's owner signed the message with this algorithm.
fn verifies(
    algorithm: &dyn SignatureVerificationAlgorithm,
    key: &SubjectPublicKeyInfoOwned,
    message: &[u8],
    signature: &[u8],
) -> bool {
    identifier(&key.algorithm).is_some_and(|id| id == algorithm.public_key_alg_id().as_ref())
        && key
            .subject_public_key
            .as_bytes()
            .is_some_and(|key| algorithm.verify_signature(key, message, signature).is_ok())
}

/// Returns what is inside the sequence of an algorithm identifier.
fn identifier(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let mut inside = algorithm.oid.to_der().ok()?;
    if let Some(parameters) = &algorithm.parameters {
        inside.extend(parameters.to_der().ok()?);
    }
    Some(inside)
}

/// Checks a certificate that is trusted itself: whether it is valid now.
pub(super) fn check_itself(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    check_time(&Decoded::of(certificate).map_err(|_| BAD_ENCODING)?, now)
}
