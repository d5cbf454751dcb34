//! Lock files, which prevent two commands from working on the same stanza at once (pgBackRest `src/common/lock.c`).
//!
//! The lock is an exclusive `flock` on the file. The content only tells others who holds it. rbr and pgBackRest take
//! the same locks, so they exclude each other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use repo_format::layout::Stanza;
pub use repo_format::lock_file::LockType;
use repo_format::lock_file::{LockFile, SIZE_MAX, lock_name};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::progress::percent_hundredths;
use crate::storage::posix::{FILE_MODE, create_path, is_named};
use crate::system_text;
use crate::users::Users;
use crate::{Error, ErrorCode, Result};

/// Progress is written only if it advanced by more than this, in units of 0.01%.
const PERCENT_STEP: u32 = 10;

/// The pause before retrying a lock that another process may hold only briefly.
const TRY_PAUSE: Duration = Duration::from_millis(10);
/// How often a lock is retried if its content does not name a living process. A reader holds a lock briefly, a new
/// holder has not written its content yet, and a child process inherits the lock from its parent until it has started.
/// On a busy host that takes longer, because any of them may wait for a processor.
const TRIES_NO_HOLDER: u32 = 100;
/// How often a lock is retried if its content names a living process. That process most likely holds it, but the id may
/// also belong to another process by now.
const TRIES_HOLDER: u32 = 20;
/// How often invalid content of a lock is read again. pgBackRest truncates the file before each write.
const READ_TRIES: u32 = 100;
/// The same for content that names no living process.
const READ_TRIES_NO_HOLDER: u32 = 10;
/// How often a lock must be found held before its process is signalled.
const HOLDER_LOOKS: u32 = 50;
const READ_PAUSE: Duration = Duration::from_millis(2);
/// The size of a lock file, which exceeds the longest content. Every write pads it with blanks, so that a write never
/// needs new space on the disk, and a reader always sees a complete content.
const CONTENT_SIZE: usize = 192;

/// Creates the id that a process shares with the processes that it starts: the process id and 32 random bits.
///
/// # Errors
/// [`ErrorCode::Kernel`] if the system provides no random bytes.
pub fn new_exec_id() -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|e| Error::new(ErrorCode::Kernel, format!("unable to get random bytes: {}", system_text(&e))))?;
    Ok(format!("{}-{:08x}", std::process::id(), u32::from_be_bytes(random)))
}

/// A held lock file.
#[derive(Debug)]
struct HeldFile {
    repo_key: u32,
    path: PathBuf,
    /// `None` if a related process holds the lock, which is equivalent.
    file: Option<File>,
}

/// The locks of one command, released when dropped.
#[derive(Debug)]
pub struct Lock {
    exec_id: String,
    held: Vec<HeldFile>,
    percent_written: u32,
    /// When the copy began, in seconds since 1970.
    begun: Option<u64>,
    /// Whether the user was warned that progress can't be written.
    warned: bool,
}

/// The locks that a command requests.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest<'a> {
    /// The directory of the lock files.
    pub lock_path: &'a Path,
    /// The stanza.
    pub stanza: &'a Stanza,
    /// The types of lock.
    pub kinds: &'a [LockType],
    /// The repositories.
    pub repo_keys: &'a [u32],
    /// The id that this process shares with the processes that it starts.
    pub exec_id: &'a str,
}

impl Lock {
    /// Takes all requested locks, or none.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] if another process holds one or a file cannot be created, [`ErrorCode::PathCreate`]
    /// if the lock path cannot be created, [`ErrorCode::FileWrite`] if the lock file cannot be written.
    pub fn acquire(request: LockRequest<'_>) -> Result<Self> {
        Self::acquire_within(request, TRIES_HOLDER)
    }

