//! Connects: socket, key exchange, the server's key, the user's key, the SFTP subsystem.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, Handler};
use russh::keys::ssh_key::{Algorithm, HashAlg};
use russh::keys::{
    PrivateKey, PrivateKeyWithHashAlg, PublicKeyBase64, PublicKeyOrCertificate, decode_secret_key, load_public_key,
};
use russh::{ChannelMsg, Preferred, cipher};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;

use super::SftpSettings;
use super::client::{Client, SftpFailure, Transport};
use super::host_key::{self, HostKeyCheck, KnownHosts, Verdict};
use super::short_key;
use crate::system_text;
use crate::work::backoff::{Backoff, Growth};
use crate::{Error, ErrorCode, Result};

/// A key file larger than this is not one.
const KEY_SIZE_MAX_BYTES: u64 = 1 << 20;
/// The pause before a refused connection is retried. Each further pause is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// How long an unreachable host is retried, unless the I/O timeout is shorter.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A keep-alive message is sent after this long without traffic.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes that a server may send before they must be acknowledged. Limits what can be in flight, and therefore the
/// throughput over long distances.
const WINDOW_SIZE_BYTES: u32 = 16 << 20;

/// AES in hardware is several times as fast as ChaCha20.
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR, cipher::AES_192_CTR, cipher::AES_128_CTR];

fn service(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Service, message)
}

/// Connects and logs in.
///
/// # Errors
/// [`ErrorCode::HostConnect`] if there is no connection, [`ErrorCode::Service`] if one side refuses the other's key.
pub(super) async fn connect(settings: &SftpSettings) -> Result<Client> {
    let key = private_key(settings)?;
    let known_hosts = match settings.host_key_check {
        HostKeyCheck::Strict | HostKeyCheck::AcceptNew => KnownHosts::load(&known_host_files(settings)),
        HostKeyCheck::Fingerprint(_) | HostKeyCheck::None => KnownHosts::default(),
    };
    let known_hosts = Arc::new(known_hosts);
    let mut algorithms = algorithms(&known_hosts.key_types(&settings.host, settings.port));
    let mut refused: Option<Error> = None;
    loop {
        match handshake(settings, Arc::clone(&known_hosts), &algorithms).await {
            Ok((mut session, socket)) => {
                authenticate(settings, key, &mut session).await?;
                return start(settings, session, socket).await;
            }
            // A host has keys of several types. A fingerprint belongs to one of them, and the key that a server shows
            // depends on what it is asked for.
            Err(SessionError::OtherKey { key_type, error }) => {
                algorithms.retain(|algorithm| key_type_of(algorithm) != key_type);
                let error = refused.take().unwrap_or(error);
                if algorithms.is_empty() {
                    return Err(error);
                }
                refused = Some(error);
            }
            Err(SessionError::Refused(error)) => return Err(error),
            Err(SessionError::Ssh(error)) => {
                let text =
                    format!("unable to connect to SFTP server '{}': {}", settings.address(), system_text(&error));
                return Err(refused.unwrap_or_else(|| service(text).cause(error)));
            }
        }
    }
}

/// Returns the name of a key type in files, independent of the signature's hash.
fn key_type_of(algorithm: &Algorithm) -> String {
    match algorithm {
        Algorithm::Rsa { .. } => "ssh-rsa".to_owned(),
        other => other.as_str().to_owned(),
    }
}

/// Returns the key types to request from a server: those that it is known by first.
fn algorithms(known: &[&str]) -> Vec<Algorithm> {
    let mut algorithms = Preferred::DEFAULT.key.to_vec();
    algorithms.sort_by_key(|algorithm| !known.contains(&key_type_of(algorithm).as_str()));
    algorithms
}

/// Returns the files to search: those of `repo-sftp-known-host`, or the usual ones.
fn known_host_files(settings: &SftpSettings) -> Vec<PathBuf> {
    if !settings.known_host_files.is_empty() {
        return settings.known_host_files.iter().map(|file| expand(settings, file.trim())).collect();
    }
    let home = |name: &str| settings.home.iter().map(|home| home.join(".ssh").join(name)).collect::<Vec<_>>();
    let mut files = home("known_hosts");
    files.extend(home("known_hosts2"));
    files.extend(["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"].map(PathBuf::from));
    files
}

/// A path whose leading `~` stands for the user's home.
fn expand(settings: &SftpSettings, path: &str) -> PathBuf {
    match (path.trim_start().strip_prefix('~'), &settings.home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(path),
    }
}

