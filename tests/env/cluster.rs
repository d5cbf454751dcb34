//! Throw-away PostgreSQL clusters.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::Run;
use super::oracle::Oracles;
use super::space::Space;
use super::template::Template;

/// The maximum time for a server to start, recover or stop.
const SERVER_LIMIT_S: u64 = 90;

/// Settings of every cluster.
const SETTINGS: [&str; 8] = [
    "listen_addresses = ''",
    "fsync = off",
    "jit = off",
    "autovacuum = off",
    "shared_buffers = 32MB",
    "max_wal_size = 1GB",
    "wal_level = replica",
    "log_min_messages = info",
];

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Shutdown {
    /// With a checkpoint.
    Fast,
    /// Without a checkpoint, like a crash.
    Immediate,
}

/// A cluster in a [`Space`]. Its server stops when the value is dropped.
pub struct Cluster {
    space: Arc<Space>,
    oracles: &'static Oracles,
    version: u32,
    /// Name of the data directory in the space. The socket is in `<name>-socket`, the log in `log/<name>.log`.
    name: String,
    running: bool,
}

impl Cluster {
    /// Creates a cluster with page checksums, settings for speed, and `settings` appended to `postgresql.conf`.
    pub fn create(
        space: &Arc<Space>,
        oracles: &'static Oracles,
        version: u32,
        name: &str,
        settings: &[String],
    ) -> Self {
        Self::create_with(space, oracles, version, name, &[], settings)
    }

    /// Like [`Cluster::create`], with additional arguments for `initdb`, such as `--wal-segsize`.
    pub fn create_with(
        space: &Arc<Space>,
        oracles: &'static Oracles,
        version: u32,
        name: &str,
        initdb: &[&str],
        settings: &[String],
    ) -> Self {
        let template = Template { version, initdb, sql: None };
        Self::from_template(space, oracles, template, name, settings)
    }

    /// The same with the content of a template.
    pub(super) fn from_template(
        space: &Arc<Space>,
        oracles: &'static Oracles,
        template: Template<'_>,
        name: &str,
        settings: &[String],
    ) -> Self {
        template.copy(space, oracles, name);
        let cluster = Self::existing(space, oracles, template.version, name);
        cluster.append_settings(&[format!("unix_socket_directories = '{}'", cluster.socket())]);
        cluster.append_settings(settings);
        cluster
    }

    /// Runs initdb, with settings for speed.
    pub(super) fn initialise(
        space: &Arc<Space>,
        oracles: &'static Oracles,
        version: u32,
        name: &str,
        initdb: &[&str],
    ) -> Self {
        let cluster = Self::existing(space, oracles, version, name);
        let data = cluster.data_text();
        let mut arguments = vec!["-D", &data, "-k", "-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C"];
        arguments.extend(initdb);
        cluster.server_program("initdb", &arguments).success();
        cluster.append_settings(&SETTINGS.map(str::to_owned));
        cluster
    }

    /// Appends lines to `postgresql.conf`.
    pub(super) fn append_settings(&self, settings: &[String]) {
        let path = self.data().join("postgresql.conf");
        let mut file = OpenOptions::new().append(true).open(path).expect("postgresql.conf");
        for setting in settings {
            writeln!(file, "{setting}").expect("write postgresql.conf");
        }
    }

    /// Returns a cluster whose files exist already, as after a restore.
    pub fn existing(space: &Arc<Space>, oracles: &'static Oracles, version: u32, name: &str) -> Self {
        space.folder(&format!("{name}-socket"));
        Self { space: Arc::clone(space), oracles, version, name: name.to_owned(), running: false }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.space.path(&self.name)
    }

    pub fn data_text(&self) -> String {
        self.space.text(&self.name)
    }

    /// The folder of the server's socket.
    pub fn socket(&self) -> String {
        self.space.text(&format!("{}-socket", self.name))
    }

    fn log(&self) -> String {
        self.space.text(&format!("log/{}.log", self.name))
    }

