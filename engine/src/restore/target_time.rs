//! Parses the time in `--target` of a time restore, as pgBackRest does.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use crate::{Error, ErrorCode, Result};

/// A target in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetTime {
    /// Seconds since the epoch, without fractions.
    pub seconds: i64,
    /// The same instant in a form that PostgreSQL reads in any time zone: with an offset, and a point before the
    /// fraction.
    pub setting: String,
    /// The text had no offset, so the local time zone gave it.
    pub is_local: bool,
}

/// Returns seconds since the epoch of `YYYY-MM-DD HH:MM:SS[.fff][+-HH[[:]MM]]`. Fractions are dropped. Without an
/// offset the time is in `local` (pgBackRest `src/common/type/convert.c`, `cvtZToTime`).
///
/// # Errors
/// [`ErrorCode::Format`] for anything else, including a date, time or offset that does not exist.
pub fn parse(text: &str, local: &TimeZone) -> Result<i64> {
    Ok(read(text, local)?.seconds)
}

/// Parses what [`parse`] accepts, for PostgreSQL as well.
///
/// # Errors
/// The same as [`parse`].
pub(crate) fn read(text: &str, local: &TimeZone) -> Result<TargetTime> {
    let invalid = || Error::new(ErrorCode::Format, format!("invalid date/time {text}"));
    let bytes = text.as_bytes();
    let separated = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')];
    if bytes.len() < 19 || separated.iter().any(|&(at, separator)| bytes[at] != separator) {
        return Err(invalid());
    }
    let part = |from: usize, size: usize| digits(bytes.get(from..from + size)).ok_or_else(invalid);
    let (year, month, day) = (part(0, 4)?, part(5, 2)?, part(8, 2)?);
    let (hour, minute, second) = (part(11, 2)?, part(14, 2)?, part(17, 2)?);
    if year < 1970 || second > 59 {
        return Err(invalid());
    }
    let small = |value: i32| i8::try_from(value).map_err(|_| invalid());
    let year = i16::try_from(year).map_err(|_| invalid())?;
    let time = DateTime::new(year, small(month)?, small(day)?, small(hour)?, small(minute)?, small(second)?, 0)
        .map_err(|error| invalid().cause(error))?;

    let mut at = 19;
    if matches!(bytes.get(at), Some(b'.' | b',')) && bytes.len() > at + 1 {
        at += 1;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
    }

    let zone = match bytes.get(at..).unwrap_or_default() {
        [] => None,
        offset => Some(read_offset(offset).ok_or_else(invalid)?.to_time_zone()),
    };
    let is_local = zone.is_none();
    let timestamp = zone
        .unwrap_or_else(|| local.clone())
        .to_ambiguous_timestamp(time)
        .compatible()
        .map_err(|error| invalid().cause(error))?;
    let mut setting = text.replace(',', ".");
    if is_local {
        // The offset that makes the text this instant. It differs from the zone's offset if the clock was put forward
        // over the time
        let as_utc = Offset::UTC.to_timestamp(time).map_err(|error| invalid().cause(error))?;
        setting += &offset_text(as_utc.as_second() - timestamp.as_second());
    }
    Ok(TargetTime { seconds: timestamp.as_second(), setting, is_local })
}

/// Parses an offset `+HH[[:]MM]`; `None` if there is no such offset.
fn read_offset(text: &[u8]) -> Option<Offset> {
    let &[sign @ (b'+' | b'-'), h1, h2, ref rest @ ..] = text else { return None };
    let hours = digits(Some(&[h1, h2]))?;
    let minutes = match rest.strip_prefix(b":").unwrap_or(rest) {
        [] => 0,
        minutes @ [_, _] => digits(Some(minutes))?,
        _ => return None,
    };
    // From GMT-12 to GMT+14, in quarters of an hour
    let hours_max = if sign == b'-' { 12 } else { 14 };
    if hours > hours_max || (hours == hours_max && minutes != 0) || minutes > 59 || minutes % 15 != 0 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Offset::from_seconds(if sign == b'-' { -seconds } else { seconds }).ok()
}

/// Formats an offset as PostgreSQL reads it: `+02`, `-03:30`, `+00:53:28`.
fn offset_text(seconds: i64) -> String {
    let (sign, rest) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs());
    let mut text = format!("{sign}{:02}", rest / 3600);
    if rest % 3600 != 0 {
        text += &format!(":{:02}", rest / 60 % 60);
    }
    if rest % 60 != 0 {
        text += &format!(":{:02}", rest % 60);
    }
    text
}

