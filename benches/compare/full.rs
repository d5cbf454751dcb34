//! Full backup and restore: one large table in every compression type, and many relations.

use crate::data;
use crate::harness::{Report, Site, codecs, setting};

/// One large table, by compression type.
pub fn codecs_of_large(report: &mut Report) {
    let size_mb = setting("RBR_BENCH_MB", 1024);
    let site = data::large(size_mb);
    for codec in codecs() {
        compare(report, &site, &format!("{size_mb} MB, {codec}"), &codec);
    }
}

/// Many tables of one page.
pub fn relations(report: &mut Report) {
    let count = setting("RBR_BENCH_RELATIONS", 100_000);
    compare(report, &data::tables(count), &format!("{count} relations, zst"), "zst");
}

fn compare(report: &mut Report, site: &Site, what: &str, codec: &str) {
    let compress = format!("compress-type={codec}");
    report.in_turn(
        &format!("full backup, {what}"),
        |_| {},
        |tool| {
            site.create_stanza(tool, &["repo1-bundle=y", "repo1-retention-full=2", &compress]);
            site.measure_growth(tool, &["--no-online", "--type=full", "backup"])
        },
    );
    report.in_turn(
        &format!("restore, {what}"),
        |_| {},
        |tool| {
            let target = site.empty(tool, "restored");
            site.warm_memory();
            let cost = site.measure(tool, &[&format!("--pg1-path={}", target.display()), "--type=none", "restore"]);
            site.put_away(tool, "restored");
            cost
        },
    );
    site.clear();
}
