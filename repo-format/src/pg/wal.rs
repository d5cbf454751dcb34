//! Records of the write-ahead log, as far as one needs them to find a point to recover to: commits with their times,
//! named restore points, timelines, and what removes data. PostgreSQL 13 to 18.
//!
//! Nothing here trusts the WAL: lengths are checked before they are used, a record takes memory only as its bytes
//! arrive, and what does not match is an error with the position.
//!
//! Sources: PostgreSQL `access/xlog_internal.h`, `access/xlogrecord.h`, `access/xlogreader.c`, `access/xact.h`,
//! `catalog/pg_control.h`, `catalog/storage_xlog.h`, `access/heapam_xlog.h`, `commands/dbcommands_xlog.h` of these
//! versions. The tests compare with `pg_waldump` of the servers that wrote the fixtures.

pub mod event;
pub mod page;
pub mod record;
pub mod stream;
mod take;
pub mod time;
pub mod xact;

pub use event::{RelFile, WalEvent};
pub use page::PageHeader;
pub use record::Record;
pub use stream::{RecordStream, StreamStart};
pub use time::PgTime;
pub use xact::Xact;

use super::PgVersion;
use crate::{Error, ErrorCode, Result};

/// The oldest and the newest version whose records are known.
const VERSIONS: std::ops::RangeInclusive<PgVersion> = PgVersion::V13..=PgVersion::V18;

/// Checks that the records of a version can be read.
///
/// # Errors
/// [`ErrorCode::VersionNotSupported`] otherwise.
pub fn check_version(version: PgVersion) -> Result<()> {
    if VERSIONS.contains(&version) {
        return Ok(());
    }
    let (oldest, newest) = (VERSIONS.start(), VERSIONS.end());
    let text = format!("WAL records of PostgreSQL {version} can't be read, only those of {oldest} to {newest}");
    Err(Error::new(ErrorCode::VersionNotSupported, text))
}

#[cfg(test)]
mod tests;
