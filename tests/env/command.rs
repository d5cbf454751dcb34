//! Runs programs and checks their output.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The time limit of every command in tests.
pub const TIME_LIMIT_S: u64 = 240;

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The program under test.
    Rbr,
    /// The real pgBackRest.
    PgBackRest,
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Run {
    pub line: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(mut command: Command) -> Self {
        let line = format!("{command:?}");
        let output = command.output().unwrap_or_else(|error| panic!("start {line}: {error}"));
        Self {
            line,
            // A signal shows as a shell shows it
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The command must have succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        self.fails(0)
    }

    /// The command must have ended with `code`.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert!(self.code == code, "exit status {} instead of {code}\n{}", self.code, self.describe());
        self
    }

    /// Its standard output or error output must contain `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "'{text}' not found\n{}", self.describe());
        self
    }

    /// Checks that neither output contains `text`.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        assert!(!self.stdout.contains(text) && !self.stderr.contains(text), "'{text}' found\n{}", self.describe());
        self
    }

    /// Returns number and text of the error that ended the command, without time and process.
    pub fn error(&self) -> String {
        let text = format!("{}{}", self.stdout, self.stderr);
        let mut lines = text.lines().skip_while(|line| !line.contains("ERROR: ["));
        let Some(first) = lines.next() else { return String::new() };
        let mut error = first[first.find("ERROR: [").unwrap_or(0)..].to_owned();
        // Further lines of the message are indented
        for line in lines.take_while(|line| line.starts_with(' ')) {
            error.push('\n');
            error.push_str(line.trim_start());
        }
        error
    }

    /// Parses standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{}", self.describe()))
    }

    pub fn describe(&self) -> String {
        format!(
            "command: {}\nexit status: {}\nstdout:\n{}\nstderr:\n{}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

/// A command that is still running, in its own process group. It is killed when the value is dropped.
pub struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    pub fn of(mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).expect("log of a background command");
        let line = format!("{command:?}");
        command.process_group(0).stdout(file.try_clone().expect("log handle")).stderr(file).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("start {line}: {error}"));
        Self { child, log }
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills the command and all its children with SIGKILL. Returns whether it was still running.
    pub fn kill(&mut self) -> bool {
        let running = self.child.try_wait().expect("wait").is_none();
        if running {
            // The group leader has not been waited for, so its number is still valid
            let _ = kill_process_group(self.group(), Signal::KILL);
            self.child.wait().expect("wait");
        }
        running
    }

    /// Kills the command with SIGKILL, but not its children.
    pub fn kill_alone(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Returns whether the command is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("state of a background command").is_none()
    }

    /// Asks the command to end with SIGTERM, if it still runs.
    pub fn terminate(&mut self) {
        if self.child.try_wait().expect("wait").is_none() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Asks the command and its children to end with SIGTERM, as a service manager does.
    pub fn terminate_all(&mut self) {
        self.signal_group(Signal::TERM);
    }

    /// Sends SIGHUP to the command.
    pub fn hang_up(&self) {
        kill_process(self.group(), Signal::HUP).expect("SIGHUP");
    }

    /// Returns the memory that the command uses, in KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
        line.trim().trim_end_matches(" kB").parse().expect("number")
    }

    /// Returns the number of the command's children.
    pub fn child_count(&self) -> usize {
        children(self.group()).len()
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops the command and its children, if they are still running, until [`Background::go_on`].
    pub fn stand_still(&mut self) {
        self.signal_group(Signal::STOP);
    }

    /// Continues the processes that [`Background::stand_still`] stopped.
    pub fn go_on(&mut self) {
        self.signal_group(Signal::CONT);
    }

    fn signal_group(&mut self, signal: Signal) {
        if self.child.try_wait().expect("wait").is_none() {
            let _ = kill_process_group(self.group(), signal);
        }
    }

    /// Waits for the end and returns the exit status (128 + signal for a signal).
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let end = Instant::now() + Duration::from_secs(TIME_LIMIT_S);
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            assert!(Instant::now() < end, "no end after {TIME_LIMIT_S} s:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops the command's child processes and their descendants until the value is dropped.
    pub fn freeze_children(&self) -> Frozen {
        let mut found = vec![Pid::from_child(&self.child)];
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            found.extend(children(parent));
            at += 1;
        }
        let frozen = Frozen(found.split_off(1));
        frozen.signal(Signal::STOP);
        frozen
    }
}

/// Stopped processes.
pub struct Frozen(Vec<Pid>);

impl Frozen {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn signal(&self, signal: Signal) {
        // A process may have ended meanwhile
        self.0.iter().for_each(|&pid| {
            let _ = kill_process(pid, signal);
        });
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

/// Returns the running children of a process.
fn children(parent: Pid) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |number: &i32| {
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        let of = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<i32>().ok());
        of == Some(parent.as_raw_nonzero().get())
    };
    numbers.filter(is_child).filter_map(Pid::from_raw).collect()
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}
