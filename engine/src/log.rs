//! Log records, written to the [`log`](facade) facade. The program that uses the engine chooses where they go.
//!
//! Every record has the target [`TARGET`]. pgBackRest has a level `detail` between `info` and `debug`, with one line per
//! file. The facade's five levels are pgBackRest's five levels from `error` to `debug`:
//!
//! | pgBackRest | facade | what |
//! | --- | --- | --- |
//! | `error` | `Error` | the command fails, or a part of it did |
//! | `warn` | `Warn` | something that the operator should check |
//! | `info` | `Info` | the steps of a command |
//! | `detail` | `Debug` | one line per file |
//! | `debug` | `Trace` | for debugging |
//!
//! A record about the result of a worker has the worker's number under the key [`PROCESS`]. An error has its number
//! under the key [`CODE`].

#[doc(hidden)]
pub use ::log as facade;

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use facade::LevelFilter;

use crate::Result;

/// The target of all records.
pub const TARGET: &str = "rbr";
/// The key of the worker that a record is about. Records from the main thread do not have it.
pub const PROCESS: &str = "process";
/// The key of an error's number.
pub const CODE: &str = "code";

/// Returns whether lines per file are shown, to avoid building them in vain.
pub(crate) fn shows_detail() -> bool {
    facade::max_level() >= LevelFilter::Debug
}

/// How many texts [`Warnings`] keeps.
const TEXTS_MAX: usize = 1000;

/// The warnings that a command logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    /// The text of the first thousand.
    pub texts: Vec<String>,
    /// The number of all.
    pub total: u64,
}

/// Warnings that several threads collect.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Warnings>>);

impl Collector {
    fn lock(&self) -> MutexGuard<'_, Warnings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// Where the warnings of this thread are collected.
    static COLLECTOR: RefCell<Option<Collector>> = const { RefCell::new(None) };
}

/// Runs something and returns the warnings that it logged meanwhile, on this thread and on the workers that
/// it started.
pub(crate) fn collect_warnings<T>(run: impl FnOnce() -> T) -> (T, Warnings) {
    let collector = Collector::default();
    let result = Inherited(Some(collector.clone())).during(run);
    let warnings = std::mem::take(&mut *collector.lock());
    (result, warnings)
}

/// Runs a command, and returns its result, the warnings that it logged and how long it took.
pub(crate) fn observe<T>(run: impl FnOnce() -> Result<T>) -> Result<(T, Warnings, Duration)> {
    let started = Instant::now();
    let (result, warnings) = collect_warnings(run);
    Ok((result?, warnings, started.elapsed()))
}

/// Where the warnings of a thread are collected, for the threads that it starts.
pub(crate) struct Inherited(Option<Collector>);

impl Inherited {
    /// Where the warnings of the calling thread are collected.
    pub(crate) fn from_this_thread() -> Self {
        Inherited(COLLECTOR.with_borrow(Clone::clone))
    }

    /// Runs something whose warnings are collected there.
    pub(crate) fn during<T>(&self, run: impl FnOnce() -> T) -> T {
        /// Puts the former collector back, also after a panic.
        struct Former(Option<Collector>);
        impl Drop for Former {
            fn drop(&mut self) {
                COLLECTOR.set(self.0.take());
            }
        }
        let _former = Former(COLLECTOR.replace(self.0.clone()));
        run()
    }
}

/// Collects the warnings of a thread and of the workers that it starts, to take them from time to time.
#[derive(Default)]
pub(crate) struct WarningInbox(Collector);

impl WarningInbox {
    /// Runs something whose warnings are collected here.
    pub(crate) fn during<T>(&self, run: impl FnOnce() -> T) -> T {
        Inherited(Some(self.0.clone())).during(run)
    }

    /// Takes the warnings that have come.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock()).texts
    }
}

