//! Names and positions of the write-ahead log.
//!
//! A segment's name has 24 upper-case hex digits: the timeline, the high half of the LSN, and the low half divided by
//! the segment size (source: PostgreSQL `access/xlog_internal.h`, pgBackRest `src/command/archive/common.c`).

use std::fmt;
use std::str::FromStr;

use crate::compress::CompressType;
use crate::hash::Sha1;
use crate::{Error, ErrorCode, Result};

/// Bytes of a segment's name.
pub const SEGMENT_NAME_LEN: usize = 24;
/// Length of the name of a segment's directory, which consists of the first characters of the segment's name.
pub const SEGMENT_DIR_LEN: usize = 16;
/// The suffix of a segment that was not filled.
pub const PARTIAL_SUFFIX: &str = ".partial";

/// A position in the write-ahead log, in bytes from its begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    /// Parses two hex numbers of at most eight digits around `/`. PostgreSQL 19 pads the second one with zeros.
    fn from_str(text: &str) -> Result<Self> {
        fn half(digits: &str) -> Option<u64> {
            let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if valid { u64::from_str_radix(digits, 16).ok() } else { None }
        }
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| Error::new(ErrorCode::Format, format!("'{}' is not a valid LSN", text.escape_debug())))
    }
}

/// A timeline's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    /// Writes eight upper-case hex digits, as in file names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl FromStr for TimelineId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        hex8(text)
            .map(TimelineId)
            .ok_or_else(|| Error::new(ErrorCode::Format, format!("'{}' is not a timeline", text.escape_debug())))
    }
}

/// Parses eight upper-case hex digits.
fn hex8(text: &str) -> Option<u32> {
    let valid = text.len() == 8 && text.bytes().all(is_hex);
    if valid { u32::from_str_radix(text, 16).ok() } else { None }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'F')
}

/// The name of a WAL segment. Segments order by timeline, then by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSegment {
    /// The timeline.
    pub timeline: TimelineId,
    /// The high half of the segment's position.
    pub log: u32,
    /// The low half of the segment's position, divided by the segment size.
    pub segment: u32,
}

impl WalSegment {
    /// Returns the segment that contains the byte at `lsn`. `wal_segment_size` is in bytes, a power of two from 1 MiB
    /// to 1 GiB.
    pub fn from_lsn(timeline: TimelineId, lsn: Lsn, wal_segment_size: u32) -> Self {
        let (log, low) = ((lsn.0 >> 32) as u32, lsn.0 as u32);
        WalSegment { timeline, log, segment: low.checked_div(wal_segment_size).unwrap_or(0) }
    }

    /// The position of the segment's first byte.
    pub fn start_lsn(&self, wal_segment_size: u32) -> Lsn {
        Lsn(u64::from(self.log) << 32 | (u64::from(self.segment) * u64::from(wal_segment_size)) & 0xffff_ffff)
    }

    /// Returns whether a cluster with this segment size has a segment of this name. The names of others stand for the
    /// position of another segment.
    pub fn fits(&self, wal_segment_size: u32) -> bool {
        Self::from_lsn(self.timeline, self.start_lsn(wal_segment_size), wal_segment_size) == *self
    }

    /// The following segment of the same timeline.
    #[must_use]
    pub fn next(&self, wal_segment_size: u32) -> Self {
        let last = u32::MAX.checked_div(wal_segment_size).unwrap_or(u32::MAX);
        if self.segment < last {
            WalSegment { segment: self.segment + 1, ..*self }
        } else {
            WalSegment { log: self.log.wrapping_add(1), segment: 0, ..*self }
        }
    }

    /// Returns every segment from the one that contains `start` to the one that contains `stop`.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if `stop` is before `start`.
    pub fn range(
        timeline: TimelineId,
        start: Lsn,
        stop: Lsn,
        wal_segment_size: u32,
    ) -> Result<impl Iterator<Item = WalSegment>> {
        if stop < start {
            return Err(Error::new(ErrorCode::Format, format!("WAL stop '{stop}' is before WAL start '{start}'")));
        }
        let last = Self::from_lsn(timeline, stop, wal_segment_size);
        let mut next = Some(Self::from_lsn(timeline, start, wal_segment_size));
        Ok(std::iter::from_fn(move || {
            let current = next?;
            next = if current < last { Some(current.next(wal_segment_size)) } else { None };
            Some(current)
        }))
    }

    /// Returns the directory of the segment: the first 16 characters of its name.
    pub fn directory(&self) -> String {
        format!("{}{:08X}", self.timeline, self.log)
    }
}

impl fmt::Display for WalSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:08X}{:08X}", self.timeline, self.log, self.segment)
    }
}

