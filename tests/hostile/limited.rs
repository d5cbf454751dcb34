//! Running a command within limits, and measuring what memory it took.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::env::{Run, Space};

/// Memory that a command may take, whatever it reads: what it has touched of its data, with its program.
pub const MEMORY_BYTES: u64 = 200 << 20;
/// Memory for data that a command may ask for. Decoders ask for more than they touch. It keeps a fault from taking the machine's.
const DATA_BYTES: u64 = 1 << 30;
/// The largest file that a command may write.
const FILE_BYTES: u64 = 512 << 20;
/// A guard against endless loops, far above what a command takes.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at a command: it can't touch much memory meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// Runs `program`, which must not take more than [`MEMORY_BYTES`].
#[track_caller]
pub fn run_limited(space: &Space, program: &Path, arguments: &[String]) -> Run {
    let mut command = space.command("prlimit");
    // It becomes the program, so that the process is the program's
    command.args([format!("--data={DATA_BYTES}"), format!("--fsize={FILE_BYTES}"), "--core=0".to_owned()]);
    command.arg(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = format!("{command:?}");
    let child = command.spawn().unwrap_or_else(|error| panic!("start {line}: {error}"));
    let (pid, started, mut peak) = (child.id(), Instant::now(), 0);
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("process");
    let output = std::thread::scope(|scope| {
        let output = scope.spawn(|| child.wait_with_output());
        while !output.is_finished() {
            peak = peak.max(peak_memory_bytes(pid));
            if started.elapsed() > TIME_LIMIT {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
            std::thread::sleep(PAUSE);
        }
        output.join().expect("output").expect("output")
    });
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let run = Run { line, code, stdout: text(&output.stdout), stderr: text(&output.stderr) };
    println!("{} MiB {}", peak >> 20, arguments.join(" "));
    assert!(peak <= MEMORY_BYTES, "{} MiB of memory\n{}", peak >> 20, run.describe());
    run
}

/// The most memory that a process has had so far; 0 when it has ended.
fn peak_memory_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}