/// The number that these bytes spell, if all are digits.
fn digits(bytes: Option<&[u8]>) -> Option<i32> {
    let bytes = bytes?;
    if !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> Option<i64> {
        parse(text, &TimeZone::UTC).ok()
    }

    #[test]
    fn parse_with_offset_ignores_local_zone() {
        let new_york = TimeZone::fixed(Offset::from_seconds(-4 * 3600).unwrap());
        assert_eq!(parse("2019-09-14 20:02:49+00", &new_york).unwrap(), 1_568_491_369);
        assert_eq!(parse("2019-09-14 20:02:49", &new_york).unwrap(), 1_568_505_769);
    }

    #[test]
    fn parse_offset_forms_are_the_same() {
        let expected = utc("2020-01-08 14:48:16-05");
        assert_eq!(expected, Some(1_578_512_896));
        for text in ["2020-01-08 14:48:16-0500", "2020-01-08 14:48:16-05:00", "2020-01-08 14:48:16.123-05"] {
            assert_eq!(utc(text), expected, "{text}");
        }
    }

    #[test]
    fn parse_negative_half_hour_keeps_its_sign() {
        assert_eq!(utc("2020-01-08 09:18:16-0030"), utc("2020-01-08 09:48:16+00"));
    }

    #[test]
    fn parse_fraction_is_dropped() {
        assert_eq!(utc("2020-01-08 09:18:16.999999"), utc("2020-01-08 09:18:16"));
        assert_eq!(utc("2020-01-08 09:18:16,5"), utc("2020-01-08 09:18:16"));
    }

    #[test]
    fn parse_invalid_is_refused() {
        for text in [
            "",
            "Tue, 15 Nov 1994 12:45:26",
            "2019-14-02 01:01:01",
            "2019-02-29 01:01:01",
            "1969-01-01 01:01:01",
            "2019-01-01 24:00:00",
            "2019-01-01 00:00:60",
            "2019-01-01 00:00:00+",
            "2019-01-01 00:00:00+0",
            "2019-01-01 00:00:00+7",
            "2019-01-01 00:00:00+15",
            "2019-01-01 00:00:00-13",
            "2019-01-01 00:00:00+0720",
            "2019-01-01 00:00:00+00:0",
            "2019-01-01 00:00:00.",
            "2019-01-01 00:00:00 UTC",
            "2019-01-01T00:00:00",
            "20190-01-01 00:00:0",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    fn setting(text: &str, local: &TimeZone) -> String {
        read(text, local).unwrap().setting
    }

    #[test]
    fn target_without_offset_is_written_with_the_one_it_was_read_in() {
        let kolkata = TimeZone::posix("IST-5:30").unwrap();
        assert_eq!(setting("2020-01-08 09:18:16.25", &kolkata), "2020-01-08 09:18:16.25+05:30");
        assert_eq!(setting("2020-01-08 09:18:16", &TimeZone::posix("XXX3").unwrap()), "2020-01-08 09:18:16-03");
        assert_eq!(setting("2020-01-08 09:18:16", &TimeZone::UTC), "2020-01-08 09:18:16+00");
        assert_eq!(
            setting("2020-01-08 09:18:16", &TimeZone::posix("XXX1:00:05").unwrap()),
            "2020-01-08 09:18:16-01:00:05"
        );
        assert!(read("2020-01-08 09:18:16", &kolkata).unwrap().is_local);
    }

    #[test]
    fn target_with_offset_is_written_as_given() {
        for text in ["2020-01-08 09:18:16+00", "2020-01-08 09:18:16.5-0330", "2020-01-08 09:18:16+05:45"] {
            assert_eq!(setting(text, &TimeZone::UTC), text);
            assert!(!read(text, &TimeZone::UTC).unwrap().is_local);
        }
    }

    #[test]
    fn target_with_a_comma_is_written_with_a_point() {
        assert_eq!(setting("2020-01-08 09:18:16,5+00", &TimeZone::UTC), "2020-01-08 09:18:16.5+00");
        assert_eq!(setting("2020-01-08 09:18:16,25", &TimeZone::UTC), "2020-01-08 09:18:16.25+00");
    }

    #[test]
    fn target_in_the_hour_that_a_clock_skips_or_repeats_is_one_instant() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for text in ["2026-03-29 02:30:00", "2026-10-25 02:30:00"] {
            let target = read(text, &berlin).unwrap();
            assert_eq!(utc(&target.setting), Some(target.seconds), "{text}");
        }
    }

    proptest! {
        #[test]
        fn target_written_with_its_offset_is_the_same_instant(seconds in 0i64..4_102_444_800, hours in -12i32..=12) {
            let zone = TimeZone::fixed(Offset::from_seconds(hours * 3600).unwrap());
            let text = jiff::Timestamp::from_second(seconds).unwrap().strftime("%Y-%m-%d %H:%M:%S").to_string();
            let target = read(&text, &zone).unwrap();
            prop_assert_eq!(utc(&target.setting), Some(target.seconds));
        }

        #[test]
        fn parse_any_text_does_not_panic(text in "\\PC{0,40}") {
            let _ = utc(&text);
        }

        #[test]
        fn parse_formatted_time_round_trips(seconds in 0i64..4_102_444_800) {
            let text = jiff::Timestamp::from_second(seconds).unwrap().strftime("%Y-%m-%d %H:%M:%S").to_string();
            prop_assert_eq!(utc(&text), Some(seconds));
        }
    }
}
