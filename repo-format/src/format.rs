//! The repository format number: which formats can be read, and how other formats are recognized.
//!
//! Each info file and manifest has its own number, and an interrupted upgrade leaves a stanza with files of two
//! formats. A file of another format is not damaged. Its copy may still have the old format, but whoever continues with
//! the copy and saves it loses what only the newer file contains, such as the keys of the archive. [`is_unsupported`]
//! distinguishes the two kinds of errors.

use std::fmt;

use crate::{BACKREST_VERSION, Error, ErrorCode, Result};

/// A format that can be read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepoFormat {
    /// Format 5: every version of pgBackRest reads it.
    #[default]
    V5,
    /// Format 6: several keys for the archive, and a header in front of encrypted info files and archived files.
    /// pgBackRest 2.60 and later read it.
    V6,
}

impl RepoFormat {
    /// All formats, the oldest first.
    pub const ALL: [RepoFormat; 2] = [RepoFormat::V5, RepoFormat::V6];

    /// The number in files.
    pub fn number(self) -> u32 {
        match self {
            RepoFormat::V5 => 5,
            RepoFormat::V6 => 6,
        }
    }

    /// Returns the format with this number.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for a number of no format that can be read ([`is_unsupported`]).
    pub fn from_number(number: u64) -> Result<Self> {
        let found = RepoFormat::ALL.into_iter().find(|format| u64::from(format.number()) == number);
        found.ok_or_else(|| unsupported(number))
    }
}

impl fmt::Display for RepoFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

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

/// The error for a file of another format.
fn unsupported(number: u64) -> Error {
    let [oldest, newest] = RepoFormat::ALL.map(RepoFormat::number);
    let message = match number > u64::from(newest) {
        true => format!("repository format {number} requires a newer version of pgBackRest"),
        false => format!("repository format {number} is no longer supported by pgBackRest"),
    };
    Error::new(ErrorCode::Format, message)
        .hint(format!("pgBackRest {BACKREST_VERSION} supports repository format {oldest} to {newest}."))
        .cause(OtherFormat(Some(number)))
}

/// The error for a file whose header names another format than its content.
pub(crate) fn mismatch(content: RepoFormat, header: RepoFormat) -> Error {
    let message = format!("repository format {content} does not match header format {header}");
    Error::new(ErrorCode::Format, message).cause(OtherFormat(Some(header.number().into())))
}

/// The error for a header that can't be of any format.
pub(crate) fn invalid_header(number: Option<u64>) -> Error {
    Error::new(ErrorCode::Format, "invalid cipher header").cause(OtherFormat(number))
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
        let error = RepoFormat::from_number(7).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
        assert_eq!(error.message, "repository format 7 requires a newer version of pgBackRest");
        assert_eq!(error.hints, ["pgBackRest 2.60.0 supports repository format 5 to 6."]);
        assert!(is_unsupported(&error));
        assert_eq!(unsupported_number(&error), Some(7));
        let error = RepoFormat::from_number(4).unwrap_err();
        assert_eq!(error.message, "repository format 4 is no longer supported by pgBackRest");
        assert_eq!(RepoFormat::from_number(6).unwrap(), RepoFormat::V6);
    }

    #[test]
    fn error_of_another_format_stays_one_behind_read() {
        let error = Error::from_io(ErrorCode::FileRead, "x", RepoFormat::from_number(7).unwrap_err().into());
        assert!(is_unsupported(&error));
    }
}
