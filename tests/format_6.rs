//! Repositories of format 6, in turns with the real pgBackRest 2.60.0.

use std::fs;
use std::path::Path;

use repo_format::cipher::{self, Cipher, Passphrase};
use repo_format::format::RepoFormat;

use crate::env::{Scenario, ScenarioOptions, Tool, Weed, restored_matches};
use crate::hostile::sealed;

const TOOLS: [Tool; 2] = [Tool::Rbr, Tool::PgBackRest];

fn scenario(options: &[&str]) -> Option<Scenario> {
    let global = ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret", "repo1-bundle=y", "repo1-block=y"];
    Scenario::start(ScenarioOptions {
        global: global.iter().chain(options).map(|line| (*line).to_owned()).collect(),
        ..ScenarioOptions::default()
    })
}

/// Lets the archive key be of 2023.
fn age_key(repo: &Path) {
    let path = repo.join("archive/demo/archive.info");
    let main = Cipher::Aes256Cbc(Passphrase::new("secret")).of_info_file(RepoFormat::V6);
    let stored = fs::read(&path).expect("archive.info");
    assert!(stored.starts_with(b"PGBR006_"));
    let text = String::from_utf8(cipher::decrypt(&main, &stored).expect("passphrase")).expect("text");
    let line = text.lines().find(|line| line.starts_with("cipher-pass-rotate=")).expect("time of the key");
    let aged = sealed(&text.replace(line, "cipher-pass-rotate=1700000000"));
    let stored = cipher::encrypt(&main, aged.as_bytes()).expect("randomness");
    for path in [repo.join("archive/demo/archive.info.copy"), path] {
        fs::write(path, &stored).expect("archive.info");
    }
}

/// The headers of the archived segments, in the order of their names, each once.
fn headers(repo: &Path) -> Vec<String> {
    let folder = repo.join("archive/demo/15-1/0000000100000000");
    let mut files: Vec<_> = fs::read_dir(folder).expect("archive").map(|entry| entry.expect("entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "zst"));
    files.sort();
    let head = |file: &Path| String::from_utf8_lossy(&fs::read(file).expect("segment")[..10]).into_owned();
    let mut headers: Vec<String> = files.iter().map(|file| head(file)).collect();
    for header in &mut headers {
        header.truncate(if header.starts_with("Salted__") { 8 } else { 10 });
    }
    headers.dedup();
    headers
}

#[test]
fn stanza_is_migrated_and_its_keys_are_rotated_by_both_in_turns() {
    let Some(scenario) = scenario(&["compress-type=zst", "repo1-cipher-rotate=15d"]) else { return };
    let repo = scenario.space.path("repo");
    scenario.pgbackrest(&["stanza-create"]).success();
    scenario.pgbackrest(&["backup", "--type=full"]).success();
    scenario.rbr(&["stanza-upgrade", "--repo1-format=6"]).success().says("upgrade repository format from 5 to 6");
    // Backups of a set have one format
    scenario.rbr(&["backup", "--type=diff"]).success().says("diff backup has been changed to full");
    scenario.change(1);
    scenario.pgbackrest(&["backup", "--type=diff"]).success();
    age_key(&repo);
    let copy = repo.join("archive/demo/archive.info.copy");
    let before = fs::read(&copy).expect("copy");
    scenario.rbr(&["expire"]).success().says("repo1: rotate archive key to id 2");
    // As if the rotation had ended before it wrote the copy
    fs::write(&copy, before).expect("copy");
    scenario.rbr(&["expire"]).success().says("complete an interrupted rotation");
    let unchanged = fs::read(repo.join("archive/demo/archive.info")).expect("archive.info");
    assert_eq!(fs::read(&copy).expect("copy"), unchanged);
    scenario.rbr(&["expire"]).success();
    assert_eq!(fs::read(repo.join("archive/demo/archive.info")).expect("archive.info"), unchanged);
    scenario.change(2);
    scenario.rbr(&["backup", "--type=incr"]).success();
    age_key(&repo);
    scenario.pgbackrest(&["expire"]).success().says("repo1: rotate archive key to id 3");
    scenario.change(3);
    scenario.cluster.switch_wal();
    let dump = scenario.cluster.dump();
    scenario.rbr(&["check"]).success();
    assert_eq!(headers(&repo), ["Salted__", "PGBR006K\u{1}1", "PGBR006K\u{1}2", "PGBR006K\u{1}3"]);
    let first = scenario.labels().remove(0);
    for tool in TOOLS {
        let verify = scenario.run(tool, &["verify", "--verbose", "--output=text", "--log-level-console=off"]).success();
        assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
        // Recovery replays WAL of all keys, and what both have written in one chain
        let name = format!("all-keys-{tool:?}");
        let mut restored = scenario.restore(tool, &name, &[&format!("--set={first}")]);
        restored_matches(&mut restored, &dump);
    }
    let mut restored = scenario.restore(Tool::PgBackRest, "newest", &[]);
    restored_matches(&mut restored, &dump);
}

#[test]
fn stanza_of_rbr_in_s3_at_format_6_is_used_by_pgbackrest() {
    let Some(weed) = Weed::start() else { return };
    let options = weed.options(weed.port());
    let Some(scenario) = scenario(&options.iter().map(String::as_str).collect::<Vec<_>>()) else { return };
    scenario.rbr(&["stanza-create", "--repo1-format=6"]).success();
    scenario.rbr(&["backup"]).success();
    let dump = scenario.cluster.dump();
    scenario.pgbackrest(&["backup", "--type=incr"]).success();
    for tool in TOOLS {
        scenario.run(tool, &["verify"]).success();
        let mut restored = scenario.restore(tool, &format!("restored-{tool:?}"), &[]);
        restored_matches(&mut restored, &dump);
    }
}
