//! Hosts that are far apart: TLS through a passage that delays everything by 20 ms in either direction.

use std::time::{Duration, Instant};

use crate::env::{DistantHosts, Far, Tool, restored_matches};

/// The delay in each direction.
const DELAY: Duration = Duration::from_millis(20);
/// The time limit of the end of what a server has started.
const END_MAX: Duration = Duration::from_secs(20);

/// The time that one round trip for each file of the cluster would take.
fn time_of_round_trips(hosts: &DistantHosts) -> Duration {
    let count = hosts
        .scenario
        .cluster
        .sql("select count(*) from pg_class where relkind in ('r', 't', 'i') and pg_relation_size(oid) > 0");
    2 * DELAY * count.parse().unwrap_or(0)
}

/// Runs rbr, and returns how long it took.
fn time(hosts: &DistantHosts, arguments: &[&str]) -> Duration {
    let begin = Instant::now();
    hosts.run(Tool::Rbr, arguments).success();
    begin.elapsed()
}

#[test]
fn small_files_of_a_distant_cluster_do_not_take_a_round_trip_each() {
    let Some(hosts) = DistantHosts::start(DELAY, Far::Cluster, Tool::Rbr, &["repo1-bundle=y", "compress-type=zst"])
    else {
        return;
    };
    hosts.create_tables(1000);
    hosts.run(Tool::Rbr, &["stanza-create"]).success();
    let (taken, limit) = (time(&hosts, &["backup", "--type=full"]), time_of_round_trips(&hosts));
    assert!(limit > Duration::from_secs(40), "{limit:?}");
    assert!(taken < limit / 2, "{taken:?} of {limit:?}");
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
        let Some(hosts) = DistantHosts::start(DELAY, Far::Repository, server, &["compress-type=zst"]) else { return };
        hosts.create_tables(1000);
        hosts.run(Tool::Rbr, &["stanza-create"]).success();
        let limit = time_of_round_trips(&hosts);
        // A file is opened, written and closed
        let taken = time(&hosts, &["backup", "--type=full"]);
        assert!(taken < limit, "{server:?}: {taken:?} of {limit:?}");
        let target = hosts.scenario.space.folder("target");
        let taken = time(&hosts, &["restore", &format!("--pg1-path={}", target.display()), "--type=immediate"]);
        assert!(taken < limit / 2, "{server:?}: {taken:?} of {limit:?}");
    }
}

#[test]
fn connection_that_is_cut_in_the_middle_of_a_job_ends_the_backup() {
    let near = ["repo1-bundle=y", "compress-type=zst", "job-retry=0"];
    let Some(hosts) = DistantHosts::start(DELAY, Far::Cluster, Tool::Rbr, &near) else { return };
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
