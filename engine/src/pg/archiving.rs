//! The settings with which PostgreSQL archives WAL: which are missing, and setting them.

use std::time::{Duration, Instant};

use super::cluster::calls_archiver;
use super::connection::{Expect, PgConnection};
use crate::{Error, ErrorCode, Result};

/// How long the server may take to read its files again.
const RELOAD_MAX: Duration = Duration::from_secs(10);
/// How often the server is asked whether it has done so.
const RELOAD_INTERVAL: Duration = Duration::from_millis(50);

/// The server's settings about archiving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// `archive_mode`
    pub mode: String,
    /// `archive_command`, empty if it is not set.
    pub command: String,
    /// `archive_library`, empty if it is not set or the version does not have it.
    pub library: String,
    /// `wal_level`
    pub wal_level: String,
}

/// A setting that has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// The setting.
    pub name: &'static str,
    /// Its new value.
    pub value: String,
    /// Whether the server must be restarted. Otherwise a reload suffices.
    pub needs_restart: bool,
}

impl ArchiveSettings {
    /// Reads them.
    ///
    /// # Errors
    /// [`ErrorCode::DbQuery`]
    pub fn read(connection: &mut dyn PgConnection) -> Result<Self> {
        // A command is shown as (disabled) while archive_mode is off. The table has what the files say
        let [mode, command, library, wal_level] = connection.row(
            "select pg_catalog.current_setting('archive_mode'), coalesce((select setting from pg_catalog.pg_settings \
             where name = 'archive_command'), ''), coalesce(pg_catalog.current_setting('archive_library', true), ''), \
             pg_catalog.current_setting('wal_level')",
        )?;
        let text = |value: Option<String>| value.unwrap_or_default();
        let command = text(command);
        let command = if command == "(disabled)" { configured_command(connection)? } else { command };
        Ok(ArchiveSettings { mode: text(mode), command, library: text(library), wal_level: text(wal_level) })
    }

    /// Returns what must change so that WAL is archived with this command. Another command that pushes to the stanza
    /// stays.
    ///
    /// # Errors
    /// [`ErrorCode::ArchiveCommandInvalid`] if another command or a library archives WAL.
    pub fn changes(&self, command: &str, stanza: &str) -> Result<Vec<SettingChange>> {
        let mut changes = Vec::new();
        let mut change = |name, value: &str, needs_restart| {
            changes.push(SettingChange { name, value: value.to_owned(), needs_restart });
        };
        if !self.library.is_empty() {
            let text = format!("archive_library is '{}': something else archives WAL", self.library);
            return Err(Error::new(ErrorCode::ArchiveCommandInvalid, text)
                .hint("set archive_library = '' first if it is not needed any more."));
        }
        if self.wal_level == "minimal" {
            change("wal_level", "replica", true);
        }
        // With "always", check tells what to do
        if self.mode == "off" {
            change("archive_mode", "on", true);
        }
        match self.command.as_str() {
            "" => change("archive_command", command, false),
            known if command_problem(known, stanza).is_none() => {}
            known => {
                let text = format!("archive_command is '{known}': something else archives WAL");
                return Err(Error::new(ErrorCode::ArchiveCommandInvalid, text)
                    .hint(format!("the command of this stanza is: {command}"))
                    .hint("set archive_command yourself, or to '' first if the old one is not needed any more."));
            }
        }
        Ok(changes)
    }
}

/// Returns the command in the configuration files while the server does not use it.
fn configured_command(connection: &mut dyn PgConnection) -> Result<String> {
    // Only superusers may see the files. The last line that counts is the one with the highest number
    let query = "select coalesce((select setting from pg_catalog.pg_file_settings where name = 'archive_command' \
                 and error is null order by seqno desc limit 1), '')";
    connection.value(query)
}

/// Makes these changes in `postgresql.auto.conf`, and lets the server read it.
///
/// # Errors
/// [`ErrorCode::DbQuery`] if the role may not do so, or if another source overrides `archive_command`.
pub fn apply(connection: &mut dyn PgConnection, changes: &[SettingChange]) -> Result<()> {
    connection.exec("set standard_conforming_strings = on")?;
    for change in changes {
        let value = change.value.replace('\'', "''");
        connection.exec(&format!("alter system set {} = '{value}'", change.name))?;
    }
    connection.query("select pg_catalog.pg_reload_conf()::text", Expect::OneRow(1))?;
    let Some(command) = changes.iter().find(|change| change.name == "archive_command") else { return Ok(()) };
    let end = Instant::now() + RELOAD_MAX;
    loop {
        if ArchiveSettings::read(connection)?.command == command.value {
            return Ok(());
        }
        if Instant::now() >= end {
            let text = "archive_command was set, but the server uses another one";
            return Err(Error::new(ErrorCode::DbQuery, text)
                .hint("is it also set on the server's command line, or for this role or database?"));
        }
        std::thread::sleep(RELOAD_INTERVAL);
    }
}

/// Returns what is wrong with an `archive_command` for this stanza.
pub(crate) fn command_problem(command: &str, stanza: &str) -> Option<String> {
    if command.trim().is_empty() || command == "(disabled)" {
        return Some("archive_command is not set: WAL stays in pg_wal until the disk is full".to_owned());
    }
    if !calls_archiver(command) {
        return Some(format!("archive_command '{command}' is that of another tool"));
    }
    if !command.contains("archive-push") {
        return Some(format!("archive_command '{command}' does not call archive-push"));
    }
    if !command.contains("%p") {
        return Some(format!("archive_command '{command}' does not pass the segment (%p)"));
    }
    let named = command.split_whitespace().find_map(|word| word.trim_matches(['"', '\'']).strip_prefix("--stanza="));
    let named = named.map(|name| name.trim_matches(['"', '\'']));
    named.filter(|name| *name != stanza).map(|name| format!("archive_command archives to the stanza '{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &str = "/usr/bin/rbr --stanza=main archive-push %p";

    fn settings(mode: &str, command: &str) -> ArchiveSettings {
        ArchiveSettings {
            mode: mode.to_owned(),
            command: command.to_owned(),
            library: String::new(),
            wal_level: "replica".to_owned(),
        }
    }

    fn names(settings: &ArchiveSettings) -> Vec<(&'static str, bool)> {
        let changes = settings.changes(COMMAND, "main").unwrap();
        changes.into_iter().map(|change| (change.name, change.needs_restart)).collect()
    }

    #[test]
    fn settings_that_are_right_stay() {
        assert_eq!(names(&settings("on", COMMAND)), []);
        assert_eq!(names(&settings("always", "pgbackrest --stanza=main archive-push %p")), []);
        assert_eq!(names(&settings("on", "")), [("archive_command", false)]);
        assert_eq!(names(&settings("off", "")), [("archive_mode", true), ("archive_command", false)]);
        let minimal = ArchiveSettings { wal_level: "minimal".to_owned(), ..settings("off", COMMAND) };
        assert_eq!(names(&minimal), [("wal_level", true), ("archive_mode", true)]);
    }

    #[test]
    fn another_archiver_is_not_replaced() {
        let library = ArchiveSettings { library: "basic_archive".to_owned(), ..settings("on", "") };
        let elsewhere = settings("on", "rbr --stanza=other archive-push %p");
        for other in [settings("on", "cp %p /archive/%f"), settings("off", "/bin/true"), library, elsewhere] {
            let error = other.changes(COMMAND, "main").unwrap_err();
            assert_eq!(error.code, ErrorCode::ArchiveCommandInvalid, "{other:?}");
        }
    }
}
