//! rbr as the far side of commands on other hosts: of the real pgBackRest, and of rbr itself.
//!
//! Two configurations stand for two hosts, PostgreSQL's and the repository's. A script takes the place of the SSH client
//! and runs the command on this host.

mod answers;
mod hostile;
mod refusals;

use crate::env::{Cluster, Run, Scenario, ScenarioOptions, Tool, restored_matches};
use crate::repository_host::SSH;

/// The configuration of the repository's host.
const REPO_CONF: &str = "repository.conf";

/// A cluster on one host and its repository on another one.
struct Hosts {
    scenario: Scenario,
    /// The program that the commands run.
    near: Tool,
}

impl Hosts {
    /// `repository` are further options of the repository's host, `cluster` those of PostgreSQL's host. The far side is
    /// always rbr.
    fn start(near: Tool, options: ScenarioOptions, repository: &[&str], cluster: &[&str]) -> Option<Self> {
        let scenario = Scenario::start(ScenarioOptions { archive_with: near, ..options })?;
        let space = &scenario.space;
        space.write_program("ssh", SSH);
        let far = scenario.program(Tool::Rbr);
        let host = |option: &str, config: &str| {
            vec![
                format!("{option}-host=other.example"),
                format!("{option}-host-user=other"),
                format!("{option}-host-cmd={}", far.display()),
                format!("{option}-host-config={}", space.text(config)),
            ]
        };
        let ssh = format!("cmd-ssh={}", space.text("ssh"));
        let mut lines = vec!["[global]".to_owned(), ssh.clone()];
        for (option, folder) in
            [("repo1-path", "repo"), ("log-path", "far-log"), ("lock-path", "far-lock"), ("spool-path", "far-spool")]
        {
            lines.push(format!("{option}={}", space.folder(folder).display()));
        }
        let shared = ["log-level-console=detail", "log-level-file=off", "start-fast=y", "archive-timeout=30"];
        lines.extend(shared.map(str::to_owned));
        lines.extend(["repo1-retention-full=9".to_owned(), "process-max=2".to_owned()]);
        lines.extend(repository.iter().map(ToString::to_string));
        lines.push("[demo]".to_owned());
        lines.extend(host("pg1", "pgbackrest.conf"));
        lines.push(format!("pg1-path={}", scenario.cluster.data_text()));
        lines.push(format!("pg1-socket-path={}", scenario.cluster.socket()));
        lines.push("pg1-user=postgres".to_owned());
        space.write(REPO_CONF, lines.join("\n") + "\n");
        let mut global = host("repo1", REPO_CONF);
        global.push(ssh);
        global.extend(cluster.iter().map(ToString::to_string));
        scenario.configure(&global);
        Some(Hosts { scenario, near })
    }

    /// Runs a command on the repository's host.
    fn at_repository(&self, arguments: &[&str]) -> Run {
        let config = format!("--config={}", self.scenario.space.text(REPO_CONF));
        let mut all = vec![config.as_str(), "--stanza=demo"];
        all.extend(arguments);
        self.scenario.space.run(self.scenario.program(self.near), &all)
    }

    /// Runs a command on PostgreSQL's host.
    fn at_cluster(&self, arguments: &[&str]) -> Run {
        self.scenario.run(self.near, arguments)
    }

    /// Restores on PostgreSQL's host and checks the data.
    fn restored(&self, name: &str) -> Cluster {
        self.scenario.cluster.switch_wal();
        let dump = self.scenario.cluster.dump();
        let mut restored = self.scenario.restore(self.near, name, &[]);
        restored_matches(&mut restored, &dump);
        restored
    }

