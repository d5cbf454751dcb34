//! Repositories on an SFTP server.
//!
//! One connection serves all threads of a process. Reads and writes keep many requests in flight, so that throughput
//! does not depend on the distance to the server. A lost connection is opened again, and everything that can be
//! repeated without harm is repeated, that is, everything except the writing of a file that has begun.
//!
//! Modes, names and the order of operations are pgBackRest's (`src/storage/sftp`): files with mode 0640 and directories
//! with 0750 (minus the server's umask), a temporary name and a rename for files that must be complete. A server can
//! sync files with an extension of OpenSSH. No server can sync directories.

mod client;
mod connection;
pub(crate) mod host_key;
pub(crate) mod protocol;
mod read;
mod remove;
mod short_key;
mod write;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use self::client::{Client, SftpFailure, unexpected};
pub use self::host_key::{HashType, HostKeyCheck};
use self::protocol::{MODE_FILE, MODE_LINK, MODE_PATH, MODE_TYPE, Response, SftpAttributes, status, status_name};
use self::remove::remove_tree;
use super::posix::PATH_MODE;
use super::{
    Concurrency, Entry, EntryKind, Features, OpenStorage, OpenedStorage, PendingRead, ReadRange, RepoPath, RepoReader,
    RepoStorage, RepoWriter, WriteOptions, network, pages,
};
use crate::{Error, ErrorCode, Result};

/// An operation is tried this often when connections are lost.
const TRIES_MAX: usize = 3;
/// Requests for names of one directory that are in flight. Each returns about a hundred.
const LISTS_IN_FLIGHT_MAX: usize = 16;

/// An SFTP repository's options.
#[derive(Clone, Debug)]
pub struct SftpSettings {
    /// `repo-path`.
    pub repo_path: String,
    /// `repo-sftp-host`.
    pub host: String,
    /// `repo-sftp-host-port`.
    pub port: u16,
    /// `repo-sftp-host-user`.
    pub user: String,
    /// `repo-sftp-private-key-file`.
    pub private_key_file: String,
    /// `repo-sftp-private-key-passphrase`.
    pub private_key_passphrase: Option<SecretString>,
    /// `repo-sftp-public-key-file`; it must belong to the private key.
    pub public_key_file: Option<String>,
    /// `repo-sftp-host-key-hash-type`.
    pub host_key_hash: HashType,
    /// `repo-sftp-host-key-check-type` and `repo-sftp-host-fingerprint`.
    pub host_key_check: HostKeyCheck,
    /// `repo-sftp-known-host`; if empty, the usual files.
    pub known_host_files: Vec<String>,
    /// The user's home, for `~` and the usual files.
    pub home: Option<PathBuf>,
    /// The maximum wait for a connection or an answer.
    pub io_timeout: Duration,
}

impl OpenStorage for SftpSettings {
    fn open(&self) -> Result<OpenedStorage> {
        Ok(SftpStorage::new(self.clone())?.into())
    }
}

impl SftpSettings {
    /// The server's name in messages.
    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A repository below a directory of an SFTP server.
#[derive(Clone)]
pub(crate) struct SftpStorage(Arc<Shared>);

/// What storage, readers and writers share.
struct Shared {
    settings: SftpSettings,
    runtime: Handle,
    /// The lock is held while connecting, so that all threads wait for the same attempt.
    connection: Mutex<Connection>,
    /// The number of completed connection attempts, successful or not.
    attempts: AtomicU64,
    /// Temporary files of writers whose connection was lost. They are removed over the next connection.
    abandoned: std::sync::Mutex<Vec<String>>,
}

/// The connection, or the failure of the last attempt to connect.
#[derive(Default)]
struct Connection {
    client: Option<Arc<Client>>,
    failure: Option<Arc<Error>>,
}

/// Opens a file for reading; `None` if it is missing.
async fn open(server: Arc<Shared>, absolute: String, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
    match read::SftpReader::open(Arc::clone(&server), &absolute, range).await {
        Ok(reader) => Ok(Some(Box::new(reader))),
        Err(failure) if failure.is_missing() => Ok(None),
        Err(failure) => {
            let message = format!("unable to open file '{absolute}' for read");
            Err(server.error(ErrorCode::FileOpen, &message, &failure))
        }
    }
}

impl SftpStorage {
    /// Creates a repository on a server. There is no connection before it is used.
    ///
    /// # Errors
    /// The network threads can't be started.
    pub fn new(settings: SftpSettings) -> Result<Self> {
        Ok(SftpStorage(Arc::new(Shared {
            settings,
            runtime: network::handle()?,
            connection: Mutex::default(),
            attempts: AtomicU64::new(0),
            abandoned: std::sync::Mutex::default(),
        })))
    }

