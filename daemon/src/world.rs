//! What the supervisor needs from outside: processes, files, and the time. Tests have their own.

use std::path::PathBuf;
use std::time::Duration;

use engine::Result;
use jiff::Timestamp;

use crate::job::JobKey;
use crate::state::JobState;

/// A moment, on the clock that people read and on one that never jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time of day.
    pub time: Timestamp,
    /// Since an arbitrary moment in the past.
    pub elapsed: Duration,
}

/// Identifies a process that the supervisor started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This program.
    Own {
        /// Its arguments.
        arguments: Vec<String>,
        /// Additional variables of the environment.
        environment: Vec<(String, String)>,
    },
    /// A command line for the shell.
    Shell(String),
}

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What to start.
    pub program: Program,
    /// Its standard input.
    pub input: String,
    /// Whether its standard output is returned instead of being that of this process.
    pub captures: bool,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Which.
    pub process: ProcessId,
    /// Its exit status, or the signal that ended it.
    pub status: std::result::Result<u8, i32>,
    /// Its standard output, if that was requested.
    pub output: String,
}

/// How to stop a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It may finish what it must not leave undone.
    Terminate,
    /// At once.
    Kill,
}

/// Starts and stops processes.
pub trait Processes {
    /// Starts a process.
    ///
    /// # Errors
    /// [`engine::ErrorCode::Execute`]
    fn start(&mut self, launch: &Launch) -> Result<ProcessId>;

    /// Follows a process that an earlier daemon started. Its end has the status that it left in its trace.
    ///
    /// # Errors
    /// [`engine::ErrorCode::Kernel`]
    fn adopt(&mut self, key: &JobKey, trace: &Trace) -> Result<ProcessId>;

    /// Sends a signal to a process and those that it started. Does nothing if it has ended.
    fn stop(&mut self, process: ProcessId, how: Stop);
}

/// What the process of a job left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Whether it is still running.
    pub is_running: bool,
    /// Its number.
    pub pid: Option<i32>,
    /// Its exit status, if it ended by itself.
    pub exit_status: Option<u8>,
    /// The error that ended it.
    pub error: Option<String>,
}

/// Keeps other processes from running jobs of the same stanza, until it is dropped.
pub trait Reservation {}

/// A change of a job's state.
pub type StateChange<'a> = dyn FnMut(Option<JobState>) -> JobState + 'a;

/// The files of the jobs.
pub trait Records {
    /// Changes the state of a job, as it is at this moment in its file. `change` gets `None` if there is none.
    ///
    /// # Errors
    /// The file can't be read or written. Then `change` has been applied to the returned state only.
    fn update(&mut self, key: &JobKey, change: &mut StateChange<'_>) -> (JobState, Result<()>);

    /// Reserves repositories of a stanza for this process; `None` if another one has reserved any of them.
    ///
    /// # Errors
    /// A lock file can't be opened.
    fn reserve(&mut self, stanza: &str, repos: &[u32]) -> Result<Option<Box<dyn Reservation>>>;

    /// Prepares the file in which the process of a job leaves its trace, and returns its path.
    ///
    /// # Errors
    /// An earlier trace can't be removed.
    fn clear_trace(&mut self, key: &JobKey) -> Result<PathBuf>;

    /// Reads the trace of a job.
    ///
    /// # Errors
    /// The file can't be read.
    fn trace(&mut self, key: &JobKey) -> Result<Trace>;
}
