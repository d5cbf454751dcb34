//! A cluster on another host, whose files and server are reached through processes there.
//!
//! The processes are `pgbackrest COMMAND:remote`, or rbr in its place ([`crate::remote`]). The first one belongs to the
//! command itself: it holds the locks of that host until the end, connects to the server and lists the data directory.
//! Each worker has one more, which reads, checks, compresses and encrypts files, because a process answers one request
//! after the other. They are started when they are first needed. rbr on that host serves workers on channels instead, which
//! share few processes ([`Carriers`]).
//!
//! Source of the requests: pgBackRest `src/protocol/helper.c`, `src/db/db.c` and `src/storage/remote/storage.c`.

mod files;
mod filters;
mod jobs;
mod open_files;
mod queries;
mod stream;
mod worker;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use protocol::storage::{FileInfoRequest, InfoAnswer, InfoLevel, ListAnswer, ListRequest};
use protocol::{Call, Capability};
use repo_format::cipher::KeyDigest;
use repo_format::layout::RepoPath;
use repo_format::pg::PgVersion;
use repo_format::pg::control::PgControl;

use self::files::RemoteFiles;
use self::filters::block_filters;
use self::jobs::JobWorker;
use self::open_files::{OpenFiles, files_max};
use self::queries::RemoteConnection;
use self::stream::FileRequest;
use self::worker::RemoteWorker;
use super::PgHost;
use crate::pg::connection::PgConnection;
use crate::pg::control_file;
use crate::pg::data_dir::{self, Scan, ScanOptions, ServerTablespace};
use crate::pipeline::backup::{CopyRules, CopyWorker, FileEncoder};
use crate::pipeline::restore::{BlockGeometry, Hashed};
use crate::remote::{Carriers, Connection, RemoteSettings};
use crate::storage::Concurrency;
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Result};

/// How to reach a cluster on another host.
#[derive(Clone, Debug)]
pub struct RemotePgSettings {
    /// The N of the options `pgN-...`, for messages.
    pub key: u32,
    /// The data directory.
    pub path: PathBuf,
    /// The version to assume instead of the one in `pg_control`.
    pub version_force: Option<PgVersion>,
    /// The command, which the server shows as `pgBackRest [command]`.
    pub command: String,
    /// The level of compression on the way of what is stored as it is; `None` for none.
    pub network_level: Option<i32>,
    /// How to start each process: first that of the command itself, then those of its workers.
    pub processes: Vec<RemoteSettings>,
}

/// Another host, with the settings of one cluster.
pub struct RemoteHost {
    settings: Arc<RemotePgSettings>,
    /// The connection of the command itself. It is kept, because its process holds the locks of that host.
    main: Mutex<Option<Arc<Connection>>>,
    /// The workers' connections.
    workers: Vec<Worker>,
    carriers: Carriers,
}

/// A worker on the host: a process, or a channel of one.
#[derive(Default)]
struct Worker {
    /// It ends with the threads that use it.
    connection: Mutex<Weak<Connection>>,
    open_files: Arc<OpenFiles>,
}

impl RemoteHost {
    /// The host of the cluster with these settings.
    pub fn new(settings: RemotePgSettings) -> Self {
        let workers = settings.processes.iter().skip(1).map(|_| Worker::default()).collect();
        RemoteHost { settings: Arc::new(settings), main: Mutex::new(None), workers, carriers: Carriers::for_workers() }
    }

    /// The host at the other end of a connection. Its only worker uses it, too.
    pub(crate) fn over(connection: Arc<Connection>, settings: RemotePgSettings) -> Self {
        let worker = Worker { connection: Mutex::new(Arc::downgrade(&connection)), ..Worker::default() };
        RemoteHost {
            settings: Arc::new(settings),
            main: Mutex::new(Some(connection)),
            workers: vec![worker],
            carriers: Carriers::for_workers(),
        }
    }

    /// Starts a process on the host.
    fn start(&self, number: usize) -> Result<Arc<Connection>> {
        let settings = self.settings.processes.get(number);
        let settings =
            settings.ok_or_else(|| Error::new(ErrorCode::Assert, format!("no settings of remote process {number}")))?;
        let connection = match number {
            0 if !self.workers.is_empty() => Connection::open_with_channels(settings)?,
            _ => Connection::open(settings)?,
        };
        connection.features()?;
        Ok(connection)
    }

    /// Starts a worker: on a channel if rbr is there, otherwise with a process.
    fn start_worker(&self, number: u32) -> Result<Arc<Connection>> {
        // One worker more than the command has is for a backup from a standby
        let workers = self.workers.len().saturating_sub(1);
        match self.carriers.open(&self.main()?, &self.settings.processes, number as usize, workers)? {
            Some(connection) => {
                connection.features()?;
                Ok(connection)
            }
            None => self.start(number as usize),
        }
    }

    fn main(&self) -> Result<Arc<Connection>> {
        let mut main = lock(&self.main);
        match &*main {
            Some(connection) => Ok(Arc::clone(connection)),
            None => Ok(Arc::clone(main.insert(self.start(0)?))),
        }
    }

