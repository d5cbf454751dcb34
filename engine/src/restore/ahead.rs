//! Starts the first reads of a restore's jobs before a worker takes them, so that a distant server answers in time.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::{Mutex, PoisonError};

use super::file::FileContext;
use super::queue::RestoreJob;
use crate::Result;
use crate::storage::read_ahead::PendingRead;

/// Jobs per worker that are started ahead.
const JOBS_MAX: usize = 4;
/// Plain bytes of all jobs that are started ahead, limited because the server must not wait long until somebody reads
/// what it sends.
const BYTES_MAX: u64 = 64 << 20;

/// A job of which the first read may have begun.
pub(super) struct BegunJob {
    pub(super) job: RestoreJob,
    read: Mutex<Option<PendingRead>>,
}

impl BegunJob {
    /// The read, for the first attempt.
    pub(super) fn take_read(&self) -> Option<PendingRead> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Jobs in their order. If the storage is on a server, the next ones are started ahead.
pub(super) struct JobsAhead<'a, I: Iterator<Item = RestoreJob>> {
    context: &'a FileContext<'a>,
    jobs: Peekable<I>,
    begun: VecDeque<BegunJob>,
    /// Plain bytes of those.
    begun_bytes: u64,
    begun_max: usize,
}

impl<'a, I: Iterator<Item = RestoreJob>> JobsAhead<'a, I> {
    pub(super) fn new(context: &'a FileContext<'a>, jobs: I, workers: u32) -> Self {
        let begun_max = if context.storage.concurrency().waits() { JOBS_MAX * workers.max(1) as usize } else { 0 };
        JobsAhead { context, jobs: jobs.peekable(), begun: VecDeque::new(), begun_bytes: 0, begun_max }
    }

    /// Returns the next job and starts others.
    ///
    /// # Errors
    /// The errors of [`FileContext::first_read`].
    pub(super) fn next(&mut self) -> Result<Option<BegunJob>> {
        let next = match self.begun.pop_front() {
            Some(begun) => {
                self.begun_bytes -= begun.job.size;
                Some(begun)
            }
            None => self.jobs.next().map(|job| BegunJob { job, read: Mutex::new(None) }),
        };
        while self.begun.len() < self.begun_max
            && let Some(job) = self.jobs.next_if(|job| self.begun_bytes.saturating_add(job.size) <= BYTES_MAX)
        {
            let first = self.context.first_read(&job)?;
            let read = first.map(|(path, range)| self.context.storage.begin_read(&path, range));
            self.begun_bytes += job.size;
            self.begun.push_back(BegunJob { job, read: Mutex::new(read) });
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::Cipher;
    use repo_format::manifest::{Manifest, ManifestFile};

    use super::super::fixture;
    use super::super::ownership::{Owner, Ownership};
    use super::super::places::Places;
    use super::*;
    use crate::storage::RepoStorage;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::object::ObjectStorage;
    use crate::users::Users;

    /// Returns which jobs of these sizes, each of one file, were started when they were handed out.
    fn begun(sizes: &[u64], storage: &dyn RepoStorage, delta: bool) -> Vec<bool> {
        let mut manifest: Manifest = fixture::manifest();
        let name = |number: usize| format!("pg_data/base/1/{number:04}");
        manifest.files =
            sizes.iter().enumerate().map(|(number, &size)| ManifestFile::new(&name(number), size, 1)).collect();
        let current = Owner { uid: 0, gid: 0 };
        let context = FileContext {
            manifest: &manifest,
            storage,
            stanza: &"demo".parse().unwrap(),
            pg_path: "/pg",
            places: &Places::default(),
            file_systems: None,
            ownership: &Ownership::new(&manifest, &Users::new(), current, Some(current)),
            zero: None,
            delta,
            delta_by_time: false,
            page_cache: None,
            looks_only: false,
            cipher: Cipher::None,
        };
        let jobs = (0u32..).zip(sizes).map(|(index, &size)| RestoreJob { files: vec![index], size });
        let mut ahead = JobsAhead::new(&context, jobs, 1);
        let mut begun = Vec::new();
        while let Some(job) = ahead.next().unwrap() {
            assert_eq!(job.job.files, [begun.len() as u32]);
            assert!(ahead.begun_bytes <= BYTES_MAX && ahead.begun.len() <= JOBS_MAX);
            begun.push(job.take_read().is_some());
            assert!(job.take_read().is_none(), "only for the first attempt");
        }
        begun
    }

    #[test]
    fn jobs_are_begun_ahead_within_limits_and_handed_out_in_order() {
        let far = ObjectStorage::new(Arc::new(object_store::memory::InMemory::new()), "/repo", 1 << 20, &[]).unwrap();
        let sizes = [5, 5, 5, 5, 5, 5, 5, BYTES_MAX + 1, 5, BYTES_MAX, 5, 0];
        // Not the first job, not one that is too large, and not jobs after that before it is handed out; nothing is
        // read for an empty file
        let expected = [false, true, true, true, true, true, true, false, true, true, true, false];
        assert_eq!(begun(&sizes, &far, false), expected);
        assert_eq!(begun(&sizes, &far, true), [false; 12], "what is on disk is looked at first");
        assert_eq!(begun(&sizes, &MemoryStorage::new(), false), [false; 12]);
    }
}
