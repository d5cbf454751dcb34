//! Copies of the configuration files in the state directory, one for each content.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::{Error, ErrorCode, Result};
use rustix::fs::{FlockOperation, flock};

/// The directory of the copies, below the state directory. No stanza has a name that begins with a dot.
const DIRECTORY: &str = ".config";
/// The files may contain secrets.
const FILE_MODE: u32 = 0o600;
const PATH_MODE: u32 = 0o700;
/// How long a copy stays that was replaced. A process that was started with it locks it before.
const STAYS: Duration = Duration::from_secs(60);

/// See the module documentation.
pub(super) struct ConfigCopies {
    path: PathBuf,
    current: Option<PathBuf>,
    /// Copies that were replaced, and since when.
    old: BTreeMap<PathBuf, Instant>,
}

impl ConfigCopies {
    /// The copies in a state directory.
    pub(super) fn new(state_path: &Path) -> Self {
        ConfigCopies { path: state_path.join(DIRECTORY), current: None, old: BTreeMap::new() }
    }

    /// Writes the current copy and returns its path. Another one is removed when no process needs it.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`]
    pub(super) fn keep(&mut self, text: &str) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let path = self.path.join(format!("{:016x}.json", hasher.finish()));
        let is_there = self.current.as_ref() == Some(&path) && path.exists();
        if !is_there {
            self.write(&path, text).map_err(|error| {
                Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", path.display()), error)
            })?;
        }
        self.current = Some(path.clone());
        self.old.remove(&path);
        // Those of earlier daemons, too
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.path() != path {
                self.old.entry(entry.path()).or_insert_with(Instant::now);
            }
        }
        Ok(path)
    }

    fn write(&self, path: &Path, text: &str) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(PATH_MODE).create(&self.path)?;
        let temporary = path.with_extension("tmp");
        // A left-over may have another mode
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    }

    /// Removes copies that no process needs any more.
    pub(super) fn clean(&mut self) {
        self.clean_after(STAYS);
    }

    fn clean_after(&mut self, stays: Duration) {
        self.old.retain(|path, since| {
            if since.elapsed() < stays {
                return true;
            }
            let Ok(file) = File::open(path) else { return false };
            let is_free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            !is_free || fs::remove_file(path).is_err()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn copy_is_private_and_stays_while_it_is_current_or_a_process_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut copies = ConfigCopies::new(dir.path());
        let first = copies.keep("first").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&first), mode(first.parent().unwrap())), (0o600, 0o700));
        assert_eq!(copies.keep("first").unwrap(), first);
        let locked = File::open(&first).unwrap();
        flock(&locked, FlockOperation::LockShared).unwrap();
        let second = copies.keep("second").unwrap();
        assert_ne!(first, second);
        copies.clean();
        assert!(first.exists());
        copies.clean_after(Duration::ZERO);
        assert!(first.exists(), "a process has it");
        drop(locked);
        copies.clean_after(Duration::ZERO);
        assert!(!first.exists() && second.exists());
        // Back to the first content, by a later daemon, which finds what the first left
        let mut copies = ConfigCopies::new(dir.path());
        assert_eq!(copies.keep("first").unwrap(), first);
        copies.clean_after(Duration::ZERO);
        assert!(first.exists() && !second.exists());
        fs::remove_file(&first).unwrap();
        assert_eq!(copies.keep("first").unwrap(), first);
        assert!(first.exists());
    }
}
