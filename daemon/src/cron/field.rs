//! One field of an expression.

use engine::{Error, ErrorCode, Result};

/// What a field counts.
pub(super) struct FieldKind {
    /// Its name in messages.
    pub(super) name: &'static str,
    /// The smallest value.
    pub(super) min: u8,
    /// The largest value.
    pub(super) max: u8,
    /// The names of the values from the smallest on.
    pub(super) names: &'static [&'static str],
    /// Whether it is one of the two fields for days, where `?` means the same as `*`.
    pub(super) is_day: bool,
    /// Whether the value after the largest means the smallest: 7 is Sunday, too.
    pub(super) wraps_at_end: bool,
}

const NUMBERS: FieldKind = FieldKind { name: "", min: 0, max: 59, names: &[], is_day: false, wraps_at_end: false };
pub(super) const SECOND: FieldKind = FieldKind { name: "second", ..NUMBERS };
pub(super) const MINUTE: FieldKind = FieldKind { name: "minute", ..NUMBERS };
pub(super) const HOUR: FieldKind = FieldKind { name: "hour", max: 23, ..NUMBERS };
pub(super) const DAY: FieldKind = FieldKind { name: "day of month", min: 1, max: 31, is_day: true, ..NUMBERS };
pub(super) const MONTH: FieldKind = FieldKind {
    name: "month",
    min: 1,
    max: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    ..NUMBERS
};
pub(super) const WEEKDAY: FieldKind = FieldKind {
    name: "day of week",
    max: 6,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    is_day: true,
    wraps_at_end: true,
    ..NUMBERS
};

/// The values of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// One bit for each value.
    bits: u64,
    /// Whether the field begins with `*` or `?`, which to cron means that it does not restrict days, and that the hours
    /// or minutes are not fixed.
    pub(super) is_open: bool,
}

impl Field {
    /// Parses a field. The error tells what is wrong with it, without the field itself.
    pub(super) fn parse(text: &str, kind: &FieldKind) -> Result<Field> {
        let mut bits = 0;
        for element in text.split(',') {
            bits |= kind.element(element)?;
        }
        Ok(Field { bits, is_open: text.starts_with(['*', '?']) })
    }

    /// Returns whether the value is one of the field.
    pub(super) fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits.checked_shr(value).is_some_and(|bits| bits & 1 == 1))
    }

    /// Returns the smallest value that is not below this one.
    pub(super) fn at_or_above(self, value: i8) -> Option<i8> {
        let below = (1_u64.checked_shl(u32::try_from(value).ok()?)?).wrapping_sub(1);
        let rest = self.bits & !below;
        if rest == 0 { None } else { i8::try_from(rest.trailing_zeros()).ok() }
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorCode::OptionInvalidValue, text)
}

impl FieldKind {
    /// Returns the values of one element of a list as bits.
    fn element(&self, element: &str) -> Result<u64> {
        if element.is_empty() {
            return Err(invalid("an element of the list is empty".to_owned()));
        }
        let (range, step) = match element.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (element, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || (range == "?" && self.is_day) => (self.min, self.max),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            // A step without a range goes to the end
            None => {
                let value = self.value(range)?;
                (value, if step.is_some() { self.max } else { value })
            }
        };
        Ok(self.values(from, to).step_by(step.unwrap_or(1)).fold(0, |bits, value| bits | 1 << self.wrapped(value)))
    }

    /// Iterates over the values from one to another. A range that ends before it begins goes over the end.
    fn values(&self, from: u8, to: u8) -> impl Iterator<Item = u8> {
        let from = if from > to { self.wrapped(from) } else { from };
        let (end, rest) = if from <= to { (to, None) } else { (self.max, Some(self.min..=to)) };
        (from..=end).chain(rest.into_iter().flatten())
    }

    fn wrapped(&self, value: u8) -> u8 {
        if value > self.max { self.min } else { value }
    }

    fn step(&self, text: &str) -> Result<usize> {
        let count = self.max - self.min + 1;
        match number(text) {
            None => Err(invalid(format!("step '{text}' is not a number"))),
            Some(0) => Err(invalid("a step can't be 0".to_owned())),
            Some(step) if step > count => {
                Err(invalid(format!("step {step} is more than the {count} values of the field")))
            }
            Some(step) => Ok(usize::from(step)),
        }
    }

    fn value(&self, text: &str) -> Result<u8> {
        let name = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(at) = name.and_then(|at| u8::try_from(at).ok()) {
            return Ok(self.min + at);
        }
        let limit = if self.wraps_at_end { self.max + 1 } else { self.max };
        match number(text) {
            Some(value) if (self.min..=limit).contains(&value) => Ok(value),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err(invalid(format!("{text} is not in {}-{limit}", self.min)))
            }
            _ if text == "?" => Err(invalid("'?' is for days only".to_owned())),
            _ => {
                let names = match self.names {
                    [first, .., last] => format!(" or a name ({first}-{last})"),
                    _ => String::new(),
                };
                Err(invalid(format!("'{text}' is not a number{names}")))
            }
        }
    }
}

/// Parses a number of digits only.
fn number(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
