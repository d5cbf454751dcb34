//! Looks at one stanza.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::info::{BackupFact, Detail, InfoRequest, RunningLock, StanzaFact};
use engine::proof::{ProofFact, ProofReport};
use engine::recovery_points::RecoveryPointsRequest;
use engine::{ErrorCode, Result, Session};
use monitor::snapshot::{BackupView, ProofView, RunningView, StanzaView};

use super::asked::Asked;
use super::repo::RepoSet;
use super::{
    ANSWER_MAX, CollectRequest, Collection, LIST_MAX, cluster, now, phases, recovery, repo, spool, unreadable,
};
use crate::config::{Command, opt};
use crate::render::{info_json, info_lock};

/// How long counting databases may take.
const COUNT_MAX: Duration = Duration::from_secs(10);

/// What is known of a stanza.
pub(super) struct CollectedStanza {
    pub(super) view: StanzaView,
    /// Its JSON of `info`.
    pub(super) info: String,
    /// What could not be collected.
    pub(super) errors: Vec<String>,
}

/// Looks at a stanza. What does not answer is part of the result.
pub(super) fn collect(collection: &Collection, name: &str) -> CollectedStanza {
    try_collect(collection, name).unwrap_or_else(|error| unreadable(&collection.request, name, &error))
}

fn try_collect(collection: &Collection, name: &str) -> Result<CollectedStanza> {
    let Collection { request, patience } = collection;
    let config = Arc::new(request.daemon.for_stanza(Command::Info, name)?);
    let mut repos = RepoSet::open(&config, patience);
    let fact = repos.info()?;
    let previous = request.previous.as_ref().and_then(|previous| previous.stanza(name));
    let mut errors = Vec::new();
    let mut view = StanzaView {
        name: name.to_owned(),
        status_code: fact.status.number(),
        status: fact.status.message().to_owned(),
        backups: fact.backups.iter().map(backup_view).collect(),
        running: running(request, previous, &fact),
        ..StanzaView::default()
    };
    view.repos = fact.repos.iter().map(|found| repo::view(found, &fact, &repos.answers)).collect();
    let (asked_name, asked_request) = (name.to_owned(), request.clone());
    let spool = Asked::new(move || spool::collect(&asked_request, &asked_name));
    match request.daemon.for_stanza(Command::Backup, name) {
        Ok(backup) => view.clusters = cluster::collect(&Arc::new(backup), patience, &fact, previous),
        // A host without clusters has no such configuration
        Err(error) if error.code == ErrorCode::OptionRequired => (),
        Err(error) => errors.push(format!("clusters: {error}")),
    }
    match spool.within(patience.limit(ANSWER_MAX)) {
        Ok(spool) => view.spool = spool,
        Err(error) => errors.push(format!("spool: {error}")),
    }
    // Last, since these take longest
    count_databases(request, previous, &mut view, &mut repos);
    let before = request.previous.as_ref().map_or(0, |previous| previous.time);
    phases::add(&mut view, previous, phases::Times { now: now(), before }, &mut repos);
    recovery::add(&mut view, &fact, previous, |keys| {
        let look = |session: &Session| session.recovery_points(&RecoveryPointsRequest::default());
        repos.ask(LIST_MAX, |key| keys.contains(&key), look)
    });
    let info = info_json::render(std::slice::from_ref(&fact), Detail::Full);
    let info = info.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(CollectedStanza { view, info, errors })
}

fn backup_view(backup: &BackupFact) -> BackupView {
    let entry = &backup.entry;
    BackupView {
        label: backup.label.to_string(),
        kind: entry.backup_type.to_string(),
        repo_key: backup.repo_key,
        start: entry.timestamp_start,
        stop: entry.timestamp_stop,
        database_bytes: entry.size,
        copied_bytes: entry.size_delta,
        stored_bytes: entry.repo_size_delta,
        prior: entry.prior.as_ref().map(ToString::to_string),
        error: backup.error(),
        annotation: entry.annotation.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        databases: None,
        proof: backup.proof.as_ref().map(|proof| proof_view(backup.label.as_ref(), proof)),
        phases: Vec::new(),
    }
}

fn proof_view(label: &str, proof: &ProofFact) -> ProofView {
    let backup = label.to_owned();
    match proof {
        ProofFact::Unreadable(error) => {
            ProofView { backup, result: "unreadable".to_owned(), reason: Some(error.clone()), ..ProofView::default() }
        }
        ProofFact::Known(stored) => known_proof(backup, &stored.report),
    }
}

