//! Repeats a step that failed.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::{Error, ErrorCode, Result};

/// When a failed step is repeated.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// The pause before each retry.
    intervals: Vec<Duration>,
    /// Whether a retry after this pause can't help.
    is_final: fn(&Error, Duration) -> bool,
}

impl RetryPolicy {
    /// Repeats nothing.
    pub const NONE: Self = RetryPolicy { intervals: Vec::new(), is_final: |_, _| true };

    /// Repeats a failed step `count` times: the first time at once, then after `interval` each.
    pub fn new(count: u32, interval: Duration) -> Self {
        let intervals = (0..count).map(|retry| if retry == 0 { Duration::ZERO } else { interval }).collect();
        RetryPolicy { intervals, is_final: |_, _| false }
    }

    /// The same retries, except after errors that a retry after the next pause does not change.
    #[must_use]
    pub fn with_final(self, is_final: fn(&Error, Duration) -> bool) -> Self {
        RetryPolicy { is_final, ..self }
    }

    /// Runs a step until it succeeds, its error is final or no retry is left. `pause` sleeps, and fails if the retries
    /// are to end.
    ///
    /// # Errors
    /// The first error. It lists the errors of the retries as pgBackRest does (`src/common/error/retry.c`): the first
    /// message, then each further message with its time.
    pub fn run<R>(&self, pause: impl Fn(Duration) -> Result<()>, mut step: impl FnMut() -> Result<R>) -> Result<R> {
        let mut failures = Failures::begin();
        let mut intervals = self.intervals.iter();
        loop {
            let error = match step() {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let may_help = |interval: &&Duration| !is_always_final(&error) && !(self.is_final)(&error, **interval);
            let interval = intervals.next().filter(may_help);
            let first = failures.add(error);
            let Some(interval) = interval else { break };
            crate::debug!("retry {} after {}ms: {first}", first.code, interval.as_millis());
            // If this is stopped while it waits, the earlier error is more informative
            if pause(*interval).is_err() {
                break;
            }
        }
        Err(failures.into_error(|| Error::new(ErrorCode::Assert, "a step failed without an error")))
    }

    /// The same for a step some of whose errors are an answer, for example that a file is damaged. Such an error ends
    /// the retries, and is returned alone, whatever the tries before it returned.
    ///
    /// # Errors
    /// The same as [`RetryPolicy::run`], and the errors that are an answer.
    pub(crate) fn run_to_answer<R>(
        &self,
        pause: impl Fn(Duration) -> Result<()>,
        is_answer: impl Fn(&Error) -> bool,
        mut step: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        self.run(pause, || match step() {
            Err(error) if !is_answer(&error) => Err(error),
            answer => Ok(answer),
        })?
    }

    /// The same for a step whose errors about the content of a file count more than what failed before: a file that is
    /// damaged when it is read again was not only out of reach. Such errors end no retries, because the damage may be on
    /// the way.
    ///
    /// # Errors
    /// The same as [`RetryPolicy::run_to_answer`]. If its error is not about content, the first one that is.
    pub(crate) fn run_to_finding<R>(
        &self,
        pause: impl Fn(Duration) -> Result<()>,
        is_answer: impl Fn(&Error) -> bool,
        mut step: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        let mut damage = None;
        let result = self.run_to_answer(pause, is_answer, || {
            step().inspect_err(|error| {
                if is_about_content(error) && damage.is_none() {
                    damage = Some(retold(error));
                }
            })
        });
        result.map_err(|error| if is_about_content(&error) { error } else { damage.unwrap_or(error) })
    }
}

/// How often [`patiently`] repeats a failed read.
const READ_RETRIES: u32 = 3;
/// Its pause before all retries but the first.
const READ_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });

/// Reads, again if that fails for a reason that may pass. For a file that a command needs only at its end, when much would be
/// lost.
///
/// # Errors
/// The error of the first try, or one about the content of what is read.
pub(crate) fn patiently<R>(read: impl FnMut() -> Result<R>) -> Result<R> {
    let pause = |time| {
        std::thread::sleep(time);
        Ok(())
    };
    let policy = RetryPolicy::new(READ_RETRIES, READ_INTERVAL)
        .with_final(|error, pause| is_lasting_locally(error) && !pause.is_zero());
    policy.run_to_answer(pause, is_about_content, read)
}

/// A retry can't help after a signal or a broken invariant of this process. Those of a process on another host end only the
/// connection to it.
fn is_always_final(error: &Error) -> bool {
    matches!(error.code, ErrorCode::Term | ErrorCode::Assert) && !is_of_peer(error)
}

