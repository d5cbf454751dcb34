//! The scratch server: a process of this program that ends with it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::binaries::PgPrograms;
use super::scratch::Scratch;
use crate::proof::report::shortened;
use crate::{CancelToken, Error, ErrorCode, Result, ending, warn};

/// How often the state of a process is checked.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a server without a checkpoint may take to end.
const ABANDON_MAX: Duration = Duration::from_secs(5);
/// The line of `postmaster.pid` that contains the state.
const STATE_LINE: usize = 7;
/// How much of a log is read, in bytes from its end.
const LOG_BYTES_MAX: u64 = 256 * 1024;
/// How many lines of a log a report contains.
const LOG_LINES_MAX: usize = 12;

/// What became of a server that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It accepts writes.
    Ready,
    /// It ended, or took too long. The text is what its log says.
    Failed(String),
}

/// A running server. If it still runs when the value is dropped, it ends without a checkpoint.
pub struct Server {
    child: Child,
    data: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts a server on the data directory with this configuration file.
    ///
    /// # Errors
    /// [`ErrorCode::Execute`] if the program can't be started.
    pub fn start(programs: &PgPrograms, scratch: &Scratch, configuration: &Path) -> Result<Self> {
        let program = programs.needed("postgres");
        let log = scratch.file("server.log");
        let mut command = Command::new(&program);
        command.arg("-D").arg(scratch.data()).arg("-c").arg(format!("config_file={}", configuration.display()));
        // A signal from the terminal is for this program, which then stops the server
        let child = prepared(&mut command, &log)?.process_group(0).spawn().map_err(|error| {
            Error::from_io(ErrorCode::Execute, format!("unable to start '{}'", program.display()), error)
        })?;
        Ok(Server { child, data: scratch.data(), log })
    }

    /// Waits until recovery has ended and the server accepts writes.
    ///
    /// # Errors
    /// [`ErrorCode::Term`] after a signal, [`ErrorCode::Kernel`] if the process can't be observed.
    pub fn wait_ready(&mut self, timeout: Duration, cancel: &CancelToken) -> Result<Recovered> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Recovered::Failed(format!("PostgreSQL ended with {status}: {}", self.complaints())));
            }
            if self.state().as_deref() == Some("ready") {
                return Ok(Recovered::Ready);
            }
            if Instant::now() >= end {
                let text = format!("no end of recovery after {} s: {}", timeout.as_secs(), self.complaints());
                return Ok(Recovered::Failed(text));
            }
            cancel.sleep(PAUSE)?;
        }
    }

    /// Stops the server with a checkpoint.
    ///
    /// # Errors
    /// [`ErrorCode::PgRunning`] if it does not end cleanly in time, [`ErrorCode::Term`] after a signal.
    pub fn stop(mut self, timeout: Duration, cancel: &CancelToken) -> Result<()> {
        self.signal(Signal::INT);
        let end = Instant::now() + timeout;
        while Instant::now() < end {
            match self.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let text = format!("PostgreSQL ended with {status}: {}", self.complaints());
                    return Err(Error::new(ErrorCode::PgRunning, text));
                }
                None => cancel.sleep(PAUSE)?,
            }
        }
        let text = format!("PostgreSQL did not stop in {} s: {}", timeout.as_secs(), self.complaints());
        Err(Error::new(ErrorCode::PgRunning, text))
    }

    /// Returns the lines of the log that tell of problems, which may be none.
    pub fn problems(&self) -> String {
        last_lines(&problems(&log_end(&self.log)))
    }

    /// Returns the lines of the log that tell of problems, or simply its last lines.
    fn complaints(&self) -> String {
        complaints(&log_end(&self.log))
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(wait_error)
    }

    /// Returns the state in `postmaster.pid`.
    fn state(&self) -> Option<String> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        text.lines().nth(STATE_LINE).map(|state| state.trim().to_owned())
    }

    fn signal(&self, signal: Signal) {
        // It may have ended meanwhile, but nothing has waited for it, so the number is still its own
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _cleaning = ending::cleaning();
        self.signal(Signal::QUIT);
        let end = Instant::now() + ABANDON_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            warn!("PostgreSQL process {} does not end and is killed", self.child.id());
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Sets up a program of PostgreSQL: its output goes to the end of a file, and no variable of libpq or the server reaches
/// it.
fn prepared<'a>(command: &'a mut Command, log: &Path) -> Result<&'a mut Command> {
    let failed = |error| Error::from_io(ErrorCode::FileOpen, format!("unable to open '{}'", log.display()), error);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(log).map_err(failed)?;
    let copy = file.try_clone().map_err(failed)?;
    for (name, _) in std::env::vars_os() {
        // PGBACKREST_... is for the command that gets WAL
        if name.to_str().is_some_and(|name| name.starts_with("PG") && !name.starts_with("PGBACKREST")) {
            command.env_remove(name);
        }
    }
    Ok(command.stdin(Stdio::null()).stdout(file).stderr(copy))
}

