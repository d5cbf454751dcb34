//! Every command on a repository that a server serves.

use super::{FAR, HostOptions, Hosts};
use crate::env::{Tool, restored_matches};

/// Runs the real pgBackRest on the other host.
fn far(hosts: &Hosts, arguments: &[&str]) -> crate::env::Run {
    let scenario = &hosts.scenario;
    let config = format!("--config={}", scenario.space.text(FAR));
    let pg = format!("--pg1-path={}", scenario.cluster.data_text());
    let mut all = vec![config.as_str(), "--stanza=demo"];
    all.extend(arguments);
    if arguments[0] == "backup" {
        all.push(&pg);
    }
    scenario.space.run(scenario.program(Tool::PgBackRest), &all)
}

/// The programs take turns on the host of PostgreSQL.
fn turns(options: HostOptions<'_>) {
    let Some(hosts) = Hosts::start(options) else { return };
    let scenario = &hosts.scenario;
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["check"]).success();
    for (round, (tool, kind)) in
        [(Tool::Rbr, "full"), (Tool::PgBackRest, "diff"), (Tool::Rbr, "incr")].into_iter().enumerate()
    {
        scenario.change(u32::try_from(round + 1).expect("round"));
        scenario.run(tool, &["backup", &format!("--type={kind}")]).success();
    }
    scenario.pgbackrest(&["check"]).success();
    let both =
        |arguments: &[&str]| [Tool::Rbr, Tool::PgBackRest].map(|tool| scenario.run(tool, arguments).success().stdout);
    let [ours, theirs] = both(&["info", "--output=json", "--log-level-console=off"]);
    assert_eq!(ours, theirs);
    let verify = ["verify", "--verbose", "--output=text", "--log-level-console=off"];
    for verify in [scenario.rbr(&verify), scenario.pgbackrest(&verify), far(&hosts, &verify)] {
        let verify = verify.success();
        assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    }
    let in_turn = ["verify", "--older-than=7d", "--output=text", "--log-level-console=warn"];
    scenario.rbr(&in_turn).success().says("status: ok").never_says("WARN");
    scenario.rbr(&in_turn).success().says("read now: 0 file(s)").never_says("WARN");
    let label = scenario.labels().pop().expect("a backup");
    scenario.rbr(&["annotate", &format!("--set={label}"), "--annotation=note=far"]).success();
    scenario.rbr(&["repo-ls", "backup/demo"]).success().says(&label);
    scenario.cluster.switch_wal();
    let dump = scenario.cluster.dump();
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let mut restored = scenario.restore(tool, &format!("restored-{tool:?}"), &[]);
        restored_matches(&mut restored, &dump);
    }
    scenario.rbr(&["backup", "--type=full", "--repo1-retention-full=1"]).success();
    assert_eq!(scenario.labels().len(), 1);
    scenario.archiving_ends(&["lock", "far-lock"]);
    scenario.rbr(&["stop"]).success();
    scenario.rbr(&["stanza-delete", "--force", "--repo=1"]).success();
    assert!(!scenario.space.path("repo/backup/demo").exists());
}

#[test]
fn plain_repository_behind_the_server_of_pgbackrest_serves_both_programs() {
    turns(HostOptions::USUAL);
}

#[test]
fn plain_repository_behind_the_server_serves_both_programs() {
    turns(HostOptions { server: Tool::Rbr, ..HostOptions::USUAL });
}

#[test]
fn repository_that_only_the_server_can_decrypt_serves_both_programs() {
    turns(HostOptions {
        server: Tool::Rbr,
        far: &["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=only-there"],
        near: &["repo1-bundle=y", "repo1-block=y", "compress-type=zst", "archive-async=y"],
        ..HostOptions::USUAL
    });
}

#[test]
fn repository_that_only_the_server_of_pgbackrest_can_decrypt_serves_both_programs() {
    turns(HostOptions {
        far: &["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=only-there"],
        near: &["repo1-bundle=y", "repo1-block=y", "compress-type=zst", "archive-async=y"],
        ..HostOptions::USUAL
    });
}
