//! Access for the fuzz targets: clients of servers that send any bytes.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use protocol::greeting::{self, Service};
use protocol::pack::{PackScan, PackScanner};
use protocol::storage::{FeaturesAnswer, StorageFeatures};
use protocol::{AnswerMessage, Call, Capabilities, Capability, Dialect};
use repo_format::block_map::BlockMap;
use repo_format::cipher::Cipher;
use repo_format::compress::Compression;
use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;
use repo_format::pg::PgVersion;

use super::connection::{Beginning, Connection};
use super::link::{Link, Opened};
use super::{RemoteSettings, SshSettings, Way};
use crate::pg::connection::Expect;
use crate::pg::data_dir::ScanOptions;
use crate::pg::host::{
    CopyFile, CopyFrom, CopyJob, CopyMethod, CopyRules, JobStore, PgHost, RemoteHost, RemotePgSettings,
};
use crate::pipeline::backup::CodecPool;
use crate::storage::remote::RemoteStorage;
use crate::storage::{ReadRange, RepoStorage, WriteOptions, put};
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Result};

/// A data directory that only the server has.
const DATA: &str = "/pg";
/// More than a client may keep of what it reads.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The way to a server that answers each request with the next message, whatever is asked.
#[derive(Clone, Default)]
struct Paced(Arc<(Mutex<Pace>, Condvar)>);

#[derive(Default)]
struct Pace {
    requests: usize,
    has_ended: bool,
}

impl Paced {
    fn change(&self, change: impl FnOnce(&mut Pace)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    /// Waits for so many requests. Returns whether they came.
    fn wait(&self, requests: usize) -> bool {
        let pace = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |pace: &mut Pace| pace.requests < requests && !pace.has_ended;
        let pace = self.0.1.wait_while(pace, waits).unwrap_or_else(PoisonError::into_inner);
        pace.requests >= requests
    }
}

/// What the server says.
struct Answers {
    pace: Paced,
    /// What it has not said, and how much of that it may say now.
    left: Vec<u8>,
    allowed: usize,
    /// The number of answers so far.
    given: usize,
}

impl Read for Answers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.allowed == 0 {
            if self.left.is_empty() || !self.pace.wait(self.given + 1) {
                return Ok(0);
            }
            self.given += 1;
            self.allowed = match PackScanner::new(self.left.len()).scan(&self.left) {
                Ok(PackScan::Whole(size)) => size,
                // What is no message has no end
                _ => self.left.len(),
            };
        }
        let size = self.allowed.min(buffer.len());
        buffer[..size].copy_from_slice(&self.left[..size]);
        self.left.drain(..size);
        self.allowed -= size;
        Ok(size)
    }
}

/// Counts the requests of the client.
struct Requests {
    pace: Paced,
    /// The beginning of a request.
    begun: Vec<u8>,
}

impl Write for Requests {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(buffer);
        while let Ok(PackScan::Whole(size)) = PackScanner::new(self.begun.len()).scan(&self.begun) {
            self.begun.drain(..size);
            self.pace.change(|pace| pace.requests += 1);
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.pace.change(|pace| pace.has_ended = true);
    }
}

impl Link for Paced {
    fn read_name(&self) -> String {
        "peer".to_owned()
    }

    fn ended(&mut self, _: Duration, _: bool) -> Error {
        Error::new(ErrorCode::Format, "unexpected EOF from peer")
    }

    fn finish(&mut self, _: Duration) {}

    fn kill(&mut self) {
        self.change(|pace| pace.has_ended = true);
    }
}

/// Settings that nothing is started with.
fn settings(asks_passphrase: bool) -> RemoteSettings {
    RemoteSettings {
        host: "peer".to_owned(),
        process: 0,
        way: Way::Ssh(SshSettings { program: String::new(), arguments: Vec::new() }),
        timeout: Duration::from_secs(10),
        key: 1,
        asks_passphrase,
        target_time: None,
        network_level: None,
        cancel: CancelToken::new(),
    }
}

