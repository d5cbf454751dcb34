//! What a client accepts, and what it says when it can't connect.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::{HostOptions, Hosts, identity};
use crate::env::{Authority, Run, Tool};

/// Runs the same command of both programs.
fn both(hosts: &Hosts, arguments: &[&str]) -> [Run; 2] {
    [Tool::Rbr, Tool::PgBackRest].map(|tool| hosts.scenario.run(tool, arguments))
}

/// Rewrites the client's configuration with these lines after the usual ones.
fn configure(hosts: &Hosts, port: u16, lines: &[String]) {
    let mut all = vec![
        "repo1-host=localhost".to_owned(),
        format!("repo1-host-port={port}"),
        "repo1-host-type=tls".to_owned(),
        format!("repo1-host-config={}", hosts.scenario.space.text(super::FAR)),
    ];
    all.extend(lines.iter().cloned());
    hosts.scenario.configure(&all);
}

#[test]
fn certificates_of_the_user_guide_have_no_alternative_names_and_are_accepted() {
    // A name that leads to this host and is in no alternative name
    let options = HostOptions { host: "localhost", alternatives: "", ..HostOptions::USUAL };
    let Some(hosts) = Hosts::start(options) else { return };
    let said = "unable to find hostname 'localhost' in certificate common name or subject alternative names";
    for run in both(&hosts, &["verify"]) {
        run.fails(95).says(said);
    }
    Authority::new(&hosts.scenario.space, "ca").issue("server", "LocalHost", "").issue("client", "pg-host", "");
    let mut hosts = hosts;
    hosts.server.kill();
    for server in [Tool::PgBackRest, Tool::Rbr] {
        hosts.server = super::start_server(&hosts.scenario, server, hosts.port);
        for run in both(&hosts, &["info"]) {
            run.success().says("missing stanza path");
        }
        hosts.server.kill();
    }
}

#[test]
fn server_that_is_not_the_right_one_is_refused() {
    let Some(hosts) = Hosts::start(HostOptions::USUAL) else { return };
    let scenario = &hosts.scenario;
    hosts.rbr(&["stanza-create"]).success();
    let other = format!("--repo1-host-ca-file={}", scenario.space.text("tls/other-ca.crt"));
    for run in both(&hosts, &["verify", &other]) {
        run.fails(95).says("unable to verify certificate presented by 'localhost:");
    }
    // Without an authority those of the system count
    let mut lines = identity(scenario, "client").to_vec();
    lines.remove(0);
    configure(&hosts, hosts.port, &lines);
    for run in both(&hosts, &["verify"]) {
        run.fails(95).says("unable to verify certificate presented by 'localhost:");
    }
    let none = format!("--repo1-host-ca-file={}", scenario.space.text("tls/none.crt"));
    for run in both(&hosts, &["verify", &none]) {
        assert!(run.code != 0, "{}", run.describe());
    }
}

#[test]
fn certificate_or_key_of_the_client_that_cannot_be_used_is_an_error() {
    for server in [Tool::Rbr, Tool::PgBackRest] {
        client_is_refused(server);
    }
}

fn client_is_refused(server: Tool) {
    let Some(hosts) = Hosts::start(HostOptions { server, ..HostOptions::USUAL }) else { return };
    let scenario = &hosts.scenario;
    let file = |name: &str| scenario.space.text(&format!("tls/{name}"));
    let pair = |certificate: &str, key: &str| {
        [format!("--repo1-host-cert-file={}", file(certificate)), format!("--repo1-host-key-file={}", file(key))]
    };
    // An authority that the server does not trust, a name that may do nothing, a key of another certificate
    let cases = [
        (pair("rogue.crt", "rogue.key"), 101, "TLS error"),
        (pair("stranger.crt", "stranger.key"), 105, "access denied"),
        (pair("client.crt", "server.key"), 95, ""),
        (pair("none.crt", "client.key"), 95, "unable to load cert file"),
        (pair("client.crt", "none.key"), 95, "unable to load key file"),
        (pair("client.key", "client.key"), 95, "unable to load cert file"),
    ];
    for (pair, code, text) in cases {
        for run in both(&hosts, &["verify", &pair[0], &pair[1]]) {
            run.fails(code).says(text);
        }
        if text == "TLS error" || text == "access denied" {
            hosts.rbr(&["verify", &pair[0], &pair[1]]).says("HINT: does tls-server-").says("of 'localhost'");
        }
    }
    let config = format!("--config={}", scenario.space.text("pgbackrest.conf"));
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let run = scenario.space.run(scenario.program(tool), &[&config, "--stanza=other", "verify"]);
        run.fails(105).says("access denied");
    }
    for mode in [0o640, 0o604] {
        let key = scenario.space.path("tls/client.key");
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(mode)).expect("chmod");
        for run in both(&hosts, &["verify"]) {
            run.fails(42).says("client.key' has group or other permissions");
        }
    }
}

