//! Backups and other commands of a cluster on another host.

use super::Hosts;
use crate::env::{Run, Scenario, ScenarioOptions, Tool, restored_matches};

/// Verifies the repository with both programs, on its own host.
fn verify(hosts: &Hosts) {
    for run in hosts.both(&["verify", "--verbose", "--output=text", "--log-level-console=off"]) {
        let run = run.success();
        assert!(run.stdout.contains("status: ok"), "{}", run.describe());
    }
}

/// Restores with both programs where the cluster runs, and compares the data.
fn restore(scenario: &Scenario) {
    scenario.cluster.switch_wal();
    let dump = scenario.cluster.dump();
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let mut restored = scenario.restore(tool, &format!("restored-{tool:?}"), &[]);
        restored_matches(&mut restored, &dump);
    }
}

fn backup(hosts: &Hosts, tool: Tool, kind: &str) -> Run {
    hosts.run(tool, &["backup", &format!("--type={kind}")]).success()
}

/// A chain in which both programs take turns as the repository's host.
fn turns(far: Tool, options: &[&str], tablespace: bool) {
    let global: Vec<String> =
        options.iter().filter(|option| option.starts_with("repo1-cipher")).map(ToString::to_string).collect();
    let options_of_cluster = ScenarioOptions { tablespace, global, ..ScenarioOptions::default() };
    let Some(hosts) = Hosts::start(far, options_of_cluster, options) else { return };
    hosts.rbr(&["stanza-create"]).success();
    for run in hosts.both(&["check"]) {
        run.success();
    }
    let turns = [(Tool::Rbr, "full"), (Tool::PgBackRest, "diff"), (Tool::Rbr, "incr"), (Tool::Rbr, "diff")];
    for (round, (tool, kind)) in (1u32..).zip(turns) {
        hosts.scenario.change(round);
        let run = backup(&hosts, tool, kind);
        run.says(&format!("backup file cluster1.example:{}", hosts.scenario.space.text("pg/")));
    }
    let [ours, theirs] =
        hosts.both(&["info", "--output=json", "--log-level-console=off"]).map(|run| run.success().stdout);
    assert_eq!(ours, theirs);
    verify(&hosts);
    restore(&hosts.scenario);
}

#[test]
fn cluster_on_another_host_is_backed_up() {
    turns(Tool::PgBackRest, &[], true);
}

#[test]
fn cluster_on_another_host_is_backed_up_to_bundles_and_blocks() {
    turns(Tool::PgBackRest, &["repo1-bundle=y", "repo1-block=y", "compress-type=zst"], true);
}

#[test]
fn cluster_on_another_host_is_backed_up_encrypted() {
    turns(
        Tool::PgBackRest,
        &[
            "repo1-cipher-type=aes-256-cbc",
            "repo1-cipher-pass=secret",
            "repo1-bundle=y",
            "repo1-block=y",
            "compress-type=lz4",
        ],
        false,
    );
}

#[test]
fn cluster_on_another_host_is_backed_up_uncompressed() {
    turns(Tool::PgBackRest, &["compress-type=none", "repo1-bundle=y"], false);
}

#[test]
fn cluster_on_another_host_with_rbr_is_backed_up() {
    turns(Tool::Rbr, &["repo1-bundle=y", "repo1-block=y", "compress-type=zst"], true);
}

#[test]
fn manifest_compares_a_file_with_that_of_the_other_host() {
    let options = ["repo1-bundle=y", "repo1-block=y", "compress-type=zst"];
    for far in [Tool::PgBackRest, Tool::Rbr] {
        let Some(hosts) = Hosts::start(far, ScenarioOptions::default(), &options) else { return };
        hosts.rbr(&["stanza-create"]).success();
        backup(&hosts, Tool::Rbr, "full");
        let relation = hosts.scenario.cluster.sql("select pg_relation_filepath('plain')");
        let set = format!("--set={}", hosts.scenario.labels().pop().expect("a backup"));
        let filter = format!("--filter=pg_data/{relation}");
        let compared = |says: &str| {
            for output in ["text", "json"] {
                let output = format!("--output={output}");
                let arguments = ["manifest", "--pg=1", &set, &filter, &output, "--log-level-console=off"];
                let [ours, theirs] = hosts.both(&arguments).map(|run| run.success().stdout);
                assert_eq!(ours, theirs);
                assert!(ours.contains(says) || output.ends_with("json"), "{ours}");
            }
        };
        compared("file is up-to-date");
        hosts.scenario.cluster.sql("update plain set note = 'new' where id = 1; checkpoint");
        compared("total read: 1/");
        let host = hosts.scenario.space.path(&format!("pg/{relation}"));
        hosts.scenario.cluster.sql("drop table plain; checkpoint");
        if !host.exists() {
            for run in hosts.both(&["manifest", "--pg=1", &set, &filter]) {
                run.fails(55).says("unable to open missing file");
            }
        }
    }
}
