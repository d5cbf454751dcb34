//! Where a message ends. Messages have no length in front: the end of its pack is the end of a message.

use std::fmt;
use std::io::{BufRead, Read as _};

use super::tag::{Next, Tag};
use super::{DEPTH_MAX, FieldType, wrong_type};
use crate::format_error;
use repo_format::{Error, ErrorCode, Result};

/// The largest message that [`read_message`] accepts by default. The largest one that pgBackRest sends is the list of a
/// directory: a million entries take some 40 MB.
pub const MESSAGE_SIZE_MAX: usize = 256 * 1024 * 1024;

/// If more bytes than this are known to be missing, they are read into the message without passing the input's buffer.
const DIRECT_SIZE_MIN: usize = 4096;

/// The most fields of a message beyond those that are known. Later versions may have some.
const MORE_FIELDS_MAX: u32 = 1000;

/// What shows early that a stream is no message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MessageForm {
    /// The types of the first fields. Later ones may be anything.
    pub(crate) fields: &'static [FieldType],
    /// The number that the first field must be, and the error if it is not.
    pub(crate) first: Option<(u64, &'static str)>,
}

/// The cause of an error about a message that is larger than its reader allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("message is too large")
    }
}

impl std::error::Error for TooLarge {}

impl TooLarge {
    /// Returns whether this is the cause of an error.
    pub fn caused(error: &Error) -> bool {
        error.source.as_ref().is_some_and(|source| source.is::<TooLarge>())
    }
}

/// The most bytes for which there is memory before they come: a chunk of a file needs no more than its size then.
const RESERVED_MAX: usize = 2 << 20;

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
    form: MessageForm,
    /// The id of the last field outside of containers.
    last_id: u64,
    /// Fields beyond those with a type.
    more_fields: u32,
}

impl PackScanner {
    /// A scanner for a message of at most `size_max` bytes.
    pub fn new(size_max: usize) -> Self {
        Self::of_form(size_max, MessageForm::default())
    }

    /// A scanner for a message of this form. A stream that is no such message may have no end.
    pub(crate) fn of_form(size_max: usize, form: MessageForm) -> Self {
        PackScanner { size_max, position: 0, depth: 0, form, last_id: 0, more_fields: 0 }
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
                    if self.depth == 0 && !self.form.fields.is_empty() {
                        self.check(tag)?;
                    }
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

    /// Checks the next field outside of containers.
    fn check(&mut self, tag: Tag) -> Result<()> {
        let is_first = self.last_id == 0;
        self.last_id = self.last_id.saturating_add(tag.gap).saturating_add(1);
        let index = usize::try_from(self.last_id - 1).unwrap_or(usize::MAX);
        let MessageForm { fields, first } = self.form;
        match (fields.get(index), first) {
            (_, Some((_, text))) if is_first && index > 0 => Err(format_error(text)),
            (Some(expected), _) if tag.field_type != *expected => {
                Err(wrong_type(self.last_id, tag.field_type, *expected))
            }
            (Some(_), Some((value, text))) if index == 0 && tag.value != value => Err(format_error(text)),
            (Some(_), _) => Ok(()),
            (None, _) if self.more_fields == MORE_FIELDS_MAX => {
                Err(format_error(format!("message has more than {MORE_FIELDS_MAX} unknown fields")))
            }
            (None, _) => {
                self.more_fields += 1;
                Ok(())
            }
        }
    }

    /// Moves past the `size` bytes that follow `at`.
    fn advance(&mut self, at: usize, size: u64) -> Result<()> {
        let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size));
        self.position = end
            .filter(|end| *end <= self.size_max)
            .ok_or_else(|| format_error(format!("message exceeds {} bytes", self.size_max)).cause(TooLarge))?;
        Ok(())
    }
}

/// Reads one message into `message`, whose content it replaces, and nothing after it. The buffer grows with the bytes
/// that arrive, not with a size that the peer announces, but for the last 2 MiB.
///
/// # Errors
/// [`ErrorCode::Format`] for input that is no message or ends before one does; [`ErrorCode::FileRead`] if reading fails.
pub fn read_message(input: &mut impl BufRead, message: &mut Vec<u8>, size_max: usize) -> Result<()> {
    read_with(PackScanner::new(size_max), input, message)
}

/// Reads one message whose end this scanner finds.
///
/// # Errors
/// Those of [`read_message`].
pub(crate) fn read_with(mut scanner: PackScanner, input: &mut impl BufRead, message: &mut Vec<u8>) -> Result<()> {
    let failed = |error| Error::from_io(ErrorCode::FileRead, "unable to read message", error);
    message.clear();
    let mut missing = 1;
    loop {
        let before = message.len();
        if missing > DIRECT_SIZE_MIN {
            message.reserve_exact(missing.min(RESERVED_MAX));
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
