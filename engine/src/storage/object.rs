//! Repositories in object stores: one driver for every store that the `object_store` crate reaches.
//!
//! An object appears complete and durable or not at all, so every write satisfies any [`super::WriteOptions`]. Small
//! files are one request. Larger files are uploaded in parts, several of them in flight, while the worker thread hashes
//! and compresses the next. Memory is bounded by part size times parts in flight. Reads run a few chunks ahead of the
//! reader for the same reason.

mod error;
pub(crate) mod key;
mod reader;
mod writer;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, TagSet};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use self::error::request_error;
use self::reader::{ObjectReader, Source};
use self::writer::ObjectUpload;
use super::as_of::{AsOf, ListVersions};
use super::{
    Concurrency, Entry, EntryKind, Features, FileSize, PendingRead, Protection, ReadAhead, ReadRange, RepoPath,
    RepoReader, RepoStorage, RepoWriter, VersionedStorage, WriteOptions,
};
use crate::{Error, ErrorCode, Result};

/// The maximum number of parts in flight, over all files, because each is held in memory.
const PARTS_IN_FLIGHT_MAX: usize = 8;

/// The longest name of an object, in all stores.
const NAME_SIZE_MAX_BYTES: usize = 1024;

/// How requests address the bucket or account (`repo-s3-uri-style`, `repo-azure-uri-style`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriStyle {
    /// In the host: `https://bucket.endpoint/`.
    Host,
    /// In the path: `https://endpoint/bucket/`.
    Path,
}

/// A repository below a prefix of a bucket or container. Clones share the connections.
#[derive(Clone)]
pub(crate) struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    /// Key prefix of the repository without surrounding slashes; empty for the whole bucket.
    prefix: String,
    part_size_bytes: usize,
    tags: TagSet,
    runtime: Handle,
    read_ahead: ReadAhead,
    /// Characters that the store refuses in names.
    is_forbidden: fn(char) -> bool,
    /// Parts that may still be sent, over all writers.
    parts_free: Arc<Semaphore>,
    /// The versions of all objects, if the store keeps them.
    versions: Option<Arc<dyn ListVersions>>,
    /// Where to ask for the settings of the bucket.
    bucket: Option<Arc<dyn DescribeBucket>>,
}

/// Reads the settings of a bucket.
#[async_trait]
pub(crate) trait DescribeBucket: Send + Sync {
    /// Returns what protects its objects.
    async fn protection(&self) -> object_store::Result<Protection>;
}

