//! Whether recovery replayed all WAL that the archive has.
//!
//! PostgreSQL ends a recovery without a target at the first segment that it can't get, and calls that success. So a
//! missing or damaged segment would only show as lost transactions.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::time::Duration;

use repo_format::cipher::{Decryptor, Framing};
use repo_format::hash::Sha1Hasher;
use repo_format::layout::{self, ArchiveId, Stanza};
use repo_format::wal_name::{ArchivedSegment, Lsn, SEGMENT_DIR_LEN, TimelineId, WalSegment};

use super::blame::about_backup;
use crate::proof::CheckOutcome;
use crate::repo::archive_find::WalSegmentFind;
use crate::repo::info_files;
use crate::storage::ReadRange;
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Repo, Result, decode};

/// The size of the largest segment, in bytes.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a segment that are decoded at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// The archive of a cluster.
#[derive(Clone)]
pub struct WalPlace<'a> {
    /// The repository.
    pub repo: &'a Repo,
    /// The stanza.
    pub stanza: &'a Stanza,
    /// The directory of the cluster.
    pub id: ArchiveId,
}

/// The newest segment of each timeline.
pub type NewestSegments = BTreeMap<TimelineId, WalSegment>;

/// Lists the newest segment of each timeline from `first` on. It is taken before a test, because the cluster archives
/// more meanwhile.
///
/// # Errors
/// The archive can't be listed.
pub fn newest_segments(place: &WalPlace<'_>, first: TimelineId) -> Result<NewestSegments> {
    let storage = &place.repo.storage;
    let path = layout::archive_path(place.stanza, place.id);
    let mut newest = NewestSegments::new();
    let directories = storage.names(&path)?.unwrap_or_default();
    // No program writes names in lower case
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    let is_directory = |name: &&String| name.len() == SEGMENT_DIR_LEN && name.bytes().all(is_digit);
    for directory in directories.iter().rev().filter(is_directory) {
        let Some(timeline) = directory.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()) else { continue };
        let timeline = TimelineId(timeline);
        if timeline < first || newest.contains_key(&timeline) {
            continue;
        }
        let names = storage.names(&path.join(directory)?)?.unwrap_or_default();
        if let Some(last) = last_segment(directory, &names) {
            newest.insert(timeline, last);
        }
    }
    Ok(newest)
}

/// Returns the last segment in a directory. Others than those that belong there are never found by a recovery.
fn last_segment(directory: &str, names: &[String]) -> Option<WalSegment> {
    let here = names.iter().filter(|name| name.starts_with(directory));
    let segments = here.filter_map(|name| name.parse::<ArchivedSegment>().ok());
    segments.filter(|stored| !stored.partial).map(|stored| stored.segment).max()
}

/// Where recovery ended, on the timeline that it had followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryEnd {
    /// The timeline.
    pub timeline: TimelineId,
    /// The end of the last record that was replayed.
    pub lsn: Lsn,
}

/// What is wrong with the end of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalShort {
    /// All WAL was replayed.
    No,
    /// WAL from this segment on was not replayed, although the archive has WAL up to the other.
    From(WalSegment, WalSegment),
}

/// Compares the end of a recovery with the newest segment of its timeline.
pub fn compare(end: RecoveryEnd, newest: &NewestSegments, segment_size: u32) -> WalShort {
    let Some(&last) = newest.get(&end.timeline) else { return WalShort::No };
    // A record that ends with its segment does not need the next one
    let last_byte = Lsn(end.lsn.0.saturating_sub(1));
    let reached = WalSegment::from_lsn(end.timeline, last_byte, segment_size);
    if reached >= last { WalShort::No } else { WalShort::From(reached.next(segment_size), last) }
}

