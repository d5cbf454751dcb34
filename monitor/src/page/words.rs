//! Times, sizes and numbers as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The time of the page, and its zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock<'a> {
    /// Seconds since 1970.
    pub(super) now: i64,
    pub(super) zone: &'a TimeZone,
}

impl Clock<'_> {
    /// A time with its date.
    pub(super) fn absolute(&self, time: i64) -> String {
        let time = Timestamp::from_second(time).unwrap_or_default();
        time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
    }

    /// A time without what is seldom needed.
    pub(super) fn short(&self, time: i64) -> String {
        let time = Timestamp::from_second(time).unwrap_or_default();
        time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }

    /// How long ago or how soon a time is.
    pub(super) fn relative(&self, time: i64) -> String {
        let difference = self.now.saturating_sub(time);
        let text = duration(difference.unsigned_abs());
        if difference >= 0 { format!("{text} ago") } else { format!("in {text}") }
    }

    /// A time, and how long ago or how soon it is.
    pub(super) fn both(&self, time: i64) -> String {
        format!("{} ({})", self.short(time), self.relative(time))
    }
}

/// The seconds of a time in the daemon's JSON.
pub(super) fn parse(time: &str) -> Option<i64> {
    Some(time.parse::<Timestamp>().ok()?.as_second())
}

/// A duration in its two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A duration that may be short.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 0.001 {
        return "<1 ms".to_owned();
    }
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is at least 10")]
    duration(seconds as u64)
}

/// A size with a unit.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = crate::compat::number(bytes) / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number of things.
pub(super) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_the_largest_unit_that_fits() {
        for (size, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_950, "1.0 MB"), (u64::MAX, "18.4 EB")] {
            assert_eq!(bytes(size), text);
        }
        for (time, text) in [(59, "59 s"), (60, "1 min"), (3_660, "1 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(duration(time), text);
        }
        assert_eq!((seconds(0.0123), seconds(1.25), seconds(75.0)), ("12 ms".into(), "1.2 s".into(), "1 min".into()));
    }

    #[test]
    fn times_are_in_the_zone_and_relative_to_the_page() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let clock = Clock { now: 7200, zone: &zone };
        assert_eq!(clock.both(0), "1970-01-01 01:00 (2 h 0 min ago)");
        assert_eq!(clock.relative(7230), "in 30 s");
        assert_eq!(clock.short(i64::MAX), "1970-01-01 01:00");
    }
}
