//! A cluster, a standby and a repository, each on a host of its own.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Case, From, HostProtocol, Stored};
use crate::env::network::free_ports;
use crate::env::{Authority, Background, Cluster, Run, Scenario, ScenarioOptions, Tool};
use crate::repository_host::SSH;

/// The configurations of the hosts. That of PostgreSQL's is the scenario's own.
const CLUSTER: &str = "pgbackrest.conf";
const REPOSITORY: &str = "repository.conf";
const STANDBY: &str = "standby.conf";
/// The lock paths of the hosts.
pub(super) const LOCKS: [&str; 3] = ["lock", "far-lock", "standby-lock"];
/// The time limit for the start of a server.
const START_MAX: Duration = Duration::from_secs(60);

/// See the module documentation.
pub(super) struct Hosts {
    // Servers end before the folder that they use is removed
    standby: Option<Cluster>,
    servers: Vec<Background>,
    pub(super) scenario: Scenario,
    pub(super) case: Case,
    /// The first port: the repository's, then the cluster's and the standby's.
    port: u16,
}

impl Hosts {
    /// Starts everything but the standby. Returns `None` if the test is skipped.
    pub(super) fn start(case: Case) -> Option<Self> {
        let scenario = Scenario::start(ScenarioOptions {
            version: case.version,
            tablespace: true,
            archive_with: case.programs.0,
            ..ScenarioOptions::default()
        })?;
        let names = "DNS:localhost,IP:127.0.0.1";
        if case.way == HostProtocol::Tls {
            let authority = Authority::new(&scenario.space, "ca");
            authority.issue("repository", "repository", names).issue("pg-host", "pg-host", names);
        }
        scenario.space.write_program("ssh", SSH);
        let mut hosts = Hosts { standby: None, servers: Vec::new(), scenario, case, port: free_ports(3) };
        hosts.scenario.configure(&hosts.cluster_options(1));
        hosts.configure_repository(&[(CLUSTER, "pg", 1)]);
        if case.way == HostProtocol::Tls {
            hosts.serve(REPOSITORY, case.programs.1, 0);
            hosts.serve(CLUSTER, case.programs.0, 1);
        }
        Some(hosts)
    }

    /// What all hosts have.
    fn shared_options(&self) -> Vec<String> {
        let asynchronous = if self.case.asynchronous { "y" } else { "n" };
        let mut lines = vec![
            format!("cmd-ssh={}", self.scenario.space.text("ssh")),
            format!("compress-type={}", self.case.compress),
            format!("archive-async={asynchronous}"),
        ];
        let stored: &[&str] = match self.case.stored {
            Stored::Plain => &[],
            Stored::Bundles => &["repo1-bundle=y"],
            Stored::Blocks => &["repo1-bundle=y", "repo1-block=y"],
        };
        lines.extend(stored.iter().map(ToString::to_string));
        lines
    }

    /// The options by which a host reaches the one with this configuration, whose server has the `index`-th port.
    fn host_options(&self, option: &str, config: &str, index: u16) -> Vec<String> {
        let space = &self.scenario.space;
        let (program, identity) = match config {
            REPOSITORY => (self.case.programs.1, "pg-host"),
            _ => (self.case.programs.0, "repository"),
        };
        let mut lines = vec![format!("{option}-host-config={}", space.text(config))];
        match self.case.way {
            HostProtocol::Ssh => lines.extend([
                format!("{option}-host=host{index}.example"),
                format!("{option}-host-user=other"),
                format!("{option}-host-cmd={}", self.scenario.program(program).display()),
            ]),
            HostProtocol::Tls => {
                let file = |name: String| space.text(&format!("tls/{name}"));
                lines.extend([
                    format!("{option}-host=localhost"),
                    format!("{option}-host-type=tls"),
                    format!("{option}-host-port={}", self.port + index),
                    format!("{option}-host-ca-file={}", file("ca.crt".to_owned())),
                    format!("{option}-host-cert-file={}", file(format!("{identity}.crt"))),
                    format!("{option}-host-key-file={}", file(format!("{identity}.key"))),
                ]);
            }
        }
        lines
    }

    /// The options of a server with the `index`-th port, if the way needs one.
    fn server_options(&self, identity: &str, client: &str, index: u16) -> Vec<String> {
        if self.case.way == HostProtocol::Ssh {
            return Vec::new();
        }
        let file = |name: &str| self.scenario.space.text(&format!("tls/{name}"));
        vec![
            "tls-server-address=127.0.0.1".to_owned(),
            format!("tls-server-port={}", self.port + index),
            format!("tls-server-auth={client}=demo"),
            format!("tls-server-ca-file={}", file("ca.crt")),
            format!("tls-server-cert-file={}", file(&format!("{identity}.crt"))),
            format!("tls-server-key-file={}", file(&format!("{identity}.key"))),
        ]
    }

