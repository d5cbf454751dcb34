//! The time in which a certificate is valid, in words.

use jiff::Timestamp;

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From this time on.
    pub from: Timestamp,
    /// Until this time. [`Timestamp::MAX`] if it has no end, or one after that.
    pub until: Timestamp,
}

/// What a time is for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidityState {
    /// Before it is valid.
    Early,
    /// In the time in which it is valid.
    Valid,
    /// The same, but its end is near.
    EndsSoon,
    /// After its end.
    Expired,
}

/// The end of a certificate is near when this many hours are left.
const SOON_HOURS: i64 = 14 * 24;
/// One that is valid for a short time only is renewed often. Its end is near when this part of the time is left.
const SOON_PART: i64 = 3;

impl Validity {
    /// Converts seconds since 1970. A time that no calendar has is [`Timestamp::MAX`]: a certificate without an end has the
    /// last second of the year 9999 (RFC 5280, 4.1.2.5), which is beyond it.
    pub(crate) fn of_seconds((from, until): (u64, u64)) -> Self {
        let time = |seconds: u64| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
        };
        Validity { from: time(from), until: time(until) }
    }

    fn has_end(&self) -> bool {
        self.until < Timestamp::MAX
    }

    /// Returns what a time is for the certificate.
    pub fn at(&self, now: Timestamp) -> ValidityState {
        let seconds = |from: Timestamp, until: Timestamp| until.as_second().saturating_sub(from.as_second());
        if now < self.from {
            ValidityState::Early
        } else if !self.has_end() {
            ValidityState::Valid
        } else if now > self.until {
            ValidityState::Expired
        } else {
            let soon = (seconds(self.from, self.until) / SOON_PART).min(SOON_HOURS * 3600);
            if seconds(now, self.until) < soon { ValidityState::EndsSoon } else { ValidityState::Valid }
        }
    }

    /// Says what a time is for the certificate, such as `is valid until 2027-01-01T00:00:00Z`.
    pub fn text(&self, now: Timestamp) -> String {
        match self.at(now) {
            ValidityState::Early => format!("is not valid before {}", self.from),
            ValidityState::Valid if !self.has_end() => "is valid without an end".to_owned(),
            ValidityState::Valid | ValidityState::EndsSoon => format!("is valid until {}", self.until),
            ValidityState::Expired => format!("expired at {}", self.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86400;

    fn time(days: i64) -> Timestamp {
        Timestamp::from_second(days * DAY).unwrap()
    }

    #[test]
    fn expired_certificate_was_said_to_be_valid_until_its_end() {
        let validity = Validity { from: time(10), until: time(375) };
        assert_eq!(validity.text(time(9)), "is not valid before 1970-01-11T00:00:00Z");
        assert_eq!(validity.text(time(10)), "is valid until 1971-01-11T00:00:00Z");
        assert_eq!(validity.text(time(375)), "is valid until 1971-01-11T00:00:00Z");
        assert_eq!(validity.text(time(376)), "expired at 1971-01-11T00:00:00Z");
    }

    #[test]
    fn end_is_near_two_weeks_before_or_in_the_last_third_of_a_short_time() {
        let year = Validity { from: time(0), until: time(365) };
        assert_eq!([350, 352, 365, 366].map(|day| year.at(time(day))), {
            use ValidityState::{EndsSoon, Expired, Valid};
            [Valid, EndsSoon, EndsSoon, Expired]
        });
        let week = Validity { from: time(0), until: time(7) };
        assert_eq!(week.at(time(4)), ValidityState::Valid);
        assert_eq!(week.at(time(5)), ValidityState::EndsSoon);
    }

    #[test]
    fn nothing_was_said_of_a_certificate_without_an_end() {
        // 99991231235959Z
        let endless = Validity::of_seconds((10 * 86400, 253_402_300_799));
        assert_eq!((endless.at(time(9)), endless.at(time(10))), (ValidityState::Early, ValidityState::Valid));
        assert_eq!(endless.text(time(9)), "is not valid before 1970-01-11T00:00:00Z");
        assert_eq!(endless.text(time(10)), "is valid without an end");
        assert_eq!(Validity::of_seconds((0, u64::MAX)).text(time(10)), "is valid without an end");
        assert_eq!(Validity::of_seconds((0, 86400)), Validity { from: time(0), until: time(1) });
        assert_eq!(Validity::of_seconds((u64::MAX, u64::MAX)).at(time(10)), ValidityState::Early);
    }
}
