//! A repository on another host, which a process there serves.
//!
//! Files are stored and read as they are: this host compresses and encrypts. What compresses well is compressed on its way
//! (`compress-level-network`). Source of the requests: pgBackRest `src/storage/remote/storage.c`, `read.c` and `write.c`.

mod past;
mod read;
mod sum;
mod write;

use std::io;
use std::sync::Arc;

use protocol::Call;
use protocol::options::{OptionValue, OptionsAnswer};
use protocol::storage::{
    FileKind, Info, InfoAnswer, InfoLevel, InfoRequest, LinkRequest, LinkType, ListAnswer, ListRequest,
    PathCreateRequest, PathRemoveRequest, ReadRequest, RemoveRequest, StorageFeatures,
};
use repo_format::cipher::Passphrase;

use self::past::PastStorage;
use self::read::PlainReader;
use self::write::RemoteWriter;
use super::{
    Concurrency, ContentSum, Entry, EntryKind, Features, OpenStorage, OpenedStorage, PendingRead, ReadAhead, ReadRange,
    RepoPath, RepoReader, RepoStorage, RepoWriter, StoredContent, WriteOptions,
};
use crate::remote::{Answer, Connection, PendingAnswer, RemoteOpening, RemoteSettings, cipher_options};
use crate::{Error, ErrorCode, Result};

/// Mode of a repository directory.
const PATH_MODE: u32 = 0o750;
/// Reads of one job that are begun before they are needed.
const READS_AHEAD: usize = 4;
/// Requests to remove that are sent before the first answer is read.
const REMOVED_AT_ONCE: usize = 100;

/// A repository on another host.
pub struct RemoteStorage {
    connection: Arc<Connection>,
    /// The repository's root on the host.
    root: String,
    features: Features,
    /// The level of the compression on the way; `None` if there is none.
    network_level: Option<i32>,
    /// Whether files that are read are compressed on their way.
    compresses_reads: bool,
}

impl OpenStorage for RemoteSettings {
    fn open(&self) -> Result<OpenedStorage> {
        RemoteStorage::over(Connection::open(self)?, self)
    }
}

impl RemoteStorage {
    /// The repository of a connection.
    pub(crate) fn over(connection: Arc<Connection>, settings: &RemoteSettings) -> Result<OpenedStorage> {
        // Only the configuration of that host may contain it
        let answer = connection.cipher_answer();
        let passphrase = answer.map_or(Ok(None), |answer| cipher_pass(answer, settings.key))?;
        let found = connection.features()?;
        let has = |bit| found.features.has(bit);
        let features = Features {
            paths: has(StorageFeatures::PATH),
            hard_links: has(StorageFeatures::HARD_LINK),
            symlinks: has(StorageFeatures::SYMLINK),
            path_sync: has(StorageFeatures::PATH_SYNC),
            errors_last: false,
        };
        let root = found.path.trim_end_matches('/').to_owned();
        let network_level = settings.network_level;
        let has_versions = has(StorageFeatures::VERSIONS);
        let storage = RemoteStorage { connection, root, features, network_level, compresses_reads: false };
        let storage: Arc<dyn RepoStorage> = match settings.target_time {
            None => Arc::new(storage),
            Some(time) if has_versions => Arc::new(PastStorage::new(storage, time)),
            // Reading the present when the past was requested would be worse than an error
            Some(_) => return Err(no_versions(&settings.host)),
        };
        Ok(OpenedStorage { storage, passphrase })
    }
}

fn no_versions(host: &str) -> Error {
    let text = format!("versioning required for time limit: the repository of '{host}' keeps no old versions");
    Error::new(ErrorCode::FeatureNotSupported, text)
        .hint("only repositories in object stores can be read as of a time (repo-target-time)")
}

