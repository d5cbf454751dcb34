//! Each kind of damage makes the next test fail, with the right reason.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::env::{Run, Scenario, ScenarioOptions, Shutdown, Weed};
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
pub fn damage(path: &std::path::Path) {
    change_byte(path, path.metadata().expect("size").len() / 2);
}

/// A byte gets another value, and its own one when that is done again.
fn change_byte(path: &std::path::Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    file.write_all_at(&[byte[0] ^ 0x55], offset).expect("write");
}

/// Returns the bundle of the first backup and the offset in it of a file that the second one refers to.
fn shared_part(scenario: &Scenario, labels: &[String]) -> (u64, u64) {
    let set = format!("--set={}", labels[1]);
    let arguments = ["manifest", "--output=json", "--log-level-console=off", &set];
    let json = scenario.rbr(&arguments).success().json();
    let files = json["fileList"].as_array().expect("files");
    let shared = files.iter().filter(|file| file["reference"] == labels[0].as_str() && file["size"] != 0);
    let mut bundled = shared.filter_map(|file| file["bundle"]["id"].as_u64().zip(file["bundle"]["offset"].as_u64()));
    bundled.next().expect("a file in a bundle")
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

/// An object of the repository in the bucket, which tests read and write without S3.
struct Object<'a> {
    scenario: &'a Scenario,
    url: String,
    file: PathBuf,
}

impl<'a> Object<'a> {
    /// Fetches an object.
    fn fetch(scenario: &'a Scenario, weed: &Weed, path: &str) -> Self {
        let url = format!("{}/demo/{path}", weed.files());
        let file = scenario.space.path("object");
        scenario.space.run("curl", &["-sf", "-o", file.to_str().expect("UTF-8"), &url]).success();
        Object { scenario, url, file }
    }

    fn store(&self) {
        let file = self.file.display().to_string();
        self.scenario.space.run("curl", &["-sf", "-T", &file, &self.url]).success();
    }

    fn remove(&self) {
        self.scenario.space.run("curl", &["-sf", "-X", "DELETE", &self.url]).success();
    }
}

/// Runs a verify that reads what was not read for so long.
fn verify(scenario: &Scenario, age: &str) -> Run {
    let age = format!("--older-than={age}");
    scenario.rbr(&["verify", "--output=text", "--log-level-console=error", "--job-retry=0", &age]).success()
}

#[test]
fn damage_in_s3_fails_the_next_proof_with_its_reason_and_verify_finds_it() {
    let Some(weed) = Weed::start() else { return };
    let options = ScenarioOptions { tablespace: true, global: weed.options(weed.port()), ..ScenarioOptions::default() };
    let Some(mut scenario) = with_chain(options) else { return };
    scenario.cluster.sql("insert into plain values (99990, 'in the segment that is lost')");
    let lost = scenario.cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    archive_now(&scenario);
    archive_now(&scenario);
    let (labels, quick) = (scenario.labels(), ["--no-amcheck", "--no-checksums"]);
    proven(&scenario, &[]);
    verify(&scenario, "7d").says("status: ok");

    // One byte of a bundle that both backups need
    let (id, offset) = shared_part(&scenario, &labels);
    let bundle = Object::fetch(&scenario, &weed, &format!("backup/demo/{}/bundle/{id}", labels[0]));
    change_byte(&bundle.file, offset);
    bundle.store();
    let reason = not_proven(&scenario, &["--job-retry=0"], "restore");
    assert!(reason.contains(&format!("bundle/{id}")) || reason.contains("checksum"), "{reason}");
    let both = |run: Run| {
        let invalid = |label: &str| format!("backup: {label}, status: invalid");
        run.says(&invalid(&labels[0])).says(&invalid(&labels[1])).says("no backup can be recovered to it");
    };
    both(verify(&scenario, "0s"));
    both(verify(&scenario, "7d"));
    change_byte(&bundle.file, offset);
    bundle.store();
    proven(&scenario, &quick);
    verify(&scenario, "7d").says("status: ok");

    // A segment
    let archive = scenario.rbr(&["repo-ls", "archive/demo/15-1/0000000100000000"]).success().stdout;
    let name = archive.lines().find(|name| name.starts_with(lost.trim())).expect("segment").to_owned();
    let segment = Object::fetch(&scenario, &weed, &format!("archive/demo/15-1/0000000100000000/{name}"));
    segment.remove();
    let reason = not_proven(&scenario, &quick, "wal");
    assert!(reason.contains(&format!("WAL segment {} is missing", lost.trim())), "{reason}");
    verify(&scenario, "7d").says(&format!("ends there: WAL segment {} is missing", lost.trim()));
    segment.store();
    proven(&scenario, &quick);

    // A page of an index that became another one before the backup
    copy_index_page(&mut scenario);
    scenario.rbr(&["--type=full", "backup"]).success();
    let reason = not_proven(&scenario, &[], "amcheck");
    assert!(reason.contains("plain_note"), "{reason}");
    verify(&scenario, "7d").says("status: ok");
}

#[test]
fn index_page_that_was_copied_over_another_fails_amcheck() {
    let Some(mut scenario) = with_stanza(ScenarioOptions::default()) else { return };
    copy_index_page(&mut scenario);
    scenario.rbr(&["--type=full", "backup"]).success();
    let reason = not_proven(&scenario, &[], "amcheck");
    assert!(reason.contains("plain_note"), "{reason}");
    // All other checks ran, too
    let report = test_restore(&scenario, &["--no-amcheck"]).success().json();
    assert_eq!(outcome(&report, "checksums"), "skipped");
}

/// Copies a page of an index over another one. Page checksums are off afterwards.
fn copy_index_page(scenario: &mut Scenario) {
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
}
