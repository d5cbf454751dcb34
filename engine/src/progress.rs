//! Progress of a long copy, for a display.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Receives progress from the main thread of a backup, restore or verify.
pub trait Progress: Send + Sync {
    /// The copy starts: so many files, with so many bytes in all.
    fn start(&self, files: u64, bytes: u64);

    /// Adds completed files and bytes.
    fn advance(&self, files: u64, bytes: u64);

    /// The copy ended, well or not.
    fn finish(&self);
}

/// Bytes that jobs in progress have copied. Those of a job that fails no longer count.
#[derive(Clone, Debug, Default)]
pub(crate) struct BytesUnderWay(Arc<AtomicU64>);

impl BytesUnderWay {
    /// The sum of all jobs in progress.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Begins a job that counts at most so many bytes.
    pub(crate) fn begin(&self, most: u64) -> JobProgress {
        JobProgress(Some(Arc::new(Job { all: self.clone(), bytes: AtomicU64::new(0), most })))
    }
}

/// What one job has copied so far. Clones share it, and it counts until the last one is dropped.
#[derive(Clone, Debug, Default)]
pub struct JobProgress(Option<Arc<Job>>);

#[derive(Debug)]
struct Job {
    all: BytesUnderWay,
    bytes: AtomicU64,
    most: u64,
}

impl JobProgress {
    /// Nobody looks at it.
    pub const UNSEEN: JobProgress = JobProgress(None);

    /// Adds bytes of files.
    pub(crate) fn add(&self, bytes: u64) {
        if let Some(job) = &self.0 {
            self.reach(job.bytes.load(Ordering::Relaxed).saturating_add(bytes));
        }
    }

    /// So many bytes of files are done by now. Fewer than before change nothing.
    pub(crate) fn reach(&self, bytes: u64) {
        if let Some(job) = &self.0 {
            let bytes = bytes.min(job.most);
            let before = job.bytes.fetch_max(bytes, Ordering::Relaxed);
            job.all.0.fetch_add(bytes.saturating_sub(before), Ordering::Relaxed);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _files: u64, _bytes: u64) {}

    fn advance(&self, _files: u64, _bytes: u64) {}

    fn finish(&self) {}
}

/// Returns the ratio of `done` to `total` in units of 0.01%, rounded; 10000 when complete (like pgBackRest's
/// `cvtPctToUInt`).
pub(crate) fn percent_hundredths(done: u64, total: u64) -> u32 {
    if done >= total {
        return 10_000;
    }
    // The quotient is at most 10000, so it fits
    u32::try_from((u128::from(done) * 100_000 / u128::from(total) + 5) / 10).unwrap_or(10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_job_count_once_and_only_while_it_runs() {
        let all = BytesUnderWay::default();
        let (first, second) = (all.begin(100), all.begin(50));
        first.add(30);
        first.add(30);
        second.reach(20);
        second.reach(10);
        assert_eq!(all.bytes(), 80);
        // A file may have grown
        second.add(500);
        assert_eq!(all.bytes(), 110);
        let shared = first.clone();
        drop(first);
        assert_eq!(all.bytes(), 110);
        drop((shared, second));
        assert_eq!(all.bytes(), 0);
        JobProgress::UNSEEN.add(5);
    }

    #[test]
    fn percent_is_rounded() {
        assert_eq!(percent_hundredths(0, 0), 10_000);
        assert_eq!(percent_hundredths(0, 3), 0);
        assert_eq!(percent_hundredths(2, 3), 6_667);
        assert_eq!(percent_hundredths(u64::MAX - 1, u64::MAX), 10_000);
        assert_eq!(percent_hundredths(3, 3), 10_000);
    }
}
