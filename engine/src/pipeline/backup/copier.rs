//! A worker: reads a file once, hashes, checks, encodes and stores it.

use std::io::Cursor;

use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;

use super::job::{Copied, CopyFile, CopyJob, CopyOutcome, CopyResult};
use super::pass::{Encoders, Input, Pass, Passed, Transform, sum};
use super::sink::Sink;
use super::{CopyRules, prior_map};
use crate::cancel::CancelToken;
use crate::pg::control_file;
use crate::pg::data_dir::{DataDir, PG_CONTROL};
use crate::pipeline::block_writer::BlockLayout;
use crate::pipeline::page_check::PageChecker;
use crate::storage::on_turn::OnTurn;
use crate::storage::{ReadRange, RepoStorage};
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result};

/// Plain bytes read at a time, a multiple of every page size. Small enough to stay in the processor's cache from the
/// page check to compression.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Stored bytes gathered before they are written.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Where files are copied from and to, and how.
pub(super) struct Place<'a> {
    pub(super) rules: &'a CopyRules,
    pub(super) storage: OnTurn<&'a dyn RepoStorage>,
    pub(super) data_dir: &'a DataDir,
}

/// Copies files of one data directory into a repository. Buffers and codecs are kept from file to file.
pub struct Copier<'a> {
    place: Place<'a>,
    /// The turn to compute of the thread that copies.
    turn: Turn,
    read_buffer: Vec<u8>,
    encoders: Encoders,
    sink: Sink<'a>,
}

