//! Sends independent requests at the same time, because each waits for a server.
//!
//! If the system starts no more threads, they are sent one after another.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::thread::{Helper, caught};
use crate::{Error, ErrorCode, Result};

/// Runs both, at the same time if `at_once` is more than one, otherwise one after another.
pub fn both<A, B: Send>(
    at_once: usize,
    first: impl FnOnce() -> Result<A>,
    second: impl FnOnce() -> Result<B> + Send,
) -> (Result<A>, Result<B>) {
    if at_once < 2 {
        return (first(), second());
    }
    // A thread that can't be started drops its closure, so it gets only a reference to the work
    let second = Mutex::new(Some(second));
    let run_second = || {
        let work = second.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.map_or_else(|| Err(Error::new(ErrorCode::Assert, "work was done twice")), |work| work())
    };
    std::thread::scope(|scope| {
        let helper = Helper::start(scope, run_second);
        let first = first();
        let second = match helper {
            Some(helper) => helper.join(),
            None => run_second(),
        };
        (first, second)
    })
}

/// Runs the same for every item, up to `at_once` at a time. The results have the order of the items.
///
/// # Errors
/// The error of the first item that fails. Later items may or may not have run.
pub fn each<'a, T: Sync, R: Send>(
    at_once: usize,
    items: &'a [T],
    work: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if at_once.min(items.len()) < 2 {
        return items.iter().map(work).collect();
    }
    // Items are begun in their order, so everything before a failed item runs, too
    let failed = AtomicBool::new(false);
    let work = |item| work(item).inspect_err(|_| failed.store(true, Ordering::Relaxed));
    run(at_once, items, &|| failed.load(Ordering::Relaxed), work).into_iter().collect()
}

/// Runs the same for every item, up to `at_once` at a time, whatever fails. The results have the order of the items.
pub fn all<'a, T: Sync, R: Send>(
    at_once: usize,
    items: &'a [T],
    work: impl Fn(&'a T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    match at_once.min(items.len()) {
        0 | 1 => items.iter().map(work).collect(),
        _ => run(at_once, items, &|| false, work),
    }
}

/// Runs the work for items from the first on, until `is_over`. A panic is an error of its item.
fn run<'a, T: Sync, R: Send>(
    at_once: usize,
    items: &'a [T],
    is_over: &(dyn Fn() -> bool + Sync),
    work: impl Fn(&'a T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let next = AtomicUsize::new(0);
    let work_on = || -> Result<Vec<(usize, Result<R>)>> {
        let mut done = Vec::new();
        while !is_over() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            done.push((index, caught(|| work(item))));
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..at_once.min(items.len())).map_while(|_| Helper::start(scope, work_on)).collect();
        let parts = std::iter::once(work_on()).chain(helpers.into_iter().map(Helper::join));
        let mut done = Vec::with_capacity(items.len());
        for part in parts {
            // Panics were caught, so this is the error of nothing in particular
            done.extend(part.unwrap_or_else(|error| vec![(0, Err(error))]));
        }
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, result)| result).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::work::thread::limit;

    #[test]
    fn results_have_the_order_of_items_and_the_first_error_counts() {
        let items: Vec<u32> = (0..100).collect();
        let failing = |item: &u32| match item {
            30.. => Err(Error::new(ErrorCode::Service, item.to_string())),
            _ => Ok(()),
        };
        for at_once in [1, 8] {
            assert_eq!(each(at_once, &items, |item| Ok(item + 1)).unwrap(), (1..=100).collect::<Vec<_>>());
            assert_eq!(each(at_once, &items, failing).unwrap_err().message, "30");
            assert_eq!(all(at_once, &items, failing).iter().filter(|result| result.is_ok()).count(), 30);
        }
    }

    #[test]
    fn work_is_done_one_after_the_other_where_no_thread_can_be_started() {
        limit::with(0, || {
            let (first, second) = both(2, || Ok(1), || Ok(2));
            assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
            let items: Vec<u32> = (0..20).collect();
            assert_eq!(each(8, &items, |item| Ok(item + 1)).unwrap(), (1..=20).collect::<Vec<_>>());
        });
    }

    #[test]
    fn requests_are_in_flight_at_the_same_time() {
        // Each waits until the others have begun
        let pair = Barrier::new(2);
        let wait = || Ok(pair.wait().is_leader());
        let (first, second) = both(2, wait, wait);
        assert!(first.unwrap() != second.unwrap());
        let all = Barrier::new(8);
        each(8, &[(); 8], |()| Ok(all.wait().is_leader())).unwrap();
    }

    #[test]
    fn panic_is_an_error_of_its_item() {
        let panics = |number: &u32| -> Result<u32> { if *number == 7 { panic!("seven") } else { Ok(*number) } };
        let (_, second) = both(2, || Ok(()), || panics(&7));
        assert_eq!(second.unwrap_err().message, "worker failed: seven");
        let items: Vec<u32> = (0..20).collect();
        let error = each(8, &items, panics).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Assert, "worker failed: seven"));
    }
}