/// Checks that recovery reached the newest segment. Returns the outcome and its reason.
///
/// # Errors
/// The archive can't be listed.
pub fn check(
    place: &WalPlace<'_>,
    end: RecoveryEnd,
    newest: &NewestSegments,
    segment_size: u32,
    cancel: &CancelToken,
) -> Result<(CheckOutcome, String)> {
    let (next, last) = match compare(end, newest, segment_size) {
        WalShort::No => {
            let text = match newest.get(&end.timeline) {
                Some(last) => format!("recovered to {} in the newest archived segment {last} or after it", end.lsn),
                None => format!("recovered to {}, no WAL of timeline {} in the archive", end.lsn, end.timeline.0),
            };
            return Ok((CheckOutcome::Passed, text));
        }
        WalShort::From(next, last) => (next, last),
    };
    let mut find = WalSegmentFind::new(&*place.repo.storage, place.stanza, place.id, Duration::ZERO, cancel);
    let why = match find.find(&next, false) {
        Ok(None) => format!("WAL segment {next} is missing in the archive"),
        Ok(Some(_)) => format!("WAL from segment {next} on could not be used"),
        Err(error) => {
            let error = about_backup(error, &*place.repo.storage)?;
            format!("WAL segment {next} can't be used: {error}")
        }
    };
    let text = format!("{why}: recovery ended at {}, but the archive has WAL up to segment {last}", end.lsn);
    Ok((CheckOutcome::Failed, text))
}

