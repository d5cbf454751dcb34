//! A storage that fails on request, for tests of failing repositories.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::message::NoSpace;

use super::full::with_no_space;
use super::{Concurrency, Entry, Features, ReadRange, RepoPath, RepoReader, RepoStorage, RepoWriter, WriteOptions};
use crate::work::retry::PeerFault;
use crate::{Error, ErrorCode, Result};

/// A type of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`RepoStorage::info`] and [`RepoStorage::link_destination`].
    Info,
    /// [`RepoStorage::list`].
    List,
    /// [`RepoStorage::read`].
    Read,
    /// [`RepoStorage::write`].
    Write,
    /// [`RepoWriter::finish`].
    Finish,
    /// [`RepoStorage::create_path`].
    CreatePath,
    /// [`RepoStorage::remove`].
    Remove,
    /// [`RepoStorage::remove_all`].
    RemoveAll,
    /// [`RepoStorage::remove_empty`].
    RemoveEmpty,
    /// [`RepoStorage::sync_path`].
    SyncPath,
    /// [`RepoStorage::symlink`] and [`RepoStorage::hard_link`].
    Link,
}

impl Op {
    /// Returns whether the call changes the repository.
    pub fn changes(self) -> bool {
        !matches!(self, Op::Info | Op::List | Op::Read)
    }
}

/// When a call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The nth call (from 1) of this kind, once.
    Nth(Op, u64),
    /// The nth call (from 1) of this type, once, and only after it has done its work.
    Lost(Op, u64),
    /// The nth changing call (from 1) and every call after it, as if the process had died there.
    CrashAt(u64),
    /// Every call, because the connection has ended.
    Ended,
    /// The nth call (from 1) of any kind, once, because one of several connections has ended.
    OneEnded(usize),
    /// The same, but only after the call has done its work.
    OneLost(usize),
    /// The nth call (from 1) of any kind succeeds, but what it opened fails, because one of several connections has ended.
    OneCut(usize),
    /// Every call of this kind on a path that contains this text.
    Path(Op, String),
    /// The nth call (from 1) of this kind on this path, once.
    NthOf(Op, RepoPath, u64),
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    calls: Vec<(Op, RepoPath)>,
    read_size_max: Option<usize>,
    write_bytes_left: Option<u64>,
    unclear_writes_left: u32,
    listed: Option<Vec<String>>,
    bytes_free: Option<u64>,
    has_ended: bool,
    /// The call whose reader or writer fails.
    cut: Option<(Op, RepoPath)>,
    /// The code of a connection that has ended, if not that of a damaged file.
    end_code: Option<ErrorCode>,
}

impl State {
    /// Records a call and returns the fault that applies.
    fn call(&mut self, op: Op, path: &RepoPath) -> Option<Fault> {
        self.calls.push((op, path.clone()));
        let same = self.calls.iter().filter(|(called, _)| *called == op).count() as u64;
        let changes = self.calls.iter().filter(|(called, _)| called.changes()).count() as u64;
        let befalls = |fault: &&Fault| match fault {
            Fault::Nth(which, n) | Fault::Lost(which, n) => *which == op && *n == same,
            Fault::CrashAt(n) => changes >= *n,
            Fault::OneEnded(n) | Fault::OneLost(n) | Fault::OneCut(n) => self.calls.len() == *n,
            Fault::Ended => self.has_ended,
            Fault::Path(which, text) => *which == op && path.as_str().contains(text.as_str()),
            Fault::NthOf(which, of, n) => {
                let is_one = |called: &&(Op, RepoPath)| called.0 == op && called.1 == *of;
                *which == op && path == of && self.calls.iter().filter(is_one).count() as u64 == *n
            }
        };
        let ended = self.has_ended.then_some(Fault::Ended);
        let fault = ended.or_else(|| self.faults.iter().find(befalls).cloned());
        if let Some(Fault::OneCut(_)) = fault {
            self.cut = Some((op, path.clone()));
            return None;
        }
        fault
    }

    /// Returns the error of the reader or writer that this call has opened, once.
    fn cut(&mut self, op: Op, path: &RepoPath) -> Option<Error> {
        self.cut.take_if(|(called, of)| *called == op && of == path)?;
        Some(self.end_of_connection())
    }

