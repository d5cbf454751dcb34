//! Chains in which rbr and the real pgBackRest take turns: every link restores, by both, to the same files.

use crate::env::{Scenario, ScenarioOptions, Tool, Tree, restored_matches};

fn take_turns(version: u32, first: Tool, global: &[&str]) {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version,
        global: global.iter().map(|&line| line.to_owned()).collect(),
        tablespace: true,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    let second = if first == Tool::Rbr { Tool::PgBackRest } else { Tool::Rbr };
    scenario.run(first, &["stanza-create"]).success();
    let links =
        [(first, "full"), (second, "diff"), (first, "incr"), (second, "incr"), (first, "diff"), (second, "incr")];
    for (round, (tool, kind)) in links.into_iter().enumerate() {
        if round > 0 {
            scenario.change(u32::try_from(round).expect("small"));
        }
        let run = scenario.run(tool, &["backup", &format!("--type={kind}")]).success();
        assert!(run.stdout.contains(&format!("{kind} backup size")), "{}", run.describe());
    }
    let dump = scenario.cluster.dump();
    let labels = scenario.labels();
    assert_eq!(labels.len(), links.len());
    for tool in [Tool::PgBackRest, Tool::Rbr] {
        let verify =
            scenario.run(tool, &["verify", "--verbose", "--output=text", "--log-level-console=warn"]).success();
        assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    }
    let json = ["info", "--output=json", "--log-level-console=warn"];
    assert_eq!(scenario.rbr(&json).success().stdout, scenario.pgbackrest(&json).success().stdout);
    for (link, label) in labels.iter().enumerate() {
        let set = format!("--set={label}");
        let (theirs, ours) = (format!("theirs-{link}"), format!("ours-{link}"));
        scenario.restore(Tool::PgBackRest, &theirs, &["--type=none", &set]);
        scenario.restore(Tool::Rbr, &ours, &["--type=none", &set]);
        Tree::read_restored(&scenario.space.path(&theirs))
            .assert_same(&Tree::read_restored(&scenario.space.path(&ours)));
    }
    scenario.cluster.switch_wal();
    for (tool, name) in [(Tool::PgBackRest, "server-pgbackrest"), (Tool::Rbr, "server-rbr")] {
        let mut restored = scenario.restore(tool, name, &[]);
        restored_matches(&mut restored, &dump);
    }
}

#[test]
fn plain_gz_chain_begun_by_rbr() {
    take_turns(13, Tool::Rbr, &["compress-type=gz"]);
}

#[test]
fn bundled_cipher_chain_begun_by_pgbackrest() {
    let cipher = ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"];
    take_turns(15, Tool::PgBackRest, &["compress-type=none", "repo1-bundle=y", cipher[0], cipher[1]]);
}

#[test]
fn block_zst_cipher_chain_begun_by_rbr() {
    let cipher = ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"];
    take_turns(17, Tool::Rbr, &["compress-type=zst", "repo1-bundle=y", "repo1-block=y", cipher[0], cipher[1]]);
}

#[test]
fn block_lz4_chain_begun_by_pgbackrest() {
    let limit = "repo1-bundle-limit=64KiB";
    take_turns(18, Tool::PgBackRest, &["compress-type=lz4", "repo1-bundle=y", "repo1-block=y", limit]);
}
