//! Lock files, which keep two commands from working on the same stanza at once (pgBackRest `src/common/lock.c`).
//!
//! The lock is an exclusive `flock` on the file; its content only tells others who holds it. Both programs take the same
//! locks, so they exclude each other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use repo_format::layout::Stanza;
pub use repo_format::lock_file::LockType;
use repo_format::lock_file::{LockFile, SIZE_MAX, lock_name};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::progress::percent_hundredths;
use crate::storage::posix::{FILE_MODE, create_path, is_named};
use crate::users::Users;
use crate::{Error, ErrorCode, Result};

/// Progress is written only when it moved by more than this, in units of 0.01%.
const PERCENT_STEP: u32 = 10;

/// How often a lock is tried whose holder has not written who it is, and the pause between. Those who only look at a lock hold
/// it for a moment, so does a holder that has yet to write, and so does a process that a holder is just starting. On a busy
/// machine that moment is long: any of them may have to wait for a processor in it.
const UNNAMED_TRIES: u32 = 100;
const UNNAMED_PAUSE: Duration = Duration::from_millis(10);

/// Makes the id that a process shares with those it starts: the process id and 32 random bits.
///
/// # Errors
/// [`ErrorCode::Kernel`] if the system gives no random bytes.
pub fn new_exec_id() -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|e| Error::new(ErrorCode::Kernel, format!("unable to get random bytes: {e}")))?;
    Ok(format!("{}-{:08x}", std::process::id(), u32::from_be_bytes(random)))
}

/// One lock file that is held.
#[derive(Debug)]
struct Held {
    repo_key: u32,
    path: PathBuf,
    /// `None` when a process of our own family holds the lock, which is as good.
    file: Option<File>,
}

/// The locks of one command, released when dropped.
#[derive(Debug)]
pub struct Lock {
    exec_id: String,
    held: Vec<Held>,
    percent_written: u32,
}

impl Lock {
    /// Takes the locks of these types on these repositories, all or none.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] when another process holds one or a file can't be made.
    pub fn acquire(
        lock_path: &Path,
        stanza: &Stanza,
        kinds: &[LockType],
        repo_keys: &[u32],
        exec_id: &str,
    ) -> Result<Self> {
        let mut lock = Lock { exec_id: exec_id.to_owned(), held: Vec::new(), percent_written: 0 };
        for &kind in kinds {
            for &repo_key in repo_keys {
                let path = lock_path.join(lock_name(stanza, kind, repo_key));
                let file = open_locked(&path, exec_id).map_err(|error| acquire_error(&path, &error))?;
                let mut held = Held { repo_key, path, file };
                held.write(&lock.content())?;
                lock.held.push(held);
            }
        }
        Ok(lock)
    }

