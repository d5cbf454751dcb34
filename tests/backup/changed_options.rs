//! Chains whose backups are stored with other options than the backups before them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use repo_format::manifest::Manifest;

use super::chain::Chain;
use crate::env::{Scenario, ScenarioOptions, Tool};

fn chain(version: u32, global: &[&str]) -> Option<Chain> {
    let scenario = Scenario::start(ScenarioOptions {
        version,
        global: global.iter().map(|&line| line.to_owned()).collect(),
        tablespace: true,
        ..ScenarioOptions::default()
    })?;
    scenario.rbr(&["stanza-create"]).success();
    Some(Chain::new(scenario))
}

const PLAIN: &[&str] = &["--compress-type=gz"];
const BUNDLE: &[&str] = &["--compress-type=gz", "--repo1-bundle"];
const BLOCK: &[&str] = &["--compress-type=gz", "--repo1-bundle", "--repo1-block"];

/// Each of the two programs continues a chain that the other stored in another form.
fn forms_change(first: Tool, second: Tool) {
    let Some(mut chain) = chain(17, &["repo1-bundle-limit=64KiB"]) else { return };
    chain.add(first, "full", PLAIN);
    chain.add(second, "diff", BLOCK);
    chain.add(first, "incr", BUNDLE);
    chain.add(second, "incr", PLAIN);
    chain.add(first, "incr", BLOCK);
    // The compress type stays that of the first link
    let run = chain.add(second, "incr", &["--compress-type=zst", "--repo1-bundle", "--repo1-block"]);
    let reset = "incr backup cannot alter compress-type option to 'zst', reset to value in ";
    run.says(&format!("{reset}{}", chain.scenario.labels()[4]));
    // A bundled backup does not store an empty file. A plain backup refers to it there, whichever program made it, and
    // pgBackRest's verify sometimes misses it: its result for the same repository varies between runs
    chain.check_verified_by(&[Tool::Rbr]);
}

#[test]
fn rbr_goes_on_with_other_forms_of_pgbackrest() {
    forms_change(Tool::PgBackRest, Tool::Rbr);
}

#[test]
fn pgbackrest_goes_on_with_other_forms_of_rbr() {
    forms_change(Tool::Rbr, Tool::PgBackRest);
}

/// Adds the names of all files below a folder, relative to `top`.
fn stored_files(top: &Path, folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("folder of a backup") {
        let path = entry.expect("entry").path();
        let info = path.symlink_metadata().expect("metadata");
        if info.is_dir() {
            stored_files(top, &path, names);
        } else if info.is_file() {
            names.insert(path.strip_prefix(top).expect("below").to_str().expect("UTF-8").to_owned());
        }
    }
}

/// With hard links, every backup of a chain contains all of its files, and the files of earlier backups are not copies.
#[test]
fn hard_linked_chain_has_every_file_in_every_link() {
    let Some(mut chain) = chain(15, &["compress-type=lz4", "repo1-hardlink=y"]) else { return };
    let turns = [(Tool::PgBackRest, "full"), (Tool::Rbr, "diff"), (Tool::PgBackRest, "incr"), (Tool::Rbr, "incr")];
    for (tool, kind) in turns {
        chain.add(tool, kind, &[]);
    }
    for (link, label) in chain.scenario.labels().into_iter().enumerate() {
        let folder = chain.scenario.space.path(&format!("repo/backup/demo/{label}"));
        let text = std::fs::read(folder.join("backup.manifest")).expect("manifest");
        let manifest = Manifest::parse(&text).expect("manifest");
        let expected: BTreeSet<_> = manifest.files.iter().map(|file| format!("{}.lz4", file.name)).collect();
        let mut found = BTreeSet::new();
        stored_files(&folder, &folder, &mut found);
        found.retain(|name| !name.starts_with("backup.manifest"));
        assert_eq!(found, expected, "{label}");
        let mut linked = 0;
        for file in manifest.files.iter().filter(|file| file.reference.is_some()) {
            let inode = |label: &str| {
                let path = format!("repo/backup/demo/{label}/{}.lz4", file.name);
                chain.scenario.space.path(&path).metadata().expect("file").ino()
            };
            assert_eq!(inode(&label), inode(manifest.holder(file).as_ref()), "{label} {}", file.name);
            linked += 1;
        }
        assert!(link == 0 || linked > 500, "only {linked} files of {label} are linked");
    }
    chain.check();
}
