//! The recovery settings that a restore writes for PostgreSQL: which keys, in which file, in which form.
//!
//! This is pure text; `restore` writes the files. Source: pgBackRest `src/command/restore/config.c.inc`. One difference
//! is deliberate: quotes, backslashes and line breaks inside a value are escaped, so that PostgreSQL reads the given
//! value. With the bare quote that pgBackRest writes, the server would not start.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use repo_format::pg::version::PgVersion;
use repo_format::wal_name::Lsn;

use crate::{Error, ErrorCode, Result};

/// The first version that reads recovery settings from `postgresql.auto.conf` and signal files.
pub(crate) const VERSION_RECOVERY_SETTINGS: PgVersion = PgVersion::V12;

/// The maximum length of a restore point's name in PostgreSQL, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// How far PostgreSQL recovers (`--type`, with `--target`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RecoveryType {
    /// To the end of the WAL.
    #[default]
    Default,
    /// Until the backup is consistent.
    Immediate,
    /// To this LSN.
    Lsn(String),
    /// To this restore point.
    Name(String),
    /// Do not write recovery settings.
    None,
    /// The settings that are in the data directory stay.
    Preserve,
    /// Continue recovery as a standby.
    Standby,
    /// To this time, in the form that PostgreSQL reads.
    Time(String),
    /// To this transaction.
    Xid(String),
}

impl RecoveryType {
    /// Returns the part of `recovery_target_<...>` and its value, for types with a target.
    fn target(&self) -> Option<(&'static str, &str)> {
        match self {
            RecoveryType::Lsn(value) => Some(("lsn", value)),
            RecoveryType::Name(value) => Some(("name", value)),
            RecoveryType::Time(value) => Some(("time", value)),
            RecoveryType::Xid(value) => Some(("xid", value)),
            _ => None,
        }
    }
}

/// What PostgreSQL does when it reaches the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetAction {
    /// Pause. This is PostgreSQL's default and is not written.
    #[default]
    Pause,
    /// Ends recovery.
    Promote,
    /// Stops the server.
    Shutdown,
}

/// The input of the recovery settings.
#[derive(Clone, Debug, Default)]
pub struct RecoverySettings {
    /// How far to recover.
    pub kind: RecoveryType,
    /// Stop just before the target (`recovery_target_inclusive = 'false'`).
    pub target_exclusive: bool,
    /// What to do at the target.
    pub target_action: TargetAction,
    /// The timeline to follow: a number, `0x` and hex digits, `current` or `latest`.
    pub target_timeline: Option<String>,
    /// Additional settings of the user. A `-` in a key means `_`.
    pub options: BTreeMap<String, String>,
    /// Write `archive_mode = 'off'`.
    pub archive_mode_off: bool,
    /// The complete `restore_command`, used unless `options` has one. `None` writes no command. PostgreSQL then finds
    /// only the WAL in its own directory.
    pub restore_command: Option<String>,
}

impl RecoverySettings {
    /// Checks what would otherwise fail only after hours of copying.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalid`] for settings that this PostgreSQL version does not know.
    pub fn check(&self, version: PgVersion) -> Result<()> {
        if matches!(self.kind, RecoveryType::None | RecoveryType::Preserve) {
            return Ok(());
        }
        if version < VERSION_RECOVERY_SETTINGS {
            if self.archive_mode_off {
                return Err(Error::new(
                    ErrorCode::OptionInvalid,
                    "option 'archive-mode' is not supported on PostgreSQL < 12",
                )
                .hint("'archive_mode' should be manually set to 'off' in postgresql.conf."));
            }
        } else if self.options.keys().any(|key| setting_name(key) == "standby_mode") {
            return Err(Error::new(
                ErrorCode::OptionInvalid,
                "'standby_mode' setting is not valid for PostgreSQL >= 12",
            )
            .hint("use --type=standby instead of --recovery-option=standby_mode=on."));
        }
        self.check_target()?;
        for (key, value) in &self.options {
            // A newline would end the value early and turn the rest into settings of its own
            if value.contains(['\n', '\r', '\0']) || !is_setting_name(&setting_name(key)) {
                return Err(Error::new(
                    ErrorCode::OptionInvalidValue,
                    format!("'{key}={value}' is not valid for 'recovery-option' option"),
                ));
            }
        }
        Ok(())
    }

