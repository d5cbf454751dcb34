//! The certificate and the key with which this host proves who it is.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::{self, CertifiedKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::Decoded;
use super::validity::Validity;
use crate::users::Users;
use crate::{Error, ErrorCode, Result};

/// Permissions of others that a key of this user must not have.
const OTHERS: u32 = 0o077;
/// Permissions of others that a key of root must not have. A group may read it.
const OTHERS_OF_ROOT: u32 = 0o037;

/// A certificate with its chain and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// [`ErrorCode::Crypto`] if a file can't be used or the two do not belong together, [`ErrorCode::FileRead`] if others
    /// may read the key.
    pub fn load(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self> {
        let chain = read_chain(certificate)?;
        check_owner(key)?;
        let signing = provider.key_provider.load_private_key(read_key(key)?).map_err(|e| unusable_key(key, &e))?;
        check_match(&chain, &*signing).map_err(|()| {
            let text = format!("cert '{}' and key '{}' do not match", certificate.display(), key.display());
            Error::new(ErrorCode::Crypto, text)
        })?;
        Ok(Identity { certified: Arc::new(CertifiedKey::new(chain, signing)) })
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// Returns when the certificate is valid.
    pub fn validity(&self) -> Option<Validity> {
        Some(Validity::of_seconds(Decoded::of(self.certified.cert.first()?).ok()?.validity()))
    }
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |why: &dyn std::fmt::Display| {
        Error::new(ErrorCode::Crypto, format!("unable to load cert file '{}': {why}", file.display()))
    };
    let text = fs::read(file).map_err(|error| {
        let message = format!("unable to load cert file '{}'", file.display());
        Error::from_io(ErrorCode::Crypto, message, error)
    })?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<std::result::Result<_, _>>().map_err(|error| failed(&error))?;
    if chain.is_empty() { Err(failed(&"it holds no certificate")) } else { Ok(chain) }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::Io(error) => {
            Error::from_io(ErrorCode::Crypto, format!("unable to load key file '{}'", file.display()), error)
        }
        error => unusable_key(file, &error),
    })
}

fn unusable_key(file: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorCode::Crypto, format!("unable to load key file '{}': {why}", file.display()))
}

fn check_owner(key: &Path) -> Result<()> {
    let found = match fs::metadata(key) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let message = format!("unable to load key file '{}'", key.display());
            return Err(Error::from_io(ErrorCode::Crypto, message, error));
        }
    };
    let own = rustix::process::getuid().as_raw();
    let user = Users::new().user_name(own).unwrap_or_else(|| own.to_string());
    let name = key.display();
    if found.uid() != own && found.uid() != 0 {
        let text = format!("key file '{name}' must be owned by the '{user}' user or root");
        return Err(Error::new(ErrorCode::FileRead, text));
    }
    let forbidden = if found.uid() == own { OTHERS } else { OTHERS_OF_ROOT };
    if found.mode() & forbidden != 0 {
        return Err(Error::new(ErrorCode::FileRead, format!("key file '{name}' has group or other permissions"))
            .hint(format!("file must have permissions u=rw (0600) or less if owned by the '{user}' user"))
            .hint("file must have permissions u=rw, g=r (0640) or less if owned by root"));
    }
    Ok(())
}

/// Refuses a key that surely belongs to another certificate.
fn check_match(chain: &[CertificateDer<'static>], key: &dyn sign::SigningKey) -> std::result::Result<(), ()> {
    let (Some(certificate), Some(public)) = (chain.first(), key.public_key()) else { return Ok(()) };
    let Ok(decoded) = Decoded::of(certificate) else { return Ok(()) };
    let info = der::Encode::to_der(decoded.certificate().tbs_certificate().subject_public_key_info());
    match info {
        Ok(info) if info != public.as_ref() => Err(()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_that_can_not_be_read_has_the_number_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().display();
        let error = read_key(dir.path()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Crypto);
        assert_eq!(error.to_string(), format!("unable to load key file '{name}': [21] Is a directory"));
        let error = read_key(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.to_string(), format!("unable to load key file '{name}/none': [2] No such file or directory"));
    }
}
