//! A repository in memory, for tests and dry runs. It behaves like an object store: there are no directories and no
//! links, and a file appears complete when its writer finishes.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Entry, EntryKind, Features, ReadRange, RepoPath, RepoReader, RepoStorage, RepoWriter, WriteOptions};
use crate::{Error, ErrorCode, Result};

#[derive(Clone, Debug)]
struct Object {
    bytes: Arc<[u8]>,
    modified: i64,
}

type Objects = BTreeMap<String, Object>;

/// The storage; clones share their content.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    objects: Arc<Mutex<Objects>>,
}

impl MemoryStorage {
    /// An empty repository.
    pub fn new() -> Self {
        Self::default()
    }

    /// The paths of all files, in byte order.
    pub fn paths(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        // Every change is a single insertion or removal, so a panic elsewhere leaves a valid state
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names below a directory start with this.
fn prefix(path: &RepoPath) -> String {
    if path.as_str().is_empty() { String::new() } else { format!("{path}/") }
}

fn below<'a>(objects: &'a Objects, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Object)> {
    objects
        .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(move |(name, _)| name.starts_with(prefix))
}

impl RepoStorage for MemoryStorage {
    fn features(&self) -> Features {
        Features { paths: false, hard_links: false, symlinks: false, path_sync: false, errors_last: true }
    }

    fn display(&self, path: &RepoPath) -> String {
        format!("/{path}")
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        let objects = self.lock();
        let name = path.file_name().to_owned();
        if let Some(object) = objects.get(path.as_str()) {
            let size = object.bytes.len() as u64;
            return Ok(Some(Entry { name, kind: EntryKind::File, size, modified: object.modified, version: None }));
        }
        let is_path = below(&objects, &prefix(path)).next().is_some();
        Ok(is_path.then_some(Entry { name, kind: EntryKind::Path, size: 0, modified: 0, version: None }))
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        let objects = self.lock();
        let prefix = prefix(path);
        // By name, because `a/x` and `a.x` do not sort like `a` and `a.x`
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for (name, object) in below(&objects, &prefix) {
            let rest = &name[prefix.len()..];
            let entry = match rest.split_once('/') {
                Some((dir, _)) => {
                    Entry { name: dir.to_owned(), kind: EntryKind::Path, size: 0, modified: 0, version: None }
                }
                None => {
                    let size = object.bytes.len() as u64;
                    Entry {
                        name: rest.to_owned(),
                        kind: EntryKind::File,
                        size,
                        modified: object.modified,
                        version: None,
                    }
                }
            };
            entries.entry(entry.name.clone()).or_insert(entry);
        }
        let is_path = !entries.is_empty() || path.as_str().is_empty();
        Ok(is_path.then(|| entries.into_values().collect()))
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        let Some(bytes) = self.lock().get(path.as_str()).map(|object| object.bytes.clone()) else { return Ok(None) };
        let mut cursor = Cursor::new(bytes);
        cursor.set_position(range.offset);
        Ok(Some(Box::new(cursor.take(range.limit.unwrap_or(u64::MAX)))))
    }

    fn write(&self, path: &RepoPath, _options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        Ok(Box::new(MemoryWriter { storage: self.clone(), path: path.clone(), bytes: Vec::new() }))
    }

    fn create_path(&self, _path: &RepoPath) -> Result<()> {
        Ok(())
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        self.lock().remove(path.as_str());
        Ok(())
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        let prefix = prefix(path);
        self.lock().retain(|name, _| !name.starts_with(&prefix));
        Ok(())
    }

    fn remove_empty(&self, _path: &RepoPath) -> Result<()> {
        Ok(())
    }

    fn sync_path(&self, _path: &RepoPath) -> Result<()> {
        Ok(())
    }

    fn symlink(&self, _destination: &str, _link: &RepoPath) -> Result<()> {
        Err(Error::new(ErrorCode::Assert, "this repository has no symbolic links"))
    }

    fn hard_link(&self, _existing: &RepoPath, _link: &RepoPath) -> Result<()> {
        Err(Error::new(ErrorCode::Assert, "this repository has no hard links"))
    }
}

impl RepoReader for io::Take<Cursor<Arc<[u8]>>> {}

struct MemoryWriter {
    storage: MemoryStorage,
    path: RepoPath,
    bytes: Vec<u8>,
}

impl Write for MemoryWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RepoWriter for MemoryWriter {
    fn finish(self: Box<Self>) -> Result<()> {
        let modified = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let object = Object { bytes: self.bytes.into(), modified };
        self.storage.lock().insert(self.path.as_str().to_owned(), object);
        Ok(())
    }
}