/// Returns whether the error is that this process, or a part of it, was told to stop. A process on another host that was told to
/// stop ends its connections with the same code.
pub fn is_stop(error: &Error) -> bool {
    error.code == ErrorCode::Term && !is_of_peer(error)
}

/// The errors of all tries of one thing.
pub(crate) struct Failures {
    begun: Instant,
    first: Option<Error>,
    more: Vec<Retried>,
}

impl Failures {
    /// Starts the clock. The first try follows.
    pub(crate) fn begin() -> Self {
        Failures { begun: Instant::now(), first: None, more: Vec::new() }
    }

    /// Adds the error of a try. Returns the first one.
    pub(crate) fn add(&mut self, error: Error) -> &Error {
        if self.first.is_some() {
            add(&mut self.more, &error, self.begun.elapsed());
        }
        self.first.get_or_insert(error)
    }

    /// Returns the first error, whose message lists the later ones, or the error of `none` without any.
    pub(crate) fn into_error(self, none: impl FnOnce() -> Error) -> Error {
        self.first.map_or_else(none, |first| told(first, &self.more))
    }
}

/// Equal errors of retries.
struct Retried {
    code: ErrorCode,
    text: String,
    count: u32,
    first_ms: u128,
    last_ms: u128,
}

fn add(more: &mut Vec<Retried>, error: &Error, at: Duration) {
    let (text, at_ms) = (error.to_string(), at.as_millis());
    match more.iter_mut().find(|known| known.text == text) {
        Some(known) => (known.count, known.last_ms) = (known.count + 1, at_ms),
        None => more.push(Retried { code: error.code, text, count: 1, first_ms: at_ms, last_ms: at_ms }),
    }
}

/// Adds the errors of the retries to the message of the first error.
fn told(mut first: Error, more: &[Retried]) -> Error {
    if more.is_empty() {
        return first;
    }
    let mut message = first.to_string();
    for Retried { code, text, count, first_ms, last_ms } in more {
        message += &if first_ms == last_ms {
            format!("\n    [{code}] on retry at {first_ms}ms: {text}")
        } else {
            format!("\n    [{code}] on {count} retries from {first_ms}-{last_ms}ms: {text}")
        };
    }
    // They are in the text now
    first.hints.clear();
    first.message = message;
    first
}

/// Returns whether an error of reading a file of a local disk stays the same after a pause: the file is damaged, missing
/// or may not be read. On a server these may be errors of the moment.
pub(crate) fn is_lasting_locally(error: &Error) -> bool {
    is_about_content(error) || is_refused(error)
}

/// The cause of errors that tell about a connection to another host, or about an answer that can't be read, and nothing about files.
/// They have the codes that pgBackRest has for them, some of which otherwise tell that a file is damaged.
#[derive(Debug, thiserror::Error)]
#[error("connection to another host failed")]
pub(crate) struct PeerFault;

/// Returns whether the error is about a connection to another host.
pub(crate) fn is_of_peer(error: &Error) -> bool {
    error.source.as_deref().is_some_and(|source| source.is::<PeerFault>())
}

/// Returns whether the error is that a file is missing. An SSH client that fails may end with the same code.
pub(crate) fn is_missing(error: &Error) -> bool {
    error.code == ErrorCode::FileMissing && !is_of_peer(error)
}

/// Returns an error that was made of others. It is about a connection to another host if one of them is.
pub(crate) fn made_of(error: Error, others: &[&Error]) -> Error {
    if others.iter().any(|other| is_of_peer(other)) { error.cause(PeerFault) } else { error }
}

/// Returns the same error for a second reader, without what it is about on this system.
pub(crate) fn retold(error: &Error) -> Error {
    let same = error.hints.iter().fold(Error::new(error.code, error.message.clone()), Error::hint);
    made_of(same, &[error])
}

/// Returns whether the error is about the content of a file, or that it is missing.
pub(crate) fn is_about_content(error: &Error) -> bool {
    let is_of_content = matches!(
        error.code,
        ErrorCode::Checksum
            | ErrorCode::Crypto
            | ErrorCode::FileInvalid
            | ErrorCode::FileMissing
            | ErrorCode::Format
            | ErrorCode::JsonFormat
            | ErrorCode::VersionNotSupported
    );
    is_of_content && !is_of_peer(error)
}

/// Returns whether the system refuses to open or read a file because of what the file or its path is.
pub(crate) fn is_refused(error: &Error) -> bool {
    errno_of_read(error).is_some_and(|errno| REFUSALS.contains(&errno))
}

/// Returns whether the system can't open or read a file, and will not be able to later: it refuses, or what is stored can't be
/// read.
pub(crate) fn is_unreadable(error: &Error) -> bool {
    errno_of_read(error).is_some_and(|errno| REFUSALS.contains(&errno) || BROKEN.contains(&errno))
}

