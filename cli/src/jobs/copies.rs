//! Copies of the configuration files in the state directory, one for each content.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Error, ErrorCode, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

/// The directory of the copies, below the state directory. No stanza has a name that begins with a dot.
const DIRECTORY: &str = ".config";
/// The files may contain secrets.
const FILE_MODE: u32 = 0o600;
const PATH_MODE: u32 = 0o700;
/// How long a copy stays that nobody has locked. A process that was started with it locks it before.
const STAYS: Duration = Duration::from_secs(60);

/// See the module documentation.
pub(super) struct ConfigCopies {
    path: PathBuf,
    current: Option<HeldCopy>,
    /// Copies that were replaced, and since when.
    old: BTreeMap<PathBuf, Instant>,
}

/// A copy that stays as long as this value or a clone of it exists.
#[derive(Clone)]
pub(super) struct HeldCopy {
    pub(super) path: PathBuf,
    /// Has a lock, as the processes have that use the copy.
    pub(super) lock: Arc<File>,
}

impl ConfigCopies {
    /// The copies in a state directory.
    pub(super) fn new(state_path: &Path) -> Self {
        ConfigCopies { path: state_path.join(DIRECTORY), current: None, old: BTreeMap::new() }
    }

    /// Writes the current copy. Another one is removed when nobody needs it.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`]
    pub(super) fn keep(&mut self, text: &str) -> Result<HeldCopy> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let path = self.path.join(format!("{:016x}.json", hasher.finish()));
        let known = self.current.take().filter(|known| known.path == path && path.exists());
        let held = known.map_or_else(|| self.write(&path, text), Ok).map_err(|error| {
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", path.display()), error)
        })?;
        self.current = Some(held.clone());
        self.old.remove(&path);
        // Those of earlier daemons, too
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.path() != path {
                self.old.entry(entry.path()).or_insert_with(Instant::now);
            }
        }
        Ok(held)
    }

    fn write(&self, path: &Path, text: &str) -> std::io::Result<HeldCopy> {
        fs::DirBuilder::new().recursive(true).mode(PATH_MODE).create(&self.path)?;
        self.make_private()?;
        // A run may have had it locked since before it was replaced by another
        if let Some(lock) = lock_existing(path, text) {
            return Ok(HeldCopy { path: path.to_owned(), lock: Arc::new(lock) });
        }
        let temporary = path.with_extension("tmp");
        // A left-over may have another mode
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)?;
        Ok(HeldCopy { path: path.to_owned(), lock: Arc::new(file) })
    }

    /// Whoever can write to the directory decides which commands the processes run, so it must be this user's alone.
    fn make_private(&self) -> std::io::Result<()> {
        let found = fs::symlink_metadata(&self.path)?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            let text = format!("'{}' is not a directory of this user", self.path.display());
            return Err(std::io::Error::new(ErrorKind::PermissionDenied, text));
        }
        if found.mode() & 0o777 == PATH_MODE {
            return Ok(());
        }
        fs::set_permissions(&self.path, Permissions::from_mode(PATH_MODE))
    }

    /// Removes copies that nobody needs any more.
    pub(super) fn clean(&mut self) {
        self.clean_after(STAYS);
    }

    fn clean_after(&mut self, stays: Duration) {
        self.old.retain(|path, since| since.elapsed() < stays || !remove_unlocked(path));
    }

    /// Removes all copies that no process has, since nobody is started with them any more. Others are left to the next
    /// daemon.
    pub(super) fn remove_all(&mut self) {
        let current = self.current.take().map(|current| current.path);
        let old = std::mem::take(&mut self.old);
        for path in old.keys().chain(&current) {
            remove_unlocked(path);
        }
        // Empty, or it has what another process needs
        let _ = fs::remove_dir(&self.path);
    }
}

/// Locks a copy that is there already.
fn lock_existing(path: &Path, text: &str) -> Option<File> {
    let is_same = fs::read(path).is_ok_and(|stored| stored == text.as_bytes());
    let file = File::open(path).ok().filter(|_| is_same)?;
    flock(&file, FlockOperation::NonBlockingLockShared).is_ok().then_some(file)
}

/// Removes a copy that nobody has locked. Returns whether it is gone.
fn remove_unlocked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return true };
    let is_free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    is_free && fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_is_private_and_stays_while_it_is_current_or_a_process_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut copies = ConfigCopies::new(dir.path());
        let first = copies.keep("first").unwrap().path;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&first), mode(first.parent().unwrap())), (0o600, 0o700));
        assert_eq!(copies.keep("first").unwrap().path, first);
        let locked = File::open(&first).unwrap();
        flock(&locked, FlockOperation::LockShared).unwrap();
        let second = copies.keep("second").unwrap().path;
        assert_ne!(first, second);
        copies.clean();
        assert!(first.exists());
        copies.clean_after(Duration::ZERO);
        assert!(first.exists(), "a process has it");
        drop(locked);
        copies.clean_after(Duration::ZERO);
        assert!(!first.exists() && second.exists());
        // Back to the first content, by a later daemon, which finds what the first left
        drop(copies);
        let mut copies = ConfigCopies::new(dir.path());
        assert_eq!(copies.keep("first").unwrap().path, first);
        copies.clean_after(Duration::ZERO);
        assert!(first.exists() && !second.exists());
        fs::remove_file(&first).unwrap();
        assert_eq!(copies.keep("first").unwrap().path, first);
        assert!(first.exists());
    }

    #[test]
    fn copy_stays_while_a_run_has_it_whose_command_has_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let mut copies = ConfigCopies::new(dir.path());
        let first = copies.keep("first").unwrap();
        copies.keep("second").unwrap();
        copies.clean_after(Duration::ZERO);
        assert!(first.path.exists());
        // It becomes the current one for a while
        copies.keep("first").unwrap();
        copies.keep("second").unwrap();
        copies.clean_after(Duration::ZERO);
        assert!(first.path.exists());
        let path = first.path.clone();
        drop(first);
        copies.clean_after(Duration::ZERO);
        assert!(!path.exists());
    }

    #[test]
    fn secrets_do_not_stay_after_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let mut copies = ConfigCopies::new(dir.path());
        let [first, second] = ["first", "second"].map(|text| copies.keep(text).unwrap().path);
        // A process goes on after the daemon
        let locked = File::open(&first).unwrap();
        flock(&locked, FlockOperation::LockShared).unwrap();
        copies.remove_all();
        assert!(first.exists() && !second.exists());
        drop(locked);
        let mut copies = ConfigCopies::new(dir.path());
        copies.keep("third").unwrap();
        copies.remove_all();
        assert!(!first.parent().unwrap().exists());
    }

    #[test]
    fn directory_that_others_may_write_to_becomes_private_and_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DIRECTORY);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        ConfigCopies::new(dir.path()).keep("first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let other = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&path, other.path().join(DIRECTORY)).unwrap();
        let error = ConfigCopies::new(other.path()).keep("first").err().unwrap();
        assert_eq!(error.code, ErrorCode::FileWrite);
        assert!(error.to_string().contains("is not a directory of this user"), "{error}");
    }
}
