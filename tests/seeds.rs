//! The fuzz targets' bodies over their seeds, as plain tests: a fuzzer is not needed to see that they hold.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// Every target; a new one gets its line here.
const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("archive_info", fuzz::archive_info),
    ("backup_info", fuzz::backup_info),
    ("ini_info", fuzz::ini_info),
    ("label", fuzz::label),
    ("lock_file", fuzz::lock_file),
    ("manifest", fuzz::manifest),
    ("spool", fuzz::spool),
    ("wal_name", fuzz::wal_name),
];

fn names_in(dir: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn fuzz_targets_are_all_listed() {
    let listed: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in("fuzz/corpus"), listed);
    assert_eq!(names_in("fuzz/fuzz_targets"), listed.iter().map(|name| format!("{name}.rs")).collect::<Vec<_>>());
}

#[test]
fn fuzz_targets_hold_on_seeds_and_their_cuts() {
    for (name, target) in TARGETS {
        let dir = format!("fuzz/corpus/{name}");
        let seeds = names_in(&dir);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            let data = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(&dir).join(seed)).unwrap();
            target(&data);
            // Cut short, and with one bit turned, at places spread over the whole.
            for position in (0..data.len()).step_by(data.len() / 100 + 1) {
                target(&data[..position]);
                let mut turned = data.clone();
                turned[position] ^= 1 << (position % 8);
                target(&turned);
            }
        }
    }
}
