//! The backup set to restore: `--set`, or the newest that matches the target.

use repo_format::backup_info::{BackupEntry, BackupInfo};
use repo_format::label::BackupLabel;
use repo_format::wal_name::Lsn;

use crate::{Error, ErrorCode, Result};

/// What a backup set must satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// Exactly this label, as given by the user.
    Label(String),
    /// The newest of the first usable repository.
    Newest,
    /// The newest that stopped before this time (seconds since the epoch).
    StoppedBefore(i64),
    /// The newest that stopped at this LSN or before.
    StoppedAt(Lsn),
}

/// The facts about a backup in `backup.info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its label.
    pub label: BackupLabel,
    /// When it stopped, in seconds since the epoch.
    pub stop_time: i64,
    /// The LSN where it stopped; `None` for offline backups and those of old versions.
    pub stop_lsn: Option<Lsn>,
    /// The id of its cluster in the history of `backup.info`.
    pub history_id: u32,
}

impl Candidate {
    /// The backups of a repository, in the order of their labels.
    pub(crate) fn all(info: &BackupInfo) -> Vec<Self> {
        let candidate = |(label, backup): (&BackupLabel, &BackupEntry)| Candidate {
            label: label.clone(),
            stop_time: backup.timestamp_stop,
            stop_lsn: backup.lsn_stop.as_deref().and_then(|lsn| lsn.parse().ok()),
            history_id: backup.pg_id,
        };
        info.backups.iter().map(candidate).collect()
    }
}

/// The answer of one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This set is restored.
    Found(BackupLabel),
    /// No set matches here. The next repository is tried.
    Next,
    /// Like [`Choice::Next`], because a backup without LSN came before a matching one.
    NoLsn,
}

/// Chooses among the backups of one repository, which are in the order of their labels.
///
/// # Errors
/// [`ErrorCode::BackupSetInvalid`] if the newest backup is requested and belongs to a cluster from before a stanza
/// upgrade.
pub fn choose(criterion: &Criterion, backups: &[Candidate], history_id_current: u32) -> Result<Choice> {
    match criterion {
        Criterion::Label(label) => {
            let found = backups.iter().find(|backup| backup.label.to_string() == *label);
            Ok(found.map_or(Choice::Next, |backup| Choice::Found(backup.label.clone())))
        }
        Criterion::Newest => {
            let Some(newest) = backups.last() else { return Ok(Choice::Next) };
            if newest.history_id < history_id_current {
                return Err(Error::new(
                    ErrorCode::BackupSetInvalid,
                    format!("the latest backup set found '{}' is from a prior version of PostgreSQL", newest.label),
                )
                .hint("was a backup created after the stanza-upgrade?")
                .hint("specify --set or --type=time/lsn to restore from a prior version of PostgreSQL."));
            }
            Ok(Choice::Found(newest.label.clone()))
        }
        Criterion::StoppedBefore(time) => {
            let found = backups.iter().rev().find(|backup| backup.stop_time < *time);
            Ok(found.map_or(Choice::Next, |backup| Choice::Found(backup.label.clone())))
        }
        Criterion::StoppedAt(target) => {
            for backup in backups.iter().rev() {
                match backup.stop_lsn {
                    None => return Ok(Choice::NoLsn),
                    Some(stop) if stop <= *target => return Ok(Choice::Found(backup.label.clone())),
                    Some(_) => {}
                }
            }
            Ok(Choice::Next)
        }
    }
}

/// Returns the error if no repository has a matching set. `target` is the text given by the user.
pub(crate) fn not_found(criterion: &Criterion, target: &str) -> Error {
    let message = match criterion {
        Criterion::Label(label) => format!("backup set {label} is not valid"),
        Criterion::Newest => "no backup set found to restore".to_owned(),
        Criterion::StoppedBefore(_) => format!("unable to find backup set with stop time less than '{target}'"),
        Criterion::StoppedAt(_) => format!("unable to find backup set with lsn less than or equal to '{target}'"),
    };
    Error::new(ErrorCode::BackupSetInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(label: &str, stop_time: i64, stop_lsn: Option<u64>, history_id: u32) -> Candidate {
        Candidate { label: label.parse().unwrap(), stop_time, stop_lsn: stop_lsn.map(Lsn), history_id }
    }

    fn three() -> Vec<Candidate> {
        vec![
            facts("20260101-000000F", 100, Some(10), 1),
            facts("20260101-000000F_20260102-000000I", 200, Some(20), 1),
            facts("20260103-000000F", 300, Some(30), 1),
        ]
    }

    fn found(wanted: Criterion, backups: &[Candidate]) -> Option<String> {
        match choose(&wanted, backups, 1).unwrap() {
            Choice::Found(label) => Some(label.to_string()),
            _ => None,
        }
    }

    #[test]
    fn choose_newest_takes_last_label() {
        assert_eq!(found(Criterion::Newest, &three()).as_deref(), Some("20260103-000000F"));
        assert_eq!(found(Criterion::Newest, &[]), None);
    }

    #[test]
    fn choose_newest_of_old_cluster_is_refused() {
        assert_eq!(choose(&Criterion::Newest, &three(), 2).unwrap_err().code, ErrorCode::BackupSetInvalid);
    }

    #[test]
    fn choose_by_time_needs_stop_before_target() {
        assert_eq!(
            found(Criterion::StoppedBefore(300), &three()).as_deref(),
            Some("20260101-000000F_20260102-000000I")
        );
        assert_eq!(found(Criterion::StoppedBefore(301), &three()).as_deref(), Some("20260103-000000F"));
        assert_eq!(found(Criterion::StoppedBefore(100), &three()), None);
    }

    #[test]
    fn choose_by_lsn_takes_equal() {
        assert_eq!(
            found(Criterion::StoppedAt(Lsn(20)), &three()).as_deref(),
            Some("20260101-000000F_20260102-000000I")
        );
        assert_eq!(found(Criterion::StoppedAt(Lsn(9)), &three()), None);
    }

    #[test]
    fn choose_by_lsn_stops_at_backup_without_lsn() {
        let mut backups = three();
        backups[1].stop_lsn = None;
        assert_eq!(choose(&Criterion::StoppedAt(Lsn(15)), &backups, 1).unwrap(), Choice::NoLsn);
        assert_eq!(found(Criterion::StoppedAt(Lsn(30)), &backups).as_deref(), Some("20260103-000000F"));
    }

    #[test]
    fn choose_by_label_needs_exact_text() {
        assert_eq!(found(Criterion::Label("20260101-000000F".into()), &three()).as_deref(), Some("20260101-000000F"));
        assert_eq!(found(Criterion::Label("20260101".into()), &three()), None);
        assert_eq!(not_found(&Criterion::Label("x".into()), "").to_string(), "backup set x is not valid");
    }
}
