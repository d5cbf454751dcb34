//! SeaweedFS, an S3 server that checks signatures.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::command::{Background, Run};
use super::network::{certificates, free_ports};
use super::oracle::optional_oracle;
use super::proxy::{Proxy, ProxyOptions};
use super::space::Space;

/// The maximum time until the server is ready.
const READY_LIMIT_S: u64 = 60;
/// Ports that one server uses: HTTP, HTTPS and internal ones.
const PORTS: u16 = 9;
/// Key and secret of its only user.
pub const KEY: (&str, &str) = ("rbrkey", "rbrsecret");
/// The domain of which buckets are subdomains.
pub const DOMAIN: &str = "s3.example.test";
/// Its one bucket.
pub const BUCKET: &str = "rbr";

/// A running server with the bucket [`BUCKET`]. It ends when the value is dropped.
pub struct Weed {
    // Declared before the folder that the server uses, so that it is dropped first
    server: Background,
    space: Space,
    port: u16,
}

impl Weed {
    /// Starts a server with empty storage. Returns `None` if the test has to be skipped.
    pub fn start() -> Option<Self> {
        Self::start_in(Space::new())
    }

    /// The same with the server's files in this folder.
    pub fn start_in(space: Space) -> Option<Self> {
        let program = optional_oracle("weed")?;
        let port = free_ports(PORTS);
        certificates(&space);
        space.folder("weed");
        let (key, secret) = KEY;
        let credentials = format!(r#"{{"accessKey":"{key}","secretKey":"{secret}"}}"#);
        let actions = r#"["Admin","Read","Write","List","Tagging"]"#;
        let identity = format!(r#"{{"name":"rbr","credentials":[{credentials}],"actions":{actions}}}"#);
        space.write("s3.json", format!(r#"{{"identities":[{identity}]}}"#));
        let server = space.start(&program, &arguments(&space, port));
        let weed = Self { server, space, port };
        weed.make_bucket();
        Some(weed)
    }

    fn make_bucket(&self) {
        let end = Instant::now() + Duration::from_secs(READY_LIMIT_S);
        loop {
            let made = self.curl("PUT", "");
            if made.stdout.ends_with("\n200") {
                return;
            }
            assert!(Instant::now() < end, "no S3 server:\n{}\n{}", made.describe(), self.server.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Keeps old versions of objects from now on.
    pub fn keep_versions(&self) {
        let program = optional_oracle("weed").expect("the server was started from it");
        let shell = "echo \"s3.bucket.versioning -name $2 -enable\" | \"$0\" shell -master=$1";
        // The master's port and that of its gRPC
        let master = format!("127.0.0.1:{}.{}", self.port + 2, self.port + 5);
        let program = program.display().to_string();
        self.space.run("sh", &["-c", shell, &program, &master, BUCKET]).success().says("set to Enabled");
    }

    /// The port that speaks HTTPS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server without TLS, for a proxy.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.port + 1)
    }

    /// Returns the URL of the bucket as a folder of files, which requires no signature.
    pub fn files(&self) -> String {
        format!("http://127.0.0.1:{}/buckets/{BUCKET}", self.port + 4)
    }

    /// A file of the server's folder, as `tls/ca.crt`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.space.path(name)
    }

    /// Sends a signed request for `path` of the bucket (with a query of at most one parameter). A line with the status
    /// follows the body of the answer.
    pub fn curl(&self, method: &str, path: &str) -> Run {
        let (key, secret) = KEY;
        let url = format!("https://127.0.0.1:{}/{BUCKET}{path}", self.port);
        let (ca, user) = (self.space.text("tls/ca.crt"), format!("{key}:{secret}"));
        let fixed = ["-s", "-w", "\n%{http_code}", "--aws-sigv4", "aws:amz:us-east-1:s3"];
        self.space.run("curl", &[&fixed[..], &["--cacert", &ca, "-u", &user, "-X", method, &url]].concat())
    }

    /// Returns the multi-part uploads that were started and neither completed nor aborted, as XML elements.
    pub fn uploads(&self) -> Vec<String> {
        let answer = self.curl("GET", "?uploads=");
        assert!(answer.stdout.ends_with("\n200"), "{}", answer.describe());
        answer.stdout.split("<Upload>").skip(1).map(str::to_owned).collect()
    }

    /// A proxy before this server.
    pub fn proxy(&self) -> Proxy {
        Proxy::start(ProxyOptions {
            target: self.http(),
            certificate: Some((self.file("tls/s.crt"), self.file("tls/s.key"))),
            ..ProxyOptions::default()
        })
    }

    /// Returns the configuration lines for a repository on this server that is reached through `port` ([`Weed::port`],
    /// or the port of a proxy).
    pub fn options(&self, port: u16) -> Vec<String> {
        let (key, secret) = KEY;
        vec![
            "repo1-type=s3".to_owned(),
            "repo1-path=/demo".to_owned(),
            format!("repo1-s3-bucket={BUCKET}"),
            "repo1-s3-endpoint=127.0.0.1".to_owned(),
            "repo1-s3-region=us-east-1".to_owned(),
            format!("repo1-s3-key={key}"),
            format!("repo1-s3-key-secret={secret}"),
            "repo1-s3-uri-style=path".to_owned(),
            format!("repo1-storage-port={port}"),
            format!("repo1-storage-ca-file={}", self.space.text("tls/ca.crt")),
        ]
    }
}

/// Returns the server's command line. Each part of the server listens on one port for HTTP and one for gRPC.
fn arguments(space: &Space, port: u16) -> Vec<String> {
    let ports = [
        "s3.port.https",
        "s3.port",
        "master.port",
        "volume.port",
        "filer.port",
        "master.port.grpc",
        "volume.port.grpc",
        "filer.port.grpc",
        "s3.port.grpc",
    ];
    let mut all = vec!["server".to_owned(), "-s3".to_owned()];
    all.extend(ports.iter().zip(port..).map(|(name, port)| format!("-{name}={port}")));
    let files = [
        ("dir", "weed"),
        ("s3.config", "s3.json"),
        ("s3.cert.file", "tls/s.crt"),
        ("s3.key.file", "tls/s.key"),
        ("filer.localSocket", "filer.sock"),
        ("s3.localSocket", "s3.sock"),
    ];
    all.extend(files.iter().map(|(option, file)| format!("-{option}={}", space.text(file))));
    all.push(format!("-s3.domainName={DOMAIN}"));
    let fixed = [
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.max=20",
        "-master.telemetry=false",
    ];
    all.extend(fixed.map(str::to_owned));
    all
}