/// Reads the passphrase in the host's configuration.
fn cipher_pass(answer: &Answer, key: u32) -> Result<Option<Passphrase>> {
    let names = cipher_options(key);
    let values = OptionsAnswer::decode(answer.data(), names.len())?.values;
    let refuse = || Err(Error::new(ErrorCode::Protocol, format!("unknown value of option '{}'", names[0])));
    match values.as_slice() {
        [kind, pass] => match (kind.choice().map(|kind| kind.to_string()).as_deref(), pass) {
            (Some("none"), _) => Ok(None),
            (Some("aes-256-cbc"), OptionValue::Text(pass)) => Ok(Some(Passphrase::new(pass.as_str()))),
            _ => refuse(),
        },
        _ => refuse(),
    }
}

impl RemoteStorage {
    fn absolute(&self, path: &RepoPath) -> String {
        if path.as_str().is_empty() && !self.root.is_empty() {
            return self.root.clone();
        }
        format!("{}/{}", self.root, path.as_str())
    }

    /// The level of the compression of files that are read.
    fn read_level(&self) -> Option<i32> {
        self.network_level.filter(|_| self.compresses_reads)
    }

    fn call(&self, call: &Call<'_>) -> Result<Answer> {
        self.connection.call(call)
    }

    /// Asks for a file, or for a version of it.
    fn ask(&self, path: &RepoPath, range: ReadRange, version: Option<&str>) -> Result<RemoteOpening> {
        let (path, ReadRange { offset, limit }) = (&*self.absolute(path), range);
        let request = ReadRequest { path, offset, limit, version, filters: Vec::new() };
        RemoteOpening::send(&self.connection, request, self.read_level())
    }

    /// Lists a directory as of a time in seconds since the epoch; 0 for now.
    fn list_at(&self, path: &RepoPath, target_time: i64) -> Result<Option<Vec<Entry>>> {
        let (absolute, level) = (self.absolute(path), InfoLevel::Basic);
        let answer = self.call(&Call::List(ListRequest { path: &absolute, level, target_time }))?;
        let Some(entries) = ListAnswer::decode(answer.data(), level)?.entries else { return Ok(None) };
        let entries = entries.map(|entry| entry.map(|entry| entry_of(entry.name, &entry.info)));
        let mut entries = entries.collect::<Result<Vec<_>>>()?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    /// This storage, compressing on their way what is read.
    fn compressing(&self) -> Option<RemoteStorage> {
        self.network_level?;
        let (connection, root) = (Arc::clone(&self.connection), self.root.clone());
        let Self { features, network_level, .. } = *self;
        Some(RemoteStorage { connection, root, features, network_level, compresses_reads: true })
    }

    fn info_of(&self, path: &str, level: InfoLevel) -> Result<Answer> {
        self.call(&Call::Info(InfoRequest { path, level, follow_link: false }))
    }
}

fn entry_of(name: &str, info: &Info<'_>) -> Entry {
    let (kind, size) = match info.kind {
        FileKind::File(size) => (EntryKind::File, size),
        FileKind::Path => (EntryKind::Path, 0),
        FileKind::Link => (EntryKind::Link, 0),
        FileKind::Special => (EntryKind::Special, 0),
    };
    let version = info.version.map(str::to_owned);
    Entry { name: name.to_owned(), kind, size, modified: info.modified, version }
}

impl RepoStorage for RemoteStorage {
    fn features(&self) -> Features {
        self.features
    }

    fn concurrency(&self) -> Concurrency {
        Concurrency::SERVER
    }

    fn display(&self, path: &RepoPath) -> String {
        self.absolute(path)
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        let answer = self.info_of(&self.absolute(path), InfoLevel::Basic)?;
        let info = InfoAnswer::decode(answer.data(), InfoLevel::Basic)?.info;
        Ok(info.map(|info| entry_of(path.file_name(), &info)))
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        self.list_at(path, 0)
    }

    fn link_destination(&self, path: &RepoPath) -> Result<Option<String>> {
        let answer = self.info_of(&self.absolute(path), InfoLevel::Detail)?;
        let detail = InfoAnswer::decode(answer.data(), InfoLevel::Detail)?.info.and_then(|info| info.detail);
        Ok(detail.and_then(|detail| detail.link_target).map(str::to_owned))
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        if range.limit == Some(0) {
            // Such a limit can't be sent
            return Ok(self.info(path)?.map(|_| Box::new(io::empty()) as Box<dyn RepoReader>));
        }
        PlainReader::opened(self.ask(path, range, None)?.wait()?, self.read_level(), range.limit)
    }

