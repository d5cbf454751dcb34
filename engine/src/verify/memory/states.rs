//! The sizes and times of the stored files of a directory.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use repo_format::layout::RepoPath;

/// The size and time that a repository shows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) struct StoredState {
    /// In bytes.
    pub size: u64,
    /// Seconds since the epoch.
    pub modified: i64,
}

/// The stored files of a directory.
#[derive(Default)]
pub(in crate::verify) struct StoredStates {
    hasher: RandomState,
    /// By the hash of the path. A million files must not use much memory.
    states: HashMap<u64, StoredState>,
}

impl StoredStates {
    /// The files of a directory: path below it, size in bytes, time in seconds since the epoch.
    pub fn new(dir: &RepoPath, files: impl Iterator<Item = (impl AsRef<str>, u64, i64)>) -> Self {
        let mut all = StoredStates::default();
        let mut path = format!("{}/", dir.as_str());
        let start = path.len();
        for (name, size, modified) in files {
            path.truncate(start);
            path.push_str(name.as_ref());
            all.states.insert(all.hasher.hash_one(path.as_str()), StoredState { size, modified });
        }
        all
    }

    /// Returns what the repository shows of a file; `None` if it is missing or elsewhere.
    pub fn of(&self, path: &RepoPath) -> Option<StoredState> {
        self.states.get(&self.hasher.hash_one(path.as_str())).copied()
    }
}