    fn absolute(&self, path: &RepoPath) -> String {
        match (self.0.settings.repo_path.trim_end_matches('/'), path.as_str()) {
            ("", "") => "/".to_owned(),
            (root, "") => root.to_owned(),
            (root, path) => format!("{root}/{path}"),
        }
    }

    fn run<T, F>(&self, operation: impl Fn(Arc<Client>) -> F) -> std::result::Result<T, SftpFailure>
    where
        F: Future<Output = std::result::Result<T, SftpFailure>>,
    {
        self.0.runtime.block_on(self.0.repeat(operation))
    }
}

impl Shared {
    /// The connection, opened again if it was lost.
    async fn client(&self) -> std::result::Result<Arc<Client>, SftpFailure> {
        let attempts = self.attempts.load(Ordering::Relaxed);
        let mut current = self.connection.lock().await;
        if let Some(client) = &current.client {
            if !client.is_lost() {
                return Ok(Arc::clone(client));
            }
            crate::debug!("reconnect to lost sftp connection '{}'", self.settings.address());
            current.client = None;
        }
        // A thread that waited while another failed to connect does not wait as long again
        if let Some(failure) = &current.failure
            && self.attempts.load(Ordering::Relaxed) != attempts
        {
            return Err(SftpFailure::Connect(Arc::clone(failure)));
        }
        let connected = connection::connect(&self.settings).await;
        self.attempts.fetch_add(1, Ordering::Relaxed);
        match connected {
            Ok(client) => {
                let client = Arc::new(client);
                *current = Connection { client: Some(Arc::clone(&client)), failure: None };
                Ok(client)
            }
            Err(error) => {
                let error = Arc::new(error);
                current.failure = Some(Arc::clone(&error));
                Err(SftpFailure::Connect(error))
            }
        }
    }

    fn abandoned(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.abandoned.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs an operation that is harmless to repeat, again if the connection is lost.
    async fn repeat<T, F>(&self, operation: impl Fn(Arc<Client>) -> F) -> std::result::Result<T, SftpFailure>
    where
        F: Future<Output = std::result::Result<T, SftpFailure>>,
    {
        let mut tries = 1;
        loop {
            match operation(self.client().await?).await {
                Err(SftpFailure::Lost(_)) if tries < TRIES_MAX => tries += 1,
                done => return done,
            }
        }
    }

    /// Returns the error of a failed operation: the operation with its path, the server's message, and the server.
    fn error(&self, code: ErrorCode, message: &str, failure: &SftpFailure) -> Error {
        let address = self.settings.address();
        match failure {
            SftpFailure::Status { code: status, message: words } => {
                let name = status_name(*status);
                // Most servers repeat the status name, OpenSSH in capitals
                let words = match words.trim() {
                    words if words.is_empty() || words.eq_ignore_ascii_case(name) => String::new(),
                    words => format!(" ({words})"),
                };
                Error::new(code, format!("{message}: sftp error [{status}] {name}{words} on host '{address}'"))
            }
            SftpFailure::Lost(why) => Error::new(code, format!("{message}: {why} (host '{address}')")),
            SftpFailure::Protocol => {
                Error::new(code, format!("{message}: host '{address}' does not follow the SFTP protocol"))
            }
            SftpFailure::Connect(error) => {
                let mut found = Error::new(error.code, error.message.clone());
                found.hints.clone_from(&error.hints);
                found.cause(Arc::clone(error))
            }
        }
    }
}

/// Creates a directory and its missing parents. An existing directory is fine.
fn create_path<'a>(
    client: &'a Client,
    path: &'a str,
) -> Pin<Box<dyn Future<Output = std::result::Result<(), SftpFailure>> + Send + 'a>> {
    Box::pin(async move {
        match client.make_directory(path, PATH_MODE).await {
            Err(failure) if failure.may_exist() => match client.attributes(path, true).await {
                Ok(found) if found.mode.is_none_or(|mode| mode & MODE_TYPE == MODE_PATH) => Ok(()),
                _ => Err(failure),
            },
            Err(failure) if failure.is_missing() => match parent(path) {
                Some(parent) => {
                    create_path(client, parent).await?;
                    match client.make_directory(path, PATH_MODE).await {
                        // Another thread was faster
                        Err(failure) if failure.may_exist() && client.attributes(path, true).await.is_ok() => Ok(()),
                        done => done,
                    }
                }
                None => Err(failure),
            },
            done => done,
        }
    })
}

