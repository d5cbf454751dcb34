//! Finds out what decides whether a run is due on this host: the role of the local clusters, and the newest backup.

use daemon::verdict::{ClusterRole, FoundBackup, Probe};
use engine::pg::session::PgSession;
use engine::{BackupType, Result, Session};
use jiff::Timestamp;

use crate::config::{Command, Config, ScheduleSection, opt};
use crate::{ExitStatus, cancel_token, pg, print, repos};

/// Prints what was found as JSON.
///
/// # Errors
/// The options of the clusters are not valid; standard output can't be written.
pub(super) fn run(section: &ScheduleSection) -> Result<ExitStatus> {
    // Commands such as expire do not know the clusters
    let of_stanza = match section.command.command() {
        Command::Backup => None,
        _ => section.daemon.for_backup(&section.stanza).ok(),
    };
    let config = of_stanza.as_ref().unwrap_or(&section.command);
    let role = role(config)?;
    let backup = match section.command.command() {
        Command::Backup => newest_backup(config),
        _ => None,
    };
    print(&format!("{}\n", Probe { role, backup }.to_json()))?;
    Ok(ExitStatus::SUCCESS)
}

/// Returns the role of the clusters on this host.
fn role(config: &Config) -> Result<ClusterRole> {
    if config.command() != Command::Backup {
        return Ok(ClusterRole::None);
    }
    let mut role = ClusterRole::None;
    for &key in config.pg_keys().iter().filter(|&&key| config.find_at(opt::PG_HOST, key).is_none()) {
        match PgSession::connect(&pg::host(config, key)?, cancel_token()) {
            Ok(session) if !session.is_standby() => return Ok(ClusterRole::Primary),
            Ok(_) => role = ClusterRole::Standby,
            Err(error) => {
                engine::warn!("unable to check pg{key}: [{}] {error}", error.code);
                if role == ClusterRole::None {
                    role = ClusterRole::Unreachable;
                }
            }
        }
    }
    Ok(role)
}

/// Returns the newest backup of the repository that would do for the job. Whether the repository can be read is a
/// question of the backup.
fn newest_backup(config: &Config) -> Option<FoundBackup> {
    let found = || {
        let settings = repos::settings(config, config.repo_default())?;
        Session::new(repos::stanza(config)?, [settings])?.backups()
    };
    let backups = found().inspect_err(|error| engine::warn!("unable to look for backups: {error}")).ok()?;
    let wanted: BackupType = config.find(opt::TYPE).and_then(|kind| kind.parse().ok()).unwrap_or(BackupType::Incr);
    // A full backup does for a differential one, and that for an incremental one
    let fitting = backups.into_iter().filter(|backup| backup.entry.backup_type <= wanted);
    let newest = fitting.max_by_key(|backup| backup.entry.timestamp_start)?;
    let started = Timestamp::from_second(newest.entry.timestamp_start).ok()?;
    Some(FoundBackup { label: newest.label.to_string(), started })
}
