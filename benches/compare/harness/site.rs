//! A cluster and, for each program, a repository and a configuration file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::cost::{self, Figures, Watch};
use crate::tests::env::config::config_text;
use crate::tests::env::oracle::Oracles;
use crate::tests::env::{Cluster, Shutdown, Space, Tool, oracles};

/// Somewhat more than a restore of the usual size writes.
const WARM_MB: usize = 2048;

/// The PostgreSQL version in the comparisons.
pub const VERSION: u32 = 17;
pub const STANZA: &str = "bench";
/// Options of every configuration that does not override them.
const FIXED: [&str; 4] = ["log-level-file=off", "log-level-console=warn", "process-max=2", "start-fast=y"];

/// How often to check the background worker.
const WORKER_POLL: Duration = Duration::from_millis(2);

/// See the module documentation.
pub struct Site {
    pub space: Arc<Space>,
    pub oracles: &'static Oracles,
    pub cluster: Cluster,
}

impl Site {
    /// Creates a stopped cluster with these `initdb` arguments and settings.
    pub fn new(initdb: &[&str], settings: &[&str]) -> Self {
        let oracles = oracles(&[VERSION]).expect("run scripts/oracles first");
        let space = Arc::new(Space::on_disk());
        let fixed = ["max_wal_size = 8GB", "checkpoint_timeout = 30min", "max_locks_per_transaction = 1024"];
        let settings: Vec<_> = fixed.iter().chain(settings).map(|&line| line.to_owned()).collect();
        let cluster = Cluster::create_with(&space, oracles, VERSION, "pg", initdb, &settings);
        Self { space, oracles, cluster }
    }

    /// Creates a stopped cluster with data, loaded without WAL if possible.
    pub fn load(fill: impl Fn(&Cluster)) -> Self {
        let mut site = Self::new(&[], &["wal_level = minimal", "max_wal_senders = 0", "synchronous_commit = off"]);
        site.change(fill);
        site
    }

    /// Starts the cluster for a change and stops it again.
    pub fn change(&mut self, change: impl Fn(&Cluster)) {
        self.cluster.start();
        change(&self.cluster);
        self.cluster.sql("checkpoint");
        self.cluster.stop(Shutdown::Fast);
    }

    /// A path of what belongs to `tool` alone.
    pub fn path(&self, tool: Tool, name: &str) -> PathBuf {
        self.space.path(&Self::name(tool, name))
    }

    /// The same as text.
    pub fn text(&self, tool: Tool, name: &str) -> String {
        self.space.text(&Self::name(tool, name))
    }

    fn name(tool: Tool, name: &str) -> String {
        let folder = if tool == Tool::Rbr { "rbr" } else { "pgbackrest" };
        format!("{folder}/{name}")
    }

    /// Creates an empty folder for `tool`.
    pub fn empty(&self, tool: Tool, name: &str) -> PathBuf {
        let path = self.path(tool, name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("remove folder");
        }
        // The parent too, so that it belongs to the user of the tests
        self.space.folder(&Self::name(tool, ""));
        self.space.folder(&Self::name(tool, name))
    }

    /// Makes the system's free memory resident. A virtual machine may have returned it to its host, and the first
    /// program to write as much again would pay for it.
    pub fn warm_memory(&self) {
        let path = self.space.path("warm");
        let mut file = fs::File::create(&path).expect("file");
        for _ in 0..WARM_MB {
            file.write_all(&[0; 1 << 20]).expect("write");
        }
        fs::remove_file(path).expect("remove file");
    }

    /// Makes room for the next folder of this name. The files stay, without content: a file system that searches the
    /// inode numbers of recently deleted files, like ext4, would charge the next program for it.
    pub fn put_away(&self, tool: Tool, name: &str) {
        let path = self.path(tool, name);
        empty_files(&path).expect("empty files");
        let away = self.space.folder("away");
        let number = fs::read_dir(&away).expect("folder").count();
        fs::rename(path, away.join(number.to_string())).expect("move folder");
    }

