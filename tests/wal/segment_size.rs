//! Servers whose WAL segments are larger than usual.

use std::fs;

use crate::env::{Scenario, ScenarioOptions, Shutdown, Tool, restored_matches};

fn scenario(version: u32, segment_mib: u32, global: &[&str], settings: &[&str]) -> Option<Scenario> {
    Scenario::start(ScenarioOptions {
        version,
        segment_mib,
        global: global.iter().map(|&line| line.to_owned()).collect(),
        settings: settings.iter().map(|&line| line.to_owned()).collect(),
        ..ScenarioOptions::default()
    })
}

/// Backup, archiving with and without a worker, and recovery, by either program.
fn whole_cycle(version: u32, segment_mib: u32) {
    let max_wal_size = format!("max_wal_size = '{}MB'", segment_mib * 8);
    let min_wal_size = format!("min_wal_size = '{}MB'", segment_mib * 2);
    let global = ["compress-type=gz", "archive-get-queue-max=256MiB", "archive-timeout=120"];
    let Some(mut scenario) = scenario(version, segment_mib, &global, &[&max_wal_size, &min_wal_size]) else { return };
    let mut global = scenario.options.global.clone();
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["check"]).success();
    scenario.rbr(&["backup"]).success();
    let load = |round: u32| {
        scenario
            .cluster
            .sql(&format!("create table load_{round} as select g, md5(g::text) from generate_series(1, 99999) g"));
        scenario.cluster.switch_wal()
    };
    load(1);
    global.push("archive-async=y".to_owned());
    scenario.configure(&global);
    load(2);
    let last = load(3);
    assert_eq!(scenario.cluster.sql("show wal_segment_size"), format!("{segment_mib}MB").replace("1024MB", "1GB"));
    let dump = scenario.cluster.dump();
    scenario.cluster.stop(Shutdown::Fast);
    scenario.pgbackrest(&["verify", "--verbose"]).success().says("status: ok").says("checksum invalid: 0");
    for (tool, name) in [(Tool::Rbr, "ours"), (Tool::PgBackRest, "theirs")] {
        let mut restored = scenario.restore(tool, name, &["--archive-mode=off"]);
        restored_matches(&mut restored, &dump);
        assert!(restored.log_text().contains(&format!("restored log file \"{last}\"")), "{}", restored.log_text());
        // Room for the next one
        fs::remove_dir_all(restored.data()).expect("remove");
    }
}

#[test]
fn segments_of_64_mib_pg17() {
    whole_cycle(17, 64);
}

#[test]
fn full_matrix_segments_of_1_gib_pg18() {
    whole_cycle(18, 1024);
}

/// The segments exceed the size that is held in memory. Several threads compress them into one stream.
#[test]
fn large_segments_compressed_by_several_threads_are_got_by_pgbackrest() {
    let settings = ["archive_command = 'false'", "max_wal_size = '1GB'", "min_wal_size = '256MB'"];
    let Some(scenario) = scenario(15, 128, &["process-max=3"], &settings) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.cluster.sql("create table load as select g, md5(g::text) from generate_series(1, 99999) g");
    let segment = scenario.cluster.switch_wal();
    let source = scenario.cluster.data().join("pg_wal").join(&segment);
    let content = fs::read(&source).expect("segment");
    assert_eq!(content.len(), 128 << 20);
    let got = scenario.space.text("got");
    for kind in ["none", "gz", "bz2", "lz4", "zst"] {
        let compress = format!("--compress-type={kind}");
        scenario.rbr(&[&compress, "archive-push", source.to_str().expect("UTF-8")]).success();
        for tool in [Tool::PgBackRest, Tool::Rbr] {
            scenario.run(tool, &["archive-get", &segment, &got]).success();
            assert!(fs::read(&got).expect("got") == content, "{kind} by {tool:?}");
        }
        scenario.pgbackrest(&["verify", "--verbose"]).success().says("status: ok").says("checksum invalid: 0");
        let folder = scenario.space.path(&format!("repo/archive/demo/15-1/{}", &segment[..16]));
        fs::remove_dir_all(folder).expect("remove");
    }
}