    /// The error of a connection to another host that has ended. It has the code of a damaged file.
    fn end_of_connection(&self) -> Error {
        Error::new(self.end_code.unwrap_or(ErrorCode::Format), "unexpected EOF").cause(PeerFault)
    }
}

/// A function that runs at a call.
type Hook = Arc<dyn Fn(Op, &RepoPath) + Send + Sync>;

/// Passes calls on to another storage and fails the requested ones.
#[derive(Clone)]
pub struct FaultyStorage {
    inner: Arc<dyn RepoStorage>,
    state: Arc<Mutex<State>>,
    before: Option<Hook>,
    after: Option<Hook>,
}

impl FaultyStorage {
    /// Fails nothing yet.
    pub fn new(inner: Arc<dyn RepoStorage>) -> Self {
        FaultyStorage { inner, state: Arc::default(), before: None, after: None }
    }

    /// Runs `hook` before every call.
    #[must_use]
    pub fn before(mut self, hook: impl Fn(Op, &RepoPath) + Send + Sync + 'static) -> Self {
        self.before = Some(Arc::new(hook));
        self
    }

    /// Runs `hook` after every call.
    #[must_use]
    pub fn after(mut self, hook: impl Fn(Op, &RepoPath) + Send + Sync + 'static) -> Self {
        self.after = Some(Arc::new(hook));
        self
    }

    /// Says that so many bytes can still be written.
    #[must_use]
    pub fn with_bytes_free(self, bytes: u64) -> Self {
        self.with(|state| state.bytes_free = Some(bytes));
        self
    }

    /// Lists only entries with these names.
    #[must_use]
    pub fn list_only(self, names: &[&str]) -> Self {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        self.with(|state| state.listed = Some(names));
        self
    }

    /// Fails the nth call (from 1) of this kind on this path.
    #[must_use]
    pub fn fail_of(self, op: Op, path: &RepoPath, n: u64) -> Self {
        self.with(|state| state.faults.push(Fault::NthOf(op, path.clone(), n)));
        self
    }

    /// Fails the nth call (from 1) of this kind.
    #[must_use]
    pub fn fail(self, op: Op, n: u64) -> Self {
        self.with(|state| state.faults.push(Fault::Nth(op, n)));
        self
    }

    /// Lets the nth call (from 1) of this type do its work and fail nevertheless, as if a server's answer were lost.
    #[must_use]
    pub fn lose_reply(self, op: Op, n: u64) -> Self {
        self.with(|state| state.faults.push(Fault::Lost(op, n)));
        self
    }

    /// Fails the nth changing call (from 1) and every call after it.
    #[must_use]
    pub fn crash_at(self, n: u64) -> Self {
        self.with(|state| state.faults.push(Fault::CrashAt(n)));
        self
    }

    /// Fails every call of this kind on paths that contain `text`.
    #[must_use]
    pub fn fail_path(self, op: Op, text: &str) -> Self {
        self.with(|state| state.faults.push(Fault::Path(op, text.to_owned())));
        self
    }

    /// Readers return at most this many bytes per call.
    #[must_use]
    pub fn short_reads(self, bytes_max: usize) -> Self {
        self.with(|state| state.read_size_max = Some(bytes_max));
        self
    }

    /// Writers fail with "no space left" after this many bytes in all.
    #[must_use]
    pub fn full_after(self, bytes: u64) -> Self {
        self.with(|state| state.write_bytes_left = Some(bytes));
        self
    }

    /// The next writes, this many of them, fail for a reason that may be a full disk.
    #[must_use]
    pub fn fail_unclearly(self, count: u32) -> Self {
        self.with(|state| state.unclear_writes_left = count);
        self
    }

    /// Ends the connection: every later call fails.
    pub fn end(&self) {
        self.with(|state| state.has_ended = true);
    }

    /// Ends one of several connections, and the nth call (from 1) with it.
    #[must_use]
    pub fn end_one_at(self, n: usize) -> Self {
        self.with(|state| state.faults.push(Fault::OneEnded(n)));
        self
    }

    /// The same after that call has done its work, as if the answer were lost.
    #[must_use]
    pub fn lose_one_at(self, n: usize) -> Self {
        self.with(|state| state.faults.push(Fault::OneLost(n)));
        self
    }

