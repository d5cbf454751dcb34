//! The worker for a data directory on another host.
//!
//! The process there reads, checks, hashes, compresses and encrypts. This side only writes bytes, and compares their
//! size and checksum with what the other side says. Requests for the files of a job are sent before they are needed.

use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::sync::Arc;

use protocol::Call;
use protocol::storage::{FileInfoRequest, InfoAnswer, InfoLevel};
use repo_format::block_map::BlockMap;
use repo_format::cipher::Framing;
use repo_format::compress::{CompressType, Decompressor};
use repo_format::hash::{Sha1, Sha1Hasher};

use super::filters::{FileFilters, Findings, pages_fit, sum_filters, transforms};
use super::open_files::{OpenFiles, Place, files_max};
use super::stream::FileRequest;
use super::{RemotePgSettings, read_control};
use crate::cancel::CancelToken;
use crate::pg::data_dir::PG_CONTROL;
use crate::pipeline::backup::{
    Compared, Copied, CopyFile, CopyJob, CopyOutcome, CopyResult, CopyRules, CopyWorker, FileEncoder, Input, JobStore,
    OpenJob, Passed,
};
use crate::remote::Connection;
use crate::{Error, ErrorCode, Result};
use repo_format::manifest::pg_path;

/// Files that are asked for before they are needed.
const FILES_AHEAD_MAX: usize = 64;
/// Bytes of files that are asked for before they are needed.
const BYTES_AHEAD_MAX: u64 = 4 << 20;

/// Copies files of one data directory.
pub(super) struct RemoteWorker<'a> {
    pub(super) connection: Arc<Connection>,
    open_files: Arc<OpenFiles>,
    pub(super) settings: Arc<RemotePgSettings>,
    encoder: FileEncoder<'a>,
}

/// A file to copy, of which the other host may have been asked already.
struct AskedFile {
    /// None if the file is not read by filters of the other host.
    request: Option<FileRequest>,
    /// Whether stored bytes differ from the file's.
    transforms: bool,
    /// Whether the data is compressed on the way.
    is_compressed: bool,
    /// Bytes that the answer may have.
    bytes: u64,
    /// The file as an open one of the process there.
    place: Place,
}

impl<'a> RemoteWorker<'a> {
    /// A worker for the thread that has the turn of this encoder. `open_files` are those of the process on the host.
    pub(super) fn new(
        connection: Arc<Connection>,
        open_files: Arc<OpenFiles>,
        settings: Arc<RemotePgSettings>,
        encoder: FileEncoder<'a>,
    ) -> Self {
        RemoteWorker { connection, open_files, settings, encoder }
    }