impl<'a> Copier<'a> {
    /// Creates buffers and codecs for the thread that has this turn.
    ///
    /// # Errors
    /// The codec refuses the level.
    pub fn new(rules: &'a CopyRules, storage: &'a dyn RepoStorage, data_dir: &'a DataDir, turn: &Turn) -> Result<Self> {
        let storage = OnTurn::new(storage, turn);
        Ok(Copier {
            place: Place { rules, storage: storage.clone(), data_dir },
            turn: turn.clone(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            encoders: Encoders::new(rules, turn)?,
            sink: Sink::new(storage, rules.write_options),
        })
    }

    /// Copies the files of a job.
    ///
    /// # Errors
    /// A file can't be read or stored. What was written of the job must not be trusted. The job can be retried with a
    /// new copier, because this one may contain half a stream.
    pub fn run(&mut self, job: &CopyJob, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        if job.is_long() {
            self.turn.takes_long();
        }
        let _helpers = (job.threads > 1).then(|| {
            let name = job.files.first().map_or("", |file| &file.name);
            crate::debug!("{} threads compress '{name}'", job.threads);
            self.turn.reserve(job.threads - 1)
        });
        self.sink.begin_job();
        let result = self.files(job, cancel);
        if result.is_err() {
            self.sink.abandon(&job.path);
        }
        result
    }

    fn files(&mut self, job: &CopyJob, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        let mut results = Vec::with_capacity(job.files.len());
        let mut stored = false;
        for file in &job.files {
            cancel.check()?;
            let outcome = self.file(job, file, cancel)?;
            stored |= matches!(outcome, CopyOutcome::Copied(_));
            results.push(CopyResult { name: file.name.clone(), outcome });
        }
        self.sink.end_job(&job.path, stored)?;
        Ok(results)
    }

    fn file(&mut self, job: &CopyJob, file: &CopyFile, cancel: &CancelToken) -> Result<CopyOutcome> {
        if file.method.resumes() && job.bundle_id.is_some() {
            // The path is the bundle's, which would be checked and removed instead of the file
            let message = format!("file '{}' of an interrupted backup can't be resumed in a bundle", file.name);
            return Err(Error::new(ErrorCode::Assert, message));
        }
        let mut matches = None;
        if file.method.compares() {
            match self.plain_checksum(file)? {
                None => return self.removed(job, file),
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
            let found = self.stored_checksum(&job.path)?;
            match (found, expected, file.checksum) {
                (Some((size, found)), Some(expected), Some(checksum))
                    if size == file.size_repo && found == expected =>
                {
                    return Ok(CopyOutcome::Resumed { size: file.size, checksum });
                }
                _ => repo_invalid = true,
            }
        }
        match self.copy(job, file, cancel)? {
            CopyOutcome::Copied(copied) => Ok(CopyOutcome::Copied(Copied { repo_invalid, ..copied })),
            outcome => Ok(outcome),
        }
    }

    /// Handles a file that no longer exists, and removes what an interrupted run stored of it.
    fn removed(&self, job: &CopyJob, file: &CopyFile) -> Result<CopyOutcome> {
        if file.method.resumes() {
            self.place.storage.remove(&job.path)?;
        }
        Ok(CopyOutcome::Removed)
    }

    /// Returns size and checksum of the file as it is now; `None` if it no longer exists.
    fn plain_checksum(&mut self, file: &CopyFile) -> Result<Option<(u64, Sha1)>> {
        let Some(source) = self.place.data_dir.open(&file.name)? else {
            // Every other file may be dropped while the server runs
            if &*file.name == PG_CONTROL {
                let path = self.place.data_dir.file_path(&file.name);
                let text = format!("unable to open missing file '{}' for read", path.display());
                return Err(Error::new(ErrorCode::FileMissing, text));
            }
            return Ok(None);
        };
        let display = || self.place.data_dir.file_path(&file.name).display().to_string();
        sum(&mut Input::file(source, file), &mut self.read_buffer, &display).map(Some)
    }

    /// Returns size and checksum of the stored file; `None` if it is missing.
    fn stored_checksum(&mut self, path: &RepoPath) -> Result<Option<(u64, Sha1)>> {
        let Some(mut source) = self.place.storage.read(path, ReadRange::default())? else { return Ok(None) };
        sum(&mut source, &mut self.read_buffer, &|| self.place.storage.display(path)).map(Some)
    }

    /// Opens a file; `None` if it no longer exists.
    fn open(&self, file: &CopyFile) -> Result<Option<Input>> {
        if &*file.name == PG_CONTROL {
            let (_, bytes) = control_file::read_bytes(self.place.data_dir.path(), self.place.rules.version_force)?;
            return Ok(Some(Input::Control(Cursor::new(bytes))));
        }
        Ok(self.place.data_dir.open(&file.name)?.map(|source| Input::file(source, file)))
    }

    fn copy(&mut self, job: &CopyJob, file: &CopyFile, cancel: &CancelToken) -> Result<CopyOutcome> {
        let Some(input) = self.open(file)? else { return self.removed(job, file) };
        let Copier { place, read_buffer, sink, encoders, turn } = &mut *self;
        let rules = place.rules;
        let pages = file.page_check.then(|| PageChecker::new(&file.name, rules.page_size, rules.page_header_check));
        let transform = transform(encoders, place, job, file, sink.offset())?;
        sink.begin_file(transform.transforms());
        let display = || place.data_dir.file_path(&file.name).display().to_string();
        let mut pass = Pass::new(input, transform, pages);
        while pass.advance(read_buffer, &mut sink.pending, &display)? {
            cancel.check()?;
            turn.give_way();
            if sink.file_pending().len() >= rules.compare_buffer_bytes {
                sink.flush(&job.path)?;
            }
        }
        let passed = pass.finish(&mut sink.pending)?;
        self.store(job, file, passed)
    }

    /// Stores the file that was just read, unless that is not necessary.
    fn store(&mut self, job: &CopyJob, file: &CopyFile, passed: Passed) -> Result<CopyOutcome> {
        let Passed { size, checksum, map_size, pages } = passed;
        let sink = &mut self.sink;
        if sink.may_drop_file() && sink.file_pending().len() < self.place.rules.compare_buffer_bytes.max(1) {
            // Without blocks there is no map, which the manifest would need to locate the file
            if size == 0 && (job.bundle_id.is_some() || file.block.is_some()) {
                sink.drop_file();
                if file.method.resumes() {
                    self.place.storage.remove(&job.path)?;
                }
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
            sink.flush(&job.path)?;
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

/// Chooses how a file is encoded that begins at this offset of the job's file.
fn transform<'e>(
    encoders: &'e mut Encoders,
    place: &Place<'_>,
    job: &CopyJob,
    file: &CopyFile,
    offset: u64,
) -> Result<Transform<'e>> {
    if let Some(block) = &file.block {
        let layout = BlockLayout {
            block_size: block.block_size,
            checksum_size: block.checksum_size,
            super_block_size: block.super_block_size,
            reference: place.rules.reference,
            bundle_id: job.bundle_id.unwrap_or(0),
            offset,
        };
        return encoders.blocks(layout, prior_map::read(place, file, block)?);
    }
    if job.bundle_id.is_some() && place.rules.bundle_raw {
        encoders.raw(place.rules)
    } else if job.threads > 1 {
        encoders.parallel(place.rules, job.threads)
    } else {
        Ok(encoders.full())
    }
}
