//! `version`, under both names of the program.

use std::os::unix::fs::symlink;

use crate::env::Space;

#[test]
fn version_under_the_name_pgbackrest_prints_what_clients_parse() {
    let space = Space::new();
    symlink("rbr", space.path("bin/pgbackrest")).expect("link");
    let run = space.run(space.path("bin/pgbackrest"), &["version"]).success();
    assert_eq!(run.stdout, "pgBackRest 2.60.0\n");
}

#[test]
fn version_of_rbr_names_itself_and_the_compatible_version() {
    let space = Space::new();
    let run = space.run(space.path("bin/rbr"), &["version"]).success();
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.describe());
    run.says(&format!("rbr {}", env!("CARGO_PKG_VERSION"))).says("pgBackRest 2.60.0");
}
