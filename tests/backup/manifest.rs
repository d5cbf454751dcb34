//! Compares the manifest of a full backup with the manifest of the real pgBackRest for the same cluster.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::env::{Scenario, ScenarioOptions, Shutdown, Tool};

type Sections = BTreeMap<String, BTreeMap<String, Value>>;

/// Returns a manifest as JSON values by section and key, without values that always differ between two backups.
fn comparable(text: &str) -> Sections {
    let mut sections = Sections::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            // File names may contain '=': the value begins after the one that JSON follows
            let (key, value) = line
                .match_indices('=')
                .map(|(at, _)| (&line[..at], &line[at + 1..]))
                .find(|(_, value)| serde_json::from_str::<Value>(value).is_ok())
                .unwrap_or((key, value));
            let value = serde_json::from_str(value).unwrap_or_else(|error| panic!("{line}: {error}"));
            sections.entry(section.clone()).or_default().insert(key.to_owned(), value);
        }
    }
    sections.remove("backrest");
    if let Some(backup) = sections.get_mut("backup") {
        backup.retain(|key, _| {
            !key.contains("timestamp")
                && !key.contains("lsn")
                && !key.contains("archive")
                && key != "backup-label"
                && key != "backup-reference"
        });
    }
    let files = sections.get_mut("target:file").expect("files");
    // Written by the start and the stop of each backup, or by the server at any time
    files.retain(|name, _| {
        !name.ends_with("backup_label")
            && !name.ends_with("tablespace_map")
            && !name.contains("pg_control")
            && !name.contains("pg_xact")
            && !name.contains("pg_logical")
    });
    for file in files.values_mut() {
        let keys = file.as_object_mut().expect("object");
        // Stored sizes depend on the compression library, and positions in a bundle depend on them
        for key in ["repo-size", "rck", "bno", "bni"] {
            keys.remove(key);
        }
        // The size of a block map depends on them; its existence does not
        if let Some(size) = keys.get_mut("bim") {
            *size = Value::Null;
        } else {
            // pgBackRest keeps the block size of the prior backup if a file is no longer stored in blocks
            keys.remove("bi");
            keys.remove("bic");
        }
    }
    sections
}

fn manifest_of(scenario: &Scenario, tool: Tool, options: &[&str]) -> Sections {
    let mut arguments = vec!["backup", "--type=full"];
    arguments.extend(options);
    scenario.run(tool, &arguments).success();
    let label = scenario.labels().pop().expect("a backup");
    let path = scenario.space.path(&format!("repo/backup/demo/{label}/backup.manifest"));
    comparable(&fs::read_to_string(path).expect("manifest"))
}

#[track_caller]
fn assert_same(theirs: &Sections, ours: &Sections) {
    for (section, keys) in theirs {
        let none = BTreeMap::new();
        let found = ours.get(section).unwrap_or(&none);
        for (key, value) in keys {
            assert_eq!(found.get(key), Some(value), "[{section}] {key}");
        }
        for key in found.keys() {
            assert!(keys.contains_key(key), "[{section}] {key} is only in rbr's manifest");
        }
    }
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
}

fn same_manifests(version: u32, options: &[&str]) {
    let Some(scenario) = Scenario::start(ScenarioOptions { version, tablespace: true, ..ScenarioOptions::default() })
    else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    // From here on nothing changes: the cluster is idle, and its statistics and hint bits are settled
    scenario.cluster.sql("create unlogged table u(id int); create database other");
    scenario.cluster.dump();
    scenario.cluster.sql("vacuum freeze; checkpoint");
    let theirs = manifest_of(&scenario, Tool::PgBackRest, options);
    let ours = manifest_of(&scenario, Tool::Rbr, options);
    assert_same(&theirs, &ours);
}

#[test]
fn manifest_of_a_plain_backup_equals_pgbackrest() {
    same_manifests(15, &["--compress-type=gz", "--annotation=source=test", "--annotation=other=two words"]);
}

