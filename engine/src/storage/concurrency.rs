//! How many calls of a storage are best in progress at a time.

use crate::Result;
use crate::work::together;

/// How many calls are best in progress at a time. Each storage knows this about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Independent requests of one step.
    pub requests: usize,
    /// Jobs of one worker, so that it computes for one while others wait.
    pub jobs_per_worker: u32,
}

impl Concurrency {
    /// For storages of this host, where waiting takes less than another thread.
    pub const LOCAL: Self = Concurrency { requests: 1, jobs_per_worker: 1 };
    /// For servers, where several parallel calls take hardly longer than one.
    pub const SERVER: Self = Concurrency { requests: 8, jobs_per_worker: 4 };

    /// Returns whether calls wait long enough to do something else meanwhile.
    pub fn waits(self) -> bool {
        self.requests > 1
    }

    /// Runs two independent requests, at the same time if they wait.
    pub fn both<A, B: Send>(
        self,
        first: impl FnOnce() -> Result<A>,
        second: impl FnOnce() -> Result<B> + Send,
    ) -> (Result<A>, Result<B>) {
        together::both(self.requests, first, second)
    }

    /// Runs a request, and if it waits, meanwhile another one whose result will probably be needed next. The second is
    /// `None` if it did not run.
    pub fn with_ahead<A, B: Send>(
        self,
        needed: impl FnOnce() -> Result<A>,
        ahead: impl FnOnce() -> Result<B> + Send,
    ) -> (Result<A>, Option<Result<B>>) {
        if !self.waits() {
            return (needed(), None);
        }
        let (needed, ahead) = self.both(needed, ahead);
        (needed, Some(ahead))
    }

    /// Runs the same request for every item, several at a time if they wait. The results have the order of the items.
    ///
    /// # Errors
    /// The error of the first item that fails. Later items may or may not have run.
    pub fn each<'a, T: Sync, R: Send>(
        self,
        items: &'a [T],
        work: impl Fn(&'a T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        together::each(self.requests, items, work)
    }

    /// Does the same, whatever fails.
    pub fn all<'a, T: Sync, R: Send>(self, items: &'a [T], work: impl Fn(&'a T) -> Result<R> + Sync) -> Vec<Result<R>> {
        together::all(self.requests, items, work)
    }
}
