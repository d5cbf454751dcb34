//! What a restore does with the directory that it restores into.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::env::{Cluster, Scenario, ScenarioOptions, Shutdown, Tool, Tree, restored_matches};

fn with_backup(tablespace: bool) -> Option<Scenario> {
    let scenario = Scenario::start(ScenarioOptions {
        version: 17,
        tablespace,
        global: vec!["compress-type=lz4".into(), "repo1-bundle=y".into()],
        ..ScenarioOptions::default()
    })?;
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    Some(scenario)
}

#[test]
fn restore_over_a_running_server_is_refused() {
    let Some(scenario) = with_backup(false) else { return };
    scenario.rbr(&["--delta", "restore"]).fails(38).says("postmaster.pid");
}

#[test]
fn restore_into_a_folder_that_holds_something_is_refused_and_leaves_it_alone() {
    let Some(scenario) = with_backup(false) else { return };
    scenario.space.folder("other");
    scenario.space.write("other/precious", "data");
    let path = format!("--pg1-path={}", scenario.space.text("other"));
    scenario.rbr(&[&path, "restore"]).fails(40);
    // Without PG_VERSION in the directory, delta and force do not count
    scenario.rbr(&[&path, "--delta", "restore"]).fails(40);
    scenario.rbr(&[&path, "--force", "restore"]).fails(40);
    assert_eq!(fs::read_dir(scenario.space.path("other")).expect("folder").count(), 1);
    assert_eq!(fs::read_to_string(scenario.space.path("other/precious")).expect("file"), "data");
}

#[test]
fn delta_restore_repairs_what_differs_and_leaves_the_rest_untouched() {
    let Some(scenario) = with_backup(true) else { return };
    scenario.restore(Tool::Rbr, "fresh", &["--type=none"]);
    scenario.restore(Tool::Rbr, "again", &["--type=none"]);
    let again = scenario.space.path("again");
    let right = Tree::read_restored(&scenario.space.path("fresh"));
    right.assert_same(&Tree::read_restored(&again));

    // Damage of every kind
    let user = scenario.space.user();
    let relation = scenario.cluster.sql("select pg_relation_filepath('plain')");
    let wide = scenario.cluster.sql("select pg_relation_filepath('wide')");
    let content = fs::read(again.join(&relation)).expect("relation");
    let mut changed = content.clone();
    changed[20_000] ^= 1;
    fs::write(again.join(&relation), changed).expect("write");
    fs::remove_file(again.join(&wide)).expect("remove");
    fs::write(again.join("base/extra-file"), "x").expect("write");
    fs::create_dir_all(again.join("base/99999/deep")).expect("folder");
    fs::remove_file(again.join("pg_hba.conf")).expect("remove");
    symlink("/etc/passwd", again.join("pg_hba.conf")).expect("link");
    for path in ["base/extra-file", "base/99999", "base/99999/deep", "pg_hba.conf"] {
        user.own(&again.join(path));
    }
    let untouched = scenario.cluster.sql("select pg_relation_filepath('plain_note')");
    let before = fs::metadata(again.join(&untouched)).expect("metadata");

    scenario.restore(Tool::Rbr, "again", &["--delta", "--type=none"]);
    right.assert_same(&Tree::read_restored(&again));
    let after = fs::metadata(again.join(&untouched)).expect("metadata");
    assert_eq!(
        (before.ino(), before.mtime_nsec(), before.ctime(), before.ctime_nsec()),
        (after.ino(), after.mtime_nsec(), after.ctime(), after.ctime_nsec()),
        "a file that was right has been touched"
    );
    assert!(fs::read_to_string("/etc/passwd").expect("passwd").contains("root"), "written through a link");
}

#[test]
fn restore_of_a_stopped_cluster_in_place_starts_again() {
    let Some(mut scenario) = with_backup(true) else { return };
    let dump = scenario.cluster.dump();
    scenario.cluster.stop(Shutdown::Immediate);
    scenario.rbr(&["--delta", "restore"]).success();
    restored_matches(&mut scenario.cluster, &dump);
}

#[test]
fn tablespace_maps_put_tablespaces_elsewhere() {
    let Some(scenario) = with_backup(true) else { return };
    scenario.space.folder("mapped");
    let (path, place) = (format!("--pg1-path={}", scenario.space.text("mapped")), scenario.space.text("ts-mapped"));
    scenario.rbr(&[&path, &format!("--tablespace-map=ts1={place}"), "--type=none", "restore"]).success();
    let links: Vec<_> = fs::read_dir(scenario.space.path("mapped/pg_tblspc"))
        .expect("folder")
        .map(|entry| fs::read_link(entry.expect("entry").path()).expect("link"))
        .collect();
    assert_eq!(links, [scenario.space.path("ts-mapped")]);
    scenario.space.folder("unknown");
    let unknown = format!("--pg1-path={}", scenario.space.text("unknown"));
    scenario.rbr(&[&unknown, &format!("--tablespace-map=nosuch={place}"), "restore"]).fails(76);
}

#[test]
fn set_that_does_not_exist_is_refused() {
    let Some(scenario) = with_backup(false) else { return };
    scenario.space.folder("new");
    let path = format!("--pg1-path={}", scenario.space.text("new"));
    scenario.rbr(&[&path, "--set=20200101-000000F", "restore"]).fails(75);
    scenario.rbr(&[&path, "--type=time", "--target=2001-01-01 00:00:00+00", "restore"]).fails(75);
    scenario.rbr(&[&path, "--type=time", "--target=yesterday", "restore"]).fails(29);
    assert_eq!(fs::read_dir(scenario.space.path("new")).expect("folder").count(), 0);
}

#[test]
fn delta_restore_over_another_cluster_is_refused_unless_forced() {
    let Some(scenario) = with_backup(false) else { return };
    let other = Cluster::create(&scenario.space, scenario.oracles, 17, "other", &[]);
    let control = fs::read(other.data().join("global/pg_control")).expect("pg_control");
    let path = format!("--pg1-path={}", other.data_text());
    scenario.rbr(&[&path, "--delta", "restore"]).fails(51).says("system identifier").says("--force");
    assert_eq!(fs::read(other.data().join("global/pg_control")).expect("pg_control"), control);
    scenario.rbr(&[&path, "--delta", "--force", "restore"]).success().says("is overwritten");
    // Now it is the stanza's own
    scenario.rbr(&[&path, "--delta", "restore"]).success();
}

#[test]
fn delta_restore_with_a_link_to_the_folder_of_all_is_refused_and_removes_nothing() {
    let Some(scenario) = with_backup(false) else { return };
    scenario.restore(Tool::Rbr, "again", &["--type=none"]);
    let path = format!("--pg1-path={}", scenario.space.text("again"));
    let before = Tree::read(&scenario.space.path("again"));
    let map = format!("--link-map=pg_wal={}", scenario.space.text("again/.."));
    scenario.rbr(&[&path, "--delta", &map, "restore"]).fails(70).says("contains the data directory");
    before.assert_same(&Tree::read(&scenario.space.path("again")));
}
