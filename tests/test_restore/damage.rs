//! Each kind of damage makes the next test fail, with the right reason.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::env::{Scenario, ScenarioOptions, Shutdown};
use crate::test_restore::{archive_now, not_proven, outcome, proven, test_restore, with_chain, with_stanza};

/// All stored WAL segments, in order.
fn segments(scenario: &Scenario) -> Vec<PathBuf> {
    let archive = scenario.space.path("repo/archive/demo/15-1/0000000100000000");
    let mut files: Vec<_> = fs::read_dir(archive).expect("archive").map(|entry| entry.expect("entry").path()).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().contains('-'));
    files.sort();
    files
}

fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap().to_string_lossy()[..24].to_owned()
}

/// A byte in the middle gets another value.
fn damage(path: &std::path::Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
    let middle = file.metadata().expect("size").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("read");
    file.write_all_at(&[byte[0] ^ 0x55], middle).expect("write");
}

#[test]
fn damaged_bundle_fails_the_restore() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let labels = scenario.labels();
    let before = proven(&scenario, &["--no-amcheck", "--no-checksums"]);
    assert_eq!(before["backup"]["label"], labels[1].as_str());
    damage(&scenario.space.path(&format!("repo/backup/demo/{}/bundle/1", labels[0])));
    let reason = not_proven(&scenario, &["--job-retry=0"], "restore");
    assert!(reason.contains("bundle/1") || reason.contains("checksum"), "{reason}");
}

#[test]
fn missing_and_damaged_wal_fails_and_names_the_segment() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    scenario.cluster.sql("insert into plain values (99990, 'in the segment that is lost')");
    archive_now(&scenario);
    scenario.cluster.sql("insert into plain values (99991, 'after the segment that is lost')");
    archive_now(&scenario);
    let all = segments(&scenario);
    let (lost, newest) = (&all[all.len() - 2], &all[all.len() - 1]);
    let content = fs::read(lost).expect("segment");

    // PostgreSQL itself takes this for the end of the WAL, and succeeds
    fs::remove_file(lost).expect("remove");
    let reason = not_proven(&scenario, &["--no-amcheck", "--no-checksums"], "wal");
    assert!(reason.contains(&format!("WAL segment {} is missing", name(lost))), "{reason}");
    assert!(reason.contains(&format!("up to segment {}", name(newest))), "{reason}");
    // A backup is still consistent without later WAL
    proven(&scenario, &["--type=immediate", "--no-amcheck", "--no-checksums"]);

    let relative = lost.strip_prefix(scenario.space.path("").components().as_path()).expect("in the space");
    scenario.space.write(relative.to_str().expect("UTF-8"), &content);
    proven(&scenario, &["--no-amcheck", "--no-checksums"]);
    damage(lost);
    let reason = not_proven(&scenario, &["--no-amcheck", "--no-checksums"], "wal");
    assert!(reason.contains(&format!("WAL from segment {} on could not be used", name(lost))), "{reason}");
    assert!(reason.contains("ERROR: ["), "the error of archive-get is not in: {reason}");
}

#[test]
fn missing_wal_of_the_backup_itself_fails_recovery() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let info = scenario.rbr(&["info", "--output=json"]).success().json();
    let stop = info[0]["backup"][1]["archive"]["stop"].as_str().expect("stop").to_owned();
    let needed = segments(&scenario).into_iter().find(|path| name(path) == stop).expect("segment");
    fs::remove_file(needed).expect("remove");
    let reason = not_proven(&scenario, &[], "recovery");
    assert!(reason.contains("FATAL:"), "{reason}");
}

#[test]
fn index_page_that_was_copied_over_another_fails_amcheck() {
    let Some(mut scenario) = with_stanza(ScenarioOptions::default()) else { return };
    let index = scenario.cluster.sql("select pg_relation_filepath('plain_note')");
    scenario.cluster.stop(Shutdown::Fast);
    let data = scenario.cluster.data();
    let programs = &scenario.oracles.postgres[&15];
    let data_text = scenario.cluster.data_text();
    scenario.space.run(programs.join("pg_checksums"), &["--disable", "-D", &data_text]).success();
    let file = fs::OpenOptions::new().read(true).write(true).open(data.join(index)).expect("index");
    let mut page = vec![0; 8192];
    file.read_exact_at(&mut page, 8192 * 4).expect("page");
    file.write_all_at(&page, 8192 * 5).expect("page");
    drop(file);
    scenario.cluster.start();
    scenario.rbr(&["--type=full", "backup"]).success();
    let reason = not_proven(&scenario, &[], "amcheck");
    assert!(reason.contains("plain_note"), "{reason}");
    // All other checks ran, too
    let report = test_restore(&scenario, &["--no-amcheck"]).success().json();
    assert_eq!(outcome(&report, "checksums"), "skipped");
}
