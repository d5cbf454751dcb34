//! Finds WAL segments in the archive (pgBackRest `src/command/archive/find.c`).

use std::time::Duration;

use repo_format::layout::{self, ArchiveId, RepoPath, Stanza};
use repo_format::pg::PgVersion;
use repo_format::size::format_size;
use repo_format::wal_name::{ArchivedSegment, PARTIAL_SUFFIX, WalSegment};

use crate::storage::RepoStorage;
use crate::work::backoff::Backoff;
use crate::{CancelToken, Error, ErrorCode, Result};

/// The size of a segment if nobody says another, in bytes.
const DEFAULT_SEGMENT_SIZE: u32 = 16 << 20;

/// A segment found in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    /// The parsed name.
    pub name: ArchivedSegment,
    /// The path.
    pub path: RepoPath,
}

/// The names in a segment's directory from the segment on.
#[derive(Clone, Debug)]
pub struct ListedNames {
    directory: RepoPath,
    names: Vec<String>,
}

/// Lists the directory of a segment in the first archive of a stanza. It is the right archive unless the stanza was
/// upgraded. On a server this runs while archive.info, which contains the archive id, is still being loaded.
///
/// # Errors
/// The directory can't be listed.
pub fn list_ahead(
    storage: &dyn RepoStorage,
    stanza: &Stanza,
    version: PgVersion,
    segment: &WalSegment,
) -> Result<ListedNames> {
    list_in(storage, stanza, ArchiveId::first(version), segment)
}

/// Lists the directory of a segment in an archive.
///
/// # Errors
/// It can't be listed.
pub(crate) fn list_in(
    storage: &dyn RepoStorage,
    stanza: &Stanza,
    archive_id: ArchiveId,
    segment: &WalSegment,
) -> Result<ListedNames> {
    let directory = layout::wal_dir(stanza, archive_id, segment);
    let names = storage.names_after(&directory, &segment.to_string())?;
    Ok(ListedNames { directory, names })
}

/// Says that a segment may not have arrived because the repository is full. What archives it may run on another host, and only
/// the log of PostgreSQL there has its error.
fn with_space_hint(error: Error, place: &str, bytes_free: Option<u64>, segment_size: u32) -> Error {
    match bytes_free {
        Some(free) if free < space_low(segment_size) => {
            let size = format_size(free);
            error.hint(format!("the repository may have no space left for WAL: {size} are free at '{place}'."))
        }
        _ => error,
    }
}

/// With less space, in bytes, a repository may have no room for a segment that is not compressed, and for what others write
/// meanwhile.
fn space_low(segment_size: u32) -> u64 {
    u64::from(segment_size) + u64::from(segment_size) / 4
}

/// Looks for segments in one archive. The listing of a directory is kept while it is useful, so that looking for many
/// segments in ascending order does not list it each time.
pub struct WalSegmentFind<'a> {
    storage: &'a dyn RepoStorage,
    stanza: &'a Stanza,
    archive_id: ArchiveId,
    timeout: Duration,
    cancel: &'a CancelToken,
    /// In bytes.
    segment_size: u32,
    directory: Option<RepoPath>,
    /// Names of the directory that were not passed yet, in ascending order.
    names: Vec<String>,
    /// A listing from before the first lookup.
    ahead: Option<ListedNames>,
    /// Names of temporary files of the segment looked up last.
    temporary: Vec<String>,
}

impl<'a> WalSegmentFind<'a> {
    /// Creates a search that waits up to `timeout` for each segment to arrive. With zero it looks once, and a missing
    /// segment is not an error.
    pub fn new(
        storage: &'a dyn RepoStorage,
        stanza: &'a Stanza,
        archive_id: ArchiveId,
        timeout: Duration,
        cancel: &'a CancelToken,
    ) -> Self {
        WalSegmentFind {
            storage,
            stanza,
            archive_id,
            timeout,
            cancel,
            segment_size: DEFAULT_SEGMENT_SIZE,
            directory: None,
            names: Vec::new(),
            ahead: None,
            temporary: Vec::new(),
        }
    }

