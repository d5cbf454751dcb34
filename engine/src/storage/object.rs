//! Repositories in object stores: one driver over every store that the `object_store` crate reaches.
//!
//! An object appears whole and durable or not at all, so the write options of [`super::WriteOptions`] are met by every
//! write. Small files are one request. Larger ones go up in parts, several of them in flight, while the worker thread
//! hashes and compresses the next: memory is bounded by part size times parts in flight. Reading runs ahead of the reader
//! by a few chunks for the same reason.

use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::client::HttpError;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, TagSet,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinSet;

use super::http::request::Failure;
use super::{
    Entry, EntryKind, Features, PendingRead, ReadAhead, ReadRange, RepoPath, RepoStorage, RepoWriter, WriteOptions,
};
use crate::{Error, ErrorCode, Result, slots};

/// Parts that may be on their way at the same time, over all files, since each is held in memory.
const PARTS_IN_FLIGHT_MAX: usize = 8;
/// Chunks that reading may run ahead of the reader; the HTTP client hands over chunks of at most a few hundred KiB.
const CHUNKS_AHEAD_MAX: usize = 16;
/// Parts per doubling of the part size. Stores allow 10,000 parts, so files of terabytes need larger ones.
const PARTS_PER_SIZE: usize = 1000;
/// Part sizes stop growing here.
const PART_SIZE_MAX_BYTES: usize = 1 << 30;

/// Where requests name the bucket or account (`repo-s3-uri-style`, `repo-azure-uri-style`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriStyle {
    /// In the host: `https://bucket.endpoint/`.
    Host,
    /// In the path: `https://endpoint/bucket/`.
    Path,
}

/// A repository below a prefix of a bucket or container. Clones share the connections.
#[derive(Clone)]
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    /// Key prefix of the repository without slashes at its ends; empty for the whole bucket.
    prefix: String,
    part_size_bytes: usize,
    tags: TagSet,
    runtime: Handle,
    read_ahead: ReadAhead,
    /// Parts that may still be sent, over all writers.
    parts_free: Arc<Semaphore>,
}

impl ObjectStorage {
    /// A repository at `repo_path` (pgBackRest's `repo-path`, e.g. `/demo`) of a store. Files larger than
    /// `part_size_bytes` are written in parts of that size.
    ///
    /// # Errors
    /// The network threads can't be started.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        repo_path: &str,
        part_size_bytes: usize,
        tags: &[(String, String)],
    ) -> Result<Self> {
        let mut set = TagSet::default();
        for (key, value) in tags {
            set.push(key, value);
        }
        Ok(ObjectStorage {
            store,
            prefix: repo_path.trim_matches('/').to_owned(),
            part_size_bytes: part_size_bytes.max(1),
            tags: set,
            runtime: super::network::handle()?,
            read_ahead: ReadAhead::NEAR,
            parts_free: Arc::new(Semaphore::new(PARTS_IN_FLIGHT_MAX)),
        })
    }

    /// Reads ahead this way.
    #[must_use]
    pub fn with_read_ahead(self, read_ahead: ReadAhead) -> Self {
        ObjectStorage { read_ahead, ..self }
    }

    /// Waits for the answer to a request.
    fn wait<R>(&self, request: impl Future<Output = R>) -> R {
        wait(&self.runtime, request)
    }

    fn key(&self, path: &RepoPath) -> Result<Path> {
        let text = match (self.prefix.as_str(), path.as_str()) {
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        };
        Path::parse(&text).map_err(|error| {
            Error::new(ErrorCode::Format, format!("'{text}' can't be the name of an object: {error}")).cause(error)
        })
    }

    fn fail(&self, doing: &str, path: &RepoPath, error: object_store::Error) -> Error {
        request_error(&format!("unable to {doing} '{}'", self.display(path)), error)
    }

    /// Removes objects, a thousand with one request where the store has such a thing.
    async fn remove_each(&self, locations: BoxStream<'static, object_store::Result<Path>>) -> object_store::Result<()> {
        let mut removed = self.store.delete_stream(locations);
        while let Some(result) = removed.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Waits for something on the network, without keeping others from computing.
fn wait<R>(runtime: &Handle, request: impl Future<Output = R>) -> R {
    slots::waiting(|| runtime.block_on(request))
}

/// Turns a store's error into ours, with the status and the server's message. The codes are pgBackRest's: [`ErrorCode::Service`]
/// for what may pass (no connection, throttling, faults of the server), [`ErrorCode::Protocol`] for a request that was refused.
fn request_error(message: &str, error: object_store::Error) -> Error {
    // What failed before a request was sent, such as getting credentials, says enough itself
    let error = match error {
        object_store::Error::Generic { store, source } => match source.downcast::<Error>() {
            Ok(own) => return *own,
            Err(source) => object_store::Error::Generic { store, source },
        },
        error => error,
    };
    // The chain of causes says the status and the server's answer; each is shown once
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    let mut no_answer = false;
    while let Some(cause) = source {
        no_answer |= cause.is::<HttpError>();
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    let code = match &error {
        object_store::Error::NotFound { .. } => ErrorCode::FileMissing,
        object_store::Error::Generic { source, .. } if source.is::<Failure>() => match source.downcast_ref() {
            Some(Failure::Other(own)) => own.code,
            _ if no_answer || may_pass(&text) => ErrorCode::Service,
            _ => ErrorCode::Protocol,
        },
        _ if text.contains("invalid peer certificate") => ErrorCode::Crypto,
        _ if no_answer || may_pass(&text) => ErrorCode::Service,
        _ => ErrorCode::Protocol,
    };
    Error::new(code, format!("{message}: {text}")).cause(error)
}

/// Whether an error's text tells of a status that a later request need not have. (`object_store` keeps the type that has the
/// number to itself.)
fn may_pass(text: &str) -> bool {
    let status =
        text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)).and_then(|digits| digits.parse().ok());
    status.is_some_and(|status: u16| status >= 500 || status == 429 || status == 408)
}

