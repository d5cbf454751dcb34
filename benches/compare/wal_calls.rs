//! The cost of a call by PostgreSQL whose work the background worker has already done: archive-push with the segment's
//! `.ok` file in the spool, archive-get with the segment in the spool.

use std::fs;

use crate::harness::{Figures, Report, Site};
use crate::tests::env::{Shutdown, Tool};

/// Calls that are measured together.
const CALLS: usize = 1000;
/// Segments in the spool in addition to the requested one, so that no worker has to fetch more.
const AHEAD: usize = 3;

/// Both commands.
pub fn calls(report: &mut Report) {
    let mut site = Site::new(&["--wal-segsize=1"], &["wal_keep_size = 64MB"]);
    site.cluster.start();
    let segment = site.cluster.switch_wal();
    site.cluster.stop(Shutdown::Fast);
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        site.create_stanza(tool, &["archive-async=y", "archive-get-queue-max=2MiB"]);
        for folder in ["spool/archive", "spool/archive/bench", "spool/archive/bench/out", "spool/archive/bench/in"] {
            site.empty(tool, folder);
        }
    }
    report.in_turn(&format!("{CALLS} calls of archive-push, archived"), |_| {}, |tool| push(&site, tool, &segment));
    report.in_turn(&format!("{CALLS} calls of archive-get, prefetched"), |_| {}, |tool| get(&site, tool, &segment));
}

fn push(site: &Site, tool: Tool, segment: &str) -> Figures {
    let source = site.cluster.data().join("pg_wal").join(segment);
    let source = source.to_str().expect("UTF-8");
    let user = site.space.user();
    measure(site, tool, &["archive-push", source], || {
        let file = site.path(tool, "spool/archive/bench/out").join(format!("{segment}.ok"));
        fs::write(&file, "").expect("acknowledgement");
        user.own(&file);
    })
}

fn get(site: &Site, tool: Tool, segment: &str) -> Figures {
    let user = site.space.user();
    let content = fs::read(site.cluster.data().join("pg_wal").join(segment)).expect("segment");
    let spool = site.path(tool, "spool/archive/bench/in");
    let number = crate::data::segment_number(segment);
    let target = site.text(tool, "fetched");
    measure(site, tool, &["archive-get", segment, &target], || {
        for ahead in 0..=AHEAD {
            let file = spool.join(crate::data::segment_name(number + ahead as u64));
            if !file.exists() {
                fs::write(&file, &content).expect("prefetched segment");
                user.own(&file);
            }
        }
    })
}

fn measure(site: &Site, tool: Tool, arguments: &[&str], prepare: impl Fn()) -> Figures {
    site.measure_all(
        tool,
        (0..CALLS).map(|_| {
            prepare();
            site.command(tool, arguments)
        }),
    )
}
