//! Looks for a segment in the spool.

use engine::Result;
use repo_format::pg::control::PgControl;

use super::claim;
use crate::spool::Spool;

/// What the spool says about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is there.
    Here,
    /// A worker found it in no repository.
    Missing,
    /// Nothing yet.
    Nothing,
}

/// What a look at the spool believes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beliefs {
    /// The segment may be from an earlier worker, so its size is checked.
    pub(super) from_earlier: bool,
    /// A worker that did not find the segment has looked recently enough.
    pub(super) missing_counts: bool,
    /// An error of a worker is the result of this call.
    pub(super) errors_count: bool,
}

/// Looks for a segment and for what a worker left about it.
///
/// # Errors
/// The spool can't be read, or the error of a worker, if it counts.
pub(super) fn look(spool: &Spool, control: &PgControl, wal_segment: &str, beliefs: Beliefs) -> Result<Seen> {
    let mut found =
        if beliefs.from_earlier { is_whole(spool, control, wal_segment)? } else { spool.exists(wal_segment)? };
    if spool.status(wal_segment, beliefs.errors_count, false)? {
        let now = if found { Now::Here } else { look_again(spool, wal_segment)? };
        found = now == Now::Here;
        let is_missing = now == Now::Missing && beliefs.missing_counts;
        if found || is_missing {
            // For its warnings, now that it is decided
            spool.status(wal_segment, false, true)?;
        }
        if now != Now::OnItsWay {
            spool.remove(&repo_format::spool::ok_name(wal_segment))?;
        }
        if is_missing {
            return Ok(Seen::Missing);
        }
    }
    Ok(if found { Seen::Here } else { Seen::Nothing })
}

/// Where a segment is that the worker has processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Now {
    /// In the spool.
    Here,
    /// About to get its name there, unless the worker has died.
    OnItsWay,
    /// In no archive.
    Missing,
}

/// Determines where a segment is whose status says that it is done, and that was not in the spool before the status was
/// read. The worker writes warnings before it renames the segment, so the status alone does not mean that the segment
/// is missing. The checks follow the order of the rename: first the temporary name, then the segment's own.
pub(super) fn look_again(spool: &Spool, wal_segment: &str) -> Result<Now> {
    if spool.list()?.iter().any(|name| claim::is_temporary(name.as_bytes(), wal_segment.as_bytes())) {
        return Ok(Now::OnItsWay);
    }
    Ok(if spool.exists(wal_segment)? { Now::Here } else { Now::Missing })
}

/// Returns whether the spool contains a segment that an earlier worker has fetched. A segment of the wrong size, which
/// a broken file system may leave, is removed and fetched again. (What a worker fetches while this call waits needs no
/// check, because it was just compared with its checksum.)
pub(super) fn is_whole(spool: &Spool, control: &PgControl, wal_segment: &str) -> Result<bool> {
    if !spool.exists(wal_segment)? {
        return Ok(false);
    }
    let size = crate::push::queue::file_size(&spool.file(wal_segment))?;
    if size == u64::from(control.wal_segment_size) {
        return Ok(true);
    }
    engine::warn!(
        "WAL segment '{wal_segment}' in the spool has {size} byte(s) instead of {} and is fetched again",
        control.wal_segment_size
    );
    // First the status, because without the segment it would mean that the segment is in no archive
    spool.remove(&repo_format::spool::ok_name(wal_segment))?;
    spool.remove(wal_segment)?;
    Ok(false)
}
