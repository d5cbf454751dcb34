//! PostgreSQL versions and their differences.
//!
//! Sources: pgBackRest `src/postgres/interface.c` and `src/postgres/interface/version.vendor.h`, and PostgreSQL's
//! release notes.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorCode, Result};

/// A major version of PostgreSQL, e.g. 9.6 or 15.
///
/// Any version can be represented, because the history of an old stanza may contain versions that are no longer
/// supported. [`PgVersion::is_supported`] returns whether clusters of a version can be backed up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgVersion(u32);

/// What identifies the files of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VersionFacts {
    pub(crate) version: PgVersion,
    /// `pg_control_version` of the control file.
    pub(crate) control_version: u32,
    /// `catalog_version_no` of the control file.
    pub(crate) catalog_version: u32,
    /// Magic of WAL pages.
    pub(crate) wal_magic: u16,
    /// Not released yet: every catalog version from the known one to the end of its year belongs to it.
    pub(crate) unreleased: bool,
}

const fn facts(version: PgVersion, control_version: u32, catalog_version: u32, wal_magic: u16) -> VersionFacts {
    VersionFacts { version, control_version, catalog_version, wal_magic, unreleased: false }
}

/// Every supported version, oldest first.
pub(crate) const VERSIONS: &[VersionFacts] = &[
    facts(PgVersion::V9_6, 960, 201_608_131, 0xD093),
    facts(PgVersion::V10, 1002, 201_707_211, 0xD097),
    facts(PgVersion::V11, 1100, 201_809_051, 0xD098),
    facts(PgVersion::V12, 1201, 201_909_212, 0xD101),
    facts(PgVersion::V13, 1300, 202_007_201, 0xD106),
    facts(PgVersion::V14, 1300, 202_107_181, 0xD10D),
    facts(PgVersion::V15, 1300, 202_209_061, 0xD110),
    facts(PgVersion::V16, 1300, 202_307_071, 0xD113),
    facts(PgVersion::V17, 1700, 202_406_281, 0xD116),
    facts(PgVersion::V18, 1800, 202_506_291, 0xD118),
    VersionFacts { unreleased: true, ..facts(PgVersion::V19, 1902, 202_605_131, 0xD121) },
];

/// How a cluster is configured for recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryFile {
    /// `recovery.conf`, up to PostgreSQL 11.
    RecoveryConf,
    /// Settings in `postgresql.auto.conf` and the files `recovery.signal` and `standby.signal`, from PostgreSQL 12.
    AutoConf,
}

#[expect(missing_docs, reason = "a version constant says all by its name")]
impl PgVersion {
    pub const V9_6: PgVersion = PgVersion(90_600);
    pub const V10: PgVersion = PgVersion(100_000);
    pub const V11: PgVersion = PgVersion(110_000);
    pub const V12: PgVersion = PgVersion(120_000);
    pub const V13: PgVersion = PgVersion(130_000);
    pub const V14: PgVersion = PgVersion(140_000);
    pub const V15: PgVersion = PgVersion(150_000);
    pub const V16: PgVersion = PgVersion(160_000);
    pub const V17: PgVersion = PgVersion(170_000);
    pub const V18: PgVersion = PgVersion(180_000);
    pub const V19: PgVersion = PgVersion(190_000);
}

impl PgVersion {
    /// Returns the major version of a server's `server_version_num`, e.g. 15 for 150004 and 9.6 for 90624.
    pub fn from_server_version_num(number: u32) -> Self {
        if number >= 100_000 { PgVersion(number / 10_000 * 10_000) } else { PgVersion(number / 100 * 100) }
    }

    /// Returns the number in the form of `server_version_num`, without the minor version, e.g. 150000 and 90600.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Every supported version, oldest first.
    pub fn supported() -> impl DoubleEndedIterator<Item = PgVersion> + ExactSizeIterator {
        VERSIONS.iter().map(|facts| facts.version)
    }

    /// Returns whether clusters of this version can be backed up and restored.
    pub fn is_supported(self) -> bool {
        self.facts().is_ok()
    }

