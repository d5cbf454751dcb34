//! A repository on another host, which a process there serves.
//!
//! Files are stored and read as they are: this host compresses and encrypts. Source of the requests: pgBackRest
//! `src/storage/remote/storage.c`, `read.c` and `write.c`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use protocol::call::CallKind;
use protocol::options::{OptionValue, OptionsAnswer};
use protocol::storage::{
    FileKind, Info, InfoAnswer, InfoLevel, InfoRequest, LinkRequest, LinkType, ListAnswer, ListRequest,
    PathCreateRequest, PathRemoveRequest, RemoveRequest, StorageFeatures, WriteAnswer, WriteRequest,
};
use protocol::{Call, Capability};
use repo_format::cipher::Passphrase;

use super::{
    Concurrency, Entry, EntryKind, Features, OpenStorage, OpenedStorage, PendingRead, ReadAhead, ReadRange, RepoPath,
    RepoReader, RepoStorage, RepoWriter, WriteOptions,
};
use crate::remote::{Answer, Connection, PendingAnswer, RemoteOpening, RemoteReader, RemoteSettings, cipher_options};
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
/// What pgBackRest adds to the name of a file that is written atomically, until it is complete.
const TEMPORARY_SUFFIX: &str = ".pgbackrest.tmp";

/// A repository on another host.
pub struct RemoteStorage {
    connection: Arc<Connection>,
    /// The repository's root on the host.
    root: String,
    features: Features,
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
        Ok(OpenedStorage { storage: Arc::new(RemoteStorage { connection, root, features }), passphrase })
    }
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

    fn call(&self, call: &Call<'_>) -> Result<Answer> {
        self.connection.call(call)
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
        let reader = RemoteReader::open(&self.connection, &self.absolute(path), range.offset, range.limit)?;
        Ok(reader.map(|reader| Box::new(reader) as Box<dyn RepoReader>))
    }

    fn read_ahead(&self) -> ReadAhead {
        ReadAhead { prefetch: READS_AHEAD, ..ReadAhead::NEAR }
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        if range.limit == Some(0) {
            return PendingRead::opened(self.read(path, range));
        }
        let reader = |reader| Box::new(reader) as Box<dyn RepoReader>;
        match RemoteOpening::send(&self.connection, &self.absolute(path), range.offset, range.limit) {
            Ok(opening) => PendingRead::later(move || Ok(opening.wait()?.map(reader))),
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
        let sent = self.connection.send(&Call::WriteOpen(request), None)?;
        let session = sent.session;
        Ok(Box::new(RemoteWriter {
            connection: Arc::clone(&self.connection),
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

impl RepoReader for RemoteReader {
    fn is_ready(&self) -> bool {
        self.is_buffered()
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
        drop(self.connection.send(&Call::Cancel(CallKind::StorageWrite), Some(self.session)));
        if let Some(path) = &self.temporary {
            drop(self.connection.send(&Call::Remove(RemoveRequest { path, error_on_missing: false }), None));
        }
    }
}

#[cfg(test)]
mod tests;
