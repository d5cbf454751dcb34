//! Runs a command within limits and measures its memory.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::env::{Run, Space};

/// The memory that a command may use, whatever it reads: its resident memory, including the program.
pub const MEMORY_BYTES: u64 = 200 << 20;
/// The data memory that a command may request. Decoders request more than they use. The limit protects the machine from
/// a fault.
const DATA_BYTES: u64 = 1 << 30;
/// The largest file that a command may write.
const FILE_BYTES: u64 = 512 << 20;
/// The processor time that a command may take, a guard against endless loops. Without optimization some take most of a minute.
const CPU_SECONDS: u64 = 240;
/// A guard against waits without end, far above what a command takes on a machine that has much else to do.
const TIME_LIMIT: Duration = Duration::from_secs(1200);
/// The time between two measurements. A command can't use much more memory within this time.
const PAUSE: Duration = Duration::from_millis(2);

/// Runs `program`, which must not use more than [`MEMORY_BYTES`].
#[track_caller]
pub fn run_limited(space: &Space, program: &Path, arguments: &[String]) -> Run {
    let mut command = space.command("prlimit");
    // `prlimit` executes the program in the same process, so the process id is that of the program
    let limits = [("data", DATA_BYTES), ("fsize", FILE_BYTES), ("core", 0), ("cpu", CPU_SECONDS)];
    command.args(limits.map(|(name, limit)| format!("--{name}={limit}")));
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

/// Returns the peak memory of a process so far, or 0 if it has ended.
fn peak_memory_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}
