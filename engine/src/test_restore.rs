//! Restores a backup into a scratch directory, starts PostgreSQL on it and checks it: a proof that it can be recovered.
//!
//! Nothing outside of the scratch directory is written: tablespaces are mapped into it, links become directories and
//! files, and the kernel keeps the server from changing anything else ([`mod@self::confine`]). The server accepts no connection from other hosts or users, archives nothing and runs no jobs.

mod access;
mod binaries;
mod blame;
mod checks;
mod choose;
mod confine;
mod machine;
mod plan;
mod scratch;
mod server;
mod settings;
mod sql_file;
mod wal_reach;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use repo_format::layout::Stanza;
use repo_format::pg::history::TimelineHistory;
use repo_format::wal_name::{Lsn, TimelineId, WalSegment};

pub use checks::CheckSettings;
pub use choose::BackupPick;

pub(crate) use plan::manifest_sha256;

use self::access::PgAccess;
use self::binaries::PgPrograms;
use self::blame::about_backup;
use self::checks::{CheckContext, CheckList};
use self::machine::Memory;
use self::plan::TestPlan;
use self::scratch::Scratch;
use self::server::{Recovered, Server, run_tool};
use self::settings::{ServerSettings, control_values};
use self::wal_reach::{RecoveryEnd, WalShort};
use crate::progress::Progress;
use crate::proof::report::FORMAT;
use crate::proof::{CheckOutcome, Phases, ProofReport, RecoveryFacts, Verdict, Versions, WalPosition};
use crate::restore::{KeepOut, MapSettings, RecoverySettings, RecoveryType, RestoreRequest, TargetAction};
use crate::throttle::RateLimit;
use crate::{CancelToken, Error, ErrorCode, Repo, Result, Session, info};

/// How long the last checkpoint of a server may take.
const STOP_MAX: Duration = Duration::from_secs(600);
/// How a line begins with which archive-get tells the server's log that it could not get a segment. A segment that is
/// simply not there is no error.
const ARCHIVE_GET_ERROR: &str = "ERROR: [";

/// The directories that the command that gets WAL must use.
#[derive(Clone, Debug)]
pub struct WalCommandPaths {
    /// The number of the repository that contains the backup.
    pub repo_key: u32,
    /// The data directory.
    pub data: PathBuf,
    /// The lock path.
    pub lock: PathBuf,
}

/// Returns the text of `restore_command` for a test.
pub type WalCommand = dyn Fn(&WalCommandPaths) -> String + Send + Sync;

/// What to test and how.
pub struct TestRestoreRequest {
    /// The directory in which the scratch directory is created.
    pub scratch_path: PathBuf,
    /// The backup.
    pub pick: BackupPick,
    /// How far to recover: type, target, timeline and whether the target is included. The rest is set by the test.
    pub recovery: RecoverySettings,
    /// The command with which PostgreSQL gets WAL.
    pub wal_command: Box<WalCommand>,
    /// The directory of PostgreSQL's programs; otherwise they are looked for.
    pub pg_bin_path: Option<PathBuf>,
    /// A superuser of the cluster; otherwise the user of this process or `postgres`.
    pub superuser: Option<String>,
    /// What to check.
    pub checks: CheckSettings,
    /// How long recovery may take.
    pub recovery_timeout: Duration,
    /// Paths that must not contain the scratch directory.
    pub keep_out: Vec<KeepOut>,
    /// Number of workers.
    pub process_max: u32,
    /// How often a failed job of the restore is retried.
    pub job_retry: u32,
    /// The pause before each retry except the first.
    pub job_retry_interval: Duration,
}

/// Where to find backups, and how to show and end the work.
pub struct TestRestoreContext<'a> {
    /// The stanza.
    pub stanza: &'a Stanza,
    /// The repositories. The first that has a suitable backup is used.
    pub repos: &'a [Repo],
    /// Shows the progress of the restore.
    pub progress: Arc<dyn Progress>,
    /// Limits the rate of the restore, if there is one.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// Ends the test.
    pub cancel: &'a CancelToken,
}

