//! What a loss of the cluster would cost: the recovery time that the last proof measured (RTO), and the age of the newest
//! WAL in the archive (RPO).
//!
//! Both are read from the repository. How much WAL a running server has not archived yet needs its position as well
//! ([`ServerWal`]).

use std::sync::Arc;

use repo_format::label::BackupLabel;
use repo_format::layout::{self, ArchiveId, Stanza};
use repo_format::wal_name::{ArchivedSegment, Lsn, SEGMENT_DIR_LEN, TimelineId, WalSegment};

use crate::pg::PgHost;
use crate::pg::cluster::{self, Search};
use crate::proof::{Phases, ProofFact, ProofReport, Verdict, store};
use crate::repo::info_files;
use crate::session::Session;
use crate::{Repo, Result};

/// Bytes of a TiB.
const TIB: u128 = 1 << 40;

/// What a recovery from one repository takes and loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryObjectives {
    /// The recovery time; `None` if no backup of the repository is proven.
    pub rto: Option<MeasuredRto>,
    /// The newest WAL of the current cluster; `None` if the archive has none.
    pub rpo: Option<NewestWal>,
}

/// The recovery time that a proof measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredRto {
    /// The backup that was restored.
    pub backup: BackupLabel,
    /// When the test ended, in seconds since the epoch.
    pub time: i64,
    /// From the start of the test until the cluster accepted writes, in milliseconds.
    pub rto_ms: u64,
    /// The phases.
    pub phases: Phases,
    /// Bytes of the cluster.
    pub size: u64,
}

impl MeasuredRto {
    /// The newest of these proofs that passed.
    pub fn of<'a>(proofs: impl IntoIterator<Item = &'a ProofFact>) -> Option<Self> {
        let known = proofs.into_iter().filter_map(|fact| match fact {
            ProofFact::Known(proof) => Some(&proof.report),
            ProofFact::Unreadable(_) => None,
        });
        known.filter_map(Self::of_report).max_by_key(|measured| measured.time)
    }

    fn of_report(report: &ProofReport) -> Option<Self> {
        let backup = report.backup.label.parse().ok()?;
        let is_measured = report.result == Verdict::Passed && report.rto_ms > 0;
        is_measured.then_some(MeasuredRto {
            backup,
            time: report.stop,
            rto_ms: report.rto_ms,
            phases: report.phases,
            size: report.backup.size,
        })
    }

    /// The recovery time of a TiB at this rate, in milliseconds; `None` for an empty cluster. The time of a small cluster
    /// is mostly that of starting programs, and says little about a large one.
    pub fn rto_ms_per_tib(&self) -> Option<u64> {
        let scaled = u128::from(self.rto_ms).checked_mul(TIB)?.checked_div(u128::from(self.size))?;
        u64::try_from(scaled).ok()
    }
}

/// The newest WAL of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestWal {
    /// The archive.
    pub archive: ArchiveId,
    /// The last segment of the newest timeline.
    pub segment: WalSegment,
    /// When it was stored, in seconds since the epoch. A repository that was copied without times has the time of the
    /// copy.
    pub stored: i64,
}

impl NewestWal {
    /// The age in seconds, at this time in seconds since the epoch: as much is lost with the server, if it had anything
    /// to archive.
    pub fn age(&self, now: i64) -> u64 {
        u64::try_from(now.saturating_sub(self.stored)).unwrap_or(0)
    }

    /// Bytes of WAL that a server has written and not archived.
    pub fn unarchived_bytes(&self, server: &ServerWal) -> u64 {
        let end = self.segment.next(server.segment_size).start_lsn(server.segment_size);
        server.lsn.0.saturating_sub(end.0)
    }
}

/// Where a running primary writes WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerWal {
    /// The timeline.
    pub timeline: TimelineId,
    /// The next record is inserted here.
    pub lsn: Lsn,
    /// Size of a segment in bytes.
    pub segment_size: u32,
}

/// Asks the primary where it writes WAL. `None` if none of the hosts has one.
///
/// # Errors
/// A cluster can't be asked.
pub fn server_wal(pg: &[Arc<dyn PgHost>], session: &Session) -> Result<Option<ServerWal>> {
    let found = cluster::find(pg, Search::default(), session.cancel_token())?;
    let Some(mut primary) = found.primary else { return Ok(None) };
    let (timeline, segment_size) = (primary.control().timeline, primary.control().wal_segment_size);
    Ok(Some(ServerWal { timeline, lsn: primary.insert_lsn()?, segment_size }))
}

/// Reads them from a repository.
///
/// # Errors
/// Proofs or WAL can't be listed, or archive.info can't be read. A proof that can't be read does not count.
pub(crate) fn of_repo(repo: &Repo, stanza: &Stanza) -> Result<RecoveryObjectives> {
    let newest = || {
        let info = info_files::load_archive_info(repo, stanza)?;
        newest_wal(repo, stanza, info.current().archive_id())
    };
    let (proofs, rpo) = repo.both(|| store::last_proofs(repo, stanza), newest);
    Ok(RecoveryObjectives { rto: MeasuredRto::of(proofs?.values()), rpo: rpo? })
}

