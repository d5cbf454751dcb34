//! Several clusters, damaged pages, TLS, and what is refused.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::Hosts;
use super::failures::messages;
use crate::env::network::free_ports;
use crate::env::{Authority, Cluster, ScenarioOptions, Shutdown, Tool, restored_matches};

/// The time limit of a server's start.
const START_MAX: Duration = Duration::from_secs(60);

/// Creates a standby of the cluster from its last backup.
fn standby(hosts: &Hosts) -> Cluster {
    let scenario = &hosts.scenario;
    let conninfo = format!("--recovery-option=primary_conninfo=host={} user=postgres", scenario.cluster.socket());
    let mut standby = scenario.restore(Tool::PgBackRest, "second", &["--type=standby", &conninfo]);
    standby.start();
    let end = Instant::now() + START_MAX;
    while scenario.cluster.sql("select count(*) from pg_stat_replication where state = 'streaming'") != "1" {
        assert!(Instant::now() < end, "the standby does not follow\n{}", standby.log_text());
        std::thread::sleep(Duration::from_millis(50));
    }
    standby
}

#[test]
fn standby_on_another_host_is_backed_up_by_both_programs() {
    let bundles = ["repo1-bundle=y", "repo1-block=y", "compress-type=zst"];
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &bundles) else { return };
    hosts.rbr(&["stanza-create"]).success();
    hosts.rbr(&["backup", "--type=full"]).success();
    let standby = standby(&hosts);
    // The standby comes first, so its options become those of number 1 only for itself
    let mut stanza = hosts.cluster_options(1, "second");
    stanza.extend(hosts.cluster_options(2, "pg"));
    let mut global = bundles.to_vec();
    global.push("backup-standby=y");
    hosts.configure(&global, &stanza);
    for run in hosts.both(&["check"]) {
        run.success();
    }
    for (round, (tool, kind)) in (1u32..).zip([(Tool::Rbr, "full"), (Tool::PgBackRest, "diff"), (Tool::Rbr, "incr")]) {
        hosts.scenario.change(round);
        let run = hosts.run(tool, &["backup", &format!("--type={kind}")]).success();
        let copied = |host: &str, name: &str| {
            let place = format!("{host}.example:{}", hosts.scenario.space.text(name));
            run.stdout.lines().any(|line| line.contains("backup file") && line.contains(&place))
        };
        assert!(copied("cluster1", "second/base/") && !copied("cluster2", "pg/base/"), "{}", run.describe());
        assert!(copied("cluster2", "pg/global/pg_control"), "{}", run.describe());
    }
    // Without the standby
    drop(standby);
    for (option, code) in [("--backup-standby=y", 56), ("--backup-standby=prefer", 0)] {
        let [ours, theirs] = hosts.both(&["backup", "--type=incr", option]);
        assert_eq!((ours.code, theirs.code), (code, code), "{}\n{}", ours.describe(), theirs.describe());
        assert_eq!(messages(&ours), messages(&theirs));
        ours.says("unable to check pg1: [DbConnectError] raised from remote-0 ssh protocol on 'cluster1.example': ");
    }
    hosts.scenario.cluster.switch_wal();
    let dump = hosts.scenario.cluster.dump();
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let mut restored = hosts.scenario.restore(tool, &format!("restored-{tool:?}"), &[]);
        restored_matches(&mut restored, &dump);
    }
}

#[test]
fn damaged_pages_are_found_on_the_other_host() {
    let Some(mut hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &[]) else { return };
    hosts.rbr(&["stanza-create"]).success();
    let relation = hosts.scenario.cluster.sql("select pg_relation_filepath('plain')");
    hosts.scenario.cluster.stop(Shutdown::Fast);
    let file = File::options().write(true).open(hosts.scenario.cluster.data().join(&relation)).expect("relation");
    for page in [0, 3, 4] {
        file.write_all_at(b"damage", page * 8192 + 4000).expect("write");
    }
    hosts.scenario.cluster.start();
    let [ours, theirs] = hosts.both(&["backup", "--type=full"]);
    assert_eq!((ours.code, theirs.code), (0, 0), "{}", ours.describe());
    assert_eq!(messages(&ours), messages(&theirs));
    ours.says("invalid page checksums found in file cluster1.example:").says("at pages 0, 3-4");
    let info = hosts.rbr(&["info", "--output=json", "--log-level-console=off"]).success().json();
    assert!(info[0]["backup"].as_array().expect("backups").iter().all(|backup| backup["error"] == true), "{info}");
    let [ours, theirs] = hosts.both(&["backup", "--type=full", "--checksum-page-error", "--checksum-page"]);
    assert_eq!((ours.code == 0, theirs.code == 0), (theirs.code == 0, ours.code == 0), "{}", ours.describe());
}

