//! Backup labels and backup types.
//!
//! A label is the name of a backup's directory: `20240131-235959F` for a full backup, and the full backup's label
//! followed by `_20240201-120000D` (differential) or `I` (incremental) for the others. The times are local times of the
//! host that ran the backup, at its start (source: pgBackRest `src/command/backup/common.c`).

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorCode, Result};

/// Bytes of `YYYYMMDD-HHMMSS`.
const TIME_LEN: usize = 15;
/// Bytes of a full backup's label.
const FULL_LEN: usize = TIME_LEN + 1;
/// Bytes of a differential or incremental backup's label.
const DEPENDENT_LEN: usize = FULL_LEN + 1 + TIME_LEN + 1;

/// What a backup contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackupType {
    /// Everything.
    Full,
    /// What changed since the last full backup.
    Diff,
    /// What changed since the last backup of any type.
    Incr,
}

impl BackupType {
    /// Returns the name in files, options and messages: `full`, `diff` or `incr`.
    pub fn name(self) -> &'static str {
        match self {
            BackupType::Full => "full",
            BackupType::Diff => "diff",
            BackupType::Incr => "incr",
        }
    }

    /// The letter that ends a label of this type.
    pub fn letter(self) -> char {
        match self {
            BackupType::Full => 'F',
            BackupType::Diff => 'D',
            BackupType::Incr => 'I',
        }
    }
}

impl fmt::Display for BackupType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackupType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "full" => Ok(BackupType::Full),
            "diff" => Ok(BackupType::Diff),
            "incr" => Ok(BackupType::Incr),
            _ => Err(Error::new(ErrorCode::Format, format!("'{text}' is not a valid backup type"))),
        }
    }
}

/// A local time without zone, as labels contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilTime {
    /// Year, 0 to 9999.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 60.
    pub second: u8,
}

impl CivilTime {
    fn check(self) -> Result<Self> {
        let valid = self.year <= 9999
            && (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && self.hour <= 23
            && self.minute <= 59
            && self.second <= 60;
        if valid { Ok(self) } else { Err(Error::new(ErrorCode::Assert, format!("invalid time for a label: {self:?}"))) }
    }
}

impl fmt::Display for CivilTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CivilTime { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }
}

/// A valid backup label. Labels order by bytes, which within one set is the order of time.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupLabel(Box<str>);

impl BackupLabel {
    /// Creates the label of a new backup of `kind` that started at `start`. A full backup needs no `prior`. The others
    /// use the full backup's part of their prior backup's label.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] if a differential or incremental backup has no prior backup, or if the time is invalid.
    pub fn format(kind: BackupType, prior: Option<&BackupLabel>, start: &CivilTime) -> Result<Self> {
        let start = start.check()?;
        let text = match (kind, prior) {
            (BackupType::Full, _) => format!("{start}F"),
            (_, Some(prior)) => format!("{}_{start}{}", prior.full_part(), kind.letter()),
            (_, None) => return Err(Error::new(ErrorCode::Assert, format!("a {kind} backup needs a prior backup"))),
        };
        Ok(BackupLabel(text.into()))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type, from the label's last letter.
    pub fn backup_type(&self) -> BackupType {
        match self.0.as_bytes().last() {
            Some(b'D') => BackupType::Diff,
            Some(b'I') => BackupType::Incr,
            _ => BackupType::Full,
        }
    }

    /// Returns the label of the full backup of this backup's set, as text; for a full backup, the label itself.
    pub fn full_part(&self) -> &str {
        self.0.get(..FULL_LEN).unwrap_or(&self.0)
    }

    /// Returns the label of the full backup of this backup's set.
    pub fn full_label(&self) -> BackupLabel {
        BackupLabel(self.full_part().into())
    }

    /// Returns the time of this backup in the form of the label, `YYYYMMDD-HHMMSS`.
    pub fn time_part(&self) -> &str {
        let end = self.0.len().saturating_sub(1);
        self.0.get(end.saturating_sub(TIME_LEN)..end).unwrap_or("")
    }

    /// Returns the first four digits: the directory of `backup.history` that contains the manifest (the year of the
    /// full backup, also for a dependent backup).
    pub fn history_year(&self) -> &str {
        self.0.get(..4).unwrap_or("")
    }

    /// Returns whether `text` has the form of a label, without creating one.
    pub fn is_label(text: &str) -> bool {
        fn is_time(bytes: &[u8]) -> bool {
            bytes.len() == TIME_LEN
                && bytes
                    .iter()
                    .enumerate()
                    .all(|(index, byte)| if index == 8 { *byte == b'-' } else { byte.is_ascii_digit() })
        }
        let bytes = text.as_bytes();
        match bytes.len() {
            FULL_LEN => is_time(&bytes[..TIME_LEN]) && bytes[TIME_LEN] == b'F',
            DEPENDENT_LEN => {
                is_time(&bytes[..TIME_LEN])
                    && &bytes[TIME_LEN..FULL_LEN + 1] == b"F_"
                    && is_time(&bytes[FULL_LEN + 1..DEPENDENT_LEN - 1])
                    && matches!(bytes[DEPENDENT_LEN - 1], b'D' | b'I')
            }
            _ => false,
        }
    }
}

impl FromStr for BackupLabel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if !Self::is_label(text) {
            return Err(Error::new(ErrorCode::Format, format!("'{text}' is not a valid backup label format")));
        }
        Ok(BackupLabel(text.into()))
    }
}

impl fmt::Display for BackupLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BackupLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupLabel({})", self.0)
    }
}

impl AsRef<str> for BackupLabel {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: CivilTime = CivilTime { year: 2024, month: 2, day: 1, hour: 3, minute: 4, second: 5 };

    #[test]
    fn format_incr_on_diff_keeps_full_part() -> Result<()> {
        let full = BackupLabel::format(BackupType::Full, None, &START)?;
        let diff = BackupLabel::format(BackupType::Diff, Some(&full), &CivilTime { day: 2, ..START })?;
        let incr = BackupLabel::format(BackupType::Incr, Some(&diff), &CivilTime { day: 3, ..START })?;
        assert_eq!(incr.as_str(), "20240201-030405F_20240203-030405I");
        assert_eq!(incr.backup_type(), BackupType::Incr);
        assert_eq!(incr.full_label(), full);
        assert_eq!(incr.time_part(), "20240203-030405");
        assert_eq!(incr.history_year(), "2024");
        assert!(full < diff && diff < incr);
        Ok(())
    }

    #[test]
    fn format_diff_without_prior_fails() {
        let error = BackupLabel::format(BackupType::Diff, None, &START).map_err(|error| error.code);
        assert_eq!(error, Err(ErrorCode::Assert));
    }

    #[test]
    fn parse_wrong_forms_fail() {
        for text in [
            "",
            "20240201-030405",
            "20240201-030405D",
            "20240201-030405F_",
            "20240201-030405F_20240203-030405F",
            "20240201_030405F",
            "20240201-030405F/20240203-030405I",
            "２０240201-030405F",
            "20240201-030405F ",
        ] {
            assert!(text.parse::<BackupLabel>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn label_any_text_parses_only_to_itself(text in "[0-9]{8}-[0-9]{6}F(_[0-9]{8}-[0-9]{6}[DI])?") {
            let label: BackupLabel = text.parse().map_err(|error: Error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(label.to_string(), text);
            prop_assert!(label.as_str().starts_with(label.full_part()));
        }

        #[test]
        fn label_any_bytes_never_panic(text in "\\PC{0,40}") {
            if let Ok(label) = text.parse::<BackupLabel>() {
                prop_assert_eq!(label.as_str(), text);
            }
        }
    }
}