/// Reads a segment. Returns whether the archive has it, and its content has the checksum in its name.
///
/// # Errors
/// It can't be read now.
pub fn is_good(place: &WalPlace<'_>, segment: &WalSegment, cancel: &CancelToken) -> Result<bool> {
    let good = || -> Result<bool> {
        let storage = &*place.repo.storage;
        let mut find = WalSegmentFind::new(storage, place.stanza, place.id, Duration::ZERO, cancel);
        let Some(found) = find.find(segment, false)? else { return Ok(false) };
        let info = info_files::load_archive_info(place.repo, place.stanza)?;
        let cipher = info_files::archive_cipher(place.repo, place.stanza, &info);
        let Some(stored) = storage.read(&found.path, ReadRange::default())? else { return Ok(false) };
        let plain = Decryptor::new(&cipher, Framing::Full, BufReader::new(stored));
        let mut reader = decode::decompressor(found.name.compress_type, plain, SEGMENT_BYTES_MAX, &Turn::FREE)?;
        let (mut hasher, mut buffer) = (Sha1Hasher::new(), vec![0; BUFFER_BYTES]);
        loop {
            cancel.check()?;
            let read = reader.read(&mut buffer).map_err(|error| {
                let shown = storage.display(&found.path);
                Error::from_io(ErrorCode::FileRead, format!("unable to read '{shown}'"), error)
            })?;
            if read == 0 {
                return Ok(hasher.finish() == found.name.checksum);
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
    };
    good().or_else(|error| about_backup(error, &*place.repo.storage).map(|_| false))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::Cipher;
    use repo_format::layout::RepoPath;
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::storage::faulty::FaultyStorage;
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{self, WriteOptions};

    const SIZE: u32 = 16 << 20;

    fn segment(name: &str) -> WalSegment {
        name.parse().unwrap()
    }

    fn compared(lsn: u64, last: &str) -> WalShort {
        let newest = NewestSegments::from([(TimelineId(1), segment(last))]);
        compare(RecoveryEnd { timeline: TimelineId(1), lsn: Lsn(lsn) }, &newest, SIZE)
    }

    #[test]
    fn names_that_no_recovery_asks_for_are_not_the_newest_segment() {
        let sum = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
        for name in [
            format!("0000000100000000/000000010000000000000003-{sum}"),
            // Those of another timeline and directory, unfinished ones, and others
            format!("0000000100000000/000000020000000000000009-{sum}"),
            format!("0000000100000000/000000010000000100000009-{sum}"),
            format!("0000000100000000/000000010000000000000004.partial-{sum}"),
            format!("0000000100000000/000000010000000000000005-{sum}.pgbackrest.tmp"),
            "0000000100000000/000000010000000000000006".to_owned(),
            "0000000100000000/zz".to_owned(),
            "0000000100000005/zz".to_owned(),
            format!("00000001000000zz/000000010000000000000007-{sum}"),
            format!("00000001000000ab/00000001000000ab00000007-{sum}"),
            format!("000000FF00000000/000000010000000000000007-{sum}"),
            format!("00000001/000000010000000000000007-{sum}"),
        ] {
            let path = RepoPath::new(format!("archive/demo/15-1/{name}")).unwrap();
            storage::put(&*repo.storage, &path, b"x", WriteOptions::ATOMIC).unwrap();
        }
        let stanza = "demo".parse().unwrap();
        let place = WalPlace { repo: &repo, stanza: &stanza, id: ArchiveId { version: PgVersion::V15, id: 1 } };
        let newest = newest_segments(&place, TimelineId(1)).unwrap();
        assert_eq!(newest, NewestSegments::from([(TimelineId(1), segment("000000010000000000000003"))]));
        assert_eq!(newest_segments(&place, TimelineId(2)).unwrap(), NewestSegments::new());
    }

    #[test]
    fn end_of_a_connection_was_taken_for_wal_that_is_not_good() {
        let stored = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        let repo = Repo { key: 1, storage: Arc::new(stored.clone()), cipher: Cipher::None };
        let text =
            "archive/demo/15-1/0000000100000000/000000010000000000000003-da39a3ee5e6b4b0d3255bfef95601890afd80709";
        storage::put(&stored, &RepoPath::new(text).unwrap(), b"damaged", WriteOptions::ATOMIC).unwrap();
        let stanza = "demo".parse().unwrap();
        let place = WalPlace { repo: &repo, stanza: &stanza, id: ArchiveId { version: PgVersion::V15, id: 1 } };
        let (wal, cancel) = (segment("000000010000000000000003"), CancelToken::new());
        let newest = NewestSegments::from([(TimelineId(1), wal)]);
        let end = RecoveryEnd { timeline: TimelineId(1), lsn: Lsn(0x0200_0100) };
        // archive.info is missing
        assert!(!is_good(&place, &wal, &cancel).unwrap());
        assert_eq!(check(&place, end, &newest, SIZE, &cancel).unwrap().0, CheckOutcome::Failed);
        stored.end();
        assert_eq!(is_good(&place, &wal, &cancel).unwrap_err().message, "unexpected EOF");
        assert_eq!(check(&place, end, &newest, SIZE, &cancel).unwrap_err().message, "unexpected EOF");
    }

    #[test]
    fn recovery_within_or_after_the_newest_segment_is_complete() {
        for lsn in [0x0300_0001, 0x0300_0028, 0x0400_0000, 0x0500_0000] {
            assert_eq!(compared(lsn, "000000010000000000000003"), WalShort::No, "{lsn:x}");
        }
    }

    #[test]
    fn recovery_that_ends_where_the_newest_segment_begins_lacks_it() {
        let last = segment("000000010000000000000003");
        assert_eq!(compared(0x0300_0000, "000000010000000000000003"), WalShort::From(last, last));
    }

    #[test]
    fn recovery_that_ends_earlier_names_the_first_segment_that_it_lacks() {
        let short = WalShort::From(segment("000000010000000000000003"), segment("000000010000000100000000"));
        assert_eq!(compared(0x0200_0100, "000000010000000100000000"), short);
    }

    #[test]
    fn newest_segment_of_another_timeline_does_not_count() {
        let newest = NewestSegments::from([(TimelineId(2), segment("000000020000000000000009"))]);
        let end = RecoveryEnd { timeline: TimelineId(1), lsn: Lsn(0x0200_0000) };
        assert_eq!(compare(end, &newest, SIZE), WalShort::No);
    }
}
