//! The metrics of rbr: what `pgbackrest_exporter` lacks.

mod table;

use jiff::Timestamp;

use crate::compat::{number, signed};
use crate::snapshot::{ClusterView, JobView, RepoView, Snapshot, StanzaView};
use crate::text::Metrics;
use table as m;
pub use table::ALL;

/// The results of a job, one of which has the value 1.
const RESULTS: [&str; 5] = ["success", "failure", "elsewhere", "stopped", "missed"];

/// Adds all metrics.
pub fn add(metrics: &mut Metrics, snapshot: &Snapshot) {
    metrics.set(m::BUILD_INFO, [("version", snapshot.version.as_str())], 1.0);
    metrics.set(m::COLLECT_TIME, [], signed(snapshot.time));
    metrics.set(m::COLLECT_DURATION, [], snapshot.duration_seconds);
    metrics.set(m::DAEMON_UP, [], flag(snapshot.daemon));
    metrics.set(m::COLLECT_ERRORS, [], number(snapshot.errors.len() as u64));
    for stanza in &snapshot.stanzas {
        for repo in &stanza.repos {
            add_repo(metrics, snapshot, stanza, repo);
        }
        for cluster in &stanza.clusters {
            add_cluster(metrics, snapshot, stanza, cluster);
        }
        add_spool(metrics, stanza);
        add_running(metrics, stanza);
    }
    for job in &snapshot.jobs {
        add_job(metrics, snapshot, job);
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn add_repo(metrics: &mut Metrics, snapshot: &Snapshot, stanza: &StanzaView, repo: &RepoView) {
    let key = repo.key.to_string();
    let labels = [("repo_key", key.as_str()), ("stanza", stanza.name.as_str())];
    metrics.set(m::REPO_UP, labels, flag(repo.latency_seconds.is_some()));
    if let Some(seconds) = repo.latency_seconds {
        metrics.set(m::REPO_LATENCY, labels, seconds);
    }
    let of_repo = || stanza.backups.iter().filter(|backup| backup.repo_key == repo.key);
    // Of what can't be read, nothing is known, which is not the same as nothing
    if repo.is_known() {
        metrics.set(m::REPO_STORED, labels, number(repo.stored_bytes));
        metrics.set(m::REPO_DATABASE, labels, number(repo.database_bytes));
        for kind in ["full", "diff", "incr"] {
            let count = of_repo().filter(|backup| backup.kind == kind).count();
            metrics.set(m::REPO_BACKUPS, [("backup_type", kind), labels[0], labels[1]], number(count as u64));
        }
    }
    add_phases(metrics, stanza, repo, &key);
    add_recovery(metrics, stanza, repo, &key);
    if let Some(time) = repo.newest_wal_time {
        metrics.set(m::POINT_AGE, labels, signed(snapshot.time.saturating_sub(time)));
    }
    if let Some(proof) = &repo.proof {
        metrics.set(m::PROOF_PASSED, labels, flag(proof.result == "passed"));
        metrics.set(m::PROOF_TIME, labels, signed(proof.time));
    }
    if let Some(proof) = &repo.proven {
        metrics.set(m::PROVEN_TIME, labels, signed(proof.time));
        metrics.set(m::PROVEN_AGE, labels, signed(snapshot.time.saturating_sub(proof.time)));
        metrics.set(m::PROVEN_RECOVERY, labels, proof.recovery_seconds);
        if let Some(seconds) = proof.seconds_per_tebibyte() {
            metrics.set(m::PROVEN_RATE, labels, seconds);
        }
        let backup = of_repo().find(|backup| backup.label == proof.backup);
        if let Some(backup) = backup {
            metrics.set(m::PROVEN_BACKUP_TIME, labels, signed(backup.stop));
        }
        if let Some(lsn) = proof.lsn.as_deref().and_then(lsn_bytes) {
            metrics.set(m::PROVEN_LSN, labels, number(lsn));
        }
        for (phase, seconds) in &proof.phase_seconds {
            metrics.set(m::PROVEN_PHASE, [("phase", phase.as_str()), labels[0], labels[1]], *seconds);
        }
    }
}

/// Adds the phases of the newest backup of each type.
fn add_phases(metrics: &mut Metrics, stanza: &StanzaView, repo: &RepoView, key: &str) {
    for kind in ["full", "diff", "incr"] {
        let of_kind = stanza.backups.iter().filter(|backup| backup.repo_key == repo.key && backup.kind == kind);
        for phase in of_kind.max_by_key(|backup| backup.stop).into_iter().flat_map(|backup| &backup.phases) {
            let labels =
                [("backup_type", kind), ("phase", phase.phase.as_str()), ("repo_key", key), ("stanza", &stanza.name)];
            metrics.set(m::BACKUP_PHASE, labels, phase.seconds);
            if let Some(bytes) = phase.bytes {
                metrics.set(m::BACKUP_PHASE_BYTES, labels, number(bytes));
            }
        }
    }
}

fn add_recovery(metrics: &mut Metrics, stanza: &StanzaView, repo: &RepoView, key: &str) {
    let labels = [("repo_key", key), ("stanza", stanza.name.as_str())];
    let Some(recovery) = &repo.recovery else { return };
    metrics.set(m::RECOVERY_LOOK_TIME, labels, signed(recovery.time));
    if recovery.error.is_some() {
        return;
    }
    let missing = [("all_backups", recovery.missing_segments), ("newest_backup", recovery.missing_segments_newest)];
    for (since, count) in missing {
        metrics.set(m::WAL_MISSING, [labels[0], ("since", since), labels[1]], number(count));
    }
    metrics.set(m::UNRECOVERABLE, labels, number(recovery.unrecoverable.len() as u64));
    metrics.set(m::WINDOWS, labels, number(recovery.windows.len() as u64));
    if let Some(time) = recovery.windows.iter().map(|window| window.start_time).min() {
        metrics.set(m::WINDOW_OLDEST, labels, signed(time));
    }
    if let Some(is_current) = recovery.newest_backup_is_current {
        metrics.set(m::NEWEST_CURRENT, labels, flag(is_current));
    }
    // The window in which the newest WAL is
    if let Some(time) = recovery.windows.iter().filter(|window| window.is_newest).map(|window| window.start_time).min()
    {
        metrics.set(m::WINDOW_CURRENT, labels, signed(time));
    }
}

fn add_cluster(metrics: &mut Metrics, snapshot: &Snapshot, stanza: &StanzaView, cluster: &ClusterView) {
    let key = cluster.key.to_string();
    let labels = [("pg_key", key.as_str()), ("stanza", stanza.name.as_str())];
    metrics.set(m::CLUSTER_UP, labels, flag(cluster.error.is_none()));
    if cluster.error.is_some() {
        return;
    }
    metrics.set(m::CLUSTER_STANDBY, labels, flag(cluster.is_standby));
    if let Some(lsn) = cluster.lsn.as_deref().and_then(lsn_bytes) {
        metrics.set(m::CLUSTER_LSN, labels, number(lsn));
    }
    if let Some(archiver) = &cluster.archiver {
        metrics.set(m::ARCHIVER_FAILING, labels, flag(archiver.failing.is_some()));
        metrics.set(m::ARCHIVER_FAILED, labels, number(archiver.failed_count));
        if let Some(time) = archiver.last_archived_time {
            metrics.set(m::ARCHIVER_LAST, labels, signed(time));
            metrics.set(m::ARCHIVER_AGE, labels, signed(snapshot.time.saturating_sub(time).max(0)));
        }
        if let Some(files) = archiver.ready {
            metrics.set(m::ARCHIVER_READY, labels, number(files));
        }
        if let Some(seconds) = archiver.ready_seconds {
            metrics.set(m::ARCHIVER_READY_AGE, labels, number(seconds));
        }
    }
    for lag in &cluster.lag {
        let repo = lag.repo_key.to_string();
        let labels = [labels[0], ("repo_key", repo.as_str()), labels[1]];
        metrics.set(m::LAG_SEGMENTS, labels, number(lag.segments));
        metrics.set(m::LAG_BYTES, labels, number(lag.bytes));
    }
}

fn add_spool(metrics: &mut Metrics, stanza: &StanzaView) {
    for spool in &stanza.spool {
        let labels = [("queue", spool.queue.as_str()), ("stanza", stanza.name.as_str())];
        metrics.set(m::SPOOL_FILES, labels, number(spool.files));
        metrics.set(m::SPOOL_BYTES, labels, number(spool.bytes));
        metrics.set(m::SPOOL_ERRORS, labels, number(spool.errors));
        metrics.set(m::SPOOL_AGE, labels, number(spool.oldest_seconds.unwrap_or(0)));
    }
}

fn add_running(metrics: &mut Metrics, stanza: &StanzaView) {
    for running in &stanza.running {
        let labels = [("kind", running.kind.as_str()), ("stanza", stanza.name.as_str())];
        if let Some(rate) = running.bytes_per_second {
            metrics.set(m::RUNNING_RATE, labels, rate);
        }
        if let Some(seconds) = running.seconds_left {
            metrics.set(m::RUNNING_LEFT, labels, seconds);
        }
    }
}

fn add_job(metrics: &mut Metrics, snapshot: &Snapshot, job: &JobView) {
    let labels = [("command", job.command.as_str()), ("job", job.name.as_str()), ("stanza", job.stanza.as_str())];
    metrics.set(m::JOB_RUNNING, labels, flag(job.running_since.is_some()));
    metrics.set(m::JOB_FAILURES, labels, number(job.failures));
    if let Some(next) = job.next.first().and_then(|time| seconds(time)) {
        metrics.set(m::JOB_NEXT, labels, next);
    }
    #[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
    let now = snapshot.time as f64;
    let late = job.late_since.as_deref().and_then(seconds).map_or(0.0, |since| (now - since).max(0.0));
    metrics.set(m::JOB_LATE, labels, late);
    if let Some(last) = &job.last {
        for result in RESULTS {
            let is_result = flag(last.result == result);
            metrics.set(m::JOB_RESULT, [labels[0], labels[1], ("result", result), labels[2]], is_result);
        }
        if let (Some(started), Some(ended)) = (seconds(&last.started), seconds(&last.ended)) {
            metrics.set(m::JOB_LAST, labels, ended);
            metrics.set(m::JOB_DURATION, labels, ended - started);
        }
        if let Some(status) = last.exit_status {
            metrics.set(m::JOB_EXIT, labels, f64::from(status));
        }
    }
    if let Some(ended) = job.success.as_ref().and_then(|success| seconds(&success.ended)) {
        metrics.set(m::JOB_SUCCESS, labels, ended);
        metrics.set(m::JOB_SUCCESS_AGE, labels, (now - ended).max(0.0));
    }
}

/// A time of the daemon's JSON in seconds since 1970.
fn seconds(time: &str) -> Option<f64> {
    Some(time.parse::<Timestamp>().ok()?.as_duration().as_secs_f64())
}

/// A position as a number of bytes.
pub(crate) fn lsn_bytes(lsn: &str) -> Option<u64> {
    let (high, low) = lsn.split_once('/')?;
    let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
pub(crate) mod tests;
