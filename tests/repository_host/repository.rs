//! Every command on a repository that another host serves.

use super::{FAR, scenario};
use crate::env::{Scenario, Tool, restored_matches};

/// Runs the real pgBackRest on the other host.
fn far(scenario: &Scenario, arguments: &[&str]) -> crate::env::Run {
    let config = format!("--config={}", scenario.space.text(FAR));
    let mut all = vec![config.as_str(), "--stanza=demo"];
    all.extend(arguments);
    scenario.space.run(scenario.program(Tool::PgBackRest), &all)
}

fn turns(far_options: &[&str], near: &[&str]) {
    let Some(scenario) = scenario(far_options, near) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["check"]).success();
    // The programs take turns
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
    // The host decodes and sums up all files, with the keys of the archive, too
    scenario.rbr(&["verify", "--log-level-console=debug"]).success().never_says("is read here");
    for verify in [
        scenario.rbr(&["verify", "--verbose", "--output=text", "--log-level-console=off"]),
        scenario.pgbackrest(&["verify", "--verbose", "--output=text", "--log-level-console=off"]),
        far(&scenario, &["verify", "--verbose", "--output=text", "--log-level-console=off"]),
    ] {
        let verify = verify.success();
        assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    }
    // What was read is kept on the other host
    let in_turn = ["verify", "--older-than=7d", "--output=text", "--log-level-console=warn"];
    scenario.rbr(&in_turn).success().says("status: ok").never_says("WARN");
    scenario.rbr(&in_turn).success().says("read now: 0 file(s)").never_says("WARN");
    assert_eq!(scenario.space.path("repo/proof/demo/verified").read_dir().expect("records").count(), 1);
    let label = scenario.labels().pop().expect("a backup");
    scenario.rbr(&["annotate", &format!("--set={label}"), "--annotation=note=far"]).success();
    let listed = scenario.rbr(&["repo-ls", "backup/demo", "--log-level-console=off"]).success().stdout;
    assert!(listed.contains(&label) && !listed.contains("claim"), "{listed}");
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
fn plain_repository_on_another_host_serves_both_programs() {
    turns(&[], &[]);
}

#[test]
fn repository_that_only_the_other_host_can_decrypt_serves_both_programs() {
    turns(
        &["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=only-there"],
        &["repo1-bundle=y", "repo1-block=y", "compress-type=zst", "archive-async=y"],
    );
}
