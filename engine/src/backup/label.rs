//! The label of a new backup.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use repo_format::label::{BackupLabel, BackupType, CivilTime};
use repo_format::layout::{self, RepoPath, Stanza};

use crate::cancel::CancelToken;
use crate::pg::session::OtherBackup;
use crate::storage::{EntryKind, RepoStorage};
use crate::{Error, ErrorCode, Result};

/// How many seconds after the start of its session pgBackRest may still take the time for its label. Before that it
/// connects to a standby and reads the settings.
const LABEL_DELAY: i64 = 10;

/// Returns the first second, not earlier than `time`, that can't be the label of any of these backups. pgBackRest does
/// not know claims, so it could choose the same label in the same repository, and the files of both backups would mix
/// in one directory.
pub(super) fn unshared(time: i64, others: &[OtherBackup]) -> i64 {
    let last = |since: i64| since + LABEL_DELAY;
    let began = others.iter().filter_map(|other| other.since);
    let shares = began.filter(|since| (*since..=last(*since)).contains(&time));
    shares.max().map_or(time, |since| last(since) + 1)
}

/// Creates a label that sorts after all others of its kind: after all backups for a full backup, after the same set for
/// the others. `used` contains the labels of [`used`].
///
/// # Errors
/// [`ErrorCode::Clock`] if a label of the future exists.
pub(super) fn create(
    used: &[BackupLabel],
    kind: BackupType,
    prior: Option<&BackupLabel>,
    timestamp: i64,
    cancel: &CancelToken,
) -> Result<BackupLabel> {
    let competes = |label: &&BackupLabel| match (kind, prior) {
        (BackupType::Full, _) | (_, None) => true,
        (_, Some(prior)) => label.backup_type() != BackupType::Full && label.full_part() == prior.full_part(),
    };
    let latest = used.iter().filter(competes).max();
    let label = BackupLabel::format(kind, prior, &civil(timestamp)?)?;
    let Some(latest) = latest.filter(|latest| label <= **latest) else { return Ok(label) };
    // Two backups within one second, which are possible only if they are very short
    let label = BackupLabel::format(kind, prior, &civil(timestamp + 1)?)?;
    if label <= *latest {
        let message = format!("new backup label '{label}' is not later than latest backup label '{latest}'");
        return Err(Error::new(ErrorCode::Clock, message)
            .hint("has the timezone changed?")
            .hint("is there clock skew?")
            .hint("has another host made a backup in the meantime?"));
    }
    // The next backup must not begin in the second of this label
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    cancel.sleep(Duration::from_millis(1000 - u64::from(since_epoch.subsec_millis())))?;
    Ok(label)
}

/// Returns a placeholder until the real label is chosen.
///
/// # Errors
/// [`ErrorCode::Clock`] for a time that no label can have.
pub(super) fn preliminary(timestamp: i64) -> Result<BackupLabel> {
    BackupLabel::format(BackupType::Full, None, &civil(timestamp)?)
}

