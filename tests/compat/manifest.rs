//! `manifest` compared with pgBackRest: the same repository yields the same bytes and exit status.

use std::fs;

use super::golden::Golden;
use crate::env::oracle::Oracles;
use crate::env::{Run, oracles};

const QUIET: &str = "--log-level-console=error";

/// Checks that both programs print the same and exit with the same status.
#[track_caller]
fn same(golden: &Golden, oracles: &Oracles, arguments: &[&str]) {
    let arguments = [&["manifest", QUIET], arguments].concat();
    let theirs = golden.run_program(&oracles.pgbackrest, &arguments);
    let ours = golden.run(&arguments);
    let answer = |run: &Run| if run.code == 0 { run.stdout.clone() } else { run.error() };
    assert!(!answer(&theirs).is_empty(), "nothing to compare: {}", theirs.describe());
    assert_eq!((theirs.code, answer(&theirs)), (ours.code, answer(&ours)), "{arguments:?}");
}

/// The labels of the repository's backups.
fn labels(golden: &Golden) -> Vec<String> {
    let entries = fs::read_dir(golden.space.path("repo/backup/demo")).expect("backups");
    let names = entries.filter_map(|entry| entry.expect("entry").file_name().into_string().ok());
    let mut labels: Vec<String> = names.filter(|name| name.starts_with("20")).collect();
    labels.sort();
    labels
}

/// The names of files with these words in the text of `manifest`.
fn files_with(text: &str, words: &str) -> Vec<String> {
    let files = text.split("\n  - ").skip(1).filter(|file| file.contains(words));
    files.filter_map(|file| file.lines().next()).map(str::to_owned).collect()
}

#[test]
fn manifest_of_every_kind_of_backup_equals_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    for name in ["plain-none", "hardlink-gz", "bundle-lz4", "online", "block-zst-limit", "plain-bz2-cipher"] {
        let golden = Golden::unpack(name);
        let labels = labels(&golden);
        assert!(labels.len() > 1, "{name}: {labels:?}");
        for label in labels.iter().map(|label| format!("--set={label}")).chain(["--set=latest".to_owned()]) {
            same(&golden, oracles, &[&label]);
            same(&golden, oracles, &[&label, "--output=json"]);
        }
        for reference in ["latest", &labels[0], labels.last().expect("backups"), "bogus"] {
            same(&golden, oracles, &[&format!("--reference={reference}")]);
            same(&golden, oracles, &[&format!("--reference={reference}"), "--output=json"]);
        }
    }
}

#[test]
fn manifest_of_one_file_shows_what_a_restore_reads_as_pgbackrest_does() {
    let Some(oracles) = oracles(&[]) else { return };
    for name in ["block-none", "block-lz4-cipher", "block-zst"] {
        let golden = Golden::unpack(name);
        let mut files_total = 0;
        for label in labels(&golden) {
            let set = format!("--set={label}");
            let text = golden.run(&["manifest", QUIET, &set]).success().stdout;
            let files = files_with(&text, "block: size");
            files_total += files.len();
            for file in files.iter().map(String::as_str).chain(["pg_data/PG_VERSION"]) {
                same(&golden, oracles, &[&set, &format!("--filter={file}")]);
                same(&golden, oracles, &[&set, &format!("--filter={file}"), "--output=json"]);
            }
        }
        assert!(files_total > 3, "{name} has no blocks");
    }
}