/// Returns the parent directory; `None` for the root or for a single name.
fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/') {
        Some(("", name)) if !name.is_empty() => Some("/"),
        Some((parent, _)) if !parent.is_empty() => Some(parent),
        _ => None,
    }
}

fn entry(name: String, found: SftpAttributes) -> Entry {
    let kind = match found.mode.map_or(MODE_FILE, |mode| mode & MODE_TYPE) {
        MODE_FILE => EntryKind::File,
        MODE_PATH => EntryKind::Path,
        MODE_LINK => EntryKind::Link,
        _ => EntryKind::Special,
    };
    let size = if kind == EntryKind::File { found.size.unwrap_or(0) } else { 0 };
    Entry { name, kind, size, modified: i64::from(found.modified.unwrap_or(0)), version: None }
}

/// Returns names and attributes in a directory without `.` and `..`.
async fn list(client: &Client, path: &str) -> std::result::Result<Vec<(Bytes, SftpAttributes)>, SftpFailure> {
    let handle = client.open_directory(path).await?;
    let found = read_names(client, &handle).await;
    // It does not matter when the server closes the handle, but without a close it would stay open as long as the
    // connection
    match client.close(&handle).await {
        Ok(closing) => drop(closing),
        Err(failure) => return found.and(Err(failure)),
    }
    found
}

async fn read_names(client: &Client, handle: &[u8]) -> std::result::Result<Vec<(Bytes, SftpAttributes)>, SftpFailure> {
    let mut found = Vec::new();
    let mut empty = 0;
    let mut in_flight = std::collections::VecDeque::new();
    let mut width = 2;
    let mut end = false;
    while !end || !in_flight.is_empty() {
        while !end && in_flight.len() < width {
            in_flight.push_back(client.read_directory(handle).await?);
        }
        let Some(next) = in_flight.pop_front() else { break };
        match next.response().await? {
            Response::Names(names) => {
                let before = found.len();
                found.extend(names.into_iter().filter(|(name, _)| !matches!(&name[..], b"." | b"..")));
                empty = if found.len() == before { empty + 1 } else { 0 };
                // No directory is like that, but a server could go on forever
                if found.len() > pages::ENTRIES_MAX || empty > pages::EMPTY_PAGES_MAX {
                    return Err(SftpFailure::Protocol);
                }
                width = (width * 2).min(LISTS_IN_FLIGHT_MAX);
            }
            Response::Status { code: status::EOF, .. } => end = true,
            other => return Err(unexpected(other)),
        }
    }
    Ok(found)
}

impl RepoStorage for SftpStorage {
    fn features(&self) -> Features {
        Features { paths: true, hard_links: false, symlinks: false, path_sync: false, errors_last: false }
    }

    fn concurrency(&self) -> Concurrency {
        Concurrency::SERVER
    }

