//! Several threads that process one list in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use engine::repo::Repo;
use engine::work::turn::Slots;
use engine::{CancelToken, Error, ErrorCode, Result};

/// How often and when a failed item is retried.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts after the first.
    pub count: u32,
    /// The pause before every retry except the first, which follows at once.
    pub interval: Duration,
}

impl Retry {
    /// Runs a step until it succeeds or its attempts are used up.
    ///
    /// # Errors
    /// The error of the first attempt, because later ones are mostly its consequences.
    pub fn run<T>(&self, cancel: &CancelToken, mut step: impl FnMut() -> Result<T>) -> Result<T> {
        let first = match step() {
            Err(error) => error,
            done => return done,
        };
        // No retry changes these errors
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

/// Threads per worker if its repository is on a server. No more, because each holds a segment in memory.
const THREADS_REMOTE: usize = 2;

/// How many threads process a list.
#[derive(Clone, Copy, Debug)]
pub struct Crew {
    workers: usize,
    threads: usize,
}

impl Crew {
    /// Creates a crew with this many workers, for reading or writing these repositories.
    pub fn new(workers: usize, repos: &[Repo]) -> Self {
        let remote = repos.iter().any(|repo| repo.storage.features().remote);
        Crew { workers: workers.max(1), threads: if remote { THREADS_REMOTE } else { 1 } }
    }
}

/// Processes `items` with a crew. `report` receives each result on this thread, with the number of the worker from 1.
/// With `stop_at_error`, no new item is started after one failed.
///
/// # Errors
/// The error of `report`, after which no new item is started, or that of the token.
pub fn run<I: Sync, T: Send>(
    items: &[I],
    crew: Crew,
    stop_at_error: bool,
    cancel: &CancelToken,
    work: impl Fn(&I) -> Result<T> + Sync,
    mut report: impl FnMut(u32, &I, Result<T>) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let step = |index: usize| -> Option<(&I, Result<T>)> {
        let item = items.get(index)?;
        let result = catch_unwind(AssertUnwindSafe(|| work(item)))
            .unwrap_or_else(|_| Err(Error::new(ErrorCode::Assert, "a thread that archives WAL panicked")));
        if stop_at_error && result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        Some((item, result))
    };
    let goes_on = || !stop.load(Ordering::Relaxed) && !cancel.is_cancelled();
    let slots = Slots::new(u32::try_from(crew.workers).unwrap_or(u32::MAX));
    let (sender, receiver) = mpsc::channel();
    let mut outcome = Ok(());
    let mut started = 0;
    std::thread::scope(|scope| {
        for thread in 0..(crew.workers * crew.threads).clamp(1, items.len().max(1)) {
            let process = u32::try_from(thread % crew.workers + 1).unwrap_or(u32::MAX);
            let (sender, next, step, goes_on, slots) = (sender.clone(), &next, &step, &goes_on, &slots);
            let body = move || {
                while goes_on() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((_, result)) = slots.run(|| step(index)) else { break };
                    if sender.send((process, index, result)).is_err() {
                        break;
                    }
                }
            };
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, body) {
                engine::debug!("unable to start a thread, going on with {started}: {error}");
                break;
            }
            started += 1;
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
    // Without any threads, this thread does the work, which takes longer
    let mut index = 0;
    while started == 0 && outcome.is_ok() && goes_on() {
        let Some((item, result)) = step(index) else { break };
        outcome = report(1, item, result);
        index += 1;
    }
    outcome.and_then(|()| cancel.check())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_reports_every_item_once() {
        let items: Vec<u32> = (0..100).collect();
        let mut seen = Vec::new();
        run(
            &items,
            Crew { workers: 2, threads: 2 },
            true,
            &CancelToken::new(),
            |item| Ok(item * 2),
            |process, item, result| {
                assert!((1..=2).contains(&process));
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
        run(&items, Crew { workers: 1, threads: 1 }, true, &CancelToken::new(), fail_third, |_, item, result| {
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
            Crew { workers: 1, threads: 1 },
            true,
            &CancelToken::new(),
            |_| Ok(()),
            |_, _, _| Err(Error::new(ErrorCode::FileWrite, "spool is full")),
        );
        assert_eq!(error.expect_err("error").message, "spool is full");
    }

    #[test]
    fn panic_of_a_worker_is_an_error_of_its_item() {
        let mut seen = Vec::new();
        let work = |item: &u32| if *item == 2 { panic!("on purpose") } else { Ok(()) };
        run(&[1, 2, 3], Crew { workers: 2, threads: 1 }, false, &CancelToken::new(), work, |_, item, result| {
            seen.push((*item, result.err().map(|error| error.code)));
            Ok(())
        })
        .expect("run");
        seen.sort_unstable();
        assert_eq!(seen, [(1, None), (2, Some(ErrorCode::Assert)), (3, None)]);
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
