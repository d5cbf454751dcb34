//! Runs independent jobs on worker threads and passes their results to the calling thread, one at a time.
//!
//! Everything that needs an order or a single owner (log lines, manifest, lock progress) therefore stays on the calling
//! thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::retry::{RetryPolicy, is_stop};
use super::thread::{self, caught};
use super::turn::{Slots, Turn};
use crate::system_text;
use crate::{CancelToken, Error, Result};

/// Results per thread that may wait for the calling thread.
const RESULTS_WAITING_MAX: usize = 4;
/// How long the calling thread waits for a result before it receives [`Event::Idle`].
const IDLE_INTERVAL: Duration = Duration::from_millis(100);

/// How many workers a crew has, and what happens to jobs that fail.
#[derive(Clone, Debug)]
pub struct CrewSettings {
    /// Number of workers, at least one. As many threads compute at a time.
    pub workers: u32,
    /// Jobs that a worker has in progress. While one of its threads computes, the others wait for a server.
    pub jobs_per_worker: u32,
    /// When a failed job is repeated.
    pub retry: RetryPolicy,
    /// Whether new jobs begin after one failed.
    pub goes_on: bool,
}

impl CrewSettings {
    /// Creates settings for workers with one job each, which begin no job after one failed.
    pub fn new(workers: u32, retry: RetryPolicy) -> Self {
        CrewSettings { workers: workers.max(1), jobs_per_worker: 1, retry, goes_on: false }
    }
}

/// What the calling thread is told.
pub enum Event<J, R> {
    /// A job ended.
    Done {
        /// The number of the worker, from 1, for log lines.
        worker: u32,
        /// The job.
        job: J,
        /// The result of the job, after its retries.
        result: Result<R>,
    },
    /// No job ended for a tenth of a second. Use it for periodic work.
    Idle,
    /// The crew was told to stop, or failed. Sent once, while other jobs may still be running, to save what must not
    /// wait for them.
    Stopping,
}

/// Workers, and the token that stops them.
#[derive(Clone, Copy, Debug)]
pub struct Crew<'a> {
    /// The workers.
    pub settings: &'a CrewSettings,
    /// Stops them.
    pub cancel: &'a CancelToken,
}

impl Crew<'_> {
    /// Runs all jobs.
    ///
    /// `next` returns the next job for the worker with this number, or `None` if nothing is left for that worker. `begin`
    /// creates what a thread keeps between jobs (buffers, codec contexts), and gets the thread's turn to compute, which
    /// the thread releases while it waits. It is called once per thread, and again after a failed job, which may have
    /// left any state. `work` runs one job and checks the token now and then. A panic is an
    /// error of the job ([`ErrorCode::Assert`](crate::ErrorCode::Assert)). `on_event` runs on the calling thread, and
    /// decides with its result whether a failed job is a failure of the crew.
    ///
    /// If the system starts fewer threads than there are workers, the calling thread does the rest of the work.
    ///
    /// # Errors
    /// The first error of `next` or `on_event`. It cancels the token that the other jobs see, and is returned when they
    /// have ended. [`ErrorCode::Term`](crate::ErrorCode::Term) if the token was cancelled.
    pub fn run<J: Send, R: Send, S>(
        self,
        mut next: impl FnMut(u32) -> Result<Option<J>> + Send,
        begin: impl Fn(u32, &Turn) -> Result<S> + Sync,
        work: impl Fn(&mut S, &J, &CancelToken) -> Result<R> + Sync,
        mut on_event: impl FnMut(Event<J, R>) -> Result<()>,
    ) -> Result<()> {
        let workers = self.settings.workers.max(1);
        let group = self.cancel.child();
        let jobs = Jobs {
            settings: self.settings,
            slots: Slots::new(workers),
            group: &group,
            ended: AtomicBool::new(false),
            next: Mutex::new(&mut next),
            begin: &begin,
            work: &work,
        };
        let mut foreman = Foreman { group: &group, on_event: &mut on_event, failed: None, stopping: false };
        let started = jobs.on_threads(&mut foreman);
        for worker in started + 1..=workers {
            jobs.work_through(worker, |message| {
                foreman.take(message);
                true
            });
        }
        match foreman.failed {
            Some(error) => Err(error),
            None => self.cancel.check(),
        }
    }
}

/// What a thread reports: a job that ended, or why there are no more jobs.
type Message<J, R> = Result<(u32, J, Result<R>)>;

/// A thread that does jobs of a worker.
struct JobThread {
    worker: u32,
    turn: Turn,
}

