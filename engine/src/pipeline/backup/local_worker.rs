//! The worker for a data directory of this host: reads a file once, hashes, checks and encodes it.

use std::io::Cursor;

use repo_format::hash::Sha1;
use repo_format::pg::PgVersion;

use super::CopyRules;
use super::file_encoder::{Compared, FileEncoder, OpenJob};
use super::job::{Copied, CopyFile, CopyJob, CopyOutcome, CopyResult};
use super::pass::{Input, sum};
use super::worker::{CopyWorker, JobStore};
use crate::cancel::CancelToken;
use crate::pg::control_file;
use crate::pg::data_dir::{DataDir, PG_CONTROL};
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result};

/// Copies files of one data directory.
pub struct LocalWorker<'a> {
    data_dir: DataDir,
    /// Assume this version of the cluster instead of that in `pg_control`.
    version_force: Option<PgVersion>,
    encoder: FileEncoder<'a>,
}

impl<'a> LocalWorker<'a> {
    /// A worker for the thread that has this turn.
    pub fn new(data_dir: DataDir, version_force: Option<PgVersion>, rules: &'a CopyRules, turn: &Turn) -> Self {
        LocalWorker { data_dir, version_force, encoder: FileEncoder::new(rules, turn) }
    }

    fn file(&mut self, open: &mut OpenJob<'_>, file: &CopyFile) -> Result<CopyResult> {
        open.cancel.check()?;
        Ok(CopyResult { name: file.name.clone(), outcome: self.outcome(open, file)? })
    }

    fn outcome(&mut self, open: &mut OpenJob<'_>, file: &CopyFile) -> Result<CopyOutcome> {
        let (pace, cancel) = (open.pace.clone(), open.cancel);
        let after_read = |bytes| {
            pace.after(bytes, cancel);
            cancel.check()
        };
        let repo_invalid = match open.compare(file, || self.plain_checksum(file, &after_read))? {
            Compared::Done(outcome) => return Ok(outcome),
            Compared::Differs { repo_invalid } => repo_invalid,
        };
        let Some(input) = self.open(file)? else { return Ok(CopyOutcome::Removed) };
        let data_dir = &self.data_dir;
        match self.encoder.copy(open, file, input, &|| display(data_dir, file))? {
            CopyOutcome::Copied(copied) => Ok(CopyOutcome::Copied(Copied { repo_invalid, ..copied })),
            outcome => Ok(outcome),
        }
    }

    /// Returns size and checksum of the file as it is now; `None` if it no longer exists.
    fn plain_checksum(
        &mut self,
        file: &CopyFile,
        after_read: &dyn Fn(u64) -> Result<()>,
    ) -> Result<Option<(u64, Sha1)>> {
        let LocalWorker { data_dir, encoder, .. } = self;
        let display = || display(data_dir, file);
        let Some(source) = data_dir.open(&file.name)? else {
            // Every other file may be dropped while the server runs
            if &*file.name == PG_CONTROL {
                let text = format!("unable to open missing file '{}' for read", display());
                return Err(Error::new(ErrorCode::FileMissing, text));
            }
            return Ok(None);
        };
        sum(&mut Input::file(source, file), encoder.read_buffer(), &display, after_read).map(Some)
    }

    /// Opens a file; `None` if it no longer exists.
    fn open(&self, file: &CopyFile) -> Result<Option<Input>> {
        let LocalWorker { data_dir, version_force, .. } = self;
        if &*file.name == PG_CONTROL {
            let (_, bytes) = control_file::read_bytes(data_dir.path(), *version_force)?;
            return Ok(Some(Input::Bytes(Cursor::new(bytes))));
        }
        Ok(data_dir.open(&file.name)?.map(|source| Input::file(source, file)))
    }
}

fn display(data_dir: &DataDir, file: &CopyFile) -> String {
    data_dir.file_path(&file.name).display().to_string()
}

impl CopyWorker for LocalWorker<'_> {
    fn run(&mut self, job: &CopyJob, store: &mut dyn JobStore, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        let turn = self.encoder.turn.clone();
        if job.is_long() {
            turn.takes_long();
        }
        self.encoder.sink.begin_job();
        let mut open = OpenJob::new(job, store, cancel);
        let results = job.files.iter().map(|file| self.file(&mut open, file)).collect::<Result<_>>()?;
        self.encoder.sink.end_job(open.store)?;
        Ok(results)
    }
}
