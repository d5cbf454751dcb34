//! Chains of backups from a standby, across timeline switches.

use std::fs;
use std::time::{Duration, Instant};

use super::chain::Chain;
use crate::env::{Cluster, Scenario, ScenarioOptions, Shutdown, Tool};

/// Makes the server on a restored copy archive like the original.
fn make_original(scenario: &Scenario, copy: &Cluster) {
    let path = copy.data().join("postgresql.conf");
    let text = fs::read_to_string(&path).expect("postgresql.conf");
    fs::write(path, text.replace(&scenario.cluster.socket(), &copy.socket())).expect("postgresql.conf");
}

/// Creates a standby of the scenario's cluster from its last backup.
fn standby(scenario: &Scenario, tool: Tool, name: &str) -> Cluster {
    let conninfo = format!("--recovery-option=primary_conninfo=host={} user=postgres", scenario.cluster.socket());
    let mut standby = scenario.restore(tool, name, &["--type=standby", &conninfo]);
    make_original(scenario, &standby);
    standby.start();
    let end = Instant::now() + Duration::from_secs(60);
    while scenario.cluster.sql("select count(*) from pg_stat_replication where state = 'streaming'") != "1" {
        assert!(Instant::now() < end, "the standby does not follow\n{}", standby.log_text());
        std::thread::sleep(Duration::from_millis(50));
    }
    standby
}

/// A backup that reads from the standby.
fn from_standby(chain: &mut Chain, tool: Tool, kind: &str, standby: &Cluster) {
    let (path, socket) =
        (format!("--pg2-path={}", standby.data_text()), format!("--pg2-socket-path={}", standby.socket()));
    let run = chain.add(tool, kind, &["--backup-standby=y", &path, &socket, "--pg2-user=postgres"]);
    let run = run.says("wait for replay on the standby to reach ");
    // Relations come from the standby, files of the server itself from the primary
    let copied = |cluster: &Cluster, name: &str| {
        let path = format!("{}/{name}", cluster.data_text());
        run.stdout.lines().any(|line| line.contains("backup file") && line.contains(&path))
    };
    assert!(copied(standby, "base/") && !copied(&chain.scenario.cluster, "base/"), "{}", run.describe());
    assert!(copied(&chain.scenario.cluster, "global/pg_control"), "{}", run.describe());
}

#[test]
fn chain_from_standbys_goes_on_after_switches_of_the_timeline() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 17,
        global: ["compress-type=zst", "repo1-bundle=y", "repo1-block=y"].map(str::to_owned).to_vec(),
        tablespace: true,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    let mut chain = Chain::new(scenario);
    chain.add(Tool::PgBackRest, "full", &[]);
    let mut turns = [Tool::Rbr, Tool::PgBackRest].into_iter().cycle();
    for name in ["second", "third"] {
        let (first, second) = (turns.next().expect("endless"), turns.next().expect("endless"));
        let standby = standby(&chain.scenario, first, name);
        from_standby(&mut chain, first, "diff", &standby);
        from_standby(&mut chain, second, "incr", &standby);

        // The standby takes over, and with it begins another timeline
        chain.scenario.cluster.stop(Shutdown::Fast);
        standby.sql("select pg_promote()");
        standby.wait_writable();
        chain.scenario.cluster = standby;
        let global = chain.scenario.options.global.clone();
        chain.scenario.configure(&global);
        let run = chain.add(first, "incr", &[]);
        run.says("a timeline switch has occurred since the ").says("enabling delta checksum");
        // So that the other program begins the next round
        turns.next();
    }
    chain.check();
}
