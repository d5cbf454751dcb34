//! The ends of transactions: commit and abort records.

use super::take::Fields;
use super::time::PgTime;
use crate::pg::PgVersion;
use crate::wal_name::Lsn;

/// Whether `xinfo` follows the time.
const HAS_INFO: u8 = 0x80;

const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_FILES: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_ORIGIN: u32 = 1 << 5;
const HAS_GID: u32 = 1 << 7;
/// From PostgreSQL 15 on.
const HAS_DROPPED_STATS: u32 = 1 << 8;

const XID_BYTES: usize = 4;
/// Bytes of a file's identifier.
const FILE_BYTES: usize = 12;
const INVALIDATION_BYTES: usize = 16;
/// What an invalidation message of the relation cache begins with.
const INVALIDATES_RELATION: i8 = -2;
/// The kind of the statistics of relations.
const STATS_OF_RELATION: u32 = 2;

/// The file of a relation: the first file of its main fork is `base/<database>/<number>`, or in a tablespace
/// `pg_tblspc/<tablespace>/<version>/<database>/<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFile {
    /// The oid of the tablespace. 1663 is `pg_default`, 1664 is `pg_global`.
    pub tablespace: u32,
    /// The oid of the database; 0 for what all databases share.
    pub database: u32,
    /// The file's number, `pg_class.relfilenode`. It is the relation's oid only until the relation is first rewritten.
    pub number: u32,
}

impl RelFile {
    pub(super) fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(RelFile { tablespace: fields.u32()?, database: fields.u32()?, number: fields.u32()? })
    }
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Xact<'a> {
    /// When it ended.
    pub time: PgTime,
    /// The transaction, which for a prepared one is not that of the record; 0 if it had no number.
    pub xid: u32,
    /// The oid of its database, if the record says so.
    pub database: Option<u32>,
    /// The name of a prepared transaction, if the record has it.
    pub gid: Option<&'a [u8]>,
    /// Where it was replicated from: the position and the time there.
    pub origin: Option<(Lsn, PgTime)>,
    version: PgVersion,
    subtransactions: &'a [u8],
    files: &'a [u8],
    stats: &'a [u8],
    invalidations: &'a [u8],
}

impl<'a> Xact<'a> {
    /// Parses the main data of the record of a transaction. Returns `None` if it is too short for what it announces.
    pub(super) fn parse(data: &'a [u8], xid: u32, info: u8, version: PgVersion) -> Option<Self> {
        let mut fields = Fields(data);
        let time = PgTime(fields.i64()?);
        let flags = if info & HAS_INFO != 0 { fields.u32()? } else { 0 };
        let has = |flag: u32| flags & flag != 0;
        let mut xact = Xact {
            time,
            xid,
            database: None,
            gid: None,
            origin: None,
            version,
            subtransactions: &[],
            files: &[],
            stats: &[],
            invalidations: &[],
        };
        if has(HAS_DATABASE) {
            xact.database = Some(fields.u32()?);
            fields.u32()?;
        }
        if has(HAS_SUBTRANSACTIONS) {
            xact.subtransactions = fields.counted(XID_BYTES)?;
        }
        if has(HAS_FILES) {
            xact.files = fields.counted(FILE_BYTES)?;
        }
        if has(HAS_DROPPED_STATS) && version >= PgVersion::V15 {
            xact.stats = fields.counted(stats_bytes(version))?;
        }
        if has(HAS_INVALIDATIONS) {
            xact.invalidations = fields.counted(INVALIDATION_BYTES)?;
        }
        if has(HAS_TWO_PHASE) {
            xact.xid = fields.u32()?;
            if has(HAS_GID) {
                xact.gid = Some(fields.text()?);
            }
        }
        if has(HAS_ORIGIN) {
            xact.origin = Some((Lsn(fields.u64()?), PgTime(fields.i64()?)));
        }
        Some(xact)
    }

    /// The numbers of its subtransactions.
    pub fn subtransactions(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.subtransactions.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The files that were removed at its end: after a commit those of relations that were dropped, truncated or
    /// rewritten.
    pub fn removed_files(&self) -> impl ExactSizeIterator<Item = RelFile> + use<'a> {
        let (files, _) = self.files.as_chunks::<FILE_BYTES>();
        files.iter().map(|file| RelFile { tablespace: word(file, 0), database: word(file, 1), number: word(file, 2) })
    }

    /// The oids of the relations that were dropped (tables, indexes and others). PostgreSQL records them from version
    /// 15 on; `None` for older ones.
    pub fn dropped_relations(&self) -> Option<impl Iterator<Item = u32> + use<'a>> {
        let items = self.stats.chunks_exact(stats_bytes(self.version));
        let of_relations = items.filter(|item| word(item, 0) == STATS_OF_RELATION).map(|item| word(item, 2));
        (self.version >= PgVersion::V15).then_some(of_relations)
    }

    /// The oids of the relations whose definition changed.
    pub fn changed_relations(&self) -> impl Iterator<Item = u32> + use<'a> {
        let messages = self.invalidations.chunks_exact(INVALIDATION_BYTES);
        let of_relations = messages.filter(|message| message.first() == Some(&INVALIDATES_RELATION.cast_unsigned()));
        // 0 stands for all relations
        of_relations.map(|message| word(message, 2)).filter(|&oid| oid != 0)
    }
}

/// Bytes of an item of dropped statistics. Its object has 64 bits from PostgreSQL 18 on, of which the oid is the low
/// half.
fn stats_bytes(version: PgVersion) -> usize {
    if version >= PgVersion::V18 { 16 } else { 12 }
}

/// Returns the 32-bit number at this index.
fn word(item: &[u8], index: usize) -> u32 {
    crate::pg::u32_at(item, index * 4).unwrap_or(0)
}
