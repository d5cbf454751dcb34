//! The files of the jobs, in the state directory.
//!
//! | file | content |
//! | --- | --- |
//! | `daemon.lock` | locked by the daemon |
//! | `STANZA/NAME.json` | the state of a job ([`crate::state`]) |
//! | `STANZA/NAME.json.damaged` | a state file that could not be understood |
//! | `STANZA/NAME.lock` | locked while the state changes |
//! | `STANZA/NAME.job` | the trace of the job's process ([`crate::trace`]) |
//! | `STANZA/.repoN.lock` | locked while a job uses the repository; no job's name begins with a dot |
//!
//! A state file is written to a temporary name, synced, and renamed, so it is complete at any time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::{Error, ErrorCode, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::job::JobKey;
use crate::state::JobState;
use crate::trace;
use crate::world::{Records, Reservation, StateChange, Trace};

const FILE_MODE: u32 = 0o640;
const PATH_MODE: u32 = 0o750;
/// The largest size in bytes of a state file. It holds at most a hundred events of a few hundred bytes, and error
/// messages.
const STATE_SIZE_MAX: u64 = 16 << 20;
/// How long a daemon that starts waits for the lock, which [`StateDirectory::has_daemon`] holds for a moment.
const DAEMON_LOCK_MAX: Duration = Duration::from_secs(2);
const DAEMON_LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    path: PathBuf,
}

/// Locked files.
struct LockedFiles(#[expect(dead_code, reason = "they are held")] Vec<File>);

impl Reservation for LockedFiles {}

impl StateDirectory {
    /// Opens the directory, or creates it.
    ///
    /// # Errors
    /// [`ErrorCode::PathCreate`]
    pub fn open(path: &Path) -> Result<Self> {
        create(path).map_err(|error| {
            let text = format!("unable to create the state directory '{}'", path.display());
            Error::from_io(ErrorCode::PathCreate, text, error)
                .hint("set state-path in section [global:daemon] to a directory that this user may write to.")
        })?;
        Ok(StateDirectory { path: path.to_owned() })
    }

    /// Takes the lock of the daemon, until the value is dropped.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] if another daemon has it.
    pub fn lock_daemon(&self) -> Result<Box<dyn Reservation>> {
        let path = self.path.join("daemon.lock");
        let end = Instant::now() + DAEMON_LOCK_MAX;
        loop {
            if let Some(file) = try_lock(&path)? {
                return Ok(Box::new(LockedFiles(vec![file])));
            }
            if Instant::now() >= end {
                let text = format!("unable to lock '{}': another daemon is running", path.display());
                return Err(Error::new(ErrorCode::LockAcquire, text));
            }
            std::thread::sleep(DAEMON_LOCK_PAUSE);
        }
    }

    /// Returns whether a daemon is running.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`]
    pub fn has_daemon(&self) -> Result<bool> {
        let path = self.path.join("daemon.lock");
        Ok(path.exists() && try_lock(&path)?.is_none())
    }

    /// Reads the state of a job; `None` if there is none.
    ///
    /// # Errors
    /// The file can't be read, or its content is not valid ([`ErrorCode::Format`]).
    pub fn state(&self, key: &JobKey) -> Result<Option<JobState>> {
        let path = self.file(key, "json");
        let failed = |error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", path.display()), error);
        let bytes = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(failed)?,
        };
        let context = format!("state file '{}'", path.display());
        JobState::parse(&String::from_utf8_lossy(&bytes)).map(Some).map_err(|error| error.context(context))
    }

    fn file(&self, key: &JobKey, extension: &str) -> PathBuf {
        self.path.join(&key.stanza).join(format!("{}.{extension}", key.name))
    }

    fn save(&self, key: &JobKey, state: &JobState) -> Result<()> {
        let path = self.file(key, "json");
        let temporary = self.file(key, "json.tmp");
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary)?;
            file.write_all(format!("{:#}\n", state.to_json()).as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(path.parent().unwrap_or(&self.path))?.sync_all()
        };
        write().map_err(|error| {
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", path.display()), error)
        })
    }

    /// Moves a state file that is not valid out of the way, for a look at it. The state starts anew.
    fn set_aside(&self, key: &JobKey, damage: &Error) -> Result<()> {
        let (path, aside) = (self.file(key, "json"), self.file(key, "json.damaged"));
        engine::warn!("job {key}: {damage}\nNOTE: it is kept as '{}', and the state starts anew.", aside.display());
        fs::rename(&path, &aside).map_err(|error| {
            Error::from_io(ErrorCode::FileMove, format!("unable to rename '{}'", path.display()), error)
        })
    }

    fn locked(&self, key: &JobKey) -> Result<File> {
        let path = self.file(key, "lock");
        let failed = |error| Error::from_io(ErrorCode::FileOpen, format!("unable to lock '{}'", path.display()), error);
        create(path.parent().unwrap_or(&self.path)).map_err(failed)?;
        let file = open_lock(&path).map_err(failed)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        Ok(file)
    }
}