/// Returns the labels of all backups, and of those in the last year of the history, so that the label of a removed
/// backup is not reused.
///
/// # Errors
/// A directory can't be listed.
pub(super) fn used(storage: &dyn RepoStorage, stanza: &Stanza) -> Result<Vec<BackupLabel>> {
    let list = |path: &RepoPath| Ok(storage.list(path)?.unwrap_or_default());
    let (backups, history) = storage.concurrency().both(
        || list(&layout::backup_stanza(stanza)),
        || {
            let history = layout::history(stanza);
            let is_year =
                |name: &str| name.len() == 4 && name.starts_with('2') && name.bytes().all(|byte| byte.is_ascii_digit());
            let years = list(&history)?;
            let last_year = years.iter().rev().find(|entry| entry.kind == EntryKind::Path && is_year(&entry.name));
            last_year.map_or(Ok(Vec::new()), |year| list(&history.join(&year.name)?))
        },
    );
    let (backups, history) = (backups?, history?);
    let in_history = history.iter().filter_map(|entry| entry.name.strip_suffix(layout::HISTORY_MANIFEST_SUFFIX));
    let names = backups.iter().map(|entry| entry.name.as_str()).chain(in_history);
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// Converts seconds since the epoch to local time, which labels use.
fn civil(timestamp: i64) -> Result<CivilTime> {
    let fail = |text: String| Error::new(ErrorCode::Clock, format!("time {timestamp} can't be a label: {text}"));
    let time = Timestamp::from_second(timestamp).map_err(|error| fail(error.to_string()))?;
    let time = time.to_zoned(crate::time_zone::local().clone());
    let number = |value: i8| u8::try_from(value).map_err(|error| fail(error.to_string()));
    Ok(CivilTime {
        year: u16::try_from(time.year()).map_err(|error| fail(error.to_string()))?,
        month: number(time.month())?,
        day: number(time.day())?,
        hour: number(time.hour())?,
        minute: number(time.minute())?,
        second: number(time.second())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{WriteOptions, put};

    const START: i64 = 1_700_000_000;

    fn stanza() -> Stanza {
        "demo".parse().unwrap()
    }

    #[test]
    fn label_second_of_another_backup_of_the_cluster_is_not_taken() {
        let other = |since| OtherBackup { text: String::new(), since };
        assert_eq!(unshared(START, &[]), START);
        // Its label can't have a time before the session began, nor a time long after
        for apart in [START + 1, START - LABEL_DELAY - 1] {
            assert_eq!(unshared(START, &[other(Some(apart)), other(None)]), START);
        }
        for since in [START, START - LABEL_DELAY] {
            assert_eq!(unshared(START, &[other(Some(since))]), since + LABEL_DELAY + 1);
        }
        let others = [other(Some(START)), other(Some(START - 3))];
        assert_eq!(unshared(START, &others), START + LABEL_DELAY + 1);
    }

    fn label_at(kind: BackupType, prior: Option<&BackupLabel>, timestamp: i64) -> BackupLabel {
        BackupLabel::format(kind, prior, &civil(timestamp).unwrap()).unwrap()
    }

    fn storage_with(labels: &[&BackupLabel], history: &[&BackupLabel]) -> MemoryStorage {
        let storage = MemoryStorage::new();
        for label in labels {
            put(&storage, &layout::manifest(&stanza(), label), b"", WriteOptions::ATOMIC).unwrap();
        }
        for label in history {
            put(&storage, &layout::history_manifest(&stanza(), label), b"", WriteOptions::ATOMIC).unwrap();
        }
        storage
    }

    fn new_label(storage: &MemoryStorage, kind: BackupType, prior: Option<&BackupLabel>) -> Result<BackupLabel> {
        create(&used(storage, &stanza())?, kind, prior, START, &CancelToken::new())
    }

    #[test]
    fn label_in_an_empty_repository_is_the_start() {
        let label = new_label(&storage_with(&[], &[]), BackupType::Full, None).unwrap();
        assert_eq!(label, label_at(BackupType::Full, None, START));
    }

    #[test]
    fn label_of_the_same_second_is_the_next_second() {
        let same = label_at(BackupType::Full, None, START);
        for storage in [storage_with(&[&same], &[]), storage_with(&[], &[&same])] {
            let label = new_label(&storage, BackupType::Full, None).unwrap();
            assert_eq!(label, label_at(BackupType::Full, None, START + 1));
        }
    }

    #[test]
    fn label_before_a_later_one_is_a_clock_error() {
        let later = label_at(BackupType::Full, None, START + 100);
        let error = new_label(&storage_with(&[], &[&later]), BackupType::Full, None).unwrap_err();
        assert_eq!((error.code, error.hints.len()), (ErrorCode::Clock, 3));
    }

    #[test]
    fn label_of_a_diff_competes_only_within_its_set() {
        let full = label_at(BackupType::Full, None, START - 100);
        let other = label_at(BackupType::Full, None, START + 100);
        let other_diff = label_at(BackupType::Diff, Some(&other), START + 200);
        let storage = storage_with(&[&full, &other, &other_diff], &[]);
        let label = new_label(&storage, BackupType::Diff, Some(&full)).unwrap();
        assert_eq!(label, label_at(BackupType::Diff, Some(&full), START));
        let sibling = label_at(BackupType::Incr, Some(&full), START + 100);
        let storage = storage_with(&[&full, &sibling], &[]);
        assert_eq!(new_label(&storage, BackupType::Diff, Some(&full)).unwrap_err().code, ErrorCode::Clock);
    }
}
