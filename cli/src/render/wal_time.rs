//! Times in WAL and of backups, in a form that `--target` of a restore accepts.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use repo_format::pg::wal::PgTime;

/// Seconds since the epoch as `YYYY-MM-DD HH:MM:SS+HH:MM`.
pub(super) fn seconds(seconds: i64, zone: &TimeZone) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string(),
        Err(_) => seconds.to_string(),
    }
}

/// A time in WAL as `YYYY-MM-DD HH:MM:SS.ffffff+HH:MM`.
pub(super) fn micros(time: PgTime, zone: &TimeZone) -> String {
    match Timestamp::from_microsecond(time.unix_micros()) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.6f%:z").to_string(),
        Err(_) => time.unix_micros().to_string(),
    }
}
