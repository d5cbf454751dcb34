//! OpenSSH's server, run by the test user.

use std::time::{Duration, Instant};

use super::command::{Background, Frozen};
use super::network::free_ports;
use super::oracle::optional_oracle;
use super::space::Space;

/// The maximum time until the server is ready.
const READY_LIMIT_S: u64 = 20;

/// A server with host keys of several types (`host-TYPE`), which accepts users with a key of one of them (`id-TYPE`).
pub struct Sshd {
    // Declared before the folder that the server uses, so that it is dropped first
    server: Background,
    pub space: Space,
    port: u16,
    keys: Vec<(&'static str, &'static str)>,
}

impl Sshd {
    /// Starts a server with this SFTP subsystem, and users with a key of each of these types and its passphrase.
    /// Returns `None` if the test has to be skipped.
    pub fn start(subsystem: &str, keys: &[(&'static str, &'static str)]) -> Option<Self> {
        let program = optional_oracle("openssh/usr/sbin/sshd")?;
        let (space, port) = (Space::new(), free_ports(1));
        let mut config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             MaxStartups 100\nSubsystem sftp {subsystem}\nAuthorizedKeysFile {}\n",
            space.text("authorized")
        );
        let mut authorized = String::new();
        for (kind, passphrase) in keys {
            for (name, passphrase) in [("host", ""), ("id", *passphrase)] {
                let file = space.text(&format!("{name}-{kind}"));
                space.run("ssh-keygen", &["-q", "-t", kind, "-N", passphrase, "-f", &file]).success();
            }
            config.push_str(&format!("HostKey {}\n", space.text(&format!("host-{kind}"))));
            authorized.push_str(&std::fs::read_to_string(space.path(&format!("id-{kind}.pub"))).expect("public key"));
        }
        space.write("authorized", authorized);
        space.write("sshd_config", config);
        // In the foreground, so that it ends with the test
        let server = space.start(&program, &["-D", "-e", "-f", &space.text("sshd_config")]);
        let end = Instant::now() + Duration::from_secs(READY_LIMIT_S);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "sshd is not ready:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { server, space, port, keys: keys.to_vec() })
    }

    /// A server as most tests need it, with keys of type ed25519.
    pub fn start_usual() -> Option<Self> {
        Self::start("internal-sftp", &[("ed25519", "")])
    }

    /// Stops the processes that serve the current connections. New connections are served.
    pub fn freeze(&self) -> Frozen {
        self.server.freeze_children()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Writes a file of known hosts (`known`) that contains this server with the key in a file.
    pub fn know(&self, public_key: &str) {
        let public = std::fs::read_to_string(self.space.path(public_key)).expect("host key");
        let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
        self.space.write("known", format!("[127.0.0.1]:{} {public}\n", self.port));
    }

    /// Returns the configuration lines for a login with a key of this type through `port` ([`Sshd::port`], or the port
    /// of a relay). They do not set how the host key is checked.
    pub fn options(&self, kind: &str, port: u16) -> Vec<String> {
        let key = self.space.text(&format!("id-{kind}"));
        let mut lines = vec![
            "repo1-type=sftp".to_owned(),
            format!("repo1-path={}", self.space.text("repo")),
            "repo1-sftp-host=127.0.0.1".to_owned(),
            format!("repo1-sftp-host-port={port}"),
            format!("repo1-sftp-host-user={}", self.space.user().name),
            format!("repo1-sftp-public-key-file={key}.pub"),
            format!("repo1-sftp-private-key-file={key}"),
            "repo1-sftp-host-key-hash-type=sha256".to_owned(),
        ];
        let passphrase = self.keys.iter().find(|(known, passphrase)| *known == kind && !passphrase.is_empty());
        lines.extend(passphrase.map(|(_, passphrase)| format!("repo1-sftp-private-key-passphrase={passphrase}")));
        lines
    }

    /// Returns the configuration lines for a [usual](Sshd::start_usual) server that is reached through `port` and whose
    /// key is trusted.
    pub fn usual_options(&self, port: u16) -> Vec<String> {
        let mut lines = self.options("ed25519", port);
        lines.extend([
            "repo1-sftp-host-key-check-type=fingerprint".to_owned(),
            format!("repo1-sftp-host-fingerprint={}", self.fingerprint("ed25519", "sha256")),
        ]);
        lines
    }

    /// The fingerprint of the host's key of one type.
    pub fn fingerprint(&self, kind: &str, hash: &str) -> String {
        let file = self.space.text(&format!("host-{kind}.pub"));
        let digest = format!("cut -d' ' -f2 {file} | base64 -d | {hash}sum | cut -d' ' -f1");
        self.space.run("sh", &["-c", &digest]).success().stdout.trim().to_owned()
    }
}
