//! Files that are sent to a client.
//!
//! A chunk has the size of a block, but for the last one. After a full chunk the end is not known yet, as in pgBackRest.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use protocol::storage::{FileRange, ReadManyRequest, ReadRequest};

use super::files::Files;
use super::filters::{Chain, OwnedResult};
use super::memory::{CountedMemory, Usage};
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
    pub(super) fn open(
        request: &ReadRequest<'_>,
        files: &Files,
        usage: &Usage,
        cancel: &CancelToken,
    ) -> Result<Option<Self>> {
        let range = ReadRange { offset: request.offset, limit: request.limit };
        let Some(file) = files.read(request.path, range, request.version)? else { return Ok(None) };
        let file = Box::new(UntilCancelled { file, cancel: cancel.clone() });
        let chain = Chain::new(file, &request.filters, files, usage)?;
        Ok(Some(ReadSession { chain }))
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
            match self.read(&mut block[size..], cancel)? {
                0 => has_ended = true,
                read => size += read,
            }
        }
        let results = has_ended.then(|| self.chain.results());
        Ok(SentChunk { size, results })
    }

    fn read(&mut self, buffer: &mut [u8], cancel: &CancelToken) -> Result<usize> {
        loop {
            match self.chain.stage.read(buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => cancel.check()?,
                result => return result.map_err(|e| Error::from_io(ErrorCode::FileRead, "unable to read file", e)),
            }
        }
    }
}

/// A file whose reading ends with a token. Filters without output, or with little, read all of it at once.
struct UntilCancelled {
    file: Box<dyn Read + Send>,
    cancel: CancelToken,
}

impl Read for UntilCancelled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        self.file.read(buffer)
    }
}

/// What a shared path needs besides its text, in bytes.
const PATH_BYTES: u64 = 32;

/// Parts of files that are sent as one stream.
pub(super) struct Parts {
    ranges: std::vec::IntoIter<OwnedRange>,
    current: Option<Box<dyn Read + Send>>,
    /// That of the ranges.
    _memory: CountedMemory,
}

struct OwnedRange {
    /// Shared by ranges of one file.
    path: Arc<str>,
    offset: u64,
    limit: Option<u64>,
    version: Option<String>,
}

impl ReadSession {
    /// Opens parts of files.
    ///
    /// # Errors
    /// [`ErrorCode::FileMissing`], and those of [`ReadSession::open`].
    pub(super) fn open_many(
        request: &ReadManyRequest<'_>,
        files: &Arc<Files>,
        usage: &Usage,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let parts = Parts::new(&request.ranges, files.features().path, usage)?;
        let source = PartsSource { parts, files: Arc::clone(files), cancel: cancel.clone() };
        let chain = Chain::new(Box::new(source), &request.filters, files, usage)?;
        Ok(ReadSession { chain })
    }
}

impl Parts {
    /// Relative paths are below `base`.
    fn new(ranges: &[FileRange<'_>], base: &str, usage: &Usage) -> Result<Self> {
        let base = base.trim_end_matches('/');
        let mut last: Option<(Arc<str>, u64)> = None;
        let mut memory = usage.memory.count((ranges.len() * size_of::<OwnedRange>()) as u64)?;
        let mut owned = Vec::new();
        for range in ranges {
            let path =
                if range.path.starts_with('/') { range.path.to_owned() } else { format!("{base}/{}", range.path) };
            let path = match &last {
                Some((name, offset)) if **name == *path => {
                    if range.offset < *offset {
                        let text =
                            format!("offset {} of file '{path}' is before the one of the range before", range.offset);
                        return Err(Error::new(ErrorCode::Assert, text));
                    }
                    Arc::clone(name)
                }
                _ => {
                    memory.add(path.len() as u64 + PATH_BYTES)?;
                    path.into()
                }
            };
            last = Some((Arc::clone(&path), range.offset.saturating_add(range.limit.unwrap_or(0))));
            let version = range.version.map(str::to_owned);
            memory.add(version.as_ref().map_or(0, |version| version.len() as u64))?;
            owned.push(OwnedRange { path, offset: range.offset, limit: range.limit, version });
        }
        Ok(Parts { ranges: owned.into_iter(), current: None, _memory: memory })
    }
}

/// Reads one part after the other. Many may be empty, or swallowed by filters, so this ends with a token, too.
struct PartsSource {
    parts: Parts,
    files: Arc<Files>,
    cancel: CancelToken,
}

impl Read for PartsSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            self.cancel.check()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::ServedStorage;

