//! Asks the clusters of a stanza where they write WAL.

use std::sync::Arc;

use engine::Result;
use engine::info::{ArchiveFact, StanzaFact};
use engine::pg::session::{PgSession, WalProgress};
use monitor::snapshot::{ArchiverView, ClusterView, LagView, StanzaView};
use repo_format::wal_name::WalSegment;

use super::{ANSWER_MAX, now, within};
use crate::config::{Config, opt};
use crate::{cancel_token, pg};

/// How long an answer of a cluster on another host is good for, in seconds. Each question starts a process there.
const REMOTE_INTERVAL_S: i64 = 600;

/// Asks all clusters at the same time.
pub(super) fn collect(config: &Arc<Config>, fact: &StanzaFact, previous: Option<&StanzaView>) -> Vec<ClusterView> {
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
        let thread = std::thread::Builder::new().spawn(move || within(ANSWER_MAX, move || progress(&config, key)));
        (key, host, Ok(thread))
    };
    let asked: Vec<_> = config.pg_keys().iter().map(ask).collect();
    let views = asked.into_iter().map(|(key, host, asked)| match asked {
        Err(known) => known,
        Ok(thread) => {
            let answer = thread.ok().and_then(|thread| thread.join().ok());
            view(ClusterView { key, host, time: now(), ..ClusterView::default() }, answer, fact)
        }
    });
    views.collect()
}

fn progress(config: &Config, key: u32) -> Result<Option<WalProgress>> {
    PgSession::connect(&pg::host(config, key)?, cancel_token())?.wal_progress()
}

fn view(begun: ClusterView, answer: Option<Result<Option<WalProgress>>>, fact: &StanzaFact) -> ClusterView {
    let progress = match answer {
        None => return ClusterView { error: Some("unable to ask the cluster".to_owned()), ..begun },
        Some(Err(error)) => return ClusterView { error: Some(format!("[{}] {error}", error.code)), ..begun },
        Some(Ok(None)) => return ClusterView { is_standby: true, ..begun },
        Some(Ok(Some(progress))) => progress,
    };
    let archiver = ArchiverView {
        last_archived_time: progress.last_archived,
        failed_count: progress.failed_count,
        failing: progress.failing.clone(),
        ready: progress.ready.map(|(files, _)| files),
        ready_seconds: progress.ready.map(|(_, seconds)| seconds),
    };
    let lag = fact.repos.iter().filter_map(|repo| {
        let archives = fact.archives.iter().filter(|archive| archive.repo_key == repo.key);
        lag(repo.key, archives.max_by_key(|archive| archive.db_id)?, &progress)
    });
    ClusterView {
        lsn: Some(progress.lsn.to_string()),
        wal_segment: Some(progress.segment.to_string()),
        archiver: Some(archiver),
        lag: lag.collect(),
        ..begun
    }
}

/// How far an archive is behind; `None` without any segment.
fn lag(repo_key: u32, archive: &ArchiveFact, progress: &WalProgress) -> Option<LagView> {
    let newest: WalSegment = archive.max.as_ref()?.parse().ok()?;
    let size = u64::from(progress.segment_size).max(1);
    let begin = |segment: &WalSegment| segment.start_lsn(progress.segment_size).0;
    let archived = begin(&newest).saturating_add(size);
    Some(LagView {
        repo_key,
        segments: begin(&progress.segment).saturating_sub(archived) / size,
        bytes: progress.lsn.0.saturating_sub(archived),
    })
}
