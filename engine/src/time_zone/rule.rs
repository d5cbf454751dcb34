//! A zone written out in `TZ`, such as `CET-1CEST,M3.5.0,M10.5.0/3`. Parsed like glibc, which accepts more than POSIX.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

/// The default begin and end of daylight saving time: the law of the USA.
const CHANGES_DEFAULT: &str = "M3.2.0,M11.1.0";
/// Letters of the shortest abbreviation.
const NAME_LEN_MIN: usize = 3;
/// Larger offsets count as this many hours.
const HOURS_MAX: u32 = 24;
const SECONDS_PER_HOUR: i32 = 3600;

/// Returns the zone for a text. `default` returns the changes to daylight saving time for a text without changes.
pub(super) fn read(text: &str, default: impl FnOnce() -> Option<String>) -> Option<TimeZone> {
    let rest = after_name(text)?;
    if !rest.starts_with(|first: char| matches!(first, '+' | '-') || first.is_ascii_digit()) {
        return None;
    }
    let (standard, rest) = offset(rest);
    let standard = standard?;
    let Some(rest) = after_name(rest) else { return zone(standard, None) };
    let (daylight, rest) = offset(rest);
    let daylight = daylight.unwrap_or(standard + SECONDS_PER_HOUR);
    let changes = match rest {
        "" | "," => default().unwrap_or_else(|| CHANGES_DEFAULT.to_owned()),
        // The second change has a default too
        changes => {
            let mut changes = changes.strip_prefix(',').unwrap_or(changes).split(',');
            let begin = changes.next().unwrap_or_default();
            let end = changes.next().filter(|end| !end.is_empty()).unwrap_or("M11.1.0");
            format!("{begin},{end}")
        }
    };
    // Invalid changes leave standard time. What glibc makes of such texts follows no rule
    zone(standard, Some((daylight, &changes))).or_else(|| zone(standard, None))
}

/// Returns the changes at the end of a zone file, whose last line has the form of `TZ`.
pub(super) fn changes_of(file: &[u8]) -> Option<String> {
    let text = file.strip_suffix(b"\n")?;
    let line = &text[text.iter().rposition(|&byte| byte == b'\n')? + 1..];
    let (_, changes) = std::str::from_utf8(line).ok()?.split_once(',')?;
    Some(changes.to_owned())
}

/// Returns the text after an abbreviation: letters, or `<...>` around letters, digits and signs.
fn after_name(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix('<') {
        let (name, rest) = quoted.split_once('>')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-'));
        return (is_name && name.len() >= NAME_LEN_MIN).then_some(rest);
    }
    let rest = text.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    (text.len() - rest.len() >= NAME_LEN_MIN).then_some(rest)
}

/// Returns seconds east of Greenwich (the text has them west of it) and the text after them; `None` without a number.
fn offset(text: &str) -> (Option<i32>, &str) {
    let (sign, rest) = match text.as_bytes().first() {
        Some(b'-') => (1, &text[1..]),
        Some(b'+') => (-1, &text[1..]),
        _ => (-1, text),
    };
    let Some((hours, mut rest)) = number(rest) else { return (None, rest) };
    let mut parts = [0; 2];
    for part in &mut parts {
        let Some((value, after)) = rest.strip_prefix(':').and_then(number) else { break };
        (*part, rest) = (value.min(59), after);
    }
    let seconds = hours.min(HOURS_MAX) * 3600 + parts[0] * 60 + parts[1];
    (i32::try_from(seconds).ok().map(|seconds| sign * seconds), rest)
}

fn number(text: &str) -> Option<(u32, &str)> {
    let rest = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = &text[..text.len() - rest.len()];
    Some((digits.parse().ok()?, rest))
}

/// Returns a zone with this offset and, for daylight saving time, its offset and its two changes.
fn zone(standard: i32, daylight: Option<(i32, &str)>) -> Option<TimeZone> {
    let posix = |seconds: i32| {
        let rest = seconds.unsigned_abs();
        let sign = if seconds > 0 { "-" } else { "" };
        format!("{sign}{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
    };
    let mut text = format!("STD{}", posix(standard));
    if let Some((daylight, changes)) = daylight {
        // Writing to a String can't fail
        let _ = write!(text, "DST{},{changes}", posix(daylight));
    }
    TimeZone::posix(&text).ok()
}
