//! Signatures of proofs, with Ed25519 keys in the PEM files that OpenSSL writes:
//!
//! ```text
//! openssl genpkey -algorithm ed25519 -out proof.key
//! openssl pkey -in proof.key -pubout -out proof.pub
//! ```

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, Result};

/// The only algorithm.
const ALGORITHM: &str = "ed25519";
/// What stands before the 32 bytes of a public key in its DER form (RFC 8410): a sequence with the algorithm's
/// identifier and the head of a bit string.
const PUBLIC_KEY_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The signature of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProofSignature {
    /// The algorithm.
    pub algorithm: String,
    /// SHA-256 of the 32 bytes of the public key, in hexadecimal digits.
    pub key_id: String,
    /// The signature of the report's line, in base64.
    pub value: String,
}

/// A private key.
pub struct ProofSigner(Ed25519KeyPair);

impl ProofSigner {
    /// Reads a private key.
    ///
    /// # Errors
    /// [`ErrorCode::Crypto`] if the file does not contain an Ed25519 key, or can't be read.
    pub fn read(path: &Path) -> Result<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_file(path).map_err(|error| key_error(path, error))?;
        let key = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|error| key_error(path, error))?;
        Ok(ProofSigner(key))
    }

    /// Signs a text.
    pub fn sign(&self, text: &str) -> ProofSignature {
        ProofSignature {
            algorithm: ALGORITHM.to_owned(),
            key_id: key_id(self.0.public_key().as_ref()),
            value: STANDARD.encode(self.0.sign(text.as_bytes())),
        }
    }
}

/// A public key.
pub struct ProofVerifier(Vec<u8>);

impl ProofVerifier {
    /// Reads a public key.
    ///
    /// # Errors
    /// [`ErrorCode::Crypto`] if the file does not contain an Ed25519 key, or can't be read.
    pub fn read(path: &Path) -> Result<Self> {
        let der = SubjectPublicKeyInfoDer::from_pem_file(path).map_err(|error| key_error(path, error))?;
        match der.strip_prefix(&PUBLIC_KEY_HEAD) {
            Some(key) if key.len() == 32 => Ok(ProofVerifier(key.to_owned())),
            _ => Err(key_error(path, "it has another algorithm")),
        }
    }

    /// Returns whether the signature is this key's signature of the text.
    pub fn verifies(&self, text: &str, signature: &ProofSignature) -> bool {
        let Ok(value) = STANDARD.decode(&signature.value) else { return false };
        signature.algorithm == ALGORITHM
            && signature.key_id == key_id(&self.0)
            && UnparsedPublicKey::new(&ED25519, &self.0).verify(text.as_bytes(), &value).is_ok()
    }
}

fn key_id(public_key: &[u8]) -> String {
    digest(&SHA256, public_key).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_error(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Crypto, format!("unable to read an Ed25519 key from '{}': {error}", path.display()))
        .hint("create keys with: openssl genpkey -algorithm ed25519, openssl pkey -pubout")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    // Made for these tests by OpenSSL, and used for nothing else
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
        -----END PUBLIC KEY-----\n";

    /// Writes the key pair of the tests, which is the first of RFC 8032 (section 7.1).
    pub(crate) fn keys(dir: &Path) -> (ProofSigner, ProofVerifier) {
        let (private, public) = (dir.join("key"), dir.join("pub"));
        std::fs::write(&private, PRIVATE).unwrap();
        std::fs::write(&public, PUBLIC).unwrap();
        (ProofSigner::read(&private).unwrap(), ProofVerifier::read(&public).unwrap())
    }

    #[test]
    fn signature_is_valid_for_its_text_and_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let (signer, verifier) = keys(dir.path());
        let signature = signer.sign("text");
        assert!(verifier.verifies("text", &signature));
        assert!(!verifier.verifies("texT", &signature));
        assert!(!verifier.verifies("text", &ProofSignature { algorithm: "none".into(), ..signature.clone() }));
        assert!(!verifier.verifies("text", &ProofSignature { value: String::new(), ..signature.clone() }));
        assert!(!verifier.verifies("text", &ProofSignature { key_id: "00".into(), ..signature }));
    }

    #[test]
    fn file_without_an_ed25519_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(ProofSigner::read(&path).map(drop).unwrap_err().code, ErrorCode::Crypto);
        for text in ["", PUBLIC, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(ProofSigner::read(&path).map(drop).unwrap_err().code, ErrorCode::Crypto, "{text}");
        }
        for text in ["", PRIVATE, "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEA\n-----END PUBLIC KEY-----\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(ProofVerifier::read(&path).map(drop).unwrap_err().code, ErrorCode::Crypto, "{text}");
        }
    }
}
