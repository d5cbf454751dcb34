//! Runs independent jobs on worker threads and passes their results to the calling thread, one at a time.
//!
//! Everything that needs an order or a single owner (log lines, manifest, lock progress) therefore stays on the main
//! thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::storage::RepoStorage;
use crate::work::turn::Slots;
use crate::{CancelToken, Error, ErrorCode, Result, log};

/// Results per worker that may wait for the main thread.
const RESULTS_WAITING_MAX: usize = 4;
/// Threads per worker if it writes to a server.
const THREADS_WRITING: u32 = 4;
/// How long the main thread waits for a result before it receives [`Event::Idle`].
const IDLE_INTERVAL: Duration = Duration::from_millis(100);

/// How jobs are run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// Number of worker threads, at least one.
    pub process_max: u32,
    /// The pause before each retry of a failed job; empty for no retries.
    pub retry_intervals: Vec<Duration>,
    /// Threads per worker. In total, one per worker computes while others wait for a server.
    pub threads: u32,
    /// Whether jobs read from a local disk, where waiting can't help after most errors: then a retry is made only at once.
    pub is_local: bool,
}

impl QueueSettings {
    /// Creates settings for this many workers. A failed job is retried `job_retry` times: the first time at once, then
    /// after `job_retry_interval` each.
    pub fn new(process_max: u32, job_retry: u32, job_retry_interval: Duration) -> Self {
        let retry_intervals =
            (0..job_retry).map(|retry| if retry == 0 { Duration::ZERO } else { job_retry_interval }).collect();
        QueueSettings { process_max: process_max.max(1), retry_intervals, threads: 1, is_local: false }
    }

    /// The same for jobs that write to this storage.
    #[must_use]
    pub fn for_writing(self, storage: &dyn RepoStorage) -> Self {
        self.for_remote(storage, THREADS_WRITING)
    }

    /// Adapts the settings to jobs that read from this storage, with `threads` per worker if the storage is remote.
    #[must_use]
    pub fn for_reading(self, storage: &dyn RepoStorage, threads: u32) -> Self {
        QueueSettings { is_local: !storage.features().remote, ..self.for_remote(storage, threads) }
    }

    fn for_remote(self, storage: &dyn RepoStorage, threads: u32) -> Self {
        QueueSettings { threads: if storage.features().remote { threads } else { 1 }, ..self }
    }
}

/// What the main thread is told.
pub enum Event<J, R> {
    /// A job was done.
    Done {
        /// The number of the worker, from 1, for log lines.
        worker: u32,
        /// The job.
        job: J,
        /// The result of the job.
        result: R,
    },
    /// No job completed for a tenth of a second. Use it for periodic work.
    Idle,
    /// The queue was told to stop, or a job failed. Sent once, while other jobs may still be running, to save what must
    /// not wait for them.
    Stopping,
}

/// Runs all jobs on the workers.
///
/// `jobs` returns the next job when a worker is free. `init` creates what a worker keeps between jobs (buffers, codec
/// contexts). It is called once per worker, and again after a failed job, which may have left any state. `work` runs
/// one job and checks the token now and then. `on_event` runs on the calling thread.
///
/// # Errors
/// The first error of any part. It cancels the token that the other jobs see, and is returned when they have ended. A
/// panic is an error too ([`ErrorCode::Assert`]). [`ErrorCode::Term`] if `cancel` was cancelled.
pub fn run<J, R, S>(
    settings: &QueueSettings,
    cancel: &CancelToken,
    jobs: impl Iterator<Item = J> + Send,
    init: impl Fn(u32) -> Result<S> + Sync,
    work: impl Fn(&mut S, &J, &CancelToken) -> Result<R> + Sync,
    on_event: impl FnMut(Event<J, R>) -> Result<()>,
) -> Result<()>
where
    J: Send,
    R: Send,
{
    let mut jobs = jobs.fuse();
    run_from(settings, cancel, |_| Ok(jobs.next()), init, work, on_event)
}