    /// Ends one of several connections while the file is transferred that the nth call (from 1) has opened.
    #[must_use]
    pub fn cut_one_at(self, n: usize) -> Self {
        self.with(|state| state.faults.push(Fault::OneCut(n)));
        self
    }

    /// The code of the error once the connection has ended.
    #[must_use]
    pub fn ends_with(self, code: ErrorCode) -> Self {
        self.with(|state| state.end_code = Some(code));
        self
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<(Op, RepoPath)> {
        self.with(|state| state.calls.clone())
    }

    fn with<T>(&self, use_state: impl FnOnce(&mut State) -> T) -> T {
        use_state(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn call<T>(&self, op: Op, path: &RepoPath, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.before.iter().for_each(|hook| hook(op, path));
        let fault = self.with(|state| state.call(op, path));
        let done = match fault {
            None | Some(Fault::Lost(..) | Fault::OneLost(_)) => Some(work()),
            Some(_) => None,
        };
        self.after.iter().for_each(|hook| hook(op, path));
        match (fault, done) {
            (None, Some(done)) => return done,
            (_, Some(Err(error))) => return Err(error),
            (Some(Fault::Ended | Fault::OneEnded(_) | Fault::OneLost(_)), _) => {
                return Err(self.with(|state| state.end_of_connection()));
            }
            _ => {}
        }
        Err(Error::new(ErrorCode::Service, format!("fault injected: {op:?} '{path}'")))
    }
}

impl RepoStorage for FaultyStorage {
    fn features(&self) -> Features {
        self.inner.features()
    }

    fn bytes_free(&self, path: &RepoPath) -> Option<u64> {
        let bytes_free = self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes_free;
        bytes_free.or_else(|| self.inner.bytes_free(path))
    }

    fn concurrency(&self) -> Concurrency {
        self.inner.concurrency()
    }

    fn connected(&self) -> Result<()> {
        let ended = self.with(|state| state.has_ended.then(|| state.end_of_connection()));
        ended.map_or_else(|| self.inner.connected(), Err)
    }

    fn display(&self, path: &RepoPath) -> String {
        self.inner.display(path)
    }

    fn check_name(&self, path: &RepoPath) -> Result<()> {
        self.inner.check_name(path)
    }

    fn info(&self, path: &RepoPath) -> Result<Option<Entry>> {
        self.call(Op::Info, path, || self.inner.info(path))
    }

    fn list(&self, path: &RepoPath) -> Result<Option<Vec<Entry>>> {
        let listed = self.call(Op::List, path, || self.inner.list(path))?;
        let Some(names) = self.with(|state| state.listed.clone()) else { return Ok(listed) };
        let mut entries = listed.unwrap_or_default();
        entries.retain(|entry| names.contains(&entry.name));
        Ok((!entries.is_empty()).then_some(entries))
    }

    fn link_destination(&self, path: &RepoPath) -> Result<Option<String>> {
        self.call(Op::Info, path, || self.inner.link_destination(path))
    }

    fn read(&self, path: &RepoPath, range: ReadRange) -> Result<Option<Box<dyn RepoReader>>> {
        let inner = self.call(Op::Read, path, || self.inner.read(path, range))?;
        let size_max = self.with(|state| state.read_size_max).unwrap_or(usize::MAX);
        let cut = self.with(|state| state.cut(Op::Read, path));
        Ok(inner.map(|inner| Box::new(ShortReader { inner, size_max, cut }) as Box<dyn RepoReader>))
    }

    fn write(&self, path: &RepoPath, options: WriteOptions) -> Result<Box<dyn RepoWriter>> {
        let inner = self.call(Op::Write, path, || self.inner.write(path, options))?;
        let cut = self.with(|state| state.cut(Op::Write, path));
        Ok(Box::new(FaultyWriter { inner, path: path.clone(), storage: self.clone(), cut }))
    }

    fn forget_cached(&self, files: &[RepoPath]) {
        self.inner.forget_cached(files);
    }

    fn create_path(&self, path: &RepoPath) -> Result<()> {
        self.call(Op::CreatePath, path, || self.inner.create_path(path))
    }

    fn remove(&self, path: &RepoPath) -> Result<()> {
        self.call(Op::Remove, path, || self.inner.remove(path))
    }

    fn remove_all(&self, path: &RepoPath) -> Result<()> {
        self.call(Op::RemoveAll, path, || self.inner.remove_all(path))
    }

    fn remove_empty(&self, path: &RepoPath) -> Result<()> {
        self.call(Op::RemoveEmpty, path, || self.inner.remove_empty(path))
    }

    fn sync_path(&self, path: &RepoPath) -> Result<()> {
        self.call(Op::SyncPath, path, || self.inner.sync_path(path))
    }

    fn symlink(&self, destination: &str, link: &RepoPath) -> Result<()> {
        self.call(Op::Link, link, || self.inner.symlink(destination, link))
    }

    fn hard_link(&self, existing: &RepoPath, link: &RepoPath) -> Result<()> {
        self.call(Op::Link, link, || self.inner.hard_link(existing, link))
    }
}

struct ShortReader {
    inner: Box<dyn RepoReader>,
    size_max: usize,
    cut: Option<Error>,
}

impl Read for ShortReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.cut.take() {
            return Err(error.into());
        }
        let size = buffer.len().min(self.size_max);
        self.inner.read(&mut buffer[..size])
    }
}

impl RepoReader for ShortReader {
    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }
}

