//! Chains of full, diff and incr backups written by the real pgBackRest and restored by rbr.

use crate::env::{Scenario, ScenarioOptions, Tool, Tree, restored_matches};

fn restores_every_link(version: u32, global: &[&str], tablespace: bool) {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version,
        global: global.iter().map(|&line| line.to_owned()).collect(),
        tablespace,
        archive_with: Tool::PgBackRest,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.pgbackrest(&["stanza-create"]).success();
    for (round, kind) in ["--type=full", "--type=diff", "--type=incr", "--type=incr"].into_iter().enumerate() {
        if round > 0 {
            scenario.change(u32::try_from(round).expect("small"));
        }
        scenario.pgbackrest(&["backup", kind]).success();
    }
    let dump = scenario.cluster.dump();
    let labels = scenario.labels();
    assert_eq!(labels.len(), 4);
    for (link, label) in labels.iter().enumerate() {
        let set = format!("--set={label}");
        let (theirs, ours) = (format!("theirs-{link}"), format!("ours-{link}"));
        scenario.restore(Tool::PgBackRest, &theirs, &["--type=none", &set]);
        scenario.restore(Tool::Rbr, &ours, &["--type=none", &set]);
        Tree::read_restored(&scenario.space.path(&theirs))
            .assert_same(&Tree::read_restored(&scenario.space.path(&ours)));
    }
    let mut restored = scenario.restore(Tool::Rbr, "restored", &[]);
    restored_matches(&mut restored, &dump);
}

#[test]
fn plain_gz_chain_restores_identically() {
    restores_every_link(13, &["compress-type=gz"], true);
}

#[test]
fn bundled_lz4_cipher_chain_restores_identically() {
    let cipher = ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"];
    restores_every_link(15, &["compress-type=lz4", "repo1-bundle=y", cipher[0], cipher[1]], true);
}

#[test]
fn block_zst_chain_restores_identically() {
    restores_every_link(17, &["compress-type=zst", "repo1-bundle=y", "repo1-block=y"], false);
}

#[test]
fn block_none_cipher_chain_restores_identically() {
    let cipher = ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"];
    restores_every_link(18, &["compress-type=none", "repo1-bundle=y", "repo1-block=y", cipher[0], cipher[1]], true);
}

#[test]
fn block_bz2_small_bundles_chain_restores_identically() {
    let sizes = ["repo1-bundle-size=1MiB", "repo1-bundle-limit=32KiB"];
    restores_every_link(15, &["compress-type=bz2", "repo1-bundle=y", "repo1-block=y", sizes[0], sizes[1]], false);
}
