//! Files of a repository on another host, compressed on their way or not.

use std::io::{self, Read};

use repo_format::cipher::Framing;
use repo_format::compress::{CompressType, Decompressor};

use super::super::RepoReader;
use crate::Result;
use crate::remote::RemoteReader;

impl RepoReader for RemoteReader {
    fn is_ready(&self) -> bool {
        self.is_buffered()
    }
}

/// A file that is compressed on its way.
pub(super) struct PlainReader {
    stream: Decompressor<RemoteReader>,
    /// Bytes that may still come.
    left: u64,
}

impl PlainReader {
    /// Returns what a file that was asked for holds. `level` is the compression that was asked for, if any, and `limit` the
    /// number of bytes.
    ///
    /// # Errors
    /// [`ErrorCode::Memory`]
    pub(super) fn opened(
        reader: Option<RemoteReader>,
        level: Option<i32>,
        limit: Option<u64>,
    ) -> Result<Option<Box<dyn RepoReader>>> {
        let Some(reader) = reader else { return Ok(None) };
        if level.is_none() {
            return Ok(Some(Box::new(reader)));
        }
        let stream = Decompressor::new(CompressType::Lz4, Framing::Raw, reader)?;
        Ok(Some(Box::new(PlainReader { stream, left: limit.unwrap_or(u64::MAX) })))
    }
}

impl Read for PlainReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        let left = self.left.checked_sub(read as u64);
        self.left = left.ok_or_else(|| self.stream.get_ref().sent_more())?;
        Ok(read)
    }
}

impl RepoReader for PlainReader {
    fn is_ready(&self) -> bool {
        self.stream.get_ref().is_buffered()
    }
}
