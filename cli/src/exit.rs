//! How a process ends: exit status, the error line, signals.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use engine::ending::{is_cleaning, is_saving};
use engine::{CancelToken, Error, ErrorCode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::Config;
use crate::identity::ProgramName;
use crate::{log, running, summary};

/// The exit status of a command that does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// All went well.
    pub const SUCCESS: ExitStatus = ExitStatus(0);
    /// archive-get, repo-get: the file does not exist.
    pub const NOT_FOUND: ExitStatus = ExitStatus(1);
    /// init: something is left to do.
    pub const LEFT_TO_DO: ExitStatus = ExitStatus(1);
}

/// How long a command that only waits may take to stop after a signal. Then the process ends, which is safe at any
/// time.
const WAITING_MAX: Duration = Duration::from_secs(1);
/// How long the removal of leftovers may take.
const CLEANING_MAX: Duration = Duration::from_secs(10);
/// How long the last output may take after a signal.
const OUTPUT_MAX: Duration = Duration::from_secs(5);
/// How often to check whether the command may be ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

static CANCEL: OnceLock<CancelToken> = OnceLock::new();

/// Whether it is decided how the process ends: by the result of its command, or by a signal. Only one of them counts.
static DECIDED: AtomicBool = AtomicBool::new(false);

/// While set, a signal ends a process that has no thread to handle it.
static ENDS_AT_ONCE: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The last signal that came; 0 for none. Unlike the token, it is set before the process does anything else.
static SIGNALLED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// What is to be done before a signal ends the process although its command has not stopped.
type BeforeEnd = Box<dyn Fn(&Error) + Send + Sync>;

static BEFORE_END: OnceLock<BeforeEnd> = OnceLock::new();

/// Whether a second signal changes nothing.
static ONE_SIGNAL: AtomicBool = AtomicBool::new(false);

/// A second signal does not end the process at once: the first may come from whoever ends all processes of a service, and the second
/// from the server that has started this one.
pub(crate) fn end_by_first_signal() {
    ONE_SIGNAL.store(true, Ordering::Relaxed);
}

/// Sets what is to be done before a signal ends the process although its command has not stopped in its time. It gets the error
/// of that end, and must not wait. Only the first call counts.
pub(crate) fn before_end_by_signal(run: impl Fn(&Error) + Send + Sync + 'static) {
    let _ = BEFORE_END.set(Box::new(run));
}

/// The token that SIGHUP, SIGINT and SIGTERM cancel.
pub fn cancel_token() -> &'static CancelToken {
    CANCEL.get_or_init(CancelToken::new)
}

