//! Every call of a writer fails once, before or after its work: what was acknowledged exists, what was not is complete
//! or absent, and the next attempt succeeds.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::storage::faulty::{FaultyStorage, Op};
use engine::storage::{RepoPath, RepoStorage, WriteOptions, get, put};
use engine::{ErrorCode, Result};

use super::conformance::large_content;

const ALL: [Op; 10] = [
    Op::Info,
    Op::List,
    Op::Read,
    Op::Write,
    Op::Finish,
    Op::CreatePath,
    Op::Remove,
    Op::RemoveAll,
    Op::SyncPath,
    Op::Link,
];

/// The possible contents of a file; `None` means no file.
type States = Vec<Option<&'static [u8]>>;

/// A writer that remembers what must be in the repository.
struct Writer<'a> {
    storage: &'a dyn RepoStorage,
    root: RepoPath,
    files: BTreeMap<&'static str, States>,
}

impl<'a> Writer<'a> {
    fn new(storage: &'a dyn RepoStorage, root: &str) -> Self {
        Self { storage, root: RepoPath::new(root).unwrap(), files: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> RepoPath {
        self.root.join(name).unwrap()
    }

    /// Runs something that gives these files another content.
    fn change(
        &mut self,
        names: &[&'static str],
        content: Option<&'static [u8]>,
        work: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        for name in names {
            self.files.entry(name).or_insert_with(|| vec![None]).push(content);
        }
        work(self)?;
        for name in names {
            self.files.insert(name, vec![content]);
        }
        Ok(())
    }

    fn put(&mut self, name: &'static str, content: &'static [u8]) -> Result<()> {
        self.change(&[name], Some(content), |writer| {
            put(writer.storage, &writer.path(name), content, WriteOptions::ATOMIC)
        })
    }

    /// Writes, reads, lists and removes. Every answer must be true.
    fn work(&mut self) -> Result<()> {
        let storage = self.storage;
        storage.create_path(&self.path("backup"))?;
        self.put("info", b"first")?;
        self.put("info", b"second, and longer")?;
        self.put("backup/bundle", b"content")?;
        storage.sync_path(&self.path("backup"))?;
        assert_eq!(get(storage, &self.path("info"), 100)?.unwrap(), b"second, and longer");
        assert_eq!(storage.info(&self.path("backup/bundle"))?.unwrap().size, 7);
        assert_eq!(storage.names(&self.path("backup"))?.unwrap(), ["bundle"]);
        if storage.features().symlinks {
            storage.symlink("backup", &self.path("latest"))?;
            assert_eq!(storage.link_destination(&self.path("latest"))?.unwrap(), "backup");
            storage.remove(&self.path("latest"))?;
        }
        if storage.features().hard_links {
            // The link of an earlier attempt
            storage.remove(&self.path("linked"))?;
            self.change(&["linked"], Some(b"content"), |writer| {
                storage.hard_link(&writer.path("backup/bundle"), &writer.path("linked"))
            })?;
            self.change(&["linked"], None, |writer| storage.remove(&writer.path("linked")))?;
        }
        let old = ["old/1", "old/2", "old/deep/3"];
        old.iter().try_for_each(|name| self.put(name, b"old"))?;
        self.change(&["old/1"], None, |writer| storage.remove(&writer.path("old/1")))?;
        self.change(&old, None, |writer| storage.remove_all(&writer.path("old")))
    }

    /// Compares the storage with the expected states.
    fn check(&self, storage: &dyn RepoStorage) {
        for (name, states) in &self.files {
            let found = get(storage, &self.path(name), 100).unwrap();
            assert!(states.contains(&found.as_deref()), "'{name}' is {found:?}, not one of {states:?}");
        }
        for folder in ["", "backup", "old", "old/deep"] {
            let path = if folder.is_empty() { self.root.clone() } else { self.path(folder) };
            let names = storage.names(&path).unwrap().unwrap_or_default();
            assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?} in '{path}'");
        }
    }
}

/// Runs all failures in folders of an empty repository.
pub fn run(storage: &Arc<dyn RepoStorage>) {
    let healthy = FaultyStorage::new(Arc::clone(storage));
    Writer::new(&healthy, "healthy").work().unwrap();
    let counts = ALL.map(|op| (op, healthy.calls().iter().filter(|(called, _)| *called == op).count() as u64));
    assert!(counts.iter().all(|&(op, count)| count > 0 || op == Op::Link), "{counts:?}");
    for (op, count) in counts {
        for n in 1..=count {
            let faulty = || FaultyStorage::new(Arc::clone(storage));
            fails(storage, &faulty().fail(op, n), &format!("before-{op:?}-{n}"));
            fails(storage, &faulty().lose_reply(op, n), &format!("after-{op:?}-{n}"));
        }
    }
    for n in (1..).take(healthy.calls().iter().filter(|(op, _)| op.changes()).count()) {
        fails(storage, &FaultyStorage::new(Arc::clone(storage)).crash_at(n), &format!("crash-{n}"));
    }
    half_a_file_never_appears(storage);
}

/// The work ends with the injected error, and another attempt succeeds.
fn fails(storage: &Arc<dyn RepoStorage>, faulty: &FaultyStorage, name: &str) {
    let mut writer = Writer::new(faulty, name);
    let error = writer.work().expect_err(name);
    assert_eq!(error.code, ErrorCode::Service, "{name}: {}", error.message);
    writer.check(&**storage);
    let mut again = Writer::new(&**storage, name);
    again.work().unwrap();
    again.check(&**storage);
}

/// The storage becomes full within a file of many parts, which is abandoned.
fn half_a_file_never_appears(storage: &Arc<dyn RepoStorage>) {
    let (content, at) = (large_content(), RepoPath::new("full/file").unwrap());
    for (n, bytes) in [0, 1_000_000, 12_000_000].into_iter().enumerate() {
        let full = FaultyStorage::new(Arc::clone(storage)).full_after(bytes);
        let mut writer = full.write(&at, WriteOptions::ATOMIC).unwrap();
        let written = content.chunks(1 << 18).try_for_each(|chunk| std::io::Write::write_all(&mut writer, chunk));
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::Other, "{n}");
        drop(writer);
        assert_eq!(get(&**storage, &at, 1 << 30).unwrap(), None);
        assert!(storage.names(&RepoPath::new("full").unwrap()).unwrap().unwrap_or_default().is_empty());
    }
    put(&**storage, &at, b"short", WriteOptions::ATOMIC).unwrap();
    assert_eq!(get(&**storage, &at, 10).unwrap().unwrap(), b"short");
}