/// Tests a backup. A backup that can't be recovered is no error but a report that says so.
///
/// # Errors
/// The test could not be made: no backup is suitable (75), programs are missing (55), the scratch path is not suitable
/// (32, 53, 73) or too small (64), a repository or this host fails, a signal arrived (63).
pub fn run(request: &TestRestoreRequest, context: &TestRestoreContext<'_>) -> Result<ProofReport> {
    let (start, begin) = (Timestamp::now(), Instant::now());
    check_request(request)?;
    let plan = plan::make(request, context)?;
    let data = &plan.manifest.data;
    if data.pg_version < "13".parse()? {
        let text = format!(
            "test-restore supports PostgreSQL 13 and later, but backup {} is of {}",
            plan.label, data.pg_version
        );
        return Err(Error::new(ErrorCode::FeatureNotSupported, text));
    }
    confine::check()?;
    let programs = PgPrograms::find(data.pg_version, request.pg_bin_path.as_deref())?;
    if !request.checks.dump_databases.is_empty() && programs.program("pg_dump").is_none() {
        return Err(Error::new(
            ErrorCode::FileMissing,
            "program 'pg_dump', which --dump-database needs, is not installed",
        ));
    }
    plan::check_place(request, &plan.manifest)?;
    let scratch = Scratch::create(&request.scratch_path, context.cancel)?;
    plan::check_space(&request.scratch_path, plan.facts.size)?;
    info!("{}: test backup {} with PostgreSQL {}", plan.repo.name(), plan.label, programs.version);
    let test = Test { request, context, plan: &plan, programs: &programs, scratch: &scratch };
    let mut progress = TestProgress::default();
    progress.phases.plan_ms = milliseconds(begin);
    test.steps(&mut progress)?;
    let report = ProofReport {
        format: FORMAT,
        stanza: context.stanza.to_string(),
        repo: plan.repo.key,
        system_id: data.pg_system_id,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        start: start.as_second(),
        stop: Timestamp::now().as_second(),
        result: Verdict::Failed,
        reason: None,
        backup: plan.facts.clone(),
        recovery: test.recovery_facts(progress.reached),
        phases: progress.phases,
        rto_ms: 0,
        checks: progress.checks.0,
        versions: Versions { rbr: env!("CARGO_PKG_VERSION").to_owned(), postgresql: programs.version.clone() },
        notes: progress.notes,
    };
    Ok(report.judged())
}

/// How PostgreSQL complains if it can't create a tablespace during recovery: the link is refused, or this host does not
/// have the location of the original cluster. The messages are not translated.
const TABLESPACE_COMPLAINTS: [&str; 2] = [
    "could not create symbolic link \"pg_tblspc/",
    "Create this directory for the tablespace before restarting the server",
];

/// Returns whether replayed WAL created a tablespace, which leads out of the scratch directory. `log` is what the server
/// complained of.
fn has_outer_tablespace(scratch: &Scratch, log: &str) -> bool {
    if TABLESPACE_COMPLAINTS.iter().any(|text| log.contains(text)) {
        return true;
    }
    let Ok(entries) = fs::read_dir(scratch.data().join("pg_tblspc")) else { return false };
    entries.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| !target.starts_with(scratch.path())))
}

/// The error for a recovery that wanted to write outside of the scratch directory. It says nothing about the backup.
fn outside_error(text: &str) -> Error {
    Error::new(
        ErrorCode::FeatureNotSupported,
        format!("WAL could not be replayed within the scratch directory: {text}"),
    )
    .hint("WAL that creates a tablespace contains its path, which test-restore does not let PostgreSQL write to.")
    .hint("test a backup that was taken after the tablespace was created.")
}

/// Checks what needs no repository.
fn check_request(request: &TestRestoreRequest) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Err(Error::new(ErrorCode::OptionInvalid, "test-restore must not be run as the root user")
            .hint("PostgreSQL does not start as root.")
            .hint("run it as another user that can read the repository, as in: sudo -u postgres rbr test-restore"));
    }
    if let Some(table) = request.checks.count_tables.iter().find(|table| !table.contains(':')) {
        let text = format!("'{table}' is not valid for 'count-table': it does not have the form database:table");
        return Err(Error::new(ErrorCode::OptionInvalidValue, text));
    }
    if let Some(file) = &request.checks.sql_file {
        sql_file::parse(&checks::read_sql(file)?)
            .map_err(|error| error.context(format!("SQL file '{}'", file.display())))?;
    }
    Ok(())
}

