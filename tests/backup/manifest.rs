//! The manifest of a full backup against the one that the real pgBackRest writes of the same cluster.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::env::{Scenario, ScenarioOptions, Tool};

type Sections = BTreeMap<String, BTreeMap<String, Value>>;

/// A manifest as JSON values by section and key, without what two backups can't have in common.
fn comparable(text: &str) -> Sections {
    let mut sections = Sections::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            // File names may hold '=': the value begins at the one that JSON follows
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
    // Written by the start and the stop of each backup, or by the server at its own pace
    files.retain(|name, _| {
        !name.ends_with("backup_label")
            && !name.ends_with("tablespace_map")
            && !name.contains("pg_control")
            && !name.contains("pg_xact")
            && !name.contains("pg_logical")
    });
    for file in files.values_mut() {
        let keys = file.as_object_mut().expect("object");
        // Sizes in the repository depend on the compression library, places in a bundle on them
        for key in ["repo-size", "rck", "bno", "bni"] {
            keys.remove(key);
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

fn same_manifests(version: u32, options: &[&str]) {
    let Some(scenario) = Scenario::start(ScenarioOptions { version, tablespace: true, ..ScenarioOptions::default() })
    else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    // Nothing changes from here on: an idle cluster with its statistics and hint bits settled
    scenario.cluster.sql("create unlogged table u(id int); create database other");
    scenario.cluster.dump();
    scenario.cluster.sql("vacuum freeze; checkpoint");
    let theirs = manifest_of(&scenario, Tool::PgBackRest, options);
    let ours = manifest_of(&scenario, Tool::Rbr, options);
    for (section, keys) in &theirs {
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