    /// The same, where a directory was listed just now.
    #[must_use]
    pub fn with_listed(self, ahead: Option<ListedNames>) -> Self {
        WalSegmentFind { ahead, ..self }
    }

    /// The same for segments of this size, in bytes, whose room is looked at if they do not arrive.
    #[must_use]
    pub fn with_segment_size(self, segment_size: u32) -> Self {
        WalSegmentFind { segment_size, ..self }
    }

    /// Finds a segment, or with `partial` the partial segment of that name.
    ///
    /// # Errors
    /// [`ErrorCode::ArchiveDuplicate`] if the archive has it with several contents or compressions;
    /// [`ErrorCode::ArchiveTimeout`] if it does not arrive; [`ErrorCode::OptionInvalidValue`] if it is compressed with
    /// xz.
    pub fn find(&mut self, segment: &WalSegment, partial: bool) -> Result<Option<FoundSegment>> {
        let directory = layout::wal_dir(self.stanza, self.archive_id, segment);
        let mut pauses = Backoff::polling(self.timeout).start();
        loop {
            let is_kept = self.directory.as_ref() == Some(&directory) && !self.names.is_empty();
            if !is_kept {
                self.list(&directory, segment)?;
            }
            if let Some(found) = self.find_listed(&directory, segment, partial)? {
                return Ok(Some(found));
            }
            // A listing for an earlier segment may be too old for this one
            if is_kept {
                continue;
            }
            if !pauses.wait(self.cancel)? {
                break;
            }
        }
        if self.timeout.is_zero() {
            return Ok(None);
        }
        let suffix = if partial { PARTIAL_SUFFIX } else { "" };
        let text =
            format!("WAL segment {segment}{suffix} was not archived before the {}ms timeout", self.timeout.as_millis());
        let error = Error::new(ErrorCode::ArchiveTimeout, text)
            .hint("check the archive_command to ensure that all options are correct (especially --stanza).")
            .hint("check the PostgreSQL server log for errors.")
            .hint("run the 'start' command if the stanza was previously stopped.");
        let place = layout::archive_stanza(self.stanza);
        let bytes_free = self.storage.bytes_free(&place);
        Err(with_space_hint(error, &self.storage.display(&place), bytes_free, self.segment_size))
    }

    /// Returns the names of temporary files of the segment looked up last, which are being written or were abandoned.
    pub fn into_temporary(self) -> Vec<String> {
        self.temporary
    }

    /// Stored names continue after the segment's name
    fn list(&mut self, directory: &RepoPath, segment: &WalSegment) -> Result<()> {
        self.names = match self.ahead.take().filter(|ahead| ahead.directory == *directory) {
            Some(ahead) => ahead.names,
            None => self.storage.names_after(directory, &segment.to_string())?,
        };
        self.directory = Some(directory.clone());
        Ok(())
    }

