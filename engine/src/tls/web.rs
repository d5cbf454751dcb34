//! TLS of a web server.

use std::path::Path;
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};

use super::{Identity, authorities_in, ciphers};
use crate::{Error, ErrorCode, Result};

/// Returns the settings of a server with this certificate and key. With `ca`, a client needs a certificate of one of the
/// authorities in this file.
///
/// # Errors
/// The same as [`Identity::load`]; the authorities can't be read, or there are none.
pub fn web_server(certificate: &Path, key: &Path, ca: Option<&Path>) -> Result<Arc<ServerConfig>> {
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorCode::Crypto, format!("unable to set up TLS: {e}"));
    let provider = Arc::new(ciphers::provider(None, None)?);
    let identity = Identity::load(certificate, key, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?;
    let resolver = Arc::new(SingleCertAndKey::from(identity.certified().as_ref().clone()));
    let mut config = match ca {
        None => builder.with_no_client_auth().with_cert_resolver(resolver),
        Some(ca) => {
            let mut store = RootCertStore::empty();
            for authority in authorities_in(Some(ca), None, "monitor-tls-ca-file")?.unwrap_or_default() {
                store.add(authority).map_err(|e| {
                    Error::new(ErrorCode::Crypto, format!("unable to use the authorities in '{}': {e}", ca.display()))
                })?;
            }
            let check = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
            builder.with_client_cert_verifier(check.build().map_err(|e| failed(&e))?).with_cert_resolver(resolver)
        }
    };
    // A resumed session would not see a change of the authorities
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
