//! The scratch directory of a test restore, and the removal of those that dead runs left behind.
//!
//! A run holds a lock on a file in its directory. The kernel releases it however the process ends, so a directory whose
//! lock is free belongs to nobody. Directories are created and removed while the run holds the lock of the scratch path
//! itself, so that no run takes the new directory of another for one that was left behind.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::lock::new_exec_id;
use crate::{CancelToken, Error, ErrorCode, Result, ending, info, warn};

/// The beginning of the name of every scratch directory.
const PREFIX: &str = "rbr-test-restore-";
/// The beginning of the name of the scratch path's lock. Each user has an own one, since none can open another's.
const PATH_LOCK_PREFIX: &str = ".rbr-test-restore-";
/// The lock of a run, in its directory.
const RUN_LOCK: &str = "run.lock";
/// How long another run may take to create its directory.
const PATH_LOCK_MAX: Duration = Duration::from_secs(30);
/// How long a server of a dead run may take to end after SIGQUIT.
const SERVER_END_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
/// The longest path of a Unix socket, in bytes, on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The name that PostgreSQL gives its socket. The port is part of it only.
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// The scratch directory of one run. It is removed when the value is dropped.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    /// Held until the directory is gone.
    _lock: File,
}

impl Scratch {
    /// Removes what dead runs of this user left in the scratch path, with their servers, and creates a directory there.
    ///
    /// # Errors
    /// The scratch path is missing, can't be written, or is too long for a socket; a leftover can't be removed; a
    /// signal arrived.
    pub fn create(scratch_path: &Path, cancel: &CancelToken) -> Result<Self> {
        let missing = |error: std::io::Error| {
            let text = format!("unable to open scratch path '{}'", scratch_path.display());
            let is_missing = error.kind() == ErrorKind::NotFound;
            Error::from_io(if is_missing { ErrorCode::PathMissing } else { ErrorCode::PathOpen }, text, error)
        };
        // Links in it would make names differ from those that processes show
        let scratch_path = &scratch_path.canonicalize().map_err(missing)?;
        let _path_lock = lock_path(scratch_path, cancel)?;
        remove_leftovers(scratch_path, cancel)?;
        let root = scratch_path.join(format!("{PREFIX}{}", new_exec_id()?));
        let socket = root.join("socket").join(SOCKET_NAME);
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX || root.to_str().is_none() {
            let text = format!("scratch path '{}' is too long for the socket of a server", scratch_path.display());
            return Err(Error::new(ErrorCode::OptionInvalidValue, text)
                .hint("the path of a socket has at most 107 bytes, of which PostgreSQL and rbr need 60."));
        }
        let make = |path: &Path| {
            DirBuilder::new().mode(0o700).create(path).map_err(|error| {
                Error::from_io(ErrorCode::PathCreate, format!("unable to create path '{}'", path.display()), error)
            })
        };
        make(&root)?;
        let lock = open_lock(&root.join(RUN_LOCK))?;
        let scratch = Scratch { root, _lock: lock };
        if !try_lock(&scratch._lock)? {
            return Err(Error::new(ErrorCode::LockAcquire, format!("'{}' is locked", scratch.root.display())));
        }
        for name in ["data", "tablespace", "socket", "lock"] {
            make(&scratch.root.join(name))?;
        }
        Ok(scratch)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The parent of all tablespaces.
    pub fn tablespaces(&self) -> PathBuf {
        self.root.join("tablespace")
    }

    /// The directory of the server's socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// The lock path of processes that belong to the run.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// A file directly in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file directly in the directory and returns its path.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`]
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).map_err(|error| {
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", path.display()), error)
        })?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _cleaning = ending::cleaning();
        if let Err(error) = remove_dir(&self.root) {
            warn!("{error}\nHINT: the next test-restore in this scratch path removes it.");
        }
    }
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    // Others may write to the scratch path, and a link of theirs must not make a file elsewhere
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path).map_err(|error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to open lock file '{}'", path.display()), error)
    })
}

/// Returns whether this process has the lock now.
fn try_lock(file: &File) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(Error::from_io(ErrorCode::LockAcquire, "unable to lock the scratch path", error.into())),
    }
}

fn path_lock_name() -> String {
    format!("{PATH_LOCK_PREFIX}{}.lock", rustix::process::geteuid().as_raw())
}

/// Takes this user's lock of the scratch path. It stays in the path, since others may wait for the same file.
fn lock_path(scratch_path: &Path, cancel: &CancelToken) -> Result<File> {
    let path = scratch_path.join(path_lock_name());
    let file = open_lock(&path)?;
    let end = Instant::now() + PATH_LOCK_MAX;
    while !try_lock(&file)? {
        if Instant::now() >= end {
            let text = format!("unable to acquire lock on file '{}'", path.display());
            return Err(Error::new(ErrorCode::LockAcquire, text).hint("is another test-restore cleaning up there?"));
        }
        cancel.sleep(PAUSE)?;
    }
    Ok(file)
}

/// Removes the directories of dead runs of this user. Those of other users are not touched.
fn remove_leftovers(scratch_path: &Path, cancel: &CancelToken) -> Result<()> {
    let failed = |error| {
        let text = format!("unable to list path '{}'", scratch_path.display());
        Error::from_io(ErrorCode::PathOpen, text, error)
    };
    for entry in fs::read_dir(scratch_path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let root = entry.path();
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && fs::symlink_metadata(&root)
                .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw());
        if !is_ours {
            continue;
        }
        // Without the file the run died before it locked it
        let lock = match OpenOptions::new().write(true).open(root.join(RUN_LOCK)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if let Some(lock) = &lock
            && !try_lock(lock)?
        {
            continue;
        }
        info!("remove '{}', which an earlier test-restore left behind", root.display());
        stop_server(&root.join("data"), cancel)?;
        remove_dir(&root)?;
    }
    Ok(())
}

