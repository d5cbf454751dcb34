//! rbr beside the real pgBackRest: full backup and restore of the same cluster with the same options, one after the other on
//! the same machine. Prints wall time, processor time and peak memory of each and the ratio rbr / pgBackRest (below 1.00 rbr
//! is better).
//!
//! `cargo bench --bench compare` makes a cluster of 1 GB and goes through all compression types; then one of many relations.
//! `RBR_BENCH_MB` and `RBR_BENCH_RELATIONS` set other sizes (0 leaves that part out), `RBR_BENCH_CODECS="zst lz4"` other
//! types. Needs `scripts/oracles`.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "../tests"]
mod tests {
    #[allow(dead_code, unused_imports)]
    pub mod env;
}

use tests::env::oracle::{Oracles, oracles};
use tests::env::{Cluster, Shutdown, Space, Tool};

/// PostgreSQL's version in the comparison.
const VERSION: u32 = 17;
/// How often memory is looked at.
const SAMPLE_MS: u64 = 10;
/// Kernel clock ticks per second in `/proc`, fixed for user space.
const TICKS_PER_S: f64 = 100.0;

/// What one command took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wall_s: f64,
    processor_s: f64,
    peak_mib: f64,
}

/// Seconds of processor time of all children that have been waited for, and theirs.
fn children_processor_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc/self/stat");
    let fields = stat.rsplit_once(')').expect("name in parentheses").1.split_whitespace();
    fields.skip(13).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / TICKS_PER_S
}

/// Proportional memory (KiB) of a process group: what its processes share counts once.
fn group_memory_kib(group: u32) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let in_group = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(2))
            .is_some_and(|found| found == group.to_string());
        if in_group {
            let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
            sum += rollup
                .lines()
                .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    sum
}

fn measure(mut child: Child, before_s: f64, log: &PathBuf) -> Cost {
    let start = Instant::now();
    let mut peak_kib = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        peak_kib = peak_kib.max(group_memory_kib(child.id()));
        std::thread::sleep(Duration::from_millis(SAMPLE_MS));
    };
    let wall_s = start.elapsed().as_secs_f64();
    assert!(status.success(), "{status}:\n{}", fs::read_to_string(log).unwrap_or_default());
    #[allow(clippy::cast_precision_loss)]
    Cost { wall_s, processor_s: children_processor_s() - before_s, peak_mib: peak_kib as f64 / 1024.0 }
}

/// A stopped cluster and both programs.
struct Bench {
    space: Arc<Space>,
    oracles: &'static Oracles,
    cluster: Cluster,
}

impl Bench {
    fn load(oracles: &'static Oracles, sql: impl Fn(&Cluster)) -> Self {
        let space = Arc::new(Space::new());
        let settings = ["max_wal_size = 8GB", "checkpoint_timeout = 30min", "max_locks_per_transaction = 1024"];
        let loading = ["wal_level = minimal", "max_wal_senders = 0", "synchronous_commit = off"];
        let settings: Vec<_> = settings.iter().chain(&loading).map(|&line| line.to_owned()).collect();
        let mut cluster = Cluster::create(&space, oracles, VERSION, "pg", &settings);
        cluster.start();
        sql(&cluster);
        cluster.sql("checkpoint");
        cluster.stop(Shutdown::Fast);
        Self { space, oracles, cluster }
    }

    fn run(&self, tool: Tool, codec: &str, arguments: &[&str]) -> Cost {
        use std::os::unix::process::CommandExt as _;
        let program = match tool {
            Tool::Rbr => self.space.path("bin/rbr"),
            Tool::PgBackRest => self.oracles.pgbackrest.clone(),
        };
        let repo = format!("{tool:?}-{codec}").to_lowercase();
        let log = self.space.path("log/command.log");
        let file = fs::File::create(&log).expect("log");
        let mut command = self.space.command(program);
        command.args([
            "--no-config",
            "--stanza=bench",
            &format!("--repo1-path={}", self.space.folder(&repo).display()),
            &format!("--lock-path={}", self.space.text("lock")),
            "--log-level-file=off",
            "--log-level-console=warn",
        ]);
        if arguments.contains(&"restore") {
            command.args(["--process-max=2", &format!("--pg1-path={}", self.space.text("restored"))]);
        } else {
            command.arg(format!("--pg1-path={}", self.cluster.data_text()));
        }
        command.args(arguments).process_group(0).stdout(file.try_clone().expect("log")).stderr(file);
        let before_s = children_processor_s();
        measure(command.spawn().expect("start"), before_s, &log)
    }

