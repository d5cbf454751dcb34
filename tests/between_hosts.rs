//! rbr and the real pgBackRest on the host of PostgreSQL and on that of the repository, in every combination.
//!
//! Configurations stand for hosts. Between them, a script takes the place of the SSH client, or servers on loopback speak
//! TLS. `make test` runs a selection in which every pair of properties occurs, `make test-full` all combinations of hosts
//! with all compressions and versions ([`matrix`]).

mod hosts;
mod matrix;

use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant};

use self::hosts::{Hosts, LOCKS};
use crate::env::{Cluster, Run, Tool, Tree, restored_matches};

/// The way between hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostProtocol {
    Ssh,
    Tls,
}

/// Where backups are started, and what they read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// On the host of PostgreSQL.
    Cluster,
    /// On the repository's host.
    Repository,
    /// On the repository's host, from a standby on a third one.
    Standby,
}

/// How a repository stores files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Plain,
    Bundles,
    Blocks,
}

/// What a cycle runs with.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The program on the host of PostgreSQL, and on the repository's host.
    programs: (Tool, Tool),
    way: HostProtocol,
    from: From,
    compress: &'static str,
    cipher: bool,
    stored: Stored,
    version: u32,
    asynchronous: bool,
}

const QUIET: &str = "--log-level-console=off";
/// How long a lock may stay after the command that needed it.
const LOCK_MAX: Duration = Duration::from_secs(20);

/// Runs all commands that an operator runs, and checks that each of them does what it says.
fn cycle(case: Case) {
    let Some(mut hosts) = Hosts::start(case) else { return };
    hosts.run(&["stanza-create"]).success();
    check(&hosts);
    hosts.run(&["backup", "--type=full"]).success();
    if case.from == From::Standby {
        hosts.add_standby();
        check(&hosts);
    }
    for (round, kind) in [(1, "diff"), (2, "incr")] {
        hosts.scenario.change(round);
        let run = hosts.run(&["backup", &format!("--type={kind}")]).success();
        run.says("backup begins");
    }
    assert_eq!(hosts.labels(Hosts::at_cluster), hosts.labels(Hosts::at_repository));
    assert_eq!(hosts.labels(Hosts::at_cluster).len(), 3);
    let both = [Hosts::at_cluster, Hosts::at_repository];
    let [here, there] = both.map(|at| at(&hosts, &["info", "--output=json", QUIET]).success().json());
    assert_eq!(here, there);
    for at in both {
        let verify = at(&hosts, &["verify", "--verbose", "--output=text", QUIET]).success();
        assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    }
    restore_and_heal(&hosts);
    hosts.run(&["backup", "--type=full"]).success();
    hosts.run(&["expire", "--repo1-retention-full=1"]).success();
    assert_eq!(hosts.labels(Hosts::at_cluster).len(), 1);
    hosts.scenario.archiving_ends(&LOCKS);
    hosts.run(&["stanza-upgrade"]).success();
    no_lock_is_left(&hosts);
}

/// Checks on both hosts that archiving works.
fn check(hosts: &Hosts) {
    hosts.at_cluster(&["check"]).success();
    hosts.at_repository(&["check"]).success();
}

/// Restores on the host of PostgreSQL, then damages what was restored and restores only that.
fn restore_and_heal(hosts: &Hosts) {
    let scenario = &hosts.scenario;
    scenario.cluster.switch_wal();
    let dump = scenario.cluster.dump();
    let tool = hosts.case.programs.0;
    let mut restored = scenario.restore(tool, "restored", &[]);
    // Written anew by each restore
    let read = || Tree::read_restored(&scenario.space.path("restored")).without(|path| path == "recovery.signal");
    let files = read();
    restored_matches(&mut restored, &dump);
    damage(&restored);
    scenario.restore(tool, "restored", &["--delta", "--log-level-console=detail"]);
    files.assert_same(&read());
}

/// Damages files of a cluster that is not running.
fn damage(cluster: &Cluster) {
    let base = cluster.data().join("base");
    let folders = std::fs::read_dir(base).expect("databases").flatten();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).expect("database").flatten());
    let mut files: Vec<_> = files.map(|file| (file.metadata().expect("file").len(), file.path())).collect();
    files.retain(|(_, path)| is_relation(path));
    files.sort_unstable();
    let mut largest = files.into_iter().rev().map(|(_, path)| path);
    let damaged = [(); 3].map(|()| largest.next().expect("relations"));
    std::fs::remove_file(&damaged[0]).expect("remove");
    OpenOptions::new().write(true).open(&damaged[1]).and_then(|file| file.set_len(8192)).expect("truncate");
    std::fs::write(&damaged[2], "rubbish").expect("overwrite");
}

fn is_relation(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Checks that locks go away. A client of a TLS server does not wait for the process that serves it there.
fn no_lock_is_left(hosts: &Hosts) {
    let folders = LOCKS.map(|folder| hosts.scenario.space.path(folder));
    let end = Instant::now() + LOCK_MAX;
    loop {
        let left = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        let left: Vec<_> = left.map(|entry| entry.path()).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Hosts {
    /// Runs a command where the case starts backups.
    fn run(&self, arguments: &[&str]) -> Run {
        match self.case.from {
            From::Cluster => self.at_cluster(arguments),
            From::Repository | From::Standby => self.at_repository(arguments),
        }
    }

    fn labels(&self, at: fn(&Self, &[&str]) -> Run) -> Vec<String> {
        let info = at(self, &["info", "--output=json", QUIET]).success().json();
        let backups = info[0]["backup"].as_array().expect("backups").clone();
        backups.iter().map(|backup| backup["label"].as_str().expect("label").to_owned()).collect()
    }
}
