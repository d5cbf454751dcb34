//! The monitoring plugin check_pgbackrest, which calls rbr by the name `pgbackrest`.

use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;
use repo_format::wal_name::WalSegment;

use crate::env::{Run, Scenario, ScenarioOptions, Tool, oracle};

const PLUGIN: &str = "/usr/bin/check_pgbackrest";

/// Returns what the plugin reports with one of the programs, without ages.
fn check(scenario: &Scenario, program: &Path, arguments: &[&str]) -> (i32, String) {
    let prefix = format!("--prefix=env PGBACKREST_CONFIG={}", scenario.space.text("pgbackrest.conf"));
    let command = format!("--command={}", program.display());
    let mut all = vec![prefix.as_str(), &command, "--stanza=demo"];
    all.extend(arguments);
    let run: Run = scenario.space.run(PLUGIN, &all);
    assert!(run.stdout.contains("WAL_ARCHIVES") || run.stdout.contains("BACKUPS_RETENTION"), "{}", run.describe());
    let age = Regex::new(r"\b\d+(s|ms)\b").expect("pattern");
    (run.code, age.replace_all(&run.stdout, "AGE").into_owned())
}

#[test]
fn check_pgbackrest_finds_the_same_with_rbr() {
    if !Path::new(PLUGIN).exists() {
        return oracle::skip("no check_pgbackrest");
    }
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    let rbr = scenario.space.path("bin/pgbackrest");
    std::os::unix::fs::symlink(scenario.program(Tool::Rbr), &rbr).expect("link");
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup"]).success();
    scenario.rbr(&["check"]).success();
    scenario.rbr(&["backup", "--type=incr"]).success();
    let same = |arguments: &[&str], code: i32| {
        let theirs = check(&scenario, &scenario.program(Tool::PgBackRest), arguments);
        assert_eq!(theirs.0, code, "{}", theirs.1);
        let ours = check(&scenario, &rbr, arguments);
        if arguments.contains(&"--output=json") {
            // Its keys come in any order
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
            assert_eq!((ours.0, parse(&ours.1)), (theirs.0, parse(&theirs.1)), "{arguments:?}");
        } else {
            assert_eq!(ours, theirs, "{arguments:?}");
        }
    };
    same(&["--service=archives", "--output=human"], 0);
    same(&["--service=archives", "--repo=1", "--output=json"], 0);
    same(&["--service=retention", "--retention-full=1", "--retention-incr=1", "--output=json"], 0);
    same(&["--service=retention", "--retention-full=9", "--output=nagios"], 2);
    // A segment between the backups is missing
    let info = scenario.rbr(&["info", "--output=json", "--log-level-console=off"]).success().json();
    let stop: WalSegment = info[0]["backup"][0]["archive"]["stop"].as_str().expect("stop").parse().expect("segment");
    let missing = stop.next(16 << 20).to_string();
    let folder = scenario.space.path("repo/archive/demo/15-1/0000000100000000");
    let stored = fs::read_dir(folder).expect("archive").map(|entry| entry.expect("entry").path());
    let is_missing = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&missing));
    fs::remove_file(stored.into_iter().find(is_missing).expect("segment")).expect("remove");
    same(&["--service=archives", "--output=nagios"], 1);
}