#[test]
fn manifest_of_a_bundled_backup_equals_pgbackrest() {
    same_manifests(18, &["--compress-type=zst", "--repo1-bundle", "--repo1-bundle-limit=64KiB"]);
}

#[test]
fn manifest_with_exclusions_and_without_page_checksums_equals_pgbackrest() {
    same_manifests(13, &["--exclude=pg_hba.conf", "--exclude=base/1/", "--no-checksum-page"]);
}

/// With the same stopped cluster and the same prior backups, both programs make the same decisions: copy, refer to,
/// split into blocks.
fn same_decisions(version: u32, kind: &str, options: &[&str]) {
    same_decisions_after(version, options, kind, options);
}

/// The same after a full backup with other options.
fn same_decisions_after(version: u32, full_options: &[&str], kind: &str, options: &[&str]) {
    let Some(mut scenario) =
        Scenario::start(ScenarioOptions { version, tablespace: true, ..ScenarioOptions::default() })
    else {
        return;
    };
    let mut full = vec!["--no-online", "backup", "--type=full"];
    full.extend(full_options);
    let mut incr = vec!["--no-online", "backup", kind];
    incr.extend(options);
    scenario.pgbackrest(&["stanza-create"]).success();
    for round in 0..2 {
        scenario.cluster.stop(Shutdown::Fast);
        scenario.pgbackrest(if round == 0 { &full } else { &incr }).success();
        scenario.cluster.start();
        scenario.change(round + 1);
        scenario.cluster.sql(&format!("alter table plain add column more_{round} int default 7; vacuum full plain"));
    }
    scenario.cluster.stop(Shutdown::Fast);
    scenario.space.copy("repo", "repo-rbr");
    let manifest = |repo: &str, label: &str| {
        let path = scenario.space.path(&format!("{repo}/backup/demo/{label}/backup.manifest"));
        comparable(&fs::read_to_string(path).expect("manifest"))
    };
    scenario.pgbackrest(&incr).success();
    let theirs = manifest("repo", &scenario.labels()[2]);
    let mut other = vec!["--repo1-path".to_owned(), scenario.space.text("repo-rbr")];
    other.extend(incr.iter().map(|&argument| argument.to_owned()));
    let other: Vec<_> = other.iter().map(String::as_str).collect();
    let run = scenario.rbr(&other).success();
    let label = run.stdout.split("new backup label = ").nth(1).expect("label").lines().next().expect("line").to_owned();
    let ours = manifest("repo-rbr", &label);
    assert!(theirs["target:file"].values().any(|file| file.get("reference").is_some()), "nothing is referred to");
    assert_same(&theirs, &ours);
}

#[test]
fn incr_decides_as_pgbackrest() {
    same_decisions(15, "--type=incr", &["--compress-type=gz"]);
}

#[test]
fn diff_with_bundles_decides_as_pgbackrest() {
    same_decisions(17, "--type=diff", &["--compress-type=zst", "--repo1-bundle"]);
}

#[test]
fn incr_with_blocks_decides_as_pgbackrest() {
    same_decisions(18, "--type=incr", &["--compress-type=zst", "--repo1-bundle", "--repo1-block"]);
}

#[test]
fn incr_with_delta_decides_as_pgbackrest() {
    same_decisions(13, "--type=incr", &["--compress-type=lz4", "--delta"]);
}

#[test]
fn incr_with_blocks_after_plain_files_decides_as_pgbackrest() {
    same_decisions_after(17, &["--compress-type=gz"], "--type=diff", &["--repo1-bundle", "--repo1-block"]);
}

#[test]
fn plain_incr_after_blocks_decides_as_pgbackrest() {
    let full = ["--compress-type=zst", "--repo1-bundle", "--repo1-block"];
    same_decisions_after(15, &full, "--type=diff", &["--compress-type=lz4"]);
}