    /// Both programs back up and restore; the one that begins changes from codec to codec.
    fn compare(&self, codec: &str, first: Tool) {
        let order = if first == Tool::Rbr { [Tool::Rbr, Tool::PgBackRest] } else { [Tool::PgBackRest, Tool::Rbr] };
        let compress = format!("--compress-type={codec}");
        let backup = ["--no-online", "--type=full", "--process-max=2", "--repo1-bundle", &compress];
        let backup: Vec<_> = backup.into_iter().chain(["--repo1-retention-full=2", "backup"]).collect();
        let costs = order.map(|tool| {
            self.run(tool, codec, &["--no-online", "stanza-create"]);
            (tool, self.run(tool, codec, &backup))
        });
        self.report(&format!("{codec} full backup"), &costs);
        let costs = order.map(|tool| {
            self.space.folder("restored");
            let cost = self.run(tool, codec, &["--type=none", "restore"]);
            fs::remove_dir_all(self.space.path("restored")).expect("remove");
            (tool, cost)
        });
        self.report(&format!("{codec} restore"), &costs);
        for tool in order {
            let repo = format!("{tool:?}-{codec}").to_lowercase();
            let size = self.space.run("du", &["-sm", &self.space.text(&repo)]).success().stdout;
            println!("    repository of {tool:?}: {} MiB", size.split_whitespace().next().unwrap_or("?"));
            fs::remove_dir_all(self.space.path(&repo)).expect("remove");
        }
    }

    fn report(&self, what: &str, costs: &[(Tool, Cost); 2]) {
        let of = |wanted| costs.iter().find(|(tool, _)| *tool == wanted).expect("both").1;
        let (ours, theirs) = (of(Tool::Rbr), of(Tool::PgBackRest));
        println!(
            "{what:<18} rbr {:7.2} s {:7.2} cpu-s {:6.0} MiB   pgBackRest {:7.2} s {:7.2} cpu-s {:6.0} MiB   \
             ratio wall {:.2} cpu {:.2} memory {:.2}",
            ours.wall_s,
            ours.processor_s,
            ours.peak_mib,
            theirs.wall_s,
            theirs.processor_s,
            theirs.peak_mib,
            ours.wall_s / theirs.wall_s,
            ours.processor_s / theirs.processor_s,
            ours.peak_mib / theirs.peak_mib,
        );
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn main() {
    // `cargo test --benches` runs benchmarks only to see that they start
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let oracles = oracles(&[VERSION]).expect("run scripts/oracles first");
    let codecs = std::env::var("RBR_BENCH_CODECS").unwrap_or_else(|_| "none lz4 zst gz bz2".to_owned());

    let size_mb = setting("RBR_BENCH_MB", 1024);
    if size_mb > 0 {
        // pgbench's largest table: 128 MB are a million rows; nine tenths of a cluster like this are table, the rest index
        let rows = size_mb * 7_000;
        let bench = Bench::load(oracles, |cluster| {
            cluster.sql(
                "create table accounts(aid int not null, bid int, abalance int, filler char(84)) with (fillfactor = 100)",
            );
            cluster.sql(&format!(
                "insert into accounts select g, g / 100000, g % 7919, '' from generate_series(1, {rows}) g"
            ));
            cluster.sql("alter table accounts add primary key (aid)");
        });
        let data = bench.space.run("du", &["-sm", &bench.cluster.data_text()]).success().stdout;
        println!("cluster of {} MiB, 2 processes:", data.split_whitespace().next().unwrap_or("?"));
        for (number, codec) in codecs.split_whitespace().enumerate() {
            bench.compare(codec, if number % 2 == 0 { Tool::Rbr } else { Tool::PgBackRest });
        }
    }

    let relations = setting("RBR_BENCH_RELATIONS", 100_000);
    if relations > 0 {
        let bench = Bench::load(oracles, |cluster| {
            cluster.sql(
                "create procedure make(first int, last int) language plpgsql as $$ begin
                 for i in first..last loop execute format('create table s%s as select %s as a', i, i);; end loop;; end $$",
            );
            for first in (1..=relations).step_by(500) {
                cluster.sql(&format!("call make({first}, {})", (first + 499).min(relations)));
            }
        });
        println!("cluster of {relations} relations, 2 processes:");
        bench.compare("zst", Tool::PgBackRest);
    }
}
