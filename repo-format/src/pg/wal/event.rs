//! What records say about points to recover to.

use super::record::{Body, Record, RecordHeader, main_data};
use super::take::Fields;
use super::time::PgTime;
pub use super::xact::RelFile;
use super::xact::Xact;
use crate::pg::PgVersion;
use crate::wal_name::{Lsn, TimelineId};
use crate::{Error, ErrorCode, Result};

/// Resource managers, which have the same numbers in PostgreSQL 13 to 18 (`access/rmgrlist.h`).
mod manager {
    pub(super) const XLOG: u8 = 0;
    pub(super) const XACT: u8 = 1;
    pub(super) const STORAGE: u8 = 2;
    pub(super) const DATABASE: u8 = 4;
    pub(super) const HEAP: u8 = 10;
}

const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
const XLOG_CHECKPOINT_ONLINE: u8 = 0x10;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_RESTORE_POINT: u8 = 0x70;
const XLOG_END_OF_RECOVERY: u8 = 0x90;
/// The other bit tells whether flags follow.
const XACT_MASK: u8 = 0x70;
const XACT_COMMIT: u8 = 0x00;
const XACT_ABORT: u8 = 0x20;
const XACT_COMMIT_PREPARED: u8 = 0x30;
const XACT_ABORT_PREPARED: u8 = 0x40;
const STORAGE_CREATE: u8 = 0x10;
const STORAGE_TRUNCATE: u8 = 0x20;
/// The fork that contains the data of a relation.
const MAIN_FORK: u32 = 0;
/// The other bit tells whether a page is initialized.
const HEAP_MASK: u8 = 0x70;
const HEAP_TRUNCATE: u8 = 0x30;
/// Bytes of a restore point's name, with the zero byte (`MAXFNAMELEN`).
const NAME_BYTES: usize = 64;
/// Where the time of a checkpoint is.
const CHECKPOINT_TIME_OFFSET: usize = 64;

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub enum WalEvent<'a> {
    /// A transaction was committed.
    Commit(Xact<'a>),
    /// A transaction was rolled back.
    Abort(Xact<'a>),
    /// A named restore point was created.
    RestorePoint {
        /// When.
        time: PgTime,
        /// Its name, in the server's encoding.
        name: &'a [u8],
    },
    /// The server was promoted, or stopped recovering at a target, and began a timeline.
    EndOfRecovery {
        /// When.
        time: PgTime,
        /// The timeline.
        timeline: TimelineId,
        /// The timeline before.
        previous: TimelineId,
    },
    /// A checkpoint.
    Checkpoint {
        /// Where a recovery that begins with this checkpoint starts.
        redo: Lsn,
        /// The timeline.
        timeline: TimelineId,
        /// The timeline before, if this checkpoint begins one; otherwise the same.
        previous: TimelineId,
        /// When it began, in seconds since the epoch of Unix.
        seconds: i64,
    },
    /// The rest of the segment is unused.
    Switch,
    /// A transaction created the file of a new relation, or a new file for one that it truncates or rewrites.
    FileCreated {
        /// The transaction.
        xid: u32,
        /// The file.
        file: RelFile,
    },
    /// A relation's file became shorter: a vacuum removed empty pages at its end, or a transaction truncated a relation
    /// that it had created.
    FileShortened {
        /// The file.
        file: RelFile,
        /// Its new length in blocks.
        blocks: u32,
    },
    /// `TRUNCATE` of tables, recorded if `wal_level` is `logical`.
    Truncate {
        /// The transaction.
        xid: u32,
        /// The oid of the database.
        database: u32,
        /// The oids of the tables.
        tables: Oids<'a>,
    },
    /// A database was dropped.
    DatabaseDropped {
        /// Its oid.
        database: u32,
    },
}

/// A list of oids.
#[derive(Clone, Copy, Debug)]
pub struct Oids<'a>(&'a [u8]);

impl<'a> Oids<'a> {
    /// The oids.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.0.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

impl RecordHeader {
    /// Returns whether the record may be a [`WalEvent`], so that its body is needed.
    pub fn is_event(&self) -> bool {
        match self.manager {
            manager::XACT => {
                matches!(self.info & XACT_MASK, XACT_COMMIT | XACT_ABORT | XACT_COMMIT_PREPARED | XACT_ABORT_PREPARED)
            }
            manager::XLOG => matches!(
                self.operation(),
                XLOG_CHECKPOINT_SHUTDOWN
                    | XLOG_CHECKPOINT_ONLINE
                    | XLOG_SWITCH
                    | XLOG_RESTORE_POINT
                    | XLOG_END_OF_RECOVERY
            ),
            manager::STORAGE | manager::DATABASE => true,
            manager::HEAP => self.info & HEAP_MASK == HEAP_TRUNCATE,
            _ => false,
        }
    }