    /// As [`Lock::acquire`], but `None` when another process holds one.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] when a file can't be made.
    pub fn try_acquire(
        lock_path: &Path,
        stanza: &Stanza,
        kinds: &[LockType],
        repo_keys: &[u32],
        exec_id: &str,
    ) -> Result<Option<Self>> {
        match Self::acquire(lock_path, stanza, kinds, repo_keys, exec_id) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if is_would_block(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Shows progress to others in the lock of one repository. Written when it moved by more than 0.1% since the last time.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`].
    pub fn update(&mut self, repo_key: u32, size_done: u64, size: u64) -> Result<()> {
        let percent = percent_hundredths(size_done, size);
        if percent.saturating_sub(self.percent_written) > PERCENT_STEP {
            self.write_progress(repo_key, percent, size_done, size)?;
        }
        Ok(())
    }

    /// Shows that a copy of `size` bytes begins.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`].
    pub fn update_begin(&mut self, repo_key: u32, size: u64) -> Result<()> {
        self.write_progress(repo_key, 0, 0, size)
    }

    /// Takes the progress away, for what comes after the copy.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`].
    pub fn update_clear(&mut self, repo_key: u32) -> Result<()> {
        let content = self.content();
        self.write(repo_key, &content)
    }

    /// Whether every lock is held by this process itself.
    pub fn is_own(&self) -> bool {
        self.held.iter().all(|held| held.file.is_some())
    }

    /// These locks if every one is held by this process itself, not by another of its family.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] as for a lock that a stranger holds.
    pub fn own(self) -> Result<Self> {
        match self.held.iter().find(|held| held.file.is_none()) {
            Some(held) => Err(acquire_error(&held.path, &Errno::WOULDBLOCK.into())),
            None => Ok(self),
        }
    }

    fn write_progress(&mut self, repo_key: u32, percent: u32, size_done: u64, size: u64) -> Result<()> {
        let content = LockFile {
            percent_complete: Some(percent),
            size: Some(size),
            size_complete: Some(size_done),
            ..self.content()
        };
        self.percent_written = percent;
        self.write(repo_key, &content)
    }

    fn write(&mut self, repo_key: u32, content: &LockFile) -> Result<()> {
        self.held.iter_mut().filter(|held| held.repo_key == repo_key).try_for_each(|held| held.write(content))
    }

    fn content(&self) -> LockFile {
        LockFile {
            exec_id: self.exec_id.clone(),
            percent_complete: None,
            process_id: rustix::process::getpid().as_raw_nonzero().get(),
            size: None,
            size_complete: None,
        }
    }
}

impl Held {
    fn write(&mut self, content: &LockFile) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut write = || -> io::Result<()> {
            file.seek(SeekFrom::Start(0))?;
            file.set_len(0)?;
            file.write_all(content.serialize().as_bytes())
        };
        write()
            .map_err(|e| Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", self.path.display()), e))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Removed while still locked, and not when another file has the name since somebody removed ours: that one's lock is
        // another process'. If it can't be removed it stays as a file without a lock, which harms nobody
        if self.file.as_ref().is_some_and(|file| is_named(file, &self.path).unwrap_or(false)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens and locks the file; `None` when our own family holds it.
fn open_locked(path: &Path, exec_id: &str) -> io::Result<Option<File>> {
    let mut unnamed = 0;
    loop {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
        let file = match open() {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    create_path(parent).map_err(io::Error::from)?;
                }
                open()?
            }
            file => file?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(e) => match read_content(&file) {
                Some(holder) if holder.exec_id == exec_id => return Ok(None),
                None if e == Errno::WOULDBLOCK && unnamed < UNNAMED_TRIES => {
                    unnamed += 1;
                    std::thread::sleep(UNNAMED_PAUSE);
                    continue;
                }
                _ => return Err(e.into()),
            },
        }
        // The holder before us may have removed the file between our open and our lock; then the lock is on a file that
        // nobody else sees
        if is_named(&file, path)? {
            return Ok(Some(file));
        }
    }
}

fn read_content(file: &File) -> Option<LockFile> {
    let mut bytes = Vec::new();
    file.take(SIZE_MAX as u64).read_to_end(&mut bytes).ok()?;
    LockFile::parse(&bytes).ok()
}

fn acquire_error(path: &Path, error: &io::Error) -> Error {
    let full = error.to_string();
    let text = full.rsplit_once(" (os error").map_or(full.as_str(), |(text, _)| text);
    let failed =
        Error::new(ErrorCode::LockAcquire, format!("unable to acquire lock on file '{}': {text}", path.display()));
    match error.kind() {
        ErrorKind::WouldBlock => {
            failed.hint("is another pgBackRest process running?").cause(io::Error::from(ErrorKind::WouldBlock))
        }
        ErrorKind::PermissionDenied => {
            let users = Users::new();
            let name = |name: Option<String>| name.unwrap_or_else(|| "[unknown]".to_owned());
            failed.hint(format!(
                "does '{}:{}' running pgBackRest have permissions on the '{}' file?",
                name(users.current_user()),
                name(users.current_group()),
                path.display()
            ))
        }
        _ => failed,
    }
}

fn is_would_block(error: &Error) -> bool {
    let cause = error.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == ErrorKind::WouldBlock)
}

/// What a lock file tells those who do not hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockStatus {
    /// There is no file, or it can't be opened.
    Missing,
    /// There is a file, but its process is gone.
    Unlocked,
    /// It is held, but its content can't be read.
    Invalid,
    /// It is held by this process.
    Valid(LockFile),
}

/// Looks at the lock of a stanza, type and repository.
pub fn read_status(lock_path: &Path, stanza: &Stanza, kind: LockType, repo_key: u32) -> LockStatus {
    read_status_file(&lock_path.join(lock_name(stanza, kind, repo_key)))
}

/// Looks at a lock file.
pub(crate) fn read_status_file(path: &Path) -> LockStatus {
    let Ok(file) = File::open(path) else { return LockStatus::Missing };
    // Taken for a moment only: closing the file gives it back
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return LockStatus::Unlocked;
    }
    read_content(&file).map_or(LockStatus::Invalid, LockStatus::Valid)
}

