//! Asks the clusters of a stanza where they write WAL.

use std::sync::Arc;

use engine::Result;
use engine::info::{ArchiveFact, StanzaFact, StatusCode};
use engine::pg::session::{PgSession, WalProgress};
use monitor::snapshot::{ArchiverView, ClusterView, LagView, StanzaView};
use repo_format::wal_name::WalSegment;

use super::asked::{Asked, Patience};
use super::{ANSWER_MAX, now};
use crate::config::{Config, opt};
use crate::{cancel_token, pg};

/// How long an answer of a cluster on another host is good for, in seconds. Each question starts a process there.
const REMOTE_INTERVAL_S: i64 = 600;

/// Asks all clusters at the same time.
pub(super) fn collect(
    config: &Arc<Config>,
    patience: &Patience,
    fact: &StanzaFact,
    previous: Option<&StanzaView>,
) -> Vec<ClusterView> {
    let ask = |&key: &u32| {
        let host = config.find_at(opt::PG_HOST, key).map(str::to_owned);
        let known = previous.and_then(|stanza| stanza.clusters.iter().find(|cluster| cluster.key == key));
        let is_good = |known: &&ClusterView| {
            let age = now().saturating_sub(known.time);
            host.is_some() && known.host == host && known.error.is_none() && (0..REMOTE_INTERVAL_S).contains(&age)
        };
        if let Some(known) = known.filter(is_good) {
            return (key, host, Err(known.clone()));
        }
        let config = Arc::clone(config);
        (key, host, Ok(Asked::new(move || progress(&config, key))))
    };
    let asked: Vec<_> = config.pg_keys().iter().map(ask).collect();
    let views = asked.into_iter().map(|(key, host, asked)| match asked {
        Err(known) => known,
        Ok(asked) => {
            let answer = asked.within(patience.limit(ANSWER_MAX));
            view(ClusterView { key, host, time: now(), ..ClusterView::default() }, answer, fact)
        }
    });
    views.collect()
}

fn progress(config: &Config, key: u32) -> Result<Option<WalProgress>> {
    PgSession::connect(&pg::host(config, key)?, cancel_token())?.wal_progress()
}

fn view(begun: ClusterView, answer: Result<Option<WalProgress>>, fact: &StanzaFact) -> ClusterView {
    let progress = match answer {
        Err(error) => return ClusterView { error: Some(format!("[{}] {error}", error.code)), ..begun },
        Ok(None) => return ClusterView { is_standby: true, ..begun },
        Ok(Some(progress)) => progress,
    };
    let archiver = ArchiverView {
        last_archived_time: progress.last_archived,
        failed_count: progress.failed_count,
        failing: progress.failing.clone(),
        ready: progress.ready.map(|(files, _)| files),
        ready_seconds: progress.ready.map(|(_, seconds)| seconds),
    };
    let lag = fact.repos.iter().filter_map(|repo| {
        // Of what can't be read, nothing is known
        let is_readable =
            !matches!(repo.status, StatusCode::Other | StatusCode::MissingStanzaPath | StatusCode::MissingStanzaData);
        let archives = fact.archives.iter().filter(|archive| archive.repo_key == repo.key);
        let newest = archives.max_by_key(|archive| archive.db_id);
        is_readable.then(|| lag(repo.key, newest, &progress)).flatten()
    });
    ClusterView {
        lsn: Some(progress.lsn.to_string()),
        wal_segment: Some(progress.segment.to_string()),
        archiver: Some(archiver),
        lag: lag.collect(),
        ..begun
    }
}

/// How far an archive is behind. An archive without WAL of the cluster's timeline has none of the files that wait;
/// `None` if the role may not see these.
fn lag(repo_key: u32, archive: Option<&ArchiveFact>, progress: &WalProgress) -> Option<LagView> {
    let newest: Option<WalSegment> = archive.and_then(|archive| archive.max.as_ref()?.parse().ok());
    let size = u64::from(progress.segment_size).max(1);
    let begin = |segment: &WalSegment| segment.start_lsn(progress.segment_size).0;
    let segments = match newest.filter(|newest| newest.timeline == progress.segment.timeline) {
        Some(newest) => begin(&progress.segment).saturating_sub(begin(&newest).saturating_add(size)) / size,
        None => progress.ready?.0,
    };
    let unfinished = progress.lsn.0.saturating_sub(begin(&progress.segment));
    Some(LagView { repo_key, segments, bytes: segments.saturating_mul(size).saturating_add(unfinished) })
}

#[cfg(test)]
mod tests {
    use repo_format::wal_name::Lsn;

    use super::*;

    fn progress(lsn: u64, segment: &str, ready: u64) -> WalProgress {
        WalProgress {
            lsn: Lsn(lsn),
            segment: segment.parse().unwrap(),
            segment_size: 1 << 24,
            last_archived: None,
            failed_count: 0,
            failing: None,
            ready: Some((ready, 0)),
        }
    }

    fn archive(max: Option<&str>) -> ArchiveFact {
        let max = max.map(str::to_owned);
        ArchiveFact { db_id: 1, repo_key: 1, id: "17-1".parse().unwrap(), min: max.clone(), max }
    }

    #[test]
    fn lag_counts_complete_segments_and_the_bytes_of_the_unfinished_one() {
        let progress = progress(0x0500_0010, "000000010000000000000005", 9);
        let lag = |max| lag(1, Some(&archive(max)), &progress).map(|lag| (lag.segments, lag.bytes));
        assert_eq!(lag(Some("000000010000000000000004")), Some((0, 16)));
        assert_eq!(lag(Some("000000010000000000000002")), Some((2, (2 << 24) + 16)));
        assert_eq!(lag(Some("000000010000000000000005")), Some((0, 16)));
    }

    #[test]
    fn archive_without_wal_of_the_timeline_lacks_all_that_waits() {
        // A recovery to an earlier position: the archive has later segments of the timeline before
        let progress = progress(0x0500_0010, "000000020000000000000005", 3);
        let lag = |max| lag(1, Some(&archive(max)), &progress).map(|lag| lag.segments);
        assert_eq!(lag(Some("0000000100000000000000FF")), Some(3));
        assert_eq!(lag(None), Some(3));
        assert_eq!(super::lag(1, None, &progress).map(|lag| lag.segments), Some(3));
    }
}
