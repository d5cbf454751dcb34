//! `archive-push`: stores the WAL file that PostgreSQL hands over, or lets a background worker do it.

use std::path::{Path, PathBuf};

use engine::{Error, ErrorCode, Result};
use repo_format::compress::Compression;
use repo_format::spool::SpoolQueue;
use wal::push::async_worker::{PushWorker, WorkerSettings};
use wal::push::{self, PushSettings};

use crate::archive;
use crate::config::{Command, Config, opt};
use crate::{ExitStatus, cancel_token, repos};

/// Pushes the given file.
///
/// # Errors
/// The file is not durable in every repository.
pub fn run(config: &Config) -> Result<ExitStatus> {
    archive::check_local(config)?;
    let [param] = config.params() else {
        return Err(Error::new(ErrorCode::ParamRequired, "WAL segment to push required"));
    };
    check_stop(config)?;
    let wal_file = archive::wal_path(config, param)?;
    if !config.get(opt::ARCHIVE_ASYNC)? {
        push::push(&repos::open_usable(config, config.repo_keys()), &settings(config)?, &wal_file)?;
        return Ok(ExitStatus::SUCCESS);
    }
    if archive::pg_path(config).is_none() {
        let name = archive::pg_path_name(config);
        let text = format!("'archive-push' command in async mode requires option '{name}'");
        return Err(Error::new(ErrorCode::OptionRequired, text));
    }
    let background = archive::background(config, SpoolQueue::Out)?;
    let launch = |wal_path: &Path, name: &str| {
        archive::launch(config, Command::ArchivePush, &[wal_path.to_string_lossy().into_owned(), name.to_owned()])
            .map(drop)
    };
    push::foreground::push(&background, &wal_file, launch, cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}

/// The worker: pushes everything that is ready in the given WAL directory. It starts with the file that the next
/// parameter names, if any.
///
/// # Errors
/// Failures that concern all files. They are also in the spool.
pub fn run_async(config: &Config) -> Result<ExitStatus> {
    archive::check_local(config)?;
    let (wal_path, asked) = match config.params() {
        [wal_path] => (wal_path, None),
        [wal_path, asked] => (wal_path, Some(asked.clone())),
        _ => return Err(Error::new(ErrorCode::ParamRequired, "WAL path to push required")),
    };
    let _lock = archive::worker_lock(config)?;
    let spool = archive::spool(config, SpoolQueue::Out)?;
    let settings = worker_settings(config, asked).inspect_err(|error| spool.tell_all(error))?;
    let repos = repos::open_usable(config, config.repo_keys());
    let worker = PushWorker { repos: &repos, settings: &settings, spool: &spool, wal_path: Path::new(wal_path) };
    worker.run(|| check_stop(config), cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}

fn worker_settings(config: &Config, asked: Option<String>) -> Result<WorkerSettings> {
    Ok(WorkerSettings {
        push: settings(config)?,
        batch_size: config.get(opt::ARCHIVE_PUSH_BATCH_SIZE)?,
        retry: archive::retry(config),
        asked,
    })
}

fn check_stop(config: &Config) -> Result<()> {
    repos::locks(config)?.check_stop(Some(&repos::stanza(config)?))
}

fn settings(config: &Config) -> Result<PushSettings> {
    let level = config.find(opt::COMPRESS_LEVEL).and_then(|level| i32::try_from(level).ok());
    Ok(PushSettings {
        stanza: repos::stanza(config)?,
        pg_path: archive::pg_path(config).map(PathBuf::from),
        version_force: archive::version_force(config)?,
        header_check: config.get(opt::ARCHIVE_HEADER_CHECK)?,
        mode_check: config.get(opt::ARCHIVE_MODE_CHECK)?,
        compression: Compression::new(config.get(opt::COMPRESS_TYPE)?.parse()?, level)?,
        process_max: archive::process_max(config)?,
        queue_max: config.find(opt::ARCHIVE_PUSH_QUEUE_MAX),
    })
}