/// What is known so far.
#[derive(Default)]
struct TestProgress {
    phases: Phases,
    checks: CheckList,
    reached: Option<WalPosition>,
    notes: Vec<String>,
}

struct Test<'a> {
    request: &'a TestRestoreRequest,
    context: &'a TestRestoreContext<'a>,
    plan: &'a TestPlan<'a>,
    programs: &'a PgPrograms,
    scratch: &'a Scratch,
}

impl Test<'_> {
    /// Runs the phases until one fails.
    fn steps(&self, progress: &mut TestProgress) -> Result<()> {
        let begin = Instant::now();
        let restored = self.restore();
        progress.phases.restore_ms = milliseconds(begin);
        let restored = match restored {
            Ok(text) => Ok((CheckOutcome::Passed, text)),
            Err(error) => Err(about_backup(error, &*self.plan.repo.storage)?),
        };
        progress.checks.add("restore", begin, restored)?;
        if !progress.checks.is_good() {
            return Ok(());
        }
        let begin = Instant::now();
        let control = Control::read(self.programs, self.scratch, self.context.cancel)?;
        let configuration = self.configure(&control, &mut progress.notes)?;
        let mut server = Server::start(self.programs, self.scratch, &configuration)?;
        let recovered = server.wait_ready(self.request.recovery_timeout, self.context.cancel)?;
        progress.phases.recovery_ms = milliseconds(begin);
        let found = match &recovered {
            Recovered::Ready => Ok((CheckOutcome::Passed, "PostgreSQL accepts writes".to_owned())),
            Recovered::Failed(text) if has_outer_tablespace(self.scratch, text) => return Err(outside_error(text)),
            Recovered::Failed(text) => {
                self.check_refused(text, self.plan.wal_of_backup(control.wal_segment_size)?)?;
                checks::failed(text.clone())
            }
        };
        progress.checks.add("recovery", begin, found)?;
        if recovered != Recovered::Ready {
            return Ok(());
        }
        let begin = Instant::now();
        self.check(&control, server, progress)?;
        progress.phases.checks_ms = milliseconds(begin);
        Ok(())
    }

    /// Restores the backup. Tablespaces get into the scratch directory, and links become directories and files.
    fn restore(&self) -> Result<String> {
        let text = |path: PathBuf| {
            path.into_os_string().into_string().map_err(|path| {
                let text = format!("'{}' is not valid UTF-8", path.display());
                Error::new(ErrorCode::OptionInvalidValue, text)
            })
        };
        let (data, tablespaces) = (text(self.scratch.data())?, text(self.scratch.tablespaces())?);
        let manifest = &self.plan.manifest;
        let ids = manifest.targets.iter().filter_map(|target| Some(target.tablespace.as_ref()?.id.to_string()));
        let map = MapSettings {
            tablespaces: ids.map(|id| (id.clone(), format!("{tablespaces}/{id}"))).collect(),
            ..MapSettings::default()
        };
        let paths =
            WalCommandPaths { repo_key: self.plan.repo.key, data: self.scratch.data(), lock: self.scratch.lock() };
        let recovery = RecoverySettings {
            target_action: TargetAction::Promote,
            archive_mode_off: true,
            restore_command: Some((self.request.wal_command)(&paths)),
            ..self.request.recovery.clone()
        };
        let request = RestoreRequest {
            map,
            recovery,
            recovery_is_default: self.request.recovery.kind == RecoveryType::Default,
            job_retry: self.request.job_retry,
            job_retry_interval: self.request.job_retry_interval,
            ..RestoreRequest::new(data).set(&self.plan.label).process_max(self.request.process_max)
        };
        // The lock of restores of this host stays free: a test must never hold up a real restore
        let mut session = Session::new(self.context.stanza.clone(), [self.plan.repo.clone()])?
            .with_lock_path(self.scratch.lock())
            .with_progress(Arc::clone(&self.context.progress))
            .with_cancel(self.context.cancel.clone());
        if let Some(limit) = &self.context.rate_limit {
            session = session.with_rate_limit(Arc::clone(limit));
        }
        let summary = session.restore(&request)?;
        Ok(format!("{} file(s), {} byte(s)", summary.files, summary.size))
    }

    /// Writes the configuration of the server, and returns its path.
    fn configure(&self, control: &Control, notes: &mut Vec<String>) -> Result<PathBuf> {
        let data = self.scratch.data();
        let auto_path = data.join("postgresql.auto.conf");
        let (main, auto) = (read_text(&data.join("postgresql.conf"))?, read_text(&auto_path)?);
        let (original, recovery) = settings::split_auto_conf(&auto);
        let libraries = settings::libraries(&[&main, original], |name| self.programs.has_library(name));
        notes.extend(libraries.notes);
        write_text(&auto_path, recovery)?;
        let hba = self.scratch.write("pg_hba.conf", settings::HBA)?;
        let ident = self.scratch.write("pg_ident.conf", "")?;
        let (socket, hba, ident) = (self.scratch.socket(), hba.to_string_lossy(), ident.to_string_lossy());
        let configuration = settings::server_configuration(&ServerSettings {
            version_major: major(&self.programs.version),
            control: &control.values,
            libraries: &libraries.kept,
            memory: Memory::of_this_host(),
            socket: &socket.to_string_lossy(),
            hba_file: &hba,
            ident_file: &ident,
        });
        self.scratch.write("postgresql.conf", &configuration)
    }

    /// Checks the running cluster, stops it, and checks its files.
    fn check(&self, control: &Control, server: Server, progress: &mut TestProgress) -> Result<()> {
        let (context, checks) = (self.context, &mut progress.checks);
        let access = PgAccess::find(self.scratch.socket(), self.request.superuser.as_deref(), context.cancel)?;
        let (end, reached) = self.reached(&access)?;
        progress.reached = Some(reached);
        checks.run("wal", || match self.plan.manifest.data.options.online && self.recovers_everything() {
            true => {
                let place = self.plan.wal_place(context.stanza);
                let (newest, size) = (&self.plan.newest, control.wal_segment_size);
                let (outcome, text) = wal_reach::check(&place, end, newest, size, context.cancel)?;
                // The log says why WAL could not be fetched
                let problems = if outcome == CheckOutcome::Failed { server.problems() } else { String::new() };
                if let WalShort::From(next, _) = wal_reach::compare(end, newest, size) {
                    self.check_refused(&problems, vec![next])?;
                }
                match outcome {
                    CheckOutcome::Failed => checks::failed(format!("{text}\n{problems}")),
                    _ => Ok((outcome, text)),
                }
            }
            false => Ok((CheckOutcome::Passed, format!("recovered to {}", end.lsn))),
        })?;
        let check = CheckContext {
            programs: self.programs,
            scratch: self.scratch,
            access: &access,
            process_max: self.request.process_max,
            cancel: context.cancel,
        };
        check.run(&self.request.checks, checks)?;
        // Damaged pages may keep the last checkpoint from succeeding
        let problems = server.problems();
        checks.run("stop", || match server.stop(STOP_MAX, context.cancel) {
            Ok(()) => Ok((CheckOutcome::Passed, "PostgreSQL stopped cleanly".to_owned())),
            Err(error) if error.code == ErrorCode::PgRunning => checks::failed(format!("{error}\n{problems}")),
            Err(error) => Err(error),
        })?;
        if self.request.checks.checksums && checks.0.last().is_some_and(|stop| stop.result == CheckOutcome::Passed) {
            let found = || checks::checksums(self.programs, self.scratch, control.data_checksums, context.cancel);
            checks.run("checksums", found)?;
        }
        Ok(())
    }

    /// Reads segments again that PostgreSQL may have been refused, because the log of the server tells of an error of
    /// archive-get.
    ///
    /// # Errors
    /// All are good now: whatever kept PostgreSQL from them says nothing about the backup.
    fn check_refused(&self, log: &str, segments: Vec<WalSegment>) -> Result<()> {
        if !log.contains(ARCHIVE_GET_ERROR) || segments.is_empty() {
            return Ok(());
        }
        let place = self.plan.wal_place(self.context.stanza);
        for segment in &segments {
            if !wal_reach::is_good(&place, segment, self.context.cancel)? {
                return Ok(());
            }
        }
        let text = format!(
            "WAL could not be fetched during recovery although segment {} is good now: {log}",
            segments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
        Err(Error::new(ErrorCode::Execute, text)
            .hint("nothing is proven: repeat the test when the repository is available."))
    }

    fn recovers_everything(&self) -> bool {
        self.request.recovery.kind == RecoveryType::Default
    }

    /// Returns where recovery ended.
    fn reached(&self, access: &PgAccess) -> Result<(RecoveryEnd, WalPosition)> {
        let query = "select pg_walfile_name(pg_current_wal_lsn()), pg_current_wal_lsn(), \
                     pg_last_xact_replay_timestamp()";
        let [file, lsn, time] = access.row(query)?;
        let invalid = || Error::new(ErrorCode::DbQuery, format!("unexpected result of '{query}'"));
        let timeline = file.as_deref().and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok());
        let timeline = TimelineId(timeline.ok_or_else(invalid)?);
        let history = self.scratch.data().join(format!("pg_wal/{timeline}.history"));
        let text = read_text(&history)?;
        // An offline backup recovers no archived WAL and stays on its timeline
        let end = match TimelineHistory::parse(&text)?.0.last() {
            Some(entry) if self.plan.manifest.data.options.online => {
                RecoveryEnd { timeline: entry.timeline, lsn: entry.end_lsn }
            }
            _ => RecoveryEnd { timeline, lsn: lsn.ok_or_else(invalid)?.parse::<Lsn>()? },
        };
        let position = WalPosition { timeline: end.timeline.0, lsn: end.lsn.to_string(), time };
        Ok((end, position))
    }

    fn recovery_facts(&self, reached: Option<WalPosition>) -> RecoveryFacts {
        let (target_type, target) = match &self.request.recovery.kind {
            _ if !self.plan.manifest.data.options.online => ("none", None),
            RecoveryType::Immediate => ("immediate", None),
            RecoveryType::Lsn(target) => ("lsn", Some(target)),
            RecoveryType::Name(target) => ("name", Some(target)),
            RecoveryType::Time(target) => ("time", Some(target)),
            RecoveryType::Xid(target) => ("xid", Some(target)),
            RecoveryType::Default | RecoveryType::None | RecoveryType::Preserve | RecoveryType::Standby => {
                ("default", None)
            }
        };
        let data = &self.plan.manifest.data;
        let timeline =
            reached.as_ref().map(|end| TimelineId(end.timeline)).or(data.archive_start.map(|wal| wal.timeline));
        RecoveryFacts {
            target_type: target_type.to_owned(),
            target: target.cloned(),
            wal_start: data.archive_start.map(|segment| segment.to_string()),
            wal_newest: timeline.and_then(|timeline| self.plan.newest.get(&timeline)).map(ToString::to_string),
            reached,
        }
    }
}