    /// Refuses a target that PostgreSQL would refuse or misread. A time is checked earlier, when it is parsed.
    fn check_target(&self) -> Result<()> {
        let (is_right, form) = match &self.kind {
            RecoveryType::Lsn(value) => (value.parse::<Lsn>().is_ok(), "two hexadecimal numbers, as in 16/B374D848"),
            RecoveryType::Xid(value) => (is_xid(value), "a number"),
            RecoveryType::Name(value) => (value.len() <= NAME_BYTES_MAX, "at most 63 bytes long"),
            _ => return Ok(()),
        };
        if is_right {
            return Ok(());
        }
        let value = self.kind.target().map_or("", |(_, value)| value);
        Err(Error::new(ErrorCode::OptionInvalidValue, format!("'{value}' is not valid for 'target' option"))
            .hint(format!("the target must be {form}.")))
    }

    /// The settings in the order they are written.
    pub fn settings(&self, version: PgVersion) -> Vec<(String, String)> {
        let mut result: Vec<(String, String)> = Vec::new();
        // A later equal key replaces the value but keeps the position, as in pgBackRest's key-value lists
        let mut put = |key: &str, value: &str| match result.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => value.clone_into(old),
            None => result.push((key.to_owned(), value.to_owned())),
        };

        for (key, value) in &self.options {
            put(&setting_name(key), value);
        }
        if self.archive_mode_off {
            put("archive_mode", "off");
        }
        let has_own = self.options.keys().any(|key| setting_name(key) == "restore_command");
        if let (false, Some(command)) = (has_own, &self.restore_command) {
            put("restore_command", command);
        }

        match &self.kind {
            RecoveryType::Immediate => put("recovery_target", "immediate"),
            RecoveryType::Standby if version < VERSION_RECOVERY_SETTINGS => put("standby_mode", "on"),
            kind => {
                if let Some((name, value)) = kind.target() {
                    put(&format!("recovery_target_{name}"), value);
                    if self.target_exclusive {
                        put("recovery_target_inclusive", "false");
                    }
                }
            }
        }
        match self.target_action {
            TargetAction::Pause => {}
            TargetAction::Promote => put("recovery_target_action", "promote"),
            TargetAction::Shutdown => put("recovery_target_action", "shutdown"),
        }
        match self.target_timeline.as_deref() {
            // Before 12 this is the default, and the word itself would act as "latest"
            Some("current") if version < VERSION_RECOVERY_SETTINGS => {}
            Some(timeline) => put("recovery_target_timeline", timeline),
            // No timeline is followed, but PostgreSQL would still fail if it could not reach the latest one
            None if self.kind == RecoveryType::Immediate && version >= VERSION_RECOVERY_SETTINGS => {
                put("recovery_target_timeline", "current");
            }
            None => {}
        }
        result
    }

    /// Returns the block of settings below their comment line. `time` is the local time of this restore as text.
    pub fn text(&self, version: PgVersion, time: &str) -> String {
        let mut text = format!("# Recovery settings generated by pgBackRest restore on {time}\n");
        for (key, value) in self.settings(version) {
            // Writing to a String can't fail
            let _ = writeln!(text, "{key} = '{}'", quoted(&value));
        }
        text
    }

    /// Returns the new content of `postgresql.auto.conf`: old recovery targets are commented out, and the settings are
    /// appended.
    pub fn auto_conf(&self, version: PgVersion, existing: Option<&[u8]>, time: &str) -> Vec<u8> {
        let mut content = Vec::new();
        if let Some(existing) = existing {
            for (index, line) in existing.split(|&byte| byte == b'\n').enumerate() {
                if index != 0 {
                    content.push(b'\n');
                }
                if is_recovery_target(line) {
                    content.extend_from_slice(format!("# Removed by pgBackRest restore on {time} # ").as_bytes());
                }
                content.extend_from_slice(line);
            }
            if self.kind != RecoveryType::None {
                content = content.trim_ascii().to_vec();
                content.extend_from_slice(b"\n\n");
            }
        }
        if self.kind != RecoveryType::None {
            content.extend_from_slice(self.text(version, time).as_bytes());
        }
        content
    }

    /// Returns the name of the empty file that makes PostgreSQL 12 and later recover, if any.
    pub fn signal_file(&self) -> Option<&'static str> {
        match self.kind {
            RecoveryType::None | RecoveryType::Preserve => None,
            RecoveryType::Standby => Some("standby.signal"),
            _ => Some("recovery.signal"),
        }
    }
}