    /// What all jobs share.
    pub(super) fn rules(&self) -> &'a CopyRules {
        self.encoder.rules
    }

    /// The absolute path of a file on the other host.
    fn path(&self, file: &CopyFile) -> String {
        format!("{}/{}", self.settings.path.display(), pg_path(&file.name))
    }

    /// Compares all files of a job that are to be compared.
    pub(super) fn compare(&self, open: &mut OpenJob<'_>) -> Result<Vec<Compared>> {
        let files = &open.job.files;
        let mut to_ask = files.iter().filter(|file| file.method.compares());
        let mut asked = VecDeque::new();
        let mut compared = Vec::with_capacity(files.len());
        for file in files {
            open.cancel.check()?;
            while asked.len() < FILES_AHEAD_MAX
                && let Some(next) = to_ask.next()
            {
                asked.push_back(self.ask_sum(next));
            }
            let (asked, cancel) = (asked.pop_front(), open.cancel);
            compared.push(open.compare(file, || self.sum(file, asked, cancel))?);
        }
        Ok(compared)
    }

    /// Asks for size and checksum of a file. There is no request for a file of which nothing is read.
    fn ask_sum(&self, file: &CopyFile) -> Option<FileRequest> {
        match limit(file) {
            Some(0) => None,
            limit => Some(FileRequest::send(&self.connection, &self.path(file), limit, sum_filters())),
        }
    }

    /// Returns size and checksum of a file as it is now; `None` if it no longer exists.
    fn sum(
        &self,
        file: &CopyFile,
        asked: Option<Option<FileRequest>>,
        cancel: &CancelToken,
    ) -> Result<Option<(u64, Sha1)>> {
        let Some(request) = asked.flatten() else {
            return Ok(self.exists(file)?.then(|| (0, Sha1::of(b""))));
        };
        match request.open(&self.encoder.turn, cancel)? {
            Some(mut stream) => {
                let path = self.path(file);
                std::io::copy(&mut stream, &mut std::io::sink()).map_err(|error| read_error(&path, error))?;
                stream.findings()?.plain().map(Some)
            }
            // Every other file may be dropped while the server runs
            None if &*file.name == PG_CONTROL => {
                let text = format!("unable to open missing file '{}' for read", self.path(file));
                Err(Error::new(ErrorCode::FileMissing, text))
            }
            None => Ok(None),
        }
    }

    fn exists(&self, file: &CopyFile) -> Result<bool> {
        let path = self.path(file);
        let request = FileInfoRequest { path: &path, level: InfoLevel::Exists, follow_link: true };
        let answer = self.encoder.turn.waiting(|| self.connection.call(&Call::Info(request)))?;
        Ok(answer.read(|data| InfoAnswer::decode(data, InfoLevel::Exists))?.info.is_some())
    }

    /// Copies those files of a job that are not done yet.
    fn copy(&mut self, open: &mut OpenJob<'_>, compared: Vec<Compared>) -> Result<Vec<CopyResult>> {
        let files = &open.job.files;
        let is_copied = |index: usize| matches!(compared.get(index), Some(Compared::Differs { .. }));
        let mut asked: VecDeque<AskedFile> = VecDeque::new();
        let mut next = 0;
        let mut results = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            open.cancel.check()?;
            while let Some(file) = files.get(next) {
                let bytes: u64 = asked.iter().map(|asked| asked.bytes).sum();
                let is_full = asked.len() >= FILES_AHEAD_MAX || bytes >= BYTES_AHEAD_MAX;
                // A block map contains the position of the file in the bundle
                let needs_offset = file.block.is_some() && open.job.bundle_id.is_some();
                if next > index && (is_full || needs_offset) {
                    break;
                }
                if is_copied(next) {
                    let Some(place) = self.place(file, next == index, open.cancel)? else { break };
                    asked.push_back(self.ask(open, file, place)?);
                }
                next += 1;
            }
            let outcome = match &compared[index] {
                Compared::Done(outcome) => outcome.clone(),
                Compared::Differs { repo_invalid } => {
                    let asked = asked.pop_front();
                    let asked = asked.ok_or_else(|| Error::new(ErrorCode::Assert, "file was not asked for"))?;
                    match self.copy_file(open, file, asked)? {
                        CopyOutcome::Copied(copied) => {
                            CopyOutcome::Copied(Copied { repo_invalid: *repo_invalid, ..copied })
                        }
                        outcome => outcome,
                    }
                }
            };
            results.push(CopyResult { name: file.name.clone(), outcome });
        }
        Ok(results)
    }

    /// Counts a file as an open one of the process there. Waits only if the file is needed now; `None` if there are
    /// too many for now.
    fn place(&self, file: &CopyFile, is_needed: bool, cancel: &CancelToken) -> Result<Option<Place>> {
        let (size, max) = (file.size_original, files_max(self.encoder.rules.compression));
        match self.open_files.try_open(size, max) {
            None if is_needed => self.encoder.turn.waiting(|| self.open_files.open(size, max, cancel)).map(Some),
            place => Ok(place),
        }
    }

    /// Asks for a file.
    fn ask(&self, open: &mut OpenJob<'_>, file: &CopyFile, place: Place) -> Result<AskedFile> {
        let rules = self.encoder.rules;
        let (path, limit) = (self.path(file), limit(file));
        // The control file must be consistent, which only this side finds out
        if &*file.name == PG_CONTROL || limit == Some(0) {
            return Ok(AskedFile { request: None, transforms: false, is_compressed: false, bytes: 0, place });
        }
        let prior_map = match &file.block {
            Some(_) => open.store.prior_map(file)?.map(|map| encode_map(file, &map)).transpose()?,
            None => None,
        };
        let mut filters = FileFilters {
            rules,
            file,
            path: &path,
            bundle_id: open.job.bundle_id,
            offset: self.encoder.sink.offset(),
            prior_map: prior_map.as_deref(),
            network_level: None,
        };
        let transforms = filters.transforms();
        if !transforms {
            filters.network_level = self.settings.network_level;
        }
        let request = FileRequest::send(&self.connection, &path, limit, filters.list());
        let is_compressed = filters.network_level.is_some();
        Ok(AskedFile { request: Some(request), transforms, is_compressed, bytes: file.size_original, place })
    }

    fn copy_file(&mut self, open: &mut OpenJob<'_>, file: &CopyFile, asked: AskedFile) -> Result<CopyOutcome> {
        let path = self.path(file);
        let AskedFile { request, transforms, is_compressed, bytes: _, place: _place } = asked;
        let Some(request) = request else { return self.copy_here(open, file, &path) };
        let Some(stream) = request.open(&self.encoder.turn, open.cancel)? else { return Ok(CopyOutcome::Removed) };
        let kind = if is_compressed { CompressType::Lz4 } else { CompressType::None };
        let mut stream = Decompressor::new(kind, Framing::Raw, stream)?;
        let (size, checksum) = self.store(open, &mut stream, &path)?;
        let findings = stream.get_ref().findings()?;
        let passed = check(findings, self.rules(), file, (size, checksum))
            .map_err(|error| error.context(format!("unable to copy '{path}'")))?;
        let is_unchanged = passed.map_size == Some(0);
        match self.encoder.end_file(open, file, passed)? {
            CopyOutcome::Copied(_) if is_unchanged => {
                let text = format!("file '{path}' has no block map although it differs from the prior backup");
                Err(Error::new(ErrorCode::Assert, text))
            }
            CopyOutcome::Copied(copied) => {
                Ok(CopyOutcome::Copied(Copied { checksum_repo: transforms.then_some(checksum), ..copied }))
            }
            outcome => Ok(outcome),
        }
    }

    /// Stores what comes. Returns size and checksum of it.
    fn store(&mut self, open: &mut OpenJob<'_>, stream: &mut dyn Read, path: &str) -> Result<(u64, Sha1)> {
        self.encoder.sink.begin_file(false);
        let mut buffer = std::mem::take(self.encoder.read_buffer());
        let mut hasher = Sha1Hasher::new();
        let mut size = 0;
        loop {
            let count = stream.read(&mut buffer).map_err(|error| read_error(path, error))?;
            let Some(data) = buffer.get(..count).filter(|data| !data.is_empty()) else { break };
            open.cancel.check()?;
            let FileEncoder { rules, sink, .. } = &mut self.encoder;
            if sink.file_pending().len() >= rules.compare_buffer_bytes {
                sink.flush(open.store)?;
            }
            hasher.update(data);
            size += count as u64;
            // Compressed bytes are fewer than those of the file, which are only known at its end
            open.progress.add(count as u64);
            open.pace.after(count as u64, open.cancel);
            sink.pending.extend_from_slice(data);
        }
        *self.encoder.read_buffer() = buffer;
        Ok((size, hasher.finish()))
    }

    /// Copies a file that is encoded on this side: the control file, or one of which nothing is read.
    fn copy_here(&mut self, open: &mut OpenJob<'_>, file: &CopyFile, path: &str) -> Result<CopyOutcome> {
        let bytes = if &*file.name == PG_CONTROL {
            self.encoder.turn.waiting(|| read_control(&self.connection, &self.settings))?.1
        } else if self.exists(file)? {
            Vec::new()
        } else {
            return Ok(CopyOutcome::Removed);
        };
        self.encoder.copy(open, file, Input::Bytes(Cursor::new(bytes)), &|| path.to_owned())
    }
}