/// Adds a warning to those that are collected. [`crate::warn!`] calls it.
#[doc(hidden)]
pub fn collect_warning(text: fmt::Arguments<'_>) {
    let Some(collector) = COLLECTOR.with_borrow(Clone::clone) else { return };
    // Formatted before the lock, because what formats itself may log
    let text = text.to_string();
    let mut warnings = collector.lock();
    warnings.total += 1;
    if warnings.texts.len() < TEXTS_MAX {
        warnings.texts.push(text);
    }
}

/// Logs an error that does not end the command by itself: `error!(code, "text {}", x)`.
#[macro_export]
macro_rules! error {
    ($code:expr, $($message:tt)+) => {
        $crate::log::facade::error!(target: $crate::log::TARGET, code = $code.number(); $($message)+)
    };
}

/// Logs a warning.
#[macro_export]
macro_rules! warn {
    (process: $process:expr, $($message:tt)+) => {
        // Not `let`, because the arguments may contain temporary values
        match format_args!($($message)+) {
            text => {
                $crate::log::collect_warning(text);
                $crate::log::facade::warn!(target: $crate::log::TARGET, process = $process; "{text}")
            }
        }
    };
    ($($message:tt)+) => {
        match format_args!($($message)+) {
            text => {
                $crate::log::collect_warning(text);
                $crate::log::facade::warn!(target: $crate::log::TARGET, "{text}")
            }
        }
    };
}

/// Logs a step of the command.
#[macro_export]
macro_rules! info {
    (process: $process:expr, $($message:tt)+) => {
        $crate::log::facade::info!(target: $crate::log::TARGET, process = $process; $($message)+)
    };
    ($($message:tt)+) => { $crate::log::facade::info!(target: $crate::log::TARGET, $($message)+) };
}

/// Logs what happened to one file.
#[macro_export]
macro_rules! detail {
    (process: $process:expr, $($message:tt)+) => {
        $crate::log::facade::debug!(target: $crate::log::TARGET, process = $process; $($message)+)
    };
    ($($message:tt)+) => { $crate::log::facade::debug!(target: $crate::log::TARGET, $($message)+) };
}

/// Logs a debug message.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log::facade::trace!(target: $crate::log::TARGET, $($message)+) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_a_command_and_of_its_workers_are_collected() {
        let (value, warnings) = collect_warnings(|| {
            warn!("first {}", 1);
            let inherited = Inherited::from_this_thread();
            std::thread::spawn(move || inherited.during(|| warn!(process: 1, "second"))).join().unwrap();
            std::thread::spawn(|| warn!("of another command")).join().unwrap();
            info!("no warning");
            7
        });
        warn!("too late");
        assert_eq!((value, warnings.total), (7, 2));
        assert_eq!(warnings.texts, ["first 1", "second"]);
    }

    #[test]
    fn warnings_of_a_thread_are_taken_from_time_to_time() {
        let inbox = WarningInbox::default();
        inbox.during(|| warn!("first"));
        warn!("of another");
        assert_eq!(inbox.take(), ["first"]);
        let inherited = inbox.during(Inherited::from_this_thread);
        std::thread::spawn(move || inherited.during(|| warn!("second"))).join().unwrap();
        assert_eq!(inbox.take(), ["second"]);
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn warnings_of_a_command_within_another_are_its_own() {
        let ((_, inner), outer) = collect_warnings(|| {
            let inner = collect_warnings(|| warn!("inner"));
            warn!("outer");
            inner
        });
        assert_eq!((inner.texts, outer.texts), (vec!["inner".to_owned()], vec!["outer".to_owned()]));
    }

    #[test]
    fn warnings_without_end_are_counted_but_not_kept() {
        let ((), warnings) = collect_warnings(|| (0..TEXTS_MAX + 5).for_each(|number| warn!("{number}")));
        assert_eq!((warnings.texts.len(), warnings.total), (TEXTS_MAX, TEXTS_MAX as u64 + 5));
    }
}