/// The errors of a system that refuses.
const REFUSALS: [Errno; 6] = [Errno::ACCESS, Errno::PERM, Errno::ISDIR, Errno::NOTDIR, Errno::LOOP, Errno::NAMETOOLONG];
/// The errors of a broken disk or file system. Linux has two of its own for file systems: a structure that is damaged
/// (`EUCLEAN`), and a wrong checksum (`EBADMSG`).
const BROKEN: [Errno; 6] = [Errno::IO, Errno::NODATA, Errno::REMOTEIO, Errno::ILSEQ, Errno::UCLEAN, Errno::BADMSG];

/// The system's error for a file that can't be opened or read.
fn errno_of_read(error: &Error) -> Option<Errno> {
    let source = error.source.as_deref()?.downcast_ref::<std::io::Error>()?;
    Errno::from_io_error(source).filter(|_| matches!(error.code, ErrorCode::FileOpen | ErrorCode::FileRead))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CancelToken;

    fn sleep(pause: Duration) -> Result<()> {
        CancelToken::new().sleep(pause)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// Returns the error of a step that always fails with this code, and how often it was tried.
    fn fail(policy: &RetryPolicy, code: ErrorCode) -> (Error, u32) {
        let mut tries = 0;
        let step = || {
            tries += 1;
            Err::<(), _>(Error::new(code, format!("try {}", tries.min(2))).hint("look"))
        };
        let error = policy.run(sleep, step).unwrap_err();
        (error, tries)
    }

    #[test]
    fn step_that_succeeds_in_the_end_has_no_error() {
        let mut left = 3;
        let step = || {
            left -= 1;
            if left > 0 { Err(Error::new(ErrorCode::FileRead, "flaky")) } else { Ok(left) }
        };
        assert_eq!(RetryPolicy::new(2, Duration::ZERO).run(sleep, step).unwrap(), 0);
    }

    #[test]
    fn error_of_retries_is_the_first_with_a_line_for_each_further_message() {
        let (error, tries) = fail(&RetryPolicy::new(3, Duration::from_millis(2)), ErrorCode::FileRead);
        let lines: Vec<&str> = error.message.lines().collect();
        assert_eq!((tries, lines[0], error.hints.len()), (4, "try 1", 0));
        assert!(lines.iter().any(|line| line.starts_with("    [FileReadError] on 3 retries from ")), "{lines:?}");
        let (error, tries) = fail(&RetryPolicy::new(1, HOUR), ErrorCode::FileRead);
        assert_eq!(tries, 2);
        assert!(error.message.contains("\n    [FileReadError] on retry at "), "{}", error.message);
    }

    #[test]
    fn error_without_retries_keeps_its_message_and_hints() {
        let (error, tries) = fail(&RetryPolicy::NONE, ErrorCode::FileRead);
        assert_eq!((tries, error.message.as_str(), error.hints.len()), (1, "try 1", 1));
    }

    #[test]
    fn final_error_is_not_retried_and_one_that_lasts_is_never_waited_for() {
        let hours = RetryPolicy::new(3, HOUR);
        assert_eq!(fail(&hours, ErrorCode::Term).1, 1);
        assert_eq!(fail(&hours, ErrorCode::Assert).1, 1);
        let policy = hours.with_final(|error, pause| is_lasting_locally(error) && !pause.is_zero());
        assert_eq!(fail(&policy, ErrorCode::Checksum).1, 2);
        let policy = policy.with_final(|error, _| error.code == ErrorCode::ArchiveDuplicate);
        assert_eq!(fail(&policy, ErrorCode::ArchiveDuplicate).1, 1);
    }

    #[test]
    fn end_of_another_process_was_taken_for_a_signal_or_a_fault_of_this_one() {
        for code in [ErrorCode::Term, ErrorCode::Assert] {
            let mut tries = 0;
            let step = || {
                tries += 1;
                if tries == 1 { Err(Error::new(code, "raised from remote-1").cause(PeerFault)) } else { Ok(tries) }
            };
            assert_eq!(RetryPolicy::new(1, HOUR).run(sleep, step).unwrap(), 2);
        }
        let error = || Error::new(ErrorCode::Term, "terminated on signal SIGTERM");
        assert!(is_stop(&error()) && !is_stop(&error().cause(PeerFault)));
    }

    #[test]
    fn answer_after_a_failed_try_is_returned_alone() {
        let mut codes = [ErrorCode::FileRead, ErrorCode::FileMissing].into_iter();
        let step = || Err::<(), _>(Error::new(codes.next().unwrap(), "x"));
        let policy = RetryPolicy::new(1, HOUR);
        let error = policy.run_to_answer(sleep, is_about_content, step).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::FileMissing, "x"));
    }

    #[test]
    fn retry_that_is_cancelled_while_it_waits_returns_the_earlier_error() {
        let cancel = CancelToken::new();
        let step = || {
            cancel.cancel();
            Err::<(), _>(Error::new(ErrorCode::FileRead, "flaky"))
        };
        let error = RetryPolicy::new(1, HOUR).run(|pause| cancel.sleep(pause), step).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::FileRead, "flaky"));
    }

    #[test]
    fn end_of_a_connection_had_the_code_of_a_damaged_file() {
        let error = || Error::new(ErrorCode::Format, "unexpected EOF");
        assert!(is_about_content(&error()));
        let ended = error().cause(PeerFault);
        assert!(!is_about_content(&ended) && !is_lasting_locally(&ended));
        // As if the SSH client ended with this status
        assert!(!is_missing(&Error::new(ErrorCode::FileMissing, "terminated unexpectedly [55]").cause(PeerFault)));
        assert!(is_missing(&Error::new(ErrorCode::FileMissing, "missing file")));
        // It keeps its cause behind a stream, and among the errors of retries
        let ended = Error::from_io(ErrorCode::FileRead, "unable to read", ended.into());
        let ended = RetryPolicy::new(1, Duration::ZERO).run::<()>(sleep, {
            let mut first = Some(ended);
            move || Err(first.take().unwrap_or_else(error))
        });
        assert!(!is_about_content(&ended.unwrap_err().context("remote-0")));
    }

    #[test]
    fn error_made_of_others_lost_that_one_was_about_a_connection() {
        let damaged = || Error::new(ErrorCode::Format, "unexpected EOF").hint("look");
        let ended = || damaged().cause(PeerFault);
        assert!(!is_about_content(&retold(&ended())) && is_about_content(&retold(&damaged())));
        assert_eq!(retold(&ended()).to_string(), ended().to_string());
        for (first, second) in [(ended(), ended()), (damaged(), ended()), (ended(), damaged())] {
            assert!(!is_about_content(&made_of(damaged(), &[&first, &second])));
        }
        assert!(is_about_content(&made_of(damaged(), &[&damaged(), &damaged()])));
    }

    #[test]
    fn damage_that_a_retry_met_counted_as_what_had_failed_before() {
        let ended = || Error::new(ErrorCode::Format, "ended").cause(PeerFault);
        let damaged = || Error::new(ErrorCode::Crypto, "damaged");
        let busy = || Error::new(ErrorCode::Service, "busy");
        let run = |errors: Vec<Error>| {
            let retries = u32::try_from(errors.len()).unwrap() - 1;
            let mut errors = errors.into_iter();
            let step = || errors.next().map_or(Ok(()), Err);
            RetryPolicy::new(retries, Duration::ZERO).run_to_finding(sleep, |_| false, step)
        };
        for errors in [
            vec![ended(), damaged()],
            vec![busy(), damaged()],
            vec![ended(), damaged(), ended()],
            vec![ended(), busy(), damaged()],
        ] {
            let error = run(errors).unwrap_err();
            assert!(is_about_content(&error) && error.message == "damaged", "{error}");
        }
        let error = run(vec![damaged(), ended()]).unwrap_err();
        assert!(is_about_content(&error) && error.message.starts_with("damaged\n"), "{error}");
        assert!(!is_about_content(&run(vec![ended(), busy()]).unwrap_err()));
        // The damage was only on the way
        let mut errors = [ended(), damaged()].into_iter();
        let policy = RetryPolicy::new(2, Duration::ZERO);
        policy.run_to_finding(sleep, |_| false, || errors.next().map_or(Ok(()), Err)).unwrap();
    }

    #[test]
    fn refusal_of_the_system_is_lasting_and_a_failing_disk_is_not() {
        let error = |errno: rustix::io::Errno| {
            Error::from_io(ErrorCode::FileOpen, "unable to open file 'x' for read", errno.into())
        };
        assert!(is_lasting_locally(&error(rustix::io::Errno::ACCESS)));
        assert!(is_lasting_locally(&error(rustix::io::Errno::ISDIR)));
        assert!(!is_lasting_locally(&error(rustix::io::Errno::IO)));
        assert!(is_unreadable(&error(Errno::IO)) && is_unreadable(&error(Errno::ACCESS)));
        // Neither says anything about the file
        assert!(!is_unreadable(&error(Errno::MFILE)) && !is_unreadable(&error(Errno::STALE)));
    }
}