/// Whether a process of the same family (with the same exec id) holds the lock on any of these repositories.
pub fn is_held_by(lock_path: &Path, stanza: &Stanza, kind: LockType, repo_keys: &[u32], exec_id: &str) -> bool {
    repo_keys.iter().any(|&key| match read_status(lock_path, stanza, kind, key) {
        LockStatus::Valid(content) => content.exec_id == exec_id,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza() -> Stanza {
        "main".parse::<Stanza>().unwrap()
    }

    fn acquire(dir: &Path, kinds: &[LockType], keys: &[u32], exec_id: &str) -> Result<Lock> {
        Lock::acquire(dir, &stanza(), kinds, keys, exec_id)
    }

    #[test]
    fn acquire_makes_files_and_drop_removes_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = acquire(&path, &LockType::ALL, &[1, 3], "1-00000000").unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "main-archive-1.lock",
                "main-archive-3.lock",
                "main-backup-1.lock",
                "main-backup-3.lock",
                "main-restore-1.lock",
                "main-restore-3.lock"
            ]
        );
        drop(lock);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn drop_leaves_the_lock_of_another_that_has_the_name_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-archive-1.lock");
        let first = acquire(dir.path(), &[LockType::Archive], &[1], "1-00000000").unwrap();
        fs::remove_file(&path).unwrap();
        let second = acquire(dir.path(), &[LockType::Archive], &[1], "2-00000000").unwrap();
        drop(first);
        assert!(is_held_by(dir.path(), &stanza(), LockType::Archive, &[1], "2-00000000"));
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn acquire_held_by_another_fails_and_releases_what_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let _other = acquire(dir.path(), &[LockType::Backup], &[1], "1-00000000").unwrap();
        let error = acquire(dir.path(), &LockType::ALL, &[1], "2-00000000").unwrap_err();
        assert_eq!(error.code, ErrorCode::LockAcquire);
        let path = dir.path().join("main-backup-1.lock");
        assert_eq!(
            error.to_string(),
            format!(
                "unable to acquire lock on file '{}': Resource temporarily unavailable\nHINT: is another pgBackRest process running?",
                path.display()
            )
        );
        assert!(!dir.path().join("main-archive-1.lock").exists());
        assert!(Lock::try_acquire(dir.path(), &stanza(), &[LockType::Backup], &[1], "2-00000000").unwrap().is_none());
    }

    #[test]
    fn acquire_while_somebody_looks_at_the_lock_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        // As `read_status` does with a file that was just made
        let looking = File::create(dir.path().join("main-backup-1.lock")).unwrap();
        flock(&looking, FlockOperation::LockExclusive).unwrap();
        let looker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(looking);
        });
        acquire(dir.path(), &[LockType::Backup], &[1], "1-00000000").unwrap();
        looker.join().unwrap();
    }

    #[test]
    fn acquire_held_by_own_family_succeeds_and_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let main = acquire(dir.path(), &[LockType::Archive], &[1], "1-00000000").unwrap();
        let child = acquire(dir.path(), &[LockType::Archive], &[1], "1-00000000").unwrap();
        assert!(main.is_own() && !child.is_own());
        let error = child.own().unwrap_err();
        assert_eq!(error.code, ErrorCode::LockAcquire);
        assert!(is_would_block(&error), "{error}");
        let main = main.own().unwrap();
        assert!(is_held_by(dir.path(), &stanza(), LockType::Archive, &[2, 1], "1-00000000"));
        assert!(!is_held_by(dir.path(), &stanza(), LockType::Archive, &[1], "2-00000000"));
        drop(main);
    }

    #[test]
    fn update_writes_only_steps_above_a_tenth_percent() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = acquire(dir.path(), &[LockType::Backup], &[1], "1-00000000").unwrap();
        let status = || match read_status(dir.path(), &stanza(), LockType::Backup, 1) {
            LockStatus::Valid(content) => (content.percent_complete, content.size, content.size_complete),
            other => panic!("{other:?}"),
        };
        assert_eq!(status(), (None, None, None));
        lock.update_begin(1, 100_000).unwrap();
        assert_eq!(status(), (Some(0), Some(100_000), Some(0)));
        lock.update(1, 100, 100_000).unwrap();
        assert_eq!(status().2, Some(0));
        lock.update(1, 110, 100_000).unwrap();
        assert_eq!(status(), (Some(11), Some(100_000), Some(110)));
        lock.update_clear(1).unwrap();
        assert_eq!(status(), (None, None, None));
    }

    #[test]
    fn status_of_missing_stale_and_broken_locks() {
        let dir = tempfile::tempdir().unwrap();
        let status = || read_status(dir.path(), &stanza(), LockType::Backup, 1);
        assert_eq!(status(), LockStatus::Missing);
        let path = dir.path().join("main-backup-1.lock");
        fs::write(&path, "{}").unwrap();
        assert_eq!(status(), LockStatus::Unlocked);
        let file = File::open(&path).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        assert_eq!(status(), LockStatus::Invalid);
    }

    #[test]
    fn exec_id_has_pid_and_eight_hex_digits() {
        let id = new_exec_id().unwrap();
        let (pid, random) = id.split_once('-').unwrap();
        assert_eq!(pid, std::process::id().to_string());
        assert_eq!(random.len(), 8);
        assert!(random.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
