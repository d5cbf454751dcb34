//! Sends independent requests at the same time if each waits for a server.
//!
//! If the system provides no more threads, they are sent one after another.

use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::{Error, ErrorCode, Result};

/// Requests of one step that are in progress at the same time.
const THREADS_MAX: usize = 8;

fn panicked() -> Error {
    Error::new(ErrorCode::Assert, "a thread that waits for the repository panicked")
}

/// Runs both, at the same time if the repository is remote, otherwise one after another.
pub fn both<A, B: Send>(
    remote: bool,
    first: impl FnOnce() -> Result<A>,
    second: impl FnOnce() -> Result<B> + Send,
) -> (Result<A>, Result<B>) {
    if !remote {
        return (first(), second());
    }
    both_with(Start::Thread, first, second)
}

/// Whether a thread can be started. Tests pretend that it can't.
#[derive(Clone, Copy)]
enum Start {
    Thread,
    #[cfg(test)]
    Fail,
}

impl Start {
    fn spawn<'scope, R: Send + 'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> R + Send + 'scope,
    ) -> Option<ScopedJoinHandle<'scope, R>> {
        match self {
            Start::Thread => Builder::new().spawn_scoped(scope, work).ok(),
            #[cfg(test)]
            Start::Fail => None,
        }
    }
}

fn both_with<A, B: Send>(
    start: Start,
    first: impl FnOnce() -> Result<A>,
    second: impl FnOnce() -> Result<B> + Send,
) -> (Result<A>, Result<B>) {
    // A thread that can't be started drops its closure, so it gets only a reference to the work
    let second = Mutex::new(Some(second));
    let run_second = || {
        let work = second.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.map_or_else(|| Err(panicked()), |work| work())
    };
    std::thread::scope(|scope| {
        let thread = start.spawn(scope, run_second);
        let first = first();
        let second = match thread {
            Some(thread) => thread.join().unwrap_or_else(|_| Err(panicked())),
            None => run_second(),
        };
        (first, second)
    })
}

/// Runs the same for every item, several at a time if the repository is remote. The results have the order of the
/// items.
///
/// # Errors
/// The error of the first item that fails. Later items may or may not have run.
pub fn each<'a, T: Sync, R: Send>(
    remote: bool,
    items: &'a [T],
    work: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if !remote || items.len() < 2 {
        return items.iter().map(work).collect();
    }
    each_with(Start::Thread, items, work)
}

fn each_with<'a, T: Sync, R: Send>(
    start: Start,
    items: &'a [T],
    work: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let share = items.len().div_ceil(THREADS_MAX);
    let work_on = |share: &'a [T]| share.iter().map(&work).collect::<Result<Vec<R>>>();
    let work_on = &work_on;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            items.chunks(share).map(|share| (share, start.spawn(scope, move || work_on(share)))).collect();
        let mut all = Vec::with_capacity(items.len());
        for (share, thread) in threads {
            all.extend(match thread {
                Some(thread) => thread.join().unwrap_or_else(|_| Err(panicked()))?,
                None => work_on(share)?,
            });
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn results_have_the_order_of_items_and_the_first_error_counts() {
        let items: Vec<u32> = (0..100).collect();
        let failing = |item: &u32| match item {
            30.. => Err(Error::new(ErrorCode::Service, item.to_string())),
            _ => Ok(()),
        };
        for remote in [false, true] {
            assert_eq!(each(remote, &items, |item| Ok(item + 1)).unwrap(), (1..=100).collect::<Vec<_>>());
            assert_eq!(each(remote, &items, failing).unwrap_err().message, "30");
        }
    }

    #[test]
    fn work_is_done_one_after_the_other_where_no_thread_can_be_started() {
        let (first, second) = both_with(Start::Fail, || Ok(1), || Ok(2));
        assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
        let items: Vec<u32> = (0..20).collect();
        assert_eq!(each_with(Start::Fail, &items, |item| Ok(item + 1)).unwrap(), (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn a_remote_repository_is_asked_at_the_same_time() {
        let begin = Instant::now();
        let nap = || -> Result<()> {
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        };
        let (first, second) = both(true, nap, nap);
        assert!(first.is_ok() && second.is_ok());
        each(true, &[1; 8], |_| nap()).unwrap();
        assert!(begin.elapsed() < Duration::from_millis(800), "{:?}", begin.elapsed());
    }
}