/// What all threads share.
struct Jobs<'a, J, R, S> {
    settings: &'a CrewSettings,
    /// Limits how many threads compute.
    slots: Arc<Slots>,
    group: &'a CancelToken,
    /// Whether no job begins any more, because one failed.
    ended: AtomicBool,
    next: Mutex<&'a mut (dyn FnMut(u32) -> Result<Option<J>> + Send)>,
    begin: &'a (dyn Fn(u32, &Turn) -> Result<S> + Sync),
    work: &'a (dyn Fn(&mut S, &J, &CancelToken) -> Result<R> + Sync),
}

impl<J: Send, R: Send, S> Jobs<'_, J, R, S> {
    /// Runs jobs on threads, and reports them until all threads have ended. Returns how many threads the system started.
    fn on_threads(&self, foreman: &mut Foreman<'_, J, R>) -> u32 {
        let workers = self.settings.workers.max(1);
        let threads = workers.saturating_mul(self.settings.jobs_per_worker.max(1));
        let mut started = 0;
        std::thread::scope(|scope| {
            // If this thread panics, the receiver is dropped, and workers end instead of waiting for it forever
            let (sender, receiver) = mpsc::sync_channel(RESULTS_WAITING_MAX.saturating_mul(threads as usize));
            for thread in 0..threads {
                let worker = thread % workers + 1;
                let sender = sender.clone();
                let body = move || self.work_through(worker, |message| sender.send(message).is_ok());
                if let Err(error) = thread::start(scope, &format!("worker-{worker}"), body) {
                    crate::debug!("{started} of {threads} worker threads can be started: {}", system_text(&error));
                    break;
                }
                started += 1;
            }
            // Only the workers' senders are left: when all are dropped, all workers have ended
            drop(sender);
            foreman.listen(&receiver);
        });
        started
    }

    /// Works until nothing is left for this worker. `pass_on` returns whether somebody takes further results.
    fn work_through(&self, worker: u32, mut pass_on: impl FnMut(Message<J, R>) -> bool) {
        let thread = JobThread { worker, turn: self.slots.turn() };
        let mut kept = None;
        while !self.group.is_cancelled() && !self.ended.load(Ordering::Relaxed) {
            let next = || (self.next.lock().unwrap_or_else(PoisonError::into_inner))(worker);
            let message = match caught(next) {
                Ok(None) => return,
                Ok(Some(job)) => {
                    let result = self.do_job(&thread, &job, &mut kept);
                    if result.is_err() && !self.settings.goes_on {
                        self.ended.store(true, Ordering::Relaxed);
                    }
                    Ok((worker, job, result))
                }
                Err(error) => Err(error),
            };
            let is_last = message.is_err();
            if !pass_on(message) || is_last {
                return;
            }
        }
    }

    /// Runs a job, and repeats it if it fails. The thread holds no slot between the attempts.
    fn do_job(&self, thread: &JobThread, job: &J, kept: &mut Option<S>) -> Result<R> {
        let mut attempt = || {
            let mut state = match kept.take() {
                Some(state) => state,
                None => (self.begin)(thread.worker, &thread.turn)?,
            };
            let result = (self.work)(&mut state, job, self.group)?;
            *kept = Some(state);
            Ok(result)
        };
        self.settings.retry.run(|pause| self.group.sleep(pause), || thread.turn.run(|| caught(&mut attempt)))
    }
}

/// The calling thread's side of a crew.
struct Foreman<'a, J, R> {
    group: &'a CancelToken,
    on_event: &'a mut dyn FnMut(Event<J, R>) -> Result<()>,
    failed: Option<Error>,
    stopping: bool,
}

