//! What commands did, as members of their summary (`docs/output.md`).

use std::time::Duration;

use engine::annotate::AnnotateSummary;
use engine::backup::{BackupSummary, PhaseFigures};
use engine::check::CheckSummary;
use engine::expire::{ExpireSummary, Expired};
use engine::info::BackupFact;
use engine::log::Warnings;
use engine::restore::RestoreSummary;
use engine::stanza::{StanzaChange, StanzaDeleteSummary, StanzaSummary};
use engine::verify::{ArchiveResult, BackupResult, FileFault, ReadAmount, ReadFigures, VerifySummary};
use serde_json::{Map, Value, json};

use super::control::valid_json;
use super::info_json::render_backup;
use super::recovery_json::render_archive;

/// A backup: what `info` shows of it, and what only the run knows.
pub fn backup(summary: &BackupSummary) -> Value {
    let fact = BackupFact {
        label: summary.label.clone(),
        repo_key: summary.repo_key,
        entry: summary.entry.clone(),
        set: None,
        proof: None,
    };
    let mut out = match parsed(&render_backup(&fact)) {
        Value::Object(members) => members,
        other => members([("backup", other)]),
    };
    out.insert("files".to_owned(), json!(summary.files));
    out.insert("page-errors".to_owned(), json!(summary.page_errors));
    out.insert("phase".to_owned(), summary.phases.iter().map(phase).collect());
    finish(out, &summary.warnings, summary.duration)
}

fn phase(figures: &PhaseFigures) -> Value {
    json!({ "name": figures.phase.name(), "milliseconds": figures.milliseconds, "bytes": figures.bytes })
}

/// Returns JSON of the writers of repository files and reports as a value. They make valid JSON; if they ever do not, the
/// reader of the summary gets to know it instead of an empty object.
fn parsed(text: &str) -> Value {
    serde_json::from_str(&valid_json(text)).unwrap_or_else(|error| {
        engine::warn!("a part of the summary is not valid JSON: {error}");
        json!({ "invalid": format!("{error}: {text}") })
    })
}

/// What expire removed, or would remove, by repository.
pub fn expire(summary: &ExpireSummary, dry_run: bool) -> Value {
    let mut out = Map::new();
    out.insert("dry-run".to_owned(), json!(dry_run));
    out.insert("repo".to_owned(), summary.repos.iter().map(expired).collect());
    finish(out, &summary.warnings, summary.duration)
}

fn expired(expired: &Expired) -> Value {
    let wal = expired.wal.iter().map(|wal| {
        let (start, stop) = wal.range.as_ref().map(|(start, stop)| (start.as_str(), stop.as_str())).unzip();
        json!({ "archive-id": wal.archive_id.to_string(), "start": start, "stop": stop })
    });
    json!({
        "key": expired.repo_key,
        "backup": texts(&expired.backups),
        "directory": texts(&expired.directories),
        "wal": wal.collect::<Vec<_>>(),
    })
}

/// What a restore did.
pub fn restore(summary: &RestoreSummary) -> Value {
    let out = members([
        ("backup", json!(summary.label.to_string())),
        ("repo-key", json!(summary.repo_key)),
        ("size", json!(summary.size)),
        ("files", json!(summary.files)),
        ("files-kept", json!(summary.files_kept)),
        ("page-errors", json!(summary.page_errors)),
        ("archive", {
            let (start, stop) = summary.wal.map(|(start, stop)| (start.to_string(), stop.to_string())).unzip();
            json!({ "start": start, "stop": stop })
        }),
    ]);
    finish(out, &summary.warnings, summary.duration)
}

/// What verify found.
pub fn verify(summary: &VerifySummary) -> Value {
    let mut out = members([
        ("valid", json!(summary.verdict())),
        ("errors", json!(summary.errors)),
        ("unread", json!(summary.unread.total)),
        ("half-whole", json!(summary.half_whole)),
        ("first-faults", json!(summary.first_faults)),
        ("archive", summary.archives.iter().map(verified_archive).collect()),
        ("backup", summary.backups.iter().map(verified_backup).collect()),
    ]);
    if let Some(figures) = &summary.figures {
        out.insert("reading".to_owned(), reading(figures));
    }
    if let Some(points) = &summary.points {
        let zone = engine::time_zone::local();
        let archive = |archive| parsed(&render_archive(archive, zone));
        out.insert("recoverable".to_owned(), points.iter().map(archive).collect::<Vec<Value>>().into());
    }
    finish(out, &summary.warnings, summary.duration)
}

