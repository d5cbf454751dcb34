//! SeaweedFS, an S3 server that checks signatures, over TLS.

use std::time::{Duration, Instant};

use super::{cycle, free_ports};
use crate::env::{Background, Run, Scenario, ScenarioOptions, Space, optional_oracle};

/// Makes an authority and the server's certificate in the folder `tls`.
fn certificates(space: &Space) {
    space.folder("tls");
    space.write("tls/ext", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
    let at = |name: &str| space.text(&format!("tls/{name}"));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let run = |arguments: &[&str]| space.run("openssl", arguments).success();
    run(&[
        &["req", "-x509", "-days", "2", "-subj", "/CN=test CA", "-keyout", &at("ca.key"), "-out", &at("ca.crt")],
        &key[..],
    ]
    .concat());
    run(&[&["req", "-subj", "/CN=127.0.0.1", "-keyout", &at("s.key"), "-out", &at("s.csr")], &key[..]].concat());
    let (ca, ca_key, csr, crt, ext) = (at("ca.crt"), at("ca.key"), at("s.csr"), at("s.crt"), at("ext"));
    run(&[
        "x509",
        "-req",
        "-in",
        &csr,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-out",
        &crt,
        "-days",
        "2",
        "-extfile",
        &ext,
    ]);
}

/// Starts the server on `port` and the ports behind it and makes the bucket `rbr`.
fn start(space: &Space, weed: &std::path::Path, port: u16) -> Background {
    certificates(space);
    space.folder("weed");
    space.write(
        "s3.json",
        r#"{"identities":[{"name":"rbr","credentials":[{"accessKey":"rbrkey","secretKey":"rbrsecret"}],
            "actions":["Admin","Read","Write","List","Tagging"]}]}"#,
    );
    let ports = [
        "master.port",
        "volume.port",
        "filer.port",
        "master.port.grpc",
        "volume.port.grpc",
        "filer.port.grpc",
        "s3.port.grpc",
    ];
    let mut arguments: Vec<String> = vec!["server".into(), "-s3".into(), format!("-s3.port={port}")];
    arguments.extend(ports.iter().zip(port + 1..).map(|(name, port)| format!("-{name}={port}")));
    arguments.extend([
        format!("-dir={}", space.text("weed")),
        format!("-s3.config={}", space.text("s3.json")),
        format!("-s3.cert.file={}", space.text("tls/s.crt")),
        format!("-s3.key.file={}", space.text("tls/s.key")),
        format!("-filer.localSocket={}", space.text("filer.sock")),
        format!("-s3.localSocket={}", space.text("s3.sock")),
    ]);
    let fixed = [
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.max=20",
        "-master.telemetry=false",
    ];
    arguments.extend(fixed.map(str::to_owned));
    let server = space.start(weed, &arguments);
    let make_bucket = [
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--cacert",
        &space.text("tls/ca.crt"),
        "-X",
        "PUT",
        "--aws-sigv4",
        "aws:amz:us-east-1:s3",
        "-u",
        "rbrkey:rbrsecret",
        &format!("https://127.0.0.1:{port}/rbr"),
    ]
    .map(str::to_owned);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let made: Run = space.run("curl", &make_bucket);
        if made.stdout == "200" {
            return server;
        }
        assert!(Instant::now() < end, "the S3 server is not ready:\n{}\n{}", made.describe(), server.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn s3_repository_is_shared_with_pgbackrest() {
    let Some(weed) = optional_oracle("weed") else { return };
    let server_space = Space::new();
    let port = free_ports(8);
    let _server = start(&server_space, &weed, port);
    let mut global: Vec<String> =
        ["repo1-type=s3", "repo1-path=/demo", "repo1-s3-bucket=rbr", "repo1-s3-endpoint=127.0.0.1"]
            .map(str::to_owned)
            .to_vec();
    global.extend(
        ["repo1-s3-region=us-east-1", "repo1-s3-key=rbrkey", "repo1-s3-key-secret=rbrsecret"].map(str::to_owned),
    );
    global
        .extend(["repo1-s3-uri-style=path", "repo1-bundle=y", "repo1-block=y", "compress-type=zst"].map(str::to_owned));
    global.push(format!("repo1-storage-port={port}"));
    global.push(format!("repo1-storage-ca-file={}", server_space.text("tls/ca.crt")));
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    cycle(&scenario);
    scenario.rbr(&["repo-ls", "--log-level-console=debug"]).success().says("storage requests: GET");
}