/// Like [`run`], for jobs that differ between workers: `next` returns the next job for the worker with this number, or
/// `None` if nothing is left for that worker.
///
/// # Errors
/// The same as [`run`], and those of `next`.
pub fn run_from<J, R, S>(
    settings: &QueueSettings,
    cancel: &CancelToken,
    next: impl FnMut(u32) -> Result<Option<J>> + Send,
    init: impl Fn(u32) -> Result<S> + Sync,
    work: impl Fn(&mut S, &J, &CancelToken) -> Result<R> + Sync,
    mut on_event: impl FnMut(Event<J, R>) -> Result<()>,
) -> Result<()>
where
    J: Send,
    R: Send,
{
    let workers = settings.process_max.max(1);
    let threads = workers * settings.threads.max(1);
    let slots = Slots::new(workers);
    let group = cancel.child();
    let next = Mutex::new(next);
    let (sender, receiver) = mpsc::sync_channel(RESULTS_WAITING_MAX * threads as usize);
    let mut failed: Option<Error> = None;

    std::thread::scope(|scope| {
        // If this thread panics, the receiver is dropped, and workers end instead of waiting for it forever
        let receiver = receiver;
        for thread in 0..threads {
            let worker = thread % workers + 1;
            let sender = sender.clone();
            let crew = Crew { settings, slots: &slots, group: &group };
            let (next, init, work) = (&next, &init, &work);
            let inherited = log::Inherited::from_this_thread();
            let body = move || inherited.during(|| work_through(worker, crew, next, init, work, &sender));
            let name = format!("worker-{worker}");
            match std::thread::Builder::new().name(name).spawn_scoped(scope, body) {
                Ok(_) => {}
                // Every worker already has its first thread and continues with that
                Err(e) if thread >= workers => {
                    crate::debug!("{} of {threads} worker threads can be started: {e}", thread);
                    break;
                }
                Err(e) => {
                    failed.get_or_insert(Error::from_io(ErrorCode::Kernel, "unable to start worker thread", e));
                    group.cancel();
                    break;
                }
            }
        }
        // Only the workers' senders are left: when all are dropped, all workers have ended
        drop(sender);
        let mut stopping = false;
        loop {
            if !stopping && group.is_cancelled() {
                stopping = true;
                if let Err(error) = on_event(Event::Stopping) {
                    keep_first(&mut failed, error);
                }
            }
            let event = match receiver.recv_timeout(IDLE_INTERVAL) {
                Ok(Ok((worker, job, result))) => Event::Done { worker, job, result },
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(Err(error)) => {
                    keep_first(&mut failed, error);
                    group.cancel();
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => Event::Idle,
            };
            // After an error, completed jobs are still reported, because a later resume may use them
            if matches!(event, Event::Idle) && (failed.is_some() || stopping) {
                continue;
            }
            if let Err(error) = on_event(event) {
                keep_first(&mut failed, error);
                group.cancel();
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None => cancel.check(),
    }
}

/// Keeps the first error that is not itself a consequence of stopping.
fn keep_first(failed: &mut Option<Error>, error: Error) {
    match failed {
        Some(first) if first.code != ErrorCode::Term || error.code == ErrorCode::Term => {}
        _ => *failed = Some(error),
    }
}

type Message<J, R> = Result<(u32, J, R)>;

/// What all threads of a queue share.
#[derive(Clone, Copy)]
struct Crew<'a> {
    settings: &'a QueueSettings,
    /// Limits how many threads compute.
    slots: &'a Arc<Slots>,
    group: &'a CancelToken,
}

fn work_through<J, R, S>(
    worker: u32,
    crew: Crew<'_>,
    next: &Mutex<impl FnMut(u32) -> Result<Option<J>>>,
    init: &impl Fn(u32) -> Result<S>,
    work: &impl Fn(&mut S, &J, &CancelToken) -> Result<R>,
    sender: &SyncSender<Message<J, R>>,
) {
    let Crew { settings, slots, group } = crew;
    let mut state: Option<S> = None;
    while !group.is_cancelled() {
        let job = {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            match next(worker) {
                Ok(Some(job)) => job,
                Ok(None) => return,
                Err(error) => {
                    // The main thread listens until the last sender is gone
                    let _ = sender.send(Err(error));
                    return;
                }
            }
        };
        let mut attempt = || {
            let mut kept = match state.take() {
                Some(kept) => kept,
                None => init(worker)?,
            };
            let result = work(&mut kept, &job, group)?;
            state = Some(kept);
            Ok(result)
        };
        let mut attempt =
            || catch_unwind(AssertUnwindSafe(&mut attempt)).unwrap_or_else(|panic| Err(panic_error(&*panic)));
        let result = with_retries(&settings.retry_intervals, settings.is_local, group, || slots.run(&mut attempt));
        if sender.send(result.map(|result| (worker, job, result))).is_err() {
            return;
        }
    }
}

fn panic_error(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned());
    Error::new(ErrorCode::Assert, format!("worker failed: {text}"))
}

/// Tries once, and again after each interval. The returned error lists the retries as pgBackRest does
/// (`src/common/error/retry.c`): the first message, then each further message with its time.
pub(crate) fn with_retries<R>(
    intervals: &[Duration],
    is_local: bool,
    group: &CancelToken,
    mut attempt: impl FnMut() -> Result<R>,
) -> Result<R> {
    let begin = Instant::now();
    let mut first = match attempt() {
        Err(error) if is_retried(&error) => error,
        result => return result,
    };
    let mut more: Vec<Retried> = Vec::new();
    let mut lasts = is_local && is_lasting_locally(&first);
    for interval in intervals {
        if lasts && !interval.is_zero() {
            break;
        }
        crate::debug!("retry {} after {}ms: {first}", first.code, interval.as_millis());
        // Stopped while waiting: the earlier error is more informative
        if group.sleep(*interval).is_err() {
            break;
        }
        match attempt() {
            Err(error) => {
                let at_ms = begin.elapsed().as_millis();
                match more.iter_mut().find(|known| known.text == error.to_string()) {
                    Some(known) => (known.count, known.last_ms) = (known.count + 1, at_ms),
                    None => more.push(Retried {
                        code: error.code,
                        text: error.to_string(),
                        count: 1,
                        first_ms: at_ms,
                        last_ms: at_ms,
                    }),
                }
                if !is_retried(&error) {
                    break;
                }
                lasts = is_local && is_lasting_locally(&error);
            }
            result => return result,
        }
    }
    if !more.is_empty() {
        let mut message = first.to_string();
        first.hints.clear();
        for retried in &more {
            message += &retried.describe();
        }
        first.message = message;
    }
    Err(first)
}

/// Returns whether an error of reading a file of a local disk stays the same after a pause: the file is damaged, missing
/// or may not be read. On a server these may be errors of the moment.
pub(crate) fn is_lasting_locally(error: &Error) -> bool {
    let is_damage = matches!(
        error.code,
        ErrorCode::Checksum
            | ErrorCode::Crypto
            | ErrorCode::FileInvalid
            | ErrorCode::FileMissing
            | ErrorCode::Format
            | ErrorCode::JsonFormat
            | ErrorCode::VersionNotSupported
    );
    is_damage || is_refused(error)
}

/// Returns whether the system refuses to open or read a file because of what the file or its path is.
pub(crate) fn is_refused(error: &Error) -> bool {
    use rustix::io::Errno;

    let source = error.source.as_deref().and_then(|source| source.downcast_ref::<std::io::Error>());
    let Some(errno) = source.and_then(Errno::from_io_error) else { return false };
    matches!(error.code, ErrorCode::FileOpen | ErrorCode::FileRead)
        && [Errno::ACCESS, Errno::PERM, Errno::ISDIR, Errno::NOTDIR, Errno::LOOP, Errno::NAMETOOLONG].contains(&errno)
}

/// A retry can't help after a signal or a broken invariant.
fn is_retried(error: &Error) -> bool {
    !matches!(error.code, ErrorCode::Term | ErrorCode::Assert)
}

struct Retried {
    code: ErrorCode,
    text: String,
    count: u32,
    first_ms: u128,
    last_ms: u128,
}

impl Retried {
    fn describe(&self) -> String {
        let Retried { code, text, count, first_ms, last_ms } = self;
        if first_ms == last_ms {
            format!("\n    [{code}] on retry at {first_ms}ms: {text}")
        } else {
            format!("\n    [{code}] on {count} retries from {first_ms}-{last_ms}ms: {text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn settings(process_max: u32, retries: usize) -> QueueSettings {
        QueueSettings {
            retry_intervals: vec![Duration::ZERO; retries],
            ..QueueSettings::new(process_max, 0, Duration::ZERO)
        }
    }

    fn sum(settings: &QueueSettings, work: impl Fn(u32) -> Result<u32> + Sync) -> (Result<()>, u32) {
        let mut sum = 0;
        let on_event = |event| {
            if let Event::Done { worker, job, result } = event {
                assert!((1..=settings.process_max).contains(&worker));
                assert_eq!(result, job * 2);
                sum += result;
            }
            Ok(())
        };
        let result = run(settings, &CancelToken::new(), 1..=100_u32, |_| Ok(()), |(), job, _| work(*job), on_event);
        (result, sum)
    }

    #[test]
    fn run_gives_every_result_once() {
        for process_max in [1, 4] {
            let (result, sum) = sum(&settings(process_max, 0), |job| Ok(job * 2));
            result.unwrap();
            assert_eq!(sum, 100 * 101);
        }
    }

    #[test]
    fn run_with_failed_job_returns_its_error_and_stops() {
        let started = AtomicU32::new(0);
        let (result, _) = sum(&settings(2, 0), |job| {
            started.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            if job == 3 { Err(Error::new(ErrorCode::FileRead, "broken")) } else { Ok(job * 2) }
        });
        assert_eq!(result.unwrap_err().code, ErrorCode::FileRead);
        assert!(started.load(Ordering::SeqCst) < 100);
    }

    #[test]
    fn run_with_panic_returns_assert_error() {
        let (result, _) = sum(&settings(2, 3), |job| if job == 50 { panic!("boom {job}") } else { Ok(job * 2) });
        let error = result.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Assert, "worker failed: boom 50"));
    }

    #[test]
    fn run_retries_and_tells_of_it() {
        let failures = AtomicU32::new(2);
        let flaky = |job| {
            let fails =
                job == 7 && failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if fails { Err(Error::new(ErrorCode::FileRead, "flaky")) } else { Ok(job * 2) }
        };
        let (result, sum) = sum(&settings(2, 2), flaky);
        result.unwrap();
        assert_eq!(sum, 100 * 101);

        failures.store(2, Ordering::SeqCst);
        let error = with_retries(&[Duration::ZERO], false, &CancelToken::new(), || flaky(7)).unwrap_err();
        let (first, second) = error.message.split_once('\n').unwrap();
        assert_eq!(first, "flaky");
        assert!(second.starts_with("    [FileReadError] on retry at "), "{second}");
    }

    #[test]
    fn run_with_error_on_main_thread_stops() {
        let mut seen = 0;
        let result = run(
            &settings(3, 0),
            &CancelToken::new(),
            0..1000,
            |_| Ok(()),
            |(), _, _| Ok(()),
            |_| {
                seen += 1;
                Err(Error::new(ErrorCode::FileWrite, "full"))
            },
        );
        assert_eq!(result.unwrap_err().code, ErrorCode::FileWrite);
        assert!(seen < 1000);
    }

    #[test]
    fn run_with_panic_on_main_thread_ends() {
        let run =
            || run(&settings(2, 0), &CancelToken::new(), 0..1000, |_| Ok(()), |(), _, _| Ok(()), |_| panic!("main"));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }

    #[test]
    fn run_cancelled_by_signal_returns_term() {
        let cancel = CancelToken::new();
        let by_signal = cancel.clone();
        let work = |(): &mut (), job: &u32, group: &CancelToken| {
            if *job == 5 {
                by_signal.cancel_by_signal(15);
            }
            group.check()
        };
        let error = run(&settings(2, 2), &cancel, 0..1000, |_| Ok(()), work, |_| Ok(())).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Term, "terminated on signal [SIGTERM]"));
    }

    #[test]
    fn stopping_is_told_while_a_job_still_waits() {
        let (cancel, told) = (CancelToken::new(), std::sync::atomic::AtomicBool::new(false));
        let by_signal = cancel.clone();
        let work = |(): &mut (), job: &u32, _: &CancelToken| {
            if *job == 0 {
                by_signal.cancel_by_signal(15);
            }
            // As for a server that does not answer
            while !told.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        };
        let mut times = 0;
        let on_event = |event: Event<u32, ()>| {
            if matches!(event, Event::Stopping) {
                times += 1;
                told.store(true, Ordering::SeqCst);
            }
            Ok(())
        };
        run(&settings(2, 0), &cancel, 0..1000, |_| Ok(()), work, on_event).unwrap_err();
        assert_eq!(times, 1);
    }

    #[test]
    fn worker_state_is_kept_between_jobs_and_renewed_after_an_error() {
        let inits = AtomicU32::new(0);
        let init = |_| Ok(inits.fetch_add(1, Ordering::SeqCst));
        let failed = AtomicU32::new(0);
        let work = |_: &mut u32, job: &u32, _: &CancelToken| {
            if *job == 5 && failed.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(Error::new(ErrorCode::FileRead, "once"));
            }
            Ok(())
        };
        run(&settings(1, 1), &CancelToken::new(), 0..10, init, work, |_| Ok(())).unwrap();
        assert_eq!(inits.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn lasting_error_is_retried_at_once_but_never_waited_for() {
        let attempts = std::cell::Cell::new(0);
        let fails = || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(Error::new(ErrorCode::Checksum, "damaged"))
        };
        let hour = Duration::from_secs(3600);
        let error = with_retries(&[Duration::ZERO, hour, hour], true, &CancelToken::new(), fails);
        assert_eq!((error.unwrap_err().code, attempts.get()), (ErrorCode::Checksum, 2));
    }

    #[test]
    fn refusal_of_the_system_is_lasting_and_a_failing_disk_is_not() {
        let error = |errno: rustix::io::Errno| {
            Error::from_io(ErrorCode::FileOpen, "unable to open file 'x' for read", errno.into())
        };
        assert!(is_lasting_locally(&error(rustix::io::Errno::ACCESS)));
        assert!(is_lasting_locally(&error(rustix::io::Errno::ISDIR)));
        assert!(!is_lasting_locally(&error(rustix::io::Errno::IO)));
    }
}
