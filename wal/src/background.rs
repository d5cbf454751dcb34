//! What the processes that PostgreSQL calls need to communicate with a background worker.

use std::path::PathBuf;
use std::time::Duration;

use engine::lock::{Lock, LockRequest, LockType};
use engine::work::backoff::{Backoff, Growth, Pauses};
use engine::work::crew::CrewSettings;
use engine::{Error, ErrorCode, Result};
use repo_format::layout::Stanza;

use crate::repos::{Repos, concurrency};
use crate::spool::Spool;

/// The first pause between two checks of the spool. Short, so that PostgreSQL does not wait for completed work.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// The maximum pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How many times as long as the pause before it a pause is.
const PAUSE_GROWTH: f64 = 1.5;

/// Where and how to communicate with a worker.
#[derive(Clone, Debug)]
pub struct Background {
    /// The stanza.
    pub stanza: Stanza,
    /// The queue.
    pub spool: Spool,
    /// The directory of lock files.
    pub lock_path: PathBuf,
    /// The repositories whose archive lock a worker holds.
    pub repo_keys: Vec<u32>,
    /// The id that this process shares with a worker it starts.
    pub exec_id: String,
    /// How long to wait.
    pub timeout: Duration,
    /// The worker's log file, for a hint.
    pub log_file: String,
}

impl Background {
    /// Takes the worker's lock. Returns `None` while a worker is running, including one that this process started.
    ///
    /// # Errors
    /// [`engine::ErrorCode::LockAcquire`] if the lock can't be tried.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let lock = Lock::try_acquire(LockRequest {
            lock_path: &self.lock_path,
            stanza: &self.stanza,
            kinds: &[LockType::Archive],
            repo_keys: &self.repo_keys,
            exec_id: &self.exec_id,
        })?;
        Ok(lock.filter(Lock::is_own))
    }

    /// The pauses between two checks of the spool.
    pub(crate) fn pauses(&self) -> Pauses {
        let growth = Growth::Times(PAUSE_GROWTH);
        Backoff { first: PAUSE_FIRST, max: PAUSE_MAX, growth, limit: self.timeout, tries_min: 0 }.start()
    }

    pub(crate) fn timeout_text(&self) -> String {
        let text = format!("{:.3}", self.timeout.as_secs_f64());
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    pub(crate) fn log_hint(&self) -> String {
        format!("check '{}' for errors.", self.log_file)
    }
}

/// The maximum number of files that a worker has in progress. Each is a segment in memory.
const JOBS_PER_WORKER_MAX: u32 = 2;

/// Returns the crew for this many files of these repositories.
pub(crate) fn crew_for(files: usize, repos: &Repos, settings: &CrewSettings) -> CrewSettings {
    let CrewSettings { workers, retry, .. } = settings.clone();
    let files = u32::try_from(files.max(1)).unwrap_or(u32::MAX);
    let jobs_per_worker = concurrency(&repos.open).jobs_per_worker.min(JOBS_PER_WORKER_MAX);
    CrewSettings {
        jobs_per_worker,
        ..CrewSettings::new(workers.min(files), retry.with_final(|error, _| is_final(error)))
    }
}

/// Returns whether no retry changes this error.
fn is_final(error: &Error) -> bool {
    matches!(error.code, ErrorCode::ArchiveDuplicate | ErrorCode::ArchiveMismatch | ErrorCode::VersionNotSupported)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::CancelToken;
    use engine::repo::Repo;
    use engine::storage::memory::MemoryStorage;
    use engine::work::retry::RetryPolicy;
    use repo_format::cipher::Cipher;

    use super::*;

    #[test]
    fn crew_is_no_larger_than_the_list_and_retries_what_may_pass() {
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
        let repos = Repos::from(vec![repo]);
        let settings = CrewSettings::new(4, RetryPolicy::new(2, Duration::ZERO));
        let workers = |files| crew_for(files, &repos, &settings).workers;
        assert_eq!([0, 3, 9].map(workers), [1, 3, 4]);
        let tries = |code| {
            let mut tries = 0;
            let step = || {
                tries += 1;
                Err::<(), _>(Error::new(code, "no"))
            };
            crew_for(1, &repos, &settings).retry.run(|pause| CancelToken::new().sleep(pause), step).expect_err("error");
            tries
        };
        assert_eq!([ErrorCode::FileWrite, ErrorCode::ArchiveDuplicate, ErrorCode::Term].map(tries), [3, 1, 1]);
    }
}
