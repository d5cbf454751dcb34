//! WAL archiving compared with the real pgBackRest.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::env::{Scenario, ScenarioOptions, Shutdown, Tool, restored_matches};

const TOOLS: [(Tool, Tool); 2] = [(Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr)];

/// A cluster that archives nothing by itself, and one of its segments under its own name in `wal/`.
fn scenario(global: &[&str]) -> Option<(Scenario, String)> {
    let scenario = Scenario::start(ScenarioOptions {
        global: global.iter().map(|&line| line.to_owned()).collect(),
        settings: vec!["archive_command = 'false # pgbackrest'".to_owned()],
        ..ScenarioOptions::default()
    })?;
    let segment = scenario.cluster.switch_wal();
    scenario.space.folder("wal");
    let content = fs::read(scenario.cluster.data().join("pg_wal").join(&segment)).expect("segment");
    scenario.space.write(&format!("wal/{segment}"), content);
    Some((scenario, segment))
}

fn path(scenario: &Scenario, name: &str) -> String {
    scenario.space.text(name)
}

/// Returns the files of the archive, without info files.
fn archived(scenario: &Scenario) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![scenario.space.path("repo/archive/demo")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("folder") {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.to_string_lossy().contains("archive.info") => {}
                false => found.push(path),
            }
        }
    }
    found
}

#[test]
fn segments_of_one_program_are_got_by_the_other() {
    for cipher in [&[][..], &["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"]] {
        let Some((scenario, segment)) = scenario(cipher) else { return };
        scenario.rbr(&["stanza-create"]).success();
        let source = path(&scenario, &format!("wal/{segment}"));
        fs::copy(&source, scenario.space.path(&format!("wal/{segment}.partial"))).expect("partial");
        scenario.space.write("wal/00000002.history", "1\t0/2000000\tno recovery target specified\n");
        scenario.space.write(&format!("wal/{segment}.00000028.backup"), "START WAL LOCATION\n");
        let backup = format!("{segment}.00000028.backup");
        let names = [format!("{segment}.partial"), "00000002.history".to_owned(), backup];
        for (push, get) in TOOLS {
            for kind in ["none", "gz", "bz2", "lz4", "zst"] {
                // All but the segment are stored the same way with every compression
                let others = if kind == "gz" { &names[..] } else { &[] };
                for name in [&segment].into_iter().chain(others) {
                    let compress = format!("--compress-type={kind}");
                    let source = path(&scenario, &format!("wal/{name}"));
                    scenario.run(push, &[&compress, "archive-push", &source]).success().says("pushed WAL file");
                    let got = path(&scenario, "wal/got");
                    scenario.run(get, &["archive-get", name, &got]).success().says("found");
                    assert_eq!(fs::read(&got).expect("got"), fs::read(&source).expect("source"), "{kind} {name}");
                }
                for file in archived(&scenario) {
                    fs::remove_file(file).expect("remove");
                }
            }
        }
    }
}

