//! The processes of this host.
//!
//! The daemon may be process 1 of a container, which inherits the orphans of all others. So it waits for any child, not
//! for those that it started only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;

use engine::{Error, ErrorCode, Result};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};

use crate::job::JobKey;
use crate::trace;
use crate::wakeup::Wakeup;
use crate::world::{Launch, ProcessEnd, ProcessId, Processes, Program, Stop, Trace};

/// How much of a process's output is read, in bytes.
const OUTPUT_MAX: usize = 64 * 1024;
/// The stack of a thread that waits for the end of a process.
const WAIT_STACK: usize = 64 * 1024;

/// A process that has not ended.
struct Child {
    id: ProcessId,
    output: Option<File>,
}

/// See the module documentation.
pub struct HostProcesses {
    program: PathBuf,
    state_path: PathBuf,
    count: u64,
    /// By process number.
    children: BTreeMap<i32, Child>,
    /// Processes that an earlier daemon started, by their numbers.
    adopted: BTreeMap<ProcessId, Option<i32>>,
    wakeups: Sender<Wakeup>,
}

impl HostProcesses {
    /// Starts processes of `program` for jobs whose traces are in `state_path`. Ends of adopted processes are sent to
    /// `wakeups`.
    pub fn new(program: PathBuf, state_path: PathBuf, wakeups: Sender<Wakeup>) -> Self {
        HostProcesses { program, state_path, count: 0, children: BTreeMap::new(), adopted: BTreeMap::new(), wakeups }
    }

    /// Returns the processes that have ended, and removes orphans that ended.
    pub fn reap(&mut self) -> Vec<ProcessEnd> {
        let mut ends = Vec::new();
        // Fails when there are no children
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(child) = self.children.remove(&pid.as_raw_nonzero().get()) else { continue };
            let status = match status.exit_status() {
                Some(status) => Ok(u8::try_from(status).unwrap_or(u8::MAX)),
                None => Err(status.terminating_signal().unwrap_or(0)),
            };
            let output = child.output.map(|file| read_output(&file)).unwrap_or_default();
            ends.push(ProcessEnd { process: child.id, status, output });
        }
        ends
    }

    /// Forgets an adopted process that has ended.
    pub fn forget(&mut self, process: ProcessId) {
        self.adopted.remove(&process);
    }

    fn next_id(&mut self) -> ProcessId {
        self.count += 1;
        ProcessId(self.count)
    }
}

impl Processes for HostProcesses {
    fn start(&mut self, launch: &Launch) -> Result<ProcessId> {
        let (mut command, name) = match &launch.program {
            Program::Own { arguments, environment } => {
                let mut command = Command::new(&self.program);
                command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
                (command, self.program.display().to_string())
            }
            Program::Shell(text) => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(text);
                (command, "/bin/sh".to_owned())
            }
        };
        // systemd's socket is for the daemon only
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        // A signal from the terminal is for the daemon, which ends its processes in its own way
        command.process_group(0);
        let failed = |error| Error::from_io(ErrorCode::Execute, format!("unable to start '{name}'"), error);
        command.stdin(match launch.input.as_str() {
            "" => Stdio::null(),
            text => Stdio::from(input(text).map_err(failed)?),
        });
        let mut output = None;
        if launch.captures {
            let file = memory("output").map_err(failed)?;
            command.stdout(file.try_clone().map_err(failed)?);
            output = Some(file);
        }
        let child = command.spawn().map_err(failed)?;
        let id = self.next_id();
        self.children.insert(i32::try_from(child.id()).unwrap_or(0), Child { id, output });
        Ok(id)
    }

    fn adopt(&mut self, key: &JobKey, trace: &Trace) -> Result<ProcessId> {
        let id = self.next_id();
        let path = self.state_path.join(&key.stanza).join(format!("{}.job", key.name));
        let wakeups = self.wakeups.clone();
        let wait = move || {
            let trace = trace::wait(&path).unwrap_or_default();
            // Without a status it was killed
            let end = ProcessEnd { process: id, status: trace.exit_status.ok_or(9), output: String::new() };
            let _ = wakeups.send(Wakeup::Ended(end));
        };
        std::thread::Builder::new()
            .name("adopted".to_owned())
            .stack_size(WAIT_STACK)
            .spawn(wait)
            .map_err(|error| Error::from_io(ErrorCode::Kernel, "unable to start a thread", error))?;
        self.adopted.insert(id, trace.pid);
        Ok(id)
    }

    fn stop(&mut self, process: ProcessId, how: Stop) {
        let signal = match how {
            Stop::Terminate => Signal::TERM,
            Stop::Kill => Signal::KILL,
        };
        let child = self.children.iter().find(|(_, child)| child.id == process).map(|(pid, _)| *pid);
        if let Some(pid) = child.and_then(Pid::from_raw) {
            // The group exists as soon as the process does
            if kill_process_group(pid, signal) == Err(Errno::SRCH) {
                let _ = kill_process(pid, signal);
            }
        } else if let Some(pid) = self.adopted.get(&process).copied().flatten().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// A file in memory, which needs no thread that copies what a process reads or writes.
fn memory(name: &str) -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

fn input(text: &str) -> std::io::Result<File> {
    let mut file = memory("input")?;
    file.write_all(text.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn read_output(file: &File) -> String {
    let mut bytes = vec![0; OUTPUT_MAX];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => length += count,
        }
    }
    bytes.truncate(length);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    fn shell(text: &str, input: &str) -> Launch {
        Launch { program: Program::Shell(text.to_owned()), input: input.to_owned(), captures: true }
    }

    /// Other tests of this program have children, too, so that each waits for its own only.
    fn end_of(processes: &mut HostProcesses, id: ProcessId) -> ProcessEnd {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = processes.reap().into_iter().find(|ended| ended.process == id) {
                return found;
            }
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn processes_have_input_output_status_and_can_be_ended_with_their_children() {
        let dir = tempfile::tempdir().unwrap();
        let (wakeups, received) = mpsc::channel();
        let mut processes = HostProcesses::new("/bin/false".into(), dir.path().to_owned(), wakeups);
        let id = processes.start(&shell("cat; exit 7", "{\"a\":1}")).unwrap();
        let end = end_of(&mut processes, id);
        assert_eq!((end.status, end.output.as_str()), (Ok(7), "{\"a\":1}"));
        let id = processes.start(&shell("yes | head -c 1000000", "")).unwrap();
        assert_eq!(end_of(&mut processes, id).output.len(), OUTPUT_MAX);
        // Both processes of the pipeline end
        let id = processes.start(&shell("sleep 1000 | cat", "")).unwrap();
        processes.stop(id, Stop::Terminate);
        assert_eq!(end_of(&mut processes, id).status, Err(15));
        let own = Launch {
            program: Program::Own { arguments: Vec::new(), environment: Vec::new() },
            input: String::new(),
            captures: false,
        };
        let id = processes.start(&own).unwrap();
        assert_eq!(end_of(&mut processes, id).status, Ok(1));
        processes.program = "/nonexistent".into();
        assert_eq!(processes.start(&own).unwrap_err().code, ErrorCode::Execute);
        drop(received);
    }
}
