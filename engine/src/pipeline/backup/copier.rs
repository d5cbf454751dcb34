//! Stores what a worker copies.

use std::io::Write;

use repo_format::block_map::BlockMap;
use repo_format::hash::Sha1;

use super::job::{CopyFile, CopyJob, CopyOutcome, CopyResult};
use super::pass::sum;
use super::worker::{CopyWorker, JobStore};
use super::{CopyRules, prior_map};
use crate::cancel::CancelToken;
use crate::progress::{BytesUnderWay, JobProgress};
use crate::storage::on_turn::OnTurn;
use crate::storage::{ReadRange, RepoStorage, RepoWriter};
use crate::throttle::Pace;
use crate::{Error, ErrorCode, Result};

/// Bytes read at a time from the repository.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Has a worker do jobs, and stores the files.
pub struct Copier<'a> {
    rules: &'a CopyRules,
    storage: OnTurn<&'a dyn RepoStorage>,
    worker: Box<dyn CopyWorker + 'a>,
    pace: Pace,
    under_way: BytesUnderWay,
}

impl<'a> Copier<'a> {
    /// Stores in this repository what the worker copies.
    pub fn new(rules: &'a CopyRules, storage: OnTurn<&'a dyn RepoStorage>, worker: Box<dyn CopyWorker + 'a>) -> Self {
        Copier { rules, storage, worker, pace: Pace::FREE, under_way: BytesUnderWay::default() }
    }

    /// Copies no faster than this.
    #[must_use]
    pub fn with_pace(self, pace: &Pace) -> Self {
        Copier { pace: pace.clone(), ..self }
    }

    /// Counts there what jobs in progress have copied.
    #[must_use]
    pub(crate) fn telling(self, under_way: &BytesUnderWay) -> Self {
        Copier { under_way: under_way.clone(), ..self }
    }

    /// Copies the files of a job.
    ///
    /// # Errors
    /// A file can't be read or stored. What was written of the job must not be trusted. The job can be retried with a
    /// new copier.
    pub fn run(&mut self, job: &CopyJob, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        let bytes = job.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size_original));
        let mut file = JobFile {
            rules: self.rules,
            storage: &self.storage,
            pace: &self.pace,
            progress: self.under_way.begin(bytes),
            cancel,
            job,
            writer: None,
            made: false,
            size: 0,
        };
        let results = self.worker.run(job, &mut file, cancel).and_then(|results| {
            file.end(&results)?;
            Ok(results)
        });
        if results.is_err() {
            file.abandon();
        }
        results
    }
}

/// The file of a job in the repository. It is created when the first bytes are written, so that a bundle of unchanged
/// files leaves none.
struct JobFile<'a> {
    rules: &'a CopyRules,
    storage: &'a dyn RepoStorage,
    pace: &'a Pace,
    progress: JobProgress,
    cancel: &'a CancelToken,
    job: &'a CopyJob,
    writer: Option<Box<dyn RepoWriter>>,
    /// Whether the file was created.
    made: bool,
    /// Bytes written.
    size: u64,
}

impl JobFile<'_> {
    fn writer(&mut self) -> Result<&mut Box<dyn RepoWriter>> {
        Ok(match &mut self.writer {
            Some(writer) => writer,
            // Not atomic, because a resume checks checksums
            none => {
                self.made = true;
                none.insert(self.storage.write(&self.job.path, self.rules.write_options)?)
            }
        })
    }

    /// Completes the file. A job that stored nothing creates none, and removes what an interrupted backup stored.
    fn end(&mut self, results: &[CopyResult]) -> Result<()> {
        let copied = results.iter().filter_map(|result| match &result.outcome {
            CopyOutcome::Copied(copied) => Some(copied.size_repo),
            _ => None,
        });
        let (count, size) = copied.fold((0, 0u64), |(count, sum), size| (count + 1, sum.saturating_add(size)));
        if size != self.size {
            let path = self.storage.display(&self.job.path);
            let text = format!("{} byte(s) of '{path}' were stored but the manifest would have {size}", self.size);
            return Err(Error::new(ErrorCode::Assert, text));
        }
        if count > 0 {
            // A file on its own may have no bytes
            self.writer()?;
        }
        if let Some(writer) = self.writer.take() {
            return writer.finish();
        }
        let is_useless = |(file, result): (&CopyFile, &CopyResult)| {
            file.method.resumes() && matches!(result.outcome, CopyOutcome::Removed | CopyOutcome::Truncated)
        };
        if self.job.files.iter().zip(results).any(is_useless) {
            self.storage.remove(&self.job.path)?;
        }
        Ok(())
    }

    /// Removes what a failed job wrote. When the job is retried, its files may no longer exist, and nothing would
    /// overwrite it.
    fn abandon(mut self) {
        self.writer = None;
        if self.made {
            // The earlier error is the one to report; a file that no manifest names is only in the way
            let _ = self.storage.remove(&self.job.path);
        }
    }
}

impl JobStore for JobFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        let written = self.writer()?.write_all(bytes);
        written.map_err(|error| {
            let path = self.storage.display(&self.job.path);
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{path}'"), error)
        })
    }

    fn pace(&self) -> Pace {
        self.pace.clone()
    }

    fn progress(&self) -> JobProgress {
        self.progress.clone()
    }

    fn stored_checksum(&mut self) -> Result<Option<(u64, Sha1)>> {
        let path = &self.job.path;
        let Some(mut stored) = self.storage.read(path, ReadRange::default())? else { return Ok(None) };
        sum(&mut stored, &mut vec![0; READ_BUFFER_BYTES], &|| self.storage.display(path), &|_| self.cancel.check())
            .map(Some)
    }

    fn prior_map(&mut self, file: &CopyFile) -> Result<Option<BlockMap>> {
        prior_map::read(self.rules, self.storage, file)
    }
}
