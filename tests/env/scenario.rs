//! A cluster with data, a repository, and both programs configured for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Shutdown};
use super::command::{Background, Run, Tool};
use super::config::config_text;
use super::oracle::{Oracles, oracles};
use super::space::Space;
use super::template::Template;

/// The stanza of every scenario.
pub const STANZA: &str = "demo";

/// Options of every configuration that does not override them.
const DEFAULTS: [&str; 7] = [
    // Better compression only takes time
    "compress-level=1",
    "log-level-console=detail",
    "log-level-file=off",
    "start-fast=y",
    "archive-timeout=30",
    "repo1-retention-full=9",
    "process-max=2",
];

/// The content of every cluster: tables, indexes, out-of-line values, and names that are not plain.
const CONTENT: &str = "create table plain(id int primary key, note text not null);
    insert into plain select g, md5(g::text) from generate_series(1, 20000) g;
    create index plain_note on plain(note);
    create table wide(id int primary key, body text);
    alter table wide alter body set storage external;
    insert into wide select g, repeat(md5(g::text), 400) from generate_series(1, 100) g;
    create table empty_table(id int);
    create table \"naïve näme\"(\"a b\" int); insert into \"naïve näme\" values (1)";

/// A worker that has done its work ends within this.
const WORKER_END_MAX: Duration = Duration::from_secs(30);

/// Options of a scenario.
#[derive(Clone, Debug)]
pub struct ScenarioOptions {
    /// PostgreSQL's major version.
    pub version: u32,
    /// Lines of `[global]` in addition to the paths.
    pub global: Vec<String>,
    /// Whether part of the data is in a tablespace.
    pub tablespace: bool,
    /// The program in `archive_command`.
    pub archive_with: Tool,
    /// Additional lines of `postgresql.conf`.
    pub settings: Vec<String>,
    /// Size of a WAL segment in MiB.
    pub segment_mib: u32,
    /// Whether everything is on a disk, even if there is room in memory.
    pub on_disk: bool,
}

impl Default for ScenarioOptions {
    fn default() -> Self {
        Self {
            version: 15,
            global: Vec::new(),
            tablespace: false,
            archive_with: Tool::Rbr,
            settings: Vec::new(),
            segment_mib: 16,
            on_disk: false,
        }
    }
}

/// See the module documentation.
pub struct Scenario {
    pub space: Arc<Space>,
    pub oracles: &'static Oracles,
    pub cluster: Cluster,
    pub options: ScenarioOptions,
}

impl Scenario {
    /// Starts a cluster with tables, indexes, out-of-line values and (optionally) a tablespace, without a stanza.
    /// Returns `None` if the oracles are missing.
    pub fn start(options: ScenarioOptions) -> Option<Self> {
        let oracles = oracles(&[options.version])?;
        let space = Arc::new(if options.on_disk { Space::on_disk() } else { Space::new() });
        let archiver = match options.archive_with {
            Tool::Rbr => space.path("bin/rbr"),
            Tool::PgBackRest => oracles.pgbackrest.clone(),
        };
        let mut settings = vec![
            "archive_mode = on".to_owned(),
            format!(
                "archive_command = '{} --config={} --stanza={STANZA} archive-push %p'",
                archiver.display(),
                space.text("pgbackrest.conf")
            ),
        ];
        settings.extend(options.settings.iter().cloned());
        let segment_size = format!("--wal-segsize={}", options.segment_mib);
        let template = Template { version: options.version, initdb: &[&segment_size], sql: Some(CONTENT) };
        let cluster = Cluster::from_template(&space, oracles, template, "pg", &settings);
        let mut scenario = Self { space, oracles, cluster, options };
        scenario.configure(&scenario.options.global);
        scenario.cluster.start();
        if scenario.options.tablespace {
            scenario.add_tablespace();
        }
        Some(scenario)
    }

    /// Rewrites the configuration file of both programs with these lines in `[global]`.
    pub fn configure(&self, global: &[String]) {
        let space = &self.space;
        let mut defaults: Vec<_> = DEFAULTS.map(str::to_owned).into();
        for (option, folder) in [("repo1", "repo"), ("log", "log"), ("lock", "lock"), ("spool", "spool")] {
            defaults.push(format!("{option}-path={}", space.text(folder)));
        }
        let text = config_text(&defaults, global, STANZA, &self.cluster);
        space.write("pgbackrest.conf", text);
    }

    fn add_tablespace(&self) {
        self.space.folder("ts1");
        self.cluster.sql(&format!("create tablespace ts1 location '{}'", self.space.text("ts1")));
        self.cluster.sql(
            "create table elsewhere(id int primary key, note text) tablespace ts1;
             insert into elsewhere select g, md5(g::text) from generate_series(1, 5000) g; checkpoint",
        );
    }

