//! Damaged repositories, named by the damage. Each yields pgBackRest's error number, and nothing that looks restored.

use std::fs;

use super::golden::Golden;
use crate::hostile::sealed;

/// Returns the label of the last full backup and the folder of a golden repository's backups.
const BACKUPS: &str = "repo/backup/demo";

fn full(golden: &Golden) -> String {
    golden.labels().remove(0)
}

fn file(golden: &Golden, name: &str) -> std::path::PathBuf {
    golden.space.path(BACKUPS).join(name)
}

/// Changes one byte in the middle of a file.
fn flip(golden: &Golden, name: &str) {
    let path = file(golden, name);
    let mut content = fs::read(&path).expect("file to damage");
    let middle = content.len() / 2;
    content[middle] ^= 0x55;
    fs::write(path, content).expect("write");
}

fn truncate(golden: &Golden, name: &str) {
    let path = file(golden, name);
    let content = fs::read(&path).expect("file to damage");
    fs::write(path, &content[..content.len() / 2]).expect("write");
}

fn remove(golden: &Golden, name: &str) {
    fs::remove_file(file(golden, name)).expect("file to remove");
}

/// Restores the full backup. The restore must fail with one of `codes` and leave no `pg_control`.
fn restore_fails(golden: &Golden, codes: &[i32]) {
    let run = golden.restore("restored", &full(golden));
    assert!(codes.contains(&run.code), "expected one of {codes:?}\n{}", run.describe());
    run.says("ERROR").never_says("panicked");
    assert!(!golden.space.path("restored/global/pg_control").exists(), "pg_control was put in place");
}

fn damaged_data_file(name: &str, stored: &str, codes: &[i32]) {
    for damage in [flip as fn(&Golden, &str), truncate] {
        let golden = Golden::unpack(name);
        damage(&golden, &format!("{}/{stored}", full(&golden)));
        restore_fails(&golden, codes);
    }
}

#[test]
fn data_file_damaged_uncompressed() {
    damaged_data_file("plain-none", "pg_data/base/5/16384", &[26]);
}

#[test]
fn data_file_damaged_gz() {
    damaged_data_file("plain-gz", "pg_data/base/5/16384.gz", &[26, 29]);
}

#[test]
fn data_file_damaged_bz2_cipher() {
    damaged_data_file("plain-bz2-cipher", "pg_data/base/5/16384.bz2", &[26, 29, 95]);
}

#[test]
fn bundle_damaged_lz4() {
    damaged_data_file("bundle-lz4", "bundle/1", &[26, 29, 42]);
}

#[test]
fn bundle_damaged_zst_blocks() {
    damaged_data_file("block-zst", "bundle/1", &[26, 29, 42]);
}

#[test]
fn bundle_damaged_lz4_cipher_blocks() {
    damaged_data_file("block-lz4-cipher", "bundle/1", &[26, 29, 42, 95]);
}

#[test]
fn data_file_missing() {
    let golden = Golden::unpack("plain-gz");
    remove(&golden, &format!("{}/pg_data/base/5/16384.gz", full(&golden)));
    restore_fails(&golden, &[55]);
}

#[test]
fn bundle_missing() {
    let golden = Golden::unpack("bundle-lz4");
    remove(&golden, &format!("{}/bundle/1", full(&golden)));
    restore_fails(&golden, &[55]);
}

#[test]
fn block_chain_of_which_the_full_backup_lost_its_bundle() {
    let golden = Golden::unpack("block-zst");
    remove(&golden, &format!("{}/bundle/1", full(&golden)));
    let last = golden.labels().pop().expect("incr");
    golden.restore("restored", &last).fails(55);
    assert!(!golden.space.path("restored/global/pg_control").exists());
}

#[test]
fn manifest_damaged_is_read_from_its_copy() {
    for damage in [flip as fn(&Golden, &str), truncate, remove] {
        let golden = Golden::unpack("plain-gz");
        let label = full(&golden);
        damage(&golden, &format!("{label}/backup.manifest"));
        golden.restore("restored", &label).success();
    }
}

#[test]
fn manifest_and_copy_damaged() {
    let golden = Golden::unpack("plain-gz");
    for name in ["backup.manifest", "backup.manifest.copy"] {
        flip(&golden, &format!("{}/{name}", full(&golden)));
    }
    restore_fails(&golden, &[26, 29]);
}

#[test]
fn manifest_and_copy_missing() {
    let golden = Golden::unpack("bundle-gz-cipher");
    for name in ["backup.manifest", "backup.manifest.copy"] {
        remove(&golden, &format!("{}/{name}", full(&golden)));
    }
    restore_fails(&golden, &[55]);
}

#[test]
fn backup_info_damaged_is_read_from_its_copy() {
    for damage in [flip as fn(&Golden, &str), truncate, remove] {
        let golden = Golden::unpack("block-lz4-cipher");
        damage(&golden, "backup.info");
        golden.restore("restored", &full(&golden)).success();
    }
}

