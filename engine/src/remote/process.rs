//! The SSH client that starts the process on the other host.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::RemoteSettings;
use super::failure::with_status_hint;
use super::link::{Link, Opened};
use crate::{Error, ErrorCode, Result};

/// The most bytes of the client's standard error that are shown.
const STDERR_BYTES_MAX: usize = 64 << 10;
/// The time between two checks whether the client has ended.
const LOOK: Duration = Duration::from_millis(10);
/// How long to wait for the last lines of standard error after the client has ended.
const STDERR_WAIT: Duration = Duration::from_secs(1);

/// How to start the process through SSH.
#[derive(Clone, Debug)]
pub struct SshSettings {
    /// The SSH client.
    pub program: String,
    /// Its arguments. The last one is the command line of the process on the host.
    pub arguments: Vec<String>,
}

/// A running SSH client.
pub(super) struct Process {
    /// The name in messages, such as `remote-0 process on 'HOST'`.
    name: String,
    /// How it was started.
    settings: SshSettings,
    child: Child,
    /// What the client wrote to standard error so far.
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Ends with standard error.
    stderr_end: Receiver<()>,
}

/// Keeps what comes, up to a limit, so that the client does not block.
fn read_stderr(mut stderr: impl Read, text: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = read.min(STDERR_BYTES_MAX.saturating_sub(text.len()));
                text.extend_from_slice(&buffer[..taken]);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // What can't be read can't be shown
            Err(_) => return,
        }
    }
}

impl Process {
    /// Starts the client.
    ///
    /// # Errors
    /// [`ErrorCode::Execute`] if the program can't be started, [`ErrorCode::Kernel`] if no thread can be started.
    pub(super) fn start(remote: &RemoteSettings, settings: &SshSettings) -> Result<Opened> {
        let name = format!("remote-{} process on '{}'", remote.process, remote.host);
        let mut child = Command::new(&settings.program)
            .args(&settings.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| {
                let number = ErrorCode::Execute.number();
                let what =
                    format!("{name} terminated unexpectedly [{number}]: unable to execute '{}'", settings.program);
                Error::from_io(ErrorCode::Execute, what, e).hint("the option cmd-ssh sets the SSH client")
            })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(Error::new(ErrorCode::Assert, "standard streams of the SSH client are missing"));
        };
        let (text, (sender, stderr_end)) = (Arc::new(Mutex::new(Vec::new())), channel());
        let kept = Arc::clone(&text);
        let started = Builder::new().name("remote-stderr".to_owned()).spawn(move || {
            read_stderr(stderr, &kept);
            drop(sender);
        });
        let output = ProcessInput::new(stdin, &name, remote.timeout);
        let mut process = Process { name, settings: settings.clone(), child, stderr: text, stderr_end };
        let started = started.map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start a thread", e));
        match started.and(output) {
            Ok(output) => Ok(Opened { link: Box::new(process), input: Box::new(stdout), output: Box::new(output) }),
            Err(error) => {
                process.kill();
                Err(error)
            }
        }
    }

    fn status_error(&self, status: ExitStatus, has_greeted: bool) -> Error {
        // A process that the client started may keep it open, so what is there by then counts
        let _ = self.stderr_end.recv_timeout(STDERR_WAIT);
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        let text = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
        let name = &self.name;
        match (status.code(), status.signal()) {
            (Some(code), _) => {
                // The client passes on the exit status of the process on the host, which is the number of its error
                let known = u8::try_from(code).ok().and_then(ErrorCode::from_number).unwrap_or(ErrorCode::Unknown);
                let error = Error::new(known, format!("{name} terminated unexpectedly [{code}]{text}"));
                with_status_hint(error, code, &self.settings, has_greeted)
            }
            (None, signal) => Error::new(
                ErrorCode::Execute,
                format!("{name} terminated unexpectedly on signal {}{text}", signal.unwrap_or_default()),
            ),
        }
    }

    /// Returns the status when the client has ended, or `None` after `timeout`.
    fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Err(e) if e.kind() != ErrorKind::Interrupted => return None,
                _ if begin.elapsed() >= timeout => return None,
                _ => std::thread::sleep(LOOK),
            }
        }
    }
}

impl Link for Process {
    fn read_name(&self) -> String {
        format!("{} read", self.name)
    }

    fn ended(&mut self, timeout: Duration, has_greeted: bool) -> Error {
        let Some(status) = self.wait(timeout) else {
            return Error::new(ErrorCode::Format, format!("unexpected EOF from {}", self.name));
        };
        self.status_error(status, has_greeted)
    }

    fn finish(&mut self, timeout: Duration) {
        // Its standard input was closed
        if self.wait(timeout).is_none() {
            crate::warn!("{} did not exit when expected", self.name);
            self.kill();
        }
    }

    fn kill(&mut self) {
        // It may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The client's standard input. A write fails if nothing can be written for too long.
struct ProcessInput {
    stdin: ChildStdin,
    /// The name of the process in errors.
    name: String,
    timeout: Duration,
}

impl ProcessInput {
    /// # Errors
    /// [`ErrorCode::Kernel`] if the input can't be made non-blocking.
    fn new(stdin: ChildStdin, name: &str, timeout: Duration) -> Result<Self> {
        rustix::io::ioctl_fionbio(&stdin, true)
            .map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to set up the SSH client's input", e.into()))?;
        Ok(ProcessInput { stdin, name: name.to_owned(), timeout })
    }

    /// Repeats a write that would block until something can be written.
    fn wait(&mut self, mut write: impl FnMut(&mut ChildStdin) -> io::Result<usize>) -> io::Result<usize> {
        let begin = Instant::now();
        loop {
            match write(&mut self.stdin) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            if begin.elapsed() >= self.timeout {
                let text =
                    format!("timeout after {}ms waiting for write to '{} write'", self.timeout.as_millis(), self.name);
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            let pause = Timespec { tv_sec: 1, tv_nsec: 0 };
            match poll(&mut [PollFd::new(&self.stdin, PollFlags::OUT)], Some(&pause)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Write for ProcessInput {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.wait(|stdin| stdin.write(buffer))
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.wait(|stdin| stdin.write_vectored(buffers))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Way;
    use super::*;

    #[test]
    fn error_of_a_client_is_shown_although_its_child_keeps_standard_error_open() {
        let script = "sleep 30 >/dev/null </dev/null & echo refused >&2; exit 255";
        let ssh = SshSettings { program: "sh".to_owned(), arguments: ["-c", script].map(str::to_owned).to_vec() };
        let remote = RemoteSettings {
            host: "far".to_owned(),
            process: 0,
            way: Way::Ssh(ssh.clone()),
            timeout: Duration::from_secs(10),
            key: 1,
            asks_passphrase: false,
            target_time: None,
            network_level: None,
            cancel: crate::CancelToken::new(),
        };
        let mut opened = Process::start(&remote, &ssh).unwrap();
        let error = opened.link.ended(Duration::from_secs(10), false);
        assert!(error.message.ends_with("terminated unexpectedly [255]: refused"), "{error}");
        assert_eq!(error.hints.len(), 1);
    }
}
