//! What a certificate says.

use std::net::IpAddr;

use der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use der::{Decode, Tag, Tagged};
use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use crate::{Error, ErrorCode, Result};

/// A certificate that was decoded.
#[derive(Debug)]
pub(crate) struct Decoded(Certificate);

impl Decoded {
    /// # Errors
    /// [`ErrorCode::Crypto`] for what is no certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self> {
        let decoded = Certificate::from_der(certificate);
        decoded.map(Decoded).map_err(|e| Error::new(ErrorCode::Crypto, format!("unable to decode certificate: {e}")))
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// Returns the first common name of the subject.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] without one, [`ErrorCode::Crypto`] for a name that contains a zero byte or is no text.
    pub(crate) fn common_name(&self) -> Result<String> {
        let names = self.0.tbs_certificate().subject().iter();
        let found = names.filter(|name| name.oid == CN).map(|name| text_of(&name.value)).next();
        let missing = || Error::new(ErrorCode::Format, "common name is missing");
        let name = found.ok_or_else(missing)?.ok_or_else(|| Error::new(ErrorCode::Crypto, "common name is no text"))?;
        check_name(&name)?;
        Ok(name)
    }

    /// Returns whether the certificate is for a host of this name or address: the alternative names count, and the common
    /// name only if there are none.
    ///
    /// # Errors
    /// [`ErrorCode::Crypto`] for a name that contains a zero byte, and the errors of [`Self::common_name`].
    pub(crate) fn is_for(&self, host: &str) -> Result<bool> {
        let invalid = |e| Error::new(ErrorCode::Crypto, format!("unable to decode alternative names: {e}"));
        let found = self.0.tbs_certificate().get_extension::<SubjectAltName>().map_err(invalid)?;
        let alternatives = found.map(|(_, names)| names.0).unwrap_or_default();
        if alternatives.is_empty() {
            return Ok(name_matches(host, &self.common_name()?));
        }
        for name in &alternatives {
            let matches = match name {
                GeneralName::DnsName(name) => {
                    check_name(name.as_str())?;
                    name_matches(host, name.as_str())
                }
                GeneralName::IpAddress(address) => address_matches(host, address.as_bytes()),
                _ => false,
            };
            if matches {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether the certificate may be that of an authority, as OpenSSL's `X509_check_ca` decides. A certificate of
    /// version 1 can't say it, so one that is its own issuer may be.
    pub(crate) fn is_authority(&self) -> bool {
        let certificate = self.0.tbs_certificate();
        let (Ok(usage), Ok(constraints)) =
            (certificate.get_extension::<KeyUsage>(), certificate.get_extension::<BasicConstraints>())
        else {
            return false;
        };
        match (usage, constraints) {
            (Some((_, usage)), _) if !usage.key_cert_sign() => false,
            (_, Some((_, constraints))) => constraints.ca,
            (Some(_), None) => true,
            (None, None) => certificate.version() == Version::V1 && certificate.subject() == certificate.issuer(),
        }
    }

    /// Returns the seconds since 1970 from when on and until when the certificate is valid.
    pub(crate) fn validity(&self) -> (u64, u64) {
        let validity = self.0.tbs_certificate().validity();
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
    }
}

/// The text of a name's value, whatever type of text it has.
fn text_of(value: &der::Any) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok()?.as_str().to_owned(),
        _ => return None,
    };
    Some(text)
}

/// A name that ends at a zero byte for other programs would be another name for them.
fn check_name(name: &str) -> Result<()> {
    match name.contains('\0') {
        true => Err(Error::new(ErrorCode::Crypto, "TLS certificate name contains embedded null")),
        false => Ok(()),
    }
}

/// Returns whether a name of a certificate is that of the host. `*.` at its start stands for one part of a name.
fn name_matches(host: &str, name: &str) -> bool {
    if host.eq_ignore_ascii_case(name) {
        return true;
    }
    let Some(parent) = name.strip_prefix("*.").filter(|parent| !parent.is_empty()) else { return false };
    let of_parent = |(first, rest): (&str, &str)| !first.is_empty() && rest.eq_ignore_ascii_case(parent);
    host.split_once('.').is_some_and(of_parent)
}

fn address_matches(host: &str, address: &[u8]) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(host)) => host.octets() == address,
        Ok(IpAddr::V6(host)) => host.octets() == address,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_matches_regardless_of_case_and_an_asterisk_is_one_part() {
        for (host, name, expected) in [
            ("db.example.com", "DB.Example.com", true),
            ("db.example.com", "*.example.com", true),
            ("a.db.example.com", "*.example.com", false),
            (".example.com", "*.example.com", false),
            ("example.com", "*.example.com", false),
            ("db.example.com", "*", false),
            ("db.example.com", "*.", false),
            ("db.example.com", "d*.example.com", false),
            ("db.example.com", "*.*.com", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("db", "db2", false),
        ] {
            assert_eq!(name_matches(host, name), expected, "{host} {name}");
        }
    }

    #[test]
    fn address_matches_the_bytes_of_its_own_family() {
        assert!(address_matches("127.0.0.1", &[127, 0, 0, 1]));
        assert!(!address_matches("127.0.0.1", &[127, 0, 0, 2]));
        assert!(address_matches("::1", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
        assert!(!address_matches("::1", &[127, 0, 0, 1]));
        assert!(!address_matches("localhost", &[127, 0, 0, 1]));
    }

    #[test]
    fn name_with_a_zero_byte_is_refused() {
        assert_eq!(check_name("good.example.com\0.evil.example").unwrap_err().code, ErrorCode::Crypto);
        assert!(check_name("good.example.com").is_ok());
    }
}