    /// Changes all kinds of data: rows in the middle of a table, a growing table, a shrinking table, a new table, a
    /// dropped table.
    pub fn change(&self, round: u32) {
        self.cluster.sql(&format!(
            "update plain set note = md5(note || {round}) where id % 500 = {round};
             insert into wide select g, repeat(md5(g::text), 400)
                 from generate_series({round} * 1000, {round} * 1000 + 20) g;
             delete from plain where id > 20000 - {round} * 1000; vacuum plain;
             create table new_{round} as select g as id from generate_series(1, 1000) g;
             drop table if exists new_{before}; checkpoint",
            before = round.saturating_sub(1)
        ));
    }

    /// The path of a program.
    pub fn program(&self, tool: Tool) -> PathBuf {
        match tool {
            Tool::Rbr => self.space.path("bin/rbr"),
            Tool::PgBackRest => self.oracles.pgbackrest.clone(),
        }
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = vec![format!("--config={}", self.space.text("pgbackrest.conf")), format!("--stanza={STANZA}")];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        all
    }

    /// Runs a command of one of the programs with the scenario's configuration and stanza.
    pub fn run(&self, tool: Tool, arguments: &[&str]) -> Run {
        self.space.run(self.program(tool), &self.arguments(arguments))
    }

    /// Like [`Scenario::run`], for rbr.
    pub fn rbr(&self, arguments: &[&str]) -> Run {
        self.run(Tool::Rbr, arguments)
    }

    /// Like [`Scenario::run`], for the real pgBackRest.
    pub fn pgbackrest(&self, arguments: &[&str]) -> Run {
        self.run(Tool::PgBackRest, arguments)
    }

    /// Starts a command and returns at once.
    pub fn start_command(&self, tool: Tool, arguments: &[&str]) -> Background {
        self.space.start(self.program(tool), &self.arguments(arguments))
    }

    /// Restores with `tool` into the new data directory `name` (its tablespaces next to it) and returns that cluster,
    /// not started.
    #[track_caller]
    pub fn restore(&self, tool: Tool, name: &str, arguments: &[&str]) -> Cluster {
        self.space.folder(name);
        let path = format!("--pg1-path={}", self.space.text(name));
        let map = format!("--tablespace-map-all={}", self.space.folder(&format!("{name}-ts")).display());
        let mut all = vec![path.as_str()];
        if self.options.tablespace {
            all.push(&map);
        }
        all.extend(arguments);
        all.push("restore");
        self.run(tool, &all).success();
        Cluster::existing(&self.space, self.oracles, self.options.version, name)
    }

    /// Waits until the background worker has ended.
    #[track_caller]
    pub fn worker_ends(&self) {
        self.worker_ends_in(&["lock"]);
    }

    /// Waits until PostgreSQL has nothing left to archive and no background worker holds the archive lock.
    ///
    /// A command that takes this lock fails with error 50 while a worker holds it, on the repository's host too.
    /// `lock_folders` are the lock paths of all hosts.
    #[track_caller]
    pub fn archiving_ends(&self, lock_folders: &[&str]) {
        let end = Instant::now() + WORKER_END_MAX;
        let states = self.cluster.data().join("pg_wal/archive_status");
        let is_ready = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "ready");
        while std::fs::read_dir(&states).expect("archive states").flatten().any(is_ready) {
            assert!(Instant::now() < end, "segments wait still:\n{}", self.cluster.log_text());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.worker_ends_in(lock_folders);
    }

    #[track_caller]
    fn worker_ends_in(&self, lock_folders: &[&str]) {
        let end = Instant::now() + WORKER_END_MAX;
        for folder in lock_folders {
            let lock = self.space.path(&format!("{folder}/{STANZA}-archive-1.lock"));
            while lock.exists() {
                assert!(Instant::now() < end, "the worker does not end");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Returns the labels in the repository, oldest first, as listed by the real pgBackRest.
    #[track_caller]
    pub fn labels(&self) -> Vec<String> {
        let info = self.pgbackrest(&["info", "--output=json", "--log-level-console=off"]).success().json();
        let backups = info[0]["backup"].as_array().expect("backups").clone();
        backups.iter().map(|backup| backup["label"].as_str().expect("label").to_owned()).collect()
    }
}

/// Starts a restored cluster, checks that it is valid and has the content of `dump`, and stops it.
#[track_caller]
pub fn restored_matches(restored: &mut Cluster, dump: &str) {
    restored.start();
    restored.wait_writable();
    let found = restored.dump();
    if found != dump {
        let first = dump.lines().zip(found.lines()).find(|(left, right)| left != right);
        panic!("dumps differ ({} and {} bytes), first: {first:?}", dump.len(), found.len());
    }
    restored.check_relations();
    restored.stop(Shutdown::Fast);
    restored.check_pages();
}
