//! `verify` of damaged repositories: the report is pgBackRest's, except for damage that pgBackRest does not detect.

use std::fs;
use std::path::PathBuf;

use super::golden::Golden;
use crate::env::oracles;

const BACKUPS: &str = "repo/backup/demo";
const ARCHIVE: &str = "repo/archive/demo/15-1/0000000100000000";

/// How often pgBackRest is asked. It sometimes misses an empty file that is not stored, in a backup that only refers to
/// it, and answers differently the next time.
const TRIES: usize = 6;

/// Damages a golden repository and compares the reports of both programs, short and verbose.
#[track_caller]
fn same_report(name: &str, damage: impl Fn(&Golden)) {
    let Some(oracles) = oracles(&[]) else { return };
    let golden = Golden::unpack(name);
    damage(&golden);
    for arguments in [&["verify", "--output=text"][..], &["verify", "--output=text", "--verbose"]] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--log-level-console=off", "--job-retry=0"]);
        let ours = golden.run(&arguments);
        assert_ne!(ours.stdout, golden.expected("verify.txt"), "no damage is seen");
        let mut theirs = Vec::new();
        while !theirs.contains(&(ours.code, ours.stdout.clone())) {
            assert!(theirs.len() < TRIES, "{}\npgBackRest: {theirs:#?}", ours.describe());
            let answer = golden.run_program(&oracles.pgbackrest, &arguments);
            theirs.push((answer.code, answer.stdout));
        }
    }
}

fn full(golden: &Golden) -> String {
    golden.labels().remove(0)
}

/// The stored file of the n-th segment.
fn segment(golden: &Golden, number: usize) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(golden.space.path(ARCHIVE))
        .expect("archive")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "zst"))
        .collect();
    files.sort();
    files.swap_remove(number)
}

fn flip(path: PathBuf) {
    let mut content = fs::read(&path).expect("file");
    let middle = content.len() / 2;
    content[middle] ^= 0x55;
    fs::write(path, content).expect("write");
}

#[test]
fn data_file_with_another_byte() {
    same_report("plain-none", |golden| {
        flip(golden.space.path(&format!("{BACKUPS}/{}/pg_data/base/5/16384", full(golden))));
    });
}

#[test]
fn data_file_cut_short() {
    same_report("plain-none", |golden| {
        let path = golden.space.path(&format!("{BACKUPS}/{}/pg_data/base/5/16385", full(golden)));
        let content = fs::read(&path).expect("file");
        fs::write(path, &content[..content.len() / 2]).expect("write");
    });
}

#[test]
fn data_file_missing() {
    same_report("plain-gz", |golden| {
        fs::remove_file(golden.space.path(&format!("{BACKUPS}/{}/pg_data/base/5/16384.gz", full(golden))))
            .expect("file");
    });
}

#[test]
fn bundle_missing_is_a_fault_of_every_backup_that_needs_it() {
    // pgBackRest calls all but the full backup valid
    for name in ["block-zst", "block-lz4-cipher", "bundle-lz4"] {
        let golden = Golden::unpack(name);
        fs::remove_file(golden.space.path(&format!("{BACKUPS}/{}/bundle/1", full(&golden)))).expect("file");
        let mut run = golden.run(&["verify", "--output=text", "--job-retry=0"]).success();
        for label in golden.labels() {
            run = run.says(&format!("backup: {label}, status: invalid"));
        }
        golden.run(&["verify", "--job-retry=0", "--verify-exit-code"]).fails(104);
    }
}

#[test]
fn block_damaged_is_a_fault_of_the_backup_that_refers_to_it() {
    let golden = Golden::unpack("block-none");
    let bundle = golden.space.path(&format!("{BACKUPS}/{}/bundle/1", full(&golden)));
    let mut content = fs::read(&bundle).expect("bundle");
    content.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(bundle, content).expect("write");
    let run = golden.run(&["verify", "--output=text", "--job-retry=0"]).success();
    let last = golden.labels().pop().expect("label");
    run.says(&format!("backup: {last}, status: invalid"));
}