/// Connects to a server. With `asks`, it is asked for a passphrase.
fn connect(
    asks: bool,
    link: Paced,
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
) -> Result<Arc<Connection>> {
    let settings = settings(asks);
    let beginning = Beginning {
        kind: "ssh",
        offered: Capabilities::own().without(Capability::Channels),
        cipher_key: asks.then_some(settings.key),
        ..Beginning::default()
    };
    Connection::over(&settings, beginning, Opened { link: Box::new(link), input, output })
}

/// Connects to a server that says this after its greeting.
fn said(asks: bool, answers: &[u8]) -> Result<Arc<Connection>> {
    let pace = Paced::default();
    let mut left = greeting::encode(Service::Remote, Dialect::NEWEST).into_bytes();
    let allowed = left.len();
    left.extend_from_slice(answers);
    let input = Box::new(Answers { pace: pace.clone(), left, allowed, given: 0 });
    let output = Box::new(Requests { pace: pace.clone(), begun: Vec::new() });
    connect(asks, pace, input, output)
}

/// The answers of a server to a client that uses its repository. No answer counts that is not whole.
pub fn repository_answers(data: &[u8]) {
    // Any error is a right one
    let _ = said(true, data).and_then(use_repository);
}

/// The answers of a server to a client that uses its data directory and its PostgreSQL.
pub fn cluster_answers(data: &[u8]) {
    let _ = said(false, data).and_then(|connection| use_cluster(connection, Path::new(DATA)));
}

/// What a server sends once the client may get frames.
struct Frames {
    first: Vec<u8>,
    frames: Vec<u8>,
    pace: Paced,
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.first.is_empty() {
            self.pace.wait(1);
            self.first = std::mem::take(&mut self.frames);
        }
        let size = self.first.len().min(buffer.len());
        buffer[..size].copy_from_slice(&self.first[..size]);
        self.first.drain(..size);
        Ok(size)
    }
}

/// The frames of a server that has agreed on channels.
pub fn server_frames(data: &[u8]) {
    let pace = Paced::default();
    let mut first = greeting::encode(Service::Remote, Dialect::NEWEST).into_bytes();
    first.extend(AnswerMessage::encode(1, false, Some(Capabilities::own().encode())).to_vec());
    let features = FeaturesAnswer { path: DATA, features: StorageFeatures::PATH };
    first.extend(AnswerMessage::encode(2, false, Some(features.encode())).to_vec());
    let input = Box::new(Frames { first, frames: data.to_vec(), pace: pace.clone() });
    let beginning = Beginning { kind: "ssh", offered: Capabilities::own(), ..Beginning::default() };
    let opened = Opened { link: Box::new(pace.clone()), input, output: Box::new(io::sink()) };
    let Ok(connection) = Connection::over(&settings(false), beginning, opened) else { return };
    pace.change(|pace| pace.requests += 1);
    // Whatever came, the end of it ends everything
    let channel = connection.open_channel(&settings(false));
    let _ = channel.map(|channel| channel.map(|channel| channel.call(&Call::Features).map(drop)));
    while connection.call(&Call::Noop).is_ok() {}
    assert!(connection.has_ended());
}

/// Does what commands do with a repository. Goes on after an error of the server.
fn use_repository(connection: Arc<Connection>) -> Result<Vec<Error>> {
    let storage = RemoteStorage::over(connection, &[settings(true)])?.storage;
    let file = RepoPath::new("backup/demo/backup.info")?;
    let mut errors = Vec::new();
    let mut note = |result: Result<()>| errors.extend(result.err());
    note(storage.info(&file).map(drop));
    note(storage.list(&RepoPath::new("backup/demo")?).map(drop));
    note(read(&*storage, &file, ReadRange { offset: 0, limit: None }));
    note(read(&*storage, &file, ReadRange { offset: 3, limit: Some(5) }));
    note(storage.link_destination(&RepoPath::new("backup/demo/latest")?).map(drop));
    note(put(&*storage, &RepoPath::new("backup/demo/new")?, &[7; 3000], WriteOptions::ATOMIC));
    note(storage.remove_many(&[RepoPath::new("backup/demo/new")?, RepoPath::new("backup/demo/gone")?]));
    note(storage.create_path(&RepoPath::new("archive/demo/15-1")?));
    note(storage.sync_path(&RepoPath::new("archive/demo")?));
    note(storage.remove_all(&RepoPath::new("archive/demo/15-1")?));
    Ok(errors)
}

