//! Encrypted sessions with PostgreSQL, with the checks of the client library's `sslmode`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};

use super::channel_binding::server_end_point;
use super::environment::{SslFiles, SslMode};
use crate::system_text;

/// Any error, which the caller puts into a message.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Starts TLS on connections, or never does.
#[derive(Clone)]
pub(super) struct PgConnector {
    config: Option<Arc<ClientConfig>>,
}

impl PgConnector {
    /// Creates a connector for unencrypted sessions.
    pub(super) fn plain() -> Self {
        PgConnector { config: None }
    }

    /// Creates a connector for encrypted sessions, which check the server according to the mode.
    ///
    /// # Errors
    /// A certificate or key file is missing although the mode requires it, or can't be used.
    pub(super) fn new(mode: SslMode, files: &SslFiles) -> Result<Self, Failure> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions: &[_] = match (files.version_min_13, files.version_max_12) {
            (true, _) => &[&rustls::version::TLS13],
            (_, true) => &[&rustls::version::TLS12],
            _ => &[&rustls::version::TLS13, &rustls::version::TLS12],
        };
        let key_provider = provider.key_provider;
        let verifier = Arc::new(ServerCheck::new(mode, files, Arc::clone(&provider))?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match own_certificate(files)? {
            Some((certificates, key)) => {
                let certified = CertifiedKey::new(certificates, key_provider.load_private_key(key)?);
                // Only a key that surely belongs to another certificate is refused here. Certificates of version 1, as the examples
                // of PostgreSQL's manual create them, cannot be parsed; the server accepts them
                if let Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) =
                    certified.keys_match()
                {
                    return Err(error.into());
                }
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = config;
        if files.direct {
            // The server accepts TLS without a request only with this protocol
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(PgConnector { config: Some(Arc::new(config)) })
    }

    /// A handshake with the server of this name.
    pub(super) fn handshake(&self, host: &str) -> Handshake {
        Handshake { config: self.config.clone(), host: host.to_owned() }
    }
}

/// Returns the client's certificate and key, if the files exist.
fn own_certificate(
    files: &SslFiles,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, Failure> {
    let wanted = files.certificate.as_ref().filter(|file| !files.without_certificate && file.exists());
    let Some(certificate) = wanted else { return Ok(None) };
    let certificates = read_certificates(certificate)?;
    let missing = || format!("certificate present, but not private key file \"{}\"", certificate.display());
    let key = files.key.as_ref().ok_or_else(missing)?;
    let name = key.display();
    let found = fs::metadata(key).map_err(|_| format!("certificate present, but not private key file \"{name}\""))?;
    let others_may = if found.uid() == 0 { 0o037 } else { 0o077 };
    if found.mode() & others_may != 0 {
        return Err(format!(
            "private key file \"{name}\" has group or world access; file must have permissions u=rw (0600) or less if \
             owned by the current user, or permissions u=rw,g=r (0640) or less if owned by root"
        )
        .into());
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| system_text(&error))
        .map_err(|error| format!("could not load private key file \"{name}\" (without a passphrase): {error}"))?;
    Ok(Some((certificates, key)))
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let failed = |error| format!("could not read certificate file \"{}\": {error}", file.display());
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| failed(system_text(&error)))?;
    if certificates.is_empty() {
        return Err(failed("it has no certificate".to_owned()).into());
    }
    Ok(certificates)
}

/// Checks the server's certificate as far as the mode requires.
#[derive(Debug)]
struct ServerCheck {
    provider: Arc<CryptoProvider>,
    /// The certificates in the file of authorities. The server's own certificate may be among them.
    trusted: Vec<CertificateDer<'static>>,
    /// The check by authorities; `None` if any server is accepted.
    chain: Option<Arc<dyn ServerCertVerifier>>,
    check_name: bool,
}

impl ServerCheck {
    fn new(mode: SslMode, files: &SslFiles, provider: Arc<CryptoProvider>) -> Result<Self, Failure> {
        let any = |provider| ServerCheck { provider, trusted: Vec::new(), chain: None, check_name: false };
        let Some(root) = &files.root else {
            return if mode >= SslMode::VerifyCa { Err(no_root("root.crt")) } else { Ok(any(provider)) };
        };
        if files.root_is_set && root.as_os_str() == "system" {
            return Err("sslrootcert=system is not supported: name the file of the authorities (PGSSLROOTCERT)".into());
        }
        // If the file exists, even a weak mode checks, as in libpq
        if !root.exists() {
            let name = root.display().to_string();
            return if mode >= SslMode::VerifyCa { Err(no_root(&name)) } else { Ok(any(provider)) };
        }
        let trusted = read_certificates(root)?;
        let mut store = RootCertStore::empty();
        for certificate in &trusted {
            store.add(certificate.clone()).map_err(|error| {
                format!("could not use a certificate of root certificate file \"{}\": {error}", root.display())
            })?;
        }
        let revoked = read_revoked(files)?;
        // With revocation lists only the chain of authorities counts
        let trusted = if revoked.is_empty() { trusted } else { Vec::new() };
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .with_crls(revoked)
            .build()?;
        Ok(ServerCheck { provider, trusted, chain: Some(chain), check_name: mode == SslMode::VerifyFull })
    }
}

/// The lists of revoked certificates. The usual file need not exist, and does not count beside a directory.
fn read_revoked(files: &SslFiles) -> Result<Vec<CertificateRevocationListDer<'static>>, Failure> {
    let is_usual = |file: &Path| files.revoked_directory.is_none() && file.exists();
    let mut lists = Vec::new();
    if let Some(file) = files.revoked.as_ref().filter(|file| files.revoked_is_set || is_usual(file)) {
        lists = read_revocation_lists(file)?;
    }
    if let Some(directory) = &files.revoked_directory {
        let failed =
            |error| format!("could not read directory of revocation lists \"{}\": {error}", directory.display());
        let count = lists.len();
        for entry in fs::read_dir(directory).map_err(|error| failed(system_text(&error)))? {
            let entry = entry.map_err(|error| failed(system_text(&error)))?;
            if is_revocation_list(&entry.file_name().to_string_lossy()) {
                lists.extend(read_revocation_lists(&entry.path())?);
            }
        }
        if lists.len() == count {
            return Err(failed("it contains no list".to_owned()).into());
        }
    }
    Ok(lists)
}

/// Returns whether a file of the directory is a list: `openssl rehash` names it `HASH.rN`.
fn is_revocation_list(name: &str) -> bool {
    let digits = |text: &str, is_digit: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|byte| is_digit(&byte));
    name.split_once(".r")
        .is_some_and(|(hash, number)| digits(hash, u8::is_ascii_hexdigit) && digits(number, u8::is_ascii_digit))
}