impl Records for StateDirectory {
    fn update(&mut self, key: &JobKey, change: &mut StateChange<'_>) -> (JobState, Result<()>) {
        let lock = self.locked(key);
        let (old, damage) = match self.state(key) {
            Ok(old) => (old, Ok(())),
            // Left in its place, it would fail every start of a daemon
            Err(error) if error.code == ErrorCode::Format && lock.is_ok() => (None, self.set_aside(key, &error)),
            Err(error) => (None, Err(error)),
        };
        let state = change(old.clone());
        let saved = lock.and_then(|_lock| {
            damage.and_then(|()| match old {
                Some(old) if old == state => Ok(()),
                _ => self.save(key, &state),
            })
        });
        (state, saved)
    }

    fn reserve(&mut self, stanza: &str, repos: &[u32]) -> Result<Option<Box<dyn Reservation>>> {
        let path = self.path.join(stanza);
        create(&path).map_err(|error| {
            Error::from_io(ErrorCode::PathCreate, format!("unable to create path '{}'", path.display()), error)
        })?;
        let mut held = Vec::new();
        for repo in repos {
            match try_lock(&path.join(format!(".repo{repo}.lock")))? {
                Some(file) => held.push(file),
                None => return Ok(None),
            }
        }
        Ok(Some(Box::new(LockedFiles(held))))
    }

    fn clear_trace(&mut self, key: &JobKey) -> Result<PathBuf> {
        let path = self.file(key, "job");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::from_io(ErrorCode::FileRemove, format!("unable to remove '{}'", path.display()), error))
            }
            _ => Ok(path),
        }
    }

    fn trace(&mut self, key: &JobKey) -> Result<Trace> {
        trace::read(&self.file(key, "job"))
    }
}

/// Reads a file of limited size.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(STATE_SIZE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn create(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(PATH_MODE).create(path)
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// Locks a file; `None` if another process has locked it. Lock files are never removed.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let failed = |error| Error::from_io(ErrorCode::FileOpen, format!("unable to lock '{}'", path.display()), error);
    let file = open_lock(path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn key() -> JobKey {
        JobKey::new("demo", "nightly").unwrap()
    }

    fn new_state() -> JobState {
        JobState::new("@daily".to_owned(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn state_is_there_after_it_was_changed_and_no_temporary_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = StateDirectory::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(store.state(&key()).unwrap(), None);
        let (state, saved) = store.update(&key(), &mut |old| old.unwrap_or_else(new_state));
        saved.unwrap();
        assert_eq!(store.state(&key()).unwrap(), Some(state));
        let (state, _) = store.update(&key(), &mut |old| JobState { failures: 7, ..old.unwrap() });
        assert_eq!((state.failures, store.state(&key()).unwrap().unwrap().failures), (7, 7));
        let names: Vec<_> =
            fs::read_dir(dir.path().join("a/b/demo")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn damaged_state_is_kept_aside_and_the_next_daemon_knows_the_new_one() {
        for damage in [&b"{\"version\":"[..], b"\xff\xfe{}", b""] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = StateDirectory::open(dir.path()).unwrap();
            fs::create_dir(dir.path().join("demo")).unwrap();
            let path = dir.path().join("demo/nightly.json");
            fs::write(&path, damage).unwrap();
            let error = store.state(&key()).unwrap_err();
            assert_eq!(error.code, ErrorCode::Format);
            assert!(error.to_string().contains("nightly.json"), "{error}");
            let (state, saved) = store.update(&key(), &mut |old| old.unwrap_or_else(new_state));
            saved.unwrap();
            assert_eq!(store.state(&key()).unwrap(), Some(state));
            assert_eq!(fs::read(dir.path().join("demo/nightly.json.damaged")).unwrap(), damage);
        }
    }

    #[test]
    fn state_of_a_job_named_like_a_repository_changes_while_the_repository_is_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = StateDirectory::open(dir.path()).unwrap();
        let _held = store.reserve("demo", &[1]).unwrap().unwrap();
        let (done, received) = std::sync::mpsc::channel();
        let mut other = store.clone();
        std::thread::spawn(move || {
            let key = JobKey::new("demo", "repo1").unwrap();
            let (_, saved) = other.update(&key, &mut |old| old.unwrap_or_else(new_state));
            done.send(saved.is_ok()).unwrap();
        });
        assert_eq!(received.recv_timeout(Duration::from_secs(10)), Ok(true));
    }

    #[test]
    fn daemon_that_starts_while_another_process_looks_for_one_gets_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let store = StateDirectory::open(dir.path()).unwrap();
        let look = try_lock(&dir.path().join("daemon.lock")).unwrap().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(look);
        });
        store.lock_daemon().unwrap();
    }

    #[test]
    fn reservation_excludes_others_that_share_a_repository_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = StateDirectory::open(dir.path()).unwrap();
        let held = store.reserve("demo", &[1, 2]).unwrap().unwrap();
        assert!(store.reserve("demo", &[2, 3]).unwrap().is_none());
        assert!(store.reserve("demo", &[3]).unwrap().is_some());
        assert!(store.reserve("other", &[1]).unwrap().is_some());
        drop(held);
        assert!(store.reserve("demo", &[2, 3]).unwrap().is_some());
    }

    #[test]
    fn second_daemon_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = StateDirectory::open(dir.path()).unwrap();
        assert!(!store.has_daemon().unwrap());
        let lock = store.lock_daemon().unwrap();
        assert!(store.has_daemon().unwrap());
        assert_eq!(store.lock_daemon().err().unwrap().code, ErrorCode::LockAcquire);
        drop(lock);
        assert!(!store.has_daemon().unwrap());
    }
}
