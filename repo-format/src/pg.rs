//! PostgreSQL's on-disk structures, as far as backup and restore need them.
//!
//! All numbers are little-endian, as on every platform that PostgreSQL is commonly built for and pgBackRest is tested
//! on.

pub mod control;
pub mod history;
pub mod page;
pub mod version;
pub mod wal;
pub mod wal_page;

pub use control::PgControl;
pub use history::TimelineHistory;
pub use version::{PgVersion, RecoveryFile};
pub use wal_page::WalHeader;

use crate::{Error, ErrorCode, Result};

/// The smallest and the largest size of a WAL segment in bytes. Sizes are powers of two.
const WAL_SEGMENT_SIZE_RANGE: std::ops::RangeInclusive<u32> = 1024 * 1024..=1024 * 1024 * 1024;

fn check_wal_segment_size(size: u32) -> Result<()> {
    if size.is_power_of_two() && WAL_SEGMENT_SIZE_RANGE.contains(&size) {
        return Ok(());
    }
    let (min, max) = (WAL_SEGMENT_SIZE_RANGE.start(), WAL_SEGMENT_SIZE_RANGE.end());
    Err(Error::new(
        ErrorCode::Format,
        format!("wal segment size is {size} but must be a power of two between {min} and {max} inclusive"),
    ))
}

fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    data.get(offset..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    data.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(data: &[u8], offset: usize) -> Option<u64> {
    data.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
