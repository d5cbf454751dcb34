//! The cipher suites of connections, with a server that supports only one.

use rustls::crypto::aws_lc_rs::cipher_suite;

use crate::env::proxy::{Proxy, ProxyOptions};
use crate::env::{History, Service, Space, oracles};

#[test]
fn only_chosen_cipher_suites_are_used() {
    let Some(oracles) = oracles(&[]) else { return };
    let (space, server) = (Space::new(), History::start(Service::Gcs));
    space.write("repo/file", "content");
    server.record(&space.path("repo"), 1_000_000_000);
    for (option, suite, known, other) in [
        (
            "tls-cipher-12",
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        (
            "tls-cipher-13",
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_AES_256_GCM_SHA384",
        ),
    ] {
        let proxy = Proxy::start(ProxyOptions {
            target: server.http(),
            certificate: Some((server.file("tls/s.crt"), server.file("tls/s.key"))),
            suite: Some(suite),
            ..ProxyOptions::default()
        });
        let mut lines = server.options();
        lines.retain(|line| !line.starts_with("repo1-gcs-endpoint"));
        lines.extend([
            format!("repo1-gcs-endpoint=127.0.0.1:{}", proxy.port()),
            "io-timeout=1".to_owned(),
            "log-level-file=off".to_owned(),
            format!("lock-path={}", space.text("lock")),
        ]);
        let config = space.write("pgbackrest.conf", format!("[global]\n{}\n", lines.join("\n")));
        let config = format!("--config={}", config.display());
        for program in [space.path("bin/rbr"), oracles.pgbackrest.clone()] {
            let ask =
                |suites: &str| space.run(&program, &[config.as_str(), &format!("--{option}={suites}"), "repo-ls"]);
            assert_eq!(ask(known).success().stdout, "file\n");
            assert_eq!(ask(&format!("{other}:{known}")).success().stdout, "file\n");
            let refused = ask(other).describe();
            assert!(refused.to_lowercase().contains("handshake"), "{refused}");
        }
        space
            .run(space.path("bin/rbr"), &[config.as_str(), "--tls-cipher-12=HIGH:!aNULL", "repo-ls"])
            .fails(67)
            .says("'HIGH' in option 'tls-cipher-12' is not supported")
            .says("ECDHE-RSA-AES256-GCM-SHA384");
    }
}
