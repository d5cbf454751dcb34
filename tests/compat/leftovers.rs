//! Files that a killed rbr leaves under temporary names. pgBackRest ignores them.

use std::fs;
use std::path::Path;

use super::golden::Golden;
use crate::env::oracles;

/// The end of the temporary names of a process on another host.
const WRITER: &str = "0123456789ab-4d2-0badcafe.pgbackrest.tmp";

/// Leaves a temporary file beside every file that is written under such a name, and one of a timeline that has no file
/// yet. Returns their number.
fn leave(golden: &Golden, folder: &str) -> usize {
    let mut left = 0;
    for entry in fs::read_dir(golden.space.path(folder)).expect("folder") {
        let entry = entry.expect("entry");
        let name = format!("{folder}/{}", entry.file_name().to_str().expect("UTF-8"));
        let is_link = entry.file_type().expect("type").is_symlink();
        if entry.path().is_dir() && !is_link {
            left += if name.contains("pg_data") { 0 } else { leave(golden, &name) };
        } else if !is_link {
            golden.space.write(&format!("{name}.{WRITER}"), "half");
            left += 1;
        }
    }
    left
}

#[test]
fn files_that_a_killed_rbr_leaves_are_nothing_to_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    let [clean, left] = [(), ()].map(|()| Golden::unpack("online"));
    assert!(leave(&left, "repo") > 10);
    left.space.write(&format!("repo/archive/demo/15-1/00000009-history.{WRITER}"), "half");
    let used_by = |golden: &Golden, name: &str, program: &Path| {
        golden.space.folder(name);
        let place = format!("--pg1-path={}", golden.space.text(name));
        let commands: [&[&str]; 5] = [
            &["info"],
            &["info", "--output=json"],
            &["verify", "--output=text", "--verbose"],
            &[&place, "restore"],
            &["expire", "--repo1-retention-full=1"],
        ];
        commands.map(|command| {
            let run = golden.run_program(program, &[&["--log-level-console=warn"], command].concat()).success();
            run.stdout.replace(&golden.space.text(""), "")
        })
    };
    for (name, program) in [("theirs", oracles.pgbackrest.clone()), ("ours", clean.space.path("bin/rbr"))] {
        assert_eq!(used_by(&clean, name, &program), used_by(&left, name, &program), "{name}");
    }
}
