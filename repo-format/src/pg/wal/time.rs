//! PostgreSQL's timestamps.

/// Microseconds from the epoch of Unix to that of PostgreSQL, 2000-01-01 00:00:00 UTC.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A time in WAL, as `TimestampTz`: microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTime(pub i64);

impl PgTime {
    /// Returns the microseconds since the epoch of Unix. Times at the end of the range, which PostgreSQL uses for
    /// infinity, become the last representable ones.
    pub fn unix_micros(self) -> i64 {
        self.0.saturating_add(POSTGRES_EPOCH_MICROS)
    }

    /// The time of so many microseconds since the epoch of Unix.
    pub fn from_unix_micros(micros: i64) -> Self {
        PgTime(micros.saturating_sub(POSTGRES_EPOCH_MICROS))
    }
}