    fn display(&self, path: &RepoPath) -> String {
        self.absolute(path)
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        let absolute = &self.absolute(path);
        match self.run(|client| async move { client.attributes(absolute, false).await }) {
            Ok(found) => Ok(Some(entry(path.file_name().to_owned(), found))),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => {
                let message = format!("unable to get info for path/file '{absolute}'");
                Err(self.0.error(ErrorCode::FileOpen, &message, &failure))
            }
        }
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        let absolute = &self.absolute(path);
        let found = match self.run(|client| async move { list(&client, absolute).await }) {
            Ok(found) => found,
            Err(failure) if failure.is_missing() => return Ok(None),
            Err(failure) => {
                let message = format!("unable to list file info for path '{absolute}'");
                return Err(self.0.error(ErrorCode::PathOpen, &message, &failure));
            }
        };
        let mut entries = Vec::with_capacity(found.len());
        for (name, attributes) in found {
            let name = String::from_utf8_lossy(&name).into_owned();
            // Most servers send attributes along; only one that does not is asked
            let complete = attributes.mode.is_some() && attributes.size.is_some() && attributes.modified.is_some();
            if complete {
                entries.push(entry(name, attributes));
            } else {
                entries.extend(self.info(&path.join(&name)?)?);
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    fn link_destination(&self, path: &RepoPath) -> Result<Option<String>> {
        let absolute = &self.absolute(path);
        match self.run(|client| async move { client.link_destination(absolute).await }) {
            Ok(destination) => Ok(Some(String::from_utf8_lossy(&destination).into_owned())),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => {
                let message = format!("unable to get destination for link '{absolute}'");
                Err(self.0.error(ErrorCode::FileRead, &message, &failure))
            }
        }
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        let absolute = self.absolute(path);
        self.0.runtime.block_on(open(Arc::clone(&self.0), absolute, range))
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let (server, absolute) = (Arc::clone(&self.0), self.absolute(path));
        self.0.runtime.spawn(async move {
            // The receiver may be gone
            let _ = sender.send(open(server, absolute, range).await);
        });
        PendingRead::of_answer(answer)
    }

    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        Ok(Box::new(write::SftpWriter::open(Arc::clone(&self.0), self.absolute(path), options)?))
    }

    fn create_path(&self, path: &RepoPath) -> Result<()> {
        let absolute = &self.absolute(path);
        self.run(|client| async move { create_path(&client, absolute).await }).map_err(|failure| {
            self.0.error(ErrorCode::PathCreate, &format!("unable to create path '{absolute}'"), &failure)
        })
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        let absolute = &self.absolute(path);
        match self.run(|client| async move { client.remove(absolute).await }) {
            Err(failure) if !failure.is_missing() => {
                Err(self.0.error(ErrorCode::FileRemove, &format!("unable to remove file '{absolute}'"), &failure))
            }
            _ => Ok(()),
        }
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        let absolute = &self.absolute(path);
        let root = path.as_str().is_empty();
        self.run(|client| async move { remove_tree(&client, absolute, root).await }).map_err(|failure| {
            self.0.error(ErrorCode::PathRemove, &format!("unable to remove path '{absolute}'"), &failure)
        })
    }

    fn remove_empty(&self, path: &RepoPath) -> Result<()> {
        let absolute = &self.absolute(path);
        match self.run(|client| async move { client.remove_directory(absolute).await }) {
            Err(failure) if !failure.is_missing() => {
                Err(self.0.error(ErrorCode::PathRemove, &format!("unable to remove path '{absolute}'"), &failure))
            }
            _ => Ok(()),
        }
    }

    fn sync_path(&self, _path: &RepoPath) -> Result<()> {
        Ok(())
    }

    fn symlink(&self, _destination: &str, link: &RepoPath) -> Result<()> {
        Err(no_links(&self.display(link)))
    }

    fn hard_link(&self, _existing: &RepoPath, link: &RepoPath) -> Result<()> {
        Err(no_links(&self.display(link)))
    }
}

fn no_links(path: &str) -> Error {
    let text = format!("unable to make link '{path}': SFTP repositories have no links");
    Error::new(ErrorCode::FeatureNotSupported, text)
}

impl fmt::Debug for SftpStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SftpStorage").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