/// Starts to handle signals. The first signal cancels [`cancel_token`]. A second one ends the process,
/// except after [`end_by_first_signal`]. The handler thread also ends it once the command has had its time to stop.
///
/// # Errors
/// [`ErrorCode::Kernel`] if the handlers can't be installed.
pub(crate) fn catch_signals() -> engine::Result<()> {
    let failed = |error| Error::from_io(ErrorCode::Kernel, "unable to catch signals", error);
    note_signals(&[SIGHUP, SIGINT, SIGTERM], SIGNALLED.get_or_init(Arc::default)).map_err(failed)?;
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    let handle = signals.handle();
    let listen = move || {
        let Some(first) = signals.forever().next() else { return };
        cancel_token().cancel_by_signal(first);
        let mut stop = StopTime { signalled: Instant::now(), waiting_since: Instant::now() };
        loop {
            let has_second = signals.pending().next().is_some() && !ONE_SIGNAL.load(Ordering::Relaxed);
            if has_second || stop.is_over(Instant::now(), is_saving(), is_cleaning()) {
                if decide() {
                    end_by_signal(first);
                }
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024);
    if thread.spawn(listen).is_err() {
        // The system gives no more threads
        handle.close();
        return end_on_signals();
    }
    Ok(())
}

/// Has signals noted when they come. The thread that handles them may be late: a terminal sends its signals to SSH clients, too,
/// and their end must not look like the reason.
fn note_signals(signals: &[i32], last: &Arc<AtomicUsize>) -> std::io::Result<()> {
    signals.iter().try_for_each(|signal| {
        let value = usize::try_from(*signal).unwrap_or_default();
        signal_hook::flag::register_usize(*signal, Arc::clone(last), value).map(drop)
    })
}

/// Returns the signal that came, also if nobody has handled it yet.
fn signal_that_came(cancel: &CancelToken, last: Option<&AtomicUsize>) -> Option<i32> {
    let noted = || last.and_then(|last| i32::try_from(last.load(Ordering::SeqCst)).ok()).filter(|signal| *signal != 0);
    cancel.signal().or_else(noted)
}

/// Measures how long a command takes to stop.
struct StopTime {
    signalled: Instant,
    /// Since when nothing is being saved.
    waiting_since: Instant,
}

impl StopTime {
    /// Returns whether the time is over.
    fn is_over(&mut self, now: Instant, is_saving: bool, is_cleaning: bool) -> bool {
        if is_saving {
            self.waiting_since = now;
            return false;
        }
        let (since, limit) =
            if is_cleaning { (self.signalled, CLEANING_MAX) } else { (self.waiting_since, WAITING_MAX) };
        now.saturating_duration_since(since.max(self.waiting_since)) >= limit
    }
}

/// Returns whether the caller is the first to decide how the process ends.
fn decide() -> bool {
    !DECIDED.swap(true, Ordering::SeqCst)
}

/// Logs the signal and ends the process.
fn end_by_signal(signal: i32) -> ! {
    if let Some(run) = BEFORE_END.get() {
        run(&terminated(signal));
    }
    tell_signal(signal);
    daemon::trace::end(ErrorCode::Term.number(), Some(&format!("terminated on signal {}", signal_name(signal))));
    engine::lock::remove_files();
    std::process::exit(i32::from(ErrorCode::Term.number()))
}

/// Prints the summary and logs the signal, unless nobody reads that: a full pipe must not keep the process from ending.
/// Until the process ends, its workers may go on, so that its lock files must stay.
fn tell_signal(signal: i32) {
    let (sender, told) = channel();
    let tell = move || {
        // The process ends for another reason
        let _ = summary::end(Some(&terminated(signal)));
        log::signal(signal_name(signal), running::is_quiet());
        let _ = sender.send(());
    };
    // Without a thread there is no time limit either, so nothing is told
    if std::thread::Builder::new().name("output".to_owned()).spawn(tell).is_ok() {
        let _ = told.recv_timeout(OUTPUT_MAX);
    }
}

fn terminated(signal: i32) -> Error {
    Error::new(ErrorCode::Term, format!("terminated on signal {}", signal_name(signal)))
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        SIGHUP => "SIGHUP",
        SIGINT => "SIGINT",
        _ => "SIGTERM",
    }
}

/// Makes SIGHUP, SIGINT and SIGTERM end the process at once with the status of a terminated command. This is for short
/// commands that can be interrupted anywhere and should not start a handler thread.
///
/// # Errors
/// [`ErrorCode::Kernel`] if the handlers can't be installed.
pub(crate) fn end_on_signals() -> engine::Result<()> {
    let active = ENDS_AT_ONCE.get_or_init(|| Arc::new(AtomicBool::new(true)));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        let status = i32::from(ErrorCode::Term.number());
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(active))
            .map_err(|error| Error::from_io(ErrorCode::Kernel, "unable to catch signals", error))?;
    }
    Ok(())
}

/// Converts the outcome of a command to the exit status, and logs the error and the end line. `config` is `Some` once
/// options were resolved.
///
/// A command that completed its work reports success, even if a signal arrived that it no longer reacted to.
pub(crate) fn finish(outcome: engine::Result<ExitStatus>, config: Option<&Config>) -> u8 {
    if let Some(active) = ENDS_AT_ONCE.get() {
        active.store(false, Ordering::SeqCst);
    }
    if !decide() {
        // The thread that handles signals is ending the process
        loop {
            std::thread::park();
        }
    }
    let signal = signal_that_came(cancel_token(), SIGNALLED.get().map(|last| &**last));
    let outcome = end_summary(outcome, signal);
    match (&outcome, signal) {
        (Ok(status), _) => daemon::trace::end(status.0, None),
        (Err(error), None) => daemon::trace::end(error.code.number(), Some(&error.to_string())),
        (Err(_), Some(signal)) => {
            let text = format!("terminated on signal {}", signal_name(signal));
            daemon::trace::end(ErrorCode::Term.number(), Some(&text));
        }
    }
    match (outcome, signal) {
        (Ok(status), _) => {
            running::end(None);
            status.0
        }
        (Err(error), Some(signal)) => {
            if error.code != ErrorCode::Term {
                // It came before the signal, or it is what ended the wait
                log::error(&error, || detail(&error, config));
            }
            log::signal(signal_name(signal), running::is_quiet());
            ErrorCode::Term.number()
        }
        (Err(error), None) => {
            log::error(&error, || detail(&error, config));
            running::end(Some(error.code));
            error.code.number()
        }
    }
}

