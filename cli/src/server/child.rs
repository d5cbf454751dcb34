//! The process that serves a client.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use engine::tcp::wait_for;
use engine::{Error, ErrorCode, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;

use super::admit::Admitted;
use super::sessions::{OwnedProcess, Sessions, wait};
use super::state::ServerState;

/// What the pipes between a client's connection and its process hold. With less, each frame of a channel fills them twice.
const PIPE_BYTES: usize = 256 << 10;
/// The signals that tell a process to stop.
const STOP_SIGNALS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];
/// How long a process may take to greet.
const GREETING_MAX: Duration = Duration::from_secs(30);
/// The longest greeting.
const GREETING_BYTES_MAX: usize = 4096;
/// The most bytes of a line of the process's standard error that are logged.
const LINE_BYTES_MAX: u64 = 4096;
/// The most lines of a process that are logged.
const LINES_MAX: usize = 100;
/// How long a process may take to end after it closed its output.
const END_WAIT: Duration = Duration::from_secs(2);

/// A process that is ready to serve.
pub(super) struct Serving {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    // Declared after its streams, so that it is dropped after them
    pub(super) process: OwnedProcess,
}

/// Starts the process, and waits for its greeting, which the server has sent in its place. `client` is for messages.
///
/// # Errors
/// [`ErrorCode::Execute`] if it can't be started; the error with which it ends.
pub(super) fn start(state: &ServerState, sessions: &Sessions, admitted: &Admitted, client: &str) -> Result<Serving> {
    let failed = |e| Error::from_io(ErrorCode::Execute, "unable to start the process that serves", e);
    let mut child = Command::new(&state.gate.program)
        .args(&admitted.arguments)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process = sessions.add(child)?;
    let (Some(stdin), Some(mut stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(Error::new(ErrorCode::Assert, "standard streams of the process are missing"));
    };
    for pipe in [stdin.as_fd(), stdout.as_fd()] {
        // The system limits what the pipes of a user may hold. A small one is slower, and holds the same
        let _ = fcntl_setpipe_size(pipe, PIPE_BYTES);
    }
    let errors = log_errors(stderr, format!("process {} of client {client}", process.id()))?;
    if has_greeted(&mut stdout, Instant::now() + GREETING_MAX) {
        return Ok(Serving { stdin, stdout, process });
    }
    drop((stdin, stdout));
    let error = end_error(&process, &errors);
    // Both get a signal if a service or a terminal ends, in any order
    let is_ended = error.code == ErrorCode::Term;
    Err(sessions.end_by_stop().filter(|_| is_ended).unwrap_or(error))
}

/// Passes over the greeting. Returns whether there was one before `end`.
fn has_greeted(stdout: &mut ChildStdout, end: Instant) -> bool {
    // What follows is for the client, so nothing is read ahead
    let mut byte = [0];
    for _ in 0..GREETING_BYTES_MAX {
        if !is_readable(stdout, end) || stdout.read_exact(&mut byte).is_err() {
            return false;
        }
        if byte == *b"\n" {
            return true;
        }
    }
    false
}

/// Waits until there is something to read, also the end, at most until `end`. Returns whether there is.
fn is_readable(stdout: &ChildStdout, end: Instant) -> bool {
    loop {
        let mut polled = [PollFd::new(stdout, PollFlags::IN)];
        let left = end.saturating_duration_since(Instant::now());
        if wait_for(&mut polled, left).is_err() {
            return false;
        }
        if !polled[0].revents().is_empty() {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

/// The error with which a process has ended that did not greet.
fn end_error(process: &OwnedProcess, errors: &Receiver<String>) -> Error {
    let child = process.shared();
    if !wait(&child, END_WAIT) {
        return Error::new(ErrorCode::Execute, "the process that serves does not answer");
    }
    let status = child.lock().ok().and_then(|mut child| child.wait().ok());
    if let Some(signal) = status.and_then(|status| status.signal()) {
        let is_stop = STOP_SIGNALS.iter().any(|stop| stop.as_raw() == signal);
        let code = if is_stop { ErrorCode::Term } else { ErrorCode::Execute };
        return Error::new(code, format!("the process that serves was ended by signal {signal}"));
    }
    let code = status.and_then(|status| u8::try_from(status.code()?).ok()).and_then(ErrorCode::from_number);
    let text = errors.recv_timeout(END_WAIT).unwrap_or_default();
    Error::new(code.unwrap_or(ErrorCode::Execute), format!("the process that serves ended: {text}"))
}

/// Logs what the process writes to standard error. Returns where its first line arrives.
fn log_errors(stderr: ChildStderr, name: String) -> Result<Receiver<String>> {
    let (sender, receiver) = channel();
    let body = move || {
        let mut stderr = BufReader::new(stderr);
        for line_number in 0.. {
            let mut line = Vec::new();
            let read = stderr.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if !read.is_ok_and(|read| read > 0) {
                return;
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if line_number < LINES_MAX && !line.is_empty() {
                engine::warn!("{name}: {line}");
            }
            // Nobody may wait for it
            let _ = sender.send(line);
        }
    };
    let started = std::thread::Builder::new().name("stderr".to_owned()).spawn(body);
    started.map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start a thread", e))?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether a shell that runs this greets before some time has passed.
    fn greets(script: &str, time: Duration) -> bool {
        let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let greeted = has_greeted(shell.stdout.as_mut().unwrap(), Instant::now() + time);
        shell.kill().unwrap();
        shell.wait().unwrap();
        greeted
    }

    #[test]
    fn process_that_never_greets_is_not_waited_for_without_end() {
        let begin = Instant::now();
        assert!(!greets("printf half; exec sleep 60", Duration::from_millis(300)));
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn greeting_is_a_whole_line() {
        let long = Duration::from_secs(20);
        assert!(greets("printf 'gree'; sleep 0.1; echo ting", long));
        assert!(!greets("printf 'gree'", long));
        assert!(!greets("printf '%5000d\n' 1", long));
    }
}
