//! Repositories on another host that are reached by TLS, and the server there. Both hosts are this one, with a
//! configuration each.

mod client;
mod cycle;
mod hostile;
mod server;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::env::network::free_ports;
use crate::env::{Authority, Background, Scenario, ScenarioOptions, Tool};

/// The configuration of the other host.
const FAR: &str = "far.conf";
/// The time limit of a server's start.
const START_MAX: Duration = Duration::from_secs(20);

/// A cluster whose repository is on another host.
struct Hosts {
    // Declared before the folder that the server uses, so that it is dropped first
    server: Background,
    scenario: Scenario,
    port: u16,
}

/// What differs between tests.
#[derive(Clone, Copy)]
struct HostOptions<'o> {
    /// The program of the server.
    server: Tool,
    /// Lines of the repository's host.
    far: &'o [&'o str],
    /// Lines of PostgreSQL's host.
    near: &'o [&'o str],
    /// The name by which the server is reached.
    host: &'o str,
    /// The names in the server's certificate beside the common name `repository`.
    alternatives: &'o str,
}

impl HostOptions<'_> {
    const USUAL: HostOptions<'static> = HostOptions {
        server: Tool::PgBackRest,
        far: &[],
        near: &[],
        host: "localhost",
        alternatives: "DNS:localhost,IP:127.0.0.1",
    };
}

impl Hosts {
    /// Starts a cluster and a server. Returns `None` if the test has to be skipped.
    fn start(options: HostOptions<'_>) -> Option<Self> {
        let scenario = Scenario::start(ScenarioOptions::default())?;
        let space = &scenario.space;
        Authority::new(space, "ca")
            .issue("server", "repository", options.alternatives)
            .issue("client", "pg-host", "")
            .issue("stranger", "stranger", "");
        Authority::new(space, "other-ca").issue("rogue", "pg-host", "");
        let port = free_ports(1);
        let folders = [("repo1-path", "repo"), ("log-path", "far-log"), ("lock-path", "far-lock")];
        let mut lines = vec!["[global]".to_owned()];
        lines.extend(folders.map(|(option, folder)| format!("{option}={}", space.folder(folder).display())));
        lines.extend(
            [("ca", "ca.crt"), ("cert", "server.crt"), ("key", "server.key")]
                .map(|(option, file)| format!("tls-server-{option}-file={}", space.text(&format!("tls/{file}")))),
        );
        lines.push(format!("tls-server-address=127.0.0.1\ntls-server-port={port}\ntls-server-auth=pg-host=demo"));
        lines.extend(options.far.iter().map(ToString::to_string));
        space.write(FAR, lines.join("\n") + "\n");
        let mut near = vec![
            format!("repo1-host={}", options.host),
            format!("repo1-host-port={port}"),
            "repo1-host-type=tls".to_owned(),
            format!("repo1-host-config={}", space.text(FAR)),
        ];
        near.extend(identity(&scenario, "client"));
        near.extend(options.near.iter().map(ToString::to_string));
        scenario.configure(&near);
        let server = start_server(&scenario, options.server, port);
        Some(Self { server, scenario, port })
    }

    /// Runs a command of rbr on the host of PostgreSQL.
    fn rbr(&self, arguments: &[&str]) -> crate::env::Run {
        self.scenario.rbr(arguments)
    }
}

/// The options of the client's certificate.
fn identity(scenario: &Scenario, name: &str) -> [String; 3] {
    let file = |kind: &str| scenario.space.text(&format!("tls/{kind}"));
    [
        format!("repo1-host-ca-file={}", file("ca.crt")),
        format!("repo1-host-cert-file={}", file(&format!("{name}.crt"))),
        format!("repo1-host-key-file={}", file(&format!("{name}.key"))),
    ]
}

/// Starts the server of the other host.
fn start_server(scenario: &Scenario, tool: Tool, port: u16) -> Background {
    let config = format!("--config={}", scenario.space.text(FAR));
    let arguments = [config.as_str(), "--log-level-console=detail", "server"];
    let server = scenario.space.start_with_log("server", scenario.program(tool), &arguments);
    let end = Instant::now() + START_MAX;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "the server does not listen:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}
