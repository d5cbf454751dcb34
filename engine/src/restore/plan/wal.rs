//! The WAL that a recovery needs, and whether the archive has it.

use repo_format::layout::{ArchiveId, Stanza};
use repo_format::manifest::Manifest;
use repo_format::wal_name::{Lsn, TimelineId, WalSegment};

use super::super::recovery_conf::{RecoverySettings, RecoveryType};
use crate::recovery_points::{self, WindowEnd};
use crate::repo::info_files;
use crate::{Error, ErrorCode, Repo, Result};

/// The WAL of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedWal {
    /// The timeline that recovery goes to.
    pub timeline: TimelineId,
    /// The first segment.
    pub first: WalSegment,
    /// The last segment that makes the backup consistent.
    pub consistent: WalSegment,
    /// Where recovery is to end, if that is known without reading WAL.
    pub target: Option<Lsn>,
    /// The archive has the WAL without a gap up to this position.
    pub available: Lsn,
    /// Why it ends there.
    pub available_end: WindowEnd,
    /// Segments from the first to the target, or without a target to the end of the WAL.
    pub segments: u64,
    /// Bytes of these segments when decompressed.
    pub bytes: u64,
    /// Whether the archive has all of them, and at least those that make the backup consistent. Without a target, and
    /// for a target whose position is not known, no segment may be missing before the newest one: recovery would end
    /// there.
    pub is_complete: bool,
    /// Whether it has at least those that make the backup consistent.
    pub is_consistent: bool,
}

/// Compares what a recovery reads with the archive.
///
/// # Errors
/// The archive can't be listed, or a position is not valid.
pub(super) fn plan(
    repo: &Repo,
    stanza: &Stanza,
    manifest: &Manifest,
    recovery: &RecoverySettings,
    timeline: TimelineId,
) -> Result<PlannedWal> {
    let data = &manifest.data;
    let missing = || Error::new(ErrorCode::Format, "online backup has no WAL positions in its manifest");
    let lsn = |text: &Option<String>| text.as_deref().ok_or_else(missing)?.parse::<Lsn>();
    let (start, stop) = (lsn(&data.lsn_start)?, lsn(&data.lsn_stop)?);
    let (first, consistent) = (data.archive_start.ok_or_else(missing)?, data.archive_stop.ok_or_else(missing)?);
    let target = match &recovery.kind {
        RecoveryType::Lsn(text) => Some(text.parse::<Lsn>()?.max(stop)),
        RecoveryType::Immediate => Some(stop),
        _ => None,
    };
    let archive_info = info_files::load_archive_info(repo, stanza)?;
    let id = ArchiveId { version: data.pg_version, id: data.pg_id };
    let cipher = info_files::archive_cipher(repo, stanza, &archive_info);
    // A backup with a copy of its WAL needs the archive only for what follows
    let from = if data.options.archive_copy { stop } else { start };
    let reach = recovery_points::reach(repo, stanza, (id, &cipher), (timeline, from))?;
    let available = if data.options.archive_copy { reach.end.max(stop) } else { reach.end };
    let last = target.map_or(available, |target| Lsn(target.0.saturating_add(1)));
    let size = u64::from(reach.segment_size);
    let segments = last.0.div_ceil(size).saturating_sub(start.0 / size);
    let is_consistent = available >= stop;
    let is_complete = is_consistent
        && match target {
            Some(target) => target < available || target == stop,
            None => reach.end_reason == WindowEnd::Newest || recovery.kind == RecoveryType::None,
        };
    Ok(PlannedWal {
        timeline,
        first,
        consistent,
        target,
        available,
        available_end: reach.end_reason,
        segments,
        bytes: segments.saturating_mul(size),
        is_complete,
        is_consistent,
    })
}
