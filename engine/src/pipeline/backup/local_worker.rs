//! The worker for a data directory of this host: reads a file once, hashes, checks and encodes it.

use std::io::Cursor;

use repo_format::hash::Sha1;
use repo_format::pg::PgVersion;

use super::CopyRules;
use super::job::{Copied, CopyFile, CopyJob, CopyOutcome, CopyResult};
use super::pass::{Encoders, Input, Pass, Passed, sum};
use super::sink::Sink;
use super::worker::{CopyWorker, JobStore};
use crate::cancel::CancelToken;
use crate::pg::control_file;
use crate::pg::data_dir::{DataDir, PG_CONTROL};
use crate::pipeline::block_writer::BlockLayout;
use crate::pipeline::page_check::PageChecker;
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result};

/// Plain bytes read at a time, a multiple of every page size. Small enough to stay in the processor's cache from the
/// page check to compression.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Stored bytes gathered before they are written.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Copies files of one data directory. Buffers and codecs are kept from file to file.
pub struct LocalWorker<'a> {
    data_dir: DataDir,
    /// Assume this version of the cluster instead of that in `pg_control`.
    version_force: Option<PgVersion>,
    rules: &'a CopyRules,
    /// The turn to compute of the thread that copies.
    turn: Turn,
    read_buffer: Vec<u8>,
    encoders: Encoders,
    sink: Sink,
}

impl<'a> LocalWorker<'a> {
    /// Creates buffers and codecs for the thread that has this turn.
    ///
    /// # Errors
    /// The codec refuses the level.
    pub fn new(data_dir: DataDir, version_force: Option<PgVersion>, rules: &'a CopyRules, turn: &Turn) -> Result<Self> {
        Ok(LocalWorker {
            data_dir,
            version_force,
            rules,
            turn: turn.clone(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            encoders: Encoders::new(rules, turn)?,
            sink: Sink::default(),
        })
    }
}

impl CopyWorker for LocalWorker<'_> {
    fn run(&mut self, job: &CopyJob, store: &mut dyn JobStore, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        if job.is_long() {
            self.turn.takes_long();
        }
        let _helpers = (job.threads > 1).then(|| {
            let name = job.files.first().map_or("", |file| &file.name);
            crate::debug!("{} threads compress '{name}'", job.threads);
            self.turn.reserve(job.threads - 1)
        });
        self.sink.begin_job();
        let mut open = OpenJob { worker: &mut *self, job, store: &mut *store, cancel };
        let results = job.files.iter().map(|file| open.file(file)).collect::<Result<_>>()?;
        self.sink.end_job(store)?;
        Ok(results)
    }
}

/// One job in progress.
struct OpenJob<'a, 'w> {
    worker: &'a mut LocalWorker<'w>,
    job: &'a CopyJob,
    store: &'a mut dyn JobStore,
    cancel: &'a CancelToken,
}

impl OpenJob<'_, '_> {
    fn file(&mut self, file: &CopyFile) -> Result<CopyResult> {
        self.cancel.check()?;
        Ok(CopyResult { name: file.name.clone(), outcome: self.outcome(file)? })
    }

    fn outcome(&mut self, file: &CopyFile) -> Result<CopyOutcome> {
        if file.method.resumes() && self.job.bundle_id.is_some() {
            // What is stored is the bundle, which would be checked and removed instead of the file
            let message = format!("file '{}' of an interrupted backup can't be resumed in a bundle", file.name);
            return Err(Error::new(ErrorCode::Assert, message));
        }
        let mut matches = None;
        if file.method.compares() {
            match self.plain_checksum(file)? {
                None => return Ok(CopyOutcome::Removed),
                Some((size, checksum)) => {
                    let same = size == file.size && Some(checksum) == file.checksum;
                    if same && file.has_reference {
                        return Ok(CopyOutcome::Unchanged { size, checksum });
                    }
                    matches = Some(same);
                }
            }
        }
        let mut repo_invalid = false;
        if file.method.resumes() && matches != Some(false) {
            let expected = file.checksum_repo.or(file.checksum);
            let found = self.store.stored_checksum()?;
            match (found, expected, file.checksum) {
                (Some((size, found)), Some(expected), Some(checksum))
                    if size == file.size_repo && found == expected =>
                {
                    return Ok(CopyOutcome::Resumed { size: file.size, checksum });
                }
                _ => repo_invalid = true,
            }
        }
        match self.copy(file)? {
            CopyOutcome::Copied(copied) => Ok(CopyOutcome::Copied(Copied { repo_invalid, ..copied })),
            outcome => Ok(outcome),
        }
    }