/// Answers each connection with this.
fn fake_server(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen");
    let port = listener.local_addr().expect("address").port();
    // It ends with the process of the tests
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

#[test]
fn server_that_is_none_is_an_error_within_the_time_limit() {
    let Some(hosts) = Hosts::start(HostOptions::USUAL) else { return };
    let closed = crate::env::network::free_ports(1);
    let plain = fake_server(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
        let _ = stream.read(&mut [0; 100]);
    });
    let silent = fake_server(std::mem::forget);
    let hasty = fake_server(drop);
    let cases = [
        (closed, 49, "[111] Connection refused"),
        (plain, 101, "TLS error"),
        (silent, 42, "timeout after"),
        (hasty, 101, "TLS error"),
    ];
    for (port, code, text) in cases {
        configure(&hosts, port, &identity(&hosts.scenario, "client"));
        let begin = Instant::now();
        hosts.rbr(&["verify", "--io-timeout=2"]).fails(code).says(text).says(&port.to_string());
        // The default is a minute
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    }
    configure(&hosts, closed, &identity(&hosts.scenario, "client"));
    hosts.scenario.pgbackrest(&["verify", "--io-timeout=2"]).fails(49).says("[111] Connection refused");
    hosts.rbr(&["info", "--io-timeout=1"]).success().says("status: error (other)");
    let no_address = "--repo1-host=no.such.host.invalid";
    for run in both(&hosts, &["verify", no_address]) {
        run.fails(49).says("unable to get address for 'no.such.host.invalid'");
    }
}

#[test]
fn server_that_ends_in_the_middle_is_an_error_and_the_next_backup_is_whole() {
    for server in [Tool::Rbr, Tool::PgBackRest] {
        server_ends_in_the_middle(server);
    }
}

fn server_ends_in_the_middle(server: Tool) {
    let options = HostOptions { server, near: &["job-retry=0"], ..HostOptions::USUAL };
    let Some(mut hosts) = Hosts::start(options) else { return };
    hosts.rbr(&["stanza-create"]).success();
    hosts.scenario.cluster.sql("create table big as select repeat(md5(g::text), 100) from generate_series(1, 20000) g");
    // Slow enough not to end before the server does
    let slow = ["backup", "--type=full", "--compress-type=none", "--max-rate=2MiB"];
    let mut backup = hosts.scenario.start_command(Tool::Rbr, &slow);
    let end = Instant::now() + Duration::from_secs(60);
    while !backup.log().contains("backup file") {
        assert!(backup.is_running() && Instant::now() < end, "{}", backup.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    hosts.server.kill();
    let code = backup.wait();
    assert!([101, 29].contains(&code), "{code}:\n{}", backup.log());
    hosts.server = super::start_server(&hosts.scenario, server, hosts.port);
    assert!(hosts.scenario.labels().is_empty());
    hosts.rbr(&["backup", "--type=full"]).success();
    let dump = hosts.scenario.cluster.dump();
    let mut restored = hosts.scenario.restore(Tool::Rbr, "whole", &[]);
    crate::env::restored_matches(&mut restored, &dump);
}

#[test]
fn older_version_of_tls_with_certificates_of_the_user_guide_is_spoken_by_both_sides() {
    let options = HostOptions { server: Tool::Rbr, alternatives: "", ..HostOptions::USUAL };
    let Some(hosts) = Hosts::start(options) else { return };
    let space = &hosts.scenario.space;
    Authority::new(space, "ca").issue("server", "localhost", "").issue("client", "pg-host", "");
    let mut hosts = hosts;
    hosts.server.kill();
    hosts.server = super::start_server(&hosts.scenario, Tool::Rbr, hosts.port);
    let space = &hosts.scenario.space;
    let file = |name: &str| space.text(&format!("tls/{name}"));
    // The server greets a client that has proved who it is
    for (version, expected) in [("-tls1_2", true), ("-tls1_3", true), ("-tls1_1", false)] {
        // Its input ends once it has the greeting or an error
        let said = space.write("said", "").display().to_string();
        let line = format!(
            "for i in $(seq 300); do grep -q '\"name\"\\|error' {said} && break; sleep 0.1; done | openssl s_client \
             -connect localhost:{} {version} -CAfile {} -cert {} -key {} -verify_return_error >{said} 2>&1; cat {said}",
            hosts.port,
            file("ca.crt"),
            file("client.crt"),
            file("client.key")
        );
        let run = space.run("sh", &["-c", &line]);
        assert_eq!(run.stdout.contains("\"name\":\"pgBackRest\""), expected, "{}", run.describe());
    }
    // The client waits for the greeting of a server that has proved who it is
    let port = crate::env::network::free_ports(1);
    let accept = port.to_string();
    let (certificate, key, authority) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let common = [
        "s_server",
        "-accept",
        &accept,
        "-cert",
        &certificate,
        "-key",
        &key,
        "-CAfile",
        &authority,
        "-Verify",
        "1",
        "-www",
    ];
    for (version, code) in [("-tls1_2", 42), ("-tls1_3", 42)] {
        let all = [&common[..], &[version]].concat();
        let server = space.start_with_log("openssl", "openssl", &all);
        let end = Instant::now() + Duration::from_secs(20);
        while !server.log().contains("ACCEPT") {
            assert!(Instant::now() < end, "it does not listen: {}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let option = format!("--repo1-host-port={port}");
        let run = hosts.rbr(&["verify", &option, "--protocol-timeout=2", "--io-timeout=5"]);
        run.fails(code).says("timeout after 2000ms waiting for read from 'localhost:");
    }
}