    /// Returns whether the rest of the segment is unused after this record.
    pub fn is_switch(&self) -> bool {
        self.manager == manager::XLOG && self.operation() == XLOG_SWITCH
    }
}

impl<'a> WalEvent<'a> {
    /// Decodes a record of this version. Returns `None` for records that are no event.
    ///
    /// # Errors
    /// [`ErrorCode::Format`], with the position, for a record that is too short for what it announces, and for one that
    /// has more bytes than are kept.
    pub fn decode(record: &Record<'a>, version: PgVersion) -> Result<Option<Self>> {
        let body = match record.body {
            Body::Unneeded => return Ok(None),
            Body::Whole(body) => body,
            Body::TooLarge => {
                let text =
                    format!("WAL record at {} has {} bytes, too many to read it", record.lsn, record.header.size);
                return Err(Error::new(ErrorCode::Format, text));
            }
        };
        if !record.header.is_event() {
            return Ok(None);
        }
        let at = |what: &str| Error::new(ErrorCode::Format, format!("WAL record at {} is damaged: {what}", record.lsn));
        let data = main_data(body, version).map_err(|error| at(&error.message))?;
        decode(record.header, data, version).ok_or_else(|| at("it is too short"))
    }
}

/// Returns `None` if the data is too short, `Some(None)` for a record that is no event.
#[expect(clippy::option_option, reason = "the inner one is the result, the outer one the error")]
fn decode<'a>(header: &RecordHeader, data: &'a [u8], version: PgVersion) -> Option<Option<WalEvent<'a>>> {
    let mut fields = Fields(data);
    let event = match header.manager {
        manager::XLOG => decode_xlog(header.operation(), data)?,
        manager::XACT => {
            let xact = || Xact::parse(data, header.xid, header.info, version);
            match header.info & XACT_MASK {
                XACT_COMMIT | XACT_COMMIT_PREPARED => WalEvent::Commit(xact()?),
                XACT_ABORT | XACT_ABORT_PREPARED => WalEvent::Abort(xact()?),
                _ => return Some(None),
            }
        }
        manager::STORAGE => match header.operation() {
            STORAGE_CREATE => {
                let file = RelFile::take(&mut fields)?;
                if fields.u32()? != MAIN_FORK {
                    return Some(None);
                }
                WalEvent::FileCreated { xid: header.xid, file }
            }
            STORAGE_TRUNCATE => {
                let blocks = fields.u32()?;
                WalEvent::FileShortened { file: RelFile::take(&mut fields)?, blocks }
            }
            _ => return Some(None),
        },
        manager::DATABASE if header.operation() == database_drop(version) => {
            WalEvent::DatabaseDropped { database: fields.u32()? }
        }
        manager::HEAP => {
            let database = fields.u32()?;
            let count = usize::try_from(fields.u32()?).ok()?;
            fields.bytes(4)?;
            let tables = Oids(fields.bytes(count.checked_mul(4)?)?);
            WalEvent::Truncate { xid: header.xid, database, tables }
        }
        _ => return Some(None),
    };
    Some(Some(event))
}

fn decode_xlog(operation: u8, data: &[u8]) -> Option<WalEvent<'_>> {
    let mut fields = Fields(data);
    Some(match operation {
        XLOG_SWITCH => WalEvent::Switch,
        XLOG_RESTORE_POINT => {
            let time = PgTime(fields.i64()?);
            let name = fields.bytes(NAME_BYTES)?;
            WalEvent::RestorePoint { time, name: name.split(|&byte| byte == 0).next().unwrap_or_default() }
        }
        XLOG_END_OF_RECOVERY => WalEvent::EndOfRecovery {
            time: PgTime(fields.i64()?),
            timeline: TimelineId(fields.u32()?),
            previous: TimelineId(fields.u32()?),
        },
        _ => {
            let (redo, timeline, previous) = (fields.u64()?, fields.u32()?, fields.u32()?);
            let seconds = Fields(data.get(CHECKPOINT_TIME_OFFSET..)?).i64()?;
            WalEvent::Checkpoint {
                redo: Lsn(redo),
                timeline: TimelineId(timeline),
                previous: TimelineId(previous),
                seconds,
            }
        }
    })
}

/// PostgreSQL 15 has two records for the creation of a database.
fn database_drop(version: PgVersion) -> u8 {
    if version >= PgVersion::V15 { 0x20 } else { 0x10 }
}
