//! The cipher suites of connections (`tls-cipher-12`, `tls-cipher-13`).
//!
//! pgBackRest passes these options to OpenSSL, whose lists support classes of suites and operators. Here a list names
//! each suite.

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};

use crate::{Error, ErrorCode, Result};

/// A suite and OpenSSL's name of it.
type Named = (&'static str, SupportedCipherSuite);

/// The available suites of TLS 1.2.
static TLS_12: [Named; 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The available suites of TLS 1.3.
static TLS_13: [Named; 3] = [
    ("TLS_AES_256_GCM_SHA384", cipher_suite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", cipher_suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
];

/// Returns the provider of cryptography for connections with the suites of these lists, whose names are separated by
/// colons. Without a list, all suites of the version are allowed.
///
/// # Errors
/// [`ErrorCode::FeatureNotSupported`] for a name that is not an available suite.
pub fn provider(tls_12: Option<&str>, tls_13: Option<&str>) -> Result<CryptoProvider> {
    let mut cipher_suites = suites("tls-cipher-13", tls_13, &TLS_13)?;
    cipher_suites.extend(suites("tls-cipher-12", tls_12, &TLS_12)?);
    Ok(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

/// Limits the connections of this process to object stores to the suites of these lists. Call it before connections are
/// set up.
///
/// # Errors
/// The same as [`provider`].
pub fn choose(tls_12: Option<&str>, tls_13: Option<&str>) -> Result<()> {
    if tls_12.is_none() && tls_13.is_none() {
        return Ok(());
    }
    // Every repository requests the same, because the options apply to the whole process
    if let Err(installed) = provider(tls_12, tls_13)?.install_default()
        && CryptoProvider::get_default().is_none_or(|current| current.cipher_suites != installed.cipher_suites)
    {
        return Err(Error::new(ErrorCode::Assert, "other cipher suites were chosen before"));
    }
    Ok(())
}

/// The suites of a list, in its order.
fn suites(option: &str, list: Option<&str>, known: &[Named]) -> Result<Vec<SupportedCipherSuite>> {
    let Some(list) = list else { return Ok(known.iter().map(|(_, suite)| *suite).collect()) };
    list.split(':')
        .map(|name| {
            let found = known.iter().find(|(known, _)| *known == name);
            found.map(|(_, suite)| *suite).ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let text = format!("'{name}' in option '{option}' is not supported");
                Error::new(ErrorCode::FeatureNotSupported, text)
                    .hint(format!("the cipher suites that can be chosen are {}.", names.join(", ")))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_suites_in_the_order_of_preference() {
        let chosen = |list| suites("tls-cipher-12", list, &TLS_12);
        assert_eq!(chosen(None).unwrap().len(), TLS_12.len());
        let two = chosen(Some("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")).unwrap();
        assert_eq!(two, [TLS_12[4].1, TLS_12[0].1]);
        for bad in ["", "HIGH", "ECDHE-RSA-AES128-GCM-SHA256:", "!aNULL", "TLS_AES_128_GCM_SHA256"] {
            let error = chosen(Some(bad)).unwrap_err();
            assert_eq!(error.code, ErrorCode::FeatureNotSupported, "{bad}");
            assert!(error.to_string().contains("ECDHE-ECDSA-CHACHA20-POLY1305"), "{error}");
        }
    }

    #[test]
    fn all_suites_that_there_are_can_be_chosen() {
        let all = aws_lc_rs::default_provider().cipher_suites;
        assert_eq!(all.len(), TLS_12.len() + TLS_13.len());
        assert!(TLS_12.iter().chain(&TLS_13).all(|(_, suite)| all.contains(suite)));
        assert!(TLS_13.iter().all(|(name, suite)| format!("{suite:?}").replace("TLS13", "TLS").contains(name)));
    }
}