fn read_revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Failure> {
    let failed = |error| format!("could not read revocation list \"{}\": {error}", file.display());
    let lists: Vec<_> = CertificateRevocationListDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| failed(system_text(&error)))?;
    if lists.is_empty() {
        return Err(failed("it contains no list".to_owned()).into());
    }
    Ok(lists)
}

fn no_root(name: &str) -> Failure {
    format!(
        "root certificate file \"{name}\" does not exist\nEither provide the file or change sslmode to disable server \
         certificate verification."
    )
    .into()
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            // A self-signed certificate, which PostgreSQL's manual describes first
            if self.check_name {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            done => done,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl<S> MakeTlsConnect<S> for PgConnector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type TlsConnect = Handshake;
    type Error = Failure;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Failure> {
        Ok(self.handshake(host))
    }
}

/// A TLS handshake to start with one server.
pub(super) struct Handshake {
    config: Option<Arc<ClientConfig>>,
    host: String,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, Failure>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let Some(config) = self.config else { return Err("the session is not to be encrypted".into()) };
            let name = ServerName::try_from(self.host)?;
            Ok(Stream(tokio_rustls::TlsConnector::from(config).connect(name, stream).await?))
        })
    }
}

/// An encrypted connection.
pub(super) struct Stream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(<[_]>::first);
        certificate.and_then(server_end_point).map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}
