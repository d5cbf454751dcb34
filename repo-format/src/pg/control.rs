//! The control file, `global/pg_control`.
//!
//! Source: pgBackRest `src/postgres/interface.c` and `src/postgres/interface/version.vendor.h`. Their structures yield
//! the offsets below for 64-bit builds.

use super::version::VERSIONS;
use super::{PgVersion, check_wal_segment_size, page, u32_at, u64_at};
use crate::wal_name::{Lsn, TimelineId};
use crate::{Error, ErrorCode, Result};

/// Size of the file in bytes. The bytes after the data are zero.
pub const CONTROL_FILE_SIZE: usize = 8192;

/// Bytes of the file that contain data. PostgreSQL limits them so that they fit into one sector.
pub const CONTROL_DATA_SIZE: usize = 512;

/// The checkpoint that a restore writes to a control file that must not be used. PostgreSQL never uses the first WAL
/// segment, so no LSN in it is valid.
pub const CHECKPOINT_INVALID: Lsn = Lsn(0xDEAD);

const SYSTEM_ID_OFFSET: usize = 0;
const CONTROL_VERSION_OFFSET: usize = 8;
const CATALOG_VERSION_OFFSET: usize = 12;
const CHECKPOINT_OFFSET: usize = 32;

/// The offsets of the fields that differ between versions.
struct Offsets {
    timeline: usize,
    page_size: usize,
    wal_segment_size: usize,
    data_checksum_version: usize,
    /// The CRC covers everything before it.
    crc: usize,
}

fn offsets(version: PgVersion) -> Offsets {
    let (timeline, page_size, wal_segment_size, data_checksum_version, crc) = match version {
        version if version < PgVersion::V10 => (56, 216, 228, 252, 256),
        version if version < PgVersion::V11 => (56, 216, 228, 252, 288),
        version if version < PgVersion::V12 => (48, 208, 220, 244, 280),
        version if version < PgVersion::V18 => (48, 216, 228, 252, 288),
        version if version < PgVersion::V19 => (48, 216, 228, 252, 292),
        _ => (48, 224, 240, 264, 304),
    };
    Offsets { timeline, page_size, wal_segment_size, data_checksum_version, crc }
}

/// The parts of the control file that backup and restore need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgControl {
    /// The version that wrote it.
    pub version: PgVersion,
    /// The cluster's identifier.
    pub system_id: u64,
    /// `pg_control_version`.
    pub control_version: u32,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// The position of the last checkpoint record.
    pub checkpoint: Lsn,
    /// The timeline of the last checkpoint.
    pub timeline: TimelineId,
    /// Size of data pages in bytes.
    pub page_size: u32,
    /// Size of WAL segments in bytes.
    pub wal_segment_size: u32,
    /// Whether pages have checksums; false while checksums are being enabled or disabled.
    pub data_checksums: bool,
}

impl PgControl {
    /// Parses a control file. Bytes after the first [`CONTROL_DATA_SIZE`] are ignored.
    ///
    /// With `force`, the file is read as that version regardless of its version numbers, and its CRC may be anywhere
    /// after that version's offset. Errors: version-not-supported (046), checksum (026) for a wrong CRC, format (029)
    /// for sizes that PostgreSQL does not have and for a file that is too short.
    ///
    /// A file that is being written may be read torn. The caller should read it again before it reports an error.
    pub fn parse(data: &[u8], force: Option<PgVersion>) -> Result<Self> {
        parse(data, force).map(|(control, _)| control)
    }

    /// Returns whether a restore made this file unusable.
    pub fn is_checkpoint_invalid(&self) -> bool {
        self.checkpoint == CHECKPOINT_INVALID
    }
}

