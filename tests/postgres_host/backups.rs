//! Backups and other commands of a cluster on another host.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::Hosts;
use crate::env::{Run, Scenario, ScenarioOptions, Shutdown, Tool, restored_matches};

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

/// A chain in which both programs take turns as the repository's host. With rbr beside the cluster, the repository has
/// format 6, so that keys derive with SHA-256 there.
fn turns(far: Tool, options: &[&str], tablespace: bool) {
    let global: Vec<String> =
        options.iter().filter(|option| option.starts_with("repo1-cipher")).map(ToString::to_string).collect();
    let options_of_cluster = ScenarioOptions { tablespace, global, ..ScenarioOptions::default() };
    let Some(hosts) = Hosts::start(far, options_of_cluster, options) else { return };
    let format = if far == Tool::Rbr { 6 } else { 5 };
    hosts.rbr(&["stanza-create", &format!("--repo1-format={format}")]).success();
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
    let encrypted = ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"];
    turns(Tool::Rbr, &[&encrypted[..], &["repo1-bundle=y", "repo1-block=y", "compress-type=zst"]].concat(), true);
}

/// The files of a backup apart from its manifest, by their paths.
fn stored_files(hosts: &Hosts, label: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = hosts.scenario.space.path("repo/backup/demo").join(label);
    let mut files = BTreeMap::new();
    let mut left = vec![root.clone()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).expect("directory") {
            let path = entry.expect("entry").path();
            let relative = path.strip_prefix(&root).expect("relative").to_owned();
            if path.is_dir() {
                left.push(path);
            } else if !relative.to_string_lossy().starts_with("backup.manifest") {
                files.insert(relative, fs::read(path).expect("file"));
            }
        }
    }
    files
}

#[test]
fn backup_of_a_host_with_rbr_has_the_bytes_of_a_backup_on_that_host() {
    for options in
        [&["compress-type=zst", "process-max=1"][..], &["compress-type=none", "repo1-bundle=y", "process-max=1"]]
    {
        let options = [options, &["repo1-block=y"]].concat();
        // Bundles and blocks belong together
        let options: Vec<&str> = match options.contains(&"repo1-bundle=y") {
            true => options,
            false => options.into_iter().filter(|option| *option != "repo1-block=y").collect(),
        };
        let Some(mut hosts) = Hosts::start(Tool::Rbr, ScenarioOptions::default(), &options) else { return };
        hosts.rbr(&["stanza-create"]).success();
        hosts.scenario.cluster.stop(Shutdown::Fast);
        hosts.rbr(&["backup", "--type=full", "--no-online"]).success().says("backup file cluster1.example:");
        let local = hosts.cluster_options(1, "pg").into_iter().filter(|option| !option.starts_with("pg1-host"));
        hosts.configure(&options, &local.collect::<Vec<_>>());
        let run = hosts.rbr(&["backup", "--type=full", "--no-online"]).success();
        assert!(!run.stdout.contains("cluster1.example:"), "{}", run.describe());
        let labels = hosts.scenario.labels();
        let [far, here] = [&labels[0], &labels[1]].map(|label| stored_files(&hosts, label));
        assert!(far.len() > 2 && far.keys().eq(here.keys()));
        let differ: Vec<_> = far.iter().filter(|(path, bytes)| here[*path] != **bytes).map(|(path, _)| path).collect();
        assert!(differ.is_empty(), "{differ:?}");
    }
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
