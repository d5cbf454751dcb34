//! What is wrong, in words.

use super::words;
use crate::snapshot::{ClusterView, JobView, RepoView, Snapshot, StanzaView};

/// More complete segments than this that are not archived are no burst.
const LAG_MAX: u64 = 16;
/// A segment that has waited longer than this, in seconds.
const READY_MAX_S: u64 = 300;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub subject: String,
    /// What is wrong.
    pub text: String,
}

/// Returns what is wrong.
pub fn problems(snapshot: &Snapshot) -> Vec<Problem> {
    let mut found: Vec<Problem> = Vec::new();
    if snapshot.stanzas.is_empty() {
        found.push(problem("", "no stanza is known"));
    }
    if !snapshot.daemon && !snapshot.jobs.is_empty() {
        found.push(problem("", "the daemon is not running, so no job runs"));
    }
    for stanza in &snapshot.stanzas {
        of_backups(&mut found, stanza);
        if stanza.repos.is_empty() && stanza.status_code != 0 {
            found.push(problem(&stanza.name, &stanza.status));
        }
        stanza.repos.iter().for_each(|repo| of_repo(&mut found, stanza, repo));
        stanza.clusters.iter().for_each(|cluster| of_cluster(&mut found, stanza, cluster));
        for spool in stanza.spool.iter().filter(|spool| spool.errors > 0) {
            let text = format!("the {} queue tells {}", spool.queue, words::count(spool.errors, "error"));
            found.push(problem(&stanza.name, &text));
        }
    }
    snapshot.jobs.iter().for_each(|job| of_job(&mut found, job));
    let told: Vec<String> =
        snapshot.stanzas.iter().map(|stanza| format!("stanza {}: {}", stanza.name, stanza.status)).collect();
    let is_new = |error: &&String| !told.contains(error);
    found.extend(snapshot.errors.iter().filter(is_new).map(|error| problem("", error)));
    found
}

fn problem(subject: &str, text: &str) -> Problem {
    Problem { subject: subject.to_owned(), text: text.to_owned() }
}

fn of_backups(found: &mut Vec<Problem>, stanza: &StanzaView) {
    let newest = stanza.backups.iter().max_by_key(|backup| backup.stop);
    if let Some(backup) = newest.filter(|backup| backup.error == Some(true)) {
        found.push(problem(&stanza.name, &format!("the newest backup ({}) contains invalid pages", backup.label)));
    }
}

fn of_repo(found: &mut Vec<Problem>, stanza: &StanzaView, repo: &RepoView) {
    let subject = format!("{} repo{}", stanza.name, repo.key);
    let mut add = |text: &str| found.push(problem(&subject, text));
    if repo.status_code != 0 {
        add(&repo.status);
    }
    if let Some(proof) = repo.proof.as_ref().filter(|proof| proof.result != "passed") {
        let reason = proof.reason.as_deref().unwrap_or("no reason is known");
        add(&format!("the last test restore ({}) {}: {reason}", proof.backup, proof.result));
    }
    let Some(recovery) = &repo.recovery else { return };
    if let Some(error) = recovery.error.as_ref().filter(|_| repo.status_code == 0) {
        add(error);
    }
    if recovery.missing_segments_newest > 0 {
        let segments = words::count(recovery.missing_segments_newest, "WAL segment");
        add(&format!("{segments} after the newest backup missing"));
    } else if recovery.newest_backup_is_current == Some(false) {
        add("the newest backup can't be recovered to the newest WAL");
    } else if recovery.missing_segments > 0 {
        add(&format!("{} between older backups missing", words::count(recovery.missing_segments, "WAL segment")));
    }
    for lost in &recovery.unrecoverable {
        add(&format!("backup {} can't be recovered: {}", lost.backup, lost.reason));
    }
}

fn of_cluster(found: &mut Vec<Problem>, stanza: &StanzaView, cluster: &ClusterView) {
    let subject = format!("{} pg{}", stanza.name, cluster.key);
    let mut add = |text: &str| found.push(problem(&subject, text));
    if let Some(error) = &cluster.error {
        add(error);
    }
    let Some(archiver) = &cluster.archiver else { return };
    if let Some(file) = &archiver.failing {
        add(&format!("PostgreSQL can't archive {file}"));
    }
    if let Some(waited) = archiver.ready_seconds.filter(|waited| *waited > READY_MAX_S) {
        add(&format!("WAL has been waiting to be archived for {}", words::duration(waited)));
    }
    for lag in cluster.lag.iter().filter(|lag| lag.segments > LAG_MAX) {
        add(&format!("repo{} is {} behind", lag.repo_key, words::count(lag.segments, "segment")));
    }
}

fn of_job(found: &mut Vec<Problem>, job: &JobView) {
    let subject = format!("job {}/{}", job.stanza, job.name);
    if let Some(last) = job.last.as_ref().filter(|last| last.result == "failure") {
        let error = last.error.as_deref().unwrap_or_default();
        found.push(problem(&subject, &format!("failed: {error}")));
    } else if let Some(since) = &job.late_since {
        found.push(problem(&subject, &format!("late since {since}")));
    }
}