/// Makes a control file unusable for PostgreSQL until a recovery is configured: sets [`CHECKPOINT_INVALID`] and updates
/// the CRC. Errors are those of [`PgControl::parse`] and leave the file unchanged.
pub fn invalidate_checkpoint(data: &mut [u8], force: Option<PgVersion>) -> Result<()> {
    let (_, crc_offset) = parse(data, force)?;
    data[CHECKPOINT_OFFSET..CHECKPOINT_OFFSET + 8].copy_from_slice(&CHECKPOINT_INVALID.0.to_le_bytes());
    let crc = crc32c::crc32c(&data[..crc_offset]);
    data[crc_offset..crc_offset + 4].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Returns the control data and the offset of its CRC.
fn parse(data: &[u8], force: Option<PgVersion>) -> Result<(PgControl, usize)> {
    let Some(data) = data.get(..CONTROL_DATA_SIZE) else {
        return Err(Error::new(
            ErrorCode::Format,
            format!("pg_control has {} bytes but at least {CONTROL_DATA_SIZE} are needed", data.len()),
        ));
    };
    let short = || Error::new(ErrorCode::Format, "pg_control is too short");
    let u32_field = |offset| u32_at(data, offset).ok_or_else(short);
    let u64_field = |offset| u64_at(data, offset).ok_or_else(short);
    let control_version = u32_field(CONTROL_VERSION_OFFSET)?;
    let catalog_version = u32_field(CATALOG_VERSION_OFFSET)?;
    let version = match force {
        Some(version) => version.facts()?.version,
        None => detect(control_version, catalog_version)?,
    };
    let offsets = offsets(version);
    let crc_offset = check_crc(data, offsets.crc, force.is_some())?;
    let wal_segment_size = u32_field(offsets.wal_segment_size)?;
    check_wal_segment_size(wal_segment_size)?;
    let page_size = u32_field(offsets.page_size)?;
    page::check_page_size(page_size)?;
    let data_checksum_version = u32_field(offsets.data_checksum_version)?;
    // From 19 on, 2 and 3 mean that checksums are being disabled or enabled, when pages may lack them
    let data_checksum_version_max = if version >= PgVersion::V19 { 3 } else { 1 };
    if data_checksum_version > data_checksum_version_max {
        return Err(Error::new(
            ErrorCode::Format,
            format!("page checksum version is {data_checksum_version} but must be <= {data_checksum_version_max}"),
        ));
    }
    let control = PgControl {
        version,
        system_id: u64_field(SYSTEM_ID_OFFSET)?,
        control_version,
        catalog_version,
        checkpoint: Lsn(u64_field(CHECKPOINT_OFFSET)?),
        timeline: TimelineId(u32_field(offsets.timeline)?),
        page_size,
        wal_segment_size,
        data_checksums: data_checksum_version == 1,
    };
    Ok((control, crc_offset))
}

fn detect(control_version: u32, catalog_version: u32) -> Result<PgVersion> {
    let facts = VERSIONS.iter().find(|facts| {
        let catalog_version_end = facts.catalog_version / 100_000 * 100_000 + 100_000;
        facts.control_version == control_version
            && (facts.catalog_version == catalog_version
                || facts.unreleased && (facts.catalog_version..catalog_version_end).contains(&catalog_version))
    });
    facts.map(|facts| facts.version).ok_or_else(|| {
        Error::new(
            ErrorCode::VersionNotSupported,
            format!("unexpected control version = {control_version} and catalog version = {catalog_version}"),
        )
        .hint("is this version of PostgreSQL supported?")
        .hint("is rbr up to date on all hosts?")
    })
}

/// Finds the CRC: at `offset`, or with `search` at the first offset from there on at which it matches.
fn check_crc(data: &[u8], offset: usize, search: bool) -> Result<usize> {
    let last = if search { data.len() - 4 } else { offset };
    let mut calculated = crc32c::crc32c(&data[..offset]);
    let mut place = offset;
    loop {
        let expected = u32_at(data, place).unwrap_or(0);
        if calculated == expected {
            return Ok(place);
        }
        if place + 4 > last {
            let error = Error::new(ErrorCode::Checksum, "calculated pg_control checksum does not match expected value")
                .hint(format!("calculated 0x{calculated:x} but expected value is 0x{expected:x}"));
            let error =
                if search { error.hint("checksum values may be misleading due to forced version scan") } else { error };
            return Err(error
                .hint("is pg_control corrupt?")
                .hint("does pg_control have a different layout than expected?"));
        }
        calculated = crc32c::crc32c_append(calculated, &data[place..place + 4]);
        place += 4;
    }
}

#[cfg(test)]
mod tests;