    /// Returns the server's log.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn server_program(&self, program: &str, arguments: &[&str]) -> Run {
        let folder = self.oracles.postgres.get(&self.version).expect("version was asked for");
        self.space.run(folder.join(program), arguments)
    }

    /// Starts the server and waits until it accepts connections.
    #[track_caller]
    pub fn start(&mut self) {
        let run = self.try_start();
        assert!(run.code == 0, "{}\nserver log:\n{}", run.describe(), self.log_text());
    }

    /// Starts the server, which may be expected to fail. Archiving is enabled only if the socket belongs to this data
    /// directory, so that a restored copy never writes to the archive of its original.
    pub fn try_start(&mut self) -> Run {
        let (data, log, socket) = (self.data_text(), self.log(), self.socket());
        let original = fs::read_to_string(self.data().join("postgresql.conf"))
            .unwrap_or_default()
            .contains(&format!("unix_socket_directories = '{socket}'"));
        let mut options = format!("-c unix_socket_directories='{socket}'");
        if !original {
            options.push_str(" -c archive_mode=off");
        }
        let limit = SERVER_LIMIT_S.to_string();
        let run = self
            .server_program("pg_ctl", &["start", "-D", &data, "-l", &log, "-w", "-s", "-t", &limit, "-o", &options]);
        self.running = run.code == 0;
        run
    }

    /// Waits until a server in recovery has reached its target and accepts writes.
    #[track_caller]
    pub fn wait_writable(&self) {
        let end = Instant::now() + Duration::from_secs(SERVER_LIMIT_S);
        loop {
            let run = self.try_sql("select pg_is_in_recovery()");
            if run.code == 0 && run.stdout.trim() == "f" {
                return;
            }
            assert!(Instant::now() < end, "still in recovery\n{}\nserver log:\n{}", run.describe(), self.log_text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server.
    #[track_caller]
    pub fn stop(&mut self, how: Shutdown) {
        let mode = match how {
            Shutdown::Fast => "fast",
            Shutdown::Immediate => "immediate",
        };
        let data = self.data_text();
        self.server_program("pg_ctl", &["stop", "-D", &data, "-m", mode, "-w", "-s"]).success();
        self.running = false;
    }

    /// Runs a client program, such as psql or pgbench, against the server.
    pub fn client(&self, program: &str, arguments: &[&str]) -> Run {
        let socket = self.socket();
        let mut all = vec!["-h", &socket, "-U", "postgres"];
        all.extend(arguments);
        self.space.run(self.oracles.client(program), &all)
    }

    /// Runs SQL in the database `postgres`, each statement in its own transaction. The SQL may fail. Semicolons
    /// separate statements everywhere, except for `;;`, which is a semicolon inside a statement.
    pub fn try_sql(&self, sql: &str) -> Run {
        const INSIDE: &str = "\u{1}";
        let statements: Vec<_> =
            sql.replace(";;", INSIDE).split(';').map(|statement| statement.replace(INSIDE, ";")).collect();
        let mut arguments = vec!["-d", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1"];
        for statement in &statements {
            arguments.extend(["-c", statement.as_str()]);
        }
        self.client("psql", &arguments)
    }

    /// Runs SQL in the database `postgres` and returns its output without the last line feed.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).success().stdout.trim_end_matches('\n').to_owned()
    }

    /// Ends the current WAL segment and returns its name.
    #[track_caller]
    pub fn switch_wal(&self) -> String {
        self.sql("create table if not exists wal_switch(); drop table wal_switch");
        self.sql("select pg_walfile_name(pg_switch_wal())")
    }

    /// Returns the content of the cluster as SQL, without what differs between two dumps of the same content.
    #[track_caller]
    pub fn dump(&self) -> String {
        let dump = self.client("pg_dumpall", &["-l", "postgres"]).success().stdout;
        let changing = ["\\restrict", "\\unrestrict", "-- Started on", "-- Completed on"];
        let kept = dump.lines().filter(|line| !changing.iter().any(|start| line.starts_with(start)));
        // A restored copy has its tablespaces elsewhere
        let place = |line: &'_ str| match line.starts_with("CREATE TABLESPACE ") {
            true => line.rfind(" LOCATION ").unwrap_or(line.len()),
            false => line.len(),
        };
        let kept: Vec<_> = kept.map(|line| &line[..place(line)]).collect();
        kept.join("\n")
    }

    /// Checks tables and indexes with pg_amcheck (from version 14 on; only indexes on older servers).
    #[track_caller]
    pub fn check_relations(&self) {
        if self.version >= 14 {
            let check = ["--all", "--install-missing", "--heapallindexed", "--parent-check"];
            self.client("pg_amcheck", &check).success();
        } else {
            self.sql("create extension if not exists amcheck");
            self.sql(
                "select count(bt_index_parent_check(c.oid, true)) from pg_class c join pg_am a on a.oid = c.relam \
                 where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p'",
            );
        }
    }

    /// Checks every page of a stopped cluster with pg_checksums.
    #[track_caller]
    pub fn check_pages(&self) {
        assert!(!self.running, "pg_checksums needs a stopped cluster");
        let data = self.data_text();
        self.server_program("pg_checksums", &["--check", "-D", &data]).success();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // If the server stopped by itself, its file is gone
        if Path::new(&self.data()).join("postmaster.pid").exists() {
            let data = self.data_text();
            self.server_program("pg_ctl", &["stop", "-D", &data, "-m", "immediate", "-w", "-s"]);
        }
    }
}
