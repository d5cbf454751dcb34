//! Compares how many requests the commands send to an object store with pgBackRest. Every request takes time and costs
//! money.

use std::fmt::Write as _;

use crate::env::proxy::{Proxy, Request};
use crate::env::{Azurite, Gcs, Run, Scenario, ScenarioOptions, Tool, Weed};

/// A command, and the number of requests of rbr and of pgBackRest.
type Row = (String, usize, usize);

/// Returns how many more requests than pgBackRest a command may send, for claims (which keep two hosts apart), for the
/// copies of info files, for the remains of interrupted backups, for proofs of recovery, for what verify remembers, and
/// for the phases of backups.
fn more_max(command: &str) -> usize {
    match command {
        "backup full" | "backup incr" => 16,
        "expire" | "expire nothing" => 8,
        "info" => 1,
        "check" => 2,
        "verify" => 5,
        // It checks the stored object, which may be empty
        "archive-push, stored" => 1,
        _ => 0,
    }
}

/// Waits until PostgreSQL has archived everything.
fn archived(scenario: &Scenario) {
    let is_ready = || {
        let states = std::fs::read_dir(scenario.cluster.data().join("pg_wal/archive_status")).expect("states");
        states.flatten().any(|state| state.path().extension().is_some_and(|extension| extension == "ready"))
    };
    while is_ready() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Counts the requests of a command that either program runs.
fn count(scenario: &Scenario, proxy: &Proxy, tool: Tool, arguments: &[&str]) -> usize {
    proxy.clear();
    let run: Run = scenario.run(tool, arguments);
    // archive-get returns 1 for a missing segment
    assert!(run.code == 0 || (arguments[0] == "archive-get" && run.code == 1), "{}", run.describe());
    proxy.settle();
    let mut requests = proxy.requests();
    assert!(requests.iter().all(|request| request.status < 500), "{requests:#?}");
    if arguments[0] == "backup" {
        // PostgreSQL archives at the same time
        requests.retain(|request| !request.path.contains("archive"));
    }
    if arguments[0] == "check" {
        // It looks for the segment until that has come
        let is_look = |request: &Request| request.path.contains("prefix=") && request.path.contains("0000000100000000");
        let (mut looks, others): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_look);
        looks.sort_by(|one, two| one.path.cmp(&two.path));
        looks.dedup_by(|one, two| one.path == two.path);
        requests = [others, looks].concat();
    }
    requests.len()
}

fn rows(scenario: &Scenario, proxy: &Proxy) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let full = || {
        scenario.rbr(&["backup", "--type=full", "--no-expire-auto"]).success();
        archived(scenario);
    };
    scenario.rbr(&["stanza-create"]).success();
    full();
    let both = |name: &str, ours: &[&str], theirs: &[&str]| {
        let [ours, theirs] = [(Tool::Rbr, ours), (Tool::PgBackRest, theirs)]
            .map(|(tool, arguments)| count(scenario, proxy, tool, arguments));
        (name.to_owned(), ours, theirs)
    };
    let same = |name: &str, arguments: &[&str]| both(name, arguments, arguments);
    // A request is sent again if a busy server answers late, but hardly twice
    let least = |name: &str, arguments: &[&str]| {
        let (first, second) = (same(name, arguments), same(name, arguments));
        (first.0, first.1.min(second.1), first.2.min(second.2))
    };
    // In both cases rbr archives the segment
    rows.push(same("check", &["check"]));
    archived(scenario);
    let mut expire = [Tool::PgBackRest, Tool::Rbr].map(|tool| {
        full();
        count(scenario, proxy, tool, &["expire", "--repo1-retention-full=1"])
    });
    expire.reverse();
    rows.push(("expire".to_owned(), expire[0], expire[1]));
    rows.push(same("expire nothing", &["expire", "--repo1-retention-full=1"]));
    rows.push(same("info", &["info"]));
    rows.push(same("verify", &["verify", "--output=text"]));
    let target = scenario.space.text("fetched");
    scenario.cluster.sql("checkpoint");
    let stored = scenario.cluster.switch_wal();
    archived(scenario);
    rows.push(least("archive-get", &["archive-get", &stored, &target]));
    rows.push(least("archive-get, missing", &["archive-get", "0000000100000000000000FF", &target]));
    // From here on only the test archives
    scenario.cluster.sql("alter system set archive_command = 'false'");
    scenario.cluster.sql("select pg_reload_conf()");
    let segment = || {
        let name = scenario.cluster.switch_wal();
        scenario.cluster.data().join("pg_wal").join(name).to_str().expect("UTF-8").to_owned()
    };
    let (ours, theirs) = (segment(), segment());
    rows.push(both("archive-push", &["archive-push", &ours], &["archive-push", &theirs]));
    rows.push(same("archive-push, stored", &["archive-push", &ours]));
    scenario.cluster.sql("alter system reset archive_command");
    scenario.cluster.sql("select pg_reload_conf()");
    archived(scenario);
    for kind in ["full", "incr"] {
        let kind_option = format!("--type={kind}");
        rows.push(same(&format!("backup {kind}"), &["backup", &kind_option, "--no-expire-auto"]));
        archived(scenario);
    }
    rows
}

#[test]
fn commands_ask_no_more_often_than_pgbackrest_but_for_what_keeps_hosts_apart() {
    let (Some(s3), Some(azure), Some(gcs)) = (Weed::start(), Azurite::start(), Gcs::start()) else { return };
    let s3_proxy = s3.proxy();
    let stores = [
        ("S3", s3.options(s3_proxy.port()), &s3_proxy),
        ("Azure", azure.options_with_key(), &azure.proxy),
        ("GCS", gcs.options(), &gcs.proxy),
    ];
    let global = |options: &[String]| [options, &["repo1-bundle=y".to_owned()]].concat();
    let options = ScenarioOptions { global: global(&stores[0].1), ..ScenarioOptions::default() };
    let Some(scenario) = Scenario::start(options) else { return };
    let (mut table, mut more) = (String::new(), 0);
    for (store, options, proxy) in stores {
        scenario.configure(&global(&options));
        for (command, ours, theirs) in rows(&scenario, proxy) {
            // Writing to a String can't fail
            let _ = writeln!(table, "{store:6} {command:22} rbr {ours:4}, pgBackRest {theirs:4}");
            // An upload to GCS has its name in its body, so those of the archiver count, too
            let archived = if store == "GCS" && command.starts_with("backup") { 3 } else { 0 };
            more += usize::from(ours > theirs + more_max(&command) + archived);
        }
    }
    println!("{table}");
    assert_eq!(more, 0, "\n{table}");
}
