//! The worker that pushes in the background everything that PostgreSQL wants archived.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::repo::Repo;
use engine::{CancelToken, Error, ErrorCode, Result};

use super::{PushSettings, check, queue, segment};
use crate::spool::Spool;
use crate::workers::{self, Crew, Retry};

/// How long a worker goes on while new WAL keeps coming, before it leaves the rest to a new one, which reads its
/// configuration anew.
const GO_ON_MAX: Duration = Duration::from_secs(60);

/// How the worker works.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// How one file is pushed; the data directory is set.
    pub push: PushSettings,
    /// Bytes to push before the queue is looked at again.
    pub batch_size: u64,
    /// What a failed push is worth.
    pub retry: Retry,
}

/// Pushes all that is ready below `wal_path` and writes each file's state into the spool. A failure that concerns all files is
/// written there, too. `check_stop` says whether the operator stopped the stanza.
///
/// # Errors
/// The failure that concerns all files. Trouble with single files is in the spool.
pub fn run(
    repos: &[Repo],
    settings: &WorkerSettings,
    spool: &Spool,
    wal_path: &Path,
    check_stop: impl Fn() -> Result<()>,
    cancel: &CancelToken,
) -> Result<()> {
    let begin = Instant::now();
    let rounds = || {
        let mut first = true;
        loop {
            check_stop()?;
            let todo = todo(spool, wal_path)?;
            if todo.is_empty() {
                if first {
                    return Err(Error::new(ErrorCode::Assert, "no WAL files to process"));
                }
                return Ok(());
            }
            if !round(repos, settings, spool, wal_path, todo, cancel)? || begin.elapsed() > GO_ON_MAX {
                return Ok(());
            }
            first = false;
        }
    };
    rounds().inspect_err(|error| {
        // Nothing can tell PostgreSQL when even this fails; its call then ends with a timeout
        if let Err(error) = spool.write_error(None, error) {
            engine::error!(error.code, "{error}");
        }
    })
}

/// What PostgreSQL wants archived and is not pushed yet. States that nobody asks for any more are removed.
fn todo(spool: &Spool, wal_path: &Path) -> Result<Vec<String>> {
    let states = spool.list()?;
    let ready = queue::ready_list(wal_path)?;
    let mut done = Vec::new();
    for state in &states {
        match state.strip_suffix(repo_format::spool::OK_EXTENSION) {
            Some(file) if ready.binary_search_by(|name| name.as_str().cmp(file)).is_ok() => done.push(file),
            _ => spool.remove(state)?,
        }
    }
    done.sort_unstable();
    Ok(ready.into_iter().filter(|file| done.binary_search(&file.as_str()).is_err()).collect())
}

/// Pushes one batch; `false` when it was cut short.
fn round(
    repos: &[Repo],
    settings: &WorkerSettings,
    spool: &Spool,
    wal_path: &Path,
    mut todo: Vec<String>,
    cancel: &CancelToken,
) -> Result<bool> {
    // All that waits counts, also what is pushed already: PostgreSQL keeps it as long as an earlier file is not pushed
    let drop = match settings.push.queue_max {
        Some(queue_max) if queue::is_exceeded(wal_path, &queue::ready_list(wal_path)?, queue_max)? => Some(queue_max),
        _ => None,
    };
    if drop.is_none() {
        let first = &todo[0];
        let size = queue::file_size(&wal_path.join(first))?;
        if size == 0 {
            return Err(Error::new(ErrorCode::Format, format!("size of WAL segment '{first}' is 0")));
        }
        todo.truncate(usize::try_from(settings.batch_size / size).unwrap_or(usize::MAX).max(1));
    }
    let last = match todo.as_slice() {
        [_] | [] => String::new(),
        [.., last] => format!("...{last}"),
    };
    engine::info!("push {} WAL file(s) to archive: {}{last}", todo.len(), todo[0]);
    if let Some(queue_max) = drop {
        for file in &todo {
            let warning = queue::drop_warning(file, queue_max);
            engine::warn!("{warning}");
            spool.write_ok(file, &[warning])?;
        }
        return Ok(false);
    }
    let targets = check::check(repos, &settings.push, None)?;
    let mut failed = false;
    let process_max = settings.push.process_max;
    let left = AtomicUsize::new(todo.len());
    let push = |file: &String| {
        // Towards the end there is less to do than there are workers
        let threads = process_max / left.load(Ordering::Relaxed).clamp(1, process_max.max(1));
        let path = wal_path.join(file);
        let push = || segment::push_file(&targets, &settings.push, &path, file, threads, None);
        let pushed = settings.retry.run(cancel, push);
        left.fetch_sub(1, Ordering::Relaxed);
        pushed
    };
    let crew = Crew::new(process_max, repos);
    workers::run(&todo, crew, true, cancel, push, |process, file, result| match result {
        Ok(warnings) => {
            for warning in &warnings {
                engine::warn!(process: process, "{warning}");
            }
            engine::detail!(process: process, "pushed WAL file '{file}' to the archive");
            spool.write_ok(file, &warnings)
        }
        Err(error) => {
            failed = true;
            engine::warn!(
                process: process,
                "could not push WAL file '{file}' to the archive (will be retried): [{}] {error}",
                error.code.number()
            );
            spool.write_error(Some(file), &error)
        }
    })?;
    if failed {
        engine::warn!("stopped archive-push after an error, remaining WAL will be processed on the next run");
    }
    Ok(!failed)
}
