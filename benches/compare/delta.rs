//! Delta restore over an unchanged cluster, and over a cluster with one percent of its pages changed.

use crate::data;
use crate::harness::{Report, Site, setting};
use crate::tests::env::Tool;

/// One of this many pages is damaged.
const EVERY: usize = 100;

/// A large table, restored from whole files and from block incremental files.
pub fn restore(report: &mut Report) {
    let size_mb = setting("RBR_BENCH_MB", 1024);
    let site = data::large(size_mb);
    for (kind, block) in [("files", "repo1-block=n"), ("blocks", "repo1-block=y")] {
        for tool in [Tool::Rbr, Tool::PgBackRest] {
            site.create_stanza(tool, &["repo1-bundle=y", "compress-type=zst", "repo1-retention-full=9", block]);
            site.run(tool, &["--no-online", "--type=full", "backup"]);
            site.empty(tool, "restored");
            site.run(tool, &[&target(&site, tool), "--type=none", "restore"]);
        }
        compare(report, &site, &format!("delta restore, {size_mb} MB of {kind}, unchanged"), || {});
        compare(report, &site, &format!("delta restore, {size_mb} MB of {kind}, 1% of pages"), || {
            for tool in [Tool::Rbr, Tool::PgBackRest] {
                data::damage_pages(&site.path(tool, "restored/base"), EVERY);
            }
        });
        site.clear();
    }
}

fn target(site: &Site, tool: Tool) -> String {
    format!("--pg1-path={}", site.text(tool, "restored"))
}

fn compare(report: &mut Report, site: &Site, what: &str, damage: impl Fn()) {
    report.in_turn(
        what,
        |_| damage(),
        |tool| site.measure(tool, &[&target(site, tool), "--type=none", "--delta", "restore"]),
    );
}
