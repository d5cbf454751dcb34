//! Where a message ends. Messages have no length in front: the end of its pack is the end of a message.

use std::io::{BufRead, Read as _};

use super::DEPTH_MAX;
use super::tag::{Next, Tag};
use crate::format_error;
use repo_format::{Error, ErrorCode, Result};

/// The largest message that [`read_message`] accepts by default. The largest one that pgBackRest sends is the list of a
/// directory: a million entries take some 40 MB.
pub const MESSAGE_SIZE_MAX: usize = 256 * 1024 * 1024;

/// If more bytes than this are known to be missing, they are read into the message without passing the input's buffer.
const DIRECT_SIZE_MIN: usize = 4096;

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackScan {
    /// The message ends after this many bytes.
    Whole(usize),
    /// At least this many bytes of the message are missing.
    Missing(usize),
}

/// Finds the end of the message at the start of a buffer that grows. A call continues where the one before stopped.
#[derive(Debug)]
pub struct PackScanner {
    size_max: usize,
    position: usize,
    depth: usize,
}

impl PackScanner {
    /// A scanner for a message of at most `size_max` bytes.
    pub fn new(size_max: usize) -> Self {
        PackScanner { size_max, position: 0, depth: 0 }
    }

    /// Scans `bytes`, which must begin with the bytes of the calls before.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if no message begins like this, or if it is too large or too deep.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<PackScan> {
        while self.position < bytes.len() {
            let mut at = self.position;
            let Some(next) = Tag::read(bytes, &mut at)? else { return Ok(PackScan::Missing(1)) };
            match next {
                Next::End if self.depth == 0 => {
                    self.advance(at, 0)?;
                    return Ok(PackScan::Whole(at));
                }
                Next::End => {
                    self.depth -= 1;
                    self.advance(at, 0)?;
                }
                Next::Field(tag) => {
                    if tag.field_type.is_container() {
                        if self.depth == DEPTH_MAX {
                            return Err(format_error(format!("pack has more than {DEPTH_MAX} levels")));
                        }
                        self.depth += 1;
                    }
                    self.advance(at, tag.size)?;
                }
            }
        }
        Ok(PackScan::Missing(self.position - bytes.len() + self.depth + 1))
    }

    /// Moves past the `size` bytes that follow `at`.
    fn advance(&mut self, at: usize, size: u64) -> Result<()> {
        let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size));
        self.position = end
            .filter(|end| *end <= self.size_max)
            .ok_or_else(|| format_error(format!("message exceeds {} bytes", self.size_max)))?;
        Ok(())
    }
}

/// Reads one message into `message`, whose content it replaces, and nothing after it. The buffer grows with the bytes
/// that arrive, not with a size that the peer announces.
///
/// # Errors
/// [`ErrorCode::Format`] for input that is no message or ends before one does; [`ErrorCode::FileRead`] if reading fails.
pub fn read_message(input: &mut impl BufRead, message: &mut Vec<u8>, size_max: usize) -> Result<()> {
    let failed = |error| Error::from_io(ErrorCode::FileRead, "unable to read message", error);
    message.clear();
    let mut scanner = PackScanner::new(size_max);
    let mut missing = 1;
    loop {
        let before = message.len();
        if missing > DIRECT_SIZE_MIN {
            input.by_ref().take(missing as u64).read_to_end(message).map_err(failed)?;
        } else {
            message.extend_from_slice(input.fill_buf().map_err(failed)?);
        }
        let read = message.len() - before;
        if read == 0 {
            return Err(format_error("unexpected EOF"));
        }
        let scan = scanner.scan(message)?;
        if let PackScan::Whole(size) = scan {
            message.truncate(size);
        }
        if missing <= DIRECT_SIZE_MIN {
            // What belongs to the next message stays in the input
            input.consume(read.min(message.len() - before));
        }
        match scan {
            PackScan::Whole(_) => return Ok(()),
            PackScan::Missing(more) => missing = more,
        }
    }
}