    /// The options of a host of PostgreSQL.
    fn cluster_options(&self, index: u16) -> Vec<String> {
        let mut lines = self.shared_options();
        lines.extend(self.host_options("repo1", REPOSITORY, 0));
        lines.extend(self.server_options("pg-host", "repository", index));
        lines
    }

    /// Writes the configuration of the repository's host. Each cluster has a configuration, a data directory and a port.
    fn configure_repository(&self, clusters: &[(&str, &str, u16)]) {
        let space = &self.scenario.space;
        let mut lines = vec!["[global]".to_owned()];
        for (option, folder) in [("repo1", "repo"), ("log", "far-log"), ("lock", "far-lock"), ("spool", "far-spool")] {
            lines.push(format!("{option}-path={}", space.folder(folder).display()));
        }
        let defaults = ["log-level-console=detail", "log-level-file=off", "start-fast=y", "archive-timeout=30"];
        lines.extend(defaults.map(str::to_owned));
        lines.extend(["repo1-retention-full=9".to_owned(), "process-max=2".to_owned()]);
        lines.extend(self.shared_options());
        lines.extend(self.server_options("repository", "pg-host", 0));
        if self.case.cipher {
            // The other host asks for it
            lines.extend(["repo1-cipher-type=aes-256-cbc".to_owned(), "repo1-cipher-pass=only-there".to_owned()]);
        }
        if clusters.len() > 1 {
            lines.push("backup-standby=y".to_owned());
        }
        lines.push("[demo]".to_owned());
        for (number, (config, data, index)) in clusters.iter().enumerate() {
            let option = format!("pg{}", number + 1);
            lines.extend(self.host_options(&option, config, *index));
            lines.push(format!("{option}-path={}", space.text(data)));
            lines.push(format!("{option}-socket-path={}", space.text(&format!("{data}-socket"))));
            lines.push(format!("{option}-user=postgres"));
        }
        space.write(REPOSITORY, lines.join("\n") + "\n");
    }

    /// Starts the server of a host.
    fn serve(&mut self, config: &str, tool: Tool, index: u16) {
        let (space, port) = (&self.scenario.space, self.port + index);
        let option = format!("--config={}", space.text(config));
        let arguments = [option.as_str(), "--log-level-console=detail", "server"];
        let log = format!("server-{index}");
        let server = space.start_with_log(&log, self.scenario.program(tool), &arguments);
        let end = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the server does not listen:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.servers.push(server);
    }

    /// Makes a standby on a third host from the last backup.
    pub(super) fn add_standby(&mut self) {
        assert_eq!(self.case.from, From::Standby);
        let scenario = &self.scenario;
        let conninfo = format!("--recovery-option=primary_conninfo=host={} user=postgres", scenario.cluster.socket());
        let mut standby = scenario.restore(self.case.programs.0, "second", &["--type=standby", &conninfo]);
        standby.start();
        let end = Instant::now() + START_MAX;
        while scenario.cluster.sql("select count(*) from pg_stat_replication where state = 'streaming'") != "1" {
            assert!(Instant::now() < end, "the standby does not follow\n{}", standby.log_text());
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut lines = vec!["[global]".to_owned()];
        for (option, folder) in [("log", "standby-log"), ("lock", "standby-lock"), ("spool", "standby-spool")] {
            lines.push(format!("{option}-path={}", scenario.space.folder(folder).display()));
        }
        lines.extend(["log-level-console=detail".to_owned(), "log-level-file=off".to_owned()]);
        lines.extend(self.cluster_options(2));
        lines.extend(["[demo]".to_owned(), format!("pg1-path={}", standby.data_text())]);
        lines.extend([format!("pg1-socket-path={}", standby.socket()), "pg1-user=postgres".to_owned()]);
        scenario.space.write(STANDBY, lines.join("\n") + "\n");
        self.standby = Some(standby);
        if self.case.way == HostProtocol::Tls {
            self.serve(STANDBY, self.case.programs.0, 2);
        }
        self.configure_repository(&[(STANDBY, "second", 2), (CLUSTER, "pg", 1)]);
        self.with_config(STANDBY, self.case.programs.0, &["check"]).success();
    }

    fn with_config(&self, config: &str, tool: Tool, arguments: &[&str]) -> Run {
        let config = format!("--config={}", self.scenario.space.text(config));
        let all = [&[config.as_str(), "--stanza=demo"], arguments].concat();
        self.scenario.space.run(self.scenario.program(tool), &all)
    }

    /// Runs a command on the host of PostgreSQL.
    pub(super) fn at_cluster(&self, arguments: &[&str]) -> Run {
        self.with_config(CLUSTER, self.case.programs.0, arguments)
    }

    /// Runs a command on the repository's host.
    pub(super) fn at_repository(&self, arguments: &[&str]) -> Run {
        self.with_config(REPOSITORY, self.case.programs.1, arguments)
    }
}
