//! A test touches nothing of the original cluster, and proves the whole of it.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::env::{Scenario, ScenarioOptions, Shutdown, Tree, Weed};
use crate::test_restore::{all_arguments, archive_now, leftovers, outcome, proven, test_restore, with_chain};

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().append(true).open(path).expect("open").write_all(text.as_bytes()).expect("append");
}

/// A link in the data directory, settings that would reach the outside, and a library that does not exist.
fn make_entangled(scenario: &Scenario) {
    let linked = scenario.space.folder("linked");
    scenario.space.write("linked/file", "content of the original");
    let link = scenario.cluster.data().join("linked");
    std::os::unix::fs::symlink(linked, &link).expect("link");
    scenario.space.user().own(&link);
    scenario.cluster.sql("alter system set archive_mode = 'always'");
    scenario.cluster.sql("alter system set listen_addresses = '127.0.0.1'");
    append(
        &scenario.cluster.data().join("postgresql.conf"),
        "shared_preload_libraries = 'pg_stat_statements, no_such_library, pg_cron'\n\
         primary_conninfo = 'host=127.0.0.1 port=1'\n",
    );
}

fn proves_everything(scenario: &mut Scenario) {
    let file = scenario.space.write(
        "expected.sql",
        "select count(*) from plain;\n-- expect: 18000\n\n-- database: postgres\nselect count(*) > 0, null from elsewhere;\n\
         -- expect: t|\nshow archive_mode;\nshow listen_addresses;\nshow primary_conninfo;\nshow data_directory_mode;\n\
         -- expect: off\n-- expect: \n-- expect: \n-- expect: 0700\n",
    );
    let sql = format!("--sql-file={}", file.display());
    let spool = scenario.space.folder("spool");
    let archive = Tree::read(&scenario.space.path("repo"));
    scenario.cluster.stop(Shutdown::Fast);
    let read = |name: &str| Tree::read(&scenario.space.path(name));
    let before = [read("pg"), read("ts1"), read("linked")];
    let report = proven(
        scenario,
        &[
            &sql,
            "--count-table=postgres:elsewhere",
            "--count-table=postgres:\"naïve näme\"",
            "--dump-database=postgres",
        ],
    );
    for (before, after) in before.iter().zip([read("pg"), read("ts1"), read("linked")]) {
        before.assert_same(&after);
    }
    assert_eq!(fs::read_dir(spool).expect("spool").count(), 0);
    for check in ["restore", "recovery", "wal", "connect", "amcheck", "dump postgres", "sql", "stop", "checksums"] {
        assert_eq!(outcome(&report, check), "passed", "{check}: {report:#}");
    }
    let count = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "count postgres:elsewhere");
    assert_eq!(count.unwrap()["detail"], "5000 row(s)");
    assert!(report["rto-ms"].as_u64().unwrap() > 0);
    assert_eq!(report["recovery"]["reached"]["timeline"], 1);
    let notes = report["notes"].to_string();
    assert!(notes.contains("no_such_library") && notes.contains("pg_cron"), "{notes}");
    assert!(!notes.contains("pg_stat_statements"), "{notes}");
    // The copy archived nothing: what was stopped had archived its last WAL before
    let has_second_timeline = |tree: &Tree| tree.0.keys().any(|path| path.contains("/00000002"));
    assert!(!has_second_timeline(&archive) && !has_second_timeline(&Tree::read(&scenario.space.path("repo"))));
}

#[test]
fn test_of_a_chain_with_a_tablespace_proves_everything_and_touches_nothing() {
    let options = ScenarioOptions { tablespace: true, ..ScenarioOptions::default() };
    let Some(mut scenario) = with_chain(options) else { return };
    make_entangled(&scenario);
    scenario.rbr(&["--type=incr", "backup"]).success();
    proves_everything(&mut scenario);
}

#[test]
fn test_of_a_chain_in_s3_proves_everything_and_touches_nothing() {
    let Some(weed) = Weed::start() else { return };
    let options = ScenarioOptions {
        version: 17,
        tablespace: true,
        global: weed.options(weed.port()),
        ..ScenarioOptions::default()
    };
    let Some(mut scenario) = with_chain(options) else { return };
    make_entangled(&scenario);
    scenario.rbr(&["--type=incr", "backup"]).success();
    scenario.space.folder("repo");
    proves_everything(&mut scenario);
}