/// Returns the name of a setting as PostgreSQL spells it. Users write `-` as in options.
fn setting_name(key: &str) -> String {
    key.replace('-', "_")
}

/// Returns whether a transaction number has a form that PostgreSQL reads. It reads other text as 0 and never ends
/// recovery.
fn is_xid(value: &str) -> bool {
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).is_ok() && !digits.starts_with('+'),
        None => value.parse::<u64>().is_ok() && !value.starts_with('+'),
    }
}

/// Quotes a value so that PostgreSQL reads the given text.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for char in value.chars() {
        match char {
            '\\' => text.push_str("\\\\"),
            '\'' => text.push_str("''"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            char => text.push(char),
        }
    }
    text
}

/// Returns whether a name consists of letters, digits and what PostgreSQL allows in the name of a setting, including
/// custom ones.
fn is_setting_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$'))
}

/// Returns whether a line of `postgresql.auto.conf` sets a recovery target, which would interfere with the new ones.
fn is_recovery_target(line: &[u8]) -> bool {
    const SUFFIXES: [&[u8]; 8] = [b"", b"_action", b"_inclusive", b"_lsn", b"_name", b"_time", b"_timeline", b"_xid"];
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().take_while(blank).count();
    let Some(rest) = line.get(start..).and_then(|line| line.strip_prefix(b"recovery_target".as_slice())) else {
        return false;
    };
    SUFFIXES.iter().filter_map(|suffix| rest.strip_prefix(*suffix)).any(|rest| {
        let blanks = rest.iter().take_while(blank).count();
        rest.get(blanks) == Some(&b'=')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(kind: RecoveryType) -> RecoverySettings {
        RecoverySettings {
            kind,
            target_exclusive: false,
            target_action: TargetAction::Pause,
            target_timeline: None,
            options: BTreeMap::new(),
            archive_mode_off: false,
            restore_command: Some("rbr --stanza=demo archive-get %f \"%p\"".to_owned()),
        }
    }

    fn lines(settings: &RecoverySettings, version: PgVersion) -> String {
        let text = settings.text(version, "T");
        text.strip_prefix("# Recovery settings generated by pgBackRest restore on T\n").unwrap().to_owned()
    }

    const COMMAND: &str = "restore_command = 'rbr --stanza=demo archive-get %f \"%p\"'\n";

    #[test]
    fn text_of_each_type_has_its_lines() {
        let v15 = PgVersion::V15;
        let v11 = PgVersion::V11;
        assert_eq!(lines(&settings(RecoveryType::Default), v15), COMMAND);
        assert_eq!(
            lines(&settings(RecoveryType::Immediate), v15),
            format!("{COMMAND}recovery_target = 'immediate'\nrecovery_target_timeline = 'current'\n")
        );
        assert_eq!(lines(&settings(RecoveryType::Immediate), v11), format!("{COMMAND}recovery_target = 'immediate'\n"));
        assert_eq!(lines(&settings(RecoveryType::Standby), v15), COMMAND);
        assert_eq!(lines(&settings(RecoveryType::Standby), v11), format!("{COMMAND}standby_mode = 'on'\n"));
        assert_eq!(
            lines(&settings(RecoveryType::Name("rp".into())), v15),
            format!("{COMMAND}recovery_target_name = 'rp'\n")
        );
    }

    #[test]
    fn text_with_target_options_has_their_order() {
        let mut settings = settings(RecoveryType::Time("2026-01-01 00:00:00".into()));
        settings.target_exclusive = true;
        settings.target_action = TargetAction::Promote;
        settings.target_timeline = Some("3".into());
        settings.archive_mode_off = true;
        settings.options.insert("primary-conninfo".into(), "host=db".into());
        assert_eq!(
            lines(&settings, PgVersion::V15),
            format!(
                "primary_conninfo = 'host=db'\narchive_mode = 'off'\n{COMMAND}recovery_target_time = '2026-01-01 00:00:00'\n\
                 recovery_target_inclusive = 'false'\nrecovery_target_action = 'promote'\nrecovery_target_timeline = '3'\n"
            )
        );
    }

    #[test]
    fn text_current_timeline_before_12_is_left_out() {
        let mut settings = settings(RecoveryType::Default);
        settings.target_timeline = Some("current".into());
        assert_eq!(lines(&settings, PgVersion::V11), COMMAND);
        assert_eq!(lines(&settings, PgVersion::V12), format!("{COMMAND}recovery_target_timeline = 'current'\n"));
    }

    #[test]
    fn text_quote_in_value_is_doubled() {
        let mut settings = settings(RecoveryType::Name("it's".into()));
        settings.options.insert("primary_conninfo".into(), "application_name='x y'".into());
        assert_eq!(
            lines(&settings, PgVersion::V15),
            format!("primary_conninfo = 'application_name=''x y'''\n{COMMAND}recovery_target_name = 'it''s'\n")
        );
    }

    #[test]
    fn text_backslash_in_value_is_doubled() {
        let mut settings = settings(RecoveryType::Default);
        settings.options.insert("restore_command".into(), r"cp C:\wal\".into());
        assert_eq!(lines(&settings, PgVersion::V15), "restore_command = 'cp C:\\\\wal\\\\'\n");
    }

    #[test]
    fn text_without_a_restore_command_writes_none() {
        let settings = RecoverySettings { restore_command: None, ..settings(RecoveryType::Immediate) };
        assert!(!settings.text(PgVersion::V15, "now").contains("restore_command"));
    }

    #[test]
    fn text_own_restore_command_replaces_ours() {
        let mut settings = settings(RecoveryType::Default);
        settings.options.insert("restore-command".into(), "cp x %p".into());
        assert_eq!(lines(&settings, PgVersion::V15), "restore_command = 'cp x %p'\n");
    }

    #[test]
    fn auto_conf_comments_out_old_targets_only() {
        let old = b"# keep\nrecovery_target_time = 'x'\n \trecovery_target=immediate\nrecovery_target_foo = 'y'\nwork_mem = '1MB'\n\n";
        let new = settings(RecoveryType::Default).auto_conf(PgVersion::V15, Some(old), "T");
        assert_eq!(
            String::from_utf8(new).unwrap(),
            format!(
                "# keep\n# Removed by pgBackRest restore on T # recovery_target_time = 'x'\n\
                 # Removed by pgBackRest restore on T #  \trecovery_target=immediate\nrecovery_target_foo = 'y'\n\
                 work_mem = '1MB'\n\n# Recovery settings generated by pgBackRest restore on T\n{COMMAND}"
            )
        );
    }

    #[test]
    fn auto_conf_type_none_keeps_the_rest_as_it_is() {
        let old = b"work_mem = '1MB'\nrecovery_target_xid = '5'\n\n";
        let new = settings(RecoveryType::None).auto_conf(PgVersion::V15, Some(old), "T");
        assert_eq!(
            String::from_utf8(new).unwrap(),
            "work_mem = '1MB'\n# Removed by pgBackRest restore on T # recovery_target_xid = '5'\n\n"
        );
        assert!(settings(RecoveryType::None).auto_conf(PgVersion::V15, None, "T").is_empty());
    }

    #[test]
    fn check_setting_of_other_version_is_refused() {
        let mut old = settings(RecoveryType::Default);
        old.archive_mode_off = true;
        assert_eq!(old.check(PgVersion::V11).unwrap_err().code, ErrorCode::OptionInvalid);
        old.check(PgVersion::V12).unwrap();

        let mut standby = settings(RecoveryType::Default);
        standby.options.insert("standby-mode".into(), "on".into());
        assert_eq!(standby.check(PgVersion::V12).unwrap_err().code, ErrorCode::OptionInvalid);
        standby.check(PgVersion::V11).unwrap();
    }

    #[test]
    fn check_target_that_postgresql_would_not_take_is_refused() {
        let too_long = "x".repeat(64);
        let wrong = [
            RecoveryType::Lsn("nonsense".into()),
            RecoveryType::Lsn("16".into()),
            RecoveryType::Xid("nonsense".into()),
            RecoveryType::Xid(String::new()),
            RecoveryType::Xid("12 or so".into()),
            RecoveryType::Xid("+5".into()),
            RecoveryType::Name(too_long),
        ];
        for kind in wrong {
            let error = settings(kind.clone()).check(PgVersion::V15).unwrap_err();
            assert_eq!(error.code, ErrorCode::OptionInvalidValue, "{kind:?}");
        }
        let right = [
            RecoveryType::Lsn("16/B374D848".into()),
            RecoveryType::Xid("1234".into()),
            RecoveryType::Xid("0x4D2".into()),
        ];
        for kind in right.into_iter().chain([RecoveryType::Name("x".repeat(63))]) {
            settings(kind).check(PgVersion::V15).unwrap();
        }
    }

    #[test]
    fn check_option_with_newline_is_refused() {
        let mut settings = settings(RecoveryType::Default);
        settings.options.insert("x".into(), "a\nb = 'c'".into());
        assert_eq!(settings.check(PgVersion::V15).unwrap_err().code, ErrorCode::OptionInvalidValue);
    }

    proptest! {
        #[test]
        fn text_value_reads_back_as_postgresql_does(value in "([^\\x00]|[\\n\\r\\\\'n]){0,30}") {
            let mut settings = settings(RecoveryType::None);
            settings.restore_command = Some(value.clone());
            let text = lines(&settings, PgVersion::V15);
            let quoted = text.strip_prefix("restore_command = '").unwrap().strip_suffix("'\n").unwrap();
            // What PostgreSQL's GUC_scanstr makes of it, which accepts no raw line break
            prop_assert!(!quoted.contains(['\n', '\r']));
            let mut read = String::new();
            let mut chars = quoted.chars();
            while let Some(char) = chars.next() {
                read.push(match char {
                    '\'' => {
                        prop_assert_eq!(chars.next(), Some('\''));
                        '\''
                    }
                    '\\' => match chars.next() {
                        Some('n') => '\n',
                        Some('r') => '\r',
                        other => {
                            prop_assert_eq!(other, Some('\\'));
                            '\\'
                        }
                    },
                    char => char,
                });
            }
            prop_assert_eq!(read, value);
        }

        #[test]
        fn auto_conf_of_any_bytes_does_not_panic(old in proptest::collection::vec(any::<u8>(), 0..200)) {
            let new = settings(RecoveryType::Default).auto_conf(PgVersion::V15, Some(&old), "T");
            prop_assert!(!new.is_empty());
        }
    }
}
