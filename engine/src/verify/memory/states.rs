//! The sizes and times of the stored files of a directory.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use repo_format::layout::RepoPath;

use crate::storage::{EntryKind, FileSize, RepoStorage};

/// Files that are looked up one by one and not found. The rest of a directory that is gone is not worth the requests.
const MISSES_MAX: u32 = 1000;

/// The size and time that a repository shows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) struct StoredState {
    /// In bytes.
    pub size: u64,
    /// Seconds since the epoch.
    pub modified: i64,
}

/// What a repository shows of a file before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum Shown {
    Listed(StoredState),
    /// It is not there.
    Missing,
    /// Its directory can't be listed, or it is behind a link.
    Unknown,
}

impl Shown {
    /// The size and time, as far as they are known.
    pub fn state(self) -> Option<StoredState> {
        match self {
            Shown::Listed(state) => Some(state),
            Shown::Missing | Shown::Unknown => None,
        }
    }
}

/// The stored files of the directories that were listed.
#[derive(Default)]
pub(in crate::verify) struct StoredStates {
    hasher: RandomState,
    /// By the hash of the path. A million files must not use much memory.
    states: HashMap<u64, Shown>,
    /// The directories, and whether they could be listed.
    dirs: Vec<(String, bool)>,
    misses: u32,
}

impl StoredStates {
    /// Adds a directory that could be listed: the files below it.
    pub fn add(&mut self, dir: &RepoPath, files: impl Iterator<Item = FileSize>) {
        let mut path = format!("{}/", dir.as_str());
        let start = path.len();
        self.dirs.push((path.clone(), true));
        for FileSize { path: name, size, modified } in files {
            path.truncate(start);
            path.push_str(&name);
            self.states.insert(self.hasher.hash_one(path.as_str()), Shown::Listed(StoredState { size, modified }));
        }
    }

    /// Adds a directory that can't be listed.
    pub fn add_unlisted(&mut self, dir: &RepoPath) {
        self.dirs.push((format!("{}/", dir.as_str()), false));
    }

    /// Returns whether the directory of a file was added.
    pub fn has_dir_of(&self, path: &RepoPath) -> bool {
        self.is_listed(path).is_some()
    }

    /// Whether the directory of a file could be listed; `None` if it was not added.
    fn is_listed(&self, path: &RepoPath) -> Option<bool> {
        self.dirs.iter().find(|(dir, _)| path.as_str().starts_with(dir.as_str())).map(|(_, is_listed)| *is_listed)
    }

    /// Returns what the repository shows of a file. A list contains no links, so a file that it lacks is looked up.
    pub fn of(&mut self, storage: &dyn RepoStorage, path: &RepoPath) -> Shown {
        let hash = self.hasher.hash_one(path.as_str());
        if let Some(shown) = self.states.get(&hash) {
            return *shown;
        }
        if self.is_listed(path) != Some(true) {
            return Shown::Unknown;
        }
        let shown = if self.misses < MISSES_MAX { look(storage, path) } else { Shown::Missing };
        self.misses += u32::from(shown == Shown::Missing);
        self.states.insert(hash, shown);
        shown
    }
}

fn look(storage: &dyn RepoStorage, path: &RepoPath) -> Shown {
    match storage.info(path) {
        Ok(None) => Shown::Missing,
        Ok(Some(entry)) if entry.kind == EntryKind::File => {
            Shown::Listed(StoredState { size: entry.size, modified: entry.modified })
        }
        Ok(Some(_)) | Err(_) => Shown::Unknown,
    }
}