    fn sum(&self, content: &StoredContent<'_>) -> Result<Option<ContentSum>> {
        self.sum_of(content, None)
    }

    fn compressing_reads(&self) -> Option<Box<dyn RepoStorage + '_>> {
        self.compressing().map(|same| Box::new(same) as Box<dyn RepoStorage>)
    }

    fn read_ahead(&self) -> ReadAhead {
        ReadAhead { prefetch: READS_AHEAD, ..ReadAhead::NEAR }
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        if range.limit == Some(0) {
            return PendingRead::opened(self.read(path, range));
        }
        let level = self.read_level();
        match self.ask(path, range, None) {
            Ok(opening) => PendingRead::later(move || PlainReader::opened(opening.wait()?, level, range.limit)),
            Err(error) => PendingRead::opened(Err(error)),
        }
    }

    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        let options = WriteOptions { sync_path: options.sync_path && self.features.path_sync, ..options };
        let connection = Arc::clone(&self.connection);
        Ok(Box::new(RemoteWriter::new(connection, self.absolute(path), options, self.network_level)))
    }

    fn create_path(&self, path: &RepoPath) -> Result<()> {
        if !self.features.paths {
            return Ok(());
        }
        let absolute = self.absolute(path);
        let request = PathCreateRequest { path: &absolute, error_on_exists: false, no_parents: false, mode: PATH_MODE };
        self.call(&Call::PathCreate(request)).map(drop)
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        let absolute = self.absolute(path);
        self.call(&Call::Remove(RemoveRequest { path: &absolute, error_on_missing: false })).map(drop)
    }

    fn remove_many(&self, paths: &[RepoPath]) -> Result<()> {
        for some in paths.chunks(REMOVED_AT_ONCE) {
            let sent = some.iter().map(|path| {
                let absolute = self.absolute(path);
                let request = RemoveRequest { path: &absolute, error_on_missing: false };
                self.connection.send(&Call::Remove(request), None)
            });
            // All are sent before the first answer is waited for
            let sent = sent.collect::<Result<Vec<_>>>()?;
            let answers: Vec<Result<Answer>> = sent.into_iter().map(PendingAnswer::wait).collect();
            answers.into_iter().try_for_each(|answer| answer.map(drop))?;
        }
        Ok(())
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        let absolute = self.absolute(path);
        // The server removes what is behind a link
        let answer = self.info_of(&absolute, InfoLevel::Type)?;
        match InfoAnswer::decode(answer.data(), InfoLevel::Type)?.info.map(|info| info.kind) {
            Some(FileKind::Link) => self.remove(path),
            _ => self.call(&Call::PathRemove(PathRemoveRequest { path: &absolute, recurse: true })).map(drop),
        }
    }

    fn sync_path(&self, path: &RepoPath) -> Result<()> {
        if !self.features.path_sync {
            return Ok(());
        }
        self.call(&Call::PathSync(&self.absolute(path))).map(drop)
    }

    fn symlink(&self, destination: &str, link: &RepoPath) -> Result<()> {
        let path = self.absolute(link);
        // Done in this order
        let removed =
            self.connection.send(&Call::Remove(RemoveRequest { path: &path, error_on_missing: false }), None)?;
        let request = LinkRequest { target: destination, path: &path, link_type: LinkType::Symbolic };
        let linked = self.connection.send(&Call::Link(request), None)?;
        removed.wait().and(linked.wait()).map(drop)
    }

    fn hard_link(&self, existing: &RepoPath, link: &RepoPath) -> Result<()> {
        let (target, path) = (self.absolute(existing), self.absolute(link));
        self.call(&Call::Link(LinkRequest { target: &target, path: &path, link_type: LinkType::Hard })).map(drop)
    }
}

#[cfg(test)]
mod tests;
