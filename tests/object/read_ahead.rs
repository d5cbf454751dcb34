//! Restores from a distant store: adjacent parts are read with one request (`repo-storage-read-over`), and the next
//! requests are started ahead (`repo-storage-prefetch`).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::env::proxy::Proxy;
use crate::env::{Scenario, ScenarioOptions, Tool, Tree, Weed};

/// Restores a copy of a damaged data directory with these options. Returns its files, the number of requests, and the
/// number of connections that they took. A connection serves one request at a time.
fn restore(scenario: &Scenario, proxy: &Proxy, number: usize, options: &[&str]) -> (Tree, usize, usize) {
    let copy = format!("copy-{number}");
    let path = format!("--pg1-path={}", scenario.space.copy("damaged", &copy).display());
    proxy.clear();
    let fixed = ["--delta", "--process-max=1", path.as_str()];
    scenario.rbr(&[&fixed[..], options, &["restore"]].concat()).success();
    let data = regex_lite::Regex::new("^/rbr/demo/backup/demo/[^/]+/(bundle|pg_data)/").expect("pattern");
    let requests = proxy.requests();
    let connections = requests.iter().filter(|request| data.is_match(&request.path)).map(|request| request.connection);
    let count = connections.clone().count();
    (files(scenario, &copy), count, connections.collect::<BTreeSet<_>>().len())
}

/// The files that every restore writes identically.
fn files(scenario: &Scenario, name: &str) -> Tree {
    Tree::read_restored(&scenario.space.path(name)).without(|path| path == "recovery.signal")
}

#[test]
fn restore_reads_neighbours_at_once_and_begins_reads_ahead() {
    let Some(weed) = Weed::start() else { return };
    let proxy = weed.proxy();
    let mut global = weed.options(proxy.port());
    global.extend(["repo1-bundle=y", "repo1-block=y", "compress-type=zst"].map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    scenario.change(1);
    scenario.rbr(&["backup", "--type=incr"]).success();
    scenario.restore(Tool::Rbr, "whole", &[]);
    let whole = files(&scenario, "whole");
    // Of every four consecutive files, two are missing
    scenario.space.copy("whole", "damaged");
    let script = "cd damaged/base && find . -type f | sort | awk 'NR % 4 < 2' | xargs rm";
    scenario.space.run("sh", &["-c", script]).success();

    let mut requests = Vec::new();
    for (number, read_over) in ["0B", "64KiB", "1MiB"].iter().enumerate() {
        let option = format!("--repo1-storage-read-over={read_over}");
        let (tree, count, _) = restore(&scenario, &proxy, number, &[&option]);
        assert!(tree == whole, "{option}");
        requests.push(count);
    }
    assert!(requests[0] > requests[1] && requests[1] >= requests[2], "{requests:?}");
    assert!(requests[0] > 50, "{requests:?}");

    proxy.set_latency(Duration::from_millis(40));
    let [alone, ahead] = [(3, "0"), (4, "8")].map(|(number, prefetch)| {
        let options = [format!("--repo1-storage-prefetch={prefetch}"), "--repo1-storage-read-over=0B".to_owned()];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (tree, count, connections) = restore(&scenario, &proxy, number, &options);
        assert!(tree == whole && count == requests[0], "{options:?}: {count}");
        connections
    });
    assert!(ahead >= alone + 4, "{ahead} instead of {alone}");
}
