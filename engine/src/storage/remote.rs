//! A repository on another host, which a process there serves.
//!
//! Files are stored and read as they are: this host compresses and encrypts. What compresses well is compressed on its way
//! (`compress-level-network`). Source of the requests: pgBackRest `src/storage/remote/storage.c`, `read.c` and `write.c`.

mod past;
mod read;
mod sum;
mod write;

use std::io::{self, Read};
use std::sync::Arc;

use protocol::Call;
use protocol::options::{OptionValue, OptionsAnswer};
use protocol::storage::{
    FileInfoRequest, FileKind, Info, InfoAnswer, InfoLevel, LinkRequest, LinkType, ListAnswer, ListRequest,
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
use crate::remote::{Answer, Connection, LaneUse, Lanes, PendingAnswer, RemoteOpening, RemoteSettings, cipher_options};
use crate::{Error, ErrorCode, Result, warn};

/// Mode of a repository directory.
const PATH_MODE: u32 = 0o750;
/// Reads of one job that are begun before they are needed.
const READS_AHEAD: usize = 4;
/// Requests to remove that are sent before the first answer is read.
const REMOVED_AT_ONCE: usize = 100;

/// How to reach a repository on another host.
#[derive(Clone, Debug)]
pub struct RemoteRepoSettings {
    /// How to start each process: first that of the command itself, then those that may be started for files that are in use at
    /// the same time.
    pub processes: Vec<RemoteSettings>,
}

/// A repository on another host.
pub struct RemoteStorage {
    lanes: Arc<Lanes>,
    /// The repository's root on the host.
    root: String,
    features: Features,
    /// The level of the compression on the way; `None` if there is none.
    network_level: Option<i32>,
    /// Whether files that are read are compressed on their way.
    compresses_reads: bool,
}

impl OpenStorage for RemoteRepoSettings {
    fn open(&self) -> Result<OpenedStorage> {
        let connection = match &*self.processes {
            [] => return Err(Error::new(ErrorCode::Assert, "no settings of a remote process")),
            [only] => Connection::open(only)?,
            [first, ..] => Connection::open_with_channels(first)?,
        };
        RemoteStorage::over(connection, &self.processes)
    }
}

impl RemoteStorage {
    /// The repository of a connection, and how to reach it.
    pub(crate) fn over(connection: Arc<Connection>, processes: &[RemoteSettings]) -> Result<OpenedStorage> {
        // Only the configuration of that host may contain it
        let passphrase = match (processes.first(), connection.cipher_answer()) {
            (Some(settings), Some(answer)) => cipher_pass(answer, settings.key)?,
            _ => None,
        };
        let found = connection.features()?;
        let has = |bit| found.features.has(bit);
        let features = Features {
            paths: has(StorageFeatures::PATH),
            hard_links: has(StorageFeatures::HARD_LINK),
            symlinks: has(StorageFeatures::SYMLINK),
            path_sync: has(StorageFeatures::PATH_SYNC),
            errors_last: false,
        };
        let (root, has_versions) = (found.path.trim_end_matches('/').to_owned(), has(StorageFeatures::VERSIONS));
        let lanes = Arc::new(Lanes::new(connection, processes.to_vec()));
        let network_level = processes.first().and_then(|settings| settings.network_level);
        let storage = RemoteStorage { lanes, root, features, network_level, compresses_reads: false };
        let past = processes.first().and_then(|settings| Some((settings, settings.target_time?)));
        let storage: Arc<dyn RepoStorage> = match past {
            None => Arc::new(storage),
            Some((_, time)) if has_versions => Arc::new(PastStorage::new(storage, time)),
            // Reading the present when the past was requested would be worse than an error
            Some((settings, _)) => return Err(no_versions(&settings.host)),
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
    let values = answer.read(|data| OptionsAnswer::decode(data, names.len()))?.values;
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
        self.lanes.first().call(call)
    }

    /// Asks for a file, or for a version of it.
    fn ask(&self, path: &RepoPath, range: ReadRange, version: Option<&str>) -> Result<AskedFile> {
        let (path, lane) = (&*self.absolute(path), self.lanes.take()?);
        let ReadRange { offset, limit } = range;
        let request = ReadRequest { path, offset, limit, version, filters: Vec::new() };
        let level = self.read_level();
        Ok(AskedFile { opening: RemoteOpening::send(lane.connection(), request, level), lane, level, limit })
    }

    /// Lists a directory as of a time in seconds since the epoch; 0 for now.
    fn list_at(&self, path: &RepoPath, target_time: i64) -> Result<Option<Vec<Entry>>> {
        let (absolute, level) = (self.absolute(path), InfoLevel::Basic);
        let answer = self.call(&Call::List(ListRequest { path: &absolute, level, target_time }))?;
        let Some(entries) = answer.read(|data| ListAnswer::decode(data, level))?.entries else { return Ok(None) };
        let entries = entries.map(|entry| answer.read(|_| entry).map(|entry| entry_of(entry.name, &entry.info)));
        let mut entries = entries.collect::<Result<Vec<_>>>()?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    /// This storage, compressing on their way what is read.
    fn compressing(&self) -> Option<RemoteStorage> {
        self.network_level?;
        let (lanes, root) = (Arc::clone(&self.lanes), self.root.clone());
        let Self { features, network_level, .. } = *self;
        Some(RemoteStorage { lanes, root, features, network_level, compresses_reads: true })
    }

    fn info_of(&self, path: &str, level: InfoLevel) -> Result<Answer> {
        self.call(&Call::Info(FileInfoRequest { path, level, follow_link: false }))
    }

    fn is_link(&self, path: &str) -> Result<bool> {
        let answer = self.info_of(path, InfoLevel::Type)?;
        let info = answer.read(|data| InfoAnswer::decode(data, InfoLevel::Type))?.info;
        Ok(info.is_some_and(|info| info.kind == FileKind::Link))
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

    fn connected(&self) -> Result<()> {
        self.lanes.first().connected()
    }

    fn display(&self, path: &RepoPath) -> String {
        self.absolute(path)
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        let answer = self.info_of(&self.absolute(path), InfoLevel::Basic)?;
        let info = answer.read(|data| InfoAnswer::decode(data, InfoLevel::Basic))?.info;
        Ok(info.map(|info| entry_of(path.file_name(), &info)))
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        self.list_at(path, 0)
    }

    fn link_destination(&self, path: &RepoPath) -> Result<Option<String>> {
        let answer = self.info_of(&self.absolute(path), InfoLevel::Detail)?;
        let detail = answer.read(|data| InfoAnswer::decode(data, InfoLevel::Detail))?.info.and_then(|info| info.detail);
        Ok(detail.and_then(|detail| detail.link_target).map(str::to_owned))
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        if range.limit == Some(0) {
            // Such a limit can't be sent
            return Ok(self.info(path)?.map(|_| Box::new(io::empty()) as Box<dyn RepoReader>));
        }
        self.ask(path, range, None)?.opened()
    }

    fn sums(&self) -> bool {
        true
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
        match self.ask(path, range, None) {
            Ok(asked) => PendingRead::later(|| asked.opened()),
            Err(error) => PendingRead::opened(Err(error)),
        }
    }

    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        let options = WriteOptions { sync_path: options.sync_path && self.features.path_sync, ..options };
        Ok(Box::new(RemoteWriter::new(self.lanes.take()?, self.absolute(path), options, self.network_level)))
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
                self.lanes.first().send(&Call::Remove(request), None)
            });
            // All are sent before the first answer is waited for
            let sent: Vec<PendingAnswer> = sent.collect();
            let answers: Vec<Result<Answer>> = sent.into_iter().map(PendingAnswer::wait).collect();
            answers.into_iter().try_for_each(|answer| answer.map(drop))?;
        }
        Ok(())
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        let absolute = self.absolute(path);
        // pgBackRest removes what is behind a link. In the place of the repository that is wanted, and the link stays
        if !path.as_str().is_empty() && self.is_link(&absolute)? {
            warn!("path '{absolute}' is a link: what it leads to is not removed");
            return self.remove(path);
        }
        self.call(&Call::PathRemove(PathRemoveRequest { path: &absolute, recurse: true })).map(drop)
    }

    fn remove_empty(&self, path: &RepoPath) -> Result<()> {
        if !self.features.paths {
            return Ok(());
        }
        let absolute = self.absolute(path);
        self.call(&Call::PathRemove(PathRemoveRequest { path: &absolute, recurse: false })).map(drop)
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
            self.lanes.first().send(&Call::Remove(RemoveRequest { path: &path, error_on_missing: false }), None);
        let request = LinkRequest { target: destination, path: &path, link_type: LinkType::Symbolic };
        let linked = self.lanes.first().send(&Call::Link(request), None);
        removed.wait().and(linked.wait()).map(drop)
    }

    fn hard_link(&self, existing: &RepoPath, link: &RepoPath) -> Result<()> {
        let (target, path) = (self.absolute(existing), self.absolute(link));
        self.call(&Call::Link(LinkRequest { target: &target, path: &path, link_type: LinkType::Hard })).map(drop)
    }
}

/// A file that was asked for, and the connection that it uses.
struct AskedFile {
    opening: RemoteOpening,
    lane: LaneUse,
    level: Option<i32>,
    limit: Option<u64>,
}

impl AskedFile {
    /// Waits until the file is open; `None` if it is missing.
    fn opened(self) -> Result<Option<Box<dyn RepoReader>>> {
        let AskedFile { opening, lane, level, limit } = self;
        let reader = PlainReader::opened(opening.wait()?, level, limit)?;
        Ok(reader.map(|reader| Box::new(LaneReader { reader, _lane: lane }) as Box<dyn RepoReader>))
    }
}

/// A file that is read, and the connection that it uses.
struct LaneReader {
    reader: Box<dyn RepoReader>,
    _lane: LaneUse,
}

impl Read for LaneReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl RepoReader for LaneReader {
    fn is_ready(&self) -> bool {
        self.reader.is_ready()
    }
}

#[cfg(test)]
mod tests;