#[test]
fn file_that_is_whole_only_once_is_told_and_repaired() {
    for (name, damaged) in [("plain-gz", "backup.info"), ("bundle-gz-cipher", "backup.manifest")] {
        for suffix in ["", ".copy"] {
            let golden = Golden::unpack(name);
            let folder = if damaged == "backup.info" { String::new() } else { format!("/{}", full(&golden)) };
            let path = |suffix: &str| golden.space.path(&format!("{BACKUPS}{folder}/{damaged}{suffix}"));
            let before = fs::read(path("")).expect("file");
            flip(path(suffix));
            golden.run(&["verify"]).success().says("WARN").says("HINT: verify with --repair makes it whole again.");
            golden.run(&["verify", "--verify-exit-code"]).fails(104);
            golden.run(&["verify", "--repair", "--verify-exit-code"]).success().says("repaired");
            assert!([path(""), path(".copy")].iter().all(|path| fs::read(path).expect("file") == before));
            golden.run(&["verify", "--verify-exit-code"]).success().never_says("WARN");
        }
    }
}

#[test]
fn file_that_is_damaged_twice_is_not_repaired() {
    let golden = Golden::unpack("plain-gz");
    for suffix in ["", ".copy"] {
        flip(golden.space.path(&format!("{BACKUPS}/backup.info{suffix}")));
    }
    let damaged = fs::read(golden.space.path(&format!("{BACKUPS}/backup.info"))).expect("file");
    golden.run(&["verify", "--repair"]).success().says("No usable backup.info file").never_says("repaired");
    assert_eq!(fs::read(golden.space.path(&format!("{BACKUPS}/backup.info"))).expect("file"), damaged);
}

#[test]
fn missing_manifest_is_not_made_from_its_copy() {
    let golden = Golden::unpack("plain-gz");
    let path = golden.space.path(&format!("{BACKUPS}/{}/backup.manifest", full(&golden)));
    fs::remove_file(&path).expect("manifest");
    golden.run(&["verify", "--repair", "--verify-exit-code"]).fails(104).says("is missing").never_says("repaired");
    assert!(!path.exists(), "without it the backup is not complete");
}

#[test]
fn first_segment_unreadable_does_not_end_the_verify() {
    let golden = Golden::unpack("online");
    fs::write(segment(&golden, 0), "damaged").expect("write");
    let run = golden.run(&["verify", "--output=text", "--verbose", "--job-retry=0"]).success();
    run.says("status: error").says("backup: ").says("other: 1");
}

#[test]
fn segment_with_a_name_of_another_compression_does_not_end_the_verify() {
    let golden = Golden::unpack("online");
    let path = segment(&golden, 1);
    fs::rename(&path, path.with_extension("xz")).expect("rename");
    let run = golden.run(&["verify", "--output=text", "--verbose", "--job-retry=0"]).success();
    run.says("status: error").says("backup: ").says("other: 1");
}

#[test]
fn wal_of_another_cluster_is_not_checked_with_a_set() {
    let golden = Golden::unpack("online");
    let other = golden.space.folder("repo/archive/demo/14-2/0000000100000000");
    let path = segment(&golden, 1);
    fs::write(other.join(path.file_name().expect("name")), "of another cluster").expect("write");
    let backups = fs::read_dir(golden.space.path(BACKUPS)).expect("backups");
    let mut names = backups.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
    let set = format!("--set={}", names.find(|name| name.ends_with('F')).expect("full backup"));
    let run = golden.run(&["verify", "--output=text", "--verbose", "--job-retry=0", &set]);
    run.success().says("archiveId: 14-2, total WAL checked: 0");
}

#[test]
fn manifest_and_copy_missing() {
    same_report("bundle-lz4", |golden| {
        for name in ["backup.manifest", "backup.manifest.copy"] {
            fs::remove_file(golden.space.path(&format!("{BACKUPS}/{}/{name}", full(golden)))).expect("file");
        }
    });
}

#[test]
fn segment_with_another_byte() {
    same_report("online", |golden| flip(segment(golden, 1)));
}

#[test]
fn segment_twice() {
    same_report("online", |golden| {
        let path = segment(golden, 2);
        let name = path.file_name().and_then(|name| name.to_str()).expect("name").to_owned();
        let other = format!("{}-{}.zst", &name[..24], "0".repeat(40));
        fs::copy(&path, path.with_file_name(other)).expect("copy");
    });
}
