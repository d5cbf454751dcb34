//! The header of each WAL page.

use super::take::Fields;
use crate::pg::PgVersion;
use crate::wal_name::{Lsn, TimelineId};
use crate::{Error, ErrorCode, Result};

/// Bytes of a page's header.
const HEADER_BYTES: usize = 24;
/// Bytes of the header of a segment's first page.
const LONG_HEADER_BYTES: usize = 40;

const FIRST_IS_CONTINUED: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
const FIRST_IS_OVERWRITTEN: u16 = 0x0008;
/// All flags that PostgreSQL has (`XLP_ALL_FLAGS`).
const ALL_FLAGS: u16 = 0x000F;

/// Sizes of WAL pages that PostgreSQL can be built with, in bytes.
const PAGE_BYTES_RANGE: std::ops::RangeInclusive<u32> = 1024..=65536;

/// The header of a WAL page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// The timeline of the first record on the page.
    pub timeline: TimelineId,
    /// Where the page begins.
    pub lsn: Lsn,
    /// Bytes of the record that began on an earlier page, from this page on; 0 if there is none.
    pub continued_bytes: u32,
    /// The record that began on an earlier page was never completed, and this page goes on without it.
    pub is_overwritten: bool,
    /// Bytes of the header.
    pub size: usize,
    /// What only the first page of a segment has.
    pub long: Option<LongHeader>,
}

/// What the first page of a segment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongHeader {
    /// The cluster's identifier.
    pub system_id: u64,
    /// Size of WAL segments in bytes.
    pub segment_bytes: u32,
    /// Size of WAL pages in bytes.
    pub page_bytes: u32,
}

impl PageHeader {
    /// Parses the beginning of a page that this version wrote.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if it is none.
    pub fn parse(page: &[u8], version: PgVersion) -> Result<Self> {
        let bad = |text: String| Error::new(ErrorCode::Format, text);
        let short = || bad(format!("WAL page of {} bytes is too short for its header", page.len()));
        let mut fields = Fields(page);
        let magic = fields.u16().ok_or_else(short)?;
        if magic != version.facts()?.wal_magic {
            return Err(bad(format!("WAL page has magic {magic:04X}, which is not that of PostgreSQL {version}")));
        }
        let flags = fields.u16().ok_or_else(short)?;
        if flags & !ALL_FLAGS != 0 {
            return Err(bad(format!("WAL page has unknown flags {flags:04X}")));
        }
        let timeline = TimelineId(fields.u32().ok_or_else(short)?);
        let lsn = Lsn(fields.u64().ok_or_else(short)?);
        let continued_bytes = fields.u32().ok_or_else(short)?;
        if (flags & FIRST_IS_CONTINUED != 0) != (continued_bytes != 0) {
            return Err(bad(format!("WAL page has flags {flags:04X} but {continued_bytes} bytes of a record")));
        }
        fields.bytes(4).ok_or_else(short)?;
        let long = match flags & LONG_HEADER != 0 {
            true => Some(LongHeader {
                system_id: fields.u64().ok_or_else(short)?,
                segment_bytes: fields.u32().ok_or_else(short)?,
                page_bytes: fields.u32().ok_or_else(short)?,
            }),
            false => None,
        };
        Ok(PageHeader {
            timeline,
            lsn,
            continued_bytes,
            is_overwritten: flags & FIRST_IS_OVERWRITTEN != 0,
            size: if long.is_some() { LONG_HEADER_BYTES } else { HEADER_BYTES },
            long,
        })
    }
}

impl LongHeader {
    /// Checks the sizes.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for sizes that PostgreSQL does not have.
    pub fn check(&self) -> Result<()> {
        crate::pg::check_wal_segment_size(self.segment_bytes)?;
        if self.page_bytes.is_power_of_two() && PAGE_BYTES_RANGE.contains(&self.page_bytes) {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Format, format!("WAL page size {} is not one of PostgreSQL's", self.page_bytes)))
    }
}
