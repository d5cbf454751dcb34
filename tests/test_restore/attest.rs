//! Proofs stay in the repository, where pgBackRest does not mind them, and are worth what their signature is worth.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::env::{Scenario, ScenarioOptions, Shutdown, Tool, Weed, restored_matches};
use crate::test_restore::{BLOCKS, archive_now, proven, test_restore, with_chain, with_stanza};

/// The key pair of RFC 8032, section 7.1, test 1.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
/// The public key of test 2.
const OTHER: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n-----END PUBLIC KEY-----\n";

const QUICK: [&str; 2] = ["--no-amcheck", "--no-checksums"];

fn key(scenario: &Scenario, name: &str, text: &str) -> String {
    scenario.space.write(name, text).display().to_string()
}

/// All proofs of a backup in a repository on this host.
fn proofs(scenario: &Scenario, label: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(scenario.space.path(&format!("repo/proof/demo/{label}"))).into_iter().flatten();
    entries.map(|entry| entry.expect("entry").path()).collect()
}

fn backup<'a>(info: &'a Value, label: &str) -> &'a Value {
    let backups = info[0]["backup"].as_array().expect("backups");
    backups.iter().find(|backup| backup["label"] == label).expect("backup")
}

#[track_caller]
fn attested(scenario: &Scenario, public: &str, code: i32) -> Value {
    let option = format!("--public-key-file={public}");
    scenario.rbr(&[&option, "--output=json", "--log-level-console=off", "attest", "verify"]).fails(code).json()
}

#[test]
fn signed_proof_is_shown_and_verified_and_pgbackrest_does_not_mind() {
    let Some(mut scenario) = with_chain(ScenarioOptions::default()) else { return };
    let labels = scenario.labels();
    let without = scenario.rbr(&["info", "--output=json"]).success().stdout;
    let (private, public) = (key(&scenario, "key", PRIVATE), key(&scenario, "pub", PUBLIC));
    let sign = format!("--attest-key-file={private}");
    let report = proven(&scenario, &[&QUICK[..], &[&sign, "--max-rate=1MiB"]].concat());
    // A proof on a production host takes no more than its rate
    let known: Value = serde_json::from_str(&without).unwrap();
    let stored = known[0]["backup"][0]["info"]["repository"]["delta"].as_u64().unwrap();
    // The chain needs nearly all of the full backup
    let (took, due) = (report["phases"]["restore-ms"].as_u64().unwrap(), stored * 1000 / (1 << 20));
    assert!(due > 1000 && took * 10 >= due * 8, "{took} of {due} ms for {stored} bytes");

    // The last proof, beside the fields of pgBackRest
    let info = scenario.rbr(&["info", "--output=json"]).success().json();
    let (first, last) = (backup(&info, &labels[0]), backup(&info, &labels[1]));
    assert_eq!(first.get("rbr-proof"), None);
    assert_eq!(last["rbr-proof"]["result"], "passed");
    assert_eq!(last["rbr-proof"]["lsn"], report["recovery"]["reached"]["lsn"]);
    assert!(last["rbr-proof"]["key-id"].is_string());
    let recovery = &info[0]["rbr-recovery"][0];
    assert_eq!((&recovery["repo-key"], &recovery["rto"]["label"]), (&1.into(), &last["label"]));
    assert_eq!((&recovery["rto"]["ms"], &recovery["rto"]["timestamp"]), (&report["rto-ms"], &report["stop"]));
    assert!(recovery["rto"]["ms-per-tib"].as_u64() > report["rto-ms"].as_u64());
    assert_eq!(recovery["rpo"]["segment"], report["recovery"]["wal-newest"]);
    let age = report["start"].as_i64().expect("start") - recovery["rpo"]["timestamp"].as_i64().expect("time");
    assert!((0..120).contains(&age), "{age}");
    let mut same = scenario.rbr(&["info", "--output=json"]).success().json();
    same[0].as_object_mut().expect("object").remove("rbr-recovery");
    for backup in same[0]["backup"].as_array_mut().expect("backups") {
        backup.as_object_mut().expect("object").remove("rbr-proof");
    }
    let theirs = scenario.pgbackrest(&["info", "--output=json", "--log-level-console=off"]).success().json();
    assert_eq!(same, theirs);
    let annotation = theirs[0]["backup"][1]["annotation"]["rbr-proof"].as_str().expect("annotation");
    assert!(annotation.contains("passed without amcheck, checksums, recovered to"), "{annotation}");
    scenario
        .rbr(&["info"])
        .success()
        .says("last proof: ")
        .says(" passed without amcheck, checksums, recovered to ")
        .says(", signed");
    assert!(!without.contains("rbr-"));

    let found = attested(&scenario, &public, 0);
    assert_eq!((&found[0]["standing"], &found[0]["proven"]), (&"valid".into(), &true.into()));
    let found = attested(&scenario, &key(&scenario, "other", OTHER), 104);
    assert_eq!(found[0]["standing"], "wrong signature");
    scenario.rbr(&["attest"]).fails(43).says("attest requires a parameter: verify");

    // Every command of the real one, with the directory there
    scenario.pgbackrest(&["repo-ls", "--log-level-console=off"]).success().says("proof\n");
    scenario.pgbackrest(&["verify"]).success().never_says("ERROR");
    scenario.pgbackrest(&["check"]).success();
    scenario.pgbackrest(&["--type=incr", "backup"]).success().never_says("WARN");
    scenario.pgbackrest(&["--type=full", "backup"]).success().never_says("WARN");
    let dump = scenario.cluster.dump();
    let mut restored = scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
    scenario.pgbackrest(&["--set", &labels[0], "expire"]).success();
    assert_eq!(proofs(&scenario, &labels[1]).len(), 1);
    // The backup is gone, but nothing speaks against the proof
    assert_eq!(attested(&scenario, &public, 0)[0]["standing"], "backup is gone");
    scenario.rbr(&["expire"]).success().says(&format!("remove proofs of expired backup {}", labels[1]));
    assert!(!scenario.space.path(&format!("repo/proof/demo/{}", labels[1])).exists());

    proven(&scenario, &QUICK);
    scenario.cluster.stop(Shutdown::Fast);
    scenario.pgbackrest(&["stop"]).success();
    scenario.pgbackrest(&["stanza-delete"]).success();
    assert!(!scenario.space.path("repo/backup/demo").exists());
    scenario.pgbackrest(&["info"]).success();
}

