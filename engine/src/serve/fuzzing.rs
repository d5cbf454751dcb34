//! Access for the fuzz targets.

use std::io::{self, Write};
use std::time::Duration;

use protocol::options::OptionValue;
use protocol::{Call, Capabilities, Dialect, Offer};
use repo_format::layout::RepoPath;

use super::memory::Usage;
use super::{RepositoryKind, ServeMore, Served, ServedOptions, ServedRepository, ServedStorage, Server};
use crate::storage::memory::MemoryStorage;
use crate::storage::{OpenStorage, OpenedStorage, WriteOptions, put};
use crate::{CancelToken, Result};

/// The path of the repository in captured streams.
const PATH: &str = "/tmp/repo-sample/repo";
/// Files of the repository, and what other stanzas have.
const FILES: [&str; 3] = ["backup/demo/backup.info", "archive/demo/archive.info", "backup/demo/bundle/1"];
const FOREIGN: &str = "backup/other/backup.info";
/// What a connection may answer. More than a thousand blocks is more than its requests can ask for.
const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
struct Memory(MemoryStorage);

impl OpenStorage for Memory {
    fn open(&self) -> Result<OpenedStorage> {
        Ok(self.0.clone().into())
    }
}

/// The memory of a connection. What is used and not counted reaches the fuzzer's limit soon.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// A configuration without options.
pub struct NoOptions;

impl ServedOptions for NoOptions {
    fn value(&self, _: &str) -> Result<OptionValue> {
        Ok(OptionValue::Null)
    }
}

/// The answers of a server, up to a size.
#[derive(Default)]
pub struct Answers(pub Vec<u8>);

impl Write for Answers {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.0.len() + buffer.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The requests of a client, after the first one. They change nothing of another stanza.
pub fn served_requests(data: &[u8]) {
    let storage = MemoryStorage::new();
    let made = FILES
        .into_iter()
        .chain([FOREIGN])
        .try_for_each(|name| put(&storage, &RepoPath::new(name)?, name.as_bytes(), WriteOptions::ATOMIC));
    assert!(made.is_ok());
    let repository = ServedRepository {
        storage: Box::new(Memory(storage.clone())),
        path: PATH.to_owned(),
        kind: RepositoryKind::Objects,
        stanza: "demo".parse().ok(),
    };
    let mut served = Served::new(ServedStorage::Repository(repository), Box::new(NoOptions), CancelToken::new());
    served.usage = Usage::of_bytes(MEMORY_BYTES_MAX);
    let mut stream = Call::Noop.encode(1, Dialect::NEWEST).to_vec();
    stream.extend_from_slice(data);
    // Any error is a right one
    let _ = Server::greet(stream.as_slice(), Answers::default()).and_then(|server| server.serve(served));
    let paths = storage.paths();
    assert!(paths.iter().any(|path| path == FOREIGN));
    let is_inside = |path: &String| {
        ["backup", "archive"].iter().all(|parent| {
            let below = path.strip_prefix(parent).and_then(|rest| rest.strip_prefix('/'));
            below.is_none_or(|below| below.starts_with("demo/") || path == FOREIGN)
        })
    };
    assert!(paths.iter().all(is_inside), "{paths:?}");
}

/// The requests of a client that is rbr, after the first one, to a data directory: this one, which is part of the source.
/// The text of no file beside it must come.
pub fn served_jobs(data: &[u8]) {
    let storage = ServedStorage::DataDirectory(concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/worker").into());
    let mut served = Served::new(storage, Box::new(NoOptions), CancelToken::new());
    served.block_bytes = 1000;
    served.usage = Usage::of_bytes(MEMORY_BYTES_MAX);
    serve_after_offer(served, 0, data);
}

/// The frames of a client that is rbr and has agreed on channels, to the same data directory.
pub fn served_frames(data: &[u8]) {
    let directory = |cancel: &CancelToken| {
        let storage = ServedStorage::DataDirectory(concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/worker").into());
        // Each channel has as much
        let usage = Usage::of_bytes(MEMORY_BYTES_MAX / 4);
        Served { block_bytes: 1000, usage, ..Served::new(storage, Box::new(NoOptions), cancel.clone()) }
    };
    let serve = Box::new(move |cancel: &CancelToken| Ok(directory(cancel)));
    let more = ServeMore { serve, silence_max: Duration::from_secs(10) };
    let served = Served { more: Some(more), ..directory(&CancelToken::new()) };
    serve_after_offer(served, 1, data);
}

/// Serves a client that offers all capabilities and asks for the features, and then sends this. `following` is the number of
/// requests before frames begin.
fn serve_after_offer(served: Served, following: u32, data: &[u8]) {
    let offer = Offer { capabilities: Capabilities::own(), following };
    let mut stream = Call::Offer(offer).encode(1, Dialect::NEWEST).to_vec();
    stream.extend(Call::Features.encode(2, Dialect::NEWEST).to_vec());
    stream.extend_from_slice(data);
    let mut answers = Answers::default();
    // Any error is a right one
    let _ = Server::greet(stream.as_slice(), &mut answers).and_then(|server| server.serve(served));
    let outside = include_bytes!("../serve.rs");
    let outside = outside.get(..40).unwrap_or_default();
    assert!(!answers.0.windows(outside.len()).any(|window| window == outside));
}
