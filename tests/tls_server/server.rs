//! The server itself: its address, reload, end, and what it lets clients do.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::{FAR, HostOptions, Hosts, start_server};
use crate::env::network::free_ports;
use crate::env::{Authority, Tool};

const RBR: HostOptions<'static> = HostOptions { server: Tool::Rbr, ..HostOptions::USUAL };

/// Waits until the server has logged this text once more than `before` times.
#[track_caller]
fn logged(hosts: &Hosts, text: &str, before: usize) {
    let end = Instant::now() + Duration::from_secs(20);
    while hosts.server.log().matches(text).count() <= before {
        assert!(Instant::now() < end, "'{text}' is not logged:\n{}", hosts.server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Changes the server's configuration and makes the server read it.
#[track_caller]
fn reload(hosts: &Hosts, from: &str, to: &str) {
    let text = std::fs::read_to_string(hosts.scenario.space.path(FAR)).expect("configuration");
    assert!(text.contains(from), "{from}\n{text}");
    hosts.scenario.space.write(FAR, text.replace(from, to));
    let before = hosts.server.log().matches("configuration reload end").count();
    hosts.server.hang_up();
    logged(hosts, "configuration reload end", before);
}

#[test]
fn ping_reaches_a_server_and_fails_without_one() {
    let Some(hosts) = Hosts::start(RBR) else { return };
    let scenario = &hosts.scenario;
    let port = format!("--tls-server-port={}", hosts.port);
    let none = format!("--tls-server-port={}", free_ports(1));
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let ping = |arguments: &[&str]| {
            let all = [&["--no-config", "--io-timeout=1", "--log-level-console=info"], arguments].concat();
            scenario.space.run(scenario.program(tool), &all)
        };
        ping(&[&port, "server-ping", "127.0.0.1"]).success();
        ping(&[&port, "server-ping"]).success();
        ping(&[&none, "server-ping"]).fails(49).says("unable to connect to 'localhost:");
        ping(&[&port, "server-ping", "a", "b"]).fails(96).says("extra parameters found");
    }
    let ours = scenario
        .space
        .run(scenario.program(Tool::Rbr), &["--no-config", "--log-level-console=info", &port, "server-ping"]);
    ours.success().says("certificate of 'localhost' is valid until ");
    // An expired one was said to be valid, and a reload said nothing of it
    let names = HostOptions::USUAL.alternatives;
    Authority::new(&scenario.space, "ca").issue_for("server", "repository", names, -1);
    reload(&hosts, "pg-host=demo", "pg-host=demo");
    logged(&hosts, "WARN: certificate '", 0);
    logged(&hosts, "and clients refuse it", 0);
    let expired = scenario.space.run(scenario.program(Tool::Rbr), &["--no-config", &port, "server-ping"]);
    expired.success().says("WARN: certificate of 'localhost' expired at ").never_says("valid until");
    // A server of pgBackRest answers, too
    let mut hosts = hosts;
    hosts.server.kill();
    hosts.server = start_server(&hosts.scenario, Tool::PgBackRest, hosts.port);
    let scenario = &hosts.scenario;
    scenario.space.run(scenario.program(Tool::Rbr), &["--no-config", &port, "server-ping"]).success();
}

#[test]
fn port_that_is_in_use_is_an_error_at_once() {
    let Some(hosts) = Hosts::start(RBR) else { return };
    let scenario = &hosts.scenario;
    let config = format!("--config={}", scenario.space.text(FAR));
    let begin = Instant::now();
    let second =
        scenario.space.run(scenario.program(Tool::Rbr), &[config.as_str(), "--log-level-console=info", "server"]);
    second.fails(41).says(&format!("unable to bind socket to '127.0.0.1:{}': [98]", hosts.port));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn reload_says_what_has_changed_and_keeps_what_was_if_it_can_not_be_used() {
    let Some(hosts) = Hosts::start(RBR) else { return };
    hosts.rbr(&["stanza-create"]).success();
    reload(&hosts, "pg-host=demo", "pg-host=demo");
    logged(&hosts, "configuration reload: nothing has changed", 0);
    reload(&hosts, "pg-host=demo", "pg-host=other");
    logged(&hosts, "configuration reload: client 'pg-host' may access 'other' instead of 'demo'", 0);
    hosts.rbr(&["verify"]).fails(105).says("access denied");
    logged(&hosts, "[105]: client at 127.0.0.1:", 0);
    logged(&hosts, "HINT: option tls-server-auth of this server does not allow 'pg-host' stanza 'demo'.", 0);
    reload(&hosts, "pg-host=other", "pg-host=demo");
    hosts.rbr(&["info"]).success().says("status: error (no valid backups)");
    // Certificates: first one that can't be used, then a new one
    let space = &hosts.scenario.space;
    let server_key = std::fs::read(space.path("tls/server.key")).expect("key");
    space.write("tls/server.key", "no key");
    reload(&hosts, "pg-host=demo", "pg-host=*");
    logged(&hosts, "configuration reload refused, the previous configuration stays: [", 0);
    hosts.rbr(&["info"]).success().says("status: error (no valid backups)");
    space.write("tls/server.key", server_key);
    Authority::new(space, "ca").issue("server", "repository", "DNS:localhost").issue("client", "pg-host", "");
    reload(&hosts, "pg-host=*", "pg-host=*");
    logged(&hosts, "configuration reload: certificate is '", 0);
    logged(&hosts, "configuration reload: certificate authorities of clients differ", 0);
    hosts.rbr(&["info"]).success().says("status: error (no valid backups)");
    reload(&hosts, "tls-server-auth=pg-host=*", "no-such-option=1\ntls-server-port=x");
    logged(&hosts, "configuration reload refused", 1);
    // Another port
    let port = free_ports(1);
    reload(&hosts, "no-such-option=1\ntls-server-port=x", "tls-server-auth=pg-host=*");
    let (before, after) = (format!("tls-server-port={}", hosts.port), format!("tls-server-port={port}"));
    reload(&hosts, &before, &after);
    let option = format!("--repo1-host-port={port}");
    hosts.rbr(&[&option, "info"]).success().says("status: error (no valid backups)");
    hosts.rbr(&["verify", "--io-timeout=1"]).fails(49);
}

#[test]
fn session_goes_on_while_the_server_reloads_and_ends_with_the_server() {
    let Some(mut hosts) = Hosts::start(RBR) else { return };
    hosts.rbr(&["stanza-create"]).success();
    hosts.scenario.cluster.sql("create table big as select repeat(md5(g::text), 100) from generate_series(1, 20000) g");
    let mut backup = hosts.scenario.start_command(Tool::Rbr, &["backup", "--type=full", "--compress-type=none"]);
    logged(&hosts, "serves client 'pg-host' at 127.0.0.1:", 1);
    reload(&hosts, "pg-host=demo", "pg-host=demo\ntls-server-auth=second=*");
    logged(&hosts, "configuration reload: client 'second' may access '*'", 0);
    assert_eq!(backup.wait(), 0, "{}", backup.log());
    // The WAL that a backup waits for does not come, so it does not end by itself
    hosts.scenario.cluster.sql("alter system set archive_command = 'false rbr'");
    hosts.scenario.cluster.sql("select pg_reload_conf()");
    let before = hosts.server.log().matches("serves client").count();
    let mut backup = hosts.scenario.start_command(Tool::Rbr, &["backup", "--type=full", "--archive-timeout=120"]);
    logged(&hosts, "serves client", before);
    hosts.server.terminate();
    assert_eq!(hosts.server.wait(), 0, "{}", hosts.server.log());
    logged(&hosts, "terminate child process ", 0);
    assert_eq!(backup.wait(), 63, "{}", backup.log());
    let log = backup.log();
    assert!(log.contains("protocol on 'localhost': terminated on signal SIGTERM"), "{log}");
    // A server that is killed says no word of TLS. Its library's address was in the error
    hosts.server = start_server(&hosts.scenario, Tool::Rbr, hosts.port);
    let mut backup = hosts.scenario.start_command(Tool::Rbr, &["backup", "--type=full", "--archive-timeout=120"]);
    let end = Instant::now() + Duration::from_secs(60);
    while !backup.log().contains("check archive for ") {
        assert!(Instant::now() < end, "{}", backup.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    hosts.server.kill_alone();
    assert_eq!(backup.wait(), 29, "{}", backup.log());
    let log = backup.log();
    assert!(log.contains("unexpected EOF from 'localhost:") && log.contains("HINT: the log of the server on"), "{log}");
    assert!(!log.contains("docs.rs") && !log.contains("close_notify"), "{log}");
}

/// The server may be told to stop at any moment of a session, also while that begins, and its processes with it.
#[test]
fn server_that_stopped_while_a_session_began_was_not_understood() {
    let Some(mut hosts) = Hosts::start(RBR) else { return };
    hosts.rbr(&["stanza-create"]).success();
    let step = Duration::from_millis(1);
    for number in 0..30 {
        let mut verify = hosts.scenario.start_command(Tool::Rbr, &["verify", "--io-timeout=1"]);
        std::thread::sleep(Duration::from_millis(6) + number * step);
        if number % 2 == 0 {
            hosts.server.terminate();
        } else {
            hosts.server.terminate_all();
        }
        assert_eq!(hosts.server.wait(), 0, "{}", hosts.server.log());
        let (status, said) = (verify.wait(), verify.log());
        let is_right = match status {
            // It may be done, and it may not be connected yet
            0 | 49 => true,
            // TLS has not begun yet
            29 => said.contains("unexpected EOF from 'localhost:"),
            63 => {
                let texts = ["terminated on signal SIGTERM", "server ends", "was ended by signal 15"];
                texts.iter().any(|text| said.contains(text))
            }
            _ => false,
        };
        assert!(is_right, "{number}: {status}\n{said}\n{}", hosts.server.log());
        hosts.server = start_server(&hosts.scenario, Tool::Rbr, hosts.port);
    }
}

#[test]
fn client_cannot_name_other_places_than_the_configuration_of_the_host() {
    let Some(hosts) = Hosts::start(RBR) else { return };
    hosts.rbr(&["stanza-create"]).success();
    let space = &hosts.scenario.space;
    let elsewhere = format!("--repo1-path={}", space.folder("elsewhere").display());
    hosts.rbr(&["verify", &elsewhere]).fails(105).says("is not the 'repo1-path' of this host");
    let evil = space.write("evil.conf", format!("[global]\nrepo1-path={}\n", space.text("elsewhere")));
    let config = format!("--repo1-host-config={}", evil.display());
    hosts.rbr(&["verify", &config]).fails(105).says("is not the 'config' of this host");
    let same = format!("--repo1-path={}", space.text("repo"));
    hosts.rbr(&["info", &same]).success().says("status: error (no valid backups)");
    hosts.rbr(&["verify", "--reset-repo1-path"]).fails(105).says("is not the 'repo1-path' of this host");
    // A client that does not name a configuration gets the server's
    hosts.rbr(&["info", "--reset-repo1-host-config"]).success().says("status: error (no valid backups)");
    // The log of the server has what was denied, and the client is told once
    let denied = "backup/other' denied: it is not of stanza 'demo'";
    hosts.rbr(&["repo-ls", "backup/other"]).fails(105).says(denied).never_says("WARN");
    logged(&hosts, denied, 0);
}

#[test]
fn service_manager_learns_when_the_server_is_ready_reloads_and_stops() {
    let Some(mut hosts) = Hosts::start(RBR) else { return };
    hosts.server.kill();
    let space = &hosts.scenario.space;
    let socket = UnixDatagram::bind(space.path("notify")).expect("socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("time limit");
    space.user().own(&space.path("notify"));
    let config = format!("--config={}", space.text(FAR));
    let variable = format!("NOTIFY_SOCKET={}", space.text("notify"));
    let program = space.text("bin/rbr");
    hosts.server =
        space.start_with_log("server", "env", &[&variable, &program, &config, "--log-level-console=detail", "server"]);
    let next = || {
        let mut buffer = [0; 200];
        let read = socket.recv(&mut buffer).expect("message");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    assert_eq!(next(), "READY=1");
    hosts.server.hang_up();
    assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next(), "READY=1");
    hosts.server.terminate();
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(hosts.server.wait(), 0, "{}", hosts.server.log());
}

#[test]
fn options_that_the_server_requires_are_those_of_pgbackrest() {
    let Some(hosts) = Hosts::start(RBR) else { return };
    let scenario = &hosts.scenario;
    let port = TcpListener::bind(("127.0.0.1", 0)).expect("port").local_addr().expect("address").port().to_string();
    let all = |missing: &str| {
        ["ca-file", "cert-file", "key-file", "auth", "port"]
            .into_iter()
            .filter(|option| *option != missing)
            .map(|option| match option {
                "ca-file" => format!("--tls-server-ca-file={}", scenario.space.text("tls/ca.crt")),
                "auth" => "--tls-server-auth=a=*".to_owned(),
                "port" => format!("--tls-server-port={port}"),
                file => format!(
                    "--tls-server-{file}={}",
                    scenario.space.text(&format!("tls/server.{}", &file[..file.len() - 5].replace("cert", "crt")))
                ),
            })
            .collect::<Vec<_>>()
    };
    for missing in ["ca-file", "cert-file", "key-file", "auth"] {
        let runs = [Tool::Rbr, Tool::PgBackRest].map(|tool| {
            let options = all(missing);
            let mut arguments: Vec<&str> = vec!["--no-config"];
            arguments.extend(options.iter().map(String::as_str));
            arguments.push("server");
            scenario.space.run(scenario.program(tool), &arguments).fails(37).error()
        });
        assert_eq!(runs[0], runs[1], "{missing}");
    }
}
