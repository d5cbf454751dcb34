//! A cluster or a repository on a distant host, behind TLS: both hosts have the same program.

use std::time::{Duration, Instant};

use crate::harness::{Figures, Report, latencies, setting};
use crate::tests::env::{DistantHosts, Far, Tool};

/// Backups, and a restore from a repository there, without and with bundles.
pub fn hosts(report: &mut Report) {
    for delay in latencies() {
        for (far, name) in [(Far::Cluster, "cluster"), (Far::Repository, "repository")] {
            for bundle in ["n", "y"] {
                compare(report, delay, (far, name), bundle);
            }
        }
    }
}

fn compare(report: &mut Report, delay: Duration, (far, name): (Far, &str), bundle: &str) {
    let bundle = format!("repo1-bundle={bundle}");
    let near = [bundle.as_str(), "compress-type=zst", "archive-async=y"];
    let start = |tool| {
        let hosts = DistantHosts::start(delay, far, tool, &near).expect("oracles");
        hosts.create_tables(setting("RBR_BENCH_DISTANT_TABLES", 500));
        hosts.run(tool, &["stanza-create"]).success();
        hosts
    };
    let (ours, theirs) = (start(Tool::Rbr), start(Tool::PgBackRest));
    let of = |tool| if tool == Tool::Rbr { &ours } else { &theirs };
    let how = format!("distant {name}, +{} ms, {bundle}", delay.as_millis());
    for kind in ["full", "incr"] {
        let kind_option = format!("--type={kind}");
        let backup = |tool| time(of(tool), tool, &["backup", &kind_option]);
        report.in_turn(&format!("{kind} {how}"), |_| {}, backup);
    }
    if far == Far::Repository {
        let mut number = 0;
        let restore = |tool| {
            number += 1;
            let target = of(tool).scenario.space.folder(&format!("restored-{number}"));
            time(of(tool), tool, &["restore", &format!("--pg1-path={}", target.display()), "--type=immediate"])
        };
        report.in_turn(&format!("restore {how}"), |_| {}, restore);
    }
}

fn time(hosts: &DistantHosts, tool: Tool, arguments: &[&str]) -> Figures {
    let begin = Instant::now();
    hosts.run(tool, arguments).success();
    vec![("wall s", begin.elapsed().as_secs_f64())]
}
