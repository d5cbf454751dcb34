//! A worker: reads a file once, hashes, checks, encodes and stores it.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};

use repo_format::block_map::BlockMap;
use repo_format::cipher::{Decryptor, Framing};
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::layout::RepoPath;

use super::CopySettings;
use super::job::{BlockJob, Copied, CopyJob, FileJob, FileOutcome, FileResult, PriorMap};
use super::sink::Sink;
use crate::cancel::CancelToken;
use crate::pg::control_file;
use crate::pg::data_dir::{PG_CONTROL, read_full};
use crate::pipeline::block_incr::{BlockIncr, BlockLayout, SuperBlockEncoders};
use crate::pipeline::encode::Encoder;
use crate::pipeline::page_check::PageChecker;
use crate::restore::block_delta::{self, BlockFile};
use crate::storage::ReadRange;
use crate::work::turn;
use crate::{Error, ErrorCode, Result};

/// Plain bytes read at a time, a multiple of every page size. Small enough to stay in the processor's cache from the
/// page check to compression.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Stored bytes gathered before they are written.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// The buffers and codecs of a worker, kept from file to file.
pub struct Copier<'a> {
    settings: &'a CopySettings,
    read_buffer: Vec<u8>,
    full: Encoder,
    raw: Option<Encoder>,
    super_blocks: SuperBlockEncoders,
    sink: Sink,
}

impl<'a> Copier<'a> {
    /// Creates buffers and codecs for one worker.
    ///
    /// # Errors
    /// The codec refuses the level.
    pub fn new(settings: &'a CopySettings) -> Result<Self> {
        Ok(Copier {
            settings,
            read_buffer: vec![0; READ_BUFFER_BYTES],
            full: Encoder::new(settings.compression, &settings.cipher, Framing::Full)?,
            raw: None,
            super_blocks: SuperBlockEncoders::new(settings.compression, settings.cipher.clone()),
            sink: Sink::default(),
        })
    }

    /// Copies the files of a job.
    ///
    /// # Errors
    /// A file can't be read or stored. What was written of the job must not be trusted. The job can be retried with a
    /// new copier, because this one may contain half a stream.
    pub fn run(&mut self, job: &CopyJob, cancel: &CancelToken) -> Result<Vec<FileResult>> {
        if job.is_long() {
            turn::takes_long();
        }
        let _helpers = (job.threads > 1).then(|| {
            let name = job.files.first().map_or("", |file| &file.name);
            crate::debug!("{} threads compress '{name}'", job.threads);
            turn::reserve(job.threads - 1)
        });
        self.sink.begin_job();
        let result = self.files(job, cancel);
        if result.is_err() {
            self.sink.abandon(self.settings, &job.path);
        }
        result
    }

    fn files(&mut self, job: &CopyJob, cancel: &CancelToken) -> Result<Vec<FileResult>> {
        let mut results = Vec::with_capacity(job.files.len());
        let mut stored = false;
        for file in &job.files {
            cancel.check()?;
            let outcome = self.file(job, file, cancel)?;
            stored |= matches!(outcome, FileOutcome::Copied(_));
            results.push(FileResult { index: file.index, outcome });
        }
        self.sink.end_job(self.settings, &job.path, stored)?;
        Ok(results)
    }

    fn file(&mut self, job: &CopyJob, file: &FileJob, cancel: &CancelToken) -> Result<FileOutcome> {
        if file.resume && job.bundle_id.is_some() {
            // The path is the bundle's, which would be checked and removed instead of the file
            let message = format!("file '{}' of an interrupted backup can't be resumed in a bundle", file.name);
            return Err(Error::new(ErrorCode::Assert, message));
        }
        let mut matches = None;
        if file.delta {
            match self.plain_checksum(job, file)? {
                None => return self.removed(job, file),
                Some((size, checksum)) => {
                    let same = size == file.size && Some(checksum) == file.checksum;
                    if same && file.has_reference {
                        return Ok(FileOutcome::Unchanged { size, checksum });
                    }
                    matches = Some(same);
                }
            }
        }
        let mut repo_invalid = false;
        if file.resume && matches != Some(false) {
            let expected = file.checksum_repo.or(file.checksum);
            let found = self.stored_checksum(&job.path)?;
            match (found, expected, file.checksum) {
                (Some((size, found)), Some(expected), Some(checksum))
                    if size == file.size_repo && found == expected =>
                {
                    return Ok(FileOutcome::Resumed { size: file.size, checksum });
                }
                _ => repo_invalid = true,
            }
        }
        self.copy(job, file, repo_invalid, cancel)
    }

