//! Full disks, under the repository and under the spool.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::env::{Run, Scenario, ScenarioOptions, oracle};

/// The system's message for a full disk.
const FULL: &str = "No space left on device";
/// The maximum time in which the asynchronous archiver recovers once there is space.
const RECOVERY_S: u64 = 30;
const SEGMENTS: usize = 3;

/// A separate file system that is small enough to be filled quickly.
pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Returns whether a file system can be mounted.
    pub(super) fn possible() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// Mounts the file system over the folder `name` of the scenario.
    pub(super) fn mount(scenario: &Scenario, name: &str) -> Self {
        let path = scenario.space.folder(name);
        let user = scenario.space.user();
        let options = format!("size=160m,nr_inodes=200,mode=750,uid={},gid={}", user.uid, user.gid);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path);
        Run::of(mount).success();
        Self { path }
    }

    /// Uses every byte and every inode.
    pub(super) fn fill(&self) {
        use std::io::Write;
        let folder = self.path.join("filler");
        fs::create_dir(&folder).expect("folder");
        let mut file = File::create(folder.join("bytes")).expect("file");
        let block = vec![1; 1 << 16];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..4096]).is_ok() {}
        for number in 0.. {
            if File::create(folder.join(format!("inode{number}"))).is_err() {
                return;
            }
        }
    }

    pub(super) fn free(&self) {
        fs::remove_dir_all(self.path.join("filler")).expect("remove");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg("--lazy").arg(&self.path);
        let _ = unmount.output();
    }
}

/// A cluster with segments that wait to be archived. PostgreSQL itself never archives them.
fn scenario(global: &[&str]) -> Option<(Scenario, Vec<String>)> {
    if !Disk::possible() {
        // Required only if it is possible
        oracle::say("SKIPPED a full disk: only root can mount a small one");
        return None;
    }
    let mut global: Vec<String> = global.iter().map(|&line| line.to_owned()).collect();
    global.push("archive-timeout=4".to_owned());
    let settings = vec!["archive_command = 'false'".to_owned()];
    let scenario = Scenario::start(ScenarioOptions { global, settings, ..ScenarioOptions::default() })?;
    for _ in 0..SEGMENTS {
        scenario.cluster.switch_wal();
    }
    // Everything that waits, in the order in which PostgreSQL asks; a worker begins with the first, too
    let ready = fs::read_dir(scenario.cluster.data().join("pg_wal/archive_status")).expect("states");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("state").file_name().into_string().ok();
    let mut segments: Vec<String> =
        ready.filter_map(name).filter_map(|name| Some(name.strip_suffix(".ready")?.to_owned())).collect();
    segments.sort_unstable();
    assert!(segments.len() >= SEGMENTS, "{segments:?}");
    Some((scenario, segments))
}

fn source(scenario: &Scenario, segment: &str) -> PathBuf {
    scenario.cluster.data().join("pg_wal").join(segment)
}

fn push(scenario: &Scenario, segment: &str) -> Run {
    scenario.rbr(&["archive-push", source(scenario, segment).to_str().expect("UTF-8")])
}

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
}

fn nothing_is_acknowledged(scenario: &Scenario) {
    let mut states = Vec::new();
    files(&scenario.space.path("spool/archive"), &mut states);
    assert!(!states.iter().any(|name| name.ends_with(".ok")), "{states:?}");
}

/// Returns how many files of a segment the archive contains.
fn stored(scenario: &Scenario, segment: &str) -> usize {
    let mut archived = Vec::new();
    files(&scenario.space.path("repo/archive"), &mut archived);
    archived.iter().filter(|name| name.starts_with(segment)).count()
}

/// Pushes like PostgreSQL, repeatedly until it succeeds. Every segment must then exist once and be correct.
fn archive_all(scenario: &Scenario, segments: &[String]) {
    let end = Instant::now() + Duration::from_secs(RECOVERY_S);
    let target = scenario.space.text("fetched");
    for segment in segments {
        loop {
            let run = push(scenario, segment);
            if run.code == 0 {
                break;
            }
            assert!(Instant::now() < end, "{}", run.describe());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    for segment in segments {
        assert_eq!(stored(scenario, segment), 1, "{segment}");
        scenario.pgbackrest(&["--no-archive-async", "archive-get", segment, &target]).success();
        let (found, expected) = (fs::read(&target).expect("fetched"), fs::read(source(scenario, segment)));
        assert!(found == expected.expect("segment"), "{segment}");
    }
}

#[test]
fn full_repository_fails_pushes_and_every_segment_is_there_once_after_it() {
    for global in [&["compress-type=none"][..], &["compress-type=none", "archive-async=y"]] {
        let Some((scenario, segments)) = scenario(global) else { return };
        let disk = Disk::mount(&scenario, "repo");
        scenario.rbr(&["stanza-create"]).success();
        disk.fill();
        for _ in 0..2 {
            let run = push(&scenario, &segments[0]);
            assert_ne!(run.code, 0, "{}", run.describe());
            run.says(FULL);
        }
        for segment in &segments {
            assert_eq!(stored(&scenario, segment), 0, "{segment}");
        }
        nothing_is_acknowledged(&scenario);
        disk.free();
        archive_all(&scenario, &segments);
    }
}

#[test]
fn full_spool_fails_pushes_and_every_segment_is_there_once_after_it() {
    let Some((scenario, segments)) = scenario(&["archive-async=y"]) else { return };
    let disk = Disk::mount(&scenario, "spool");
    scenario.rbr(&["stanza-create"]).success();
    disk.fill();
    let run = push(&scenario, &segments[0]);
    assert_ne!(run.code, 0, "{}", run.describe());
    run.says(FULL);
    disk.free();

    // Its directories exist, but the worker can't write status files
    for folder in ["spool/archive", "spool/archive/demo", "spool/archive/demo/out"] {
        scenario.space.folder(folder);
    }
    disk.fill();
    push(&scenario, &segments[0]).fails(82);
    nothing_is_acknowledged(&scenario);
    disk.free();
    archive_all(&scenario, &segments);
}