/// What was read and what not.
fn reading(figures: &ReadFigures) -> Value {
    let amount = |amount: &ReadAmount| json!({ "files": amount.files, "bytes": amount.bytes });
    json!({
        "read": amount(&figures.read),
        "remembered": amount(&figures.remembered),
        "due": amount(&figures.due),
        "never": amount(&figures.never),
        "oldest": figures.oldest,
    })
}

fn verified_archive(archive: &ArchiveResult) -> Value {
    let range = |range: &engine::verify::SegmentRun| json!({ "start": range.start, "stop": range.stop, "faults": faults(&range.faults) });
    json!({
        "id": archive.id,
        "wal": { "total": archive.total, "valid": archive.valid, "never-read": archive.left },
        "range": archive.ranges.iter().map(range).collect::<Vec<_>>(),
    })
}

fn verified_backup(backup: &BackupResult) -> Value {
    json!({
        "label": backup.label.to_string(),
        "status": backup.status.text(),
        "files": {
            "total": backup.total,
            "valid": backup.valid,
            "never-read": backup.left,
            "unproven": backup.unproven,
        },
        "faults": faults(&backup.faults),
    })
}

/// The number of faults of each kind.
fn faults(faults: &[FileFault]) -> Value {
    let count = |kind| faults.iter().filter(|&&fault| fault == kind).count();
    json!({
        "missing": count(FileFault::Missing),
        "checksum": count(FileFault::Checksum),
        "size": count(FileFault::Size),
        "other": count(FileFault::Other),
    })
}

/// What check found to work.
pub fn check(stanza: &str, summary: &CheckSummary) -> Value {
    let archived = summary.archived.iter().map(|found| json!({ "repo-key": found.repo_key, "path": found.path }));
    let out = members([
        ("stanza", json!(stanza)),
        ("standby", json!(summary.standby)),
        ("segment", json!(summary.segment.map(|segment| segment.to_string()))),
        ("archived", archived.collect()),
    ]);
    finish(out, &summary.warnings, summary.duration)
}

/// What stanza-create or stanza-upgrade changed.
pub fn stanza(summary: &StanzaSummary) -> Value {
    let change = |change| match change {
        StanzaChange::Created => "created",
        StanzaChange::Completed => "completed",
        StanzaChange::Upgraded => "upgraded",
        StanzaChange::Unchanged => "unchanged",
    };
    let repos = summary.repos.iter().map(|repo| json!({ "key": repo.repo_key, "change": change(repo.change) }));
    let out = members([
        ("version", json!(summary.version.to_string())),
        ("system-id", json!(summary.system_id)),
        ("repo", repos.collect()),
    ]);
    finish(out, &summary.warnings, summary.duration)
}

/// What stanza-delete removed.
pub fn stanza_delete(summary: &StanzaDeleteSummary) -> Value {
    let out = members([("repo-key", json!(summary.repo_key)), ("existed", json!(summary.existed))]);
    finish(out, &summary.warnings, summary.duration)
}

/// Where annotate changed annotations.
pub fn annotate(label: &str, summary: &AnnotateSummary) -> Value {
    let out = members([("backup", json!(label)), ("repo-key", json!(summary.repo_keys))]);
    finish(out, &summary.warnings, summary.duration)
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Adds what every summary has.
fn finish(mut out: Map<String, Value>, warnings: &Warnings, duration: Duration) -> Value {
    out.insert("warnings".to_owned(), json!({ "total": warnings.total, "texts": warnings.texts }));
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    out.insert("duration-milliseconds".to_owned(), json!(milliseconds));
    Value::Object(out)
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
