//! Which backup is tested, how far it is recovered, and what is refused.

use crate::env::{Scenario, ScenarioOptions, Shutdown};
use crate::test_restore::damage::damage;
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

/// Whether a table of the copy has so many rows, as an SQL file.
fn expects(scenario: &Scenario, table: &str, rows: u32) -> String {
    let text = format!("select count(*) from {table};\n-- expect: {rows}\n");
    format!("--sql-file={}", scenario.space.write(&format!("{table}-{rows}.sql"), text).display())
}

fn targets_by_position_name_and_transaction(version: u32) {
    let Some(scenario) = with_chain(ScenarioOptions { version, ..ScenarioOptions::default() }) else { return };
    let cluster = &scenario.cluster;
    cluster.sql("create table steps(id int)");
    let xid = cluster.sql("insert into steps values (1) returning txid_current()");
    let xid = xid.lines().next().expect("transaction").to_owned();
    cluster.sql("insert into steps values (2); select pg_create_restore_point('the point')");
    cluster.sql("insert into steps values (3)");
    // pg_switch_wal ends the record before, so that the position is at the beginning of one
    let lsn = cluster.sql("select pg_current_wal_lsn()");
    cluster.sql("insert into steps values (4)");
    archive_now(&scenario);

    for (kind, target, rows) in
        [("xid", xid.as_str(), 1), ("name", "the point", 2), ("lsn", lsn.trim(), 3), ("default", "", 4)]
    {
        let (option, target) = (format!("--type={kind}"), format!("--target={target}"));
        let mut arguments = vec![option.as_str()];
        if kind != "default" {
            arguments.push(&target);
        }
        if kind == "lsn" {
            arguments.push("--target-exclusive");
        }
        let sql = expects(&scenario, "steps", rows);
        let report = proven(&scenario, &[&QUICK[..], &arguments, &[&sql]].concat());
        assert_eq!(report["recovery"]["target-type"], kind, "PostgreSQL {version}");
        let wrong = expects(&scenario, "steps", rows + 1);
        not_proven(&scenario, &[&QUICK[..], &arguments, &[&wrong]].concat(), "sql");
    }
    for (kind, target) in [("name", "another point"), ("xid", "99999999"), ("lsn", "FF/0")] {
        let (option, target) = (format!("--type={kind}"), format!("--target={target}"));
        if kind == "lsn" {
            // No backup can know that, so the newest is recovered as far as possible
            not_proven(&scenario, &[&QUICK[..], &[&option, &target]].concat(), "recovery");
            continue;
        }
        let reason = not_proven(&scenario, &[&QUICK[..], &[&option, &target]].concat(), "recovery");
        assert!(reason.contains("before configured recovery target was reached"), "{reason}");
    }
}

#[test]
fn targets_are_positions_names_and_transactions() {
    for version in [13, 17] {
        targets_by_position_name_and_transaction(version);
    }
}

#[test]
fn backup_of_a_stopped_cluster_is_proven_without_wal() {
    let options = ScenarioOptions { version: 17, tablespace: true, ..ScenarioOptions::default() };
    let Some(mut scenario) = with_chain(options) else { return };
    scenario.cluster.stop(Shutdown::Fast);
    scenario.rbr(&["--no-online", "--type=full", "backup"]).success();
    let labels = scenario.labels();
    let sql = expects(&scenario, "elsewhere", 5000);
    let report = proven(&scenario, &[&sql]);
    assert_eq!(report["backup"]["label"], labels[2].as_str());
    assert_eq!(report["recovery"]["target-type"], "none");
    // The archive is not needed
    std::fs::remove_dir_all(scenario.space.path("repo/archive/demo/17-1")).expect("archive");
    proven(&scenario, &[&QUICK[..], &[&sql]].concat());
    damage(&scenario.space.path(&format!("repo/backup/demo/{}/bundle/1", labels[2])));
    not_proven(&scenario, &["--job-retry=0"], "restore");
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