fn read(storage: &dyn RepoStorage, path: &RepoPath, range: ReadRange) -> Result<()> {
    let limit = range.limit;
    let Some(reader) = storage.read(path, range)? else { return Ok(()) };
    let mut bytes = Vec::new();
    reader
        .take(READ_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read", error))?;
    assert!(limit.is_none_or(|limit| bytes.len() as u64 <= limit));
    Ok(())
}

/// Does what a backup does with a cluster. Goes on after an error of the server.
fn use_cluster(connection: Arc<Connection>, data: &Path) -> Result<Vec<Error>> {
    let host = RemoteHost::over(
        connection,
        RemotePgSettings {
            key: 1,
            path: data.to_owned(),
            version_force: None,
            command: "backup".to_owned(),
            network_level: Some(1),
            processes: vec![settings(false)],
        },
    );
    let mut errors = Vec::new();
    let mut note = |result: Result<()>| errors.extend(result.err());
    note(host.has_postmaster_pid().map(drop));
    note(host.check_data_dir());
    note(host.control().map(drop));
    let options = ScanOptions {
        version: PgVersion::V15,
        tablespace_id: "PG_15_202209061",
        wal_path: "pg_wal",
        online: true,
        exclude: &[],
        tablespaces: Some(&[]),
    };
    note(host.scan(&options, &mut || Ok(Vec::new())).map(drop));
    for level in [0, 3] {
        note(copy(&host, level));
    }
    note(query(&host));
    Ok(errors)
}

fn query(host: &RemoteHost) -> Result<()> {
    let mut connection = host.connect(&CancelToken::new())?;
    connection.query("select 1", Expect::OneRow(1))?;
    connection.query("select oid, spcname from pg_catalog.pg_tablespace", Expect::Rows(2))?;
    connection.query("checkpoint", Expect::Nothing).map(drop)
}

/// A job whose file is compared first, and is not stored if it is the same.
fn copy(host: &RemoteHost, level: i32) -> Result<()> {
    let kind = if level == 0 { "none" } else { "zst" };
    let rules = CopyRules {
        compression: Compression::new(kind.parse()?, Some(level))?,
        cipher: Cipher::None,
        bundle_raw: true,
        reference: 0,
        page_size: 8192,
        page_header_check: true,
        compare_buffer_bytes: 1 << 20,
        write_options: WriteOptions::ATOMIC,
        codecs: Arc::new(CodecPool::new(2)),
    };
    let files = [("pg_data/PG_VERSION", 3, false), ("pg_data/base/5/16400", 16384, true)];
    let file = |(name, size, page_check): (&str, u64, bool)| CopyFile {
        name: name.into(),
        method: if page_check { CopyMethod::Copy } else { CopyMethod::Compare },
        size,
        size_original: size,
        exact_size: true,
        has_reference: !page_check,
        checksum: Some(Sha1::of(b"x")),
        checksum_repo: None,
        size_repo: 0,
        page_check,
        block: None,
    };
    let job = CopyJob {
        from: CopyFrom::Primary,
        path: RepoPath::new("backup/demo/bundle/1")?,
        bundle_id: Some(1),
        files: files.map(file).to_vec(),
        threads: 1,
    };
    let mut worker = host.copy_worker(1, &rules, &Turn::FREE)?;
    let mut stored = Stored(0);
    let results = worker.run(&job, &mut stored, &CancelToken::new())?;
    assert_eq!(results.len(), job.files.len());
    Ok(())
}

/// Counts what is stored.
struct Stored(usize);

impl JobStore for Stored {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0 += bytes.len();
        assert!(self.0 as u64 <= READ_BYTES_MAX);
        Ok(())
    }

    fn stored_checksum(&mut self) -> Result<Option<(u64, Sha1)>> {
        Ok(None)
    }

    fn prior_map(&mut self, _: &CopyFile) -> Result<Option<BlockMap>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