impl RepoStorage for ObjectStorage {
    fn features(&self) -> Features {
        Features { paths: false, hard_links: false, symlinks: false, path_sync: false, remote: true }
    }

    fn display(&self, path: &RepoPath) -> String {
        match (self.prefix.as_str(), path.as_str()) {
            ("", path) => format!("/{path}"),
            (prefix, "") => format!("/{prefix}"),
            (prefix, path) => format!("/{prefix}/{path}"),
        }
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        let key = self.key(path)?;
        match self.wait(self.store.head(&key)) {
            Ok(meta) => Ok(Some(Entry {
                name: path.file_name().to_owned(),
                kind: EntryKind::File,
                size: meta.size,
                modified: meta.last_modified.timestamp(),
                version: None,
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fail("get info for path/file", path, error)),
        }
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        let key = self.key(path)?;
        let result = self
            .wait(self.store.list_with_delimiter(Some(&key)))
            .map_err(|error| self.fail("list file info for path", path, error))?;
        let name = |path: &Path| path.filename().unwrap_or_default().to_owned();
        let mut entries: Vec<Entry> = result
            .common_prefixes
            .iter()
            .map(|prefix| Entry { name: name(prefix), kind: EntryKind::Path, size: 0, modified: 0, version: None })
            .chain(result.objects.iter().map(|meta| Entry {
                name: name(&meta.location),
                kind: EntryKind::File,
                size: meta.size,
                modified: meta.last_modified.timestamp(),
                version: meta.version.clone(),
            }))
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        // A store has no directories: one without entries is one that is not there
        Ok((!entries.is_empty()).then_some(entries))
    }

    fn names_after(&self, path: &RepoPath, after: &str) -> Result<Vec<String>> {
        let (key, offset) = (self.key(path)?, self.key(&path.join(after)?)?);
        let found = self.store.list_with_offset(Some(&key), &offset).map_ok(|meta| meta.location);
        let found: Vec<Path> =
            self.wait(found.try_collect()).map_err(|error| self.fail("list file info for path", path, error))?;
        // What lies deeper is listed too
        let depth = key.parts().count() + 1;
        let direct = found.iter().filter(|location| location.parts().count() == depth);
        let mut names: Vec<String> = direct.filter_map(|location| location.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn Read + Send>>> {
        let key = self.key(path)?;
        if range.limit == Some(0) {
            return Ok(self.info(path)?.map(|_| Box::new(io::empty()) as Box<dyn Read + Send>));
        }
        let wanted = match (range.offset, range.limit) {
            (0, None) => None,
            (offset, None) => Some(GetRange::Offset(offset)),
            (offset, Some(limit)) => Some(GetRange::Bounded(offset..offset.saturating_add(limit))),
        };
        let options = GetOptions { range: wanted, ..GetOptions::default() };
        match self.wait(self.store.get_opts(&key, options)) {
            Ok(result) => Ok(Some(Box::new(ObjectReader::start(self, path, key, result)))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            // A range that begins past the end is an error for a store and an empty read for a file system
            Err(error) if range.offset > 0 => match self.info(path)? {
                Some(info) if info.size <= range.offset => Ok(Some(Box::new(io::empty()))),
                Some(_) => Err(self.fail("open file for read", path, error)),
                None => Ok(None),
            },
            Err(error) => match self.info(path)? {
                Some(info) if info.size == 0 => Ok(Some(Box::new(io::empty()))),
                _ => Err(self.fail("open file for read", path, error)),
            },
        }
    }

    fn read_ahead(&self) -> ReadAhead {
        self.read_ahead
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let (storage, path) = (self.clone(), path.clone());
        self.runtime.spawn_blocking(move || {
            // Nobody may want it any more
            let _ = sender.send(storage.read(&path, range));
        });
        PendingRead::later(answer)
    }

    fn write(&self, path: &RepoPath, _options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        Ok(Box::new(ObjectWriter {
            store: Arc::clone(&self.store),
            runtime: self.runtime.clone(),
            parts_free: Arc::clone(&self.parts_free),
            key: self.key(path)?,
            name: self.display(path),
            tags: self.tags.clone(),
            part_size_bytes: self.part_size_bytes,
            parts: 0,
            buffer: BytesMut::new(),
            upload: None,
        }))
    }

    fn create_path(&self, _path: &RepoPath) -> Result<()> {
        Ok(())
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        let key = self.key(path)?;
        match self.wait(self.store.delete(&key)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fail("remove file", path, error)),
        }
    }

    fn remove_many(&self, paths: &[RepoPath]) -> Result<()> {
        let Some(first) = paths.first() else { return Ok(()) };
        let keys = paths.iter().map(|path| self.key(path).map(Ok)).collect::<Result<Vec<_>>>()?;
        self.wait(self.remove_each(stream::iter(keys).boxed())).map_err(|error| {
            let what = if paths.len() == 1 { "remove file" } else { "remove files, the first of them" };
            self.fail(what, first, error)
        })
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        let found = self.store.list(Some(&self.key(path)?)).map_ok(|meta| meta.location).boxed();
        self.wait(self.remove_each(found)).map_err(|error| self.fail("remove path", path, error))
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
    Error::new(ErrorCode::FeatureNotSupported, format!("unable to make link '{path}': object stores have no links"))
}

/// Reads an object while a task fetches the next chunks.
struct ObjectReader {
    chunks: mpsc::Receiver<object_store::Result<Bytes>>,
    current: Bytes,
    name: String,
}

impl ObjectReader {
    fn start(storage: &ObjectStorage, path: &RepoPath, key: Path, result: GetResult) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD_MAX);
        storage.runtime.spawn(fetch(Arc::clone(&storage.store), key, result, sender));
        ObjectReader { chunks, current: Bytes::new(), name: storage.display(path) }
    }
}

/// Hands over the content of an object. Where the connection breaks off the rest is asked for again, as long as each time
/// brings something and the object is still the same. (`object_store` does so too, but only for the first minute.)
async fn fetch(
    store: Arc<dyn ObjectStore>,
    key: Path,
    mut result: GetResult,
    sender: mpsc::Sender<object_store::Result<Bytes>>,
) {
    loop {
        let (mut left, same) = (result.range.clone(), result.meta.e_tag.clone());
        let begin = left.start;
        let mut stream = result.into_stream();
        let failed = loop {
            match stream.next().await {
                None => return,
                Some(Err(error)) => break error,
                Some(Ok(chunk)) => {
                    left.start += chunk.len() as u64;
                    // The reader may have been dropped: nobody wants the rest
                    if sender.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
            }
        };
        if left.start > begin && same.is_some() {
            let range = Some(GetRange::Bounded(left));
            let options = GetOptions { range, if_match: same, ..GetOptions::default() };
            if let Ok(rest) = store.get_opts(&key, options).await {
                result = rest;
                continue;
            }
        }
        // Without a receiver there is nobody to tell
        let _ = sender.send(Err(failed)).await;
        return;
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let next = match self.chunks.try_recv() {
                Err(TryRecvError::Empty) => slots::waiting(|| self.chunks.blocking_recv()),
                next => next.ok(),
            };
            match next {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    return Err(request_error(&format!("unable to read '{}'", self.name), error).into());
                }
            }
        }
        let size = buffer.len().min(self.current.len());
        buffer[..size].copy_from_slice(&self.current.split_to(size));
        Ok(size)
    }
}

/// A multi-part upload that has begun.
struct Upload {
    upload: Box<dyn MultipartUpload>,
    in_flight: JoinSet<object_store::Result<()>>,
}

/// Writes one object, in parts when it is larger than one part.
struct ObjectWriter {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    parts_free: Arc<Semaphore>,
    key: Path,
    name: String,
    tags: TagSet,
    part_size_bytes: usize,
    /// Parts sent so far.
    parts: usize,
    buffer: BytesMut,
    upload: Option<Upload>,
}

impl ObjectWriter {
    fn fail(&self, error: object_store::Error) -> Error {
        request_error(&format!("unable to write '{}'", self.name), error)
    }

    /// Sends the buffer as the next part, waiting only while too many are on their way.
    fn send_part(&mut self) -> Result<()> {
        let data = self.buffer.split().freeze();
        let (runtime, parts_free) = (self.runtime.clone(), Arc::clone(&self.parts_free));
        let result = wait(&runtime, async {
            let state = match &mut self.upload {
                Some(state) => state,
                None => {
                    let options = PutMultipartOptions { tags: self.tags.clone(), ..PutMultipartOptions::default() };
                    let upload = self.store.put_multipart_opts(&self.key, options).await?;
                    self.upload.insert(Upload { upload, in_flight: JoinSet::new() })
                }
            };
            // What went wrong meanwhile is heard of before more is sent
            while let Some(sent) = state.in_flight.try_join_next() {
                sent??;
            }
            let free = Arc::clone(&parts_free).acquire_owned().await;
            let part = state.upload.put_part(PutPayload::from_bytes(data));
            state.in_flight.spawn(async move {
                let _free = free;
                part.await
            });
            Ok(())
        });
        result.map_err(|error| self.fail(error))?;
        self.parts += 1;
        if self.parts.is_multiple_of(PARTS_PER_SIZE) {
            self.part_size_bytes = (self.part_size_bytes * 2).min(PART_SIZE_MAX_BYTES.max(self.part_size_bytes));
        }
        Ok(())
    }
}

/// Waits for one part and takes its result.
async fn join_one(in_flight: &mut JoinSet<object_store::Result<()>>) -> object_store::Result<()> {
    match in_flight.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(error.into()),
        None => Ok(()),
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= self.part_size_bytes {
            self.send_part()?;
        }
        let size = data.len().min(self.part_size_bytes - self.buffer.len());
        self.buffer.extend_from_slice(&data[..size]);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RepoWriter for ObjectWriter {
    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.upload.is_none() {
            let payload = PutPayload::from_bytes(self.buffer.split().freeze());
            let options = PutOptions { tags: self.tags.clone(), ..PutOptions::default() };
            let result = wait(&self.runtime, self.store.put_opts(&self.key, payload, options));
            return result.map(drop).map_err(|error| self.fail(error));
        }
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        let result = wait(&self.runtime.clone(), async {
            if let Some(state) = &mut self.upload {
                while !state.in_flight.is_empty() {
                    join_one(&mut state.in_flight).await?;
                }
                state.upload.complete().await?;
            }
            Ok(())
        });
        result.map_err(|error| self.fail(error))?;
        self.upload = None;
        Ok(())
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if let Some(mut state) = self.upload.take() {
            // Nothing was completed, so no reader can see the object; the parts are removed so that they cost nothing
            let name = std::mem::take(&mut self.name);
            wait(&self.runtime, async {
                state.in_flight.shutdown().await;
                if let Err(error) = state.upload.abort().await {
                    crate::warn!("unable to abort the upload of '{name}': {error}");
                }
            });
        }
    }
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStorage").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::storage::{RepoStorage, WriteOptions, conformance, get, put};

    /// Runs the conformance suite and writes a file of several parts.
    pub(crate) fn server_conforms(storage: &dyn RepoStorage) {
        conformance::run(storage);
        let big: Vec<u8> = (0..23_000_000u32).map(|i| (i >> 7) as u8).collect();
        let at = crate::storage::RepoPath::new("big/file").unwrap();
        put(storage, &at, &big, WriteOptions::ATOMIC).unwrap();
        assert!(get(storage, &at, 1 << 30).unwrap().unwrap() == big);
        storage.remove_all(&crate::storage::RepoPath::new("big").unwrap()).unwrap();
        assert!(storage.info(&at).unwrap().is_none());
    }
}