impl FromStr for WalSegment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        segment_of(text)
            .filter(|_| text.len() == SEGMENT_NAME_LEN)
            .ok_or_else(|| Error::new(ErrorCode::Format, format!("'{}' is not a WAL segment", text.escape_debug())))
    }
}

/// The segment whose name `text` begins with.
fn segment_of(text: &str) -> Option<WalSegment> {
    Some(WalSegment {
        timeline: TimelineId(hex8(text.get(..8)?)?),
        log: hex8(text.get(8..16)?)?,
        segment: hex8(text.get(16..SEGMENT_NAME_LEN)?)?,
    })
}

/// The kind of a file in `pg_wal`, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalFileKind {
    /// A segment.
    Segment,
    /// A segment that was not filled, `<segment>.partial`.
    Partial,
    /// The note of an online backup, `<segment>.<offset>.backup`.
    BackupHistory,
    /// A timeline's history, `<timeline>.history`.
    TimelineHistory,
    /// Anything else.
    Other,
}

impl WalFileKind {
    /// Returns whether the file is WAL, which is checked, compressed and stored with its checksum. Other files are
    /// stored unchanged.
    pub fn is_segment(self) -> bool {
        matches!(self, WalFileKind::Segment | WalFileKind::Partial)
    }
}

/// Returns the kind of a file in `pg_wal`.
pub fn kind(name: &str) -> WalFileKind {
    if let Some(timeline) = name.strip_suffix(".history") {
        if hex8(timeline).is_some() {
            return WalFileKind::TimelineHistory;
        }
    } else if segment_of(name).is_some() {
        match &name[SEGMENT_NAME_LEN..] {
            "" => return WalFileKind::Segment,
            PARTIAL_SUFFIX => return WalFileKind::Partial,
            rest => {
                let offset = rest.strip_prefix('.').and_then(|rest| rest.strip_suffix(".backup"));
                if offset.is_some_and(|offset| hex8(offset).is_some()) {
                    return WalFileKind::BackupHistory;
                }
            }
        }
    }
    WalFileKind::Other
}

/// Returns the directory below the archive id that contains a file of the archive: names that begin with 24 characters
/// from `0` to `F` are in a directory named by the first 16 of them. Returns `None` for other names.
///
/// The character range is pgBackRest's. It includes `:` to `@`, which PostgreSQL never uses.
pub fn archive_directory(name: &str) -> Option<&str> {
    let prefix = name.as_bytes().get(..SEGMENT_NAME_LEN)?;
    if prefix.iter().all(|byte| (b'0'..=b'F').contains(byte)) { name.get(..SEGMENT_DIR_LEN) } else { None }
}

/// The name of a segment in the archive: `<segment>[.partial]-<checksum><extension>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivedSegment {
    /// The segment.
    pub segment: WalSegment,
    /// Whether the segment is partial.
    pub partial: bool,
    /// The checksum of the segment before compression.
    pub checksum: Sha1,
    /// The compression.
    pub compress_type: CompressType,
}

impl fmt::Display for ArchivedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partial = if self.partial { PARTIAL_SUFFIX } else { "" };
        write!(f, "{}{partial}-{}{}", self.segment, self.checksum, self.compress_type.extension())
    }
}

impl FromStr for ArchivedSegment {
    type Err = Error;

    /// Returns a format error (029) for any other name, and an option-invalid-value error (032) for a segment
    /// compressed with xz.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(ErrorCode::Format, format!("'{}' is not an archived WAL segment", text.escape_debug()));
        let segment = segment_of(text).ok_or_else(bad)?;
        let rest = &text[SEGMENT_NAME_LEN..];
        let (partial, rest) = match rest.strip_prefix(PARTIAL_SUFFIX) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.strip_prefix('-').ok_or_else(bad)?;
        let (checksum, extension) = rest.split_at_checked(40).ok_or_else(bad)?;
        let checksum = Sha1::from_hex(checksum.as_bytes()).ok_or_else(bad)?;
        let compress_type = CompressType::from_file_name(extension)?;
        if compress_type.extension() != extension {
            return Err(bad());
        }
        Ok(ArchivedSegment { segment, partial, checksum, compress_type })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u32 = 16 << 20;

