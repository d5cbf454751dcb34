//! Finds the times of an expression.
//!
//! Between two changes of the clock, local times and instants have a fixed distance. So the search goes from change to
//! change and looks for local times in between.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::Cron;

/// How far to search. 29 February is missing for at most eight years, and falls on each day of the week at least once
/// in 40 years.
const YEARS_MAX: i16 = 45;
/// A change of more than this is none between summer and winter.
const CHANGE_MAX: SignedDuration = SignedDuration::from_hours(3);
/// Spans in seconds in which the last time is looked for, the shortest first.
const SPANS: [i64; 6] = [60, 3600, 86_400, 32 * 86_400, 366 * 86_400, 45 * 366 * 86_400];

/// Without changes of the clock, starting with the local time `from`.
struct Stretch {
    /// What to subtract from local times to get instants.
    offset: SignedDuration,
    /// Where to begin, as local time.
    from: DateTime,
    /// Local times that this stretch skips, if its beginning skips any.
    skipped: Option<(DateTime, DateTime)>,
}

/// Returns the first time after this one.
pub(super) fn next(cron: &Cron, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut begin = Timestamp::from_second(after.as_second()).ok()?.checked_add(1.second()).ok()?;
    if after.as_second() < 0 && after.subsec_nanosecond() != 0 {
        // Seconds before 1970 are cut towards zero
        begin = begin.checked_sub(1.second()).ok()?;
    }
    let year_max = zone.to_datetime(begin).year().checked_add(YEARS_MAX)?;
    loop {
        let stretch = stretch(cron, begin, zone)?;
        if let Some((from, to)) = stretch.skipped
            && search(cron, from, to).is_some()
        {
            return Some(begin);
        }
        let change = zone.following(begin).next().map(|change| change.timestamp());
        let end = match change {
            Some(change) => local(change, stretch.offset)?,
            None => DateTime::new(year_max, 1, 1, 0, 0, 0, 0).ok()?,
        };
        if let Some(found) = search(cron, stretch.from, end) {
            return instant(found, stretch.offset);
        }
        begin = change?;
        if zone.to_datetime(begin).year() > year_max {
            return None;
        }
    }
}

/// Returns the stretch that begins at this instant, or contains it.
fn stretch(cron: &Cron, begin: Timestamp, zone: &TimeZone) -> Option<Stretch> {
    let offset = SignedDuration::from_secs(i64::from(zone.to_offset(begin).seconds()));
    let from = local(begin, offset)?;
    let plain = Stretch { offset, from, skipped: None };
    if cron.is_open() {
        return Some(plain);
    }
    // The change at `begin` or before it
    let after_begin = begin.checked_add(1.nanosecond()).ok()?;
    let Some(change) = zone.preceding(after_begin).next().map(|change| change.timestamp()) else { return Some(plain) };
    let before = zone.to_offset(change.checked_sub(1.nanosecond()).ok()?);
    let before = SignedDuration::from_secs(i64::from(before.seconds()));
    if (offset - before).abs() > CHANGE_MAX {
        return Some(plain);
    }
    let reached = local(change, before)?;
    if change == begin && reached < from {
        return Some(Stretch { skipped: Some((reached, from)), ..plain });
    }
    // Until the clock is where it was at the change, times have been before
    Some(Stretch { from: from.max(reached), ..plain })
}

fn local(instant: Timestamp, offset: SignedDuration) -> Option<DateTime> {
    let utc = TimeZone::UTC.to_datetime(instant);
    utc.checked_add(offset).ok()
}

fn instant(local: DateTime, offset: SignedDuration) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(local.checked_sub(offset).ok()?).ok()
}

/// Returns the first local time in `from..end`.
fn search(cron: &Cron, from: DateTime, end: DateTime) -> Option<DateTime> {
    let mut date = from.date();
    let mut earliest = from.time();
    while date <= end.date() {
        if !cron.month.has(date.month()) {
            date = first_of_next_month(date)?;
        } else if let Some(time) = cron.has_day(date).then(|| first_time(cron, earliest)).flatten() {
            let found = date.to_datetime(time);
            return (found < end).then_some(found);
        } else {
            date = date.tomorrow().ok()?;
        }
        earliest = Time::midnight();
    }
    None
}

fn first_of_next_month(date: Date) -> Option<Date> {
    date.last_of_month().tomorrow().ok()
}

/// Returns the first time of a day that is not before this one.
fn first_time(cron: &Cron, earliest: Time) -> Option<Time> {
    let (hour, minute, second) = (earliest.hour(), earliest.minute(), earliest.second());
    let second = if earliest.subsec_nanosecond() == 0 { second } else { second + 1 };
    let time = |hour, minute, second| Time::new(hour, minute, second, 0).ok();
    if cron.hour.has(hour) {
        if cron.minute.has(minute)
            && let Some(second) = cron.second.at_or_above(second)
        {
            return time(hour, minute, second);
        }
        if let Some(minute) = cron.minute.at_or_above(minute + 1) {
            return time(hour, minute, cron.second.at_or_above(0)?);
        }
    }
    time(cron.hour.at_or_above(hour + 1)?, cron.minute.at_or_above(0)?, cron.second.at_or_above(0)?)
}

impl Cron {
    /// Returns whether the job is due on this day of a suitable month. If both fields restrict the days, either of them
    /// suffices.
    fn has_day(&self, date: Date) -> bool {
        let day = self.day.has(date.day());
        let weekday = self.weekday.has(date.weekday().to_sunday_zero_offset());
        if self.day.is_open || self.weekday.is_open { day && weekday } else { day || weekday }
    }
}

/// Returns the last time in `(after, until]`.
pub(super) fn last(cron: &Cron, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    for span in SPANS {
        let begin = until.checked_sub(SignedDuration::from_secs(span)).unwrap_or(Timestamp::MIN);
        let begin = begin.max(after);
        let mut found = next(cron, begin, zone).filter(|time| *time <= until);
        while let Some(later) = found.and_then(|time| next(cron, time, zone)).filter(|time| *time <= until) {
            found = Some(later);
        }
        if found.is_some() || begin == after {
            return found;
        }
    }
    None
}