fn private_key(settings: &SftpSettings) -> Result<Arc<PrivateKey>> {
    let file = expand(settings, &settings.private_key_file);
    let passphrase = settings.private_key_passphrase.as_ref().map(ExposeSecret::expose_secret);
    let text = read_key(&file)?;
    let key = decode_secret_key(&text, passphrase);
    let key = key.or_else(|error| short_key::decode(&text, passphrase).ok_or(error));
    let key =
        key.map_err(|error| service(format!("unable to load private key '{}': {error}", file.display())).cause(error))?;
    if let Some(public) = &settings.public_key_file {
        let public = expand(settings, public);
        let loaded = load_public_key(&public).map_err(|error| {
            service(format!("unable to load public key '{}': {}", public.display(), system_text(&error))).cause(error)
        })?;
        if loaded.public_key_bytes() != key.public_key_bytes() {
            let (public, private) = (public.display(), file.display());
            return Err(service(format!("public key '{public}' does not belong to private key '{private}'")));
        }
    }
    Ok(Arc::new(key))
}

fn read_key(file: &Path) -> Result<String> {
    let mut text = String::new();
    let done = File::open(file).and_then(|file| file.take(KEY_SIZE_MAX_BYTES).read_to_string(&mut text));
    let code = |kind| if kind == ErrorKind::NotFound { ErrorCode::FileMissing } else { ErrorCode::FileOpen };
    done.map(|_| text)
        .map_err(|e| Error::from_io(code(e.kind()), format!("unable to open private key '{}'", file.display()), e))
}

/// Why there is no session.
#[derive(Debug)]
enum SessionError {
    Ssh(russh::Error),
    /// The server is not trusted.
    Refused(Error),
    /// This key of the server is not the expected one, but another may be.
    OtherKey {
        key_type: String,
        error: Error,
    },
}

impl From<russh::Error> for SessionError {
    fn from(error: russh::Error) -> Self {
        SessionError::Ssh(error)
    }
}

/// A server's key.
struct NewKey {
    /// As files name it, e.g. `ssh-ed25519`.
    key_type: String,
    /// The key in its wire form.
    key: Vec<u8>,
}

/// Checks the server's key.
struct ServerCheck {
    settings: SftpSettings,
    known_hosts: Arc<KnownHosts>,
    /// A key that was accepted though it was not known.
    new_key: Arc<Mutex<Option<NewKey>>>,
}

impl ServerCheck {
    fn check(&self, key_type: &str, key: &[u8]) -> std::result::Result<(), SessionError> {
        let SftpSettings { host, port, .. } = &self.settings;
        let (what, check) = match &self.settings.host_key_check {
            HostKeyCheck::None => return Ok(()),
            HostKeyCheck::Fingerprint(wanted) => {
                let found = host_key::fingerprint(self.settings.host_key_hash, key);
                if found.eq_ignore_ascii_case(wanted) {
                    return Ok(());
                }
                return Err(SessionError::OtherKey {
                    key_type: key_type.to_owned(),
                    error: service(format!(
                        "host [{found}] and configured fingerprint (repo-sftp-host-fingerprint) [{wanted}] do not match"
                    )),
                });
            }
            check => match (self.known_hosts.check(host, *port, key), check) {
                (Verdict::Match, _) => {
                    crate::detail!("known hosts match found for '{host}'");
                    return Ok(());
                }
                (Verdict::NotFound, HostKeyCheck::AcceptNew) => {
                    *self.new_key.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(NewKey { key_type: key_type.to_owned(), key: key.to_owned() });
                    return Ok(());
                }
                (Verdict::NotFound, _) => ("not found in known hosts files", "strict"),
                (Verdict::Mismatch, HostKeyCheck::AcceptNew) => ("mismatch in known hosts files", "accept-new"),
                (Verdict::Mismatch, _) => ("mismatch in known hosts files", "strict"),
            },
        };
        Err(SessionError::Refused(service(format!("known hosts failure: '{host}': {what}: check type [{check}]"))))
    }
}

impl Handler for ServerCheck {
    type Error = SessionError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> std::result::Result<bool, SessionError> {
        match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.check(&key_type_of(&key.algorithm()), &key.public_key_bytes())?;
                Ok(true)
            }
            // None was requested
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}

/// A session and its socket.
struct SshTransport {
    _session: Handle<ServerCheck>,
    socket: OwnedFd,
}

