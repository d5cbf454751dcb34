//! Which backup is tested, how far it is recovered, and what is refused.

use crate::env::ScenarioOptions;
use crate::test_restore::{archive_now, leftovers, not_proven, proven, test_restore, with_chain};

const QUICK: [&str; 2] = ["--no-amcheck", "--no-checksums"];

#[test]
fn backup_and_target_are_those_that_were_asked_for() {
    let Some(scenario) = with_chain(ScenarioOptions { version: 18, ..ScenarioOptions::default() }) else { return };
    let labels = scenario.labels();
    let tested = |arguments: &[&str]| {
        let report = proven(&scenario, &[&QUICK, arguments].concat());
        report["backup"]["label"].as_str().expect("label").to_owned()
    };
    assert_eq!(tested(&[]), labels[1]);
    assert_eq!(tested(&["--set=random"]), labels[0]);
    let label = format!("--set={}", labels[0]);
    assert_eq!(tested(&[&label, "--type=immediate"]), labels[0]);

    // The copy ends at the moment before the mistake
    scenario.cluster.sql("select pg_sleep(1.1)");
    let time = scenario.cluster.sql("select now()");
    scenario.cluster.sql("select pg_sleep(1.1); drop table wide");
    archive_now(&scenario);
    let sql = scenario.space.write("there.sql", "select count(*) > 0 from wide;\n-- expect: t\n").display().to_string();
    let (sql, target) = (format!("--sql-file={sql}"), format!("--target={time}"));
    let report = proven(&scenario, &[&QUICK[..], &["--type=time", &target, &sql]].concat());
    assert_eq!(report["recovery"]["target-type"], "time");
    assert!(report["recovery"]["reached"]["time"].is_string(), "{report:#}");
    let reason = not_proven(&scenario, &[&QUICK[..], &[&sql]].concat(), "sql");
    assert!(reason.contains("wide"), "{reason}");
    // Nothing was committed after this time
    let reason =
        not_proven(&scenario, &[&QUICK[..], &["--type=time", "--target=2999-01-01 00:00:00+00"]].concat(), "recovery");
    assert!(reason.contains("before configured recovery target was reached"), "{reason}");
}

#[test]
fn test_that_can_not_be_made_is_no_failed_proof() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let refused = |arguments: &[&str], code: i32, text: &str| {
        let run = test_restore(&scenario, arguments).fails(code).says(text);
        assert_eq!(run.stdout, "", "{}", run.describe());
        assert_eq!(leftovers(&scenario), [""; 0]);
    };
    let folder = scenario.space.folder("empty").display().to_string();
    let mut arguments = vec!["test-restore".to_owned(), format!("--pg-bin-path={folder}")];
    arguments.push(format!("--scratch-path={}", scenario.space.text("scratch")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    scenario.rbr(&arguments).fails(55).says("has no program 'postgres'").says("HINT: install the server");
    let missing = format!("--sql-file={}", scenario.space.text("missing"));
    refused(&[&missing], 41, "unable to open SQL file");
    refused(&["--set=20200101-000000F"], 75, "backup set 20200101-000000F is not valid");
    let data = format!("--scratch-path={}", scenario.cluster.data_text());
    let mut inside = crate::test_restore::all_arguments(&scenario, &[]);
    inside[1] = data;
    let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
    scenario.rbr(&inside).fails(32).says("belongs to the original cluster");
}

#[test]
fn option_scratch_path_is_required_and_prefixes_mean_no_test() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    scenario.rbr(&["test-restore"]).fails(37).says("test-restore command requires option: scratch-path");
    scenario.rbr(&["test"]).fails(48);
}
