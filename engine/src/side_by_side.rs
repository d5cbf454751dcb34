//! Requests that do not depend on each other, sent at the same time where each waits for a server.

use crate::{Error, ErrorCode, Result};

/// Requests of one step that are under way at the same time.
const THREADS_MAX: usize = 8;

fn panicked() -> Error {
    Error::new(ErrorCode::Assert, "a thread that waits for the repository panicked")
}

/// Does both, at the same time if the repository is remote, else one after the other.
pub fn both<A, B: Send>(
    remote: bool,
    first: impl FnOnce() -> Result<A>,
    second: impl FnOnce() -> Result<B> + Send,
) -> (Result<A>, Result<B>) {
    if !remote {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        let second = scope.spawn(second);
        let first = first();
        (first, second.join().unwrap_or_else(|_| Err(panicked())))
    })
}

/// Does the same with every item, with several at a time if the repository is remote. The results have the items' order.
///
/// # Errors
/// That of the first item which has one. Later ones may then be done or not.
pub fn each<'a, T: Sync, R: Send>(
    remote: bool,
    items: &'a [T],
    work: impl Fn(&'a T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if !remote || items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let share = items.len().div_ceil(THREADS_MAX);
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .map(|share| scope.spawn(|| share.iter().map(&work).collect::<Result<Vec<R>>>()))
            .collect();
        let mut all = Vec::with_capacity(items.len());
        for thread in threads {
            all.extend(thread.join().unwrap_or_else(|_| Err(panicked()))?);
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