    #[test]
    fn lsn_text_parses_in_both_forms() -> Result<()> {
        assert_eq!("0/3000028".parse::<Lsn>()?, Lsn(0x300_0028));
        assert_eq!("1A/03000028".parse::<Lsn>()?, Lsn(0x1a_0300_0028));
        assert_eq!(Lsn(0x1a_0300_0028).to_string(), "1A/3000028");
        for text in ["", "0", "/", "0/", "/0", "0/1/2", "0/123456789", "+1/0", "g/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
        Ok(())
    }

    #[test]
    fn segment_at_end_of_log_goes_to_next_log() -> Result<()> {
        let last: WalSegment = "0000000A00000001000000FF".parse()?;
        assert_eq!(last.next(SIZE).to_string(), "0000000A0000000200000000");
        let last: WalSegment = "0000000A0000000100000003".parse()?;
        assert_eq!(last.next(1 << 30).to_string(), "0000000A0000000200000000");
        assert_eq!(last.directory(), "0000000A00000001");
        Ok(())
    }

    #[test]
    fn segment_name_beyond_its_log_does_not_fit_the_size() -> Result<()> {
        for (name, fits) in [("0000000100000000000000FF", true), ("000000010000000000000105", false)] {
            assert_eq!(name.parse::<WalSegment>()?.fits(SIZE), fits, "{name}");
        }
        Ok(())
    }

    #[test]
    fn segment_range_covers_both_ends() -> Result<()> {
        let range = |start, stop| -> Result<Vec<String>> {
            Ok(WalSegment::range(TimelineId(1), Lsn(start), Lsn(stop), SIZE)?.map(|s| s.to_string()).collect())
        };
        assert_eq!(range(0x300_0028, 0x300_0100)?, ["000000010000000000000003"]);
        assert_eq!(
            range(0xfe00_0000, 0x1_0000_0000)?,
            ["0000000100000000000000FE", "0000000100000000000000FF", "000000010000000100000000"]
        );
        assert!(range(0x300_0028, 0x200_0000).is_err());
        Ok(())
    }

    #[test]
    fn kind_follows_the_name() {
        for (name, expected) in [
            ("000000010000000000000001", WalFileKind::Segment),
            ("000000010000000000000001.partial", WalFileKind::Partial),
            ("000000010000000000000001.00000028.backup", WalFileKind::BackupHistory),
            ("00000002.history", WalFileKind::TimelineHistory),
            ("00000001000000000000000g", WalFileKind::Other),
            ("00000001000000000000000a", WalFileKind::Other),
            ("000000010000000000000001.0000028.backup", WalFileKind::Other),
            ("0000002.history", WalFileKind::Other),
            ("archive_status", WalFileKind::Other),
            ("0000000100000000000000é1", WalFileKind::Other),
            ("", WalFileKind::Other),
        ] {
            assert_eq!(kind(name), expected, "{name}");
        }
    }

    #[test]
    fn archive_directory_is_for_wal_like_names() {
        assert_eq!(archive_directory("000000010000000000000001.00000028.backup"), Some("0000000100000000"));
        assert_eq!(archive_directory("00000002.history"), None);
    }

    #[test]
    fn archived_segment_names_round_trip() -> Result<()> {
        for name in [
            "000000010000000000000001-da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "000000010000000000000001-da39a3ee5e6b4b0d3255bfef95601890afd80709.gz",
            "000000010000000000000001.partial-da39a3ee5e6b4b0d3255bfef95601890afd80709.zst",
        ] {
            assert_eq!(name.parse::<ArchivedSegment>()?.to_string(), name);
        }
        for name in [
            "000000010000000000000001",
            "000000010000000000000001-da39",
            "000000010000000000000001-da39a3ee5e6b4b0d3255bfef95601890afd80709.pgbackrest.tmp",
            "000000010000000000000001-da39a3ee5e6b4b0d3255bfef95601890afd8070é",
        ] {
            assert!(name.parse::<ArchivedSegment>().is_err(), "{name}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn lsn_any_value_round_trips(value in any::<u64>()) {
            prop_assert_eq!(Lsn(value).to_string().parse::<Lsn>().ok(), Some(Lsn(value)));
        }

        #[test]
        fn segment_any_lsn_round_trips(lsn in any::<u64>(), timeline in any::<u32>(), power in 20u32..=30) {
            let size = 1u32 << power;
            let segment = WalSegment::from_lsn(TimelineId(timeline), Lsn(lsn), size);
            prop_assert_eq!(segment.to_string().parse::<WalSegment>().ok(), Some(segment));
            prop_assert_eq!(segment.start_lsn(size), Lsn(lsn & !u64::from(size - 1)));
            if lsn < u64::MAX - u64::from(size) {
                let next = WalSegment::from_lsn(TimelineId(timeline), Lsn(lsn + u64::from(size)), size);
                prop_assert_eq!(segment.next(size), next);
            }
        }

        #[test]
        fn names_any_text_never_panic(name in "\\PC{0,70}") {
            let _ = kind(&name);
            let _ = archive_directory(&name);
            let _ = name.parse::<WalSegment>();
            let _ = name.parse::<ArchivedSegment>();
            let _ = name.parse::<Lsn>();
        }
    }
}