/// The result of a program.
#[derive(Clone, Debug)]
pub struct ToolRun {
    /// The exit status; 128 and the signal if a signal ended it.
    pub code: i32,
    /// What it wrote, shortened.
    pub output: String,
}

/// Runs a program of PostgreSQL until it ends.
///
/// # Errors
/// [`ErrorCode::Execute`] if it can't be started, [`ErrorCode::Term`] after a signal.
pub fn run_tool(command: &mut Command, log: &Path, cancel: &CancelToken) -> Result<ToolRun> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = Killed(
        prepared(command, log)?
            .env("LC_ALL", "C")
            .spawn()
            .map_err(|error| Error::from_io(ErrorCode::Execute, format!("unable to start '{name}'"), error))?,
    );
    loop {
        if let Some(status) = child.0.try_wait().map_err(wait_error)? {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            return Ok(ToolRun { code, output: shortened(&log_end(log)) });
        }
        cancel.sleep(PAUSE)?;
    }
}

/// A program that is killed if nobody waits for it any more.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn wait_error(error: std::io::Error) -> Error {
    Error::from_io(ErrorCode::Kernel, "unable to wait for a process", error)
}

/// Returns the end of a log.
fn log_end(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LOG_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Returns the last lines of a log that tell of problems, or simply the last lines.
fn complaints(log: &str) -> String {
    let problems = problems(log);
    if problems.is_empty() { last_lines(&log.lines().collect::<Vec<_>>()) } else { last_lines(&problems) }
}

fn problems(log: &str) -> Vec<&str> {
    const WORDS: [&str; 8] =
        ["WARN:", "WARNING:", "ERROR:", "FATAL:", "PANIC:", "DETAIL:", "HINT:", "terminated by signal"];
    log.lines().filter(|line| WORDS.iter().any(|word| line.contains(word))).collect()
}

fn last_lines(lines: &[&str]) -> String {
    let first = lines.len().saturating_sub(LOG_LINES_MAX);
    shortened(&lines[first..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_contains_the_last_problems_of_a_log() {
        let log = "LOG:  starting\nFATAL:  first\nLOG:  other\nDETAIL:  why\n";
        assert_eq!(complaints(log), "FATAL:  first\nDETAIL:  why");
        assert_eq!(complaints("postgres: could not\nLOG:  x"), "postgres: could not\nLOG:  x");
        let many: String = (0..100).map(|number| format!("ERROR:  {number}\n")).collect();
        assert!(complaints(&many).starts_with("ERROR:  88\n"), "{}", complaints(&many));
    }

    #[test]
    fn signal_that_ended_a_process_is_a_problem_although_the_log_does_not_call_it_one() {
        let log = "LOG:  starting\nLOG:  startup process (PID 7) was terminated by signal 9: Killed\nLOG:  aborting\n";
        assert_eq!(complaints(log), "LOG:  startup process (PID 7) was terminated by signal 9: Killed");
    }

    #[test]
    fn program_gets_no_variables_of_libpq_and_its_output_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let run = run_tool(&mut command, &dir.path().join("log"), &CancelToken::new()).unwrap();
        assert_eq!((run.code, run.output.as_str()), (3, "out\nerr"));
        let mut command = Command::new("sh");
        command.args(["-c", "kill -9 $$"]);
        assert_eq!(run_tool(&mut command, &dir.path().join("log2"), &CancelToken::new()).unwrap().code, 137);
    }

    #[test]
    fn program_of_a_cancelled_command_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = CancelToken::new();
        cancel.cancel();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let begin = Instant::now();
        let error = run_tool(&mut command, &dir.path().join("log"), &cancel).unwrap_err();
        assert_eq!(error.code, ErrorCode::Term);
        assert!(begin.elapsed() < Duration::from_secs(100));
    }
}