    fn worker(&self, number: u32) -> Result<&Worker> {
        let worker = (number as usize).checked_sub(1).and_then(|index| self.workers.get(index));
        worker.ok_or_else(|| Error::new(ErrorCode::Assert, format!("no settings of remote process {number}")))
    }

    /// Returns the connection of a worker's threads. One that has ended is replaced.
    fn worker_connection(&self, number: u32) -> Result<Arc<Connection>> {
        let mut slot = lock(&self.worker(number)?.connection);
        if let Some(connection) = slot.upgrade().filter(|connection| !connection.has_ended()) {
            return Ok(connection);
        }
        let connection = self.start_worker(number)?;
        *slot = Arc::downgrade(&connection);
        Ok(connection)
    }

    fn path_text(&self) -> Result<&str> {
        let path = &self.settings.path;
        path.to_str()
            .ok_or_else(|| Error::new(ErrorCode::Format, format!("path '{}' is not valid UTF-8", path.display())))
    }
}

impl fmt::Debug for RemoteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHost").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PgHost for RemoteHost {
    fn key(&self) -> u32 {
        self.settings.key
    }

    fn name(&self) -> Option<&str> {
        self.settings.processes.first().map(|process| process.host.as_str())
    }

    fn path(&self) -> &Path {
        &self.settings.path
    }

    fn command(&self) -> &str {
        &self.settings.command
    }

    fn control(&self) -> Result<PgControl> {
        Ok(read_control(&self.main()?, &self.settings)?.0)
    }

    fn has_postmaster_pid(&self) -> Result<bool> {
        let path = format!("{}/postmaster.pid", self.path_text()?);
        let request = FileInfoRequest { path: &path, level: InfoLevel::Exists, follow_link: true };
        let answer = self.main()?.call(&Call::Info(request))?;
        Ok(answer.read(|data| InfoAnswer::decode(data, InfoLevel::Exists))?.info.is_some())
    }

    fn check_data_dir(&self) -> Result<()> {
        let request = ListRequest { path: self.path_text()?, level: InfoLevel::Exists, target_time: 0 };
        let answer = self.main()?.call(&Call::List(request))?;
        answer.read(|data| ListAnswer::decode(data, InfoLevel::Exists)).map(drop)
    }

    fn check_locks(&self) -> Result<()> {
        lock(&self.main).as_ref().map_or(Ok(()), |connection| connection.check())
    }

    fn connect(&self, cancel: &CancelToken) -> Result<Box<dyn PgConnection>> {
        Ok(Box::new(RemoteConnection::open(&self.main()?, cancel)?))
    }

    fn scan(
        &self,
        options: &ScanOptions<'_>,
        tablespaces_now: &mut dyn FnMut() -> Result<Vec<ServerTablespace>>,
    ) -> Result<Scan> {
        let mut files = RemoteFiles::of_data_dir(self.main()?, self.path_text()?);
        data_dir::scan(&mut files, &self.settings.path, options, tablespaces_now)
    }

    fn hash_blocks(&self, path: &RepoPath, geometry: BlockGeometry, cancel: &CancelToken) -> Result<Hashed> {
        let path = format!("{}/{}", self.path_text()?, path.as_str());
        let request = FileRequest::send(&self.main()?, &path, None, block_filters(geometry));
        let Some(mut stream) = request.open(&Turn::FREE, cancel)? else {
            let text = format!("unable to open missing file '{path}' for read");
            return Err(Error::new(ErrorCode::FileMissing, text));
        };
        let drained = std::io::copy(&mut stream, &mut std::io::sink());
        drained.map_err(|e| Error::from_io(ErrorCode::FileRead, format!("unable to read '{path}'"), e))?;
        stream.findings()?.blocks()
    }

    fn concurrency(&self) -> Concurrency {
        Concurrency::SERVER
    }

    fn copy_worker<'a>(&self, number: u32, rules: &'a CopyRules, turn: &Turn) -> Result<Box<dyn CopyWorker + 'a>> {
        let connection = turn.waiting(|| self.worker_connection(number))?;
        let open_files = Arc::clone(&self.worker(number)?.open_files);
        let is_sha1 = rules.cipher.passphrase().is_none_or(|key| key.digest() == KeyDigest::Sha1);
        // All threads of a worker have a codec there
        let has_jobs = connection.has(Capability::CopyJobs)
            && (is_sha1 || connection.has(Capability::CopyDigest))
            && files_max(rules.compression) >= u64::from(self.concurrency().jobs_per_worker);
        let encoder = FileEncoder::new(rules, turn);
        let worker = RemoteWorker::new(connection, open_files, Arc::clone(&self.settings), encoder);
        Ok(if has_jobs { Box::new(JobWorker::new(worker, turn)) } else { Box::new(worker) })
    }
}

/// Reads and checks `pg_control`, and returns the complete file as it is stored.
fn read_control(connection: &Arc<Connection>, settings: &RemotePgSettings) -> Result<(PgControl, Vec<u8>)> {
    let path = settings.path.join(control_file::FILE_NAME);
    let text = path.to_string_lossy();
    let mut open = || files::read_plain(connection, &text).map(|file| file.map(|file| Box::new(file) as Box<dyn Read>));
    control_file::read_valid(&path, &mut open, settings.version_force)
}
