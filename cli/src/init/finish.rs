//! What follows the configuration: settings of PostgreSQL, the stanza, the check.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use engine::info::InfoRequest;
use engine::pg::archiving::{ArchiveSettings, SettingChange, apply};
use engine::pg::discover::{DiscoverRequest, FoundCluster, RunningServer};
use engine::{Error, ErrorCode, Result, Session};
use repo_format::label::BackupType;

use super::{Asked, choose};
use crate::config::{self, CommandLine, Config, Environment, SystemFiles, opt, quote_for_shell};
use crate::identity::own_path;
use crate::init::ask::is_yes;
use crate::{ExitStatus, cancel_token, pg, repos};

/// Sets or shows what PostgreSQL needs, then runs stanza-create and check.
///
/// # Errors
/// The server can't be reached, another archiver is set, or a program can't be started. The errors of the commands are
/// their exit status.
pub(crate) fn finish(config: &Config, path: &str, asked: &mut Asked) -> Result<ExitStatus> {
    let next = Next::new(config, path)?;
    let ready = next.resolve("stanza-create")?;
    let data = ready.get_at(opt::PG_PATH, ready.pg_default())?;
    let cluster = choose::at(&DiscoverRequest::of_host(), Path::new(data))?;
    if rustix::process::geteuid().is_root() && cluster.owner.uid != 0 {
        return next.as_owner(config, &cluster, asked);
    }
    let Some(server) = &cluster.running else {
        crate::print(&format!("PostgreSQL is not running. Start it, then run: {}\n", next.again()))?;
        return Ok(ExitStatus::LEFT_TO_DO);
    };
    let connected = pg::host(&ready, ready.pg_default()).and_then(|host| host.connect(cancel_token()));
    let mut connection = connected.map_err(|error| with_place(error, server))?;
    let settings = ArchiveSettings::read(&mut *connection)?;
    let changes = settings.changes(&next.archive_command(), &next.stanza)?;
    // PostgreSQL keeps WAL that it can't archive, so it gets the command only when there is a stanza
    let status = next.run("stanza-create")?;
    if status != ExitStatus::SUCCESS {
        return Ok(status);
    }
    let settings = wanted(&changes, config, asked)?;
    if settings != Settings::Open && !changes.is_empty() {
        apply(&mut *connection, &changes)?;
    }
    match settings {
        Settings::Right => {}
        Settings::Open => {
            crate::print(&format!(
                "Make these settings, or let init do so with --apply. Then run: {}\n",
                next.again()
            ))?;
            return Ok(ExitStatus::LEFT_TO_DO);
        }
        Settings::NeedRestart => {
            crate::print(&format!("Restart PostgreSQL, then run: {}\n", next.again()))?;
            return Ok(ExitStatus::LEFT_TO_DO);
        }
    }
    let status = next.run("check")?;
    if status != ExitStatus::SUCCESS {
        return Ok(status);
    }
    if let Some(text) = next.would_expire()? {
        crate::print(&format!("{text}\n"))?;
        return Ok(ExitStatus::LEFT_TO_DO);
    }
    crate::print(&format!(
        "PostgreSQL archives its WAL into the repository. The first backup, as {}: {}\n",
        cluster.owner.name,
        next.shown("backup")
    ))?;
    Ok(status)
}

/// Adds to a failed connection where the server of the data directory listens.
fn with_place(error: Error, server: &RunningServer) -> Error {
    if error.code != ErrorCode::DbConnect {
        return error;
    }
    let socket = server.socket_dir.as_ref().map(|dir| format!(" and pg1-socket-path={}", dir.display()));
    let place = format!("pg1-port={}{}", server.port, socket.unwrap_or_default());
    error.hint(format!("the server of this data directory needs {place} in the configuration."))
}

/// Whether PostgreSQL has what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settings {
    Right,
    /// They are in place, but count after a restart only.
    NeedRestart,
    /// They were only shown.
    Open,
}

/// The commands that follow, with the options that find the configuration again.
struct Next {
    program: String,
    stanza: String,
    /// Options of files, and of the stanza.
    options: Vec<String>,
    /// The same for a process that does not have this environment.
    archive_options: Vec<String>,
}

impl Next {
    fn new(config: &Config, path: &str) -> Result<Self> {
        let program = own_path(config.program())?;
        let stanza = config.get(opt::STANZA)?.to_owned();
        let decls = [opt::CONFIG.decl(), opt::CONFIG_PATH.decl(), opt::CONFIG_INCLUDE_PATH.decl()];
        let typed = decls.into_iter().flat_map(|decl| config.arguments_of(decl));
        // PostgreSQL runs the command in its data directory
        let mut options: Vec<String> = typed.map(with_absolute_path).collect::<Result<_>>()?;
        let mut archive_options = options.clone();
        if archive_options.is_empty() && path != config::DEFAULT_FILE {
            archive_options.push(with_absolute_path(format!("--config={path}"))?);
        }
        options.push(format!("--stanza={stanza}"));
        archive_options.push(format!("--stanza={stanza}"));
        Ok(Next { program: program.display().to_string(), stanza, options, archive_options })
    }

