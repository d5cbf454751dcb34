//! Channel binding: data that ties a password check to the encrypted connection, so that nobody between client and server
//! can use the check for a connection of their own.
//!
//! The data is that of the type `tls-server-end-point` (RFC 5929): a hash of the server's certificate.

use aws_lc_rs::digest::{self, Algorithm, SHA256, SHA384, SHA512};
use der::{Reader as _, SliceReader};
use rustls_pki_types::{AlgorithmIdentifier, CertificateDer, alg_id};

const MD5_WITH_RSA: AlgorithmIdentifier =
    AlgorithmIdentifier::from_slice(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04\x05\x00");
const SHA1_WITH_RSA: AlgorithmIdentifier =
    AlgorithmIdentifier::from_slice(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00");
const SHA1_WITH_ECDSA: AlgorithmIdentifier = AlgorithmIdentifier::from_slice(b"\x06\x07\x2a\x86\x48\xce\x3d\x04\x01");

/// How certificates are signed, and the hash that belongs to it. SHA-256 replaces MD5 and SHA-1.
static HASHES: [(AlgorithmIdentifier, &Algorithm); 12] = [
    (MD5_WITH_RSA, &SHA256),
    (SHA1_WITH_RSA, &SHA256),
    (SHA1_WITH_ECDSA, &SHA256),
    (alg_id::RSA_PKCS1_SHA256, &SHA256),
    (alg_id::RSA_PKCS1_SHA384, &SHA384),
    (alg_id::RSA_PKCS1_SHA512, &SHA512),
    (alg_id::RSA_PSS_SHA256, &SHA256),
    (alg_id::RSA_PSS_SHA384, &SHA384),
    (alg_id::RSA_PSS_SHA512, &SHA512),
    (alg_id::ECDSA_SHA256, &SHA256),
    (alg_id::ECDSA_SHA384, &SHA384),
    (alg_id::ECDSA_SHA512, &SHA512),
];

/// Returns the data for a server with this certificate; `None` if the certificate is signed in a way that has no hash,
/// such as Ed25519.
pub(super) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let signed_by = signature_algorithm(certificate).ok()?;
    let (_, hash) = HASHES.iter().find(|(known, _)| known.as_ref() == signed_by)?;
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// Returns how a certificate is signed: identifier and parameters, without the sequence around them.
fn signature_algorithm<'c>(certificate: &'c CertificateDer<'_>) -> der::Result<&'c [u8]> {
    let mut reader = SliceReader::new(certificate)?;
    reader.sequence(|certificate: &mut SliceReader<'c>| -> der::Result<&'c [u8]> {
        let _signed_part = certificate.tlv_bytes()?;
        let algorithm = certificate.sequence(|algorithm: &mut SliceReader<'c>| -> der::Result<&'c [u8]> {
            algorithm.read_slice(algorithm.remaining_len())
        })?;
        let _signature = certificate.tlv_bytes()?;
        Ok(algorithm)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate of which only the outer form is right.
    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let tlv = |tag: u8, value: &[u8]| [&[tag, u8::try_from(value.len()).unwrap()], value].concat();
        let parts = [tlv(0x30, b"\x02\x01\x01"), tlv(0x30, algorithm), tlv(0x03, b"\0signature")];
        tlv(0x30, &parts.concat())
    }

    #[test]
    fn hash_follows_the_signature_of_the_certificate() {
        for (algorithm, size) in [
            (&alg_id::ECDSA_SHA256, 32),
            (&alg_id::RSA_PSS_SHA384, 48),
            (&alg_id::RSA_PKCS1_SHA512, 64),
            (&SHA1_WITH_RSA, 32),
        ] {
            let certificate = certificate(algorithm);
            let hash = server_end_point(&certificate.as_slice().into()).unwrap();
            assert_eq!(hash.len(), size, "{algorithm:?}");
        }
        let certificate = certificate(&alg_id::ECDSA_SHA256);
        let expected = digest::digest(&SHA256, &certificate);
        assert_eq!(server_end_point(&certificate.as_slice().into()).unwrap(), expected.as_ref());
    }

    #[test]
    fn certificate_that_has_no_hash_or_is_damaged_has_no_binding() {
        assert_eq!(server_end_point(&certificate(&alg_id::ED25519).as_slice().into()), None);
        let whole = certificate(&alg_id::ECDSA_SHA256);
        for end in 0..whole.len() {
            assert_eq!(server_end_point(&whole[..end].into()), None, "{end}");
        }
        let more = [&whole[..], b"x"].concat();
        let _ = server_end_point(&more.as_slice().into());
    }
}
