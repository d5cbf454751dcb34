//! Backup and restore with the repository in an S3 server, without and with latency.

use crate::data;
use crate::harness::{Bucket, Report, Site, latencies, processes, setting};
use crate::tests::env::{Cluster, Tool};

/// Calls `compare` for every latency and number of processes, with their names for the report.
fn for_each_setting(bucket: &Bucket, mut compare: impl FnMut(&str, &str)) {
    for latency in latencies() {
        bucket.set_latency(latency);
        for count in processes() {
            compare(&format!("+{} ms, {count} pr.", latency.as_millis()), &format!("process-max={count}"));
        }
    }
}

/// Full backup of one large table, and its restore.
pub fn full(report: &mut Report) {
    let size_mb = setting("RBR_BENCH_MB", 1024);
    let (site, bucket) = (data::large(size_mb), Bucket::start());
    for_each_setting(&bucket, |how, processes| {
        for (kind, bundle) in [("files", "repo1-bundle=n"), ("bundles", "repo1-bundle=y")] {
            report.in_turn(
                &format!("S3 full, {size_mb} MB, {kind}, {how}"),
                |_| {},
                |tool| {
                    create_stanza(&site, &bucket, tool, &["compress-type=zst", bundle, processes]);
                    bucket.count(|| site.measure(tool, &["--no-online", "--type=full", "backup"]))
                },
            );
            report.in_turn(
                &format!("S3 restore, {size_mb} MB, {kind}, {how}"),
                |_| {},
                |tool| restore(&site, &bucket, tool),
            );
        }
        site.clear();
    });
}

/// Incremental backup of many tables of which one row changed.
pub fn incr(report: &mut Report) {
    let count = setting("RBR_BENCH_TABLES", 20_000);
    let (site, bucket) = (data::tables(count), Bucket::start());
    let site = std::cell::RefCell::new(site);
    for_each_setting(&bucket, |how, processes| {
        for tool in [Tool::Rbr, Tool::PgBackRest] {
            let lines = ["compress-type=zst", "repo1-bundle=y", "repo1-block=y", processes];
            create_stanza(&site.borrow(), &bucket, tool, &lines);
            site.borrow().run(tool, &["--no-online", "--type=full", "backup"]);
        }
        report.in_turn(
            &format!("S3 incr, {count} tables, one changed, {how}"),
            |_| {
                site.borrow_mut().change(|cluster: &Cluster| {
                    cluster.sql("update s1 set a = a + 1");
                });
            },
            |tool| bucket.count(|| site.borrow().measure(tool, &["--no-online", "--type=incr", "backup"])),
        );
        site.borrow().clear();
    });
}

/// Creates a stanza in a repository of its own.
pub fn create_stanza(site: &Site, bucket: &Bucket, tool: Tool, lines: &[&str]) {
    let lines = bucket.new_repo(lines);
    site.create_stanza(tool, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

fn restore(site: &Site, bucket: &Bucket, tool: Tool) -> crate::harness::Figures {
    let target = site.empty(tool, "restored");
    let path = format!("--pg1-path={}", target.display());
    site.warm_memory();
    let figures = bucket.count(|| site.measure(tool, &[&path, "--type=none", "restore"]));
    site.put_away(tool, "restored");
    figures
}
