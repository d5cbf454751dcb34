//! SSH keys of all types on both sides, the ways to check a host key, and a server that supports only the basic
//! protocol.

use crate::env::{Run, Scenario, ScenarioOptions, Sshd, Tool, restored_matches};

/// Keys of all types, one of them encrypted.
const KEYS: [(&str, &str); 3] = [("rsa", ""), ("ecdsa", ""), ("ed25519", PASSPHRASE)];
const PASSPHRASE: &str = "open sesame";

/// Lists a repository with one file in it.
fn list(server: &Sshd, options: &[String]) -> Run {
    let space = &server.space;
    space.write("sftp.conf", format!("[global]\nlog-level-file=off\n{}\n", options.join("\n")));
    let config = format!("--config={}", space.text("sftp.conf"));
    space.run(space.path("bin/rbr"), &[config.as_str(), "--log-level-console=warn", "repo-ls"])
}

#[test]
fn sftp_keys_of_every_type_open_the_repository() {
    let Some(server) = Sshd::start("internal-sftp", &KEYS) else { return };
    server.space.folder("repo");
    server.space.write("repo/proof", "x");
    for (kind, _) in KEYS {
        // Servers present the key type that a client prefers, which has to be the known one
        server.know(&format!("host-{kind}.pub"));
        let mut options = server.options(kind, server.port());
        options.push(format!("repo1-sftp-known-host={}", server.space.text("known")));
        list(&server, &options).success().says("proof");
    }
    let mut options = server.options("ed25519", server.port());
    options.retain(|line| !line.contains("passphrase"));
    options.push(format!("repo1-sftp-known-host={}", server.space.text("known")));
    list(&server, &options).fails(101).says("unable to load private key").never_says(PASSPHRASE);
    options.push("repo1-sftp-private-key-passphrase=wrong-guess".to_owned());
    list(&server, &options).fails(101).says("unable to load private key").never_says("wrong-guess");
}

#[test]
fn sftp_host_key_is_checked_in_every_way() {
    let Some(server) = Sshd::start("internal-sftp", &KEYS) else { return };
    server.space.folder("repo");
    server.space.write("repo/proof", "x");
    let with = |lines: &[String]| {
        let mut options = server.options("ecdsa", server.port());
        if lines.iter().any(|line| line.contains("hash-type")) {
            options.retain(|line| !line.contains("hash-type"));
        }
        options.extend_from_slice(lines);
        list(&server, &options)
    };
    let check = |kind: &str| format!("repo1-sftp-host-key-check-type={kind}");
    for (kind, _) in KEYS {
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
    // Now the host is known
    with(&[check("accept-new")]).success().says("proof").never_says("WARN");
    with(&[check("strict")]).success().says("proof");
    let learned = std::fs::read_to_string(server.space.path(".ssh/known_hosts")).expect("file of known hosts");
    assert_eq!(learned.lines().count(), 1, "{learned}");
    server.space.write(".ssh/known_hosts", learned.replace("AAAA", "AAAB"));
    with(&[check("accept-new")]).fails(101).says("mismatch in known hosts files: check type [accept-new]");
}

#[test]
fn sftp_server_without_extensions_holds_a_repository() {
    let Some(server) = Sshd::start("internal-sftp -P posix-rename,fsync,hardlink,statvfs,limits", &[("rsa", "")])
    else {
        return;
    };
    let mut global = server.options("rsa", server.port());
    global.extend(["repo1-sftp-host-key-check-type=none", "repo1-bundle=y"].map(str::to_owned));
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
