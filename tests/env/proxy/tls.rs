//! Both sides of a proxy's connections, with and without TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::ProxyOptions;

/// A connection of either kind.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// How both sides communicate.
pub struct Tls {
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
    /// `HOST:PORT` of the server.
    target: String,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).expect("certificates").map(|found| found.expect("certificate")).collect()
}

impl Tls {
    pub fn load(options: &ProxyOptions) -> Self {
        let server = options.certificate.as_ref().map(|(certificate, key)| {
            let key = PrivateKeyDer::from_pem_file(key).expect("key of the proxy");
            let mut provider = aws_lc_rs::default_provider();
            if let Some(suite) = options.suite {
                provider.cipher_suites = vec![suite];
            }
            let config = ServerConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()
                .expect("protocol versions")
                .with_no_client_auth()
                .with_single_cert(certificates(certificate), key);
            Arc::new(config.expect("certificate of the proxy"))
        });
        let (scheme, target) = options.target.split_once("://").expect("target is an URL");
        let client = (scheme == "https").then(|| {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(options.ca_file.as_deref().expect("authority of the server")) {
                roots.add(certificate).expect("authority of the server");
            }
            let config = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .expect("protocol versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
            Arc::new(config)
        });
        Self { server, client, target: target.trim_end_matches('/').to_owned() }
    }

    /// A client that has connected.
    pub fn accept(&self, socket: TcpStream) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.server {
            None => Box::new(socket),
            Some(config) => {
                let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(session, socket))
            }
        })
    }

    /// A new connection to the server, and its socket.
    pub fn connect(&self) -> io::Result<(Box<dyn Stream>, TcpStream)> {
        let socket = TcpStream::connect(&self.target)?;
        let copy = socket.try_clone()?;
        let Some(config) = &self.client else { return Ok((Box::new(socket), copy)) };
        let host = self.target.rsplit_once(':').map_or(self.target.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok((Box::new(StreamOwned::new(session, socket)), copy))
    }
}