#[test]
fn manifest_compared_with_a_data_directory_equals_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    let golden = Golden::unpack("block-zst");
    let label = labels(&golden).pop().expect("backups");
    golden.restore("restored", &label).success();
    let text = golden.run(&["manifest", QUIET]).success().stdout;
    let name = files_with(&text, "block: size").swap_remove(0);
    let path = golden.space.path("restored").join(name.strip_prefix("pg_data/").expect("in the data directory"));
    let right = fs::read(&path).expect("restored file");
    let folder = golden.space.text("restored");
    let first = [format!("--pg1-path={folder}"), "--pg=1".to_owned(), format!("--filter={name}")];
    let second = [format!("--pg2-path={folder}"), "--pg=2".to_owned(), format!("--filter={name}")];
    let compare = |content: Option<&[u8]>| {
        match content {
            Some(content) => fs::write(&path, content).expect("write file"),
            None => fs::remove_file(&path).expect("remove file"),
        }
        for arguments in [&first, &second] {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            same(&golden, oracles, &arguments);
            same(&golden, oracles, &[&arguments[..], &["--output=json"]].concat());
        }
    };
    compare(Some(&right));
    let mut changed = right.clone();
    let last = changed.len() - 1;
    changed[0] ^= 1;
    compare(Some(&changed));
    changed[last] ^= 1;
    compare(Some(&changed));
    compare(Some(&right[..right.len() / 2 + 100]));
    compare(Some(&[&right[..], b"more"].concat()));
    compare(None);
}

#[test]
fn manifest_that_can_not_be_shown_is_the_error_of_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    let golden = Golden::unpack("block-zst");
    let label = labels(&golden).remove(0);
    same(&golden, oracles, &["--set=bogus"]);
    same(&golden, oracles, &["--set=a/b"]);
    same(&golden, oracles, &["--set="]);
    same(&golden, oracles, &["--output=xml"]);
    same(&golden, oracles, &["--pg=2"]);
    same(&golden, oracles, &["--repo=2"]);
    same(&golden, oracles, &["--dry-run"]);
    same(&golden, oracles, &["extra"]);
    let folder = golden.space.path("repo/backup/demo").join(&label);
    for name in ["backup.manifest", "backup.manifest.copy"] {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).expect("manifest");
        fs::write(&path, text.replace("\"size\":3", "\"size\":4")).expect("manifest");
    }
    same(&golden, oracles, &[&format!("--set={label}")]);
    fs::remove_file(folder.join("backup.manifest")).expect("manifest");
    same(&golden, oracles, &[&format!("--set={label}")]);
    fs::remove_file(golden.space.path("repo/backup/demo/backup.info")).expect("backup.info");
    same(&golden, oracles, &[]);
    fs::remove_file(golden.space.path("repo/backup/demo/backup.info.copy")).expect("backup.info.copy");
    same(&golden, oracles, &[]);
}

#[test]
fn manifest_without_a_link_to_the_latest_backup_is_that_of_the_newest() {
    let golden = Golden::unpack("plain-none");
    let label = labels(&golden).pop().expect("backups");
    fs::remove_file(golden.space.path("repo/backup/demo/latest")).expect("link");
    let newest = golden.run(&["manifest", QUIET]).success().stdout;
    assert!(newest.starts_with(&format!("label: {label}\n")), "{newest}");
}

#[test]
fn manifest_of_an_unknown_file_or_a_path_outside_of_the_repository_is_an_error() {
    let golden = Golden::unpack("plain-none");
    golden.run(&["manifest", QUIET, "--filter=nosuch"]).fails(25).says("unable to find 'nosuch' in manifest file list");
    golden.run(&["manifest", QUIET, "--set=../../x"]).fails(29).says("is not a path inside the repository");
}

#[test]
fn manifest_of_a_damaged_block_map_is_an_error() {
    let golden = Golden::unpack("block-none");
    let text = golden.run(&["manifest", QUIET]).success().stdout;
    let name = files_with(&text, "block: size").swap_remove(0);
    let file = format!("--filter={name}");
    golden.run(&["manifest", QUIET, &file]).success();
    let label = labels(&golden).pop().expect("backups");
    let bundle = golden.space.path(&format!("repo/backup/demo/{label}/bundle/1"));
    fs::write(&bundle, [0xff; 10]).expect("bundle");
    assert_ne!(golden.run(&["manifest", QUIET, &file]).code, 0);
    fs::remove_file(&bundle).expect("bundle");
    golden.run(&["manifest", QUIET, &file]).fails(55).says("unable to open missing file");
}
