//! `verify` of a repository on another host: files are checked there, and the report is that of a repository on this host.

use std::fs;
use std::path::{Path, PathBuf};

use super::golden::Golden;
use crate::env::{Run, oracles};
use crate::repository_host::SSH;

const VERIFY: [&str; 5] = ["verify", "--output=text", "--verbose", "--job-retry=0", "--process-max=2"];
const QUIET: &str = "--log-level-console=off";

/// Runs verify as if the repository were on another host, where this program serves it.
fn verify_far(golden: &Golden, far: &Path, log: &str) -> Run {
    golden.space.write_program("ssh", SSH);
    let host = [
        "--repo1-host=repository.example".to_owned(),
        format!("--repo1-host-cmd={}", far.display()),
        format!("--repo1-host-config={}", golden.space.text("pgbackrest.conf")),
        format!("--cmd-ssh={}", golden.space.text("ssh")),
    ];
    let host: Vec<&str> = host.iter().map(String::as_str).collect();
    golden.run(&[&VERIFY[..], &host, &[log]].concat()).success()
}

fn verify_here(golden: &Golden) -> String {
    golden.run(&[&VERIFY[..], &[QUIET]].concat()).success().stdout
}

/// The stored files of backups and archives that are not info files, manifests or history files, sorted.
fn stored(golden: &Golden) -> Vec<PathBuf> {
    fn add(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("name").to_owned();
            match () {
                () if path.is_symlink() || name == "backup.history" => {}
                () if path.is_dir() => add(&path, files),
                () if name.starts_with("backup.") || name.starts_with("archive.") => {}
                () => files.push(path),
            }
        }
    }
    let mut files = Vec::new();
    add(&golden.space.path("repo"), &mut files);
    files.retain(|path| fs::metadata(path).expect("file").len() > 100);
    files.sort();
    files
}

/// The damages, each to a file of its own.
const DAMAGES: [fn(&Path); 5] = [
    |path| change(path, |content| content.truncate(content.len() - 1)),
    |path| change(path, |content| content.truncate(content.len() / 2)),
    |path| change(path, |content| content.extend_from_slice(b"rubbish")),
    |path| {
        change(path, |content| {
            let middle = content.len() / 2;
            content[middle] ^= 0x55;
        });
    },
    |path| fs::remove_file(path).expect("remove"),
];

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).expect("file");
    change(&mut content);
    fs::write(path, content).expect("write");
}

#[test]
fn damaged_files_of_a_repository_on_another_host_are_found_as_those_of_one_here() {
    let Some(oracles) = oracles(&[]) else { return };
    for name in ["plain-none", "plain-gz", "plain-bz2-cipher", "bundle-lz4", "block-lz4-cipher", "block-zst", "online"]
    {
        let golden = Golden::unpack(name);
        let programs = [golden.space.path("bin/rbr"), oracles.pgbackrest.clone()];
        for far in &programs {
            assert_eq!(verify_far(&golden, far, QUIET).stdout, verify_here(&golden), "{name} with {}", far.display());
            // No file came here
            verify_far(&golden, far, "--log-level-console=debug").never_says("is read here");
        }
        let files = stored(&golden);
        let step = (files.len() / DAMAGES.len()).max(1);
        for (damage, path) in DAMAGES.iter().zip(files.iter().step_by(step)) {
            damage(path);
        }
        let here = verify_here(&golden);
        assert!(here.contains("status: error"), "{name}: {here}");
        for far in &programs {
            assert_eq!(verify_far(&golden, far, QUIET).stdout, here, "{name} with {}", far.display());
        }
    }
}
