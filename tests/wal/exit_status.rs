//! How PostgreSQL's `restore_command` interprets archive-get: 0 is a file, up to 125 no file, above that recovery must
//! stop.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::env::{Scenario, ScenarioOptions, Tool};

/// The highest exit status that PostgreSQL takes for "no such file".
const NOT_FATAL_MAX: i32 = 125;

/// Checks that both programs exit with the same status, and returns it.
#[track_caller]
fn same_status(scenario: &Scenario, arguments: &[&str]) -> i32 {
    let theirs = scenario.run(Tool::PgBackRest, arguments);
    let ours = scenario.run(Tool::Rbr, arguments);
    assert_eq!(ours.code, theirs.code, "rbr: {}\npgBackRest: {}", ours.describe(), theirs.describe());
    assert!(ours.code <= NOT_FATAL_MAX, "{}", ours.describe());
    ours.code
}

/// The only file of a stored segment.
fn stored(scenario: &Scenario, segment: &str) -> PathBuf {
    let folder = scenario.space.path(&format!("repo/archive/demo/15-1/{}", &segment[..16]));
    fs::read_dir(folder).expect("folder").next().expect("segment").expect("entry").path()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn exit_status_of_archive_get_is_that_of_pgbackrest_whatever_is_wrong() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        global: vec!["compress-type=gz".into()],
        settings: vec!["archive_command = 'false'".into()],
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    let space = &scenario.space;
    scenario.rbr(&["stanza-create"]).success();
    let segment = scenario.cluster.switch_wal();
    let source = scenario.cluster.data().join("pg_wal").join(&segment);
    scenario.rbr(&["archive-push", source.to_str().expect("UTF-8")]).success();
    let got = space.text("got");
    let get = ["archive-get", &segment, &got];

    assert_eq!(same_status(&scenario, &get), 0);
    assert_eq!(same_status(&scenario, &["archive-get", "0000000100000000000000FF", &got]), 1);
    assert_eq!(same_status(&scenario, &["archive-get", "0000000A.history", &got]), 1);
    // The command line and what it leads to
    assert_eq!(same_status(&scenario, &["archive-get"]), 43);
    assert_eq!(same_status(&scenario, &["archive-get", &segment]), 43);
    same_status(&scenario, &["archive-get", &segment, &got, "more"]);
    assert_eq!(same_status(&scenario, &["--bogus", "archive-get", &segment, &got]), 31);
    assert_eq!(same_status(&scenario, &["--process-max=0", "archive-get", &segment, &got]), 32);
    assert_eq!(same_status(&scenario, &["--stanza=nowhere", "archive-get", &segment, &got]), 31);
    let nowhere = format!("--pg1-path={}", space.text("nowhere"));
    same_status(&scenario, &[&nowhere, "archive-get", &segment, &got]);
    same_status(&scenario, &["archive-get", &segment, &space.text("nowhere/got")]);
    // The repository
    let info = space.path("repo/archive/demo");
    set_mode(&info, 0);
    assert_eq!(same_status(&scenario, &get), 103);
    set_mode(&info, 0o750);
    fs::rename(&info, space.path("repo/away")).expect("rename");
    assert_eq!(same_status(&scenario, &get), 103);
    fs::rename(space.path("repo/away"), &info).expect("rename");
    scenario.configure(&["repo1-cipher-type=aes-256-cbc".into(), "repo1-cipher-pass=other".into()]);
    assert_eq!(same_status(&scenario, &get), 103);
    scenario.configure(&scenario.options.global);
    // The stored segment
    let stored = stored(&scenario, &segment);
    let content = fs::read(&stored).expect("stored");
    set_mode(&stored, 0);
    assert_eq!(same_status(&scenario, &get), 42);
    set_mode(&stored, 0o640);
    fs::write(&stored, &content[..content.len() / 2]).expect("cut");
    assert_eq!(same_status(&scenario, &get), 42);
    fs::write(&stored, &content).expect("whole");
    let other = stored.with_file_name(format!("{segment}-{}.gz", "0".repeat(40)));
    fs::copy(&stored, other).expect("second");
    assert_eq!(same_status(&scenario, &get), 45);
}
