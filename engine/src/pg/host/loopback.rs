//! A host for tests that is reached through a pipe: only bytes pass between it and the caller.
//!
//! It proves that [`PgHost`] and its workers can be put on another host. Each use has a pipe of its own. The caller
//! sends requests. Before it answers, the far side may ask the caller for what only that knows.

mod wire;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use repo_format::block_map::BlockMap;
use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;
use repo_format::pg::control::PgControl;
use serde_json::{Value, from_value, json, to_value};

use super::{BlockGeometry, Hashed, PgHost};
use crate::pg::connection::{Expect, PgConnection, Row};
use crate::pg::data_dir::{Scan, ScanOptions, ServerTablespace};
use crate::pipeline::backup::{CopyFile, CopyJob, CopyResult, CopyRules, CopyWorker, JobStore};
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Result};

/// One end of a pipe.
struct Pipe {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Pipe {
    fn new(stream: UnixStream) -> Self {
        Pipe { writer: stream.try_clone().unwrap(), reader: BufReader::new(stream) }
    }

    fn send(&mut self, what: &str, value: &Value) -> Result<()> {
        let line = format!("{}\n", json!([what, value]));
        self.writer.write_all(line.as_bytes()).map_err(|error| lost(&error))
    }

    fn receive(&mut self) -> Result<(String, Value)> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(lost(&"end of input")),
            Ok(_) => Ok(serde_json::from_str(&line).unwrap()),
            Err(error) => Err(lost(&error)),
        }
    }

    fn answer(&mut self, result: Result<Value>) -> Result<()> {
        match result {
            Ok(value) => self.send("ok", &value),
            Err(error) => self.send("error", &wire::error_to(&error)),
        }
    }

    /// Sends a request and returns the answer. `help` answers what the other side asks meanwhile.
    fn ask(&mut self, what: &str, value: &Value, help: &mut dyn FnMut(&str, Value) -> Result<Value>) -> Result<Value> {
        self.send(what, value)?;
        loop {
            let (what, value) = self.receive()?;
            match what.as_str() {
                "ok" => return Ok(value),
                "error" => return Err(wire::error_from(value)),
                what => {
                    let help = help(what, value);
                    self.answer(help)?;
                }
            }
        }
    }

    /// Sends a request during which the other side asks nothing.
    fn ask_only(&mut self, what: &str, value: &Value) -> Result<Value> {
        self.ask(what, value, &mut |what, _| panic!("{what}"))
    }
}

fn lost(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorCode::FileRead, format!("connection lost: {error}"))
}

/// Serves one pipe, until the other side closes it.
fn serve(host: &dyn PgHost, mut pipe: Pipe) {
    while let Ok((what, value)) = pipe.receive() {
        let answered = match what.as_str() {
            "control" => pipe.answer(host.control().map(|control| wire::control_to(&control))),
            "pid" => pipe.answer(host.has_postmaster_pid().map(Value::from)),
            "data-dir" => pipe.answer(host.check_data_dir().map(|()| Value::Null)),
            "scan" => {
                let scan = serve_scan(host, value, &mut pipe);
                pipe.answer(scan)
            }
            "connect" => return serve_connection(host, pipe),
            "worker" => return serve_worker(host, &wire::rules_from(value), pipe),
            what => panic!("{what}"),
        };
        if answered.is_err() {
            return;
        }
    }
}

type WireOptions = (String, (String, String), bool, Vec<String>, Option<Value>);

fn serve_scan(host: &dyn PgHost, value: Value, pipe: &mut Pipe) -> Result<Value> {
    let (version, (tablespace_id, wal_path), online, exclude, tablespaces): WireOptions = from_value(value).unwrap();
    let tablespaces = tablespaces.map(wire::tablespaces_from);
    let options = ScanOptions {
        version: version.parse().unwrap(),
        tablespace_id: &tablespace_id,
        wal_path: &wal_path,
        online,
        exclude: &exclude,
        tablespaces: tablespaces.as_deref(),
    };
    let mut now = || pipe.ask_only("tablespaces", &Value::Null).map(wire::tablespaces_from);
    host.scan(&options, &mut now).map(|scan| wire::scan_to(&scan))
}

fn serve_connection(host: &dyn PgHost, mut pipe: Pipe) {
    let mut connection = match host.connect(&CancelToken::new()) {
        Ok(connection) => connection,
        Err(error) => return drop(pipe.answer(Err(error))),
    };
    let mut answered = pipe.answer(Ok(to_value(connection.timeout().as_millis() as u64).unwrap()));
    while answered.is_ok() {
        let Ok((_, value)) = pipe.receive() else { return };
        let (query, expect, columns): (String, u8, usize) = from_value(value).unwrap();
        let expect = [Expect::Nothing, Expect::OneRow(columns), Expect::Rows(columns)][usize::from(expect)];
        answered = pipe.answer(connection.query(&query, expect).map(|rows| to_value(rows).unwrap()));
    }
}

