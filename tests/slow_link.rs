//! Hosts that are far apart: TLS through a passage that delays everything by 20 ms in either direction.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::env::network::free_ports;
use crate::env::{Authority, Background, Link, Passage, Run, Scenario, ScenarioOptions, Tool, restored_matches};

/// The configuration of this host, and of the other one.
const NEAR: &str = "near.conf";
const FAR: &str = "far.conf";
/// The delay in each direction.
const DELAY: Duration = Duration::from_millis(20);
/// The time limit of a server's start.
const START_MAX: Duration = Duration::from_secs(20);

/// What the other host has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Far {
    Cluster,
    Repository,
}

/// Two hosts.
struct Hosts {
    // Declared before the folder that the server uses, so that it is dropped first
    passage: Passage,
    server: Background,
    scenario: Scenario,
}

impl Hosts {
    /// `near` are options of this host.
    fn start(far: Far, server: Tool, near: &[&str]) -> Option<Self> {
        let scenario = Scenario::start(ScenarioOptions::default())?;
        let space = &scenario.space;
        Authority::new(space, "ca").issue("server", "far", "DNS:localhost").issue("client", "near", "");
        let port = free_ports(1);
        let passage = Passage::start_with("127.0.0.1", port, Link { delay: DELAY, one_lost_of: 0 });
        let file = |name: &str| space.text(&format!("tls/{name}"));
        let folder = |option: &str, name: &str| format!("{option}={}", space.folder(name).display());
        let repo = folder("repo1-path", "repo");
        let cluster = [
            format!("pg1-path={}", scenario.cluster.data_text()),
            format!("pg1-socket-path={}", scenario.cluster.socket()),
            "pg1-user=postgres".to_owned(),
        ];
        let usual = ["log-level-file=off", "start-fast=y", "archive-timeout=30", "process-max=2"];
        let mut lines = vec!["[global]".to_owned(), folder("log-path", "far-log"), folder("lock-path", "far-lock")];
        lines.extend(
            [("ca", "ca.crt"), ("cert", "server.crt"), ("key", "server.key")]
                .map(|(option, name)| format!("tls-server-{option}-file={}", file(name))),
        );
        lines.push(format!("tls-server-address=127.0.0.1\ntls-server-port={port}\ntls-server-auth=near=demo"));
        lines.push(repo.clone());
        lines.push("[demo]".to_owned());
        lines.extend(cluster.clone());
        space.write(FAR, lines.join("\n") + "\n");
        let host = |option: &str| {
            vec![
                format!("{option}-host=localhost"),
                format!("{option}-host-port={}", passage.port()),
                format!("{option}-host-type=tls"),
                format!("{option}-host-config={}", space.text(FAR)),
                format!("{option}-host-ca-file={}", file("ca.crt")),
                format!("{option}-host-cert-file={}", file("client.crt")),
                format!("{option}-host-key-file={}", file("client.key")),
            ]
        };
        let mut lines = vec!["[global]".to_owned(), folder("log-path", "near-log"), folder("lock-path", "near-lock")];
        lines.push(folder("spool-path", "near-spool"));
        lines.extend(usual.map(str::to_owned));
        lines.extend(["log-level-console=detail".to_owned(), "repo1-retention-full=9".to_owned()]);
        lines.extend(if far == Far::Repository { host("repo1") } else { vec![repo] });
        lines.extend(near.iter().map(ToString::to_string));
        lines.push("[demo]".to_owned());
        lines.extend(if far == Far::Cluster { host("pg1") } else { Vec::new() });
        lines.extend(cluster);
        space.write(NEAR, lines.join("\n") + "\n");
        let config = format!("--config={}", space.text(FAR));
        let server = space.start_with_log("server", scenario.program(server), &[config.as_str(), "server"]);
        let end = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the server does not listen:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { passage, server, scenario })
    }

    /// Runs a program on this host.
    fn run(&self, tool: Tool, arguments: &[&str]) -> Run {
        let config = format!("--config={}", self.scenario.space.text(NEAR));
        let mut all = vec![config.as_str(), "--stanza=demo"];
        all.extend(arguments);
        self.scenario.space.run(self.scenario.program(tool), &all)
    }
}

impl Hosts {
    /// Creates tables of one page.
    fn create_tables(&self, count: usize) {
        let create: Vec<_> = (0..count).map(|number| format!("create table small_{number} as select 1 as a")).collect();
        self.scenario.cluster.sql(&(create.join(";") + "; checkpoint"));
    }

    /// The time that one round trip for each file of the cluster would take.
    fn time_of_round_trips(&self) -> Duration {
        let count = self
            .scenario
            .cluster
            .sql("select count(*) from pg_class where relkind in ('r', 't', 'i') and pg_relation_size(oid) > 0");
        2 * DELAY * count.parse().unwrap_or(0)
    }