    /// Looks up the kept names and drops those up to the segment's. So a later segment finds its names first, and an
    /// earlier or missing one soon empties the list, which is then read again.
    fn find_listed(
        &mut self,
        directory: &RepoPath,
        segment: &WalSegment,
        partial: bool,
    ) -> Result<Option<FoundSegment>> {
        let wanted = segment.to_string();
        let mut matches = Vec::new();
        let mut failed = None;
        let mut keep_from = self.names.len();
        self.temporary.clear();
        for (at, name) in self.names.iter().enumerate() {
            if !name.starts_with(&wanted) {
                if name.as_str() > wanted.as_str() {
                    keep_from = at;
                    break;
                }
                continue;
            }
            if name.ends_with(layout::TEMP_SUFFIX) {
                self.temporary.push(name.clone());
            }
            match name.parse::<ArchivedSegment>() {
                Ok(archived) if archived.partial == partial => matches.push((name.clone(), archived)),
                // A name of another form is not this segment: its partial segment, a backup's note, or a foreign file
                Ok(_) => {}
                Err(error) if error.code == ErrorCode::Format => {}
                Err(error) => failed = Some(error),
            }
        }
        self.names.drain(..keep_from);
        if let Some(error) = failed {
            return Err(error);
        }
        match matches.as_slice() {
            [] => {
                self.names.clear();
                Ok(None)
            }
            [(name, archived)] => Ok(Some(FoundSegment { name: *archived, path: directory.join(name)? })),
            several => {
                self.names.clear();
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                let suffix = if partial { PARTIAL_SUFFIX } else { "" };
                let text =
                    format!("duplicates found in archive for WAL segment {wanted}{suffix}: {}", names.join(", "));
                Err(Error::new(ErrorCode::ArchiveDuplicate, text)
                    .hint("are multiple primaries archiving to this stanza?"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::faulty::{FaultyStorage, Op};
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{WriteOptions, put};

    const DIR: &str = "archive/main/15-1/0000000100000000";
    const HASH: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    fn stanza() -> Stanza {
        "main".parse::<Stanza>().unwrap()
    }

    fn archive_with(names: &[&str]) -> FaultyStorage {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        for name in names {
            put(&storage, &RepoPath::new(format!("{DIR}/{name}")).unwrap(), b"x", WriteOptions::ATOMIC).unwrap();
        }
        storage
    }

    fn find(storage: &FaultyStorage, segment: &str, partial: bool, timeout_ms: u64) -> Result<Option<String>> {
        let (stanza, cancel) = (stanza(), CancelToken::new());
        let timeout = Duration::from_millis(timeout_ms);
        let mut find = WalSegmentFind::new(storage, &stanza, "15-1".parse().unwrap(), timeout, &cancel);
        Ok(find.find(&segment.parse()?, partial)?.map(|found| found.path.file_name().to_owned()))
    }

    #[test]
    fn find_one_matches_only_the_segment_itself() {
        let name = format!("000000010000000000000002-{HASH}.gz");
        let partial = format!("000000010000000000000002.partial-{HASH}.gz");
        let storage = archive_with(&[
            &format!("000000010000000000000001-{HASH}.gz"),
            &name,
            &partial,
            "000000010000000000000002.00000028.backup",
            &format!("000000010000000000000002-{HASH}.gz.pgbackrest.tmp"),
            "junk",
        ]);
        assert_eq!(find(&storage, "000000010000000000000002", false, 0).unwrap(), Some(name));
        assert_eq!(find(&storage, "000000010000000000000002", true, 0).unwrap(), Some(partial));
        assert_eq!(find(&storage, "000000010000000000000003", false, 0).unwrap(), None);
        assert_eq!(find(&storage, "000000020000000000000002", false, 0).unwrap(), None);
    }

    #[test]
    fn find_with_several_contents_is_archive_duplicate() {
        let other = "ea39a3ee5e6b4b0d3255bfef95601890afd80709";
        let storage = archive_with(&[
            &format!("000000010000000000000002-{HASH}.gz"),
            &format!("000000010000000000000002-{other}.zst"),
        ]);
        let error = find(&storage, "000000010000000000000002", false, 100).unwrap_err();
        assert_eq!(error.code, ErrorCode::ArchiveDuplicate);
        assert_eq!(
            error.message,
            format!(
                "duplicates found in archive for WAL segment 000000010000000000000002: 000000010000000000000002-{HASH}.gz, \
                 000000010000000000000002-{other}.zst"
            )
        );
    }

    #[test]
    fn find_that_waits_in_vain_is_archive_timeout() {
        let error = find(&archive_with(&[]), "000000010000000000000002", false, 30).unwrap_err();
        assert_eq!(error.code, ErrorCode::ArchiveTimeout);
        assert_eq!(error.message, "WAL segment 000000010000000000000002 was not archived before the 30ms timeout");
        assert_eq!(error.hints.len(), 3);
    }

    #[test]
    fn segment_that_does_not_arrive_in_a_full_repository_had_no_hint_of_that() {
        let hints = |free, segment_size| {
            let (stanza, cancel) = (stanza(), CancelToken::new());
            let storage = match free {
                Some(free) => archive_with(&[]).with_bytes_free(free),
                None => archive_with(&[]),
            };
            let timeout = Duration::from_millis(10);
            let find = WalSegmentFind::new(&storage, &stanza, "15-1".parse().unwrap(), timeout, &cancel);
            let mut find = find.with_segment_size(segment_size);
            let error = find.find(&"000000010000000000000002".parse().unwrap(), false).unwrap_err();
            assert_eq!(error.code, ErrorCode::ArchiveTimeout);
            error.hints[3..].to_vec()
        };
        let hint =
            |size| [format!("the repository may have no space left for WAL: {size} are free at '/archive/main'.")];
        assert_eq!(hints(Some(0), 16 << 20), hint("0B"));
        assert_eq!(hints(Some(16 << 20), 16 << 20), hint("16MB"));
        assert_eq!(hints(Some(20 << 20), 16 << 20), [""; 0]);
        assert_eq!(hints(Some(512 << 20), 1 << 30), hint("512MB"));
        assert_eq!(hints(None, 1 << 30), [""; 0]);
        let dir = tempfile::tempdir().unwrap();
        let storage = crate::storage::posix::PosixStorage::new(dir.path());
        assert!(storage.bytes_free(&RepoPath::root()).is_some());
        assert_eq!(storage.bytes_free(&RepoPath::new("none").unwrap()), None);
    }

    #[test]
    fn find_many_lists_a_directory_once() {
        let names: Vec<String> = (1..=5).map(|n| format!("00000001000000000000000{n}-{HASH}.gz")).collect();
        let storage = archive_with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let (stanza, cancel) = (stanza(), CancelToken::new());
        let mut find =
            WalSegmentFind::new(&storage, &stanza, "15-1".parse().unwrap(), Duration::from_millis(20), &cancel);
        for n in 1..=5 {
            let segment = format!("00000001000000000000000{n}").parse().unwrap();
            assert_eq!(find.find(&segment, false).unwrap().unwrap().path.file_name(), names[n - 1]);
        }
        assert_eq!(storage.calls().iter().filter(|(op, _)| *op == Op::List).count(), 1);
        // An earlier one is found again, too
        let segment = "000000010000000000000002".parse().unwrap();
        assert_eq!(find.find(&segment, false).unwrap().unwrap().path.file_name(), names[1]);
    }

    #[test]
    fn what_was_listed_ahead_is_used_for_its_archive_alone() {
        let storage = archive_with(&[&format!("000000010000000000000002-{HASH}.gz")]);
        let (stanza, cancel, segment) = (stanza(), CancelToken::new(), "000000010000000000000002".parse().unwrap());
        for (archive, found, lists) in [("15-1", true, 1), ("15-2", false, 2)] {
            let before = storage.calls().len();
            let ahead = list_ahead(&storage, &stanza, PgVersion::V15, &segment).unwrap();
            let mut find = WalSegmentFind::new(&storage, &stanza, archive.parse().unwrap(), Duration::ZERO, &cancel)
                .with_listed(Some(ahead));
            assert_eq!(find.find(&segment, false).unwrap().is_some(), found, "{archive}");
            assert_eq!(storage.calls().len() - before, lists, "{archive}");
        }
    }

    #[test]
    fn find_sees_a_segment_that_arrives_meanwhile() {
        let storage = archive_with(&[&format!("000000010000000000000001-{HASH}.gz")]);
        let name = format!("000000010000000000000002-{HASH}.gz");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                let path = RepoPath::new(format!("{DIR}/{name}")).unwrap();
                put(&storage, &path, b"x", WriteOptions::ATOMIC).unwrap();
            });
            assert_eq!(find(&storage, "000000010000000000000002", false, 20_000).unwrap().as_ref(), Some(&name));
        });
    }

    #[test]
    fn find_with_listing_fault_is_that_error() {
        let storage = archive_with(&[]).fail(Op::List, 1);
        assert_eq!(find(&storage, "000000010000000000000002", false, 0).unwrap_err().code, ErrorCode::Service);
    }
}
