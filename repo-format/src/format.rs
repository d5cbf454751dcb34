//! The repository format number: which format can be read, and how other formats are recognized.
//!
//! Each info file and manifest has its own number, and an interrupted upgrade leaves a stanza with files of two
//! formats. A file of another format is not damaged. Its copy may still have the old format, but whoever continues with
//! the copy and saves it loses what only the newer file contains, such as the keys of the archive. [`is_unsupported`]
//! distinguishes the two kinds of errors.

use std::fmt;

use crate::{Error, ErrorCode, REPOSITORY_FORMAT, Result};

/// The prefix of encrypted files of format 6 and later. Three digits with the number follow.
const HEADER: &[u8] = b"PGBR";
/// The bytes of header and number.
pub const HEADER_SIZE: usize = 7;

/// The cause of an error about a file of another format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherFormat(Option<u64>);

impl fmt::Display for OtherFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "repository format {number}"),
            None => f.write_str("repository format without a number"),
        }
    }
}

impl std::error::Error for OtherFormat {}

/// Checks the format number of a file.
///
/// # Errors
/// [`ErrorCode::Format`] for a number other than [`REPOSITORY_FORMAT`].
pub fn check(number: u64) -> Result<()> {
    if number == u64::from(REPOSITORY_FORMAT) { Ok(()) } else { Err(unsupported(number)) }
}

/// The error for a file of another format.
fn unsupported(number: u64) -> Error {
    let message = if number > u64::from(REPOSITORY_FORMAT) {
        format!("repository format {number} requires a newer version of rbr")
    } else {
        format!("repository format {number} is no longer supported")
    };
    let error = Error::new(ErrorCode::Format, message)
        .hint(format!("this version of rbr reads and writes repository format {REPOSITORY_FORMAT} only."))
        .cause(OtherFormat(Some(number)));
    if number > u64::from(REPOSITORY_FORMAT) {
        error.hint("use a pgBackRest version that supports the format, 2.60 or newer for format 6.")
    } else {
        error
    }
}

/// Returns the format number in front of an encrypted file of format 6 or later; `None` if `start`, the first bytes of
/// the file, does not belong to such a file.
///
/// # Errors
/// [`ErrorCode::Format`] for a header without a number.
pub fn header_number(start: &[u8]) -> Result<Option<u64>> {
    let Some(digits) = start.strip_prefix(HEADER) else { return Ok(None) };
    let digits = digits.get(..HEADER_SIZE - HEADER.len()).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    match digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Error::new(ErrorCode::Format, "invalid cipher header").cause(OtherFormat(None))),
    }
}

/// Checks that a file does not begin with the header of format 6 or later.
///
/// # Errors
/// [`ErrorCode::Format`] with the number, if it does.
pub fn check_header(start: &[u8]) -> Result<()> {
    match header_number(start)? {
        None => Ok(()),
        Some(number) if number > u64::from(REPOSITORY_FORMAT) => Err(unsupported(number)),
        // Files of this format and older ones have no such header
        Some(number) => Err(Error::new(ErrorCode::Format, "invalid cipher header").cause(OtherFormat(Some(number)))),
    }
}

/// Returns whether the error means that a file has another format, so that its copy must not replace it.
pub fn is_unsupported(error: &Error) -> bool {
    error.source.as_deref().is_some_and(|source| source.is::<OtherFormat>())
}

/// The number in an error of another format, if it has one.
pub fn unsupported_number(error: &Error) -> Option<u64> {
    error.source.as_deref()?.downcast_ref::<OtherFormat>()?.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_format_names_the_number_and_what_helps() {
        let error = check(6).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
        assert_eq!(error.message, "repository format 6 requires a newer version of rbr");
        assert_eq!(error.hints.len(), 2);
        assert!(is_unsupported(&error));
        assert_eq!(unsupported_number(&error), Some(6));
        assert_eq!(check(4).unwrap_err().message, "repository format 4 is no longer supported");
        assert!(check(5).is_ok());
    }

    #[test]
    fn header_of_format_6_is_told_from_damage() {
        assert_eq!(header_number(b"PGBR006_salt").unwrap(), Some(6));
        assert_eq!(header_number(b"Salted__").unwrap(), None);
        assert_eq!(header_number(b"PGB").unwrap(), None);
        for start in [b"PGBR".as_slice(), b"PGBR06", b"PGBRxyz_", b"PGBR+06_"] {
            let error = header_number(start).unwrap_err();
            assert_eq!(error.message, "invalid cipher header");
            assert!(is_unsupported(&error), "the copy must not be taken");
        }
        assert!(!is_unsupported(&Error::new(ErrorCode::Format, "x")));
        assert!(check_header(b"PGBR005_").is_err());
    }

    #[test]
    fn error_of_another_format_stays_one_behind_read() {
        let error = Error::from_io(ErrorCode::FileRead, "x", check(6).unwrap_err().into());
        assert!(is_unsupported(&error));
    }
}
