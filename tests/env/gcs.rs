//! fake-gcs-server, an emulator of Google Cloud Storage. It requires no authentication and keeps its objects in memory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::command::Background;
use super::network::{certificates, free_ports};
use super::oracle::optional_oracle;
use super::proxy::{Proxy, ProxyOptions};
use super::space::Space;

/// The maximum time until the server is ready.
const READY_LIMIT_S: u64 = 20;
/// Its one bucket.
pub const BUCKET: &str = "rbr";

/// A running server with one bucket, behind a proxy that speaks TLS and adds headers of Google's servers.
pub struct Gcs {
    /// The proxy that clients connect to.
    pub proxy: Proxy,
    // Declared before the folder that the server uses, so that it is dropped first
    server: Background,
    space: Space,
    port: u16,
}

impl Gcs {
    /// Starts an empty server. Returns `None` if the test has to be skipped.
    pub fn start() -> Option<Self> {
        let program = optional_oracle("fake-gcs-server")?;
        let (space, port) = (Space::new(), free_ports(1));
        certificates(&space);
        let port_text = port.to_string();
        let arguments =
            ["-backend", "memory", "-host", "127.0.0.1", "-scheme", "http", "-log-level", "warn", "-port", &port_text];
        let server = space.start(&program, &arguments);
        let proxy = Proxy::start(ProxyOptions {
            target: format!("http://127.0.0.1:{port}"),
            certificate: Some((space.path("tls/s.crt"), space.path("tls/s.key"))),
            upload_id_header: true,
            ..ProxyOptions::default()
        });
        let gcs = Self { proxy, server, space, port };
        gcs.make_bucket();
        Some(gcs)
    }

    fn make_bucket(&self) {
        let url = format!("http://127.0.0.1:{}/storage/v1/b?project=p", self.port);
        let body = format!(r#"{{"name":"{BUCKET}"}}"#);
        let end = Instant::now() + Duration::from_secs(READY_LIMIT_S);
        loop {
            let made = self.space.run("curl", &["-s", "-f", "-H", "content-type: application/json", "-d", &body, &url]);
            if made.code == 0 {
                return;
            }
            assert!(Instant::now() < end, "no GCS server:\n{}\n{}", made.describe(), self.server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A file of the server's folder, as `tls/ca.crt`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.space.path(name)
    }

    /// Returns the server's metadata of an object, by its name with encoded slashes.
    pub fn describe(&self, name: &str) -> serde_json::Value {
        let url = format!("http://127.0.0.1:{}/storage/v1/b/{BUCKET}/o/{name}", self.port);
        self.space.run("curl", &["-s", "-f", &url]).success().json()
    }

    /// Returns the configuration lines for a repository on this server.
    pub fn options(&self) -> Vec<String> {
        vec![
            "repo1-type=gcs".to_owned(),
            "repo1-path=/demo".to_owned(),
            format!("repo1-gcs-bucket={BUCKET}"),
            format!("repo1-gcs-endpoint=127.0.0.1:{}", self.proxy.port()),
            "repo1-gcs-key-type=token".to_owned(),
            "repo1-gcs-key=Bearer secret-token".to_owned(),
            format!("repo1-storage-ca-file={}", self.file("tls/ca.crt").display()),
        ]
    }
}
