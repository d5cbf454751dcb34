//! Recovery through `restore_command` with prefetched segments.

use std::fs;
use std::time::Instant;

use crate::data;
use crate::harness::{Figures, Report, Site, VERSION, machine_processor_s, setting};
use crate::tests::env::{Cluster, Shutdown, Tool};

/// Rows that fill about one segment of 1 MB.
const ROWS_PER_SEGMENT: usize = 8_000;

/// Recovers the requested number of segments of 1 MB, on a copy of the cluster from before them.
pub fn recovery(report: &mut Report) {
    let count = setting("RBR_BENCH_SEGMENTS", 500);
    // All segments stay in pg_wal until they are archived
    let mut site = Site::new(&["--wal-segsize=1"], &["wal_keep_size = 8GB"]);
    site.change(|cluster| {
        cluster.sql("create table bulk(id int, body text)");
    });
    site.space.copy("pg", "base");
    let segments = write(&mut site, count);
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        site.create_stanza(tool, &["archive-async=y", "compress-type=zst"]);
        for segment in &segments {
            site.run(tool, &["--no-archive-async", "archive-push", segment]);
        }
    }
    report.in_turn(&format!("async recovery of {count} segments"), |_| {}, |tool| recover(&site, tool, count));
}

/// Writes segments and returns the complete ones.
fn write(site: &mut Site, count: usize) -> Vec<String> {
    site.cluster.start();
    let current = || data::segment_number(&site.cluster.sql("select pg_walfile_name(pg_current_wal_lsn())"));
    let first = current();
    let mut last = first;
    while last < first + count as u64 {
        let rows = (first + count as u64 - last).min(20) as usize * ROWS_PER_SEGMENT;
        site.cluster.sql(&format!("insert into bulk select g, md5(g::text) from generate_series(1, {rows}) g"));
        last = current();
    }
    site.cluster.switch_wal();
    site.cluster.stop(Shutdown::Fast);
    let folder = site.cluster.data_text();
    (first..=last).map(|number| format!("{folder}/pg_wal/{}", data::segment_name(number))).collect()
}

fn recover(site: &Site, tool: Tool, count: usize) -> Figures {
    let standby = site.space.path("standby");
    if standby.exists() {
        fs::remove_dir_all(&standby).expect("remove the last recovery");
    }
    site.space.copy("base", "standby");
    site.empty(tool, "spool");
    let _ = fs::remove_file(site.space.path("log/standby.log"));
    let options = format!("--pg1-path={} archive-get %f \"%p\"", standby.display());
    data::append(
        &standby.join("postgresql.conf"),
        &format!("restore_command = '{}'\n", site.command_line(tool, &options)),
    );
    site.space.write("standby/recovery.signal", "");
    rustix::fs::sync();
    let mut cluster = Cluster::existing(&site.space, site.oracles, VERSION, "standby");
    let (watch, before_s, start) = (site.watch(tool), machine_processor_s(), Instant::now());
    cluster.start();
    cluster.wait_writable();
    let (wall_s, machine_s) = (start.elapsed().as_secs_f64(), machine_processor_s() - before_s);
    let peak_mib = watch.peak_mib();
    cluster.stop(Shutdown::Immediate);
    let restored = cluster.log_text().matches("restored log file \"0000").count();
    assert!(restored >= count, "{restored} segments restored:\n{}", cluster.log_text());
    let per_segment = wall_s * 1000.0 / restored as f64;
    vec![("wall s", wall_s), ("ms per segment", per_segment), ("machine cpu s", machine_s), ("peak MiB", peak_mib)]
}