    /// Handles a file that no longer exists, and removes what an interrupted run stored of it.
    fn removed(&self, job: &CopyJob, file: &FileJob) -> Result<FileOutcome> {
        if file.resume {
            self.settings.storage.remove(&job.path)?;
        }
        Ok(FileOutcome::Removed)
    }

    /// Returns size and checksum of the file as it is now; `None` if it no longer exists.
    fn plain_checksum(&mut self, job: &CopyJob, file: &FileJob) -> Result<Option<(u64, Sha1)>> {
        let data_dir = &self.settings.data_dirs[job.data_dir];
        let Some(source) = data_dir.open(&file.name)? else {
            // Every other file may be dropped while the server runs
            if &*file.name == PG_CONTROL {
                let path = data_dir.file_path(&file.name);
                let text = format!("unable to open missing file '{}' for read", path.display());
                return Err(Error::new(ErrorCode::FileMissing, text));
            }
            return Ok(None);
        };
        let mut source = limited(source, file);
        let display = || self.settings.data_dirs[job.data_dir].file_path(&file.name).display().to_string();
        sum(&mut source, &mut self.read_buffer, &display).map(Some)
    }

    /// Returns size and checksum of the stored file; `None` if it is missing.
    fn stored_checksum(&mut self, path: &RepoPath) -> Result<Option<(u64, Sha1)>> {
        let Some(mut source) = self.settings.storage.read(path, ReadRange::default())? else { return Ok(None) };
        sum(&mut source, &mut self.read_buffer, &|| self.settings.storage.display(path)).map(Some)
    }

    fn copy(&mut self, job: &CopyJob, file: &FileJob, repo_invalid: bool, cancel: &CancelToken) -> Result<FileOutcome> {
        let settings = self.settings;
        let data_dir = &settings.data_dirs[job.data_dir];
        let mut source: Box<dyn Read> = if &*file.name == PG_CONTROL {
            Box::new(Cursor::new(control_file::read_bytes(data_dir.path(), settings.version_force)?.1))
        } else {
            match data_dir.open(&file.name)? {
                Some(source) => Box::new(limited(source, file)),
                None => return self.removed(job, file),
            }
        };
        let mut pages = file.page_check.then(|| {
            let path = data_dir.file_path(&file.name);
            PageChecker::new(path, &file.name, settings.page_size, settings.page_header_check)
        });

        let block_layout = file.block.as_ref().map(|block| BlockLayout {
            block_size: block.block_size,
            checksum_size: block.checksum_size,
            super_block_size: block.super_block_size,
            reference: settings.reference,
            bundle_id: job.bundle_id.unwrap_or(0),
            offset: self.sink.offset,
        });
        let raw = job.bundle_id.is_some() && settings.bundle_raw;
        let mut parallel = None;
        let mut transform = match (&file.block, block_layout) {
            (Some(block), Some(layout)) => {
                let prior = match &block.prior {
                    Some(prior) => Some(read_prior_map(settings, file, block, prior)?),
                    None => None,
                };
                Transform::Blocks(BlockIncr::new(layout, prior, &mut self.super_blocks)?)
            }
            _ if raw => Transform::Whole(match &mut self.raw {
                Some(raw) => raw,
                none => none.insert(Encoder::new(settings.compression, &settings.cipher, Framing::Raw)?),
            }),
            // Not kept, because it needs more memory than others
            _ if job.threads > 1 => Transform::Whole(parallel.insert(Encoder::parallel(
                settings.compression,
                &settings.cipher,
                job.threads,
            )?)),
            _ => Transform::Whole(&mut self.full),
        };

        let sink = &mut self.sink;
        sink.begin_file(transform.transforms());
        let mut hasher = Sha1Hasher::new();
        let mut size = 0;
        loop {
            let count = read_full(&mut source, &mut self.read_buffer).map_err(|error| {
                let path = data_dir.file_path(&file.name);
                Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", path.display()), error)
            })?;
            let data = &self.read_buffer[..count];
            size += count as u64;
            hasher.update(data);
            if let Some(pages) = &mut pages {
                pages.push(data)?;
            }
            transform.push(data, &mut sink.pending)?;
            if count < READ_BUFFER_BYTES {
                break;
            }
            cancel.check()?;
            turn::give_way();
            if sink.file_pending().len() >= settings.compare_buffer_bytes {
                sink.flush(settings, &job.path)?;
            }
        }
        let map_size = transform.finish(&mut sink.pending)?;
        let checksum = hasher.finish();

        if !sink.file_written && sink.file_pending().len() < settings.compare_buffer_bytes.max(1) {
            // Without blocks there is no map, which the manifest would need to locate the file
            if size == 0 && (job.bundle_id.is_some() || file.block.is_some()) {
                sink.drop_file();
                if file.resume {
                    settings.storage.remove(&job.path)?;
                }
                return Ok(FileOutcome::Truncated);
            }
            if file.has_reference && size == file.size && Some(checksum) == file.checksum {
                sink.drop_file();
                return Ok(FileOutcome::Unchanged { size, checksum });
            }
        }
        let bundle_offset = sink.offset;
        let (size_repo, checksum_repo) = sink.end_file();
        if sink.pending.len() >= WRITE_BUFFER_BYTES {
            sink.flush(settings, &job.path)?;
        }
        Ok(FileOutcome::Copied(Copied {
            size,
            checksum,
            size_repo,
            checksum_repo,
            bundle_offset,
            map_size,
            pages: pages.map(PageChecker::finish),
            repo_invalid,
        }))
    }
}

