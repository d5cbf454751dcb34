//! A WAL record: its header, the blocks it refers to, and its main data.

use super::take::Fields;
use crate::pg::PgVersion;
use crate::wal_name::Lsn;
use crate::{Error, ErrorCode, Result};

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 24;
/// The CRC covers the header up to here, after the rest of the record.
const CRC_OFFSET: usize = 20;
/// The maximum size of a record (`XLogRecordMaxSize`, and what palloc allowed before PostgreSQL 16).
const RECORD_BYTES_MAX: u32 = 1 << 30;

/// The bits of `xl_info` that belong to the resource manager.
const INFO_MASK: u8 = 0xF0;

const BLOCK_ID_MAX: u8 = 32;
const ID_MAIN_SHORT: u8 = 255;
const ID_MAIN_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOP_XID: u8 = 252;

const BLOCK_HAS_IMAGE: u8 = 0x10;
const BLOCK_SAME_FILE: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;
/// Bytes of a file's identifier and a block number.
const FILE_BYTES: usize = 12;

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record.
    pub size: u32,
    /// The transaction, or 0.
    pub xid: u32,
    /// The record before.
    pub previous: Lsn,
    /// What the record is, for its resource manager.
    pub info: u8,
    /// The resource manager.
    pub manager: u8,
    crc: u32,
    /// The CRC over what precedes it in the header, without the rest of the record.
    covered: [u8; CRC_OFFSET],
}

impl RecordHeader {
    /// Parses a header. Returns `None` if the size is impossible, e.g. 0 where no record was ever written.
    pub(super) fn parse(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let size = fields.u32()?;
        let xid = fields.u32()?;
        let previous = Lsn(fields.u64()?);
        let (info, manager) = (fields.u8()?, fields.u8()?);
        fields.bytes(2)?;
        let crc = fields.u32()?;
        let covered = *bytes.first_chunk()?;
        let is_possible = (RECORD_HEADER_BYTES as u32..=RECORD_BYTES_MAX).contains(&size);
        is_possible.then_some(RecordHeader { size, xid, previous, info, manager, crc, covered })
    }

    /// Bytes after the header.
    pub fn body_bytes(&self) -> u32 {
        self.size.saturating_sub(RECORD_HEADER_BYTES as u32)
    }

    /// Returns whether the record has this CRC, given the CRC of its body.
    pub(super) fn has_crc(&self, body: u32) -> bool {
        crc32c::crc32c_append(body, &self.covered) == self.crc
    }

    /// The bits of `info` that belong to the resource manager.
    pub fn operation(&self) -> u8 {
        self.info & INFO_MASK
    }
}

/// A complete record whose CRC is right.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where the next one begins, unless a page's header follows.
    pub end: Lsn,
    /// Its header.
    pub header: &'a RecordHeader,
    /// What follows the header.
    pub body: Body<'a>,
}

/// What follows the header of a record.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// The record is one of those that say nothing here, so its body was checked but not kept.
    Unneeded,
    /// The record has more bytes than are kept in memory. Its CRC was checked.
    TooLarge,
}

/// Returns the main data of a record, which follows the data of its blocks.
///
/// # Errors
/// [`ErrorCode::Format`] if the headers of the blocks do not match the size.
pub(super) fn main_data(body: &[u8], version: PgVersion) -> Result<&[u8]> {
    parse_main_data(body, version)
        .ok_or_else(|| Error::new(ErrorCode::Format, "the headers of blocks do not match the record's size"))
}

fn parse_main_data(body: &[u8], version: PgVersion) -> Option<&[u8]> {
    let mut fields = Fields(body);
    let (mut blocks_len, mut main_len) = (0usize, None);
    // Headers end where the rest is as long as the data that they announce
    while fields.0.len() > blocks_len.checked_add(main_len.unwrap_or(0))? {
        match fields.u8()? {
            ID_MAIN_SHORT if main_len.is_none() => main_len = Some(usize::from(fields.u8()?)),
            ID_MAIN_LONG if main_len.is_none() => main_len = Some(usize::try_from(fields.u32()?).ok()?),
            ID_ORIGIN => drop(fields.bytes(2)?),
            ID_TOP_XID => drop(fields.bytes(4)?),
            id if id <= BLOCK_ID_MAX && main_len.is_none() => {
                blocks_len = blocks_len.checked_add(block_data_len(&mut fields, version)?)?;
            }
            _ => return None,
        }
        if main_len.is_some() {
            break;
        }
    }
    let main_len = main_len.unwrap_or(0);
    let is_right = fields.0.len() == blocks_len.checked_add(main_len)?;
    if is_right { fields.0.get(blocks_len..) } else { None }
}

/// Takes the header of a block, and returns the bytes of its data and page image.
fn block_data_len(fields: &mut Fields<'_>, version: PgVersion) -> Option<usize> {
    let flags = fields.u8()?;
    let mut len = usize::from(fields.u16()?);
    if flags & BLOCK_HAS_IMAGE != 0 {
        len = len.checked_add(usize::from(fields.u16()?))?;
        fields.bytes(2)?;
        let image = fields.u8()?;
        let compressed = if version >= PgVersion::V15 { 0x1C } else { 0x02 };
        if image & IMAGE_HAS_HOLE != 0 && image & compressed != 0 {
            fields.bytes(2)?;
        }
    }
    if flags & BLOCK_SAME_FILE == 0 {
        fields.bytes(FILE_BYTES)?;
    }
    fields.bytes(4)?;
    Some(len)
}