impl Transport for SshTransport {
    fn cut(&self) {
        // Discards what waits in the socket, even if the session would close it only later or not at all
        if let Err(error) = rustix::net::connect_unspec(&self.socket) {
            crate::debug!("unable to shut down SFTP connection: {}", system_text(&error));
            // Not every system supports that; at least nothing more is sent
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }
}

async fn handshake(
    settings: &SftpSettings,
    known_hosts: Arc<KnownHosts>,
    algorithms: &[Algorithm],
) -> std::result::Result<(Handle<ServerCheck>, OwnedFd), SessionError> {
    let socket = reach(settings).await.map_err(SessionError::Refused)?;
    let same = socket.as_fd().try_clone_to_owned().map_err(|error| SessionError::Ssh(error.into()))?;
    let config = client::Config {
        window_size: WINDOW_SIZE_BYTES,
        keepalive_interval: Some(KEEPALIVE),
        preferred: Preferred {
            key: Cow::Owned(algorithms.to_vec()),
            cipher: Cow::Borrowed(CIPHERS),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    };
    let new_key: Arc<Mutex<Option<NewKey>>> = Arc::default();
    let check = ServerCheck { settings: settings.clone(), known_hosts, new_key: Arc::clone(&new_key) };
    let session = tokio::time::timeout(settings.io_timeout, client::connect_stream(Arc::new(config), socket, check))
        .await
        .map_err(|_| {
            SessionError::Refused(service(format!("timeout during SSH handshake with '{}'", settings.address())))
        })??;
    let new_key = new_key.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let (Some(NewKey { key_type, key }), Some(home)) = (new_key, &settings.home) {
        host_key::learn(&home.join(".ssh/known_hosts"), &settings.host, settings.port, &key_type, &key);
    }
    Ok((session, same))
}

/// Opens the socket. Waits for a server that is just starting.
async fn reach(settings: &SftpSettings) -> Result<TcpStream> {
    let limit = RETRY_MAX.min(settings.io_timeout);
    let mut pauses =
        Backoff { first: RETRY_FIRST, max: limit, growth: Growth::Times(2.0), limit, tries_min: 0 }.start();
    loop {
        let host = settings.host.trim_matches(['[', ']']);
        let failed = match tokio::time::timeout(settings.io_timeout, TcpStream::connect((host, settings.port))).await {
            Ok(Ok(socket)) => {
                // Small requests must not wait for more data. Without this option they are late, not wrong.
                if let Err(error) = socket.set_nodelay(true) {
                    crate::debug!("unable to set TCP_NODELAY: {}", system_text(&error));
                }
                return Ok(socket);
            }
            Ok(Err(error)) => error,
            Err(_) => std::io::Error::from(ErrorKind::TimedOut),
        };
        if !pauses.wait_async().await {
            let message = format!("unable to connect to '{}'", settings.address());
            return Err(Error::from_io(ErrorCode::HostConnect, message, failed));
        }
    }
}

async fn authenticate(settings: &SftpSettings, key: Arc<PrivateKey>, session: &mut Handle<ServerCheck>) -> Result<()> {
    let log_in = async {
        // RSA keys sign with the best hash that the server accepts; a server that does not say accepts SHA-2 or is very
        // old
        let hashes: &[Option<HashAlg>] = match session.best_supported_rsa_hash().await? {
            Some(hash) => &[hash],
            None if key.algorithm().is_rsa() => &[Some(HashAlg::Sha256), None],
            None => &[None],
        };
        for &hash in hashes {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(&key), hash);
            if let AuthResult::Success = session.authenticate_publickey(settings.user.as_str(), key).await? {
                return Ok(true);
            }
        }
        Ok::<_, russh::Error>(false)
    };
    let failed = |why: String| {
        let user = &settings.user;
        let text = format!("public key authentication failed for user '{user}' at '{}'{why}", settings.address());
        service(text).hint("check authorization log on the SFTP server")
    };
    match tokio::time::timeout(settings.io_timeout, log_in).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(failed(String::new())),
        Ok(Err(error)) => Err(failed(format!(": {}", system_text(&error))).cause(error)),
        Err(_) => Err(failed(": timeout".into())),
    }
}

/// Starts the subsystem and the protocol.
async fn start(settings: &SftpSettings, session: Handle<ServerCheck>, socket: OwnedFd) -> Result<Client> {
    let failed = |why: String| service(format!("unable to init SFTP session with '{}': {why}", settings.address()));
    let open = async {
        let mut channel = session.channel_open_session().await?;
        channel.request_subsystem(true, "sftp").await?;
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => return Ok::<_, russh::Error>(Some(channel)),
                Some(ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof) | None => return Ok(None),
                Some(_) => {}
            }
        }
    };
    let channel = match tokio::time::timeout(settings.io_timeout, open).await {
        Ok(Ok(Some(channel))) => channel,
        Ok(Ok(None)) => return Err(failed("the server offers no SFTP".into())),
        Ok(Err(error)) => return Err(failed(system_text(&error)).cause(error)),
        Err(_) => return Err(failed("timeout".into())),
    };
    let transport = Box::new(SshTransport { _session: session, socket });
    let client = Client::start(channel.into_stream(), settings.io_timeout, transport).await;
    let client = client.map_err(|failure| match failure {
        SftpFailure::Lost(why) => failed(why),
        _ => failed("the server does not speak version 3 of the protocol".into()),
    })?;
    if !client.can_sync() {
        crate::warn!(
            "SFTP server '{}' does not offer fsync@openssh.com: files are durable only if the server syncs them itself",
            settings.address()
        );
    }
    Ok(client)
}
