//! Files that claim to contain, or decode to, more than any memory can hold.

use std::fs;

use super::bombs::zst_zeros;
use super::repositories::{Changed, Site};
use super::{ended_by_itself, sealed};
use crate::env::Run;

const MIB: u64 = 1 << 20;
/// A hole of this size in place of a file.
fn hole(site: &Site, name: &str, size: u64) {
    let file = fs::File::create(site.space().path(name)).expect("file to replace");
    file.set_len(size).expect("a hole takes no space");
}

#[track_caller]
pub fn fails(run: Run) {
    ended_by_itself(&run, "");
    assert_ne!(run.code, 0, "{}", run.describe());
}

/// With a report, `verify` reports errors in it and not by its exit status.
#[track_caller]
pub fn finds_fault(run: Run) {
    ended_by_itself(&run, "");
    run.says("status: error");
}

/// Replaces an archived segment and returns its name.
fn replaced_segment(site: &Site, content: &[u8]) -> String {
    let (name, path) = site.segments().into_iter().next().expect("an archived segment");
    fs::write(path, content).expect("segment to replace");
    name
}

#[test]
fn info_files_of_a_gibibyte_of_zeros_are_refused_in_little_memory() {
    let site = Site::new("block-zst");
    let label = site.last().to_owned();
    for name in ["repo/backup/demo/backup.info", "repo/archive/demo/archive.info"] {
        hole(&site, name, 1 << 30);
        hole(&site, &format!("{name}.copy"), 1 << 30);
        ended_by_itself(&site.command(&["info"]), name);
        ended_by_itself(&site.command(&["verify", "--output=text"]), name);
        fails(site.command(&["archive-get", "000000010000000000000001", &site.space().text("wal")]));
        ended_by_itself(&site.command(&["--no-online", "backup"]), name);
        site.reset();
    }
    let manifest = format!("repo/backup/demo/{label}/backup.manifest");
    hole(&site, &manifest, 1 << 30);
    hole(&site, &format!("{manifest}.copy"), 1 << 30);
    fails(site.restore(&label, false));
    ended_by_itself(&site.command(&["verify", "--output=text"]), "manifest");
    ended_by_itself(&site.command(&["--no-online", "--type=incr", "backup"]), "manifest");
}

#[test]
fn segment_that_decodes_to_4_gibibytes_is_not_written() {
    let site = Site::new("online");
    let name = replaced_segment(&site, &zst_zeros(27, b"", 4 << 30));
    fails(site.command(&["archive-get", &name, &site.space().text("wal")]));
    assert!(!site.space().path("wal").exists());
    finds_fault(site.command(&["verify", "--output=text"]));
}

#[test]
fn segment_with_a_window_of_2_gibibytes_is_refused() {
    let site = Site::new("online");
    let name = replaced_segment(&site, &zst_zeros(31, b"", 16 * MIB));
    fails(site.command(&["archive-get", &name, &site.space().text("wal")]));
    finds_fault(site.command(&["verify", "--output=text"]));
}

#[test]
fn stored_file_that_decodes_to_4_gibibytes_is_not_restored() {
    let site = Site::new("online");
    let label = site.last().to_owned();
    let stored = format!("repo/backup/demo/{label}/pg_data/backup_label.zst");
    fs::write(site.space().path(&stored), zst_zeros(27, b"", 4 << 30)).expect("file to replace");
    fails(site.restore(&label, false));
    let size = fs::metadata(site.space().path("restored/backup_label")).map_or(0, |found| found.len());
    assert!(size <= MIB, "{size} bytes were written");
}

/// Returns the last manifest, with `change` applied to the line of a file that is stored in blocks.
fn with_changed_blocks(site: &Site, change: impl Fn(&str) -> String) {
    let manifest = site.text(Changed::Manifest, site.last());
    let line = manifest.lines().find(|line| line.contains("\"bim\":") && !line.contains("reference")).expect("blocks");
    site.replace(Changed::Manifest, site.last(), &sealed(&manifest.replace(line, &change(line))));
}

