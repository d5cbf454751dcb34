//! A cluster or a repository on a distant host, behind TLS: both hosts have the same program.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Figures, Report, Watch, latencies, setting, words};
use crate::tests::env::{DistantHosts, Far, Link, Shutdown, Tool};

/// The configuration files of this host and of the other one.
const NEAR: &str = "near.conf";
const FAR: &str = "far.conf";
/// The time limit of archiving what the preparation has written.
const ARCHIVED_MAX: Duration = Duration::from_secs(600);
/// How often to look whether the background worker or the archiver has ended.
const WORKER_POLL: Duration = Duration::from_millis(20);

/// Backups, and a restore from a repository there, without and with bundles.
pub fn hosts(report: &mut Report) {
    for delay in latencies() {
        for far in words("RBR_BENCH_DISTANT_FAR", "cluster repository") {
            for bundle in words("RBR_BENCH_DISTANT_BUNDLES", "n y") {
                compare(report, delay, &far, &bundle);
            }
        }
    }
}

fn compare(report: &mut Report, delay: Duration, name: &str, bundle: &str) {
    let far = if name == "cluster" { Far::Cluster } else { Far::Repository };
    let bundle = format!("repo1-bundle={bundle}");
    let near = [bundle.as_str(), "compress-type=zst"];
    let (tables, size_mb) = (setting("RBR_BENCH_DISTANT_TABLES", 500), setting("RBR_BENCH_DISTANT_MB", 0));
    let start = |tool| {
        let link = Link { delay, ..Link::default() };
        let hosts = DistantHosts::start(link, far, tool, &near).expect("oracles");
        hosts.create_tables(tables);
        if size_mb > 0 {
            create_large(&hosts, size_mb);
        }
        hosts.run(tool, &["stanza-create"]).success();
        archived(&hosts);
        hosts
    };
    let (ours, theirs) = (start(Tool::Rbr), start(Tool::PgBackRest));
    let of = |tool| if tool == Tool::Rbr { &ours } else { &theirs };
    let how = format!("{name}, {tables} tables, {size_mb} MB, +{} ms, {bundle}", delay.as_millis());
    for kind in ["full", "incr"] {
        let kind_option = format!("--type={kind}");
        let backup = |tool| measure(of(tool), tool, || drop(of(tool).run(tool, &["backup", &kind_option]).success()));
        report.in_turn(&format!("{kind} {how}"), |_| {}, backup);
    }
    if far == Far::Repository {
        let mut number = 0;
        let restore = |tool| {
            number += 1;
            let target = of(tool).scenario.space.folder(&format!("restored-{number}"));
            let path = format!("--pg1-path={}", target.display());
            let run = || drop(of(tool).run(tool, &["restore", &path, "--type=immediate"]).success());
            let figures = measure(of(tool), tool, run);
            fs::remove_dir_all(target).expect("remove restored cluster");
            figures
        };
        report.in_turn(&format!("restore {how}"), |_| {}, restore);
    }
}

/// Waits until PostgreSQL has archived all it has: it begins once there is a stanza, and would compress beside what is measured.
fn archived(hosts: &DistantHosts) {
    let states = hosts.scenario.cluster.data().join("pg_wal/archive_status");
    let is_ready = |entry: fs::DirEntry| entry.path().extension().is_some_and(|end| end == "ready");
    let end = Instant::now() + ARCHIVED_MAX;
    while fs::read_dir(&states).expect("archive states").flatten().any(is_ready) {
        assert!(Instant::now() < end, "segments wait still");
        std::thread::sleep(WORKER_POLL);
    }
}

/// Creates four tables of so many MB together.
fn create_large(hosts: &DistantHosts, size_mb: usize) {
    let rows = size_mb * 1900;
    for number in 0..4 {
        hosts.scenario.cluster.sql(&format!(
            "create table large_{number} as select g, g % 7919 as b, md5(g::text) as c, md5((g + {number})::text) as d
             from generate_series(1, {rows}) g"
        ));
    }
    hosts.scenario.cluster.sql("checkpoint");
}