#[test]
fn proof_that_was_changed_or_moved_is_not_valid() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let labels = scenario.labels();
    let (private, public) = (key(&scenario, "key", PRIVATE), key(&scenario, "pub", PUBLIC));
    let sign = format!("--attest-key-file={private}");
    proven(&scenario, &[&QUICK[..], &[&sign]].concat());
    let path = proofs(&scenario, &labels[1]).remove(0);
    let text = fs::read_to_string(&path).expect("proof");

    let moved = scenario.space.folder(&format!("repo/proof/demo/{}", labels[0])).join("moved.json");
    fs::rename(&path, &moved).expect("move");
    scenario.space.user().own(&moved);
    assert_eq!(attested(&scenario, &public, 104)[0]["standing"], "of another backup");
    fs::remove_file(&moved).expect("remove");

    let relative = format!("repo/proof/demo/{}/x.json", labels[1]);
    for (changed, standing) in [
        (text.replacen("\"checks-ms\":", "\"checks-ms\":1", 1), "wrong signature"),
        (text.lines().next().expect("report").to_owned() + "\n", "not signed"),
        ("{}\n".to_owned(), "unreadable"),
    ] {
        scenario.space.write(&relative, changed);
        assert_eq!(attested(&scenario, &public, 104)[0]["standing"], standing);
    }
    scenario.rbr(&["info"]).success().says("last proof: unreadable");
    scenario.space.write(&relative, &text);
    assert_eq!(attested(&scenario, &public, 0)[0]["standing"], "valid");
}

#[test]
fn newest_proven_backup_outlives_retention() {
    let mut options = ScenarioOptions::default();
    options.global.extend(BLOCKS.map(str::to_owned));
    let Some(scenario) = with_stanza(options) else { return };
    scenario.rbr(&["--type=full", "backup"]).success();
    proven(&scenario, &QUICK);
    for _ in 0..2 {
        scenario.rbr(&["--type=full", "backup"]).success();
        archive_now(&scenario);
    }
    let labels = scenario.labels();
    // The last proof of the newest backup is that it can not be recovered
    let sql = scenario.space.write("wrong.sql", "select 1;\n-- expect: 2\n").display().to_string();
    test_restore(&scenario, &[&QUICK[..], &[&format!("--sql-file={sql}")]].concat()).fails(104);
    let keep = ["--repo1-retention-full=1", "--keep-proven", "expire"];
    scenario.rbr(&keep).success().says(&format!("backup {} is kept with its set", labels[0]));
    assert_eq!(scenario.labels(), [labels[0].as_str(), &labels[2]]);
    scenario.rbr(&["--set", &labels[0], "--keep-proven", "expire"]).fails(104).says("the newest proven backup");
    // It can still be recovered
    proven(&scenario, &[&QUICK[..], &["--set", &labels[0], "--type=immediate"]].concat());
    scenario.rbr(&["--repo1-retention-full=1", "expire"]).success();
    assert_eq!(scenario.labels(), [labels[2].as_str()]);
    assert!(proofs(&scenario, &labels[0]).is_empty());
}

#[test]
fn proof_in_s3_is_encrypted_with_the_repository_and_removed_with_the_stanza() {
    let Some(weed) = Weed::start() else { return };
    let mut global = weed.options(weed.port());
    global.extend(["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"].map(str::to_owned));
    let Some(mut scenario) = with_chain(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    proven(&scenario, &QUICK);
    scenario.rbr(&["info"]).success().says(" passed without amcheck, checksums, recovered to ");
    let listed = scenario.rbr(&["repo-ls", "--recurse", "proof", "--log-level-console=off"]).success().stdout;
    let name = listed.lines().find(|name| name.ends_with(".json")).expect("proof");
    let stored = weed.curl("GET", &format!("/demo/proof/{name}"));
    assert!(stored.stdout.starts_with("Salted__"), "{}", stored.describe());
    scenario.cluster.stop(Shutdown::Fast);
    scenario.rbr(&["stop"]).success();
    scenario.rbr(&["stanza-delete"]).success();
    let stored = weed.curl("GET", &format!("/demo/proof/{name}"));
    assert!(stored.stdout.ends_with("\n404"), "{}", stored.describe());
}
