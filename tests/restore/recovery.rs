//! Recovery targets: the rows that the restored server has, and the settings written for it.

use std::fs;
use std::os::unix::fs::symlink;

use regex_lite::Regex;

use crate::env::{Cluster, Run, Scenario, ScenarioOptions, Shutdown, Tool};

/// A cluster with a full backup and then rows 1 to 4, each committed after a moment that can be a target.
struct History {
    scenario: Scenario,
    after_row_1: String,
    transaction_of_row_2: String,
    position_after_row_3: String,
}

impl History {
    fn make(version: u32) -> Option<Self> {
        let scenario = Scenario::start(ScenarioOptions {
            version,
            global: vec!["compress-type=zst".into(), "repo1-bundle=y".into()],
            ..ScenarioOptions::default()
        })?;
        let cluster = &scenario.cluster;
        cluster.sql("create table moment(id int primary key)");
        scenario.rbr(&["stanza-create"]).success();
        scenario.rbr(&["backup", "--type=full"]).success();
        cluster.sql("insert into moment values (1)");
        cluster.sql("select pg_create_restore_point('after row 1')");
        // Target times have whole seconds
        let after_row_1 = cluster.sql("select pg_sleep(1.2); select clock_timestamp()").trim().to_owned();
        cluster.sql("select pg_sleep(1.2)");
        let transaction_of_row_2 = cluster.sql("insert into moment values (2) returning txid_current()");
        cluster.sql("insert into moment values (3)");
        let position_after_row_3 = cluster.sql("select pg_current_wal_insert_lsn()");
        cluster.sql("insert into moment values (4)");
        let segment = cluster.switch_wal();
        let archived = format!("select last_archived_wal >= '{segment}' from pg_stat_archiver");
        for _ in 0..300 {
            if cluster.sql(&archived) == "t" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(cluster.sql(&archived), "t", "the last segment is not archived");
        Some(Self { scenario, after_row_1, transaction_of_row_2, position_after_row_3 })
    }

    /// Restores and returns the highest row of the restored server.
    fn rows_after(&self, name: &str, arguments: &[&str]) -> String {
        let mut restored = self.scenario.restore(Tool::Rbr, name, arguments);
        restored.start();
        restored.wait_writable();
        let rows = restored.sql("select count(*) || ' ' || coalesce(max(id), 0) from moment");
        restored.stop(Shutdown::Fast);
        rows
    }
}

fn targets_show_the_right_rows(version: u32) {
    let Some(history) = History::make(version) else { return };
    let promote = "--target-action=promote";
    let time = format!("--target={}", history.after_row_1);
    let transaction = format!("--target={}", history.transaction_of_row_2);
    let position = format!("--target={}", history.position_after_row_3);
    assert_eq!(history.rows_after("default", &[]), "4 4");
    assert_eq!(history.rows_after("immediate", &["--type=immediate", promote]), "0 0");
    assert_eq!(history.rows_after("name", &["--type=name", "--target=after row 1", promote]), "1 1");
    assert_eq!(history.rows_after("time", &["--type=time", &time, promote]), "1 1");
    assert_eq!(history.rows_after("xid", &["--type=xid", &transaction, promote]), "2 2");
    assert_eq!(history.rows_after("before-xid", &["--type=xid", &transaction, "--target-exclusive", promote]), "1 1");
    assert_eq!(history.rows_after("lsn", &["--type=lsn", &position, promote]), "3 3");
}

#[test]
fn targets_show_the_right_rows_pg13() {
    targets_show_the_right_rows(13);
}

#[test]
fn targets_show_the_right_rows_pg18() {
    targets_show_the_right_rows(18);
}

/// Returns the files with recovery settings, without times and the program's name.
fn settings(cluster: &Cluster) -> Vec<(&'static str, Option<String>)> {
    let time = Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").expect("pattern");
    let program = Regex::new(r"restore_command = '\S+ ").expect("pattern");
    let folder = cluster.data_text();
    ["postgresql.auto.conf", "recovery.signal", "standby.signal", "recovery.conf"]
        .into_iter()
        .map(|name| {
            let text = fs::read_to_string(cluster.data().join(name)).ok().map(|text| {
                let text = time.replace_all(&text, "TIME").replace(&folder, "DATA");
                program.replace_all(&text, "restore_command = 'PROGRAM ").into_owned()
            });
            (name, text)
        })
        .collect()
}

#[test]
fn settings_written_for_every_type_equal_pgbackrest() {
    let Some(history) = History::make(15) else { return };
    let time = format!("--target={}", history.after_row_1);
    let position = format!("--target={}", history.position_after_row_3);
    let cases: [&[&str]; 12] = [
        &[],
        &["--type=none"],
        &["--type=immediate"],
        &["--type=immediate", "--target-action=promote"],
        &["--type=standby", "--recovery-option=primary_conninfo=host=/nowhere user=x"],
        &["--type=time", &time, "--target-exclusive"],
        &["--type=time", &time, "--target-action=shutdown", "--target-timeline=current"],
        &["--type=xid", "--target=1234"],
        &["--type=lsn", &position, "--target-timeline=latest"],
        &["--type=name", "--target=after row 1", "--archive-mode=off"],
        &["--type=default", "--recovery-option=recovery-end-command=true", "--target-timeline=0x1"],
        &["--recovery-option=restore_command=cp /somewhere/%f %p", "--recovery-option=archive-cleanup-command=true"],
    ];
    for (number, arguments) in cases.into_iter().enumerate() {
        let theirs = history.scenario.restore(Tool::PgBackRest, &format!("t-{number}"), arguments);
        let ours = history.scenario.restore(Tool::Rbr, &format!("o-{number}"), arguments);
        assert_eq!(settings(&theirs), settings(&ours), "{arguments:?}");
    }
}

#[test]
fn time_target_without_zone_is_one_instant_where_host_and_server_have_other_zones() {
    let Some(history) = History::make(17) else { return };
    // The same moment in another zone, without an offset; the server's zone is that of the host
    let local = history.scenario.cluster.sql(&format!(
        "select to_char('{}'::timestamptz at time zone 'Asia/Kolkata', 'YYYY-MM-DD HH24:MI:SS,US')",
        history.after_row_1
    ));
    let space = &history.scenario.space;
    let restore = |name: &str, target: &str, more: &[&str]| {
        let path = format!("--pg1-path={}", space.folder(name).display());
        let (config, target) = (format!("--config={}", space.text("pgbackrest.conf")), format!("--target={target}"));
        let mut command = space.command(history.scenario.program(Tool::Rbr));
        command.env("TZ", "Asia/Kolkata").args([&config, "--stanza=demo", &path, "--type=time", &target]);
        Run::of({
            command.arg("--target-action=promote").args(more).arg("restore");
            command
        })
    };
    restore("zone", &local, &[]).success().says("+05:30");
    let mut restored = Cluster::existing(space, history.scenario.oracles, 17, "zone");
    restored.start();
    restored.wait_writable();
    assert_eq!(restored.sql("select count(*) || ' ' || max(id) from moment"), "1 1");
    restored.stop(Shutdown::Fast);

    let set = format!("--set={}", history.scenario.labels()[0]);
    for wrong in ["nonsense", "2026-01-01 00:00:00Z"] {
        restore("wrong", wrong, &[&set]).fails(29).says("time format must be");
    }
    assert_eq!(fs::read_dir(space.path("wrong")).expect("folder").count(), 0);
}

#[test]
fn data_folder_with_characters_of_the_shell_recovers_by_its_restore_command() {
    let Some(history) = History::make(15) else { return };
    let space = &history.scenario.space;
    let odd = space.folder("a $HOME `id`\"b\\ 100%p%% 'c' &;()<>#*!~\u{e4}");
    history.scenario.rbr(&[&format!("--pg1-path={}", odd.display()), "restore"]).success();
    // The tools around the server need no such names
    symlink(&odd, space.path("odd")).expect("link");
    let mut restored = Cluster::existing(space, history.scenario.oracles, 15, "odd");
    restored.start();
    restored.wait_writable();
    assert_eq!(restored.sql("select count(*) || ' ' || max(id) from moment"), "4 4");
    restored.stop(Shutdown::Fast);
}

#[test]
fn settings_of_an_earlier_restore_are_replaced_as_pgbackrest_does() {
    let Some(history) = History::make(17) else { return };
    let mut found = Vec::new();
    for (tool, name) in [(Tool::PgBackRest, "theirs"), (Tool::Rbr, "ours")] {
        history.scenario.restore(tool, name, &["--type=xid", "--target=1234", "--target-action=promote"]);
        let again = history.scenario.restore(tool, name, &["--delta", "--type=immediate"]);
        let kept = history.scenario.restore(tool, name, &["--delta", "--type=preserve"]);
        found.push((settings(&again), settings(&kept)));
    }
    assert_eq!(found[0], found[1]);
}

#[test]
fn standby_follows_the_archive_until_promoted() {
    let Some(history) = History::make(15) else { return };
    let mut standby = history.scenario.restore(Tool::Rbr, "standby", &["--type=standby"]);
    standby.start();
    for _ in 0..300 {
        if standby.sql("select count(*) from moment") == "4" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(standby.sql("select pg_is_in_recovery(), count(*) from moment"), "t|4");
    standby.sql("select pg_promote()");
    standby.wait_writable();
    standby.sql("insert into moment values (5)");
    standby.stop(Shutdown::Fast);
    standby.check_pages();
}