#[test]
fn backup_info_and_copy_missing_or_damaged() {
    // A repository with unreadable information is skipped, so no backup is left to restore
    for damage in [flip as fn(&Golden, &str), truncate, remove] {
        let golden = Golden::unpack("plain-none");
        damage(&golden, "backup.info");
        damage(&golden, "backup.info.copy");
        restore_fails(&golden, &[75]);
    }
}

#[test]
fn passphrase_wrong() {
    let golden = Golden::unpack("bundle-gz-cipher");
    let config = fs::read_to_string(golden.space.path("pgbackrest.conf")).expect("configuration");
    golden.space.write("pgbackrest.conf", config.replace("cipher-pass=golden", "cipher-pass=wrong"));
    restore_fails(&golden, &[75]);
}

#[test]
fn manifest_that_leads_out_of_the_data_directory() {
    // A hostile manifest with a valid checksum: no path in it may lead to a file outside of the target
    let golden = Golden::unpack("plain-none");
    let label = full(&golden);
    for evil in ["pg_data/../../escaped", "pg_data/base/../../../escaped", "/escaped", "pg_data/./../escaped"] {
        for name in ["backup.manifest", "backup.manifest.copy"] {
            let path = file(&golden, &format!("{label}/{name}"));
            let text = fs::read_to_string(&path).expect("manifest");
            let start = text.find("pg_data/base/5/16386").expect("a file");
            let end = start + text[start..].find('=').expect("its value");
            let text = format!("{}{evil}{}", &text[..start], &text[end..]);
            golden.space.write("manifest", sealed(&text));
            fs::copy(golden.space.path("manifest"), &path).expect("replace manifest");
        }
        let run = golden.restore("restored", &label);
        assert_ne!(run.code, 0, "{evil}\n{}", run.describe());
        run.never_says("panicked");
        assert!(!golden.space.path("escaped").exists(), "{evil} was written");
        fs::remove_dir_all(golden.space.path("restored")).expect("clean");
        let fresh = Golden::unpack("plain-none");
        for name in ["backup.manifest", "backup.manifest.copy"] {
            let name = format!("{label}/{name}");
            fs::copy(file(&fresh, &name), file(&golden, &name)).expect("restore manifest");
        }
    }
}

#[test]
fn sealing_an_unchanged_manifest_gives_its_own_checksum() {
    let golden = Golden::unpack("plain-none");
    let text = fs::read_to_string(file(&golden, &format!("{}/backup.manifest", full(&golden)))).expect("manifest");
    assert_eq!(sealed(&text), text);
}

#[test]
fn control_characters_reach_neither_terminal_nor_json_parser() {
    let golden = Golden::unpack("plain-gz");
    let set = format!("--set={}", full(&golden));
    golden.run(&["annotate", &set, "--annotation=note=a\x1b[2J\x02b\nc"]).success();
    fs::write(file(&golden, "x\x1by"), "").expect("file");
    for arguments in [&["info", &set][..], &["repo-ls", "backup/demo"], &["verify", "--verbose", "--output=text"]] {
        let mut arguments = arguments.to_vec();
        arguments.push("--log-level-console=off");
        let run = golden.run(&arguments).success();
        assert!(!run.stdout.contains(|c: char| c.is_control() && c != '\n'), "{:?}", run.stdout);
    }
    for arguments in [&["info", &set][..], &["repo-ls", "backup/demo"]] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--log-level-console=off", "--output=json"]);
        let json = golden.run(&arguments).success().json().to_string();
        assert!(json.contains("\\u001b"), "{json}");
    }
    // Messages about damaged files contain their content
    for name in ["backup.info", "backup.info.copy"] {
        fs::write(file(&golden, name), "[x]\n\x1b\x07=\x02\n").expect("write");
    }
    let run = golden.run(&["info", "--log-level-console=off", "--output=json"]).success();
    assert_eq!(run.json()[0]["status"]["code"], 99);
}

#[test]
fn info_of_the_latest_backup_shows_that_of_each_repository() {
    let golden = Golden::unpack("plain-gz");
    let last = golden.labels().pop().expect("label");
    golden.space.run("cp", &["-a", "repo", "second"]).success();
    let second = format!("--repo2-path={}", golden.space.text("second"));
    for arguments in [&["info", "--set=latest"][..], &["info", "--set=latest", &second]] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--log-level-console=off", "--output=json"]);
        let json = golden.run(&arguments).success().json();
        let backups = json[0]["backup"].as_array().expect("backups");
        assert_eq!(backups.len(), if arguments.contains(&second.as_str()) { 2 } else { 1 });
        assert!(backups.iter().all(|backup| backup["label"] == last.as_str()), "{json}");
        assert_eq!(json[0]["status"]["code"], 0);
    }
    golden.run(&["info", "--set=latest", "--type=full"]).success().says(&full(&golden));
}
