//! The checks of a recovered cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::access::PgAccess;
use super::binaries::PgPrograms;
use super::blame::{host_trouble, is_about_backup};
use super::scratch::Scratch;
use super::server::run_tool;
use super::sql_file;
use crate::proof::report::shortened;
use crate::proof::{CheckOutcome, CheckReport};
use crate::work::retry::is_stop;
use crate::{CancelToken, Error, ErrorCode, Result, info};

/// The maximum size of an SQL file, in bytes.
const SQL_FILE_BYTES_MAX: u64 = 16 << 20;

/// What to check beyond what every test does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSettings {
    /// Check tables and indexes with `pg_amcheck`.
    pub amcheck: bool,
    /// Check every page with `pg_checksums`.
    pub checksums: bool,
    /// Count the rows of these tables, each as `database:table`.
    pub count_tables: Vec<String>,
    /// Dump these databases.
    pub dump_databases: Vec<String>,
    /// Compare the results of this SQL file.
    pub sql_file: Option<PathBuf>,
}

impl Default for CheckSettings {
    fn default() -> Self {
        CheckSettings {
            amcheck: true,
            checksums: true,
            count_tables: Vec::new(),
            dump_databases: Vec::new(),
            sql_file: None,
        }
    }
}

/// The result of one check: its outcome and its detail.
pub type Found = (CheckOutcome, String);

/// The checks that were done.
#[derive(Clone, Debug, Default)]
pub struct CheckList(pub Vec<CheckReport>);

impl CheckList {
    /// Runs a check and adds its result. An error that says something about the backup is a failed check.
    ///
    /// # Errors
    /// Those that say nothing about the backup, as [`ErrorCode::Term`] after a signal.
    pub fn run(&mut self, name: &str, check: impl FnOnce() -> Result<Found>) -> Result<()> {
        let begin = Instant::now();
        let found = check();
        self.add(name, begin, found)
    }

    /// Adds the result of a check that began then.
    ///
    /// # Errors
    /// The same as [`CheckList::run`].
    pub fn add(&mut self, name: &str, begin: Instant, found: Result<Found>) -> Result<()> {
        let (result, detail) = match found {
            Err(error) if is_stop(&error) => return Err(error),
            Err(error) if !is_about_backup(&error) => return Err(error.context(format!("check {name}"))),
            Err(error) => (CheckOutcome::Failed, format!("[{:03}] {error}", error.code.number())),
            Ok(found) => found,
        };
        let detail = shortened(&detail);
        info!("check {name}: {}: {detail}", result.word());
        let duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.push(CheckReport { name: name.to_owned(), result, detail, duration_ms });
        Ok(())
    }

    /// Returns whether no check failed so far.
    pub fn is_good(&self) -> bool {
        self.0.iter().all(|check| check.result != CheckOutcome::Failed)
    }
}

/// What the checks of a running server use.
pub struct CheckContext<'a> {
    /// PostgreSQL's programs.
    pub programs: &'a PgPrograms,
    /// The scratch directory.
    pub scratch: &'a Scratch,
    /// How to connect.
    pub access: &'a PgAccess,
    /// Number of workers.
    pub process_max: u32,
    /// Ends checks.
    pub cancel: &'a CancelToken,
}