    /// Runs rbr, and returns how long it took.
    fn time(&self, arguments: &[&str]) -> Duration {
        let begin = Instant::now();
        self.run(Tool::Rbr, arguments).success();
        begin.elapsed()
    }
}

#[test]
fn small_files_of_a_distant_cluster_do_not_take_a_round_trip_each() {
    let Some(hosts) = Hosts::start(Far::Cluster, Tool::Rbr, &["repo1-bundle=y", "compress-type=zst"]) else { return };
    hosts.create_tables(1000);
    hosts.run(Tool::Rbr, &["stanza-create"]).success();
    let (taken, limit) = (hosts.time(&["backup", "--type=full"]), hosts.time_of_round_trips());
    assert!(limit > Duration::from_secs(40), "{limit:?}");
    assert!(taken < limit / 2, "{taken:?} of {limit:?}");
    hosts.scenario.cluster.switch_wal();
    let dump = hosts.scenario.cluster.dump();
    let mut restored = hosts.scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
}

#[test]
fn files_of_a_distant_repository_are_read_and_written_many_at_a_time() {
    for server in [Tool::Rbr, Tool::PgBackRest] {
        let Some(hosts) = Hosts::start(Far::Repository, server, &["compress-type=zst"]) else { return };
        hosts.create_tables(1000);
        hosts.run(Tool::Rbr, &["stanza-create"]).success();
        let limit = hosts.time_of_round_trips();
        // A file is opened, written and closed
        let taken = hosts.time(&["backup", "--type=full"]);
        assert!(taken < limit, "{server:?}: {taken:?} of {limit:?}");
        let target = hosts.scenario.space.folder("target");
        let taken = hosts.time(&["restore", &format!("--pg1-path={}", target.display()), "--type=immediate"]);
        assert!(taken < limit / 2, "{server:?}: {taken:?} of {limit:?}");
    }
}

#[test]
fn connection_that_is_cut_in_the_middle_of_a_job_ends_the_backup() {
    let near = ["repo1-bundle=y", "compress-type=zst", "job-retry=0"];
    let Some(hosts) = Hosts::start(Far::Cluster, Tool::Rbr, &near) else { return };
    hosts.run(Tool::Rbr, &["stanza-create"]).success();
    let mut cuts = 0;
    for bytes in [400_000, 700_000, 1_000_000] {
        hosts.passage.cut_after(&[bytes]);
        let run = hosts.run(Tool::Rbr, &["backup", "--type=full"]);
        assert!(run.code != 0 && run.stdout.contains("localhost"), "{bytes}: {}", run.describe());
        assert!(hosts.passage.cuts() > cuts && hosts.scenario.labels().is_empty(), "{bytes}: {}", run.describe());
        cuts = hosts.passage.cuts();
        // The processes there notice that they are alone, and their locks end with them
        let end = Instant::now() + START_MAX;
        while hosts.server.child_count() > 0 {
            assert!(Instant::now() < end, "processes go on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    hosts.passage.cut_after(&[]);
    hosts.run(Tool::Rbr, &["backup", "--type=full"]).success();
    hosts.scenario.cluster.switch_wal();
    let dump = hosts.scenario.cluster.dump();
    let mut restored = hosts.scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
}

/// Prints how long both programs take. Run it alone: `cargo test --test rbr slow_link -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn times_of_both_programs() {
    for (far, bundle) in [(Far::Cluster, "n"), (Far::Cluster, "y"), (Far::Repository, "n"), (Far::Repository, "y")] {
        for tool in [Tool::Rbr, Tool::PgBackRest] {
            let bundle = format!("repo1-bundle={bundle}");
            let near = [bundle.as_str(), "compress-type=zst", "archive-async=y"];
            let Some(hosts) = Hosts::start(far, tool, &near) else { return };
            hosts.create_tables(500);
            let time = |what: &str, arguments: &[&str]| {
                let begin = Instant::now();
                hosts.run(tool, arguments).success();
                let seconds = begin.elapsed().as_secs_f64();
                let far = if far == Far::Cluster { "cluster" } else { "repository" };
                println!("{tool:?} far {far} {bundle} {what}: {seconds:.1} s");
            };
            time("stanza-create", &["stanza-create"]);
            time("check", &["check"]);
            time("full", &["backup", "--type=full"]);
            time("incr", &["backup", "--type=incr"]);
            if far == Far::Repository {
                let target = hosts.scenario.space.folder("restored");
                time("restore", &["restore", &format!("--pg1-path={}", target.display()), "--type=immediate"]);
            }
        }
    }
}
