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

use facade::LevelFilter;

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
        $crate::log::facade::warn!(target: $crate::log::TARGET, process = $process; $($message)+)
    };
    ($($message:tt)+) => { $crate::log::facade::warn!(target: $crate::log::TARGET, $($message)+) };
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