#[test]
fn report_as_text_names_phases_checks_and_the_reason() {
    let Some(scenario) = with_chain(ScenarioOptions { version: 13, ..ScenarioOptions::default() }) else { return };
    let run = test_restore(&scenario, &["--no-checksums"]);
    assert_eq!(run.json()["result"], "passed", "{}", run.describe());
    // Version 13 has no pg_amcheck
    assert_eq!(outcome(&run.json(), "amcheck"), "skipped");
    let file = scenario.space.write("wrong.sql", "select 1;\n-- expect: 2\n");
    let arguments = [
        "--output=text".to_owned(),
        format!("--sql-file={}", file.display()),
        "test-restore".to_owned(),
        format!("--scratch-path={}", scenario.space.text("scratch")),
        format!("--pg-bin-path={}", scenario.oracles.postgres[&13].display()),
    ];
    let run = scenario.rbr(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).fails(104);
    let run = run.says("check amcheck: skipped").says("check checksums: passed").says("recovery time");
    run.says("was not proven: sql: the query at line 1 returned '1' instead of '2' as row 1");
}

/// The original is not changed by WAL that creates a tablespace, which says nothing about the backup. `environment` is a
/// variable of the test.
fn later_tablespace_is_not_written_to(version: u32, environment: &[&str]) {
    let options = ScenarioOptions { tablespace: true, version, ..ScenarioOptions::default() };
    let Some(mut scenario) = with_chain(options) else { return };
    let location = scenario.space.folder("later");
    scenario.cluster.sql(&format!("create tablespace later location '{}'", location.display()));
    scenario.cluster.sql(
        "create table kept tablespace later as select g from generate_series(1, 1000) g; \
         create table changed tablespace later as select g from generate_series(1, 1000) g; \
         create table dropped tablespace later as select g from generate_series(1, 1000) g; checkpoint; \
         update changed set g = 0; truncate changed; drop table dropped; \
         create table kept_in_ts1 tablespace ts1 as select g from generate_series(1, 1000) g; checkpoint",
    );
    archive_now(&scenario);
    scenario.cluster.stop(Shutdown::Fast);
    let read = |name: &str| Tree::read(&scenario.space.path(name));
    let before = [read("later"), read("ts1"), read("pg")];
    let test = |arguments: &[&str]| {
        let arguments = all_arguments(&scenario, arguments);
        let program = scenario.space.path("bin/rbr").display().to_string();
        let config = format!("--config={}", scenario.space.text("pgbackrest.conf"));
        let fixed = [&program, &config, "--stanza=demo"];
        let all: Vec<&str> =
            environment.iter().copied().chain(fixed).chain(arguments.iter().map(String::as_str)).collect();
        scenario.space.run("env", &all)
    };
    let run = test(&[]).fails(67);
    for (before, after) in before.iter().zip([read("later"), read("ts1"), read("pg")]) {
        before.assert_same(&after);
    }
    run.says("WAL could not be replayed within the scratch directory").says("that creates a tablespace");
    assert_eq!(leftovers(&scenario), [""; 0]);
    // Up to there, the backup is proven
    let report = test(&["--type=immediate"]).success().json();
    assert_eq!(report["result"], "passed", "{report:#}");
    // On a host without the location of the tablespace, too, nothing is said about the backup
    fs::rename(&location, scenario.space.path("moved")).expect("rename");
    test(&[]).fails(67).says("that creates a tablespace");
}

#[test]
fn tablespace_that_wal_creates_on_the_original_host_is_not_written_to() {
    later_tablespace_is_not_written_to(15, &[]);
}

#[test]
fn tablespace_that_wal_creates_is_not_written_to_on_an_older_kernel() {
    for version in [13, 18] {
        later_tablespace_is_not_written_to(version, &["RBR_TEST_LANDLOCK=1"]);
    }
}
