//! Several threads that work on one list in its order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use engine::{CancelToken, ErrorCode, Result};

/// How often and when a failed item is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts after the first.
    pub count: u32,
    /// The pause before every retry but the first, which follows at once.
    pub interval: Duration,
}

impl Retry {
    /// Runs a step until it succeeds or its attempts are used up.
    ///
    /// # Errors
    /// That of the first attempt, since later ones mostly tell what followed from it.
    pub fn run<T>(&self, cancel: &CancelToken, mut step: impl FnMut() -> Result<T>) -> Result<T> {
        let first = match step() {
            Err(error) => error,
            done => return done,
        };
        // No attempt changes what these say
        if matches!(
            first.code,
            ErrorCode::ArchiveDuplicate | ErrorCode::ArchiveMismatch | ErrorCode::VersionNotSupported | ErrorCode::Term
        ) {
            return Err(first);
        }
        for attempt in 0..self.count {
            if attempt > 0 {
                cancel.sleep(self.interval)?;
            }
            if let Ok(done) = step() {
                return Ok(done);
            }
        }
        Err(first)
    }
}

/// Works on `items` with up to `total` threads. `report` gets each result on this thread, with the number of the thread from 1.
/// With `stop_at_error` no new item is begun after one failed.
///
/// # Errors
/// That of `report`, after which no new item is begun, or that of the token.
pub fn run<I: Sync, T: Send>(
    items: &[I],
    total: usize,
    stop_at_error: bool,
    cancel: &CancelToken,
    work: impl Fn(&I) -> Result<T> + Sync,
    mut report: impl FnMut(u32, &I, Result<T>) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let mut outcome = Ok(());
    std::thread::scope(|scope| {
        for process in 1..=u32::try_from(total.clamp(1, items.len().max(1))).unwrap_or(u32::MAX) {
            let (sender, next, stop, work) = (sender.clone(), &next, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && !cancel.is_cancelled() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    if stop_at_error && result.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if sender.send((process, index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (process, index, result) in receiver {
            if outcome.is_ok() {
                outcome = report(process, &items[index], result);
                if outcome.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    });
    outcome.and_then(|()| cancel.check())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Error;

    #[test]
    fn run_reports_every_item_once() {
        let items: Vec<u32> = (0..100).collect();
        let mut seen = Vec::new();
        run(
            &items,
            4,
            true,
            &CancelToken::new(),
            |item| Ok(item * 2),
            |process, item, result| {
                assert!((1..=4).contains(&process));
                assert_eq!(result.expect("result"), item * 2);
                seen.push(*item);
                Ok(())
            },
        )
        .expect("run");
        seen.sort_unstable();
        assert_eq!(seen, items);
    }

    #[test]
    fn run_with_error_begins_nothing_new() {
        let items: Vec<u32> = (0..1000).collect();
        let fail_third = |item: &u32| match item {
            3 => Err(Error::new(ErrorCode::FileWrite, "no")),
            _ => Ok(()),
        };
        let mut seen = Vec::new();
        run(&items, 1, true, &CancelToken::new(), fail_third, |_, item, result| {
            seen.push((*item, result.is_ok()));
            Ok(())
        })
        .expect("run");
        assert_eq!(seen, [(0, true), (1, true), (2, true), (3, false)]);
    }

    #[test]
    fn run_with_failing_report_returns_its_error() {
        let error = run(
            &[1, 2, 3],
            1,
            true,
            &CancelToken::new(),
            |_| Ok(()),
            |_, _, _| Err(Error::new(ErrorCode::FileWrite, "spool is full")),
        );
        assert_eq!(error.expect_err("error").message, "spool is full");
    }

    #[test]
    fn retry_gives_first_error_and_counts_attempts() {
        let retry = Retry { count: 2, interval: Duration::from_millis(1) };
        let mut attempts = 0;
        let error = retry.run(&CancelToken::new(), || -> Result<()> {
            attempts += 1;
            Err(Error::new(ErrorCode::FileWrite, format!("attempt {attempts}")))
        });
        assert_eq!((error.expect_err("error").message.as_str(), attempts), ("attempt 1", 3));
        let mut attempts = 0;
        let error = retry.run(&CancelToken::new(), || -> Result<()> {
            attempts += 1;
            Err(Error::new(ErrorCode::ArchiveDuplicate, "other content"))
        });
        assert!(error.is_err());
        assert_eq!(attempts, 1);
    }
}