    /// The configuration of a command, as it is in the files now.
    fn resolve(&self, command: &str) -> Result<Config> {
        let words = std::iter::once("rbr").chain(self.options.iter().map(String::as_str)).chain([command]);
        let line = CommandLine::parse(words)?;
        let mut config = Config::resolve(line, Environment::from_process(), &SystemFiles, &mut |_| ())?;
        config.adjust()?;
        Ok(config)
    }

    /// A command as the user would type it.
    fn shown(&self, command: &str) -> String {
        let words = std::iter::once("rbr").chain(self.options.iter().map(String::as_str)).chain([command]);
        words.map(quote_for_shell).collect::<Vec<_>>().join(" ")
    }

    fn again(&self) -> String {
        self.shown("init")
    }

    /// The command with which PostgreSQL archives. `%p` stays as it is, and a `%` in a path is doubled, as PostgreSQL
    /// requires.
    fn archive_command(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.archive_options);
        let words: Vec<String> = words.map(|word| quote_for_shell(word).replace('%', "%%")).collect();
        format!("{} archive-push %p", words.join(" "))
    }

    /// Runs a command of this program.
    fn run(&self, command: &str) -> Result<ExitStatus> {
        crate::print(&format!("Running: {}\n", self.shown(command)))?;
        let mut process = Command::new(&self.program);
        process.args(&self.options).arg(command);
        status_of(process)
    }

    /// Goes on as the owner of the cluster.
    fn as_owner(&self, config: &Config, cluster: &FoundCluster, asked: &Asked) -> Result<ExitStatus> {
        let mut process = Command::new(&self.program);
        process.args(&self.options).arg("init").uid(cluster.owner.uid).gid(cluster.owner.gid);
        // Another user's directory may not be readable
        process.current_dir("/");
        if config.get(opt::APPLY)? {
            process.arg("--apply");
        }
        if asked.is_none() {
            process.arg("--yes");
        }
        status_of(process)
    }

    /// Says which backups the next one would remove: those of a repository that was there before this configuration.
    fn would_expire(&self) -> Result<Option<String>> {
        let config = self.resolve("expire")?;
        let keys = config.repo_keys_selected();
        let settings = keys.iter().map(|&key| repos::settings(&config, key)).collect::<Result<Vec<_>>>()?;
        let session = Session::new(repos::stanza(&config)?, settings)?.with_lock_path(repos::lock_path(&config)?);
        let facts = session.with_cancel(cancel_token().clone()).info(&InfoRequest::default())?;
        for key in keys {
            let is_full = |label: &repo_format::label::BackupLabel| label.backup_type() == BackupType::Full;
            let full = facts.backups.iter().filter(|backup| backup.repo_key == key && is_full(&backup.label)).count();
            let kept = config.find_at(opt::REPO_RETENTION_FULL, key).and_then(|kept| usize::try_from(kept).ok());
            let is_count = config.find_at(opt::REPO_RETENTION_FULL_TYPE, key).is_none_or(|kind| kind == "count");
            if let Some(kept) = kept.filter(|&kept| is_count && full > kept) {
                return Ok(Some(format!(
                    "repo{key} contains {full} full backups of the stanza '{}' and is to keep {kept}: the next backup removes the \
                     others and their WAL. Change repo{key}-retention-full unless that is wanted.",
                    self.stanza
                )));
            }
        }
        Ok(None)
    }
}

/// Shows the settings that PostgreSQL lacks, and returns what there is if they are made as far as that is wanted.
fn wanted(changes: &[SettingChange], config: &Config, asked: &mut Asked) -> Result<Settings> {
    if changes.is_empty() {
        return Ok(Settings::Right);
    }
    crate::print(&format!("PostgreSQL needs these settings\n\n{}\n", shown_changes(changes)))?;
    let wanted = config.get(opt::APPLY)?
        || match asked {
            Some(asked) => is_yes(&asked.ask("Set them with ALTER SYSTEM?", "n")?),
            None => false,
        };
    if !wanted {
        return Ok(Settings::Open);
    }
    Ok(if changes.iter().any(|change| change.needs_restart) { Settings::NeedRestart } else { Settings::Right })
}

fn shown_changes(changes: &[SettingChange]) -> String {
    let line = |change: &SettingChange| {
        let restart = if change.needs_restart { "  # needs a restart" } else { "" };
        format!("    {} = '{}'{restart}\n", change.name, change.value.replace('\'', "''"))
    };
    changes.iter().map(line).collect()
}

/// Makes the path of an argument absolute.
fn with_absolute_path(argument: String) -> Result<String> {
    let Some((option, path)) = argument.split_once('=') else { return Ok(argument) };
    let failed = |error| Error::from_io(ErrorCode::PathOpen, format!("unable to find '{path}'"), error);
    Ok(format!("{option}={}", std::path::absolute(path).map_err(failed)?.display()))
}

/// Waits for a process and returns its exit status.
fn status_of(mut process: Command) -> Result<ExitStatus> {
    let status = process
        .status()
        .map_err(|error| Error::from_io(ErrorCode::Execute, format!("unable to start {process:?}"), error))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map(ExitStatus).ok_or_else(|| Error::new(ErrorCode::Term, format!("{process:?} was killed: {status}")))
}
