//! Incremental backups: many tables of which one row changed, and a large table of which one percent of the blocks
//! changed.

use crate::data;
use crate::harness::{Report, Site, setting};
use crate::tests::env::{Cluster, Tool};

/// One of this many blocks changes.
const EVERY: usize = 100;

/// Many tables. One row changes, because both programs refuse a backup without any change.
pub fn unchanged_tables(report: &mut Report) {
    let count = setting("RBR_BENCH_TABLES", 20_000);
    let mut site = data::tables(count);
    let changes = |cluster: &Cluster, _| {
        cluster.sql("update s1 set a = a + 1");
    };
    compare(report, &mut site, &format!("{count} tables, one changed"), &[], changes);
    compare(report, &mut site, &format!("{count} tables, one changed, block"), &["repo1-block=y"], changes);
}

/// A large table, with and without block incremental backup.
pub fn changed_blocks(report: &mut Report) {
    let size_mb = setting("RBR_BENCH_MB", 1024);
    let mut site = data::large(size_mb);
    let changes = |cluster: &Cluster, round| data::change_blocks(cluster, round, EVERY);
    compare(report, &mut site, &format!("{size_mb} MB, 1% of blocks"), &[], changes);
    compare(report, &mut site, &format!("{size_mb} MB, 1% of blocks, block"), &["repo1-block=y"], changes);
}

/// Changes the cluster once per round. Both programs back up the same change.
fn compare(report: &mut Report, site: &mut Site, what: &str, lines: &[&str], change: impl Fn(&Cluster, usize)) {
    let mut all = vec!["repo1-bundle=y", "compress-type=zst", "repo1-retention-full=9"];
    all.extend(lines);
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        site.create_stanza(tool, &all);
        site.run(tool, &["--no-online", "--type=full", "backup"]);
    }
    let site = std::cell::RefCell::new(site);
    report.in_turn(
        &format!("incr backup, {what}"),
        |round| site.borrow_mut().change(|cluster| change(cluster, round)),
        |tool| site.borrow().measure_growth(tool, &["--no-online", "--type=incr", "backup"]),
    );
    site.borrow().clear();
}
