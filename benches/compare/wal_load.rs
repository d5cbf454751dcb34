//! Asynchronous archiving while PostgreSQL writes WAL as fast as it can, in segments of 1 MB.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::data;
use crate::harness::{Figures, Report, Site, setting};
use crate::tests::env::{Shutdown, Tool};

/// How often to check the archiver's queue.
const POLL: Duration = Duration::from_millis(10);
/// The maximum wait for the last segment of a load.
const LIMIT: Duration = Duration::from_secs(300);

/// A load: its name and the arguments of pgbench without the number of transactions.
struct Load<'a> {
    name: &'a str,
    arguments: &'a [&'a str],
    transactions: usize,
}

/// pgbench's own transactions, and transactions that only write.
pub fn load(report: &mut Report) {
    let mut site = Site::new(&["--wal-segsize=1"], &[]);
    site.change(|cluster| {
        cluster.client("pgbench", &["-i", "-I", "dtGp", "-s", "10", "-q", "postgres"]).success();
        cluster.sql("create table bulk(id int, body text)");
    });
    let script = site.space.write(
        "bulk.sql",
        "insert into bulk select g, md5(random()::text) || md5(g::text) from generate_series(1, 5000) g;\n",
    );
    let script = script.to_str().expect("UTF-8");
    let pristine = site.space.text("pristine");
    site.space.copy("pg", "pristine");
    let loads = [
        Load { name: "pgbench", arguments: &["-n"], transactions: setting("RBR_BENCH_TRANSACTIONS", 10_000) },
        Load { name: "inserts", arguments: &["-n", "-f", script], transactions: setting("RBR_BENCH_INSERTS", 200) },
    ];
    for load in loads {
        let site = std::cell::RefCell::new(&mut site);
        report.in_turn(
            &format!("async archive-push under {}", load.name),
            |_| {},
            |tool| {
                fs::remove_dir_all(site.borrow().cluster.data()).expect("remove cluster");
                site.borrow().space.run("cp", &["-a", &pristine, &site.borrow().cluster.data_text()]).success();
                under(&mut site.borrow_mut(), &load, tool)
            },
        );
    }
}

fn under(site: &mut Site, load: &Load<'_>, tool: Tool) -> Figures {
    site.create_stanza(tool, &["archive-async=y", "compress-type=zst"]);
    data::append(
        &site.cluster.data().join("postgresql.conf"),
        &format!("archive_mode = on\narchive_command = '{}'\n", site.command_line(tool, "archive-push %p")),
    );
    rustix::fs::sync();
    let watch = site.watch(tool);
    site.cluster.start();
    let first = site.cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    let clients = ["-c", "4", "-j", "2", "-t", &load.transactions.to_string()];
    let start = Instant::now();
    site.cluster.client("pgbench", &[&clients, load.arguments, &["postgres"]].concat()).success();
    let loaded = start.elapsed();
    let status = site.cluster.data().join("pg_wal/archive_status");
    let lag = waiting(&status);
    let last = site.cluster.switch_wal();
    while waiting(&status) > 0 {
        assert!(start.elapsed() < LIMIT, "not archived:\n{}", site.cluster.log_text());
        std::thread::sleep(POLL);
    }
    let drained = start.elapsed();
    let peak_mib = watch.peak_mib();
    site.cluster.stop(Shutdown::Fast);
    let count = complete(&site.path(tool, "repo/archive"), &first, &last);
    let (lag, per_segment) = (lag as f64, drained.as_secs_f64() * 1000.0 / count as f64);
    vec![
        ("load s", loaded.as_secs_f64()),
        ("lag segments", lag),
        ("lag s", (drained - loaded).as_secs_f64()),
        ("ms per segment", per_segment),
        ("peak MiB", peak_mib),
    ]
}

/// Returns how many segments wait for the archiver.
fn waiting(status: &Path) -> usize {
    let entries = fs::read_dir(status).expect("archive_status").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".ready")).count()
}

/// Checks that the archive has every segment from `first` to `last`, and returns their number.
fn complete(archive: &Path, first: &str, last: &str) -> usize {
    let mut found = Vec::new();
    names(archive, &mut found);
    let (first, last) = (data::segment_number(first), data::segment_number(last));
    for number in first..=last {
        let name = data::segment_name(number);
        assert!(found.iter().any(|found| found.starts_with(&name)), "segment {name} is not in the archive");
    }
    usize::try_from(last - first + 1).expect("count of segments")
}

fn names(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("archive").flatten() {
        if entry.path().is_dir() {
            names(&entry.path(), found);
        } else {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
}
