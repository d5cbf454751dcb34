//! Cron expressions: when a job is due.
//!
//! The meaning is that of cron (`crontab(5)`, `cron(8)` of cronie), with seconds as an optional first field, `?` for days,
//! and ranges over the end of a field (`FRI-MON`).
//!
//! | changes of the clock | a job with fixed hours and minutes | a job whose hour or minute begins with `*` |
//! | --- | --- | --- |
//! | forward: the time does not exist | runs once, at the change | does not run in the missing time |
//! | backward: the time occurs twice | runs the first time | runs both times |
//!
//! Changes of more than three hours are no change between summer and winter. They move every job.

mod field;
mod search;
#[cfg(test)]
mod tests;

use std::fmt;

use engine::{Error, ErrorCode, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use field::{DAY, Field, FieldKind, HOUR, MINUTE, MONTH, SECOND, WEEKDAY};

/// The longest expression in bytes.
const SIZE_MAX: usize = 256;

/// Names of expressions, as in cron.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Cron {
    /// Parses an expression of five fields (minute, hour, day of month, month, day of week) or six (second first), or a
    /// name such as `@daily`.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalidValue`], with the field that is wrong.
    pub fn parse(text: &str) -> Result<Cron> {
        let text = text.trim();
        let invalid = |problem: &str| {
            let shown: String = text.chars().take(SIZE_MAX).collect();
            Error::new(ErrorCode::OptionInvalidValue, format!("schedule '{shown}' is not valid: {problem}"))
        };
        if text.len() > SIZE_MAX {
            return Err(invalid(&format!("it is longer than {SIZE_MAX} bytes")));
        }
        let full = match text.strip_prefix('@') {
            None => text,
            Some(_) => match NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
                Some((_, full)) => full,
                None => {
                    let names: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
                    return Err(invalid("there is no such name").hint(format!("names are {}.", names.join(", "))));
                }
            },
        };
        let mut fields: Vec<&str> = full.split_ascii_whitespace().collect();
        match fields.len() {
            5 => fields.insert(0, "0"),
            6 => (),
            count => {
                return Err(invalid(&format!("it has {count} fields instead of 5 or 6"))
                    .hint("fields are [SECOND] MINUTE HOUR DAY-OF-MONTH MONTH DAY-OF-WEEK."));
            }
        }
        let has_seconds = full.split_ascii_whitespace().count() == 6;
        let parse = |at: usize, kind: &FieldKind| {
            let field = fields.get(at).copied().unwrap_or_default();
            Field::parse(field, kind).map_err(|error| {
                let number = if has_seconds { at + 1 } else { at };
                invalid(&format!("field {number} ({}) '{field}': {}", kind.name, error.message))
            })
        };
        let cron = Cron {
            text: text.to_owned(),
            second: parse(0, &SECOND)?,
            minute: parse(1, &MINUTE)?,
            hour: parse(2, &HOUR)?,
            day: parse(3, &DAY)?,
            month: parse(4, &MONTH)?,
            weekday: parse(5, &WEEKDAY)?,
        };
        match cron.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC) {
            Some(_) => Ok(cron),
            None => Err(invalid("fields 'day of month' and 'month': no month has such a day")),
        }
    }

    /// Returns the first time after this one at which the job is due; `None` at the end of the calendar.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        search::next(self, after, zone)
    }

    /// Returns the last time in `(after, until]` at which the job is due.
    pub fn last(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        search::last(self, after, until, zone)
    }

    /// Returns whether the job follows the clock on the wall when that changes, instead of running once.
    fn is_open(&self) -> bool {
        self.second.is_open || self.minute.is_open || self.hour.is_open
    }
}
