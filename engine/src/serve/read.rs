//! Files that are sent to a client.
//!
//! A chunk has the size of a block, but for the last one. After a full chunk the end is not known yet, as in pgBackRest.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use protocol::storage::{FileRange, ReadManyRequest, ReadRequest};

use super::files::Files;
use super::filters::{Budget, Chain, OwnedResult};
use crate::storage::ReadRange;
use crate::{CancelToken, Error, ErrorCode, Result};

/// A file that is sent.
pub(super) struct ReadSession {
    chain: Chain,
}

/// A part of a file, in the block that the session filled.
pub(super) struct SentChunk {
    pub(super) size: usize,
    /// Present with the last chunk.
    pub(super) results: Option<Vec<OwnedResult>>,
}

impl ReadSession {
    /// Opens a file; `None` if it is missing.
    ///
    /// # Errors
    /// Those of [`Files::read`] and [`Chain::new`].
    pub(super) fn open(request: &ReadRequest<'_>, files: &Files, budget: &Budget) -> Result<Option<Self>> {
        let range = ReadRange { offset: request.offset, limit: request.limit };
        let Some(file) = files.read(request.path, range, request.version)? else { return Ok(None) };
        let chain = Chain::new(file, &request.filters, files, budget)?;
        Ok(Some(ReadSession { chain }))
    }

    /// The memory that its filters may use.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.chain.memory_bytes
    }

    /// Fills `block` with the next part of the file.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`] and those of the filters.
    pub(super) fn next(&mut self, block: &mut [u8], cancel: &CancelToken) -> Result<SentChunk> {
        let mut size = 0;
        let mut has_ended = false;
        while size < block.len() && !has_ended {
            cancel.check()?;
            match self.read(&mut block[size..])? {
                0 => has_ended = true,
                read => size += read,
            }
        }
        let results = has_ended.then(|| self.chain.results());
        Ok(SentChunk { size, results })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.chain.stage.read(buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|e| Error::from_io(ErrorCode::FileRead, "unable to read file", e)),
            }
        }
    }
}

/// Parts of files that are sent as one stream.
pub(super) struct Parts {
    ranges: std::vec::IntoIter<OwnedRange>,
    current: Option<Box<dyn Read + Send>>,
}

struct OwnedRange {
    path: String,
    offset: u64,
    limit: Option<u64>,
    version: Option<String>,
}

impl ReadSession {
    /// Opens parts of files.
    ///
    /// # Errors
    /// [`ErrorCode::FileMissing`], and those of [`ReadSession::open`].
    pub(super) fn open_many(request: &ReadManyRequest<'_>, files: &Arc<Files>, budget: &Budget) -> Result<Self> {
        let parts = Parts::new(&request.ranges, files)?;
        let source = PartsSource { parts, files: Arc::clone(files) };
        Ok(ReadSession { chain: Chain::new(Box::new(source), &request.filters, files, budget)? })
    }
}

impl Parts {
    fn new(ranges: &[FileRange<'_>], files: &Files) -> Result<Self> {
        let base = files.features().path.trim_end_matches('/').to_owned();
        let mut last: Option<(String, u64)> = None;
        let mut owned = Vec::with_capacity(ranges.len());
        for range in ranges {
            let path =
                if range.path.starts_with('/') { range.path.to_owned() } else { format!("{base}/{}", range.path) };
            if last.as_ref().is_some_and(|(name, offset)| *name == path && range.offset < *offset) {
                let text = format!("offset {} of file '{path}' is before the one of the range before", range.offset);
                return Err(Error::new(ErrorCode::Assert, text));
            }
            last = Some((path.clone(), range.offset.saturating_add(range.limit.unwrap_or(0))));
            let version = range.version.map(str::to_owned);
            owned.push(OwnedRange { path, offset: range.offset, limit: range.limit, version });
        }
        Ok(Parts { ranges: owned.into_iter(), current: None })
    }
}

/// Reads one part after the other.
struct PartsSource {
    parts: Parts,
    files: Arc<Files>,
}

impl Read for PartsSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(current) = &mut self.parts.current {
                let size = current.read(buffer)?;
                if size > 0 {
                    return Ok(size);
                }
                self.parts.current = None;
            }
            let Some(range) = self.parts.ranges.next() else { return Ok(0) };
            let part = ReadRange { offset: range.offset, limit: range.limit };
            let file = self.files.read(&range.path, part, range.version.as_deref())?;
            let missing = || {
                let text = format!("unable to open missing file '{}' for read", range.path);
                io::Error::from(Error::new(ErrorCode::FileMissing, text))
            };
            self.parts.current = Some(file.ok_or_else(missing)?);
        }
    }
}