/// How the bytes of a file become stored bytes.
enum Transform<'a> {
    Whole(&'a mut Encoder),
    Blocks(BlockIncr<'a>),
}

impl Transform<'_> {
    fn transforms(&self) -> bool {
        match self {
            Transform::Whole(encoder) => encoder.transforms(),
            Transform::Blocks(_) => true,
        }
    }

    fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Transform::Whole(encoder) => encoder.push(data, out),
            Transform::Blocks(blocks) => blocks.push(data, out),
        }
    }

    /// Ends the stream. Returns the size of the block map for a block incremental file.
    fn finish(self, out: &mut Vec<u8>) -> Result<Option<u64>> {
        match self {
            Transform::Whole(encoder) => encoder.finish(out).map(|()| None),
            Transform::Blocks(blocks) => blocks.finish(out).map(Some),
        }
    }
}

fn limited(source: File, file: &FileJob) -> std::io::Take<File> {
    source.take(if file.exact_size { file.size_original } else { u64::MAX })
}

fn sum(source: &mut impl Read, buffer: &mut [u8], display: &dyn Fn() -> String) -> Result<(u64, Sha1)> {
    let mut hasher = Sha1Hasher::new();
    let mut size = 0;
    loop {
        let count = read_full(source, buffer)
            .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", display()), error))?;
        hasher.update(&buffer[..count]);
        size += count as u64;
        if count < buffer.len() {
            return Ok((size, hasher.finish()));
        }
    }
}

/// Reads the block map of the prior backup. Errors name its location, because a mismatch between manifest and
/// repository is hard to find otherwise.
fn read_prior_map(settings: &CopySettings, file: &FileJob, block: &BlockJob, prior: &PriorMap) -> Result<BlockMap> {
    let known = BlockFile {
        // The size that the prior backup's file has
        size: file.size,
        block_size: u64::from(block.block_size),
        checksum_size: usize::from(block.checksum_size),
        // Only earlier backups can be in it
        reference_total: settings.reference as usize,
    };
    let read = || -> Result<BlockMap> {
        if file.has_reference && prior.size > known.map_size_max() {
            return Err(Error::new(ErrorCode::Format, "block map is invalid: too large"));
        }
        let blocks_max = if file.has_reference { known.block_total() } else { u64::MAX };
        let range = ReadRange { offset: prior.offset, limit: Some(prior.size) };
        let Some(source) = settings.storage.read(&prior.path, range)? else {
            return Err(crate::storage::missing(&*settings.storage, &prior.path));
        };
        let mut stored = source.take(prior.size);
        let plain = Decryptor::new(&settings.cipher, Framing::Raw, &mut stored);
        let map = BlockMap::read_from(BufReader::new(plain), block.block_size, block.checksum_size, blocks_max)?;
        if stored.limit() != 0 {
            let read = prior.size - stored.limit();
            let message = format!("expected {} byte(s) but read {read}", prior.size);
            return Err(Error::new(ErrorCode::FileRead, message));
        }
        if file.has_reference {
            block_delta::check(&map, &known)?;
        }
        Ok(map)
    };
    read().map_err(|error| {
        error.context(format!(
            "unable to read block map for '{}' from '{}' at offset {} size {}",
            file.name,
            settings.storage.display(&prior.path),
            prior.offset,
            prior.size
        ))
    })
}