#[test]
fn block_map_of_a_gigabyte_takes_no_memory() {
    let site = Site::new("block-zst");
    let label = site.last().to_owned();
    with_changed_blocks(&site, |line| {
        let (name, _) = line.split_once('=').expect("value");
        // The map is a hole behind the bundle
        let (map, size) = (1_000_000_000u64, 125_000_000u64 * 8192);
        format!(
            "{name}={{\"bi\":1,\"bim\":{map},\"bni\":1,\"bno\":100,\"checksum\":\"{0}\",\"rck\":\"{0}\",\"repo-size\":{map},\"size\":{size},\"timestamp\":1}}",
            "a".repeat(40)
        )
    });
    let bundle = site.space().path(&format!("repo/backup/demo/{label}/bundle/1"));
    fs::OpenOptions::new().write(true).open(bundle).expect("bundle").set_len(1_100_000_000).expect("a hole");
    fails(site.restore(&label, false));
    fails(site.restore(&label, true));
    finds_fault(site.command(&["verify", "--output=text"]));
    ended_by_itself(&site.command(&["--no-online", "--type=incr", "backup"]), "backup");
}

#[test]
fn damaged_pages_without_number_are_refused() {
    let site = Site::new("block-zst");
    let label = site.last().to_owned();
    let pages: Vec<String> = (0..1_500_000u32).map(|page| (page * 2).to_string()).collect();
    for list in [pages.join(","), "1,".repeat(7_000_000) + "1"] {
        with_changed_blocks(&site, |line| {
            line.replace("\"mode\"", &format!("\"checksum-page\":false,\"checksum-page-error\":[{list}],\"mode\""))
        });
        fails(site.restore(&label, false));
        ended_by_itself(&site.command(&["verify", "--output=text"]), "verify");
        site.reset();
    }
}

#[test]
fn configuration_of_any_size_needs_little_memory() {
    let site = Site::new("block-none");
    let space = site.space();
    let config = std::fs::read_to_string(space.path("pgbackrest.conf")).expect("configuration");
    let lines = |prefix: &str, count: u32| (0..count).map(|index| format!("{prefix}{index}=\n")).collect::<String>();
    // Within the limit, and beyond it by one file and by many
    let near = format!("{config}{}", lines("a", 110_000));
    assert!(near.len() < 1 << 20);
    space.write("pgbackrest.conf", &near);
    ended_by_itself(&site.command(&["info"]), "many lines");
    hole(&site, "pgbackrest.conf", 1 << 30);
    fails(site.command(&["info"]));
    space.write("pgbackrest.conf", &config);
    space.folder("conf.d");
    for index in 0..200 {
        space.write(&format!("conf.d/{index}.conf"), format!("[s{index}]\n{}", lines("b", 80_000)));
    }
    let include = format!("--config-include-path={}", space.text("conf.d"));
    site.command(&["info", &include]).fails(28).says("together");
}

#[test]
fn lock_and_history_files_of_a_gibibyte_need_little_memory() {
    let site = Site::new("online");
    for name in ["lock/demo-backup-1.lock", "lock/demo-restore-1.lock", "lock/demo.stop"] {
        hole(&site, name, 1 << 30);
        ended_by_itself(&site.command(&["info"]), name);
        ended_by_itself(&site.command(&["expire", "--repo1-retention-full=1"]), name);
        fs::remove_file(site.space().path(name)).expect("file of the test");
    }
    hole(&site, "repo/archive/demo/15-1/00000002.history", 1 << 30);
    fails(site.command(&["archive-get", "00000002.history", &site.space().text("wal")]));
    ended_by_itself(&site.restore(site.last(), false), "history");
    ended_by_itself(&site.command(&["verify", "--output=text"]), "history");
}