    /// Empties the repository and spool of `tool` and writes its configuration with these lines in `[global]`, which
    /// may also name a repository elsewhere.
    pub fn configure(&self, tool: Tool, lines: &[&str]) {
        let mut defaults: Vec<_> = FIXED.map(str::to_owned).into();
        for folder in ["repo", "spool", "lock", "log"] {
            self.empty(tool, folder);
            let option = if folder == "repo" { "repo1" } else { folder };
            defaults.push(format!("{option}-path={}", self.text(tool, folder)));
        }
        let text = config_text(&defaults, lines, STANZA, &self.cluster);
        self.space.write(&Self::name(tool, "pgbackrest.conf"), text);
    }

    /// Calls [`Site::configure`] and creates a stanza.
    pub fn create_stanza(&self, tool: Tool, lines: &[&str]) {
        self.configure(tool, lines);
        self.run(tool, &["--no-online", "stanza-create"]);
    }

    /// The file of a program.
    pub fn program(&self, tool: Tool) -> PathBuf {
        match tool {
            Tool::Rbr => self.space.path("bin/rbr"),
            Tool::PgBackRest => self.oracles.pgbackrest.clone(),
        }
    }

    /// Returns a command of one of the programs with its configuration and the stanza.
    pub fn command(&self, tool: Tool, arguments: &[&str]) -> Command {
        let mut command = self.space.command(self.program(tool));
        command.arg(format!("--config={}", self.text(tool, "pgbackrest.conf"))).arg(format!("--stanza={STANZA}"));
        command.args(arguments);
        command
    }

    /// Returns the same as a line for `archive_command` and `restore_command`.
    pub fn command_line(&self, tool: Tool, arguments: &str) -> String {
        let (program, config) = (self.program(tool), self.text(tool, "pgbackrest.conf"));
        format!("{} --config={config} --stanza={STANZA} {arguments}", program.display())
    }

    /// Runs a command without measuring it. It must succeed.
    pub fn run(&self, tool: Tool, arguments: &[&str]) {
        cost::of_commands([self.command(tool, arguments)], self.watch(tool));
    }

    /// Measures a command.
    pub fn measure(&self, tool: Tool, arguments: &[&str]) -> Figures {
        self.measure_all(tool, [self.command(tool, arguments)])
    }

    /// Measures several commands together. The time that the iterator spends between commands does not count.
    pub fn measure_all(&self, tool: Tool, commands: impl IntoIterator<Item = Command>) -> Figures {
        rustix::fs::sync();
        cost::of_commands(commands, self.watch(tool))
    }

    /// Size of `tool`'s local repository.
    pub fn stored_kib(&self, tool: Tool) -> f64 {
        size_kib(&self.path(tool, "repo"))
    }

    /// Measures a command and the growth of `tool`'s local repository.
    pub fn measure_growth(&self, tool: Tool, arguments: &[&str]) -> Figures {
        let before_kib = self.stored_kib(tool);
        let mut figures = self.measure(tool, arguments);
        figures.push(("stored KiB", self.stored_kib(tool) - before_kib));
        figures
    }

    /// Waits until the background worker of `tool` has ended.
    pub fn worker_ends(&self, tool: Tool) {
        let lock = self.path(tool, &format!("lock/{STANZA}-archive-1.lock"));
        while lock.exists() {
            std::thread::sleep(WORKER_POLL);
        }
    }

    /// A watch on the memory of `tool`'s processes here.
    pub fn watch(&self, tool: Tool) -> Watch {
        Watch::start(&self.program(tool), self.space.text("").trim_end_matches('/'))
    }

    /// Removes what both programs keep.
    pub fn clear(&self) {
        for tool in [Tool::Rbr, Tool::PgBackRest] {
            self.empty(tool, "");
        }
    }
}

/// Returns the size of the files in a folder, without links.
fn size_kib(folder: &Path) -> f64 {
    let mut sum = 0.0;
    for entry in fs::read_dir(folder).expect("repository").flatten() {
        let kind = entry.file_type().expect("kind of file");
        if kind.is_dir() {
            sum += size_kib(&entry.path());
        } else if kind.is_file() {
            sum += entry.metadata().expect("size").len() as f64 / 1024.0;
        }
    }
    sum
}

/// Truncates all files below a folder.
fn empty_files(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            empty_files(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            fs::OpenOptions::new().write(true).truncate(true).open(entry.path())?;
        }
    }
    Ok(())
}