fn known_proof(backup: String, report: &ProofReport) -> ProofView {
    let phases = &report.phases;
    let seconds = [
        ("plan", phases.plan_ms),
        ("restore", phases.restore_ms),
        ("recovery", phases.recovery_ms),
        ("checks", phases.checks_ms),
    ]
    .map(|(phase, ms)| (phase.to_owned(), milliseconds(ms)));
    ProofView {
        backup,
        result: report.result.word().to_owned(),
        reason: report.reason.clone(),
        time: report.stop,
        lsn: report.recovery.reached.as_ref().map(|end| end.lsn.clone()),
        recovery_seconds: milliseconds(report.rto_ms),
        database_bytes: report.backup.size,
        phase_seconds: BTreeMap::from(seconds),
        without: report.without().into_iter().map(str::to_owned).collect(),
    }
}

fn milliseconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// Returns what is running on this host, with its rate since the last collection.
fn running(request: &CollectRequest, previous: Option<&StanzaView>, fact: &StanzaFact) -> Vec<RunningView> {
    let seconds = request.previous.as_ref().map_or(0, |previous| now().saturating_sub(previous.time));
    let locks = [("backup", info_lock::backup_total(fact)), ("restore", fact.restore_lock)];
    let held = locks.into_iter().filter(|(_, lock)| lock.held);
    held.map(|(kind, lock): (&str, RunningLock)| {
        let before = previous.and_then(|stanza| stanza.running.iter().find(|running| running.kind == kind));
        let copied = before.and_then(|before| lock.size_complete.checked_sub(before.done_bytes));
        #[expect(clippy::cast_precision_loss, reason = "a rate is not exact")]
        let rate = copied.filter(|_| seconds > 0).map(|copied| copied as f64 / seconds as f64);
        let left = lock.size.saturating_sub(lock.size_complete);
        #[expect(clippy::cast_precision_loss, reason = "a time left is not exact")]
        let seconds_left = rate.filter(|rate| *rate > 0.0 && lock.size > 0).map(|rate| left as f64 / rate);
        RunningView {
            kind: kind.to_owned(),
            total_bytes: (lock.size > 0).then_some(lock.size),
            done_bytes: lock.size_complete,
            bytes_per_second: rate,
            seconds_left,
        }
    })
    .collect()
}

/// Counts the databases of backups, as the option asks. A finished backup does not change, so each is read once.
fn count_databases(
    request: &CollectRequest,
    previous: Option<&StanzaView>,
    view: &mut StanzaView,
    repos: &mut RepoSet<'_>,
) {
    let wanted = request.daemon.find(opt::METRICS_DATABASES).unwrap_or("none");
    let newest = |kinds: &[&str], backups: &[BackupView]| {
        let fitting = backups.iter().filter(|backup| kinds.contains(&backup.kind.as_str()));
        fitting.max_by_key(|backup| backup.stop).map(|backup| (backup.repo_key, backup.label.clone()))
    };
    let latest: Vec<(u32, String)> = [&["full"][..], &["full", "diff"], &["full", "diff", "incr"]]
        .into_iter()
        .filter_map(|kinds| newest(kinds, &view.backups))
        .collect();
    let end = Instant::now() + COUNT_MAX;
    for backup in &mut view.backups {
        let key = (backup.repo_key, backup.label.clone());
        if wanted == "none" || (wanted == "latest" && !latest.contains(&key)) {
            continue;
        }
        let same = |known: &&BackupView| known.repo_key == key.0 && known.label == key.1;
        let known = previous.and_then(|stanza| stanza.backups.iter().find(same)).and_then(|known| known.databases);
        // The next collections count the rest
        backup.databases = known.or_else(|| {
            if Instant::now() >= end {
                return None;
            }
            let label = key.1.clone();
            let question = move |session: &Session| {
                let request = InfoRequest { set: Some(label.clone()), ..InfoRequest::default() };
                let set = session.info(&request)?.backups.into_iter().next().and_then(|backup| backup.set);
                Ok(set.map(|set| set.databases.len() as u64))
            };
            let (_, count) = repos.ask(ANSWER_MAX, |repo| repo == key.0, question).pop()?;
            count.inspect_err(|error| engine::warn!("backup {}: databases: {error}", key.1)).ok().flatten()
        });
    }
}
