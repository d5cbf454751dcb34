//! What an operator does, on three hosts with a slow network between them: a repository's host with a server, a primary, a
//! replica that is made from the repository, failover, and the old primary that is healed. In the middle connections are
//! cut, the server is killed, and hosts are out of reach.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::env::{
    Authority, Background, Cluster, Link, Network, Passage, Run, Scenario, ScenarioOptions, Shutdown, Tool,
    restored_matches,
};

/// The hosts.
const REPOSITORY: usize = 0;
const ONE: usize = 1;
const TWO: usize = 2;
/// The port of the server, behind the link.
const PORT: u16 = 8432;
const LIMIT: Duration = Duration::from_secs(90);

/// A host of PostgreSQL: its number, configuration and data directory.
#[derive(Clone, Copy)]
struct Place {
    host: usize,
    config: &'static str,
    data: &'static str,
}

const PLACE_ONE: Place = Place { host: ONE, config: "pgbackrest.conf", data: "pg" };
const PLACE_TWO: Place = Place { host: TWO, config: "two.conf", data: "second" };

struct Fleet {
    /// The server, while it runs.
    server: Option<Background>,
    /// What clients connect to.
    link: Option<Passage>,
    scenario: Scenario,
    network: Network,
}

fn append(path: &Path, text: &str) {
    let file = fs::OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("append");
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Fleet {
    fn start() -> Option<Self> {
        let network = Network::start(3)?;
        let settings =
            vec![format!("listen_addresses = '{}'", network.address(ONE)), "wal_keep_size = 64MB".to_owned()];
        let options = ScenarioOptions { settings, ..ScenarioOptions::default() };
        let scenario = network.on(ONE, || Scenario::start(options))?;
        let (space, address) = (&scenario.space, network.address(REPOSITORY));
        append(&scenario.cluster.data().join("pg_hba.conf"), "host replication all samenet trust\n");
        scenario.cluster.sql("select pg_reload_conf()");
        Authority::new(space, "ca")
            .issue("server", "repository", &format!("IP:{address}"))
            .issue("client", "pg-host", "");
        let mut fleet = Fleet { server: None, link: None, scenario, network };
        fleet.serve();
        let delay = if fleet.network.is_slow() { Duration::ZERO } else { Duration::from_millis(10) };
        let link = Link { delay, one_lost_of: 100, ..Link::default() };
        fleet.link = Some(fleet.network.on(REPOSITORY, || Passage::start_with(&address, PORT, link)));
        fleet.configure(PLACE_ONE);
        fleet.configure(PLACE_TWO);
        Some(fleet)
    }

    /// Starts the server of the repository's host.
    fn serve(&mut self) {
        let space = &self.scenario.space;
        let mut lines = vec!["[global]".to_owned(), "log-level-file=off".to_owned()];
        for (option, folder) in [("repo1", "repo"), ("log", "far-log"), ("lock", "far-lock")] {
            lines.push(format!("{option}-path={}", space.folder(folder).display()));
        }
        let file = |name: &str| space.text(&format!("tls/{name}"));
        lines.extend([
            "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=only-there".to_owned(),
            format!("tls-server-address=127.0.0.1\ntls-server-port={PORT}\ntls-server-auth=pg-host=demo"),
            format!("tls-server-ca-file={}\ntls-server-cert-file={}", file("ca.crt"), file("server.crt")),
            format!("tls-server-key-file={}\n[demo]\n", file("server.key")),
        ]);
        space.write("repository.conf", lines.join("\n"));
        let arguments = [format!("--config={}", space.text("repository.conf")), "server".to_owned()];
        let program = self.scenario.program(Tool::Rbr);
        let mut server = self.network.on(REPOSITORY, || space.start_with_log("server", program, &arguments));
        eventually("the server does not listen", || {
            assert!(server.is_running(), "{}", server.log());
            self.network.on(REPOSITORY, || std::net::TcpStream::connect(("127.0.0.1", PORT)).is_ok())
        });
        self.server = Some(server);
    }

    /// Kills the server with the processes that serve.
    fn kill_server(&mut self) {
        let mut server = self.server.take().expect("a server");
        assert!(!server.log().contains("panic"), "{}", server.log());
        assert!(server.kill());
    }

    /// Writes the configuration of a host of PostgreSQL.
    fn configure(&self, place: Place) {
        let space = &self.scenario.space;
        let mut lines = vec!["[global]".to_owned()];
        for folder in ["log", "lock", "spool"] {
            lines.push(format!("{folder}-path={}", space.folder(&format!("{}-{folder}", place.data)).display()));
        }
        let file = |name: &str| space.text(&format!("tls/{name}"));
        lines.extend([
            format!("repo1-host={}\nrepo1-host-type=tls", self.network.address(REPOSITORY)),
            format!("repo1-host-port={}", self.link().port()),
            format!("repo1-host-ca-file={}\nrepo1-host-cert-file={}", file("ca.crt"), file("client.crt")),
            format!("repo1-host-key-file={}", file("client.key")),
            "repo1-bundle=y\nrepo1-block=y\ncompress-type=zst\nprocess-max=2\nstart-fast=y\nio-timeout=5".to_owned(),
            "db-timeout=25\nprotocol-timeout=30".to_owned(),
            "repo1-retention-full=2\nlog-level-console=detail\nlog-level-file=off\narchive-timeout=60".to_owned(),
            format!("[demo]\npg1-path={}\npg1-user=postgres", space.text(place.data)),
            format!("pg1-socket-path={}\n", space.text(&format!("{}-socket", place.data))),
        ]);
        space.write(place.config, lines.join("\n"));
    }

    fn link(&self) -> &Passage {
        self.link.as_ref().expect("a link")
    }

    fn arguments(&self, place: Place, arguments: &[&str]) -> Vec<String> {
        let mut all = vec![format!("--config={}", self.scenario.space.text(place.config)), "--stanza=demo".to_owned()];
        all.extend(arguments.iter().map(ToString::to_string));
        all
    }

    /// Runs rbr on a host of PostgreSQL.
    fn run(&self, place: Place, arguments: &[&str]) -> Run {
        let all = self.arguments(place, arguments);
        self.network.on(place.host, || self.scenario.space.run(self.scenario.program(Tool::Rbr), &all))
    }

    fn run_background(&self, place: Place, arguments: &[&str]) -> Background {
        let all = self.arguments(place, arguments);
        self.network.on(place.host, || self.scenario.space.start(self.scenario.program(Tool::Rbr), &all))
    }

    /// Restores a standby that follows the server of another host, and starts it.
    fn follow(&self, place: Place, primary: Place, options: &[&str]) -> Cluster {
        let address = self.network.address(primary.host);
        let conninfo = format!("--recovery-option=primary_conninfo=host={address} user=postgres");
        let arguments = [&["restore", "--type=standby", &conninfo], options].concat();
        self.run(place, &arguments).success();
        let mut cluster = Cluster::existing(&self.scenario.space, self.scenario.oracles, 15, place.data);
        // The backup has the settings of the host that it was made on
        let settings = format!(
            "listen_addresses = '{}'\nunix_socket_directories = '{}'\narchive_command = '{} --config={} --stanza=demo \
             archive-push %p'\n",
            self.network.address(place.host),
            cluster.socket(),
            self.scenario.program(Tool::Rbr).display(),
            self.scenario.space.text(place.config),
        );
        append(&cluster.data().join("postgresql.conf"), &settings);
        self.network.on(place.host, || cluster.start());
        cluster
    }

    fn repository_bytes(&self) -> u64 {
        let run = self.scenario.space.run("du", &["-sb", &self.scenario.space.text("repo/backup/demo")]);
        run.stdout.split_whitespace().next().and_then(|size| size.parse().ok()).unwrap_or(0)
    }
}

/// Waits until a standby has what the primary has now.
#[track_caller]
fn catches_up(primary: &Cluster, standby: &Cluster) {
    let position = primary.sql("select pg_current_wal_lsn()");
    let replayed = format!("select coalesce(pg_last_wal_replay_lsn() >= '{position}', false)");
    eventually("the standby does not follow", || standby.try_sql(&replayed).stdout.trim() == "t");
}

/// Waits until a segment is in the archive.
#[track_caller]
fn is_archived(cluster: &Cluster, segment: &str) {
    let archived = format!("select coalesce(last_archived_wal >= '{segment}', false) from pg_stat_archiver");
    eventually("the segment is not archived", || cluster.sql(&archived) == "t");
}

#[test]
fn replica_is_made_from_the_repository_takes_over_and_the_old_primary_is_healed() {
    let Some(mut fleet) = Fleet::start() else { return };
    fleet.run(PLACE_ONE, &["stanza-create"]).success();
    fleet.run(PLACE_ONE, &["check"]).success();
    backup_in_spite_of_cuts(&mut fleet);
    archive_while_the_server_is_down(&mut fleet);

    // The replica
    let two = fleet.follow(PLACE_TWO, PLACE_ONE, &[]);
    fleet.scenario.change(1);
    catches_up(&fleet.scenario.cluster, &two);
    let info = fleet.run(PLACE_TWO, &["info", "--output=json", "--log-level-console=off"]).success().json();
    assert_eq!(info[0]["backup"].as_array().map(Vec::len), Some(1), "{info}");

    // The primary loses the network, goes on for a while and dies
    fleet.network.set_plugged(ONE, false);
    fleet.scenario.cluster.sql("create table only_on_one as select 1 as id");
    fleet.scenario.cluster.sql("select pg_switch_wal()");
    std::thread::sleep(Duration::from_secs(1));
    fleet.scenario.cluster.stop(Shutdown::Immediate);
    two.sql("select pg_promote()");
    two.wait_writable();
    two.sql("create table only_on_two as select g as id from generate_series(1, 1000) g");
    fleet.run(PLACE_TWO, &["check"]).success();
    fleet.run(PLACE_TWO, &["backup", "--type=incr"]).success();
    two.sql("insert into only_on_two select g from generate_series(1001, 2000) g");
    two.switch_wal();

    // The old primary is healed
    fleet.network.set_plugged(ONE, true);
    heal(&fleet, &two);
    verify(&fleet, &two);
}

/// Makes a backup, at the third attempt.
fn backup_in_spite_of_cuts(fleet: &mut Fleet) {
    fleet.link().cut_after(&[3 << 20]);
    let run = fleet.run(PLACE_ONE, &["backup", "--type=full"]);
    assert!(run.code != 0 && fleet.link().cuts() == 1, "{}", run.describe());
    run.says(&fleet.network.address(REPOSITORY));
    let before = fleet.repository_bytes();
    let mut backup = fleet.run_background(PLACE_ONE, &["backup", "--type=full"]);
    eventually("nothing is stored", || fleet.repository_bytes() > before + (1 << 20) || !backup.is_running());
    fleet.kill_server();
    let (code, log) = (backup.wait(), backup.log());
    assert!(code != 0 && log.contains(&fleet.network.address(REPOSITORY)), "{log}");
    fleet.serve();
    // What holds locks of the killed processes is gone
    fleet.run(PLACE_ONE, &["backup", "--type=full"]).success().says("new backup label");
}

/// Loses no WAL although the server is down for a while.
fn archive_while_the_server_is_down(fleet: &mut Fleet) {
    fleet.kill_server();
    let cluster = &fleet.scenario.cluster;
    cluster.sql("create table while_down as select g as id from generate_series(1, 1000) g");
    let segment = cluster.switch_wal();
    eventually("the push does not fail", || cluster.sql("select failed_count > 0 from pg_stat_archiver") == "t");
    fleet.serve();
    let cluster = &fleet.scenario.cluster;
    // Wakes the archiver
    cluster.switch_wal();
    is_archived(cluster, &segment);
}

/// Makes the old primary a standby of the new one. Its connection is cut once.
fn heal(fleet: &Fleet, two: &Cluster) {
    let before = fleet.link().cuts();
    fleet.link().cut_after(&[200_000]);
    let run = fleet.run(PLACE_ONE, &["restore", "--delta", "--type=standby"]);
    assert_eq!(fleet.link().cuts(), before + 1);
    assert!(run.code != 0, "{}", run.describe());
    let mut one = fleet.follow(PLACE_ONE, PLACE_TWO, &["--delta"]);
    catches_up(two, &one);
    // It may have caught up from the archive before it connects
    let streams = || two.sql("select count(*) from pg_stat_replication where state = 'streaming'") == "1";
    eventually("the standby does not stream", streams);
    assert_eq!(one.sql("select count(*) from only_on_two"), "2000");
    assert_eq!(one.sql("select to_regclass('only_on_one') is null"), "t");
    assert_eq!(one.dump(), two.dump());
    one.stop(Shutdown::Fast);
}

/// Checks the repository on its host with both programs, and restores all with the real pgBackRest.
fn verify(fleet: &Fleet, two: &Cluster) {
    let scenario = &fleet.scenario;
    let config = format!("--config={}", scenario.space.text("repository.conf"));
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let arguments = [&config, "--stanza=demo", "verify", "--verbose", "--output=text", "--log-level-console=off"]
            .map(str::to_owned);
        let run = scenario.space.run(scenario.program(tool), &arguments).success();
        assert!(run.stdout.contains("status: ok"), "{}", run.describe());
    }
    let dump = two.dump();
    is_archived(two, &two.switch_wal());
    let data = scenario.space.folder("third");
    let path = format!("--pg1-path={}", data.display());
    let arguments = fleet.arguments(PLACE_TWO, &["restore", &path]);
    let program = scenario.program(Tool::PgBackRest);
    fleet.network.on(TWO, || scenario.space.run(program, &arguments).success());
    append(&data.join("postgresql.conf"), "listen_addresses = ''\n");
    let mut third = Cluster::existing(&scenario.space, scenario.oracles, 15, "third");
    fleet.network.on(TWO, || restored_matches(&mut third, &dump));
}
