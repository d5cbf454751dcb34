//! `archive-get`: fetches the WAL file that PostgreSQL asks for, or takes it from the spool of a background worker.

use std::path::PathBuf;

use engine::throttle::Pace;
use engine::work::crew::CrewSettings;
use engine::{Error, ErrorCode, Result};
use repo_format::spool::SpoolQueue;
use repo_format::wal_name;
use wal::get::foreground::{self, PrefetchSettings};
use wal::get::prefetch::Prefetch;
use wal::get::{self, WalCluster};
use wal::repos::Repos;

use crate::archive;
use crate::config::{Command, Config, opt};
use crate::{ExitStatus, cancel_token, repos, throttle};

/// Gets the given file. The exit status says whether it exists.
///
/// # Errors
/// The command cannot determine whether the file exists, or cannot copy it.
pub fn run(config: &Config) -> Result<ExitStatus> {
    archive::check_local(config)?;
    let (wal_file, destination) = match config.params() {
        [] => return Err(Error::new(ErrorCode::ParamRequired, "WAL segment to get required")),
        [_] => return Err(Error::new(ErrorCode::ParamRequired, "path to copy WAL segment required")),
        [wal_file, destination] => (wal_file.rsplit('/').next().unwrap_or(wal_file), destination),
        _ => return Err(Error::new(ErrorCode::ParamInvalid, "extra parameters found")),
    };
    let destination = archive::wal_path(config, destination)?;
    let cluster = cluster(config)?;
    let open = || open_paced(config);
    let found = if config.get(opt::ARCHIVE_ASYNC)? && wal_name::kind(wal_file).is_segment() {
        let prefetch = PrefetchSettings {
            queue_max: config.get(opt::ARCHIVE_GET_QUEUE_MAX)?,
            missing_retry: config.get(opt::ARCHIVE_MISSING_RETRY)?,
        };
        let background = archive::background(config, SpoolQueue::In)?;
        let launch = |segments: &[String]| archive::launch(config, Command::ArchiveGet, segments);
        let request =
            foreground::GetRequest { cluster: &cluster, wal_segment: wal_file, destination: &destination, prefetch };
        foreground::get(&background, &request, launch, open, cancel_token())?
    } else {
        get::get(&open(), &cluster, wal_file, &destination)?
    };
    Ok(if found { ExitStatus::SUCCESS } else { ExitStatus::NOT_FOUND })
}

/// The worker: fetches the given segments into the spool.
///
/// # Errors
/// Failures that concern all segments. They are also in the spool.
pub fn run_async(config: &Config) -> Result<ExitStatus> {
    archive::check_local(config)?;
    let segments = config.params();
    if segments.is_empty() {
        return Err(Error::new(ErrorCode::ParamInvalid, "at least one wal segment is required"));
    }
    let _lock = archive::worker_lock(config)?;
    let spool = archive::spool(config, SpoolQueue::In)?;
    let prepare = || -> Result<_> {
        let process_max = u32::try_from(archive::process_max(config)?).unwrap_or(u32::MAX);
        let workers = CrewSettings::new(process_max, archive::retry(config));
        Ok((workers, cluster(config)?))
    };
    let (workers, cluster) = prepare().inspect_err(|error| spool.tell_all(error))?;
    let repos = open_paced(config);
    let prefetch = Prefetch { repos: &repos, cluster: &cluster, spool: &spool, workers: &workers };
    prefetch.run(segments, cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}

/// Opens the repositories, from which this process reads no more than its rate allows.
fn open_paced(config: &Config) -> Repos {
    let mut repos = repos::open_usable(config, &config.repo_keys_selected());
    if let Some(limit) = throttle::limit(config) {
        let pace = Pace::new(limit);
        repos.open = repos.open.into_iter().map(|repo| repo.paced(&pace, cancel_token())).collect();
    }
    repos
}

fn cluster(config: &Config) -> Result<WalCluster> {
    let Some(pg_path) = archive::pg_path(config) else {
        let text = format!("archive-get command requires option: {}", archive::pg_path_name(config));
        return Err(Error::new(ErrorCode::OptionRequired, text));
    };
    Ok(WalCluster {
        stanza: repos::stanza(config)?,
        pg_path: PathBuf::from(pg_path),
        version_force: archive::version_force(config)?,
    })
}
