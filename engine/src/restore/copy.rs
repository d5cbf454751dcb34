//! Runs the jobs of a restore and reports each file.

use std::collections::VecDeque;
use std::fmt::Write as _;

use repo_format::manifest::ManifestFile;
use repo_format::size::{format_percent, format_size};

use super::ahead::{BegunJob, JobsAhead};
use super::file::{FileContext, FileResult, Outcome};
use super::names::restored_path;
use super::queue::{self, RestoreJob};
use super::request::RestoreRequest;
use crate::host_locks::HeldLocks;
use crate::pipeline::restore::RestorePipeline;
use crate::progress::Progress;
use crate::work::crew::{Crew, CrewSettings, Event};
use crate::work::retry::{RetryPolicy, is_lasting_locally};
use crate::{CancelToken, Error, ErrorCode, Result, detail, log, warn};

/// Jobs of one worker if they wait for reads that can't be started ahead.
const JOBS_DEPENDENT: u32 = 2;

/// Where the copy shows its progress.
pub(super) struct Display<'a> {
    pub(super) progress: &'a dyn Progress,
    /// The lock, which other processes read the progress from.
    pub(super) lock: &'a mut dyn HeldLocks,
    /// The repository that is read.
    pub(super) repo_key: u32,
}

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct CopyTotals {
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Number of files that existed and matched.
    pub(super) kept: usize,
    /// Number of files that were backed up with invalid pages.
    pub(super) page_errors: u32,
}

/// Copies everything.
///
/// # Errors
/// The first error of a job, after its retries.
pub(super) fn run(
    context: &FileContext<'_>,
    request: &RestoreRequest,
    display: Display<'_>,
    cancel: &CancelToken,
) -> Result<CopyTotals> {
    let Display { progress, lock, repo_key } = display;
    let queues = queue::queues(context.manifest)?;
    let total = queues.size;
    let mut copied = CopyTotals::default();
    lock.update_begin(repo_key, total);
    progress.start(context.manifest.files.len() as u64, total);
    let crew = crew(context, request);
    let mut jobs = JobsAhead::new(context, interleave(queues.queues), crew.workers);
    let result = Crew { settings: &crew, cancel }.run(
        |_| jobs.next(),
        |_, turn| {
            let compress_type = context.manifest.data.options.compress_type;
            Ok(RestorePipeline::new(context.cipher.clone(), compress_type, turn))
        },
        |pipeline, begun, cancel| context.restore(pipeline, &begun.job, begun.take_read(), cancel),
        |event| {
            let (worker, job, result) = match event {
                Event::Done { worker, job: BegunJob { job, .. }, result } => (worker, job, result),
                // No retry of a job brings the connection back
                Event::Idle => return context.storage.connected(),
                Event::Stopping => return Ok(()),
            };
            let result = result?;
            for file_result in &result {
                let Some(file) = context.manifest.files.get(file_result.index as usize) else { continue };
                copied.bytes = copied.bytes.saturating_add(file.size);
                copied.kept += usize::from(file_result.outcome == Outcome::Preserved);
                if has_invalid_pages(context, file) {
                    let path = restored_path(context.pg_path, &file.name);
                    let text = format!("invalid page checksum(s) found in file {path}");
                    if request.checksum_page_error {
                        return Err(Error::new(ErrorCode::Checksum, text));
                    }
                    warn!("{text}");
                    copied.page_errors += 1;
                }
                if log::shows_detail() {
                    let text = describe(context, file, file_result, copied.bytes, total);
                    detail!(process: worker, "{text}");
                }
            }
            progress.advance(result.len() as u64, job.size);
            lock.update(repo_key, copied.bytes, total);
            Ok(())
        },
    );
    progress.finish();
    if copied.page_errors > 0 {
        warn!(
            "restore command encountered page checksum error(s) in {} file(s), check the log file for details",
            copied.page_errors
        );
    }
    result.map(|()| copied)
}

/// Returns whether a file was backed up with invalid pages and is restored with them.
fn has_invalid_pages(context: &FileContext<'_>, file: &ManifestFile) -> bool {
    file.page_check.as_ref().is_some_and(|check| !check.valid)
        && context.zero.is_none_or(|zero| !zero.is_zeroed(&file.name))
}

/// Returns the crew for these files. The first read of a job is started ahead, so more than one job per worker is useful
/// only if jobs wait for reads that depend on earlier results. Each has a decoder with its window.
pub(super) fn crew(context: &FileContext<'_>, request: &RestoreRequest) -> CrewSettings {
    let retry = RetryPolicy::new(request.job_retry, request.job_retry_interval);
    let mut crew = CrewSettings::new(request.process_max, retry);
    let jobs_max = if context.delta || context.manifest.data.block_incr { JOBS_DEPENDENT } else { 1 };
    crew.jobs_per_worker = context.storage.concurrency().jobs_per_worker.min(jobs_max);
    if context.storage.features().errors_last {
        // A retry at once costs nothing
        crew.retry = crew.retry.with_final(|error, pause| is_lasting_locally(error) && !pause.is_zero());
    }
    crew
}

/// Takes jobs from all queues in turn, so that the file systems of tablespaces are busy at the same time.
pub(super) fn interleave(queues: Vec<Vec<RestoreJob>>) -> impl Iterator<Item = RestoreJob> + Send {
    // Only queues with remaining jobs, so that thousands of small tablespaces are not checked again and again
    let mut queues: VecDeque<_> = queues.into_iter().map(|queue| queue.into_iter().peekable()).collect();
    std::iter::from_fn(move || {
        loop {
            let mut queue = queues.pop_front()?;
            let job = queue.next();
            if queue.peek().is_some() {
                queues.push_back(queue);
            }
            if job.is_some() {
                return job;
            }
        }
    })
}

/// The line about one file, in pgBackRest's words.
fn describe(context: &FileContext<'_>, file: &ManifestFile, result: &FileResult, done: u64, total: u64) -> String {
    let zeroed = context.zero.is_some_and(|zero| zero.is_zeroed(&file.name));
    let mut text =
        format!("restore{} file {}", if zeroed { " zeroed" } else { "" }, restored_path(context.pg_path, &file.name));
    // Writing to a String can't fail
    if result.outcome == Outcome::Preserved {
        let _ = if context.delta_by_time {
            write!(text, " - exists and matches size {} and modification time {}", file.size, file.timestamp)
        } else if file.size == 0 {
            write!(text, " - exists and is zero size")
        } else {
            write!(text, " - exists and matches backup")
        };
    }
    text.push_str(" (");
    if let Some(bundle) = file.bundle {
        text.push_str("bundle ");
        if file.reference.is_some() {
            let _ = write!(text, "{}/", context.manifest.holder(file));
        }
        let _ = write!(text, "{}/{}, ", bundle.id(), bundle.offset);
    }
    if file.block.is_some_and(|block| block.map_size != 0) && result.outcome != Outcome::Preserved {
        text.push_str("bi ");
        let copied = match result.outcome {
            Outcome::Copied { size } => size,
            Outcome::Zeroed | Outcome::Preserved => 0,
        };
        if copied != file.size {
            let _ = write!(text, "{}/", format_size(copied));
        }
    }
    let _ = write!(text, "{}, {})", format_size(file.size), format_percent(done, total));
    if file.size != 0
        && !zeroed
        && let Some(checksum) = file.checksum
    {
        let _ = write!(text, " checksum {checksum}");
    }
    text
}