    /// Backups, checks and reports that run on either host.
    fn cycle(&self, run: fn(&Self, &[&str]) -> Run) {
        let scenario = &self.scenario;
        run(self, &["stanza-create"]).success();
        run(self, &["check"]).success();
        for (round, kind) in ["full", "diff", "incr"].into_iter().enumerate() {
            scenario.change(u32::try_from(round + 1).expect("round"));
            run(self, &["backup", &format!("--type={kind}")]).success();
        }
        self.at_cluster(&["check"]).success();
        let verify = run(self, &["verify", "--verbose", "--output=text", "--log-level-console=off"]).success();
        assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
        self.restored("restored");
        let label = self.labels().pop().expect("a backup");
        run(self, &["annotate", &format!("--set={label}"), "--annotation=note=far"]).success();
        let listed = run(self, &["repo-ls", "backup/demo", "--log-level-console=off"]).success().stdout;
        assert!(listed.contains(&label), "{listed}");
        run(self, &["backup", "--type=full", "--repo1-retention-full=1"]).success();
        assert_eq!(self.labels().len(), 1);
        scenario.archiving_ends(&["lock", "far-lock"]);
        run(self, &["stanza-upgrade"]).success();
        let got = run(self, &["repo-get", "backup/demo/backup.info", "--log-level-console=off"]).success().stdout;
        assert!(got.contains("[backup:current]"), "{got}");
        // Over a connection there are no links, so nothing is called latest
        let label = self.labels().pop().expect("a backup");
        run(self, &["manifest", &format!("--set={label}"), "--log-level-console=off"]).success();
        let locks = ["lock", "far-lock"].map(|folder| scenario.space.path(folder));
        let left = locks.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn labels(&self) -> Vec<String> {
        let info = self.at_cluster(&["info", "--output=json", "--log-level-console=off"]).success().json();
        let backups = info[0]["backup"].as_array().expect("backups").clone();
        backups.iter().map(|backup| backup["label"].as_str().expect("label").to_owned()).collect()
    }
}

#[test]
fn pgbackrest_on_the_clusters_host_uses_a_repository_that_rbr_serves() {
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &[], &[]) else { return };
    hosts.cycle(Hosts::at_cluster);
}

#[test]
fn pgbackrest_on_the_repositorys_host_backs_up_a_cluster_that_rbr_serves() {
    let options = ScenarioOptions { tablespace: true, ..ScenarioOptions::default() };
    let Some(hosts) = Hosts::start(
        Tool::PgBackRest,
        options,
        &[
            "repo1-bundle=y",
            "repo1-block=y",
            "compress-type=zst",
            "repo1-cipher-type=aes-256-cbc",
            "repo1-cipher-pass=only-there",
        ],
        &["archive-async=y"],
    ) else {
        return;
    };
    hosts.cycle(Hosts::at_repository);
}

#[test]
fn rbr_on_the_clusters_host_uses_a_repository_that_rbr_serves() {
    let Some(hosts) = Hosts::start(
        Tool::Rbr,
        ScenarioOptions::default(),
        &["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=only-there"],
        &["repo1-bundle=y", "repo1-block=y", "compress-type=lz4", "archive-async=y"],
    ) else {
        return;
    };
    hosts.cycle(Hosts::at_cluster);
}

#[test]
fn pgbackrest_uses_an_encrypted_repository_of_format_6_that_rbr_serves() {
    let secret = ["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=only-there"];
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &secret, &["compress-type=zst"])
    else {
        return;
    };
    hosts.at_repository(&["stanza-create", "--repo1-format=6"]).success();
    // Segments get the header of this format on the repository's host, and lose it there when they are verified
    hosts.at_cluster(&["check"]).success();
    hosts.at_cluster(&["backup", "--type=full"]).success();
    let verify = hosts.at_cluster(&["verify", "--verbose", "--output=text", "--log-level-console=off"]).success();
    assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    hosts.restored("restored");
    let segment =
        hosts.scenario.space.run("find", &[&hosts.scenario.space.text("repo/archive/demo/15-1"), "-name", "*.zst"]);
    let segment = segment.stdout.lines().next().expect("a segment").to_owned();
    assert!(std::fs::read(&segment).expect("segment").starts_with(b"PGBR006K\x011"), "{segment}");
}

#[test]
fn pgbackrest_uses_a_repository_in_s3_that_rbr_serves() {
    let Some(weed) = crate::env::Weed::start() else { return };
    let options = weed.options(weed.port());
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["repo1-bundle=y", "repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=only-there"]);
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &options, &["compress-type=lz4"])
    else {
        return;
    };
    hosts.cycle(Hosts::at_cluster);
}

#[test]
fn full_matrix_of_sftp_behind_rbr() {
    let Some(sshd) = crate::env::Sshd::start_usual() else { return };
    let options = sshd.usual_options(sshd.port());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &options, &[]) else { return };
    hosts.cycle(Hosts::at_cluster);
}
