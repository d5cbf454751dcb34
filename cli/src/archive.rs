//! Code that archive-push, archive-get and restore share.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use engine::lock::Lock;
use engine::work::retry::RetryPolicy;
use engine::{Error, ErrorCode, Result};
use repo_format::pg::PgVersion;
use repo_format::spool::SpoolQueue;
use wal::background::Background;
use wal::spool::Spool;

use crate::config::{Command, Config, ExecTarget, Replacement, Role, opt};
use crate::identity::own_path;
use crate::{lifecycle, repos};

/// The number of the cluster that the command is about.
fn pg_key(config: &Config) -> u32 {
    config.pg_keys().first().copied().unwrap_or(1)
}

/// The name of the option that [`pg_path`] reads.
pub(crate) fn pg_path_name(config: &Config) -> String {
    opt::PG_PATH.decl().indexed_name(pg_key(config))
}

/// The data directory, where it was given.
pub(crate) fn pg_path(config: &Config) -> Option<&str> {
    config.find_at(opt::PG_PATH, pg_key(config))
}

/// Fails if the cluster is on another host. Files are restored, and WAL is pushed and fetched, where PostgreSQL runs.
pub(crate) fn check_local(config: &Config) -> Result<()> {
    match config.find_at(opt::PG_HOST, pg_key(config)) {
        None => Ok(()),
        Some(_) => {
            let text = format!("{} command must be run on the PostgreSQL host", config.command().name());
            Err(Error::new(ErrorCode::HostInvalid, text))
        }
    }
}

/// The absolute form of a path that PostgreSQL passes.
pub(crate) fn wal_path(config: &Config, path: &str) -> Result<PathBuf> {
    let name = pg_path_name(config);
    wal::path::wal_path(path, pg_path(config).map(Path::new), config.command().name(), &name)
}

/// The version that the operator says the cluster has.
pub(crate) fn version_force(config: &Config) -> Result<Option<PgVersion>> {
    config.find(opt::PG_VERSION_FORCE).map(str::parse).transpose()
}

/// Number of files to process in parallel.
pub(crate) fn process_max(config: &Config) -> Result<usize> {
    Ok(usize::try_from(config.get(opt::PROCESS_MAX)?).unwrap_or(1))
}

/// How to retry a failed file.
pub(crate) fn retry(config: &Config) -> RetryPolicy {
    let count = config.find(opt::JOB_RETRY).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let interval = config.find(opt::JOB_RETRY_INTERVAL).unwrap_or(Duration::ZERO);
    RetryPolicy::new(count, interval)
}

/// Takes the lock of a background worker. Two workers would write the same temporary files, so the lock must be the
/// worker's own, not one that another worker of the same call holds.
pub(crate) fn worker_lock(config: &Config) -> Result<Option<Lock>> {
    repos::lock(config)?.map(Lock::own).transpose()
}

/// The queue of the stanza's spool.
pub(crate) fn spool(config: &Config, queue: SpoolQueue) -> Result<Spool> {
    Ok(Spool::new(Path::new(config.get(opt::SPOOL_PATH)?), &repos::stanza(config)?, queue))
}

/// How this process communicates with the worker.
pub(crate) fn background(config: &Config, queue: SpoolQueue) -> Result<Background> {
    Ok(Background {
        stanza: repos::stanza(config)?,
        spool: spool(config, queue)?,
        lock_path: repos::lock_path(config)?.to_owned(),
        repo_keys: config.repo_keys_selected(),
        exec_id: config.get(opt::EXEC_ID)?.to_owned(),
        timeout: config.get(opt::ARCHIVE_TIMEOUT)?,
        log_file: lifecycle::log_file_name_of(config, Role::Async).unwrap_or_default(),
    })
}

/// Starts the worker: this program again, detached and without any output except its log file. Returns a closure that
/// tells whether the worker has ended.
pub(crate) fn launch(config: &Config, command: Command, params: &[String]) -> Result<impl FnMut() -> bool + use<>> {
    let off = || Replacement::Text("off".to_owned());
    let replace = [("log-level-console", off()), ("log-level-stderr", off())];
    let mut args = config.options_for_exec(&ExecTarget {
        command,
        role: Role::Async,
        replace: &replace,
        local: true,
        quote: false,
    });
    args.extend_from_slice(params);
    let failed = |error| Error::from_io(ErrorCode::Execute, "unable to start the asynchronous process", error);
    use std::os::unix::process::CommandExt;
    // In its own process group, it does not receive signals to PostgreSQL's archiver. Nobody waits for it: this process
    // ends soon, and init adopts the worker
    let mut worker = std::process::Command::new(own_path(config.program())?)
        // The name by which the program was called determines its identity, and what it starts on other hosts
        .arg0(config.program())
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // If the system gives no answer, assume that the worker still runs
    Ok(move || worker.try_wait().is_ok_and(|status| status.is_some()))
}