fn serve_worker(host: &dyn PgHost, rules: &CopyRules, mut pipe: Pipe) {
    let mut worker = match host.copy_worker(1, rules, &Turn::FREE) {
        Ok(worker) => worker,
        Err(error) => return drop(pipe.answer(Err(error))),
    };
    let mut answered = pipe.answer(Ok(Value::Null));
    while answered.is_ok() {
        let Ok((_, value)) = pipe.receive() else { return };
        let results = worker.run(&wire::job_from(value), &mut FarStore(&mut pipe), &CancelToken::new());
        answered = pipe.answer(results.map(|results| wire::results_to(&results)));
    }
}

/// The repository as the far side sees it.
struct FarStore<'a>(&'a mut Pipe);

impl JobStore for FarStore<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.ask_only("write", &Value::from(BASE64_STANDARD.encode(bytes))).map(drop)
    }

    fn stored_checksum(&mut self) -> Result<Option<(u64, Sha1)>> {
        self.0.ask_only("stored", &Value::Null).map(wire::sum_from)
    }

    fn prior_map(&mut self, file: &CopyFile) -> Result<Option<BlockMap>> {
        self.0.ask_only("map", &wire::one_file_to(file)).map(wire::map_from)
    }
}

/// The host as the caller sees it. Nothing is at its path on the caller's side.
#[derive(Debug)]
pub(crate) struct LoopBack {
    far: Arc<dyn PgHost>,
    path: PathBuf,
    /// Number of pipes opened.
    pipes: AtomicU64,
}

impl LoopBack {
    pub(crate) fn new(far: Arc<dyn PgHost>) -> Arc<Self> {
        Arc::new(LoopBack { far, path: PathBuf::from("/on/another/host"), pipes: AtomicU64::new(0) })
    }

    pub(crate) fn pipes(&self) -> u64 {
        self.pipes.load(Ordering::Relaxed)
    }

    fn open(&self) -> Pipe {
        self.pipes.fetch_add(1, Ordering::Relaxed);
        let (near, far) = UnixStream::pair().unwrap();
        let host = Arc::clone(&self.far);
        std::thread::spawn(move || serve(&*host, Pipe::new(far)));
        Pipe::new(near)
    }
}

impl PgHost for LoopBack {
    fn key(&self) -> u32 {
        self.far.key()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn command(&self) -> &str {
        self.far.command()
    }

    fn control(&self) -> Result<PgControl> {
        self.open().ask_only("control", &Value::Null).map(wire::control_from)
    }

    fn has_postmaster_pid(&self) -> Result<bool> {
        Ok(self.open().ask_only("pid", &Value::Null)?.as_bool().unwrap())
    }

    fn check_data_dir(&self) -> Result<()> {
        self.open().ask_only("data-dir", &Value::Null).map(drop)
    }

    fn connect(&self, _: &CancelToken) -> Result<Box<dyn PgConnection>> {
        let mut pipe = self.open();
        let timeout = Duration::from_millis(pipe.ask_only("connect", &Value::Null)?.as_u64().unwrap());
        Ok(Box::new(NearConnection { pipe, timeout }))
    }

    fn scan(
        &self,
        options: &ScanOptions<'_>,
        tablespaces_now: &mut dyn FnMut() -> Result<Vec<ServerTablespace>>,
    ) -> Result<Scan> {
        let names = (options.tablespace_id.to_owned(), options.wal_path.to_owned());
        let tablespaces = options.tablespaces.map(wire::tablespaces_to);
        let value: WireOptions =
            (options.version.to_string(), names, options.online, options.exclude.to_vec(), tablespaces);
        let mut now = |_: &str, _| tablespaces_now().map(|found| wire::tablespaces_to(&found));
        self.open().ask("scan", &to_value(value).unwrap(), &mut now).map(wire::scan_from)
    }

    fn hash_blocks(&self, path: &RepoPath, geometry: BlockGeometry, cancel: &CancelToken) -> Result<Hashed> {
        self.far.hash_blocks(path, geometry, cancel)
    }

    fn copy_worker<'a>(&self, _: u32, rules: &'a CopyRules, _: &Turn) -> Result<Box<dyn CopyWorker + 'a>> {
        let mut pipe = self.open();
        pipe.ask_only("worker", &wire::rules_to(rules))?;
        Ok(Box::new(NearWorker(pipe)))
    }
}

struct NearConnection {
    pipe: Pipe,
    timeout: Duration,
}

impl PgConnection for NearConnection {
    fn query(&mut self, query: &str, expect: Expect) -> Result<Vec<Row>> {
        let (expect, columns) = match expect {
            Expect::Nothing => (0, 0),
            Expect::OneRow(columns) => (1, columns),
            Expect::Rows(columns) => (2, columns),
        };
        Ok(from_value(self.pipe.ask_only("query", &json!([query, expect, columns]))?).unwrap())
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

struct NearWorker(Pipe);

impl CopyWorker for NearWorker {
    fn run(&mut self, job: &CopyJob, store: &mut dyn JobStore, _: &CancelToken) -> Result<Vec<CopyResult>> {
        let mut help = |what: &str, value: Value| match what {
            "write" => store.write(&BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()).map(|()| Value::Null),
            "stored" => store.stored_checksum().map(wire::sum_to),
            "map" => store.prior_map(&wire::file_from(value)).map(|map| wire::map_to(map.as_ref())),
            what => panic!("{what}"),
        };
        self.0.ask("job", &wire::job_to(job), &mut help).map(wire::results_from)
    }
}