    /// Returns size and checksum of the file as it is now; `None` if it no longer exists.
    fn plain_checksum(&mut self, file: &CopyFile) -> Result<Option<(u64, Sha1)>> {
        let LocalWorker { data_dir, read_buffer, .. } = &mut *self.worker;
        let display = || data_dir.file_path(&file.name).display().to_string();
        let Some(source) = data_dir.open(&file.name)? else {
            // Every other file may be dropped while the server runs
            if &*file.name == PG_CONTROL {
                let text = format!("unable to open missing file '{}' for read", display());
                return Err(Error::new(ErrorCode::FileMissing, text));
            }
            return Ok(None);
        };
        sum(&mut Input::file(source, file), read_buffer, &display).map(Some)
    }

    /// Opens a file; `None` if it no longer exists.
    fn open(&self, file: &CopyFile) -> Result<Option<Input>> {
        let LocalWorker { data_dir, version_force, .. } = &*self.worker;
        if &*file.name == PG_CONTROL {
            let (_, bytes) = control_file::read_bytes(data_dir.path(), *version_force)?;
            return Ok(Some(Input::Control(Cursor::new(bytes))));
        }
        Ok(data_dir.open(&file.name)?.map(|source| Input::file(source, file)))
    }

    fn copy(&mut self, file: &CopyFile) -> Result<CopyOutcome> {
        let Some(input) = self.open(file)? else { return Ok(CopyOutcome::Removed) };
        let LocalWorker { data_dir, rules, read_buffer, sink, encoders, turn, .. } = &mut *self.worker;
        let pages = file.page_check.then(|| PageChecker::new(&file.name, rules.page_size, rules.page_header_check));
        let transform = match &file.block {
            Some(block) => {
                let layout = BlockLayout {
                    block_size: block.block_size,
                    checksum_size: block.checksum_size,
                    super_block_size: block.super_block_size,
                    reference: rules.reference,
                    bundle_id: self.job.bundle_id.unwrap_or(0),
                    offset: sink.offset(),
                };
                encoders.blocks(layout, self.store.prior_map(file)?)?
            }
            None => encoders.stream(rules, self.job)?,
        };
        sink.begin_file(transform.transforms());
        let display = || data_dir.file_path(&file.name).display().to_string();
        let mut pass = Pass::new(input, transform, pages);
        while pass.advance(read_buffer, &mut sink.pending, &display)? {
            self.cancel.check()?;
            turn.give_way();
            if sink.file_pending().len() >= rules.compare_buffer_bytes {
                sink.flush(self.store)?;
            }
        }
        let passed = pass.finish(&mut sink.pending)?;
        self.end_file(file, passed)
    }

    /// Gives the file that was just read to the repository, unless that is not necessary.
    fn end_file(&mut self, file: &CopyFile, passed: Passed) -> Result<CopyOutcome> {
        let Passed { size, checksum, map_size, pages } = passed;
        let LocalWorker { rules, sink, .. } = &mut *self.worker;
        if sink.may_drop_file() && sink.file_pending().len() < rules.compare_buffer_bytes.max(1) {
            // Without blocks there is no map, which the manifest would need to locate the file
            if size == 0 && (self.job.bundle_id.is_some() || file.block.is_some()) {
                sink.drop_file();
                return Ok(CopyOutcome::Truncated);
            }
            if file.has_reference && size == file.size && Some(checksum) == file.checksum {
                sink.drop_file();
                return Ok(CopyOutcome::Unchanged { size, checksum });
            }
        }
        let bundle_offset = sink.offset();
        let (size_repo, checksum_repo) = sink.end_file();
        if sink.pending.len() >= WRITE_BUFFER_BYTES {
            sink.flush(self.store)?;
        }
        Ok(CopyOutcome::Copied(Copied {
            size,
            checksum,
            size_repo,
            checksum_repo,
            bundle_offset,
            map_size,
            pages,
            repo_invalid: false,
        }))
    }
}