    /// Returns a version-not-supported error (046) if clusters of this version can't be backed up.
    pub(crate) fn facts(self) -> Result<&'static VersionFacts> {
        VERSIONS.iter().find(|facts| facts.version == self).ok_or_else(|| {
            Error::new(ErrorCode::VersionNotSupported, format!("invalid PostgreSQL version {self}"))
                .hint("is this version of PostgreSQL supported?")
                .hint("is rbr up to date on all hosts?")
        })
    }

    /// Returns the `pg_control_version` of this version's control file, which backup.info records, or a
    /// version-not-supported error (046) if the version is unknown.
    pub fn control_version(self) -> Result<u32> {
        Ok(self.facts()?.control_version)
    }

    /// Returns the catalog version of this version's release, or a version-not-supported error (046) if the version is
    /// unknown.
    pub fn catalog_version(self) -> Result<u32> {
        Ok(self.facts()?.catalog_version)
    }

    /// Returns `wal`, or `xlog` before version 10: a part of the names of functions and tools.
    pub fn wal_name(self) -> &'static str {
        if self >= PgVersion::V10 { "wal" } else { "xlog" }
    }

    /// Returns `lsn`, or `location` before version 10: a part of the names of functions.
    pub fn lsn_name(self) -> &'static str {
        if self >= PgVersion::V10 { "lsn" } else { "location" }
    }

    /// The directory of the WAL in PGDATA.
    pub fn wal_dir(self) -> &'static str {
        if self >= PgVersion::V10 { "pg_wal" } else { "pg_xlog" }
    }

    /// The directory of the transaction status in PGDATA.
    pub fn xact_dir(self) -> &'static str {
        if self >= PgVersion::V10 { "pg_xact" } else { "pg_clog" }
    }

    /// Returns the directory of this version inside a tablespace, e.g. `PG_15_202209061`. `catalog_version` is the
    /// cluster's own.
    pub fn tablespace_dir(self, catalog_version: u32) -> String {
        format!("PG_{self}_{catalog_version}")
    }

    /// Returns where recovery settings are written.
    pub fn recovery_file(self) -> RecoveryFile {
        if self >= PgVersion::V12 { RecoveryFile::AutoConf } else { RecoveryFile::RecoveryConf }
    }

    /// Returns the name of the function that converts an LSN to a WAL file name, without its schema.
    pub fn wal_file_name_function(self) -> &'static str {
        if self >= PgVersion::V10 { "pg_walfile_name" } else { "pg_xlogfile_name" }
    }

    /// Returns the name of the function that returns the insert position of the next WAL record, without its schema.
    pub fn current_wal_insert_lsn_function(self) -> &'static str {
        if self >= PgVersion::V10 { "pg_current_wal_insert_lsn" } else { "pg_current_xlog_insert_location" }
    }

    /// Returns the name of the function that ends the current WAL segment, without its schema.
    pub fn switch_wal_function(self) -> &'static str {
        if self >= PgVersion::V10 { "pg_switch_wal" } else { "pg_switch_xlog" }
    }

    /// Returns the name of the function that returns the last LSN replayed on a standby, without its schema.
    pub fn last_wal_replay_lsn_function(self) -> &'static str {
        if self >= PgVersion::V10 { "pg_last_wal_replay_lsn" } else { "pg_last_xlog_replay_location" }
    }
}

impl fmt::Display for PgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = (self.0 / 10_000, self.0 % 10_000 / 100);
        if *self >= PgVersion::V10 { f.pad(&major.to_string()) } else { f.pad(&format!("{major}.{minor}")) }
    }
}

impl fmt::Debug for PgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgVersion({self})")
    }
}

impl FromStr for PgVersion {
    type Err = Error;

    /// Parses `9.6` or `15`. Like pgBackRest, returns an assert error (025) for another form.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| Error::new(ErrorCode::Assert, format!("version {text} format is invalid")))
    }
}

fn parse(text: &str) -> Option<PgVersion> {
    let number = |digits: &str| -> Option<u32> {
        // Every version has at most two digits per part; the limit also keeps the sum below in range
        (matches!(digits.len(), 1 | 2) && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok())?
    };
    match text.split_once('.') {
        None if text.len() == 2 && !text.starts_with('0') => Some(PgVersion(number(text)? * 10_000)),
        None => None,
        // Only versions before 10 have two parts: `10.1` is a minor release of 10, and no directory or file names it
        Some((major, minor)) if major.len() == 1 => Some(PgVersion(number(major)? * 10_000 + number(minor)? * 100)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_text_round_trips() {
        for version in PgVersion::supported() {
            assert_eq!(version.to_string().parse::<PgVersion>().unwrap(), version);
        }
        assert_eq!(PgVersion::V9_6.to_string(), "9.6");
        assert_eq!(PgVersion::V15.to_string(), "15");
        assert_eq!("9.4".parse::<PgVersion>().unwrap().to_string(), "9.4");
    }

    #[test]
    fn version_in_another_form_is_refused() {
        for bad in ["", "9", "09", "10.1", "99.4", "9.", ".6", "15x", "-1", "9.6.1", "150000", "+9.6"] {
            assert_eq!(bad.parse::<PgVersion>().unwrap_err().code, ErrorCode::Assert, "{bad}");
        }
    }

    #[test]
    fn version_from_server_number_drops_the_minor_version() {
        assert_eq!(PgVersion::from_server_version_num(90_624), PgVersion::V9_6);
        assert_eq!(PgVersion::from_server_version_num(150_004), PgVersion::V15);
    }

    #[test]
    fn version_order_puts_9_6_before_10() {
        assert!(PgVersion::V9_6 < PgVersion::V10);
        assert!(PgVersion::supported().is_sorted());
    }

    #[test]
    fn version_that_is_not_supported_gives_046() {
        let old: PgVersion = "9.5".parse().unwrap();
        assert!(!old.is_supported());
        assert_eq!(old.control_version().unwrap_err().code, ErrorCode::VersionNotSupported);
        assert_eq!(PgVersion::V19.control_version().unwrap(), 1902);
    }

    #[test]
    fn names_changed_with_10_and_12() {
        assert_eq!((PgVersion::V9_6.wal_dir(), PgVersion::V10.wal_dir()), ("pg_xlog", "pg_wal"));
        assert_eq!((PgVersion::V9_6.xact_dir(), PgVersion::V10.xact_dir()), ("pg_clog", "pg_xact"));
        assert_eq!(PgVersion::V11.recovery_file(), RecoveryFile::RecoveryConf);
        assert_eq!(PgVersion::V12.recovery_file(), RecoveryFile::AutoConf);
        assert_eq!(PgVersion::V9_6.tablespace_dir(201_608_131), "PG_9.6_201608131");
    }
}
