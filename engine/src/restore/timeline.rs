//! Checks that the timeline of a recovery can be reached from the backup.

use repo_format::cipher::{self, Cipher};
use repo_format::layout::{self, ArchiveId, Stanza};
use repo_format::pg::history::TimelineHistory;
use repo_format::pg::version::PgVersion;
use repo_format::wal_name::{Lsn, TimelineId};

use crate::repo::Repo;
use crate::storage::ReadRange;
use crate::{Error, ErrorCode, Result};

/// The maximum size of a history file. Each timeline has a line of some dozen bytes.
const HISTORY_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// The timeline that recovery follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The backup's own.
    Current,
    /// The newest in the archive.
    Latest,
    /// This timeline.
    Id(TimelineId),
}

/// The position of a backup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackupPosition {
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where it starts.
    pub lsn_start: Lsn,
}

/// Parses `--target-timeline`. Without it, returns PostgreSQL's default.
fn wanted(option: Option<&str>, version: PgVersion, is_immediate: bool) -> Result<Wanted> {
    match option {
        // PostgreSQL does not switch timelines before an immediate target, but a bad latest timeline would make it fail
        None if is_immediate || version <= PgVersion::V11 => Ok(Wanted::Current),
        None | Some("latest") => Ok(Wanted::Latest),
        Some("current") => Ok(Wanted::Current),
        Some(text) => {
            let number = match text.strip_prefix("0x") {
                Some(hex) if !hex.starts_with('+') => u32::from_str_radix(hex, 16).ok(),
                None if !text.starts_with('+') => text.parse().ok(),
                _ => None,
            };
            number
                .map(|number| Wanted::Id(TimelineId(number)))
                .ok_or_else(|| Error::new(ErrorCode::DbMismatch, format!("invalid target timeline '{text}'")))
        }
    }
}

/// Checks that the target's history passes through the backup.
fn check(history: &TimelineHistory, target: TimelineId, backup: BackupPosition) -> Result<()> {
    let Some(fork) = history.end_lsn(backup.timeline) else {
        return Err(Error::new(
            ErrorCode::DbMismatch,
            format!(
                "backup timeline {:X}, lsn {} is not in the history of target timeline {:X}",
                backup.timeline.0, backup.lsn_start, target.0
            ),
        )
        .hint("was the target timeline created by promoting from a timeline < latest?"));
    };
    if backup.lsn_start < fork {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::DbMismatch,
        format!(
            "target timeline {:X} forked from backup timeline {:X} at {fork} which is before backup lsn of {}",
            target.0, backup.timeline.0, backup.lsn_start
        ),
    )
    .hint("was the target timeline created by accidentally promoting a standby?")
    .hint("was the target timeline created by testing a restore without --archive-mode=off?")
    .hint("was the backup made after the target timeline was created?"))
}

/// The archive that holds a backup's WAL.
#[derive(Clone)]
pub(crate) struct ArchivePlace<'a> {
    /// The repository.
    pub repo: &'a Repo,
    /// The stanza.
    pub stanza: &'a Stanza,
    /// The cluster.
    pub id: ArchiveId,
    /// How its files are encrypted.
    pub cipher: Cipher,
}

/// Verifies the target timeline with the history files of the archive (pgBackRest `src/command/restore/timeline.c`).
///
/// # Errors
/// [`ErrorCode::DbMismatch`] if recovery can't get from the backup to the target; [`ErrorCode::FileMissing`] and
/// [`ErrorCode::Format`] if the target's history can't be read.
pub fn verify(
    archive: &ArchivePlace<'_>,
    option: Option<&str>,
    version: PgVersion,
    is_immediate: bool,
    backup: BackupPosition,
) -> Result<()> {
    let target = match wanted(option, version, is_immediate)? {
        Wanted::Current => return Ok(()),
        Wanted::Latest => latest(archive, backup.timeline)?,
        Wanted::Id(id) => id,
    };
    if target == backup.timeline { Ok(()) } else { check(&load(archive, target)?, target, backup) }
}

