//! Log lines with pgBackRest's levels, passed to the sink that the program installed.
//!
//! The engine itself never prints. The levels are pgBackRest's. `detail`, between `info` and `debug`, has no
//! counterpart in the usual logging crates, which is why this small facade exists. Lines about the result of a worker
//! contain the worker's number (`P01`...). Others are from the main thread (`P00`).

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::ErrorCode;

/// The importance of a line. `log-level-*` options show this level and all above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Nothing is shown (only for options).
    Off = 0,
    /// The command fails, or a part of it did.
    Error = 1,
    /// Something that the operator should check.
    Warn = 2,
    /// The steps of a command.
    Info = 3,
    /// One line per file.
    Detail = 4,
    /// For debugging.
    Debug = 5,
    /// For debugging, with every call.
    Trace = 6,
}

/// A line on its way to a sink.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its level.
    pub level: Level,
    /// The worker that the line is about, 0 for the main thread.
    pub process: u32,
    /// The error number, for error lines.
    pub code: Option<ErrorCode>,
    /// The text, possibly of several lines.
    pub message: fmt::Arguments<'a>,
}

/// Receives log lines from any thread.
pub trait Sink: Send + Sync {
    /// Receives a line whose level is within the level given to [`install`].
    fn log(&self, record: &Record<'_>);
}

static SINK: OnceLock<Box<dyn Sink>> = OnceLock::new();
static LEVEL_MAX: AtomicU8 = AtomicU8::new(0);

/// Installs the sink once. Later calls change only the level.
pub fn install(sink: Box<dyn Sink>, level_max: Level) {
    // A second sink would split the log, so the first one stays
    let _ = SINK.set(sink);
    LEVEL_MAX.store(level_max as u8, Ordering::Relaxed);
}

/// Returns whether lines of this level are shown, to avoid building costly messages.
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL_MAX.load(Ordering::Relaxed)
}

/// Sends a line to the sink. The macros [`crate::info!`] and so on are shorter.
pub fn emit(level: Level, process: u32, code: Option<ErrorCode>, message: fmt::Arguments<'_>) {
    if enabled(level)
        && let Some(sink) = SINK.get()
    {
        sink.log(&Record { level, process, code, message });
    }
}

/// Logs an error that does not end the command by itself: `error!(code, "text {}", x)`.
#[macro_export]
macro_rules! error {
    ($code:expr, $($message:tt)+) => {
        $crate::log::emit($crate::log::Level::Error, 0, Some($code), format_args!($($message)+))
    };
}

/// Logs a warning.
#[macro_export]
macro_rules! warn {
    (process: $process:expr, $($message:tt)+) => {
        $crate::log::emit($crate::log::Level::Warn, $process, None, format_args!($($message)+))
    };
    ($($message:tt)+) => { $crate::log::emit($crate::log::Level::Warn, 0, None, format_args!($($message)+)) };
}

/// Logs a step of the command.
#[macro_export]
macro_rules! info {
    (process: $process:expr, $($message:tt)+) => {
        $crate::log::emit($crate::log::Level::Info, $process, None, format_args!($($message)+))
    };
    ($($message:tt)+) => { $crate::log::emit($crate::log::Level::Info, 0, None, format_args!($($message)+)) };
}

/// Logs what happened to one file.
#[macro_export]
macro_rules! detail {
    (process: $process:expr, $($message:tt)+) => {
        $crate::log::emit($crate::log::Level::Detail, $process, None, format_args!($($message)+))
    };
    ($($message:tt)+) => { $crate::log::emit($crate::log::Level::Detail, 0, None, format_args!($($message)+)) };
}

/// Logs a debug message.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log::emit($crate::log::Level::Debug, 0, None, format_args!($($message)+)) };
}
