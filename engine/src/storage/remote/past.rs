//! A repository on another host as of a time (`repo-target-time`): for each file the version that was current at that time.
//!
//! The host lists the versions, and each file is read by the name of its version. Source: pgBackRest `storageInfo` and
//! `storageNewRead` (`src/storage/storage.c`). The past does not change, so each directory is listed once, and is read-only.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{AskedFile, RemoteStorage, RepoPath};
use crate::storage::{
    Concurrency, ContentSum, Entry, EntryKind, Features, PendingRead, ReadAhead, ReadRange, RepoReader, RepoStorage,
    RepoWriter, StoredContent, WriteOptions,
};
use crate::{Error, ErrorCode, Result};

/// The files of a directory; `None` if there was no such directory.
type Listing = Option<Arc<Vec<Entry>>>;

/// See the module documentation.
pub(super) struct PastStorage {
    now: RemoteStorage,
    /// In seconds since the epoch.
    time: i64,
    listings: Arc<Mutex<HashMap<RepoPath, Listing>>>,
}

impl PastStorage {
    pub(super) fn new(now: RemoteStorage, time: i64) -> Self {
        // 0 would ask for the present. Nothing was there a second later either
        let time = if time == 0 { 1 } else { time };
        PastStorage { now, time, listings: Arc::default() }
    }

    fn listing(&self, path: &RepoPath) -> Result<Listing> {
        // Whoever needs the same directory waits for one answer
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = listings.get(path) {
            return Ok(known.clone());
        }
        let listing = self.now.list_at(path, self.time)?.map(Arc::new);
        listings.insert(path.clone(), listing.clone());
        Ok(listing)
    }

    fn find(&self, path: &RepoPath) -> Result<Option<Entry>> {
        let Some(parent) = path.parent() else { return Ok(None) };
        let Some(listing) = self.listing(&parent)? else { return Ok(None) };
        let found = listing.binary_search_by(|entry| entry.name.as_str().cmp(path.file_name()));
        Ok(found.ok().map(|at| listing[at].clone()))
    }

    /// Asks for a file; `None` if it is missing.
    fn ask(&self, path: &RepoPath, range: ReadRange) -> Result<Option<AskedFile>> {
        let Some(entry) = self.find(path)?.filter(|entry| entry.kind == EntryKind::File) else { return Ok(None) };
        let Some(version) = entry.version else {
            // The present must not be taken for the past
            let text = format!("host of the repository lists no version of '{}'", self.display(path));
            return Err(Error::new(ErrorCode::Protocol, text));
        };
        self.now.ask(path, range, Some(&version)).map(Some)
    }

    fn refuse<R>(&self, path: &RepoPath) -> Result<R> {
        let text = format!("unable to change '{}': the past can only be read", self.display(path));
        Err(Error::new(ErrorCode::FeatureNotSupported, text))
    }
}

impl RepoStorage for PastStorage {
    fn features(&self) -> Features {
        self.now.features()
    }

    fn concurrency(&self) -> Concurrency {
        self.now.concurrency()
    }

    fn connected(&self) -> Result<()> {
        self.now.connected()
    }

    fn display(&self, path: &RepoPath) -> String {
        self.now.display(path)
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        self.find(path)
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        Ok(self.listing(path)?.map(|entries| entries.to_vec()))
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        if range.limit == Some(0) {
            // Such a limit can't be sent
            return Ok(self.find(path)?.map(|_| Box::new(io::empty()) as Box<dyn RepoReader>));
        }
        self.ask(path, range)?.map_or(Ok(None), AskedFile::opened)
    }

    fn sums(&self) -> bool {
        true
    }

    fn sum(&self, content: &StoredContent<'_>) -> Result<Option<ContentSum>> {
        match self.find(content.path)?.and_then(|entry| entry.version) {
            Some(version) => self.now.sum_of(content, Some(&version)),
            None => Ok(None),
        }
    }

