//! Azurite, an emulator of Azure Blob Storage that checks signatures.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::command::Background;
use super::network::{certificates, free_ports};
use super::oracle::optional_oracle;
use super::proxy::{Proxy, ProxyOptions};
use super::space::Space;

/// The maximum time until the server is ready.
const READY_LIMIT_S: u64 = 60;
/// Its only account and the account's key, which is the same everywhere.
pub const ACCOUNT: (&str, &str) =
    ("devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==");
/// The expiry of signatures, and the version of the signing rules.
const EXPIRY: &str = "2099-12-31T00:00:00Z";
const VERSION: &str = "2021-06-08";
/// Its one container.
pub const CONTAINER: &str = "rbr";

/// A running server with one container, behind a proxy with TLS.
pub struct Azurite {
    /// The proxy that clients connect to.
    pub proxy: Proxy,
    // Declared before the folder that the server uses, so that it is dropped first
    server: Background,
    space: Space,
}

impl Azurite {
    /// Starts an empty server. Returns `None` if the test has to be skipped.
    pub fn start() -> Option<Self> {
        let program = optional_oracle("azurite/node_modules/azurite/dist/src/blob/main.js")?;
        let (space, port) = (Space::new(), free_ports(1));
        certificates(&space);
        let (program, port_text) = (program.display().to_string(), port.to_string());
        let location = space.folder("azurite").display().to_string();
        let place = [program.as_str(), "--blobHost", "127.0.0.1", "--blobPort", &port_text, "--location", &location];
        let fixed = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"];
        let server = space.start("node", &[&place[..], &fixed[..]].concat());
        let proxy = Proxy::start(ProxyOptions {
            target: format!("http://127.0.0.1:{port}"),
            certificate: Some((space.path("tls/s.crt"), space.path("tls/s.key"))),
            ..ProxyOptions::default()
        });
        let azurite = Self { proxy, server, space };
        azurite.make_container(port);
        Some(azurite)
    }

    fn make_container(&self, port: u16) {
        let (account, _) = ACCOUNT;
        let url =
            format!("http://127.0.0.1:{port}/{account}/{CONTAINER}?restype=container&{}", self.account_signature());
        let end = Instant::now() + Duration::from_secs(READY_LIMIT_S);
        loop {
            let made = self.space.run("curl", &["-s", "-f", "-X", "PUT", "-H", "content-length: 0", &url]);
            if made.code == 0 {
                return;
            }
            assert!(Instant::now() < end, "no Azure server:\n{}\n{}", made.describe(), self.server.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns a shared access signature for everything in the account. Azurite accepts no batches with it.
    fn account_signature(&self) -> String {
        let (account, _) = ACCOUNT;
        let signature = self.sign(&format!("{account}\nrwdlact\nb\nsco\n\n{EXPIRY}\n\n\n{VERSION}\n\n"));
        format!("sv={VERSION}&ss=b&srt=sco&sp=rwdlact&se={EXPIRY}&sig={signature}")
    }

    /// A shared access signature for everything in the container.
    fn container_signature(&self) -> String {
        let (account, _) = ACCOUNT;
        let place = format!("/blob/{account}/{CONTAINER}");
        let signature = self.sign(&format!("rwdlt\n\n{EXPIRY}\n{place}\n\n\n\n{VERSION}\nc\n\n\n\n\n\n\n"));
        format!("sv={VERSION}&sr=c&sp=rwdlt&se={EXPIRY}&sig={signature}")
    }

    /// Signs with the account's key. Returns the signature in URL encoding.
    fn sign(&self, text: &str) -> String {
        self.space.write("to-sign", text);
        let sign = format!(
            "key=$(printf %s '{}' | base64 -d | od -An -v -tx1 | tr -d ' \\n')\n\
             openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -binary '{}' | base64 -w0",
            ACCOUNT.1,
            self.space.text("to-sign")
        );
        let signature = self.space.run("sh", &["-c", &sign]).success().stdout;
        signature.trim().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    }

    /// A file of the server's folder, as `tls/ca.crt`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.space.path(name)
    }

    /// Returns the common configuration lines for a repository on this server.
    fn options(&self) -> Vec<String> {
        let (account, _) = ACCOUNT;
        vec![
            "repo1-type=azure".to_owned(),
            "repo1-path=/demo".to_owned(),
            format!("repo1-azure-account={account}"),
            format!("repo1-azure-container={CONTAINER}"),
            "repo1-azure-endpoint=127.0.0.1".to_owned(),
            "repo1-azure-uri-style=path".to_owned(),
            format!("repo1-storage-port={}", self.proxy.port()),
            format!("repo1-storage-ca-file={}", self.space.text("tls/ca.crt")),
        ]
    }

    /// Returns the configuration lines for signing with the account's key.
    pub fn options_with_key(&self) -> Vec<String> {
        let mut lines = self.options();
        lines.push(format!("repo1-azure-key={}", ACCOUNT.1));
        lines
    }

    /// Returns the configuration lines for a shared access signature.
    pub fn options_with_signature(&self) -> Vec<String> {
        let mut lines = self.options();
        lines
            .extend(["repo1-azure-key-type=sas".to_owned(), format!("repo1-azure-key={}", self.container_signature())]);
        lines
    }
}