#[test]
fn stop_file_and_lock_of_the_host_are_respected() {
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &[]) else { return };
    hosts.rbr(&["stanza-create"]).success();
    hosts.scenario.pgbackrest(&["stop"]).success();
    let [ours, theirs] = hosts.both(&["backup", "--type=full"]);
    assert_eq!((ours.code, theirs.code), (56, 56), "{}", ours.describe());
    assert_eq!(messages(&ours), messages(&theirs));
    ours.says(
        "unable to check pg1: [StopError] raised from remote-0 ssh protocol on 'cluster1.example': stop file exists",
    );
    hosts.scenario.pgbackrest(&["start"]).success();
    // While one backup runs, the lock there is held
    let arguments = [format!("--config={}", hosts.scenario.space.text(super::NEAR)), "--stanza=demo".to_owned()];
    let slow = r#"case "$last" in *--process=0*) ;; *) sleep 8;; esac; exec sh -c "$last""#;
    hosts.set_client(slow);
    let all = [arguments.as_slice(), &["backup".to_owned(), "--type=full".to_owned()]].concat();
    let mut running = hosts.scenario.space.start(hosts.scenario.program(Tool::Rbr), &all);
    let end = Instant::now() + START_MAX;
    while !hosts.scenario.space.path("lock/demo-backup-1.lock").exists() {
        assert!(Instant::now() < end, "no lock:\n{}", running.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let other = hosts.scenario.space.folder("other-lock");
    let option = format!("--lock-path={}", other.display());
    let [ours, theirs] = hosts.both(&["stanza-upgrade", &option]);
    assert_eq!(messages(&ours), messages(&theirs));
    ours.says("[LockAcquireError] raised from remote-0");
    assert_eq!(running.wait(), 0, "{}", running.log());
}

#[test]
fn commands_of_the_cluster_are_refused_elsewhere() {
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &[]) else { return };
    let segment = "000000010000000000000001";
    for command in [&["restore"][..], &["archive-get", segment, "/x"], &["archive-push", "/x"]] {
        let [ours, theirs] = hosts.both(command);
        assert_eq!((ours.code, ours.error()), (theirs.code, theirs.error()));
        ours.fails(72).says(&format!("{} command must be run on the PostgreSQL host", command[0]));
    }
    for run in hosts.both(&["backup", "--repo1-host=elsewhere"]) {
        run.fails(27).says("pg and repo hosts cannot both be configured as remote");
    }
    // A process on the cluster's own host sets this
    for run in hosts.both(&["stanza-create", "--pg1-local", "--pg1-host=x"]) {
        run.fails(31);
    }
}

#[test]
fn cluster_behind_tls_is_backed_up() {
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &[]) else { return };
    let space = &hosts.scenario.space;
    Authority::new(space, "ca").issue("server", "cluster", "DNS:localhost").issue("client", "repository", "");
    let (port, file) = (free_ports(1), |name: &str| space.text(&format!("tls/{name}")));
    let mut server = vec!["[global]".to_owned()];
    let folders = [("log-path", "far-log"), ("lock-path", "lock")];
    server.extend(folders.map(|(option, folder)| format!("{option}={}", space.folder(folder).display())));
    server.extend(
        [("ca", "ca.crt"), ("cert", "server.crt"), ("key", "server.key")]
            .map(|(option, name)| format!("tls-server-{option}-file={}", file(name))),
    );
    server.push(format!("tls-server-address=127.0.0.1\ntls-server-port={port}\ntls-server-auth=repository=demo\n"));
    space.write("server.conf", server.join("\n"));
    let config = format!("--config={}", space.text("server.conf"));
    let _server = space.start(hosts.scenario.program(Tool::PgBackRest), &[&config, "server"]);
    let end = Instant::now() + START_MAX;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "the server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut stanza = hosts.cluster_options(1, "pg");
    stanza.retain(|option| {
        !option.contains("-host=") && !option.contains("-host-user=") && !option.contains("-host-cmd=")
    });
    stanza.extend([
        "pg1-host=localhost".to_owned(),
        "pg1-host-type=tls".to_owned(),
        format!("pg1-host-port={port}"),
        format!("pg1-host-ca-file={}", file("ca.crt")),
        format!("pg1-host-cert-file={}", file("client.crt")),
        format!("pg1-host-key-file={}", file("client.key")),
    ]);
    hosts.configure(&["repo1-bundle=y", "repo1-block=y"], &stanza);
    for run in hosts.both(&["stanza-create"]) {
        run.success();
    }
    for (tool, kind) in [(Tool::Rbr, "full"), (Tool::PgBackRest, "diff"), (Tool::Rbr, "incr")] {
        hosts.run(tool, &["backup", &format!("--type={kind}")]).success().says("backup file localhost:");
    }
    hosts.scenario.cluster.switch_wal();
    let dump = hosts.scenario.cluster.dump();
    let mut restored = hosts.scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
}
