//! SFTP, by OpenSSH's server.

use super::cycle;
use crate::env::{Scenario, ScenarioOptions, Sshd};

#[test]
fn sftp_repository_is_shared_with_pgbackrest() {
    let Some(server) = Sshd::start_usual() else { return };
    server.know("host-ed25519.pub");
    let mut global = server.options("ed25519", server.port());
    global.push(format!("repo1-sftp-known-host={}", server.space.text("known")));
    global.extend(["repo1-bundle=y", "repo1-block=y", "compress-type=lz4"].map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    cycle(&scenario);

    // A server with another key is not trusted
    let space = &server.space;
    space.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &space.text("other")]).success();
    server.know("other.pub");
    scenario.rbr(&["repo-ls"]).fails(101).says("known hosts failure: '127.0.0.1': mismatch in known hosts files");
}
