//! OpenSSH's server, run by the test user.

use std::time::{Duration, Instant};

use super::cycle;
use crate::env::{Scenario, ScenarioOptions, Space, free_ports, optional_oracle};

#[test]
fn sftp_repository_is_shared_with_pgbackrest() {
    let Some(sshd) = optional_oracle("openssh/usr/sbin/sshd") else { return };
    let space = Space::new();
    for key in ["host", "id"] {
        space.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &space.text(key)]).success();
    }
    let port = free_ports(1);
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nMaxStartups 100\nSubsystem sftp internal-sftp\n",
        space.text("host"),
        space.text("id.pub")
    );
    space.write("sshd_config", config);
    // In the foreground, so that it ends with the test
    let server = space.start(&sshd, &["-D", "-e", "-f", &space.text("sshd_config")]);
    let end = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "sshd is not ready:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let public = std::fs::read_to_string(space.path("host.pub")).expect("host key");
    let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
    space.write("known_hosts", format!("[127.0.0.1]:{port} {public}\n"));
    let global = vec![
        "repo1-type=sftp".to_owned(),
        format!("repo1-path={}", space.text("repo")),
        "repo1-sftp-host=127.0.0.1".to_owned(),
        format!("repo1-sftp-host-port={port}"),
        format!("repo1-sftp-host-user={}", space.user().name),
        format!("repo1-sftp-private-key-file={}", space.text("id")),
        format!("repo1-sftp-public-key-file={}", space.text("id.pub")),
        "repo1-sftp-host-key-hash-type=sha256".to_owned(),
        format!("repo1-sftp-known-host={}", space.text("known_hosts")),
        "repo1-bundle=y".to_owned(),
        "repo1-block=y".to_owned(),
        "compress-type=lz4".to_owned(),
    ];
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    cycle(&scenario);

    // A server with another key is not trusted
    space.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &space.text("other")]).success();
    let other = std::fs::read_to_string(space.path("other.pub")).expect("other key");
    let other = other.split(' ').take(2).collect::<Vec<_>>().join(" ");
    space.write("known_hosts", format!("[127.0.0.1]:{port} {other}\n"));
    scenario.rbr(&["repo-ls"]).fails(101).says("known hosts failure: '127.0.0.1': mismatch in known hosts files");
}
