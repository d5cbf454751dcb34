//! SSH keys of all types on both sides, the ways to check a host's key, and a server that speaks nothing but the bare protocol.

use std::time::{Duration, Instant};

use crate::env::{
    Background, Run, Scenario, ScenarioOptions, Space, Tool, free_ports, optional_oracle, restored_matches,
};

const KEY_TYPES: [&str; 3] = ["rsa", "ecdsa", "ed25519"];
const PASSPHRASE: &str = "open sesame";

/// OpenSSH's server with a host key of every type (`host-TYPE`), which lets users in who have a key of any type (`id-TYPE`; that
/// of type ed25519 is encrypted).
struct Sshd {
    // Before the folder that the server works in
    _server: Background,
    space: Space,
    port: u16,
}

impl Sshd {
    fn start(sftp: &str) -> Option<Self> {
        let program = optional_oracle("openssh/usr/sbin/sshd")?;
        let (space, port) = (Space::new(), free_ports(1));
        let mut config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             MaxStartups 100\nSubsystem sftp {sftp}\nAuthorizedKeysFile {}\n",
            space.text("authorized")
        );
        let mut authorized = String::new();
        for kind in KEY_TYPES {
            for (name, passphrase) in [("host", ""), ("id", if kind == "ed25519" { PASSPHRASE } else { "" })] {
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
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "sshd is not ready:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { _server: server, space, port })
    }

    /// Writes a file of known hosts that knows this server by its key of one type.
    fn know(&self, kind: &str) {
        let public = std::fs::read_to_string(self.space.path(&format!("host-{kind}.pub"))).expect("host key");
        let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
        self.space.write("known", format!("[127.0.0.1]:{} {public}\n", self.port));
    }

    /// The lines of a configuration that logs in with a key of this type.
    fn options(&self, kind: &str) -> Vec<String> {
        let key = self.space.text(&format!("id-{kind}"));
        let mut lines = vec![
            "repo1-type=sftp".to_owned(),
            format!("repo1-path={}", self.space.text("repo")),
            "repo1-sftp-host=127.0.0.1".to_owned(),
            format!("repo1-sftp-host-port={}", self.port),
            format!("repo1-sftp-host-user={}", self.space.user().name),
            format!("repo1-sftp-public-key-file={key}.pub"),
            format!("repo1-sftp-private-key-file={key}"),
        ];
        if kind == "ed25519" {
            lines.push(format!("repo1-sftp-private-key-passphrase={PASSPHRASE}"));
        }
        lines
    }

    /// The fingerprint of the host's key of one type.
    fn fingerprint(&self, kind: &str, hash: &str) -> String {
        let file = self.space.text(&format!("host-{kind}.pub"));
        let digest = format!("cut -d' ' -f2 {file} | base64 -d | {hash}sum | cut -d' ' -f1");
        self.space.run("sh", &["-c", &digest]).success().stdout.trim().to_owned()
    }
}

/// Lists a repository with one file in it.
fn list(server: &Sshd, options: &[String]) -> Run {
    let space = &server.space;
    space.write("sftp.conf", format!("[global]\nlog-level-file=off\n{}\n", options.join("\n")));
    let config = format!("--config={}", space.text("sftp.conf"));
    space.run(space.path("bin/rbr"), &[config.as_str(), "--log-level-console=warn", "repo-ls"])
}

#[test]
fn sftp_keys_of_every_type_open_the_repository() {
    let Some(server) = Sshd::start("internal-sftp") else { return };
    server.space.folder("repo");
    server.space.write("repo/proof", "x");
    for kind in KEY_TYPES {
        // Servers show the key that a client prefers, which has to be the one that it knows
        server.know(kind);
        let mut options = server.options(kind);
        options.push("repo1-sftp-host-key-hash-type=sha256".to_owned());
        options.push(format!("repo1-sftp-known-host={}", server.space.text("known")));
        list(&server, &options).success().says("proof");
    }
    let mut options = server.options("ed25519");
    options.retain(|line| !line.contains("passphrase"));
    options.push("repo1-sftp-host-key-hash-type=sha256".to_owned());
    options.push(format!("repo1-sftp-known-host={}", server.space.text("known")));
    list(&server, &options).fails(101).says("unable to load private key").never_says(PASSPHRASE);
    options.push("repo1-sftp-private-key-passphrase=wrong-guess".to_owned());
    list(&server, &options).fails(101).says("unable to load private key").never_says("wrong-guess");
}

#[test]
fn sftp_host_key_is_checked_in_every_way() {
    let Some(server) = Sshd::start("internal-sftp") else { return };
    server.space.folder("repo");
    server.space.write("repo/proof", "x");
    let with = |lines: &[String]| {
        let mut options = server.options("ecdsa");
        options.extend_from_slice(lines);
        if !lines.iter().any(|line| line.contains("hash-type")) {
            options.push("repo1-sftp-host-key-hash-type=sha256".to_owned());
        }
        list(&server, &options)
    };
    let check = |kind: &str| format!("repo1-sftp-host-key-check-type={kind}");
    for kind in KEY_TYPES {
        for hash in ["md5", "sha1", "sha256"] {
            let fingerprint = server.fingerprint(kind, hash);
            let right = format!("repo1-sftp-host-fingerprint={fingerprint}");
            let hash = format!("repo1-sftp-host-key-hash-type={hash}");
            with(&[check("fingerprint"), hash, right]).success().says("proof");
        }
    }
    let wrong = format!("repo1-sftp-host-fingerprint={}", "ab".repeat(32));
    with(&[check("fingerprint"), wrong]).fails(101).says("do not match");
    with(&[check("none")]).success().says("proof");
    with(&[check("strict")]).fails(101).says("not found in known hosts files: check type [strict]");
    with(&[check("accept-new")]).success().says("proof").says("WARN: added new host '127.0.0.1'");
    // Now it is known
    with(&[check("accept-new")]).success().says("proof").never_says("WARN");
    with(&[check("strict")]).success().says("proof");
    let learned = std::fs::read_to_string(server.space.path(".ssh/known_hosts")).expect("file of known hosts");
    assert_eq!(learned.lines().count(), 1, "{learned}");
    server.space.write(".ssh/known_hosts", learned.replace("AAAA", "AAAB"));
    with(&[check("accept-new")]).fails(101).says("mismatch in known hosts files: check type [accept-new]");
}

#[test]
fn sftp_server_without_extensions_holds_a_repository() {
    let Some(server) = Sshd::start("internal-sftp -P posix-rename,fsync,hardlink,statvfs,limits") else { return };
    let mut global = server.options("rsa");
    let fixed = ["repo1-sftp-host-key-check-type=none", "repo1-sftp-host-key-hash-type=sha256", "repo1-bundle=y"];
    global.extend(fixed.map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    let unsynced = "does not offer fsync@openssh.com";
    scenario.rbr(&["stanza-create"]).success().says(unsynced);
    scenario.rbr(&["backup", "--type=full"]).success().says("new backup label");
    scenario.change(1);
    // pgBackRest can't write to a server that refuses fsync
    scenario.rbr(&["backup", "--type=incr"]).success().says("new backup label");
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    let mut restored = scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
}
