//! Hosts that are far apart: TLS through a passage that makes the way long.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::network::free_ports;
use super::{Authority, Background, Link, Passage, Run, Scenario, ScenarioOptions, Tool};

/// The configuration of this host, and of the other one.
const NEAR: &str = "near.conf";
const FAR: &str = "far.conf";
/// The time limit of a server's start.
const START_MAX: Duration = Duration::from_secs(20);

/// What the other host has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Far {
    Cluster,
    Repository,
}

/// Two hosts, one of which has the cluster or the repository.
pub struct DistantHosts {
    // Declared before the folder that the server uses, so that it is dropped first
    pub passage: Passage,
    pub server: Background,
    pub scenario: Scenario,
}

impl DistantHosts {
    /// `link` is between the hosts, `near` are options of this one.
    pub fn start(link: Link, far: Far, server: Tool, near: &[&str]) -> Option<Self> {
        let scenario = Scenario::start(ScenarioOptions::default())?;
        let space = &scenario.space;
        Authority::new(space, "ca").issue("server", "far", "DNS:localhost").issue("client", "near", "");
        let port = free_ports(1);
        let passage = Passage::start_with("127.0.0.1", port, link);
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
    pub fn run(&self, tool: Tool, arguments: &[&str]) -> Run {
        let config = format!("--config={}", self.scenario.space.text(NEAR));
        let mut all = vec![config.as_str(), "--stanza=demo"];
        all.extend(arguments);
        self.scenario.space.run(self.scenario.program(tool), &all)
    }

    /// Creates tables of one page.
    pub fn create_tables(&self, count: usize) {
        let create: Vec<_> = (0..count).map(|number| format!("create table small_{number} as select 1 as a")).collect();
        // A transaction keeps the locks of all its tables
        create.chunks(500).for_each(|some| drop(self.scenario.cluster.sql(&some.join(";"))));
        self.scenario.cluster.sql("checkpoint");
    }
}