    fn compressing_reads(&self) -> Option<Box<dyn RepoStorage + '_>> {
        let now = self.now.compressing()?;
        Some(Box::new(PastStorage { now, time: self.time, listings: Arc::clone(&self.listings) }))
    }

    fn read_ahead(&self) -> ReadAhead {
        self.now.read_ahead()
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        if range.limit == Some(0) {
            return PendingRead::opened(self.read(path, range));
        }
        match self.ask(path, range) {
            Ok(Some(asked)) => PendingRead::later(|| asked.opened()),
            Ok(None) => PendingRead::opened(Ok(None)),
            Err(error) => PendingRead::opened(Err(error)),
        }
    }

    fn write(&self, path: &RepoPath, _: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        self.refuse(path)
    }

    fn create_path(&self, path: &RepoPath) -> Result<()> {
        self.refuse(path)
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        self.refuse(path)
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        self.refuse(path)
    }

    fn remove_empty(&self, path: &RepoPath) -> Result<()> {
        self.refuse(path)
    }

    fn sync_path(&self, path: &RepoPath) -> Result<()> {
        self.refuse(path)
    }

    fn symlink(&self, _: &str, link: &RepoPath) -> Result<()> {
        self.refuse(link)
    }

    fn hard_link(&self, _: &RepoPath, link: &RepoPath) -> Result<()> {
        self.refuse(link)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use protocol::Call;
    use protocol::storage::{
        Chunk, FileKind, Info, ListAnswerWriter, ListEntry, ListRequest, ReadAnswer, ReadRequest, StorageFeatures,
    };

    use super::*;
    use crate::remote::testing::{Script, connect};
    use crate::remote::{Connection, RemoteSettings, SshSettings, Way};

    const VERSION: Option<&str> = Some("v7");

    /// A host whose directories have a file `a` of this version. What it is asked for arrives at the receiver.
    fn host(features: StorageFeatures, version: Option<&'static str>) -> (Arc<Connection>, Receiver<String>) {
        let (sender, asked) = channel();
        let connection = connect(move |stream| {
            let mut script = Script::new(stream);
            script.begin_as(None, features);
            while let Some(call) = script.read() {
                // The test may have ended
                match call {
                    Call::List(ListRequest { path, target_time, .. }) => {
                        let _ = sender.send(format!("list {path} at {target_time}"));
                        let info = Info { kind: FileKind::File(1), modified: 5, version, detail: None };
                        let mut list = ListAnswerWriter::new(true);
                        list.entry(&ListEntry { name: "a", info });
                        script.answer(Some(list.finish()));
                    }
                    Call::ReadOpen(ReadRequest { path, version, .. }) => {
                        let _ = sender.send(format!("read {path} {}", version.unwrap_or("now")));
                        let chunk = Chunk { data: b"x", results: Some(Vec::new()) };
                        script.close(Some(ReadAnswer::Chunk(chunk).encode()));
                    }
                    _ => return,
                }
            }
        });
        (connection.unwrap(), asked)
    }

    fn open(connection: Arc<Connection>, time: i64) -> Result<Arc<dyn RepoStorage>> {
        let settings = RemoteSettings {
            host: "far".to_owned(),
            process: 0,
            way: Way::Ssh(SshSettings { program: String::new(), arguments: Vec::new() }),
            timeout: Duration::from_secs(60),
            key: 1,
            asks_passphrase: false,
            target_time: Some(time),
            network_level: None,
            cancel: crate::CancelToken::new(),
        };
        RemoteStorage::over(connection, &[settings]).map(|opened| opened.storage)
    }

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text).unwrap()
    }

    #[test]
    fn files_are_read_by_their_versions_and_directories_are_listed_once() {
        let (connection, asked) = host(StorageFeatures::VERSIONS, VERSION);
        let storage = open(connection, 1_000).unwrap();
        for _ in 0..2 {
            let mut reader = storage.read(&path("d/a"), ReadRange::default()).unwrap().unwrap();
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            assert_eq!(content, "x");
        }
        assert!(storage.begin_read(&path("d/a"), ReadRange::default()).wait().unwrap().is_some());
        assert!(storage.read(&path("d/b"), ReadRange::default()).unwrap().is_none());
        assert_eq!(storage.info(&path("d/a")).unwrap().unwrap().modified, 5);
        assert_eq!(storage.list(&path("d")).unwrap().unwrap().len(), 1);
        let refused = storage.write(&path("d/a"), WriteOptions::ATOMIC).err().unwrap();
        assert_eq!(refused.code, ErrorCode::FeatureNotSupported);
        storage.remove_many(&[path("d/a")]).unwrap_err();
        drop(storage);
        let asked: Vec<String> = asked.iter().collect();
        assert_eq!(asked, ["list /d at 1000", "read /d/a v7", "read /d/a v7", "read /d/a v7"]);
    }

    #[test]
    fn present_is_never_taken_for_the_past() {
        let (connection, _) = host(StorageFeatures::PATH, VERSION);
        let error = open(connection, 1_000).err().unwrap();
        assert!(error.message.contains("the repository of 'far' keeps no old versions"), "{error}");
        // A host that says that it keeps versions and lists none
        let (connection, asked) = host(StorageFeatures::VERSIONS, None);
        let storage = open(connection, 0).unwrap();
        assert_eq!(storage.read(&path("d/a"), ReadRange::default()).err().unwrap().code, ErrorCode::Protocol);
        drop(storage);
        assert_eq!(asked.iter().collect::<Vec<_>>(), ["list /d at 1"]);
    }
}