    #[test]
    fn file_that_is_read_without_output_ends_with_the_token() {
        let cancel = CancelToken::new();
        let mut file = UntilCancelled { file: Box::new(io::repeat(1)), cancel: cancel.clone() };
        std::thread::scope(|scope| {
            let reads = scope.spawn(move || io::copy(&mut file, &mut io::sink()));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!reads.is_finished());
            cancel.cancel();
            assert!(reads.join().unwrap().is_err());
        });
    }

    #[test]
    fn parts_of_files_were_read_to_their_end_after_the_client_had_gone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), b"").unwrap();
        std::fs::write(dir.path().join("full"), b"1234").unwrap();
        let files = Files::open(&ServedStorage::DataDirectory(dir.path().to_owned())).unwrap();
        let range = |name: &str| {
            let path = dir.path().join(name).to_string_lossy().into_owned().into();
            OwnedRange { path, offset: 0, limit: None, version: None }
        };
        let cancel = CancelToken::new();
        let ranges = vec![range("empty"), range("full"), range("empty"), range("empty")].into_iter();
        let parts = Parts { ranges, current: None, _memory: Usage::of_bytes(1).memory.count(0).unwrap() };
        let mut source = PartsSource { parts, files: Arc::new(files), cancel: cancel.clone() };
        let mut buffer = [0; 9];
        assert_eq!(source.read(&mut buffer).unwrap(), 4);
        cancel.cancel();
        let error = Error::from_io(ErrorCode::FileRead, "read", source.read(&mut buffer).unwrap_err());
        assert_eq!(error.code, ErrorCode::Term);
        assert!(source.parts.ranges.len() >= 2, "none of what is left was opened");
    }

    #[test]
    fn ranges_of_a_file_share_its_path_and_count() {
        let ranges = |path: fn(u64) -> &'static str| -> Vec<FileRange<'static>> {
            (0..1000)
                .map(|offset| FileRange {
                    path: path(offset),
                    offset,
                    limit: Some(1),
                    version: None,
                    is_compressible: false,
                })
                .collect()
        };
        let same = ranges(|_| "backup/demo/x");
        let usage = Usage::of_bytes(1 << 20);
        let parts = Parts::new(&same, "/repo/", &usage).unwrap();
        let few = usage.memory.bytes();
        let paths: Vec<_> = parts.ranges.as_slice().iter().map(|range| &range.path).collect();
        assert!(paths.iter().all(|path| Arc::ptr_eq(path, paths[0])) && **paths[0] == *"/repo/backup/demo/x");
        let other = ranges(|offset| if offset % 2 == 0 { "backup/demo/a" } else { "backup/demo/b" });
        let others = Parts::new(&other, "/repo", &usage).unwrap();
        let more = usage.memory.bytes() - few;
        assert!(more > few + 999 * PATH_BYTES, "{more}");
        drop((parts, others));
        assert_eq!(usage.memory.bytes(), 0);
        let error = Parts::new(&other, "/repo", &Usage::of_bytes(more - 1)).err().unwrap();
        assert_eq!(error.code, ErrorCode::Memory);
        let back = [same[5], same[4]];
        assert_eq!(Parts::new(&back, "/repo", &usage).err().unwrap().code, ErrorCode::Assert);
    }
}