    /// Like [`Lock::acquire`], but returns `None` if another process holds one of the locks.
    ///
    /// # Errors
    /// The same as [`Lock::acquire`] for all other reasons.
    pub fn try_acquire(request: LockRequest<'_>) -> Result<Option<Self>> {
        match Self::acquire_within(request, 0) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if is_would_block(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the locks with these file names, which another host chose, or none.
    ///
    /// # Errors
    /// The same as [`Lock::acquire`].
    pub(crate) fn acquire_named(lock_path: &Path, names: &[String], exec_id: &str) -> Result<Self> {
        let mut lock =
            Lock { exec_id: exec_id.to_owned(), held: Vec::new(), percent_written: 0, begun: None, warned: false };
        for name in names {
            let path = lock_path.join(name);
            let file = open_locked(&path, exec_id, TRIES_HOLDER)?;
            // Progress is not shown on this host
            let held = HeldFile::new(0, path, file);
            held.write(&lock.content()).map_err(|error| held.write_error(error))?;
            lock.held.push(held);
        }
        Ok(lock)
    }

    fn acquire_within(request: LockRequest<'_>, tries_holder: u32) -> Result<Self> {
        let LockRequest { lock_path, stanza, kinds, repo_keys, exec_id } = request;
        let mut lock =
            Lock { exec_id: exec_id.to_owned(), held: Vec::new(), percent_written: 0, begun: None, warned: false };
        for &kind in kinds {
            for &repo_key in repo_keys {
                let path = lock_path.join(lock_name(stanza, kind, repo_key));
                let file = open_locked(&path, exec_id, tries_holder)?;
                let held = HeldFile::new(repo_key, path, file);
                held.write(&lock.content()).map_err(|error| held.write_error(error))?;
                lock.held.push(held);
            }
        }
        Ok(lock)
    }

    /// Shows progress to others in the lock of one repository, if it advanced by more than 0.1% since the last write. A
    /// failure causes one warning: others then see old progress, which is no reason to end the command.
    pub fn update(&mut self, repo_key: u32, size_done: u64, size: u64) {
        let percent = percent_hundredths(size_done, size);
        if percent.saturating_sub(self.percent_written) > PERCENT_STEP {
            self.write_progress(repo_key, percent, size_done, size);
        }
    }

    /// Shows that a copy of `size` bytes begins.
    pub(crate) fn update_begin(&mut self, repo_key: u32, size: u64) {
        self.begun = u64::try_from(jiff::Timestamp::now().as_second()).ok();
        self.write_progress(repo_key, 0, 0, size);
    }

    /// Removes the progress after the copy.
    pub(crate) fn update_clear(&mut self, repo_key: u32) {
        let content = self.content();
        self.write(repo_key, &content);
    }

    /// Returns whether this process itself holds every lock.
    pub fn is_own(&self) -> bool {
        self.held.iter().all(|held| held.file.is_some())
    }

    /// Returns these locks if this process itself holds every one, not a related process.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`], as for a lock of an unrelated process.
    pub fn own(self) -> Result<Self> {
        match self.held.iter().find(|held| held.file.is_none()) {
            Some(held) => Err(acquire_error(&held.path, Errno::WOULDBLOCK)),
            None => Ok(self),
        }
    }

    fn write_progress(&mut self, repo_key: u32, percent: u32, size_done: u64, size: u64) {
        let content = LockFile {
            percent_complete: Some(percent),
            size: Some(size),
            size_complete: Some(size_done),
            begun: self.begun,
            ..self.content()
        };
        self.percent_written = percent;
        self.write(repo_key, &content);
    }

    fn write(&mut self, repo_key: u32, content: &LockFile) {
        for held in self.held.iter().filter(|held| held.repo_key == repo_key) {
            if let Err(error) = held.write(content)
                && !self.warned
            {
                self.warned = true;
                crate::warn!("other processes do not see the progress: {}", held.write_error(error));
            }
        }
    }

    fn content(&self) -> LockFile {
        LockFile {
            exec_id: self.exec_id.clone(),
            percent_complete: None,
            process_id: rustix::process::getpid().as_raw_nonzero().get(),
            size: None,
            size_complete: None,
            begun: None,
        }
    }
}

impl HeldFile {
    fn new(repo_key: u32, path: PathBuf, file: Option<File>) -> Self {
        // Without its inode the file stays behind if the process ends early, which does no harm
        if let Some(Ok(found)) = file.as_ref().map(File::metadata) {
            registered().push(((found.dev(), found.ino()), path.clone()));
        }
        HeldFile { repo_key, path, file }
    }

    fn write(&self, content: &LockFile) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut text = content.serialize();
        text.extend(std::iter::repeat_n(' ', CONTENT_SIZE.saturating_sub(text.len())));
        // Readers stop at the end of the object, so the rest of a longer content does no harm
        file.write_all_at(text.as_bytes(), 0)
    }

    fn write_error(&self, error: io::Error) -> Error {
        Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", self.path.display()), error)
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        // The file is removed while it is locked. A file that cannot be removed stays without a lock, which does no
        // harm
        if is_named(file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
        registered().retain(|(_, path)| *path != self.path);
    }
}

/// The lock files that this process holds, by device and inode.
static REGISTERED: Mutex<Vec<((u64, u64), PathBuf)>> = Mutex::new(Vec::new());

fn registered() -> MutexGuard<'static, Vec<((u64, u64), PathBuf)>> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the lock files of this process, for an exit that does not drop its locks.
pub fn remove_files() {
    remove_files_below(Path::new(""));
}

fn remove_files_below(directory: &Path) {
    for (number, path) in registered().iter().filter(|(_, path)| path.starts_with(directory)) {
        // If somebody removed our file, a new file with this name belongs to another process
        if fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == *number) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a lock file unless a process holds it.
pub(crate) fn remove_unlocked(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    // The file is locked during the removal, so that nobody takes a lock on a file that loses its name
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_named(&file, path).unwrap_or(false) {
        let _ = fs::remove_file(path);
    }
}

/// Opens and locks the file. Returns `None` if a related process holds it. If the content names a living process, the
/// lock is retried `tries_holder` times.
fn open_locked(path: &Path, exec_id: &str, tries_holder: u32) -> Result<Option<File>> {
    let failed = |error: io::Error| acquire_error(path, Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let mut tries = 0;
    loop {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
        let file = match open() {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    create_path(parent)?;
                }
                open().map_err(failed)?
            }
            file => file.map_err(failed)?,
        };
        if let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let holder = read_content(&file);
            if holder.as_ref().is_some_and(|holder| holder.exec_id == exec_id) {
                return Ok(None);
            }
            let tries_max = if holder.is_some_and(|holder| is_alive(&holder)) { tries_holder } else { TRIES_NO_HOLDER };
            if errno != Errno::WOULDBLOCK || tries >= tries_max {
                return Err(acquire_error(path, errno));
            }
            tries += 1;
            std::thread::sleep(TRY_PAUSE);
            continue;
        }
        // The previous holder may have removed the file between open and lock; then the lock is on a file that nobody
        // else sees
        if is_named(&file, path).map_err(failed)? {
            return Ok(Some(file));
        }
    }
}

/// Returns whether the process that a lock names is running, as far as this host can tell.
fn is_alive(holder: &LockFile) -> bool {
    let process = Some(holder.process_id).filter(|id| *id > 0).and_then(Pid::from_raw);
    process.is_some_and(|process| test_kill_process(process) != Err(Errno::SRCH))
}

fn read_content(file: &File) -> Option<LockFile> {
    let mut bytes = vec![0; SIZE_MAX];
    // A single call, so that no write falls between two parts
    let size = file.read_at(&mut bytes, 0).ok()?;
    LockFile::parse(&bytes[..size]).ok()
}

fn acquire_error(path: &Path, errno: Errno) -> Error {
    let full = io::Error::from(errno).to_string();
    let text = full.rsplit_once(" (os error").map_or(full.as_str(), |(text, _)| text);
    let failed =
        Error::new(ErrorCode::LockAcquire, format!("unable to acquire lock on file '{}': {text}", path.display()));
    match errno {
        Errno::WOULDBLOCK => {
            failed.hint("is another pgBackRest process running?").cause(io::Error::from(ErrorKind::WouldBlock))
        }
        Errno::ACCESS => {
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

/// What a lock file tells processes that do not hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockStatus {
    /// There is no file, or it can't be opened.
    Missing,
    /// There is a file, but its process is gone.
    Unlocked,
    /// The lock is held, but its content can't be read.
    Invalid,
    /// The lock is held by this process.
    Valid(LockFile),
}

/// Reads the lock of a stanza, type and repository.
pub(crate) fn read_status(lock_path: &Path, stanza: &Stanza, kind: LockType, repo_key: u32) -> LockStatus {
    read_status_file(&lock_path.join(lock_name(stanza, kind, repo_key)))
}

/// Reads a lock file.
pub(crate) fn read_status_file(path: &Path) -> LockStatus {
    let Ok(file) = File::open(path) else { return LockStatus::Missing };
    let mut status = LockStatus::Invalid;
    for attempt in 0..READ_TRIES {
        if attempt > 0 {
            std::thread::sleep(READ_PAUSE);
        }
        // HeldFile only briefly: closing the file releases it. Shared, so that two readers do not take each other for the
        // holder
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return LockStatus::Unlocked;
        }
        // The holder is just writing
        let Some(content) = read_content(&file) else { continue };
        // Without a living process, another reader has a file that was left over, or the holder is on another host
        let is_sure = is_alive(&content) || attempt >= READ_TRIES_NO_HOLDER;
        status = LockStatus::Valid(content);
        if is_sure {
            break;
        }
    }
    status
}

/// Reads a lock file until it is certain that a process holds it. A reader may lock the file for a moment, and the file
/// may contain the process id of a dead process, which now belongs to another one.
pub(crate) fn read_holder(path: &Path) -> LockStatus {
    for _ in 1..HOLDER_LOOKS {
        let status = read_status_file(path);
        if !matches!(status, LockStatus::Valid(_)) {
            return status;
        }
        std::thread::sleep(READ_PAUSE);
    }
    read_status_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza() -> Stanza {
        "main".parse::<Stanza>().unwrap()
    }

    fn acquire(dir: &Path, kinds: &[LockType], keys: &[u32], exec_id: &str) -> Result<Lock> {
        Lock::acquire(LockRequest { lock_path: dir, stanza: &stanza(), kinds, repo_keys: keys, exec_id })
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
        assert!(path.exists());
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
        let request = LockRequest {
            lock_path: dir.path(),
            stanza: &stanza(),
            kinds: &[LockType::Backup],
            repo_keys: &[1],
            exec_id: "2-00000000",
        };
        assert!(Lock::try_acquire(request).unwrap().is_none());
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

    /// Holds a lock as a reader does, for as long as such a reader may wait for a processor.
    fn reader_holds(path: PathBuf, operation: FlockOperation) -> std::thread::JoinHandle<()> {
        let reading = File::open(path).unwrap();
        flock(&reading, operation).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(reading);
        })
    }

    #[test]
    fn acquire_while_somebody_reads_a_lock_that_was_left_over_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-backup-1.lock");
        // Of a dead process, and of one whose id another process has by now
        for process in [i32::MAX, 1] {
            for operation in [FlockOperation::LockExclusive, FlockOperation::LockShared] {
                fs::write(&path, format!(r#"{{"execId":"7-00000000","pid":{process}}}"#)).unwrap();
                let reader = reader_holds(path.clone(), operation);
                acquire(dir.path(), &[LockType::Backup], &[1], "1-00000000").unwrap();
                reader.join().unwrap();
            }
        }
    }

    #[test]
    fn readers_at_the_same_time_do_not_take_each_other_for_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-backup-1.lock");
        fs::write(&path, r#"{"execId":"7-00000000","pid":1}"#).unwrap();
        let other = File::open(&path).unwrap();
        flock(&other, FlockOperation::LockShared).unwrap();
        assert_eq!(read_status_file(&path), LockStatus::Unlocked);
    }

    #[test]
    fn acquire_in_a_lock_path_that_cannot_be_made_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let path = dir.path().join("file").join("lock");
        let error = acquire(&path, &[LockType::Backup], &[1], "1-00000000").unwrap_err();
        // The file in the way is seen when the lock file is opened
        assert_eq!(error.code, ErrorCode::LockAcquire);
        let path = dir.path().join("link").join("lock");
        std::os::unix::fs::symlink(dir.path().join("missing"), dir.path().join("link")).unwrap();
        let error = acquire(&path, &[LockType::Backup], &[1], "1-00000000").unwrap_err();
        assert_eq!(error.code, ErrorCode::PathCreate);
        assert!(error.message.contains(&format!("unable to create path '{}'", path.display())), "{error}");
    }

    #[test]
    fn content_is_whole_at_every_moment_of_an_update() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = acquire(dir.path(), &[LockType::Backup], &[1], "1-00000000").unwrap();
        let path = dir.path().join("main-backup-1.lock");
        let size = fs::metadata(&path).unwrap().len();
        let steps: [fn(&mut Lock); 3] = [
            |lock| lock.update_begin(1, u64::MAX),
            |lock| lock.update(1, u64::MAX, u64::MAX),
            |lock| lock.update_clear(1),
        ];
        for step in steps {
            step(&mut lock);
            // A reader that knows the earlier size must not see half of a longer content
            assert_eq!(fs::metadata(&path).unwrap().len(), size);
            LockFile::parse(&fs::read(&path).unwrap()).unwrap();
        }
    }

