//! Hosts that are far apart: TLS through a passage that delays everything, or that counts round trips.

use std::time::{Duration, Instant};

use crate::env::{DistantHosts, Far, Link, Tool, restored_matches};

/// The delay in each direction.
const DELAY: Duration = Duration::from_millis(20);
/// The time after which both sides wait for an answer.
const QUIET: Duration = Duration::from_millis(40);
/// The time limit of the end of what a server has started.
const END_MAX: Duration = Duration::from_secs(20);

/// A link whose round trips are counted.
fn counted() -> Link {
    Link { answers_wait: QUIET, ..Link::default() }
}

/// Returns the number of files of the cluster.
fn count_files(hosts: &DistantHosts) -> usize {
    let query = "select count(*) from pg_class where relkind in ('r', 't', 'i') and pg_relation_size(oid) > 0";
    hosts.scenario.cluster.sql(query).parse().expect("a number")
}

/// Runs rbr, and returns the number of round trips.
fn rounds(hosts: &DistantHosts, arguments: &[&str]) -> usize {
    hosts.passage.take_rounds();
    hosts.run(Tool::Rbr, arguments).success();
    hosts.passage.take_rounds()
}

#[test]
fn small_files_of_a_distant_cluster_do_not_take_a_round_trip_each() {
    let Some(hosts) = DistantHosts::start(counted(), Far::Cluster, Tool::Rbr, &["repo1-bundle=y", "compress-type=zst"])
    else {
        return;
    };
    hosts.create_tables(200);
    hosts.run(Tool::Rbr, &["stanza-create"]).success();
    let files = count_files(&hosts);
    hosts.passage.take_passed();
    let rounds = rounds(&hosts, &["backup", "--type=full"]);
    assert!(files > 350 && rounds > 1 && rounds < files / 2, "{rounds} round trips for {files} files");
    // Compressed on the way
    let size: u64 = hosts.scenario.cluster.sql("select sum(pg_database_size(oid)) from pg_database").parse().unwrap();
    let [sent, received] = hosts.passage.take_passed();
    assert!(sent + received < size / 2, "{sent} and {received} of {size}");
    hosts.scenario.cluster.switch_wal();
    let dump = hosts.scenario.cluster.dump();
    let mut restored = hosts.scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
}

#[test]
fn files_of_a_distant_repository_are_read_and_written_many_at_a_time() {
    for server in [Tool::Rbr, Tool::PgBackRest] {
        let Some(hosts) = DistantHosts::start(counted(), Far::Repository, server, &["compress-type=zst"]) else {
            return;
        };
        hosts.create_tables(200);
        hosts.run(Tool::Rbr, &["stanza-create"]).success();
        let files = count_files(&hosts);
        // A file is opened, written and closed, each of which could take a round trip
        let written = rounds(&hosts, &["backup", "--type=full"]);
        let target = hosts.scenario.space.folder("target");
        let read = rounds(&hosts, &["restore", &format!("--pg1-path={}", target.display()), "--type=immediate"]);
        assert!(files > 350 && read > 1, "{server:?}: {read} round trips for {files} files");
        // 220 with rbr there and 373 with pgBackRest, of 413 files. Several are on their way in each round trip. One round trip
        // more per file would exceed the limit, and a slow machine has some more than a fast one
        let written_max = if server == Tool::Rbr { files * 3 / 4 } else { files * 5 / 4 };
        assert!(written < written_max, "{server:?}: {written} round trips for {files} files that are written");
        assert!(read < files / 2, "{server:?}: {read} round trips for {files} files that are read");
    }
}

#[test]
fn connection_that_is_cut_in_the_middle_of_a_job_ends_the_backup() {
    let near = ["repo1-bundle=y", "compress-type=zst", "job-retry=0"];
    let Some(hosts) = DistantHosts::start(Link { delay: DELAY, ..Link::default() }, Far::Cluster, Tool::Rbr, &near)
    else {
        return;
    };
    hosts.run(Tool::Rbr, &["stanza-create"]).success();
    let mut cuts = 0;
    for bytes in [400_000, 700_000, 1_000_000] {
        hosts.passage.cut_after(&[bytes]);
        let run = hosts.run(Tool::Rbr, &["backup", "--type=full"]);
        assert!(run.code != 0 && run.stdout.contains("localhost"), "{bytes}: {}", run.describe());
        assert!(hosts.passage.cuts() > cuts && hosts.scenario.labels().is_empty(), "{bytes}: {}", run.describe());
        cuts = hosts.passage.cuts();
        // The processes there notice that they are alone, and their locks end with them
        let end = Instant::now() + END_MAX;
        while hosts.server.child_count() > 0 {
            assert!(Instant::now() < end, "processes go on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    hosts.passage.cut_after(&[]);
    hosts.run(Tool::Rbr, &["backup", "--type=full"]).success();
    hosts.scenario.cluster.switch_wal();
    let dump = hosts.scenario.cluster.dump();
    let mut restored = hosts.scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
}
