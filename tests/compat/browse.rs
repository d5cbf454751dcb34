//! What monitoring requests (check_pgbackrest does): listings and files of a repository, compared with pgBackRest.

use super::golden::Golden;
use crate::env::oracles;

/// Checks that both programs print the same and exit with the same status.
#[track_caller]
fn same(golden: &Golden, arguments: &[&str]) {
    let Some(oracles) = oracles(&[]) else { return };
    let theirs = golden.run_program(&oracles.pgbackrest, arguments);
    let ours = golden.run(arguments);
    assert!(!theirs.stdout.is_empty() || theirs.code != 0, "nothing to compare: {}", theirs.describe());
    assert_eq!((theirs.code, &theirs.stdout), (ours.code, &ours.stdout), "{}\n{}", theirs.describe(), ours.describe());
}

#[test]
fn repo_ls_equals_pgbackrest() {
    let golden = Golden::unpack("online");
    let quiet = "--log-level-console=error";
    same(&golden, &["repo-ls", "--output=json", "--recurse", quiet, "archive/demo/15-1"]);
    same(&golden, &["repo-ls", "--output=json", "--recurse", "--filter=\\.backup$", quiet]);
    same(&golden, &["repo-ls", "--recurse", "--sort=desc", quiet, "backup/demo"]);
    same(&golden, &["repo-ls", quiet]);
    same(&golden, &["repo-ls", "--output=json", quiet, "nosuch"]);
}

#[test]
fn repo_get_equals_pgbackrest() {
    let golden = Golden::unpack("bundle-gz-cipher");
    let quiet = "--log-level-console=error";
    let label = golden.labels().remove(0);
    for file in
        ["backup/demo/backup.info", "archive/demo/archive.info.copy", &format!("backup/demo/{label}/backup.manifest")]
    {
        same(&golden, &["repo-get", quiet, file]);
    }
    same(&golden, &["repo-get", "--raw", "--ignore-missing", quiet, "backup/demo/nosuch"]);
    golden.run(&["repo-get", quiet, "archive/demo/nosuch"]).fails(55);
    // The program looks for the manifest to find out how the file would be encrypted, and the manifest is missing too
    for missing in ["backup/demo/nosuch", "backup/demo/nosuch/file", "backup/demo/20200101-000000F/file"] {
        same(&golden, &["repo-get", "--log-level-console=off", missing]);
        same(&golden, &["repo-get", "--ignore-missing", "--log-level-console=off", missing]);
        golden.run(&["repo-get", missing]).fails(55).says("unable to load backup manifest file");
    }
}

#[test]
fn info_of_a_set_equals_pgbackrest() {
    let golden = Golden::unpack("online");
    let text = golden.expected("info.txt");
    let labels = text.lines().filter_map(|line| line.split_once(" backup: ").map(|(_, label)| label.trim().to_owned()));
    for label in labels {
        for output in ["--output=json", "--output=text"] {
            same(&golden, &["info", output, "--log-level-console=error", &format!("--set={label}")]);
        }
    }
    same(&golden, &["info", "--set=20200101-000000F", "--output=json"]);
    same(&golden, &["info", "--type=diff"]);
}
