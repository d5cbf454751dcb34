//! The headers of encrypted streams.
//!
//! | first bytes | format | key |
//! | --- | --- | --- |
//! | `Salted__` | 5 | the one with the id `0` |
//! | `PGBR`, three digits, `_` | the digits | the one with the id `0` |
//! | `PGBR`, three digits, `K`, a size of one byte, an id of that size | the digits | the one with this id |
//!
//! The salt follows. Source: pgBackRest 2.60.0, `src/common/format/cipherBlockFormat.c`. The header names no cipher: the
//! repository's options do.

use super::keyring::KeyId;
use super::{MAGIC, SALT_SIZE};
use crate::format::{self, RepoFormat};
use crate::{Error, ErrorCode, Result};

/// The first bytes of every header that names a format.
const PREFIX: &[u8] = b"PGBR";
/// The bytes of the prefix and the format's digits.
const NUMBER_END: usize = PREFIX.len() + 3;
/// The marker of a header without an id.
const MARKER_PLAIN: u8 = b'_';
/// The marker of a header with an id.
const MARKER_KEY: u8 = b'K';

/// The header of a stream, in front of the salt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamHeader {
    /// `Salted__`.
    Magic,
    /// A format alone.
    Format(RepoFormat),
    /// A format and a key.
    Key(RepoFormat, KeyId),
}

impl StreamHeader {
    /// The format of the file: the header's, or the one of files that have none.
    pub fn format(&self) -> RepoFormat {
        match self {
            StreamHeader::Magic => RepoFormat::V5,
            StreamHeader::Format(format) | StreamHeader::Key(format, _) => *format,
        }
    }

    /// The id of the key.
    pub fn key_id(&self) -> &str {
        match self {
            StreamHeader::Magic | StreamHeader::Format(_) => KeyId::ZERO,
            StreamHeader::Key(_, id) => id.as_str(),
        }
    }

    /// Returns the bytes of the header.
    pub fn to_bytes(&self) -> Vec<u8> {
        let prefix = |format: &RepoFormat| [PREFIX, format!("{:03}", format.number()).as_bytes()].concat();
        match self {
            StreamHeader::Magic => MAGIC.to_vec(),
            StreamHeader::Format(format) => [prefix(format).as_slice(), &[MARKER_PLAIN]].concat(),
            StreamHeader::Key(format, id) => {
                [prefix(format).as_slice(), &[MARKER_KEY, id.size()], id.as_str().as_bytes()].concat()
            }
        }
    }
}

/// What the first bytes of a stream tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The header with the salt needs this many bytes in total.
    Needs(usize),
    /// The header, and where the salt begins. The salt is complete.
    Header(StreamHeader, usize),
}

/// Returns the header at the beginning of `start`, the first bytes of a stream.
///
/// # Errors
/// [`ErrorCode::Crypto`] if there is no header; [`ErrorCode::Format`] for a header that is not valid, and for one of a
/// format that can't be read ([`format::is_unsupported`]).
pub(super) fn parse(start: &[u8]) -> Result<Parsed> {
    let Some(first) = start.get(..MAGIC.len()) else { return Ok(Parsed::Needs(MAGIC.len() + SALT_SIZE)) };
    let with_salt = |header: StreamHeader, end: usize| match start.len() >= end + SALT_SIZE {
        true => Parsed::Header(header, end),
        false => Parsed::Needs(end + SALT_SIZE),
    };
    if first == MAGIC {
        return Ok(with_salt(StreamHeader::Magic, MAGIC.len()));
    }
    let Some(number) = number(first)? else {
        return Err(Error::new(ErrorCode::Crypto, "cipher header invalid"));
    };
    let format = RepoFormat::from_number(number)?;
    let invalid = || format::invalid_header(Some(number));
    match first[NUMBER_END] {
        MARKER_PLAIN => Ok(with_salt(StreamHeader::Format(format), MAGIC.len())),
        MARKER_KEY => {
            let id_start = MAGIC.len() + 1;
            let Some(&size) = start.get(MAGIC.len()) else { return Ok(Parsed::Needs(id_start + SALT_SIZE)) };
            let id_end = id_start + usize::from(size);
            let Some(id) = start.get(id_start..id_end) else { return Ok(Parsed::Needs(id_end + SALT_SIZE)) };
            let id = std::str::from_utf8(id).ok().and_then(KeyId::new).ok_or_else(invalid)?;
            Ok(with_salt(StreamHeader::Key(format, id), id_end))
        }
        _ => Err(invalid()),
    }
}

