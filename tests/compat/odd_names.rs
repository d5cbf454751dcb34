//! Names in a repository that are not the repository's own and not even text. They disturb nothing, and nothing changes
//! them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::golden::Golden;
use crate::env::oracles;

/// Not UTF-8.
const ODD: &[u8] = b"odd\xff";

fn everything_below(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() && !path.is_symlink() {
            everything_below(&path, found);
        }
        found.insert(path);
    }
}

/// Returns what `program` reports about a repository with such names in every kind of folder, and what it leaves of it.
fn used_by(program: impl Fn(&Golden) -> PathBuf) -> (Vec<String>, BTreeSet<PathBuf>) {
    let golden = Golden::unpack("online");
    let repo = golden.space.path("repo");
    let info = golden.expected("info.txt");
    let label = info.lines().rev().find_map(|line| Some(line.split_once(" backup: ")?.1.trim())).expect("a backup");
    let folders = ["", "backup/demo", "backup/demo/backup.history", "archive/demo", "archive/demo/15-1"];
    for folder in folders.map(|folder| repo.join(folder)) {
        for odd in [folder.join(OsStr::from_bytes(ODD)), folder.join(OsStr::from_bytes(b"odd\xffd")).join("file")] {
            fs::create_dir_all(odd.parent().expect("folder")).expect("folder");
            golden.space.user().own(odd.parent().expect("folder"));
            fs::write(&odd, "x").expect("file");
        }
    }
    let program = program(&golden);
    let (quiet, set) = ("--log-level-console=off", format!("--set={label}"));
    let mut said = Vec::new();
    for arguments in [&["info", "--output=json", quiet][..], &["expire", &set, quiet], &["info", quiet]] {
        said.push(golden.run_program(&program, arguments).success().stdout);
    }
    let mut left = BTreeSet::new();
    everything_below(&repo, &mut left);
    assert!(!left.contains(&repo.join("backup/demo").join(label)), "{label} is still there");
    assert_eq!(left.iter().filter(|path| path.file_name() == Some(OsStr::from_bytes(ODD))).count(), folders.len());
    (said, left.iter().map(|path| path.strip_prefix(&repo).expect("below").to_owned()).collect())
}

#[test]
fn names_that_are_no_text_change_nothing() {
    let Some(oracles) = oracles(&[]) else { return };
    let theirs = used_by(|_| oracles.pgbackrest.clone());
    let ours = used_by(|golden| golden.space.path("bin/rbr"));
    assert_eq!(theirs, ours);
}

#[test]
fn directory_of_names_that_are_no_text_is_not_empty() {
    let golden = Golden::unpack("online");
    let odd = golden.space.folder("repo/extra").join(OsStr::from_bytes(ODD));
    fs::write(&odd, "x").expect("file");
    golden.run(&["repo-rm", "extra"]).fails(31).says("recurse option must be used to delete non-empty path");
    assert!(odd.exists());
    golden.run(&["repo-ls", "extra"]).success().says("odd");
    golden.run(&["repo-rm", "--recurse", "extra"]).success();
    assert!(!golden.space.path("repo/extra").exists());
}
