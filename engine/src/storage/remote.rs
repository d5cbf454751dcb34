//! A repository on another host, which a process there serves.
//!
//! Files are stored and read as they are: this host compresses and encrypts. Source of the requests: pgBackRest
//! `src/storage/remote/storage.c`, `read.c` and `write.c`.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use protocol::call::CallKind;
use protocol::options::{OptionValue, OptionsAnswer, OptionsRequest};
use protocol::storage::{
    FeaturesAnswer, FileKind, Info, InfoAnswer, InfoLevel, InfoRequest, LinkRequest, LinkType, ListAnswer, ListRequest,
    PathCreateRequest, PathRemoveRequest, RemoveRequest, StorageFeatures, WriteAnswer, WriteRequest,
};
use protocol::{Call, Capability};
use repo_format::cipher::Passphrase;

use super::{
    Concurrency, Entry, EntryKind, Features, OpenStorage, OpenedStorage, PendingRead, ReadAhead, ReadRange, RepoPath,
    RepoReader, RepoStorage, RepoWriter, WriteOptions,
};
use crate::remote::{Answer, Connection, LaneUse, Lanes, PendingAnswer, RemoteOpening, RemoteReader, RemoteSettings};
use crate::{Error, ErrorCode, Result};

/// Mode of a repository file.
const FILE_MODE: u32 = 0o640;
/// Mode of a repository directory.
const PATH_MODE: u32 = 0o750;
/// Bytes that are written with one request, which is what pgBackRest uses by default.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks of a file that are sent before the first answer is read.
const BLOCKS_AHEAD_MAX: usize = 4;
/// Reads of one job that are begun before they are needed.
const READS_AHEAD: usize = 4;
/// Requests to remove that are sent before the first answer is read.
const REMOVED_AT_ONCE: usize = 100;
/// How long to wait until the server has dropped a file that is not complete.
const DROPPED_WAIT: Duration = Duration::from_secs(30);
/// What pgBackRest adds to the name of a file that is written atomically, until it is complete.
const TEMPORARY_SUFFIX: &str = ".pgbackrest.tmp";

/// How to reach a repository on another host.
#[derive(Clone, Debug)]
pub struct RemoteRepoSettings {
    /// How to start each process: first that of the command itself, then those that may be started for files that are in use at
    /// the same time.
    pub processes: Vec<RemoteSettings>,
}

/// A repository on another host.
pub struct RemoteStorage {
    lanes: Lanes,
    /// The repository's root on the host.
    root: String,
    features: Features,
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
    /// Asks for what the repository is like.
    pub(crate) fn over(connection: Arc<Connection>, processes: &[RemoteSettings]) -> Result<OpenedStorage> {
        // Only the configuration of that host may contain it
        let passphrase = match processes.first().filter(|settings| settings.asks_passphrase) {
            Some(settings) => cipher_pass(&connection, settings.key)?,
            None => None,
        };
        let answer = connection.call(&Call::Features)?;
        let found = FeaturesAnswer::decode(answer.data())?;
        let has = |bit| found.features.has(bit);
        let features = Features {
            paths: has(StorageFeatures::PATH),
            hard_links: has(StorageFeatures::HARD_LINK),
            symlinks: has(StorageFeatures::SYMLINK),
            path_sync: has(StorageFeatures::PATH_SYNC),
            errors_last: false,
        };
        let root = found.path.trim_end_matches('/').to_owned();
        let lanes = Lanes::new(connection, processes.to_vec());
        Ok(OpenedStorage { storage: Arc::new(RemoteStorage { lanes, root, features }), passphrase })
    }
}

/// Asks for the passphrase in the host's configuration.
fn cipher_pass(connection: &Arc<Connection>, key: u32) -> Result<Option<Passphrase>> {
    let names = [format!("repo{key}-cipher-type"), format!("repo{key}-cipher-pass")];
    let request = OptionsRequest { names: names.iter().map(String::as_str).collect() };
    let answer = connection.call(&Call::Options(request))?;
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

    fn call(&self, call: &Call<'_>) -> Result<Answer> {
        self.lanes.first().call(call)
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
        let (absolute, level) = (self.absolute(path), InfoLevel::Basic);
        let answer = self.call(&Call::List(ListRequest { path: &absolute, level, target_time: 0 }))?;
        let Some(entries) = ListAnswer::decode(answer.data(), level)?.entries else { return Ok(None) };
        let entries = entries.map(|entry| entry.map(|entry| entry_of(entry.name, &entry.info)));
        let mut entries = entries.collect::<Result<Vec<_>>>()?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
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
        let lane = self.lanes.take()?;
        let reader = RemoteReader::open(lane.connection(), &self.absolute(path), range.offset, range.limit)?;
        Ok(reader.map(|reader| LaneReader::boxed(reader, lane)))
    }

    fn read_ahead(&self) -> ReadAhead {
        ReadAhead { prefetch: READS_AHEAD, ..ReadAhead::NEAR }
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        if range.limit == Some(0) {
            return PendingRead::opened(self.read(path, range));
        }
        let begun = self.lanes.take().and_then(|lane| {
            let opening = RemoteOpening::send(lane.connection(), &self.absolute(path), range.offset, range.limit)?;
            Ok((opening, lane))
        });
        match begun {
            Ok((opening, lane)) => {
                PendingRead::later(move || Ok(opening.wait()?.map(|reader| LaneReader::boxed(reader, lane))))
            }
            Err(error) => PendingRead::opened(Err(error)),
        }
    }

    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        let absolute = self.absolute(path);
        let request = WriteRequest {
            path: &absolute,
            file_mode: FILE_MODE,
            path_mode: PATH_MODE,
            user: None,
            group: None,
            modified: 0,
            create_path: true,
            sync_file: options.sync_file,
            sync_path: options.sync_path && self.features.path_sync,
            is_atomic: options.atomic,
            filters: Vec::new(),
        };
        let lane = self.lanes.take()?;
        let sent = lane.connection().send(&Call::WriteOpen(request), None)?;
        let session = sent.session;
        Ok(Box::new(RemoteWriter {
            connection: Arc::clone(lane.connection()),
            _lane: lane,
            session,
            temporary: options.atomic.then(|| format!("{absolute}{TEMPORARY_SUFFIX}")),
            block: Vec::new(),
            unanswered: VecDeque::from([sent]),
            state: WriterState::Opening,
        }))
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
        self.remove(link)?;
        let path = self.absolute(link);
        self.call(&Call::Link(LinkRequest { target: destination, path: &path, link_type: LinkType::Symbolic }))
            .map(drop)
    }

    fn hard_link(&self, existing: &RepoPath, link: &RepoPath) -> Result<()> {
        let (target, path) = (self.absolute(existing), self.absolute(link));
        self.call(&Call::Link(LinkRequest { target: &target, path: &path, link_type: LinkType::Hard })).map(drop)
    }
}