impl CopyWorker for RemoteWorker<'_> {
    fn run(&mut self, job: &CopyJob, store: &mut dyn JobStore, cancel: &CancelToken) -> Result<Vec<CopyResult>> {
        if job.is_long() {
            self.encoder.turn.takes_long();
        }
        self.encoder.sink.begin_job();
        let mut open = OpenJob::new(job, store, cancel);
        let compared = self.compare(&mut open)?;
        let results = self.copy(&mut open, compared)?;
        self.encoder.sink.end_job(open.store)?;
        Ok(results)
    }
}

/// The most bytes to read of a file.
fn limit(file: &CopyFile) -> Option<u64> {
    file.exact_size.then_some(file.size_original)
}

/// Compares what came with what the other host says.
fn check(findings: &Findings, rules: &CopyRules, file: &CopyFile, came: (u64, Sha1)) -> Result<Passed> {
    let (transforms, page_size) = (transforms(rules, file), rules.page_size);
    let ((size, checksum), stored) = (findings.plain()?, findings.stored(transforms)?);
    let refuse = |text: String| Err(Error::new(ErrorCode::FileRead, text));
    if came != stored {
        return refuse(format!(
            "{} byte(s) with checksum {} came but the host sent {} with checksum {}",
            came.0, came.1, stored.0, stored.1
        ));
    }
    if limit(file).is_some_and(|limit| size > limit) {
        return refuse(format!("the host read {size} byte(s) but was asked for {}", file.size_original));
    }
    if findings.map_size.is_some() != file.block.is_some() || findings.pages.is_some() != file.page_check {
        return refuse("the answer lacks a block map or a page check".to_owned());
    }
    if findings.map_size.is_some_and(|map_size| map_size > stored.0 || (map_size == 0 && stored.0 > 0)) {
        return refuse(format!("block map of {:?} byte(s) does not fit {} byte(s)", findings.map_size, stored.0));
    }
    if !pages_fit(findings.pages.as_ref(), size, page_size) {
        return refuse("the numbers of damaged pages do not fit the file".to_owned());
    }
    Ok(Passed { size, checksum, map_size: findings.map_size, pages: findings.pages.clone() })
}

/// The plain bytes of a block map.
pub(super) fn encode_map(file: &CopyFile, map: &BlockMap) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(block) = &file.block {
        map.write(block.block_size, block.checksum_size, &mut bytes)?;
    }
    Ok(bytes)
}

fn read_error(path: &str, error: std::io::Error) -> Error {
    Error::from_io(ErrorCode::FileRead, format!("unable to read '{path}'"), error)
}