fn remove_dir(root: &Path) -> Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let text = format!("unable to remove path '{}'", root.display());
            Err(Error::from_io(ErrorCode::PathRemove, text, error))
        }
        _ => Ok(()),
    }
}

/// Ends the server of a dead run, if it still runs. Only a process whose working directory is this data directory is
/// signalled.
fn stop_server(data: &Path, cancel: &CancelToken) -> Result<()> {
    let Some(pid) = server_process(data) else { return Ok(()) };
    info!("stop PostgreSQL process {} in '{}'", pid.as_raw_nonzero(), data.display());
    let begin = Instant::now();
    let mut signal = Signal::QUIT;
    while is_server(pid, data) {
        // It may have ended meanwhile
        let _ = kill_process(pid, signal);
        let end = Instant::now() + SERVER_END_MAX;
        while is_server(pid, data) && Instant::now() < end {
            cancel.sleep(PAUSE)?;
        }
        if is_server(pid, data) && begin.elapsed() > SERVER_END_MAX * 3 {
            let text = format!("PostgreSQL process {} in '{}' does not end", pid.as_raw_nonzero(), data.display());
            return Err(Error::new(ErrorCode::PgRunning, text));
        }
        signal = Signal::KILL;
    }
    // Its children end with it, but not at the same moment
    let end = Instant::now() + SERVER_END_MAX;
    while any_process_in(data) && Instant::now() < end {
        cancel.sleep(PAUSE)?;
    }
    Ok(())
}

/// Returns the process in `postmaster.pid`, if it is a server of this data directory.
fn server_process(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    // A negative number is that of a single-user session
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    Pid::from_raw(number.checked_abs()?).filter(|&pid| is_server(pid, data))
}

fn is_server(pid: Pid, data: &Path) -> bool {
    test_kill_process(pid).is_ok() && works_in(&pid.as_raw_nonzero().to_string(), data)
}

/// Returns whether the working directory of a process is this directory.
fn works_in(process: &str, data: &Path) -> bool {
    let cwd = fs::read_link(Path::new("/proc").join(process).join("cwd"));
    // A zombie has none
    cwd.is_ok_and(|cwd| cwd == data)
}

fn any_process_in(data: &Path) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let name = process.file_name();
        name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && works_in(name, data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| *name != path_lock_name());
        names.sort();
        names
    }

    #[test]
    fn directory_of_a_run_is_private_and_disappears_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(dir.path(), &CancelToken::new()).unwrap();
        assert_eq!(fs::metadata(&scratch.root).unwrap().mode() & 0o777, 0o700);
        assert_eq!(names(dir.path()).len(), 1);
        drop(scratch);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn directory_of_a_running_run_stays_and_that_of_a_dead_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let alive = Scratch::create(dir.path(), &CancelToken::new()).unwrap();
        let dead = dir.path().join(format!("{PREFIX}1-dead"));
        fs::create_dir_all(dead.join("data/base")).unwrap();
        fs::write(dead.join(RUN_LOCK), "").unwrap();
        let unlocked = dir.path().join(format!("{PREFIX}2-before-its-lock"));
        fs::create_dir(&unlocked).unwrap();
        let second = Scratch::create(dir.path(), &CancelToken::new()).unwrap();
        let mut expected: Vec<String> =
            [&alive, &second].map(|scratch| scratch.root.file_name().unwrap().to_str().unwrap().to_owned()).into();
        expected.sort();
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn link_and_foreign_names_are_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(format!("{PREFIX}link"))).unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        // A link in a leftover is removed, and not what it leads to
        let dead = dir.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dead.join("tablespace")).unwrap();
        drop(Scratch::create(dir.path(), &CancelToken::new()).unwrap());
        assert_eq!(names(dir.path()), ["data", &format!("{PREFIX}link")]);
        assert_eq!(fs::read_to_string(elsewhere.path().join("file")).unwrap(), "kept");
    }

    #[test]
    fn lock_of_another_user_or_a_link_in_its_place_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let other = format!("{PATH_LOCK_PREFIX}{}.lock", rustix::process::geteuid().as_raw() + 1);
        let held = open_lock(&dir.path().join(&other)).unwrap();
        assert!(try_lock(&held).unwrap());
        drop(Scratch::create(dir.path(), &CancelToken::new()).unwrap());

        let lock = dir.path().join(path_lock_name());
        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(dir.path().join("made"), &lock).unwrap();
        assert!(Scratch::create(dir.path(), &CancelToken::new()).is_err());
        assert!(!dir.path().join("made").exists());
    }

    #[test]
    fn process_with_another_working_directory_is_no_server_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        // This process, which a wrong decision would end
        fs::write(dir.path().join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(server_process(dir.path()), None);
        fs::write(dir.path().join("postmaster.pid"), "no number").unwrap();
        assert_eq!(server_process(dir.path()), None);
    }

    #[test]
    fn scratch_path_that_is_missing_or_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert_eq!(Scratch::create(&missing, &CancelToken::new()).unwrap_err().code, ErrorCode::PathMissing);
        let long = dir.path().join("x".repeat(90));
        fs::create_dir(&long).unwrap();
        let error = Scratch::create(&long, &CancelToken::new()).unwrap_err();
        assert_eq!(error.code, ErrorCode::OptionInvalidValue);
        assert!(names(&long).is_empty());
    }
}