/// Returns the highest timeline with a history file, if it is above the backup's.
fn latest(archive: &ArchivePlace<'_>, backup: TimelineId) -> Result<TimelineId> {
    let path = layout::archive_path(archive.stanza, archive.id);
    let entries = archive.repo.storage.list(&path)?.unwrap_or_default();
    let highest = entries
        .iter()
        .filter_map(|entry| entry.name.strip_suffix(layout::TIMELINE_HISTORY_SUFFIX))
        .filter(|name| name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .filter_map(|name| u32::from_str_radix(name, 16).ok())
        .max();
    Ok(highest.map(TimelineId).filter(|highest| *highest > backup).unwrap_or(backup))
}

/// Reads the history of a timeline.
///
/// # Errors
/// [`ErrorCode::FileMissing`] if the archive has none; [`ErrorCode::Format`] if it can't be parsed.
pub(crate) fn load(archive: &ArchivePlace<'_>, timeline: TimelineId) -> Result<TimelineHistory> {
    let name = format!("{:08X}{}", timeline.0, layout::TIMELINE_HISTORY_SUFFIX);
    let path = layout::archive_file(archive.stanza, archive.id, &name)?;
    let shown = archive.repo.storage.display(&path);
    let range = ReadRange { offset: 0, limit: Some(HISTORY_SIZE_MAX) };
    let mut reader =
        archive.repo.storage.read(&path, range)?.ok_or_else(|| {
            Error::new(ErrorCode::FileMissing, format!("unable to open missing file '{shown}' for read"))
        })?;
    let mut stored = Vec::new();
    reader
        .read_to_end(&mut stored)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{shown}'"), error))?;
    let text = cipher::decrypt(&archive.cipher, &stored)?;
    TimelineHistory::parse(&String::from_utf8_lossy(&text)).map_err(|error| {
        Error::new(ErrorCode::Format, format!("invalid timeline '{:X}' at '{shown}': {}", timeline.0, error.message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKUP: BackupPosition = BackupPosition { timeline: TimelineId(4), lsn_start: Lsn(0x500_0028) };

    fn history(text: &str) -> TimelineHistory {
        TimelineHistory::parse(text).unwrap()
    }

    #[test]
    fn wanted_default_depends_on_version_and_type() {
        assert_eq!(wanted(None, PgVersion::V11, false).unwrap(), Wanted::Current);
        assert_eq!(wanted(None, PgVersion::V12, false).unwrap(), Wanted::Latest);
        assert_eq!(wanted(None, PgVersion::V12, true).unwrap(), Wanted::Current);
        assert_eq!(wanted(Some("latest"), PgVersion::V11, true).unwrap(), Wanted::Latest);
    }

    #[test]
    fn wanted_number_is_decimal_or_hex() {
        assert_eq!(wanted(Some("10"), PgVersion::V15, false).unwrap(), Wanted::Id(TimelineId(10)));
        assert_eq!(wanted(Some("0x1A"), PgVersion::V15, false).unwrap(), Wanted::Id(TimelineId(26)));
        for bad in ["", "x", "1A", "0x", "0xG", "+1", "0x+1", "-1", "99999999999"] {
            assert_eq!(wanted(Some(bad), PgVersion::V15, false).unwrap_err().code, ErrorCode::DbMismatch, "{bad}");
        }
    }

    #[test]
    fn check_fork_after_backup_passes() {
        check(&history("1\t0/1000000\tx\n4\t0/5000029\tx\n"), TimelineId(5), BACKUP).unwrap();
    }

    #[test]
    fn check_fork_at_or_before_backup_is_refused() {
        let error = check(&history("4\t0/5000028\tx\n"), TimelineId(0x1A), BACKUP).unwrap_err();
        assert_eq!(error.code, ErrorCode::DbMismatch);
        assert_eq!(
            error.message,
            "target timeline 1A forked from backup timeline 4 at 0/5000028 which is before backup lsn of 0/5000028"
        );
    }

    #[test]
    fn check_unrelated_timeline_is_refused() {
        let error = check(&history("3\t0/9000000\tx\n"), TimelineId(7), BACKUP).unwrap_err();
        assert_eq!(error.message, "backup timeline 4, lsn 0/5000028 is not in the history of target timeline 7");
    }
}