impl ObjectStorage {
    /// Creates a repository at `repo_path` (pgBackRest's `repo-path`, e.g. `/demo`) of a store. Files larger than
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
            is_forbidden: |_| false,
            parts_free: Arc::new(Semaphore::new(PARTS_IN_FLIGHT_MAX)),
            versions: None,
            bucket: None,
        })
    }

    /// Reads ahead this way.
    #[must_use]
    pub fn with_read_ahead(self, read_ahead: ReadAhead) -> Self {
        ObjectStorage { read_ahead, ..self }
    }

    /// Finds old versions of objects there. With a time in seconds since the epoch, the storage is as it was then.
    #[must_use]
    pub(crate) fn with_versions(self, versions: Arc<dyn ListVersions>, time: Option<i64>) -> Self {
        match time {
            Some(time) => self.at_time(versions, time),
            None => ObjectStorage { versions: Some(versions), ..self },
        }
    }

    fn at_time(self, versions: Arc<dyn ListVersions>, time: i64) -> Self {
        let store = AsOf::new(Arc::clone(&self.store), versions, time);
        ObjectStorage { store: Arc::new(store), versions: None, ..self }
    }

    /// Asks there for the settings of the bucket.
    #[must_use]
    pub(crate) fn with_bucket(self, bucket: Arc<dyn DescribeBucket>) -> Self {
        ObjectStorage { bucket: Some(bucket), ..self }
    }

    /// Refuses names that contain these characters.
    #[must_use]
    pub(crate) fn without(self, is_forbidden: fn(char) -> bool) -> Self {
        ObjectStorage { is_forbidden, ..self }
    }

    /// Waits for the answer to a request.
    fn wait<R>(&self, request: impl Future<Output = R>) -> R {
        self.runtime.block_on(request)
    }

    fn key(&self, path: &RepoPath) -> Result<Path> {
        let text = match (self.prefix.as_str(), path.as_str()) {
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        };
        key::path(&text)
    }

    fn fail(&self, doing: &str, path: &RepoPath, error: object_store::Error) -> Error {
        request_error(&format!("unable to {doing} '{}'", self.display(path)), error)
    }

    /// Asks for the size and age of an object, or of a version of it.
    async fn find(&self, path: &RepoPath, version: Option<&str>) -> Result<Option<Entry>> {
        let options = GetOptions { head: true, version: version.map(str::to_owned), ..GetOptions::default() };
        match self.store.get_opts(&self.key(path)?, options).await.map(|found| found.meta) {
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

    /// Asks for the content of an object, or of a version of it.
    async fn open(
        &self,
        path: &RepoPath,
        range: ReadRange,
        version: Option<&str>,
    ) -> Result<Option<Box<dyn RepoReader>>> {
        if range.limit == Some(0) {
            return Ok(self.find(path, version).await?.map(|_| Box::new(io::empty()) as Box<dyn RepoReader>));
        }
        let key = self.key(path)?;
        let wanted = match (range.offset, range.limit) {
            (0, None) => None,
            (offset, None) => Some(GetRange::Offset(offset)),
            (offset, Some(limit)) => Some(GetRange::Bounded(offset..offset.saturating_add(limit))),
        };
        let options = GetOptions { range: wanted, version: version.map(str::to_owned), ..GetOptions::default() };
        let error = match self.store.get_opts(&key, options).await {
            Ok(result) => {
                let source = Source { key, version: version.map(str::to_owned) };
                return Ok(Some(Box::new(ObjectReader::start(self, path, source, result))));
            }
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => self.fail("open file for read", path, error),
        };
        // If the server does not answer, another request would only wait again. If it is not the store, it does not
        // know the answer
        if error.code != ErrorCode::Protocol {
            return Err(error);
        }
        // A range that begins at or past the end is an error for a store and an empty read for a file system
        match self.find(path, version).await {
            Ok(Some(info)) if info.size <= range.offset => Ok(Some(Box::new(io::empty()))),
            Ok(None) if range.offset > 0 => Ok(None),
            _ => Err(error),
        }
    }

    /// Removes objects, a thousand per request if the store supports that.
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

/// An object's name, relative to a directory above it.
fn below(location: &Path, directory: &Path) -> String {
    let (name, directory) = (key::name(location), key::name(directory));
    name.strip_prefix(&*directory).unwrap_or(&name).trim_start_matches('/').to_owned()
}

/// Returns the last part of an object's name.
fn file_name(location: &Path) -> String {
    key::name(location).rsplit('/').next().unwrap_or_default().to_owned()
}

impl RepoStorage for ObjectStorage {
    fn features(&self) -> Features {
        Features { paths: false, hard_links: false, symlinks: false, path_sync: false, errors_last: false }
    }

    fn concurrency(&self) -> Concurrency {
        Concurrency::SERVER
    }

    fn display(&self, path: &RepoPath) -> String {
        match (self.prefix.as_str(), path.as_str()) {
            ("", path) => format!("/{path}"),
            (prefix, "") => format!("/{prefix}"),
            (prefix, path) => format!("/{prefix}/{path}"),
        }
    }

    fn protection(&self) -> Result<Option<Protection>> {
        let Some(bucket) = &self.bucket else { return Ok(None) };
        let protection = self.wait(bucket.protection());
        protection.map(Some).map_err(|error| request_error("unable to get the settings of the bucket", error))
    }

    fn check_name(&self, path: &RepoPath) -> Result<()> {
        let key = self.key(path)?;
        let name = key::name(&key);
        let (size, fault) = (name.len(), |what: String| {
            let text = format!("'{}' can't be the name of an object: it has {what}", name.escape_debug());
            Err(Error::new(ErrorCode::Format, text))
        });
        if size > NAME_SIZE_MAX_BYTES {
            return fault(format!("{size} bytes, more than {NAME_SIZE_MAX_BYTES}"));
        }
        if name.contains(self.is_forbidden) {
            return fault("characters that the store does not take".to_owned());
        }
        Ok(())
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        self.wait(self.find(path, None))
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        let key = self.key(path)?;
        let result = self
            .wait(self.store.list_with_delimiter(Some(&key)))
            .map_err(|error| self.fail("list file info for path", path, error))?;
        let mut entries: Vec<Entry> = result
            .common_prefixes
            .iter()
            .map(|prefix| Entry { name: file_name(prefix), kind: EntryKind::Path, size: 0, modified: 0, version: None })
            // Some servers and tools mark a directory by an empty object of its own name, which is not an entry of it
            .chain(result.objects.iter().filter(|meta| meta.location != key).map(|meta| Entry {
                name: file_name(&meta.location),
                kind: EntryKind::File,
                size: meta.size,
                modified: meta.last_modified.timestamp(),
                version: meta.version.clone(),
            }))
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        // A store has no directories: one without entries does not exist
        Ok((!entries.is_empty()).then_some(entries))
    }

    fn list_files(&self, path: &RepoPath) -> Result<Vec<FileSize>> {
        let key = self.key(path)?;
        let found = self.store.list(Some(&key)).map_ok(|meta| FileSize {
            path: below(&meta.location, &key),
            size: meta.size,
            modified: meta.last_modified.timestamp(),
        });
        let found = self.wait(found.try_collect::<Vec<FileSize>>());
        let mut files = found.map_err(|error| self.fail("list file info for path", path, error))?;
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn names_after(&self, path: &RepoPath, after: &str) -> Result<Vec<String>> {
        let (key, offset) = (self.key(path)?, self.key(&path.join(after)?)?);
        let found = self.store.list_with_offset(Some(&key), &offset).map_ok(|meta| meta.location);
        let found: Vec<Path> =
            self.wait(found.try_collect()).map_err(|error| self.fail("list file info for path", path, error))?;
        // Deeper objects are listed too
        let depth = key.parts().count() + 1;
        let direct = found.iter().filter(|location| location.parts().count() == depth);
        let mut names: Vec<String> = direct.map(file_name).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        self.wait(self.open(path, range, None))
    }

    fn versions(&self) -> Option<&dyn VersionedStorage> {
        self.versions.as_ref().map(|_| self as &dyn VersionedStorage)
    }

    fn read_ahead(&self) -> ReadAhead {
        self.read_ahead
    }

    fn begin_read(&self, path: &RepoPath, range: ReadRange) -> PendingRead {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let (storage, path) = (self.clone(), path.clone());
        self.runtime.spawn(async move {
            // The receiver may be gone
            let _ = sender.send(storage.open(&path, range, None).await);
        });
        PendingRead::of_answer(answer)
    }

    fn write(&self, path: &RepoPath, _options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        Ok(Box::new(ObjectUpload::new(self, path)?))
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

    fn remove_empty(&self, _path: &RepoPath) -> Result<()> {
        Ok(())
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

impl VersionedStorage for ObjectStorage {
    fn list_at(&self, path: &RepoPath, time: i64) -> Result<Option<Vec<Entry>>> {
        let Some(versions) = self.versions.clone() else { return Ok(None) };
        self.clone().at_time(versions, time).list(path)
    }

    fn read_version(&self, path: &RepoPath, range: ReadRange, version: &str) -> Result<Option<Box<dyn RepoReader>>> {
        self.wait(self.open(path, range, Some(version)))
    }
}

fn no_links(path: &str) -> Error {
    Error::new(ErrorCode::FeatureNotSupported, format!("unable to make link '{path}': object stores have no links"))
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStorage").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