    #[test]
    fn progress_that_cannot_be_written_does_not_end_the_command() {
        // As a file on a full disk
        let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let held = HeldFile { repo_key: 1, path: PathBuf::from("/dev/full-1"), file: Some(full) };
        let mut lock =
            Lock { exec_id: "1-0".to_owned(), held: vec![held], percent_written: 0, begun: None, warned: false };
        lock.update_begin(1, 100);
        lock.update(1, 50, 100);
        assert!(lock.warned);
    }

    #[test]
    fn content_that_is_just_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-backup-1.lock");
        // As pgBackRest writes: first nothing, then all
        let file = File::create(&path).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            file.write_all_at(format!(r#"{{"execId":"1-0","pid":{}}}"#, std::process::id()).as_bytes(), 0).unwrap();
            file
        });
        // A writer that waits long for a processor needs some more looks. Without the pauses of each they are over before it writes
        let status = (0..20).map(|_| read_status_file(&path)).find(|status| matches!(status, LockStatus::Valid(_)));
        assert!(status.is_some());
        drop(writer.join().unwrap());
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
        lock.update_begin(1, 100_000);
        assert_eq!(status(), (Some(0), Some(100_000), Some(0)));
        lock.update(1, 100, 100_000);
        assert_eq!(status().2, Some(0));
        lock.update(1, 110, 100_000);
        assert_eq!(status(), (Some(11), Some(100_000), Some(110)));
        lock.update_clear(1);
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

    #[test]
    fn end_without_dropping_a_lock_removes_its_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let kept = acquire(dir.path(), &[LockType::Archive], &[1, 2], "1-00000000").unwrap();
        let [first, second] = [1, 2].map(|key| dir.path().join(format!("main-archive-{key}.lock")));
        // The second file was removed, and another process now uses its name
        fs::remove_file(&second).unwrap();
        fs::write(&second, "").unwrap();
        remove_files_below(dir.path());
        assert!(!first.exists() && second.exists());
        drop(kept);
        assert!(second.exists());
        let gone = acquire(dir.path(), &[LockType::Archive], &[1], "1-00000000").unwrap();
        drop(gone);
        fs::write(&first, "").unwrap();
        remove_files_below(dir.path());
        assert!(first.exists());
    }

    #[test]
    fn lock_file_of_a_holder_is_not_removed_as_one_that_was_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-archive-1.lock");
        let lock = acquire(dir.path(), &[LockType::Archive], &[1], "1-00000000").unwrap();
        remove_unlocked(&path);
        assert!(path.exists());
        drop(lock);
        fs::write(&path, "").unwrap();
        remove_unlocked(&path);
        assert!(!path.exists());
    }
}
