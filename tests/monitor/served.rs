//! What the daemon serves.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{is, start, value};
use crate::env::{Authority, Background, Scenario, Tool};

const WAIT_MAX: Duration = Duration::from_secs(60);

/// A daemon whose configuration can change.
struct Daemon {
    scenario: Scenario,
    config: String,
    process: Background,
}

impl Daemon {
    /// Starts it with these lines in its section, and the sections after it.
    fn start(scenario: Scenario, lines: &str) -> Self {
        let config = fs::read_to_string(scenario.space.path("pgbackrest.conf")).unwrap();
        write(&scenario, &config, lines);
        let process = process(&scenario);
        Daemon { scenario, config, process }
    }

    fn reload(&self, lines: &str) {
        write(&self.scenario, &self.config, lines);
        self.process.hang_up();
    }

    #[track_caller]
    fn wait_for(&self, what: &str, mut is_done: impl FnMut() -> bool) {
        let end = Instant::now() + WAIT_MAX;
        while !is_done() {
            assert!(Instant::now() < end, "{what} did not happen\n{}", self.process.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[track_caller]
    fn says(&self, text: &str) {
        self.wait_for(text, || self.process.log().contains(text));
    }

    /// The last address at which it says that it serves.
    fn address(&self) -> String {
        let text = "metrics and the status page are at ";
        self.says(text);
        let log = self.process.log();
        let line = log.lines().rev().find_map(|line| line.split_once(text)).unwrap();
        line.1.trim().to_owned()
    }

    fn end(mut self) {
        self.process.terminate();
        assert_eq!(self.process.wait(), 0, "{}", self.process.log());
    }
}

fn write(scenario: &Scenario, config: &str, lines: &str) {
    let space = &scenario.space;
    let text = format!("{config}\n[global:daemon]\nstate-path={}\nmonitor-interval=5s\n{lines}\n", space.text("state"));
    let written = space.write("new.conf", text);
    fs::rename(written, space.path("daemon.conf")).unwrap();
}

fn process(scenario: &Scenario) -> Background {
    let space = &scenario.space;
    let mut command = space.command(scenario.program(Tool::Rbr));
    command.arg(format!("--config={}", space.text("daemon.conf"))).args(["--log-level-console=info", "daemon"]);
    Background::of(command, space.path("log/daemon.log"))
}

/// The answer to a request: status, headers, body.
fn get(address: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

fn status(address: &str) -> Value {
    let (status, _, body) = get(address, "/api/v1/status", "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn daemon_serves_metrics_page_and_api_of_what_its_jobs_did() {
    let Some(scenario) = start() else { return };
    let file = scenario.space.text("rbr.prom");
    let lines = format!(
        "monitor-address=127.0.0.1:0\nmetrics-file={file}\n[demo:schedule:full]\nschedule=*/15 * * * * *\n\
         command=backup\ntype=full\nannotation=note=<script>alert(1)</script>\nrepo1-retention-full=1\n"
    );
    let daemon = Daemon::start(scenario, &lines);
    let address = daemon.address();
    daemon.wait_for("a collection", || get(&address, "/healthz", "").0 == 200);
    daemon.wait_for("a backup on the page", || {
        let status = status(&address);
        status["stanzas"][0]["backups"].as_array().is_some_and(|backups| !backups.is_empty())
            && status["jobs"][0]["last"]["result"] == "success"
    });
    let (code, head, page) = get(&address, "/", "");
    assert_eq!(code, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(page.contains("note=&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script"), "{page}");
    assert!(page.contains("demo/full") && page.contains("daemon running"), "{page}");
    let metrics = get(&address, "/metrics", "").2;
    is(&metrics, "rbr_job_last_result{command=\"backup\",job=\"full\",result=\"success\",stanza=\"demo\"}", 1.0);
    is(&metrics, "pgbackrest_exporter_status{stanza=\"all-stanzas\"}", 1.0);
    assert!(value(&metrics, "rbr_collect_age_seconds").is_some_and(|age| age < 30.0), "{metrics}");
    let written = fs::read_to_string(file).unwrap();
    assert!(written.contains("pgbackrest_backup_info{") && written.ends_with("# EOF\n"), "{written}");
    let info: Value = serde_json::from_str(&get(&address, "/api/v1/info", "").2).unwrap();
    assert_eq!(info[0]["name"], "demo");
    let jobs: Value = serde_json::from_str(&get(&address, "/api/v1/jobs", "").2).unwrap();
    assert_eq!(jobs["jobs"][0]["name"], "full");
    // The daemon notices when its files get old, and tells that the collection fails
    daemon.end();
}

#[test]
fn reload_changes_the_address_and_the_token_or_says_why_not() {
    let Some(scenario) = start() else { return };
    scenario.space.write("token", "0123456789abcdef0123456789\n");
    let token = format!("monitor-token-file={}\n", scenario.space.text("token"));
    // Nothing is served without the token, but the daemon runs
    let space_file = |scenario: &Scenario, name: &str| scenario.space.text(name);
    let missing = space_file(&scenario, "missing");
    let file = space_file(&scenario, "missing-directory/rbr.prom");
    let daemon = Daemon::start(
        scenario,
        &format!("monitor-address=127.0.0.1:0\nmonitor-token-file={missing}\nmetrics-file={file}\n"),
    );
    daemon.says("metrics and the status page are not served: unable to read token file");
    daemon.says("0 job(s) are scheduled");
    daemon.reload(&format!("monitor-address=127.0.0.1:0\nmetrics-file={file}\n"));
    let first = daemon.address();
    daemon.wait_for("a collection", || get(&first, "/metrics", "").0 == 200);
    // A file that can't be written is told where people look, and costs nothing else
    let errors = status(&first)["errors"].to_string();
    assert!(errors.contains("metrics file: [FileWriteError] unable to write"), "{errors}");
    is(&get(&first, "/metrics", "").2, "rbr_collect_errors", 1.0);
    daemon.reload(&format!("monitor-address=127.0.0.1:0\n{token}"));
    daemon.wait_for("a token", || get(&first, "/metrics", "").0 == 401);
    let bearer = "Authorization: Bearer 0123456789abcdef0123456789\r\n";
    assert_eq!(get(&first, "/metrics", bearer).0, 200);
    // An address that anybody reaches is refused, and the old one stays
    daemon.reload("monitor-address=0.0.0.0:0\n");
    daemon.says("the new configuration is refused, the old schedules stay: anybody who reaches 0.0.0.0:0 could read");
    assert_eq!(get(&first, "/metrics", bearer).0, 200);
    // One that is in use is told, and the old one stays
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap();
    daemon.reload(&format!("monitor-address={taken_address}\n{token}"));
    daemon.says("metrics and the status page are not served there; they stay at");
    assert_eq!(get(&first, "/metrics", bearer).0, 200);
    drop(taken);
    // It tries again by itself
    daemon.wait_for("another address", || daemon.address() == taken_address.to_string());
    assert!(TcpStream::connect(&first).is_err());
    // All addresses of the same port, and back
    daemon.reload(&format!("monitor-address=0.0.0.0:{}\n{token}", taken_address.port()));
    daemon.wait_for("all addresses", || daemon.address() == format!("0.0.0.0:{}", taken_address.port()));
    assert_eq!(get(&taken_address.to_string(), "/metrics", bearer).0, 200);
    daemon.reload(&format!("monitor-address={taken_address}\n"));
    daemon.wait_for("loopback", || daemon.address() == taken_address.to_string());
    assert_eq!(get(&taken_address.to_string(), "/metrics", "").0, 200);
    // A token that is none opens nothing
    let short = daemon.scenario.space.write("short", "short\n");
    let lines = format!("monitor-address={taken_address}\nmonitor-token-file={}\n", short.display());
    daemon.reload(&lines);
    daemon.says("' does not contain a valid token");
    assert!(TcpStream::connect(taken_address).is_err());
    fs::write(short, "0123456789abcdef0123456789\n").unwrap();
    daemon.process.hang_up();
    daemon.wait_for("the page again", || TcpStream::connect(taken_address).is_ok());
    assert_eq!(get(&taken_address.to_string(), "/metrics", "").0, 401);
    daemon.reload("monitor-address=off\n");
    daemon.says("metrics and the status page are not served any more");
    assert!(TcpStream::connect(taken_address).is_err());
    daemon.end();
}

#[test]
fn address_of_other_hosts_needs_a_token_or_certificates_at_the_start() {
    let Some(scenario) = start() else { return };
    let config = fs::read_to_string(scenario.space.path("pgbackrest.conf")).unwrap();
    write(&scenario, &config, "monitor-address=0.0.0.0:0\n");
    let mut process = process(&scenario);
    assert_eq!(process.wait(), 31, "{}", process.log());
    assert!(process.log().contains("anybody who reaches 0.0.0.0:0 could read metrics"), "{}", process.log());
}

#[test]
fn client_without_a_certificate_of_the_authority_gets_nothing() {
    let Some(scenario) = start() else { return };
    Authority::new(&scenario.space, "ca").issue("server", "localhost", "DNS:localhost").issue("client", "c", "DNS:c");
    Authority::new(&scenario.space, "other").issue("stranger", "c", "DNS:c");
    let tls = |name: &str| scenario.space.text(&format!("tls/{name}"));
    let lines = format!(
        "monitor-address=0.0.0.0:0\nmonitor-tls-cert-file={}\nmonitor-tls-key-file={}\nmonitor-tls-ca-file={}\n",
        tls("server.crt"),
        tls("server.key"),
        tls("ca.crt")
    );
    let names = ["client", "stranger"].map(|name| [tls(&format!("{name}.crt")), tls(&format!("{name}.key"))]);
    let ca = tls("ca.crt");
    let daemon = Daemon::start(scenario, &lines);
    let address = daemon.address();
    let url = format!("https://localhost:{}/healthz", address.rsplit_once(':').unwrap().1);
    let curl = |certificate: Option<&[String; 2]>| {
        let mut arguments =
            vec!["-s", "--cacert", &ca, "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", &url];
        if let Some([certificate, key]) = certificate {
            arguments.extend(["--cert", certificate, "--key", key]);
        }
        let output = std::process::Command::new("curl").args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    daemon.wait_for("an answer to the client", || curl(Some(&names[0])) == "200");
    assert_eq!(curl(None), "000");
    assert_eq!(curl(Some(&names[1])), "000");
    daemon.end();
}