/// Asynchronous archive-push to a distant repository: one call per segment, as by PostgreSQL.
pub fn archive(report: &mut Report) {
    let count = setting("RBR_BENCH_DISTANT_SEGMENTS", 64);
    for delay in latencies() {
        let start = |tool| {
            let near = ["archive-async=y", "compress-type=zst"];
            let link = Link { delay, ..Link::default() };
            let mut hosts = DistantHosts::start(link, Far::Repository, tool, &near).expect("oracles");
            hosts.run(tool, &["stanza-create"]).success();
            let names = segments(&mut hosts, count);
            (hosts, names)
        };
        let (ours, theirs) = (start(Tool::Rbr), start(Tool::PgBackRest));
        report.in_turn(
            &format!("push {count} segments, +{} ms", delay.as_millis()),
            |_| {},
            |tool| {
                let (hosts, names) = if tool == Tool::Rbr { &ours } else { &theirs };
                push(hosts, tool, names)
            },
        );
    }
}

/// Stops the cluster, and makes copies of a segment with names that follow each other.
fn segments(hosts: &mut DistantHosts, count: usize) -> Vec<String> {
    let cluster = &mut hosts.scenario.cluster;
    cluster.switch_wal();
    cluster.sql("create table bulk(id int, number double precision, body text)");
    let segment = cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    cluster.sql(
        "insert into bulk select g, random(), md5((g / 10)::text) || ' note ' || g % 7 from generate_series(1, 140000) g",
    );
    let wal = cluster.data().join("pg_wal");
    let content = fs::read(wal.join(segment)).expect("segment");
    cluster.stop(Shutdown::Fast);
    let names: Vec<_> = (0..count).map(|number| format!("00000001000000A0000000{number:02X}")).collect();
    for name in &names {
        fs::write(wal.join(name), &content).expect("copy of a segment");
        hosts.scenario.space.user().own(&wal.join(name));
    }
    names
}

fn push(hosts: &DistantHosts, tool: Tool, names: &[String]) -> Figures {
    let (space, wal) = (&hosts.scenario.space, hosts.scenario.cluster.data().join("pg_wal"));
    let stored = space.path("repo/archive/demo/15-1/00000001000000A0");
    for folder in [&stored, &space.path("near-spool")] {
        if folder.exists() {
            fs::remove_dir_all(folder).expect("remove what an earlier round left");
        }
    }
    space.folder("near-spool");
    let status = |name: &String| wal.join("archive_status").join(format!("{name}.ready"));
    for name in names {
        fs::write(status(name), "").expect("segment that waits");
        space.user().own(&status(name));
    }
    let figures = measure(hosts, tool, || {
        for name in names {
            hosts.run(tool, &["archive-push", &wal.join(name).display().to_string()]).success();
            // PostgreSQL does that when a segment is acknowledged
            fs::remove_file(status(name)).expect("acknowledged segment");
        }
    });
    while space.path("near-lock/demo-archive-1.lock").exists() {
        std::thread::sleep(WORKER_POLL);
    }
    assert_eq!(fs::read_dir(stored).expect("archive").count(), names.len(), "segments in the archive");
    figures
}

/// Measures time, bytes between the hosts, and memory on both.
fn measure(hosts: &DistantHosts, tool: Tool, work: impl FnOnce()) -> Figures {
    let (program, home) = (hosts.scenario.program(tool), hosts.scenario.space.text(""));
    let [near, far] = [NEAR, FAR].map(|config| Watch::of(&program, home.trim_end_matches('/'), config));
    rustix::fs::sync();
    hosts.passage.take_passed();
    let begin = Instant::now();
    work();
    let wall = begin.elapsed();
    let [sent, received] = hosts.passage.take_passed().map(|bytes| bytes as f64 / 1024.0);
    vec![
        ("wall s", wall.as_secs_f64()),
        ("sent KiB", sent),
        ("received KiB", received),
        ("near peak MiB", near.peak_mib()),
        ("far peak MiB", far.peak_mib()),
    ]
}