/// What `pg_controldata` says.
struct Control {
    values: std::collections::BTreeMap<String, String>,
    wal_segment_size: u32,
    data_checksums: bool,
}

impl Control {
    fn read(programs: &PgPrograms, scratch: &Scratch, cancel: &CancelToken) -> Result<Self> {
        let mut command = Command::new(programs.needed("pg_controldata"));
        let run = run_tool(command.arg(scratch.data()), &scratch.file("control.log"), cancel)?;
        if run.code != 0 {
            let text = format!("pg_controldata failed with exit status {}: {}", run.code, run.output);
            return Err(Error::new(ErrorCode::Execute, text));
        }
        let values = control_values(&run.output);
        let number = |name: &str| {
            let number = values.get(name).and_then(|value| value.parse::<u32>().ok());
            number.ok_or_else(|| Error::new(ErrorCode::Format, format!("pg_controldata does not show '{name}'")))
        };
        let wal_segment_size = number("Bytes per WAL segment")?;
        let data_checksums = number("Data page checksum version")? == 1;
        Ok(Control { wal_segment_size, data_checksums, values })
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn major(version: &str) -> u32 {
    let end = version.find(|char: char| !char.is_ascii_digit()).unwrap_or(version.len());
    version.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Reads a file of the scratch cluster; a missing one is empty.
fn read_text(path: &Path) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", path.display()), error)),
    }
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .map_err(|error| Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", path.display()), error))
}