impl CheckContext<'_> {
    /// Runs all checks that need a server.
    ///
    /// # Errors
    /// [`ErrorCode::Term`] after a signal.
    pub fn run(&self, settings: &CheckSettings, list: &mut CheckList) -> Result<()> {
        list.run("connect", || self.connect())?;
        if settings.amcheck {
            list.run("amcheck", || self.amcheck())?;
        }
        for table in &settings.count_tables {
            list.run(&format!("count {table}"), || self.count(table))?;
        }
        for database in &settings.dump_databases {
            list.run(&format!("dump {database}"), || self.dump(database))?;
        }
        if let Some(file) = &settings.sql_file {
            list.run("sql", || self.sql(file))?;
        }
        Ok(())
    }

    /// Connects to every database and reads its list of relations.
    fn connect(&self) -> Result<Found> {
        // An interrupted DROP DATABASE leaves an invalid database (-2), which nobody can connect to
        let query = "select datname from pg_database where datallowconn and datconnlimit <> -2 order by datname";
        let databases = self.access.rows(&self.access.database, query)?;
        let names: Vec<&str> = databases.iter().filter_map(|row| row.first()?.as_deref()).collect();
        for name in &names {
            let query = "select count(*) from pg_catalog.pg_class";
            self.access.rows(name, query).map_err(|error| error.context(format!("database '{name}'")))?;
        }
        Ok((CheckOutcome::Passed, format!("connected to {} database(s): {}", names.len(), names.join(", "))))
    }

    fn amcheck(&self) -> Result<Found> {
        let Some(program) = self.programs.program("pg_amcheck") else {
            return Ok((CheckOutcome::Skipped, "program 'pg_amcheck' is not installed".to_owned()));
        };
        let query = "select count(*) from pg_available_extensions where name = 'amcheck'";
        if self.access.row::<1>(query)? != [Some("1".to_owned())] {
            return Ok((CheckOutcome::Skipped, "extension 'amcheck' is not installed on this host".to_owned()));
        }
        let mut command = self.client(&program);
        // The extension gets into the copy only. Nobody else uses it, so the checks may lock tables
        command.args(["--all", "--install-missing", "--heapallindexed", "--parent-check"]);
        command.arg(format!("--jobs={}", self.process_max));
        command.arg(format!("--maintenance-db={}", self.access.database));
        self.judge(&mut command, "amcheck.log", "all tables and indexes are consistent")
    }

    fn count(&self, table: &str) -> Result<Found> {
        let Some((database, name)) = table.split_once(':') else {
            return Ok((CheckOutcome::Failed, format!("'{table}' does not have the form database:table")));
        };
        let rows = self.access.rows(database, &format!("select count(*) from {name}"))?;
        let count = rows.first().and_then(|row| row.first()?.as_deref()).unwrap_or("no");
        Ok((CheckOutcome::Passed, format!("{count} row(s)")))
    }

    fn dump(&self, database: &str) -> Result<Found> {
        let Some(program) = self.programs.program("pg_dump") else {
            return Ok((CheckOutcome::Failed, "program 'pg_dump' is not installed".to_owned()));
        };
        let mut command = self.client(&program);
        command.args(["--file=/dev/null", "--dbname", database]);
        self.judge(&mut command, "dump.log", "complete")
    }

    fn sql(&self, file: &Path) -> Result<Found> {
        let text = read_sql(file)?;
        let queries =
            sql_file::parse(&text).map_err(|error| error.context(format!("SQL file '{}'", file.display())))?;
        let mut compared = 0;
        for query in &queries {
            let database = query.database.as_deref().unwrap_or(&self.access.database);
            let rows = self.access.rows(database, &query.sql);
            let rows = rows.map_err(|error| error.context(format!("the query at line {}", query.line)))?;
            if let Some(difference) = sql_file::difference(query, &rows) {
                return Ok((CheckOutcome::Failed, difference));
            }
            compared += usize::from(query.expected.is_some());
        }
        Ok((CheckOutcome::Passed, format!("{} query(s), {compared} of them with the expected rows", queries.len())))
    }

    /// A client program that connects to the scratch server.
    fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("--no-password").arg("--host").arg(&self.access.socket).arg("--port=5432");
        command.args(["--username", &self.access.user]);
        command
    }

    fn judge(&self, command: &mut Command, log: &str, good: &str) -> Result<Found> {
        let run = run_tool(command, &self.scratch.file(log), self.cancel)?;
        match run.code {
            0 => Ok((CheckOutcome::Passed, good.to_owned())),
            code => failed(format!("{}: {}", exit_text(code), run.output)),
        }
    }
}

/// Checks every page of a stopped cluster.
///
/// # Errors
/// The program can't be started; [`ErrorCode::Term`] after a signal.
pub fn checksums(programs: &PgPrograms, scratch: &Scratch, enabled: bool, cancel: &CancelToken) -> Result<Found> {
    if !enabled {
        return Ok((CheckOutcome::Skipped, "the cluster has no data checksums".to_owned()));
    }
    let Some(program) = programs.program("pg_checksums") else {
        return Ok((CheckOutcome::Skipped, "program 'pg_checksums' is not installed".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(["--check", "-D"]).arg(scratch.data());
    let run = run_tool(&mut command, &scratch.file("checksums.log"), cancel)?;
    let blocks = run.output.lines().find_map(|line| line.strip_prefix("Blocks scanned:")).unwrap_or("").trim();
    match run.code {
        0 => Ok((CheckOutcome::Passed, format!("{blocks} page(s)"))),
        code => failed(format!("{}: {}", exit_text(code), run.output)),
    }
}

fn exit_text(code: i32) -> String {
    if code > 128 { format!("ended by signal {}", code - 128) } else { format!("exit status {code}") }
}

/// The outcome of a check that a program failed, with what it said.
///
/// # Errors
/// [`ErrorCode::Execute`] if it failed because of this host, which says nothing about the backup.
pub fn failed(text: String) -> Result<Found> {
    match host_trouble(&text) {
        Some(words) => {
            let text = format!("the test can't be completed on this host ({words}): {text}");
            Err(Error::new(ErrorCode::Execute, text))
        }
        None => Ok((CheckOutcome::Failed, text)),
    }
}

/// Reads an SQL file. It is also read before a test, so that a wrong path does not show only at its end.
///
/// # Errors
/// [`ErrorCode::FileOpen`] or [`ErrorCode::FileMissing`], or [`ErrorCode::Format`] for a file that is too large.
pub fn read_sql(file: &Path) -> Result<String> {
    let failed = |error| {
        crate::Error::from_io(ErrorCode::FileOpen, format!("unable to open SQL file '{}'", file.display()), error)
    };
    if fs::metadata(file).map_err(failed)?.len() > SQL_FILE_BYTES_MAX {
        let text = format!("SQL file '{}' has more than {SQL_FILE_BYTES_MAX} bytes", file.display());
        return Err(crate::Error::new(ErrorCode::Format, text));
    }
    fs::read_to_string(file).map_err(failed)
}
