//! What the workers, the main thread and the thread that saves the manifest share while files are copied.

use std::sync::{Mutex, MutexGuard, PoisonError};

use repo_format::manifest::ManifestFile;

use super::draft::{self, BackupFile};
use super::queue::Queues;
use crate::pipeline::backup::CopyJob;
use crate::{Error, ErrorCode, Result};

/// Entries that are taken at a time for the saved manifest, while everybody else waits.
const ENTRIES_TAKEN: usize = 1000;

/// The files of a backup, and those of them that no worker has taken yet. Nobody holds the lock while waiting for
/// anything.
pub(super) struct Shared(Mutex<State>);

struct State {
    queues: Queues,
    files: Vec<BackupFile>,
}

impl Shared {
    pub(super) fn new(queues: Queues, files: Vec<BackupFile>) -> Self {
        Shared(Mutex::new(State { queues, files }))
    }

    /// A panic leaves the state valid, because changes are plain assignments.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next job for a worker, counted from 0; `None` if nothing is left for it.
    ///
    /// # Errors
    /// A name in the manifest can't be a path in the repository.
    pub(super) fn next(&self, worker: usize) -> Result<Option<CopyJob>> {
        let State { queues, files } = &mut *self.state();
        queues.next(worker, files)
    }

    /// Records that a worker, counted from 0, has done a job, before its thread asks for the next one.
    pub(super) fn done(&self, worker: usize, job: &CopyJob) {
        self.state().queues.done(worker, job);
    }

    /// Looks at the file with this manifest name, or changes it.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] if there is no such file.
    pub(super) fn with_file<R>(&self, name: &str, look: impl FnOnce(&mut BackupFile) -> R) -> Result<R> {
        let files = &mut self.state().files;
        match draft::position(files, name) {
            Some(index) => Ok(look(&mut files[index])),
            None => Err(Error::new(ErrorCode::Assert, format!("copied file '{name}' is not in the manifest"))),
        }
    }

    /// Returns the entries of all files. Each is complete in itself, but while files are copied, later entries may be
    /// newer than earlier ones. A resume needs no more: it judges each file by its own entry.
    pub(super) fn entries(&self) -> impl Iterator<Item = ManifestFile> {
        let mut next = 0;
        let take = move || {
            let files = &self.state().files[next..];
            let taken: Vec<ManifestFile> = files.iter().take(ENTRIES_TAKEN).map(|file| file.entry.clone()).collect();
            next += taken.len();
            (!taken.is_empty()).then_some(taken)
        };
        std::iter::from_fn(take).flatten()
    }

    /// Returns the files after the copy.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] if a file was not copied. An entry from the prior backup looks complete even then.
    pub(super) fn check_all_done(&self) -> Result<()> {
        match self.state().files.iter().filter(|file| file.pending().is_some()).count() {
            0 => Ok(()),
            left => Err(Error::new(ErrorCode::Assert, format!("{left} file(s) were not copied"))),
        }
    }

    pub(super) fn into_files(self) -> Vec<BackupFile> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).files
    }
}