struct FaultyWriter {
    inner: Box<dyn RepoWriter>,
    path: RepoPath,
    storage: FaultyStorage,
    cut: Option<Error>,
}

impl Write for FaultyWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.cut.take() {
            return Err(error.into());
        }
        let is_unclear = self.storage.with(|state| {
            let left = state.unclear_writes_left.checked_sub(1);
            state.unclear_writes_left = left.unwrap_or(0);
            left.is_some()
        });
        if is_unclear {
            let error = Error::new(ErrorCode::FileWrite, "unable to write: sftp error [4] failure");
            return Err(with_no_space(error, Some(NoSpace::Possible)).into());
        }
        let fits = self.storage.with(|state| match &mut state.write_bytes_left {
            None => true,
            Some(left) if *left >= buffer.len() as u64 => {
                *left -= buffer.len() as u64;
                true
            }
            Some(_) => false,
        });
        if !fits {
            let no_space = io::Error::from(rustix::io::Errno::NOSPC);
            let message = format!("unable to write '{}'", self.storage.display(&self.path));
            return Err(Error::from_io(ErrorCode::FileWrite, message, no_space).into());
        }
        self.inner.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl RepoWriter for FaultyWriter {
    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { inner, path, storage, .. } = *self;
        storage.call(Op::Finish, &path, || inner.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{get, put};

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text).unwrap()
    }

    #[test]
    fn fail_nth_fails_only_that_call() {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new())).fail(Op::Finish, 2);
        put(&storage, &path("a"), b"x", WriteOptions::ATOMIC).unwrap();
        assert!(put(&storage, &path("b"), b"x", WriteOptions::ATOMIC).is_err());
        put(&storage, &path("c"), b"x", WriteOptions::ATOMIC).unwrap();
        assert_eq!(get(&storage, &path("b"), 9).unwrap(), None);
    }

    #[test]
    fn lost_reply_fails_a_call_that_was_done() {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new())).lose_reply(Op::Finish, 1);
        assert!(put(&storage, &path("a"), b"x", WriteOptions::ATOMIC).is_err());
        assert_eq!(get(&storage, &path("a"), 9).unwrap().unwrap(), b"x");
        put(&storage, &path("a"), b"y", WriteOptions::ATOMIC).unwrap();
    }

    #[test]
    fn crash_fails_everything_after() {
        let memory = MemoryStorage::new();
        let storage = FaultyStorage::new(Arc::new(memory.clone())).crash_at(3);
        put(&storage, &path("a"), b"x", WriteOptions::ATOMIC).unwrap();
        assert!(put(&storage, &path("b"), b"x", WriteOptions::ATOMIC).is_err());
        assert!(storage.list(&RepoPath::root()).is_err());
        assert_eq!(memory.paths(), ["a"]);
    }

    #[test]
    fn full_storage_reports_no_space() {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new())).full_after(4);
        let error = put(&storage, &path("a"), b"12345", WriteOptions::ATOMIC).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileWrite);
        assert_eq!(error.message, "unable to write '/a': [28] No space left on device");
    }
}
