//! The cost of commands: wall time, processor time, and the memory of all processes of a program.

use std::collections::HashMap;
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
fn children_processor_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc/self/stat");
    let fields = stat.rsplit_once(')').expect("name in parentheses").1.split_whitespace();
    fields.skip(13).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / TICKS_PER_S
}

/// Returns the processor time in seconds of the whole machine, for work whose processes are children of a server.
pub fn machine_processor_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let ticks: Vec<f64> =
        stat.lines().next().expect("first line").split_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system; then idle and iowait; then irq, softirq
    [0, 1, 2, 5, 6].iter().map(|&field| ticks[field]).sum::<f64>() / TICKS_PER_S
}

/// Watches memory and processor time of all processes of one program that were started in one space, by any parent.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What a watch has seen.
#[derive(Default)]
struct Seen {
    peak: Memory,
    /// Clock ticks of each process when it was first seen, and when it was last seen.
    ticks: HashMap<u32, [u64; 2]>,
}

/// Proportional memory in KiB. Shared memory counts once.
#[derive(Clone, Copy, Default)]
struct Memory {
    all: u64,
    /// What is not part of a file: the program and its libraries count in `all` alone.
    own: u64,
}

/// What all processes of a [`Watch`] have used together.
pub struct Used {
    /// Processor time, but for the last milliseconds of each process.
    pub processor_s: f64,
    pub peak_mib: f64,
    /// The peak of what is not part of a file.
    pub own_peak_mib: f64,
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
            let (mut seen, mut pause) = (Seen::default(), SAMPLE_FIRST);
            let mut is_first = true;
            while !stopped.load(Ordering::Relaxed) {
                seen.look(program, &home, &part, is_first);
                is_first = false;
                std::thread::sleep(pause);
                pause = SAMPLE_MAX.min(pause + pause / 4);
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends the watch and returns the peak of the memory.
    pub fn peak_mib(self) -> f64 {
        self.used().peak_mib
    }

    /// Ends the watch.
    pub fn used(self) -> Used {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().expect("watch");
        let ticks: u64 = seen.ticks.values().map(|[first, last]| last - first).sum();
        Used {
            processor_s: ticks as f64 / TICKS_PER_S,
            peak_mib: seen.peak.all as f64 / 1024.0,
            own_peak_mib: seen.peak.own as f64 / 1024.0,
        }
    }
}

impl Seen {
    /// Looks at the processes that run the file `program`, have `home` in their environment and `part` in their command line.
    fn look(&mut self, program: (u64, u64), home: &[u8], part: &str, is_first: bool) {
        let mut sum = Memory::default();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let process = entry.path();
            let ours = fs::metadata(process.join("exe")).is_ok_and(|found| (found.dev(), found.ino()) == program)
                && fs::read(process.join("environ"))
                    .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|line| line == home))
                && fs::read(process.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(part));
            if !ours {
                continue;
            }
            let rollup = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
            let kib = |name: &str| {
                let found = rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
                found.map_or(0, |size| size.parse().expect("KiB"))
            };
            sum = Memory { all: sum.all + kib("Pss:"), own: sum.own + kib("Pss_Anon:") };
            if let (Some(number), Some(ticks)) = (number(&process), ticks(&process)) {
                // Processes that ran before have done something else
                let before = if is_first { ticks } else { 0 };
                self.ticks.entry(number).or_insert([before, ticks])[1] = ticks;
            }
        }
        self.peak = Memory { all: self.peak.all.max(sum.all), own: self.peak.own.max(sum.own) };
    }
}

fn number(process: &Path) -> Option<u32> {
    process.file_name()?.to_str()?.parse().ok()
}

/// The clock ticks that a process has used; `None` if it has ended.
fn ticks(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let fields = stat.rsplit_once(')').expect("name in parentheses").1.split_whitespace().skip(11).take(2);
    Some(fields.map(|ticks| ticks.parse::<u64>().expect("ticks")).sum())
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