/// Prints the summary. A command whose summary nobody gets has failed.
fn end_summary(outcome: engine::Result<ExitStatus>, signal: Option<i32>) -> engine::Result<ExitStatus> {
    match (&outcome, signal) {
        (Ok(_), _) => summary::end(None)?,
        // The error that ended the command comes first
        (Err(error), None) => drop(summary::end(Some(error))),
        (Err(_), Some(signal)) => drop(summary::end(Some(&terminated(signal)))),
    }
    outcome
}

/// Converts a panic to an error of the command. The panic itself was already reported on standard error.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "unknown panic",
    };
    Error::new(ErrorCode::Assert, format!("program failed: {text}"))
}

/// Returns details about an error, for outputs that show debug messages.
fn detail(error: &Error, config: Option<&Config>) -> String {
    let rule = "-".repeat(68);
    let (version, command, options) = match config {
        Some(config) => {
            (ProgramName::of(config.program()).title(), config.command().role_name(config.role()), config.begin_text())
        }
        None => (ProgramName::Rbr.title(), String::new(), String::new()),
    };
    let mut causes = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes += &format!("\n    {inner}");
        cause = inner.source();
    }
    format!(
        "{rule}\nIf SUBMITTING AN ISSUE please provide the following information:\n\nversion: {version}\n\
         command: {command}\noptions:{options}\n\ncauses:{causes}\n{rule}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step is a time in milliseconds with the work in progress. Returns whether the process ends at each step.
    fn over(steps: &[(u64, bool, bool)]) -> Vec<bool> {
        let begin = Instant::now();
        let mut stop = StopTime { signalled: begin, waiting_since: begin };
        steps
            .iter()
            .map(|&(ms, is_saving, is_cleaning)| {
                stop.is_over(begin + Duration::from_millis(ms), is_saving, is_cleaning)
            })
            .collect()
    }

    #[test]
    fn signal_that_nobody_had_handled_yet_was_not_the_reason_why_a_command_ends() {
        let (cancel, last) = (CancelToken::new(), Arc::default());
        assert_eq!(signal_that_came(&cancel, Some(&last)), None);
        // One that means nothing to this process
        let signal = signal_hook::consts::SIGWINCH;
        note_signals(&[signal], &last).unwrap();
        signal_hook::low_level::raise(signal).unwrap();
        assert_eq!(signal_that_came(&cancel, Some(&last)), Some(signal));
        // The first one stays the reason
        cancel.cancel_by_signal(SIGTERM);
        assert_eq!(signal_that_came(&cancel, Some(&last)), Some(SIGTERM));
        assert_eq!(signal_that_came(&CancelToken::new(), None), None);
    }

    #[test]
    fn command_that_only_waits_after_a_signal_is_ended_soon() {
        assert_eq!(over(&[(0, false, false), (999, false, false), (1000, false, false)]), [false, false, true]);
    }

    #[test]
    fn saving_after_a_signal_is_never_cut_short_and_what_follows_has_its_own_time() {
        let hour = 3_600_000;
        assert_eq!(
            over(&[(100, true, false), (hour, true, false), (hour + 999, false, false), (hour + 1000, false, false)]),
            [false, false, false, true]
        );
    }

    #[test]
    fn removal_of_what_would_be_left_over_has_longer_than_a_wait() {
        assert_eq!(over(&[(1000, false, true), (9_999, false, true), (10_000, false, true)]), [false, false, true]);
    }
}
