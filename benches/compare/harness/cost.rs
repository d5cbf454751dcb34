//! The cost of commands: wall time, processor time, and the memory of all processes of a program.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The values of one measurement. Less is better in each.
pub type Figures = Vec<(&'static str, f64)>;

/// Memory is sampled often at first, for commands that take milliseconds, and then less and less often, down to this
/// interval.
const SAMPLE_MAX: Duration = Duration::from_millis(20);
const SAMPLE_FIRST: Duration = Duration::from_millis(1);
/// Kernel clock ticks per second in `/proc`, which are fixed for user space.
const TICKS_PER_S: f64 = 100.0;

/// Returns the processor time in seconds of all children that have been waited for, and of their children.
pub fn children_processor_s() -> f64 {
    processor_s("self")[1]
}

/// Returns the processor time in seconds of a process and of its children that it has waited for.
pub fn tree_processor_s(process: u32) -> f64 {
    processor_s(&process.to_string()).iter().sum()
}

/// The processor time in seconds of a process, and that of its children that it has waited for.
fn processor_s(process: &str) -> [f64; 2] {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("state of a process");
    let fields = stat.rsplit_once(')').expect("name in parentheses").1.split_whitespace().skip(11).take(4);
    let ticks: Vec<f64> = fields.map(|ticks| ticks.parse().expect("ticks")).collect();
    [(ticks[0] + ticks[1]) / TICKS_PER_S, (ticks[2] + ticks[3]) / TICKS_PER_S]
}

/// Returns the processor time in seconds of the whole machine, for work whose processes are children of a server.
pub fn machine_processor_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let ticks: Vec<f64> =
        stat.lines().next().expect("first line").split_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system; then idle and iowait; then irq, softirq
    [0, 1, 2, 5, 6].iter().map(|&field| ticks[field]).sum::<f64>() / TICKS_PER_S
}

/// Watches the memory of all processes of one program that were started in one space, by any parent.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Memory>,
}

/// Proportional memory in KiB. Shared memory counts once.
#[derive(Clone, Copy, Default)]
struct Memory {
    all: u64,
    /// What is not part of a file: the program and its libraries count in `all` alone.
    own: u64,
}

/// The peaks of [`Watch`] in MiB.
pub struct Peaks {
    pub all_mib: f64,
    pub own_mib: f64,
}

impl Watch {
    pub fn start(program: &Path, home: &str) -> Self {
        Self::of(program, home, "")
    }

    /// Watches only the processes whose command line contains this.
    pub fn of(program: &Path, home: &str, part: &str) -> Self {
        let program = fs::metadata(program).map(|found| (found.dev(), found.ino())).expect("program");
        let home = format!("HOME={home}").into_bytes();
        let part = part.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut peak, mut pause) = (Memory::default(), SAMPLE_FIRST);
            while !stopped.load(Ordering::Relaxed) {
                let found = memory(program, &home, &part);
                peak = Memory { all: peak.all.max(found.all), own: peak.own.max(found.own) };
                std::thread::sleep(pause);
                pause = SAMPLE_MAX.min(pause + pause / 4);
            }
            peak
        });
        Self { stop, thread }
    }

    /// Ends the watch and returns the peak.
    pub fn peak_mib(self) -> f64 {
        self.peaks().all_mib
    }

    /// Ends the watch and returns the peaks.
    pub fn peaks(self) -> Peaks {
        self.stop.store(true, Ordering::Relaxed);
        let peak = self.thread.join().expect("watch of memory");
        Peaks { all_mib: peak.all as f64 / 1024.0, own_mib: peak.own as f64 / 1024.0 }
    }
}

/// Returns the memory of the processes that run the file `program`, have `home` in their environment and `part` in their
/// command line.
fn memory(program: (u64, u64), home: &[u8], part: &str) -> Memory {
    let mut sum = Memory::default();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let process = entry.path();
        let ours = fs::metadata(process.join("exe")).is_ok_and(|found| (found.dev(), found.ino()) == program)
            && fs::read(process.join("environ"))
                .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|line| line == home))
            && fs::read(process.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(part));
        if ours {
            let rollup = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
            let kib = |name: &str| {
                let found = rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
                found.map_or(0, |size| size.parse().expect("KiB"))
            };
            sum = Memory { all: sum.all + kib("Pss:"), own: sum.own + kib("Pss_Anon:") };
        }
    }
    sum
}

/// Runs commands one after another, which must succeed, while `watch` measures their memory. The time that the iterator
/// spends between commands does not count.
pub fn of_commands(commands: impl IntoIterator<Item = Command>, watch: Watch) -> Figures {
    let before_s = children_processor_s();
    let mut wall = Duration::ZERO;
    for mut command in commands {
        let start = Instant::now();
        let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        wall += start.elapsed();
        assert!(
            output.status.success(),
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    vec![("wall s", wall.as_secs_f64()), ("cpu s", children_processor_s() - before_s), ("peak MiB", watch.peak_mib())]
}
