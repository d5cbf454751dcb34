//! `verify` of damaged repositories: the report is pgBackRest's.

use std::fs;
use std::path::PathBuf;

use super::golden::Golden;
use crate::env::oracles;

const BACKUPS: &str = "repo/backup/demo";
const ARCHIVE: &str = "repo/archive/demo/15-1/0000000100000000";

/// How often pgBackRest is asked. Now and then it misses a file that is not stored because it is empty, in a backup that only
/// refers to it, and answers differently the next time.
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
fn bundle_missing() {
    same_report("block-zst", |golden| {
        fs::remove_file(golden.space.path(&format!("{BACKUPS}/{}/bundle/1", full(golden)))).expect("file");
    });
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