#[test]
fn push_of_known_segment_depends_on_its_content() {
    let Some((scenario, segment)) = scenario(&[]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let source = path(&scenario, &format!("wal/{segment}"));
    scenario.rbr(&["archive-push", &source]).success();
    for (tool, _) in TOOLS {
        scenario
            .run(tool, &["archive-push", &source])
            .success()
            .says("already exists in the repo1 archive with the same");
    }
    let before = archived(&scenario);
    let mut content = fs::read(&source).expect("segment");
    content[1 << 20] ^= 1;
    scenario.space.write(&format!("wal/{segment}"), &content);
    for (tool, _) in TOOLS {
        scenario.run(tool, &["archive-push", &source]).fails(45).says("with a different checksum");
    }
    // A segment of another cluster, by the system identifier in its header
    content[24] ^= 1;
    scenario.space.write(&format!("wal/{segment}"), &content);
    for (tool, _) in TOOLS {
        scenario.run(tool, &["archive-push", &source]).fails(44).says("do not match stanza version");
    }
    assert_eq!(archived(&scenario), before);
}

#[test]
fn get_of_damaged_segment_leaves_nothing() {
    let Some((scenario, segment)) = scenario(&["compress-type=none"]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["archive-push", &path(&scenario, &format!("wal/{segment}"))]).success();
    let stored = archived(&scenario).remove(0);
    let mut content = fs::read(&stored).expect("stored");
    content[1 << 20] ^= 1;
    fs::write(&stored, content).expect("damage");
    let got = path(&scenario, "wal/got");
    scenario.rbr(&["archive-get", &segment, &got]).fails(42).says("does not match the one in the file's name");
    assert!(!scenario.space.path("wal/got").exists());
    scenario.rbr(&["archive-get", "0000000100000000000000FF", &got]).fails(1).says("unable to find");
}

#[test]
fn killed_push_leaves_nothing_mistaken_for_a_segment() {
    let Some((scenario, segment)) = scenario(&["compress-type=gz"]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let source = path(&scenario, &format!("wal/{segment}"));
    let got = path(&scenario, "wal/got");
    for attempt in 0..12 {
        let mut push = scenario.start_command(Tool::Rbr, &["archive-push", &source]);
        std::thread::sleep(Duration::from_millis(20 * attempt));
        push.kill();
        for tool in [Tool::PgBackRest, Tool::Rbr] {
            // The segment is either there and correct, or missing
            let get = scenario.run(tool, &["archive-get", &segment, &got]);
            assert!(matches!(get.code, 0 | 1), "{}", get.describe());
            if get.code == 0 {
                assert_eq!(fs::read(&got).expect("got"), fs::read(&source).expect("source"));
            }
        }
        scenario.rbr(&["archive-push", &source]).success();
        scenario.pgbackrest(&["archive-get", &segment, &got]).success();
        assert_eq!(fs::read(&got).expect("got"), fs::read(&source).expect("source"));
        for file in archived(&scenario) {
            fs::remove_file(file).expect("remove");
        }
    }
}

#[test]
fn killed_get_leaves_no_half_segment() {
    let Some((scenario, segment)) = scenario(&["compress-type=gz"]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let source = path(&scenario, &format!("wal/{segment}"));
    scenario.rbr(&["archive-push", &source]).success();
    let got = path(&scenario, "wal/got");
    for attempt in 0..12 {
        let mut get = scenario.start_command(Tool::Rbr, &["archive-get", &segment, &got]);
        std::thread::sleep(Duration::from_millis(10 * attempt));
        get.kill();
        if let Ok(content) = fs::read(&got) {
            assert_eq!(content, fs::read(&source).expect("source"));
            fs::remove_file(&got).expect("remove");
        }
    }
    scenario.rbr(&["archive-get", &segment, &got]).success();
    assert_eq!(fs::read(&got).expect("got"), fs::read(&source).expect("source"));
}

#[test]
fn full_queue_drops_wal_with_a_warning() {
    let Some((scenario, segment)) = scenario(&[]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let ready = format!("{}/pg_wal/{segment}", scenario.cluster.data_text());
    for (tool, _) in TOOLS {
        let warning = format!("dropped WAL file '{segment}' because archive queue exceeded 1MB");
        scenario.run(tool, &["--archive-push-queue-max=1MB", "archive-push", &ready]).success().says(&warning);
        assert!(archived(&scenario).is_empty());
    }
}

#[test]
fn second_repository_gets_the_segment_when_the_first_fails() {
    let Some((scenario, segment)) = scenario(&[]) else { return };
    let second = format!("repo2-path={}", scenario.space.folder("repo2").display());
    scenario.configure(&[second]);
    scenario.rbr(&["stanza-create"]).success();
    let source = path(&scenario, &format!("wal/{segment}"));
    for file in ["archive.info", "archive.info.copy"] {
        fs::rename(scenario.space.path(&format!("repo/archive/demo/{file}")), scenario.space.path(file)).expect("hide");
    }
    for (tool, _) in TOOLS {
        scenario.run(tool, &["archive-push", &source]).fails(104).says("repo1: [FileMissingError]");
    }
    let got = path(&scenario, "wal/got");
    for (tool, _) in TOOLS {
        scenario
            .run(tool, &["archive-get", &segment, &got])
            .success()
            .says(&format!("found {segment} in the repo2: 15-1"));
    }
    for file in ["archive.info", "archive.info.copy"] {
        fs::rename(scenario.space.path(file), scenario.space.path(&format!("repo/archive/demo/{file}"))).expect("back");
    }
    scenario.rbr(&["archive-push", &source]).success().says("already exists in the repo2 archive");
    scenario.pgbackrest(&["--repo=1", "archive-get", &segment, &got]).success();
}

#[test]
fn spool_of_one_program_is_continued_by_the_other() {
    let Some((scenario, segment)) = scenario(&["archive-async=y"]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let source = path(&scenario, &format!("wal/{segment}"));
    let out = scenario.space.path("spool/archive/demo/out");
    scenario.space.run("mkdir", &["-p", &scenario.space.text("spool/archive/demo/out")]).success();
    for (tool, _) in TOOLS {
        // The status that a worker of either program leaves
        scenario.space.write(&format!("spool/archive/demo/out/{segment}.ok"), "");
        scenario.run(tool, &["archive-push", &source]).success().says("to the archive asynchronously");
        scenario.space.write(&format!("spool/archive/demo/out/{segment}.ok"), "0\na warning");
        scenario.run(tool, &["archive-push", &source]).success().says("WARN: a warning");
        scenario.space.write(&format!("spool/archive/demo/out/{segment}.ok"), "45\nrenamed by hand");
        scenario.run(tool, &["archive-push", &source]).success().says("due to error [45] and was manually skipped");
        fs::remove_file(out.join(format!("{segment}.ok"))).expect("remove");
    }
    // A real run: PostgreSQL wants the segment archived, and a worker archives it
    let ready = format!("{}/pg_wal/{segment}", scenario.cluster.data_text());
    // While a worker holds the lock, a call cannot start another one. It archives the segment itself, with another
    // message
    for (first, second) in TOOLS {
        scenario.run(first, &["archive-push", &ready]).success().says("asynchronously");
        scenario.run(second, &["archive-push", &ready]).success().says("asynchronously");
        let got = path(&scenario, "wal/got");
        scenario.worker_ends();
        scenario.run(second, &["archive-get", &segment, &got]).success().says("in the archive asynchronously");
        assert_eq!(fs::read(&got).expect("got"), fs::read(&source).expect("source"));
        scenario.worker_ends();
        scenario
            .run(second, &["archive-get", "0000000100000000000000FF", &got])
            .fails(1)
            .says("unable to find 0000000100000000000000FF in the archive asynchronously");
        // It would keep the next call from starting a worker
        scenario.worker_ends();
        // It may still be about to end
        while fs::remove_dir_all(scenario.space.path("spool/archive")).is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn asynchronous_archive_recovers_under_either_program() {
    let global = ["archive-async=y", "compress-type=zst", "archive-get-queue-max=64MiB"];
    let options =
        ScenarioOptions { global: global.iter().map(|&line| line.to_owned()).collect(), ..ScenarioOptions::default() };
    let Some(mut scenario) = Scenario::start(options) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup"]).success();
    for round in 0..4 {
        scenario.cluster.sql(&format!("create table round_{round} as select g from generate_series(1, 50000) g"));
        scenario.cluster.switch_wal();
    }
    let dump = scenario.cluster.dump();
    scenario.cluster.stop(Shutdown::Fast);
    for (tool, name) in [(Tool::Rbr, "ours"), (Tool::PgBackRest, "theirs")] {
        let mut restored = scenario.restore(tool, name, &["--archive-mode=off"]);
        restored_matches(&mut restored, &dump);
    }
}