/// A file that is read, and the connection that it uses.
struct LaneReader {
    reader: RemoteReader,
    _lane: LaneUse,
}

impl LaneReader {
    fn boxed(reader: RemoteReader, lane: LaneUse) -> Box<dyn RepoReader> {
        Box::new(LaneReader { reader, _lane: lane })
    }
}

impl Read for LaneReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl RepoReader for LaneReader {
    fn is_ready(&self) -> bool {
        self.reader.is_buffered()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriterState {
    /// The server may not have created the file yet.
    Opening,
    Open,
    /// The server has an error for the session.
    Failed,
    Finished,
}

/// A file that is written. Blocks are on their way while the next one is filled, also before the server has answered that
/// the file is open.
struct RemoteWriter {
    connection: Arc<Connection>,
    _lane: LaneUse,
    session: u64,
    /// The name of an atomic file until it is complete.
    temporary: Option<String>,
    block: Vec<u8>,
    unanswered: VecDeque<PendingAnswer>,
    state: WriterState,
}

impl RemoteWriter {
    /// Waits for answers until this many are still to come. Returns the last one.
    fn confirm(&mut self, left: usize) -> Result<Option<Answer>> {
        let mut last = None;
        while self.unanswered.len() > left
            && let Some(unanswered) = self.unanswered.pop_front()
        {
            let answer = unanswered.wait();
            match (&answer, self.state) {
                (Ok(_), WriterState::Opening) => self.state = WriterState::Open,
                (Ok(_), _) => {}
                // Without a file of this writer there is none to remove
                (Err(_), WriterState::Opening) => (self.temporary, self.state) = (None, WriterState::Failed),
                (Err(_), _) => self.state = WriterState::Failed,
            }
            // The first error says why, those of later blocks only that there is no such session
            last = Some(answer?);
        }
        Ok(last)
    }

    fn send(&mut self, call: &Call<'_>) -> Result<()> {
        if matches!(self.state, WriterState::Failed | WriterState::Finished) {
            return Err(Error::new(ErrorCode::FileWrite, "unable to continue a write that failed"));
        }
        self.confirm(BLOCKS_AHEAD_MAX)?;
        self.unanswered.push_back(self.connection.send(call, Some(self.session))?);
        Ok(())
    }

    fn send_block(&mut self) -> Result<()> {
        let block = std::mem::take(&mut self.block);
        self.send(&Call::WriteBlock(&block))?;
        self.block = block;
        self.block.clear();
        Ok(())
    }
}

impl Write for RemoteWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK_BYTES {
            self.send_block()?;
        }
        let taken = buffer.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&buffer[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RepoWriter for RemoteWriter {
    fn is_ready(&self) -> bool {
        self.block.len() < BLOCK_BYTES
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if !self.block.is_empty() {
            self.send_block()?;
        }
        if !self.connection.has(Capability::WholeWrites) {
            // The server would complete a file that lacks a block
            self.confirm(0)?;
        }
        self.send(&Call::Close(CallKind::StorageWrite))?;
        let answer = self.confirm(0)?;
        WriteAnswer::decode(answer.as_ref().and_then(Answer::data))?;
        self.state = WriterState::Finished;
        Ok(())
    }
}

impl Drop for RemoteWriter {
    fn drop(&mut self) {
        if self.state == WriterState::Finished {
            return;
        }
        // If the connection is lost, the next command removes what is left
        let mut sent = vec![self.connection.send(&Call::Cancel(CallKind::StorageWrite), Some(self.session))];
        if let Some(path) = &self.temporary {
            sent.push(self.connection.send(&Call::Remove(RemoveRequest { path, error_on_missing: false }), None));
        }
        if self.connection.is_one_of_several() {
            // What is on its way must not reach a file that another connection then creates under this name
            for answer in sent.into_iter().flatten() {
                answer.finish_within(DROPPED_WAIT);
            }
        }
    }
}

#[cfg(test)]
mod tests;