impl<J, R> Foreman<'_, J, R> {
    /// Reports what happens until all threads have ended.
    fn listen(&mut self, receiver: &Receiver<Message<J, R>>) {
        loop {
            if !self.stopping && self.group.is_cancelled() {
                self.stopping = true;
                self.report(Event::Stopping);
            }
            match receiver.recv_timeout(IDLE_INTERVAL) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if self.stopping => {}
                Err(RecvTimeoutError::Timeout) => self.report(Event::Idle),
            }
        }
    }

    /// Reports a job that ended. After a failure, too, because a later command may use what was done.
    fn take(&mut self, message: Message<J, R>) {
        match message {
            Ok((worker, job, result)) => self.report(Event::Done { worker, job, result }),
            Err(error) => self.fail(error),
        }
    }

    fn report(&mut self, event: Event<J, R>) {
        if let Err(error) = (self.on_event)(event) {
            self.fail(error);
        }
    }

    /// Cancels all jobs. Keeps the first error that is not itself a consequence of stopping.
    fn fail(&mut self, error: Error) {
        self.group.cancel();
        match &self.failed {
            Some(first) if !is_stop(first) || is_stop(&error) => {}
            _ => self.failed = Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::ErrorCode;
    use crate::work::retry::PeerFault;
    use crate::work::thread::limit;

    fn settings(workers: u32, retries: u32) -> CrewSettings {
        CrewSettings::new(workers, RetryPolicy::new(retries, Duration::ZERO))
    }

    /// Runs jobs that keep no state, and ends with the first failed one.
    fn run_all<R: Send>(
        settings: &CrewSettings,
        cancel: &CancelToken,
        mut jobs: impl Iterator<Item = u32> + Send,
        work: impl Fn(u32, &CancelToken) -> Result<R> + Sync,
        mut on_result: impl FnMut(u32, R) -> Result<()>,
    ) -> Result<()> {
        Crew { settings, cancel }.run(
            |_| Ok(jobs.next()),
            |_, _| Ok(()),
            |(), job, cancel| work(*job, cancel),
            |event| match event {
                Event::Done { worker, job, result } => {
                    assert!((1..=settings.workers).contains(&worker));
                    on_result(job, result?)
                }
                Event::Idle | Event::Stopping => Ok(()),
            },
        )
    }

    /// Returns the sum of all results for the jobs 1 to 100.
    fn sum(settings: &CrewSettings, work: impl Fn(u32) -> Result<u32> + Sync) -> (Result<()>, u32) {
        let mut sum = 0;
        let on_result = |job, result| {
            assert_eq!(result, job * 2);
            sum += result;
            Ok(())
        };
        let result = run_all(settings, &CancelToken::new(), 1..=100, |job, _| work(job), on_result);
        (result, sum)
    }

    #[test]
    fn run_gives_every_result_once() {
        for workers in [1, 4] {
            let (result, sum) = sum(&settings(workers, 0), |job| Ok(job * 2));
            result.unwrap();
            assert_eq!(sum, 100 * 101);
        }
    }

    #[test]
    fn run_with_fewer_threads_than_workers_gives_every_result_once() {
        for threads in [0, 1, 3] {
            let (result, sum) = limit::with(threads, || sum(&settings(4, 0), |job| Ok(job * 2)));
            result.unwrap();
            assert_eq!(sum, 100 * 101, "{threads}");
        }
    }

    #[test]
    fn jobs_of_a_worker_without_a_thread_are_done_too() {
        let mut queues = [vec![1], vec![2, 3], vec![4, 5, 6]];
        let mut done = Vec::new();
        let settings = settings(3, 0);
        let crew = Crew { settings: &settings, cancel: &CancelToken::new() };
        let run = || {
            crew.run(
                |worker| Ok(queues[worker as usize - 1].pop()),
                |_, _| Ok(()),
                |(), job, _| Ok(*job),
                |event| {
                    if let Event::Done { worker, result, .. } = event {
                        done.push((worker, result?));
                    }
                    Ok(())
                },
            )
        };
        limit::with(1, run).unwrap();
        assert_eq!(done, [(1, 1), (2, 3), (2, 2), (3, 6), (3, 5), (3, 4)]);
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

    /// Returns the jobs that ended, with the code of the error of those that failed, where failures end nothing.
    fn outcomes(goes_on: bool, work: impl Fn(u32) -> Result<()> + Sync) -> Vec<(u32, Option<ErrorCode>)> {
        let settings = CrewSettings { goes_on, ..settings(1, 0) };
        let mut jobs = 0..5;
        let mut seen = Vec::new();
        let note = |event: Event<u32, ()>| {
            if let Event::Done { job, result, .. } = event {
                seen.push((job, result.err().map(|error| error.code)));
            }
            Ok(())
        };
        let crew = Crew { settings: &settings, cancel: &CancelToken::new() };
        crew.run(|_| Ok(jobs.next()), |_, _| Ok(()), |(), job, _| work(*job), note).unwrap();
        seen
    }

    #[test]
    fn failed_job_that_is_no_failure_of_the_crew_begins_nothing_new_unless_the_crew_goes_on() {
        let third = |job| if job == 2 { Err(Error::new(ErrorCode::FileWrite, "no")) } else { Ok(()) };
        let failed = (2, Some(ErrorCode::FileWrite));
        assert_eq!(outcomes(false, third), [(0, None), (1, None), failed]);
        assert_eq!(outcomes(true, third), [(0, None), (1, None), failed, (3, None), (4, None)]);
    }

    #[test]
    fn error_of_a_host_that_was_told_to_stop_was_replaced_by_its_consequence() {
        let third = |job| match job {
            2 => Err(Error::new(ErrorCode::Term, "raised from remote-1").cause(PeerFault)),
            // It ends once the crew is stopped
            3 => {
                std::thread::sleep(Duration::from_millis(200));
                Err(Error::new(ErrorCode::FileWrite, "unable to end the write"))
            }
            job => Ok(job * 2),
        };
        let error = sum(&settings(2, 0), third).0.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Term, "raised from remote-1"));
    }

    #[test]
    fn panic_of_a_worker_is_an_error_of_its_job() {
        let third = |job| if job == 2 { panic!("on purpose") } else { Ok(()) };
        assert_eq!(outcomes(true, third)[2], (2, Some(ErrorCode::Assert)));
        let (result, _) = sum(&settings(2, 3), |job| if job == 50 { panic!("boom {job}") } else { Ok(job * 2) });
        let error = result.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Assert, "worker failed: boom 50"));
    }

    #[test]
    fn panic_while_looking_for_the_next_job_is_an_error() {
        let jobs = std::iter::from_fn(|| panic!("no job"));
        let error = run_all(&settings(2, 0), &CancelToken::new(), jobs, |_, _| Ok(()), |_, ()| Ok(())).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Assert, "worker failed: no job"));
    }

    #[test]
    fn run_retries_failed_jobs() {
        let failures = AtomicU32::new(2);
        let flaky = |job| {
            let fails =
                job == 7 && failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if fails { Err(Error::new(ErrorCode::FileRead, "flaky")) } else { Ok(job * 2) }
        };
        let (result, sum) = sum(&settings(2, 2), flaky);
        result.unwrap();
        assert_eq!(sum, 100 * 101);
    }

    #[test]
    fn job_that_waits_for_its_retry_lets_another_compute() {
        let settings =
            CrewSettings { jobs_per_worker: 2, ..CrewSettings::new(1, RetryPolicy::new(2, Duration::from_secs(3600))) };
        let (cancel, other) = (CancelToken::new(), AtomicBool::new(false));
        // The second retry of the first job is far away. With the slot held meanwhile, the second job would never run
        let work = |job, _: &CancelToken| {
            if job == 1 {
                other.store(true, Ordering::SeqCst);
                cancel.cancel_by_signal(15);
                return Ok(());
            }
            Err(Error::new(ErrorCode::FileRead, "flaky"))
        };
        run_all(&settings, &cancel, 0..2, work, |_, ()| Ok(())).unwrap_err();
        assert!(other.load(Ordering::SeqCst));
    }

    #[test]
    fn run_with_error_on_calling_thread_stops() {
        let mut seen = 0;
        let full = |_, ()| {
            seen += 1;
            Err(Error::new(ErrorCode::FileWrite, "full"))
        };
        let result = run_all(&settings(3, 0), &CancelToken::new(), 0..1000, |_, _| Ok(()), full);
        assert_eq!(result.unwrap_err().code, ErrorCode::FileWrite);
        assert!(seen < 1000);
    }

    #[test]
    fn run_with_panic_on_calling_thread_ends() {
        let run =
            || run_all(&settings(2, 0), &CancelToken::new(), 0..1000, |_, _| Ok(()), |_, ()| panic!("calling thread"));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }

    #[test]
    fn run_cancelled_by_signal_returns_term() {
        let cancel = CancelToken::new();
        let work = |job, group: &CancelToken| {
            if job == 5 {
                cancel.cancel_by_signal(15);
            }
            group.check()
        };
        let error = run_all(&settings(2, 2), &cancel, 0..1000, work, |_, ()| Ok(())).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Term, "terminated on signal SIGTERM"));
    }

    #[test]
    fn stopping_is_told_while_a_job_still_waits() {
        let (cancel, told) = (CancelToken::new(), AtomicBool::new(false));
        let work = |(): &mut (), job: &u32, _: &CancelToken| {
            if *job == 0 {
                cancel.cancel_by_signal(15);
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
        let (settings, mut jobs) = (settings(2, 0), 0..1000);
        let crew = Crew { settings: &settings, cancel: &cancel };
        crew.run(|_| Ok(jobs.next()), |_, _| Ok(()), work, on_event).unwrap_err();
        assert_eq!(times, 1);
    }

    #[test]
    fn state_of_a_thread_is_kept_between_jobs_and_renewed_after_an_error() {
        let begun = AtomicU32::new(0);
        let begin = |_, _: &Turn| Ok(begun.fetch_add(1, Ordering::SeqCst));
        let failed = AtomicU32::new(0);
        let work = |_: &mut u32, job: &u32, _: &CancelToken| {
            if *job == 5 && failed.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(Error::new(ErrorCode::FileRead, "once"));
            }
            Ok(())
        };
        let (settings, mut jobs) = (settings(1, 1), 0..10);
        let crew = Crew { settings: &settings, cancel: &CancelToken::new() };
        crew.run(|_| Ok(jobs.next()), begin, work, |_| Ok(())).unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }
}
