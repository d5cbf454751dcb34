//! The header of a WAL segment's first page, which identifies the cluster.
//!
//! Source: pgBackRest `src/postgres/interface.c` (`pgWalFromBuffer`).

use super::version::VERSIONS;
use super::{PgVersion, check_wal_segment_size, u16_at, u32_at, u64_at};
use crate::{Error, ErrorCode, Result};

/// Bytes of a segment that are enough for its header.
pub const WAL_HEADER_SIZE: usize = 512;

const MAGIC_OFFSET: usize = 0;
const FLAGS_OFFSET: usize = 2;
const SYSTEM_ID_OFFSET: usize = 24;
const SEGMENT_SIZE_OFFSET: usize = 32;
/// Set in the header of a segment's first page.
const FLAG_LONG_HEADER: u16 = 0x0002;

/// The header of the first page of a WAL segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalHeader {
    /// The version that wrote it.
    pub version: PgVersion,
    /// The cluster's identifier.
    pub system_id: u64,
    /// Size of WAL segments in bytes.
    pub segment_size: u32,
}

impl WalHeader {
    /// Parses the beginning of a segment. With `force`, the segment is read as that version regardless of its magic.
    ///
    /// Errors: format (029) for a page without a long header, a segment size that PostgreSQL does not have, and a file
    /// that is too short; version-not-supported (046) for an unknown magic.
    pub fn parse(data: &[u8], force: Option<PgVersion>) -> Result<Self> {
        let short = || {
            Error::new(
                ErrorCode::Format,
                format!("WAL file has {} bytes, too few for the first page header", data.len()),
            )
        };
        let magic = u16_at(data, MAGIC_OFFSET).ok_or_else(short)?;
        let flags = u16_at(data, FLAGS_OFFSET).ok_or_else(short)?;
        if flags & FLAG_LONG_HEADER == 0 {
            return Err(Error::new(
                ErrorCode::Format,
                "first page header in WAL file is expected to be in long format",
            ));
        }
        let version = match force {
            Some(version) => version.facts()?.version,
            None => {
                VERSIONS.iter().find(|facts| facts.wal_magic == magic).map(|facts| facts.version).ok_or_else(|| {
                    Error::new(ErrorCode::VersionNotSupported, format!("unexpected WAL magic {magic}"))
                        .hint("is this version of PostgreSQL supported?")
                        .hint("is rbr up to date on all hosts?")
                })?
            }
        };
        let system_id = u64_at(data, SYSTEM_ID_OFFSET).ok_or_else(short)?;
        let segment_size = u32_at(data, SEGMENT_SIZE_OFFSET).ok_or_else(short)?;
        check_wal_segment_size(segment_size)?;
        Ok(WalHeader { version, system_id, segment_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(magic: u16, flags: u16, segment_size: u32) -> Vec<u8> {
        let mut data = vec![0; WAL_HEADER_SIZE];
        data[..2].copy_from_slice(&magic.to_le_bytes());
        data[2..4].copy_from_slice(&flags.to_le_bytes());
        data[24..32].copy_from_slice(&7_123_456_789_012_345_678u64.to_le_bytes());
        data[32..36].copy_from_slice(&segment_size.to_le_bytes());
        data
    }

    #[test]
    fn header_of_each_version_is_recognised() {
        for facts in VERSIONS {
            let parsed = WalHeader::parse(&header(facts.wal_magic, 0x0006, 16 << 20), None).unwrap();
            let expected =
                WalHeader { version: facts.version, system_id: 7_123_456_789_012_345_678, segment_size: 16 << 20 };
            assert_eq!(parsed, expected);
        }
    }

    #[test]
    fn header_with_an_unknown_magic_gives_046_unless_forced() {
        let data = header(0xD1FF, 2, 1 << 20);
        let error = WalHeader::parse(&data, None).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::VersionNotSupported, "unexpected WAL magic 53759")
        );
        assert_eq!(WalHeader::parse(&data, Some(PgVersion::V15)).unwrap().version, PgVersion::V15);
    }

    #[test]
    fn header_without_long_format_gives_029() {
        assert_eq!(WalHeader::parse(&header(0xD110, 0, 1 << 20), None).unwrap_err().code, ErrorCode::Format);
    }

    #[test]
    fn header_with_a_bad_segment_size_gives_029() {
        for size in [0, 3 << 20, 1 << 19, 1 << 31] {
            assert_eq!(WalHeader::parse(&header(0xD110, 2, size), None).unwrap_err().code, ErrorCode::Format);
        }
    }

    #[test]
    fn header_cut_short_gives_029() {
        let data = header(0xD110, 2, 1 << 20);
        for len in 0..36 {
            assert_eq!(WalHeader::parse(&data[..len], None).unwrap_err().code, ErrorCode::Format, "{len}");
        }
        assert!(WalHeader::parse(&data[..36], None).is_ok());
    }

    #[test]
    fn header_of_a_real_segment_is_read() {
        let data = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pg/wal_header_15"));
        let header = WalHeader::parse(data, None).unwrap();
        assert_eq!((header.version, header.system_id), (PgVersion::V15, 7_710_988_385_751_255_555));
        assert_eq!(header.segment_size, 16 << 20);
    }
}