/// Returns the format number in front of an encrypted file; `None` if `start`, the first bytes of the file, has none.
///
/// # Errors
/// [`ErrorCode::Format`] for a prefix without a number.
fn number(start: &[u8]) -> Result<Option<u64>> {
    let Some(digits) = start.strip_prefix(PREFIX) else { return Ok(None) };
    let digits = digits.get(..NUMBER_END - PREFIX.len()).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    match digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(format::invalid_header(None)),
    }
}

/// Checks the first bytes of a file that must not have a header with a format.
///
/// # Errors
/// [`ErrorCode::Format`] for one of a format that can't be read, or of no format; `other` for one of a known format.
pub(crate) fn refuse(start: &[u8], other: impl FnOnce() -> Error) -> Result<()> {
    let Some(number) = number(start)? else { return Ok(()) };
    RepoFormat::from_number(number)?;
    Err(other())
}

/// Returns whether a file that begins like this is encrypted.
pub fn is_encrypted(start: &[u8]) -> bool {
    start.starts_with(MAGIC) || start.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: &str) -> StreamHeader {
        StreamHeader::Key(RepoFormat::V6, KeyId::new(id).unwrap())
    }

    #[test]
    fn header_of_each_kind_has_its_bytes() {
        assert_eq!(StreamHeader::Magic.to_bytes(), b"Salted__");
        assert_eq!(StreamHeader::Format(RepoFormat::V6).to_bytes(), b"PGBR006_");
        assert_eq!(key("12").to_bytes(), b"PGBR006K\x0212");
    }

    #[test]
    fn header_of_each_kind_is_found_only_with_its_salt() {
        for header in [StreamHeader::Magic, StreamHeader::Format(RepoFormat::V5), key("1"), key(&"i".repeat(255))] {
            let bytes = header.to_bytes();
            let stream = [bytes.as_slice(), b"saltsalt"].concat();
            for size in 0..stream.len() {
                let Parsed::Needs(needed) = parse(&stream[..size]).unwrap() else { panic!("{size} bytes suffice") };
                assert!(size < needed && needed <= stream.len(), "{size} bytes need {needed}");
            }
            assert_eq!(parse(&stream).unwrap(), Parsed::Header(header, bytes.len()));
        }
    }

    #[test]
    fn header_that_is_not_valid_fails_as_in_pgbackrest() {
        for (start, code, message) in [
            (b"plain text".as_slice(), ErrorCode::Crypto, "cipher header invalid"),
            (b"PGBR0x6_", ErrorCode::Format, "invalid cipher header"),
            (b"PGBR+06_", ErrorCode::Format, "invalid cipher header"),
            (b"PGBR006x", ErrorCode::Format, "invalid cipher header"),
            (b"PGBR006K\x00", ErrorCode::Format, "invalid cipher header"),
            (b"PGBR006K\x01\xff", ErrorCode::Format, "invalid cipher header"),
            (b"PGBR007G", ErrorCode::Format, "repository format 7 requires a newer version of pgBackRest"),
            (b"PGBR004x", ErrorCode::Format, "repository format 4 is no longer supported by pgBackRest"),
        ] {
            let error = parse(start).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (code, message));
            assert_eq!(format::is_unsupported(&error), code == ErrorCode::Format, "{message}");
        }
    }

    proptest! {
        #[test]
        fn header_with_any_id_reads_back(id in "[a-z0-9 é.-]{1,60}", salt in any::<[u8; 8]>()) {
            let header = key(&id);
            let bytes = header.to_bytes();
            let stream = [bytes.as_slice(), &salt].concat();
            prop_assert_eq!(parse(&stream).unwrap(), Parsed::Header(header, bytes.len()));
        }
    }
}
