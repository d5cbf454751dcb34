//! The trusted certificates of files and directories (options such as `repo-storage-ca-file`, `repo-host-ca-path`).

use std::path::Path;
use std::{fs, io};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::{Error, ErrorCode, Result};

/// A certificate file larger than this is not one.
const SIZE_MAX_BYTES: u64 = 16 << 20;

/// Returns the only certificates to trust; `None` if no option names any, and those of the system are trusted. `options`
/// names the options, for a hint.
///
/// # Errors
/// [`ErrorCode::Crypto`] if the options name no certificate at all: trusting the system's instead would trust servers
/// that the options exclude. The file or the directory can't be read.
pub(crate) fn in_files(
    file: Option<&Path>,
    path: Option<&Path>,
    options: &str,
) -> Result<Option<Vec<CertificateDer<'static>>>> {
    if file.is_none() && path.is_none() {
        return Ok(None);
    }
    let mut found = Vec::new();
    if let Some(file) = file {
        found = in_file(file)?;
        if found.is_empty() {
            return Err(without(file, options));
        }
    }
    if let Some(path) = path {
        found.extend(in_path(path)?);
    }
    match path {
        Some(path) if found.is_empty() => Err(without(path, options)),
        _ => Ok(Some(found)),
    }
}

fn without(place: &Path, options: &str) -> Error {
    let place = place.display();
    Error::new(ErrorCode::Crypto, format!("unable to load certificates from '{place}': it holds no certificate"))
        .hint(format!("if {options} is set, only their certificates are trusted."))
}

/// The error of a file or directory that can't be read, with pgBackRest's number.
fn unusable(place: &Path, error: io::Error) -> Error {
    let text = format!("unable to set user-defined CA certificate location '{}'", place.display());
    Error::from_io(ErrorCode::Crypto, text, error)
}

/// Returns the certificates of all files in a directory. OpenSSL only reads the files that it looks up, so an
/// unreadable file or one without a certificate is not an error, but a warning.
fn in_path(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |error| unusable(path, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        if !entry.is_file() {
            continue;
        }
        match in_file(&entry) {
            Ok(certificates) => found.extend(certificates),
            Err(error) => crate::warn!("skip certificate file: {}", error.message),
        }
    }
    Ok(found)
}

fn in_file(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |error| unusable(file, error);
    let invalid = |why: &dyn std::fmt::Display| {
        Error::new(ErrorCode::Crypto, format!("unable to load certificates from '{}': {why}", file.display()))
    };
    let size = fs::metadata(file).map_err(failed)?.len();
    if size > SIZE_MAX_BYTES {
        return Err(invalid(&"it is too large"));
    }
    let pem = fs::read(file).map_err(failed)?;
    // An invalid certificate is reported here, and not when a connection fails
    let mut known = RootCertStore::empty();
    CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| {
            let certificate = certificate.map_err(|error| invalid(&error))?;
            known.add(certificate.clone()).map_err(|error| invalid(&error))?;
            Ok(certificate)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A certificate of an authority.
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBijCCAS+gAwIBAgIUXjIPG86shDNeWCZ/3/2J1GmGPr0wCgYIKoZIzj0EAwIw\n\
        GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjYxMTI5MDgyNzUwWhgPMjEy\n\
        NjExMDUwODI3NTBaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI\n\
        zj0CAQYIKoZIzj0DAQcDQgAE6Jy1T4kgDpVlQ5eAYWESAw6h4sJkjdffloo7pyHN\n\
        QnEGsgbcyzdER19sfUltmhd05Q7d2n0KuK/NXYtxLPIaaqNTMFEwHQYDVR0OBBYE\n\
        FG6XhKZGuPdSpaIQkYk/MKA4AUYjMB8GA1UdIwQYMBaAFG6XhKZGuPdSpaIQkYk/\n\
        MKA4AUYjMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAJgkpNrL\n\
        oHW324Au30geNp0tQdtO0otVTNl4Sa7f63T2AiEA7i/WzYKxUWaDXOvz7t9KBv79\n\
        7M1eojiv9w5eFCMfMPI=\n\
        -----END CERTIFICATE-----\n";

    fn code(result: Result<Option<Vec<CertificateDer<'static>>>>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn file_without_a_certificate_is_refused_and_the_system_is_not_trusted_instead() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        for text in ["", "no certificate", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&file, text).unwrap();
            let error = in_files(Some(&file), None, "an option").unwrap_err();
            assert_eq!(error.code, ErrorCode::Crypto, "{text}");
            assert!(error.message.contains("holds no certificate"), "{error}");
        }
        fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(code(in_files(Some(&file), None, "an option")), Some(ErrorCode::Crypto));
        assert_eq!(code(in_files(Some(&folder.path().join("none")), None, "an option")), Some(ErrorCode::Crypto));
        assert!(in_files(None, None, "an option").unwrap().is_none());
    }

    #[test]
    fn path_without_a_certificate_is_refused_and_the_system_is_not_trusted_instead() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(code(in_files(None, Some(folder.path()), "an option")), Some(ErrorCode::Crypto));
        fs::write(folder.path().join("README"), "nothing").unwrap();
        assert_eq!(code(in_files(None, Some(folder.path()), "an option")), Some(ErrorCode::Crypto));
    }

    #[test]
    fn path_with_files_that_are_of_no_use_is_read_past_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        write("secret.pem", "whatever");
        fs::set_permissions(folder.path().join("secret.pem"), fs::Permissions::from_mode(0o000)).unwrap();
        write("good.pem", CERTIFICATE);
        std::os::unix::fs::symlink("good.pem", folder.path().join("0a1b2c3d.0")).unwrap();
        std::os::unix::fs::symlink("gone.pem", folder.path().join("0a1b2c3e.0")).unwrap();
        assert_eq!(in_files(None, Some(folder.path()), "an option").unwrap().unwrap().len(), 2);
    }
}