/// Returns the last segment of the newest timeline of an archive.
///
/// # Errors
/// A directory can't be listed.
pub fn newest_wal(repo: &Repo, stanza: &Stanza, archive: ArchiveId) -> Result<Option<NewestWal>> {
    let path = layout::archive_path(stanza, archive);
    let is_dir = |name: &str| name.len() == SEGMENT_DIR_LEN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let names = repo.storage.names(&path)?.unwrap_or_default();
    // Not every directory contains segments
    for dir in names.iter().rev().filter(|name| is_dir(name)) {
        let entries = repo.storage.list(&path.join(dir)?)?.unwrap_or_default();
        let segments = entries.iter().filter_map(|entry| {
            let stored = entry.name.parse::<ArchivedSegment>().ok().filter(|stored| !stored.partial)?;
            // A recovery looks for a segment only in the directory that it belongs to
            entry.name.starts_with(dir.as_str()).then_some(())?;
            Some((stored.segment, entry.modified))
        });
        if let Some((segment, stored)) = segments.max() {
            return Ok(Some(NewestWal { archive, segment, stored }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use repo_format::cipher::Cipher;
    use repo_format::layout::RepoPath;
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::proof::StoredProof;
    use crate::proof::report::tests::{check, report};
    use crate::proof::{CheckOutcome, CheckReport};
    use crate::storage::memory::MemoryStorage;
    use crate::storage::{self, WriteOptions};

    fn fact(checks: Vec<CheckReport>, stop: i64) -> ProofFact {
        let report = ProofReport { stop, ..report(checks) };
        ProofFact::Known(Box::new(StoredProof { line: String::new(), report, signature: None }))
    }

    #[test]
    fn recovery_time_is_that_of_the_newest_proof_that_passed() {
        let failed = fact(vec![check("sql", CheckOutcome::Failed)], 1_700_000_300);
        let facts = [fact(vec![], 1_700_000_100), fact(vec![], 1_700_000_200), failed];
        let measured = MeasuredRto::of(facts.iter().chain([&ProofFact::Unreadable("x".into())])).unwrap();
        assert_eq!((measured.time, measured.rto_ms), (1_700_000_200, 321));
        assert_eq!(MeasuredRto::of([&facts[2]]), None);
    }

    #[test]
    fn recovery_time_of_a_tib_is_scaled_by_the_size() {
        let mut measured = MeasuredRto::of([&fact(vec![], 7)]).unwrap();
        measured.size = 1 << 39;
        assert_eq!(measured.rto_ms_per_tib(), Some(642));
        measured.size = 0;
        assert_eq!(measured.rto_ms_per_tib(), None);
        (measured.size, measured.rto_ms) = (1, u64::MAX);
        assert_eq!(measured.rto_ms_per_tib(), None);
    }

    #[test]
    fn newest_wal_is_the_last_segment_of_the_newest_timeline() {
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
        let (stanza, archive) = ("demo".parse().unwrap(), ArchiveId { version: PgVersion::V15, id: 1 });
        assert_eq!(newest_wal(&repo, &stanza, archive).unwrap(), None);
        let sum = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        for name in [
            format!("0000000100000000/000000010000000000000009-{sum}"),
            format!("0000000200000000/000000020000000000000005-{sum}.zst"),
            format!("0000000200000000/000000020000000000000006-{sum}.zst"),
            format!("0000000200000000/000000020000000000000007.partial-{sum}.zst"),
            format!("0000000200000000/000000020000000000000008-{sum}.pgbackrest.tmp"),
            format!("0000000200000000/000000030000000000000009-{sum}.zst"),
            "0000000200000001/junk".to_owned(),
            "zzzzzzzzzzzzzzzz/junk".to_owned(),
        ] {
            let path = RepoPath::new(format!("archive/demo/15-1/{name}")).unwrap();
            storage::put(&*repo.storage, &path, b"x", WriteOptions::ATOMIC).unwrap();
        }
        let newest = newest_wal(&repo, &stanza, archive).unwrap().unwrap();
        assert_eq!(newest.segment.to_string(), "000000020000000000000006");
        assert_eq!((newest.age(newest.stored + 90), newest.age(newest.stored - 5)), (90, 0));
        let server = |lsn| ServerWal { timeline: TimelineId(2), lsn: Lsn(lsn), segment_size: 16 << 20 };
        assert_eq!(newest.unarchived_bytes(&server(0x0700_0100)), 0x100);
        assert_eq!(newest.unarchived_bytes(&server(0x0600_0100)), 0);
    }
}
