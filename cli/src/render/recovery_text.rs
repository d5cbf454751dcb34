//! The text form of `recovery-points`.

use std::fmt::Write as _;

use engine::Stanza;
use engine::recovery_points::{
    ArchivePoints, CommitTimes, Removed, RepoPoints, ScanPoints, TimedWindow, TimelinePoints, WalFact, WalFactKind,
    WindowEnd,
};
use jiff::tz::TimeZone;
use repo_format::size::format_size;

use super::control::{visible_text, visible_value};
use super::wal_time::{micros, seconds};

/// Oids and files of an event that are shown.
const SHOWN_MAX: usize = 10;

/// All repositories.
pub fn render(stanza: &Stanza, repos: &[RepoPoints], zone: &TimeZone) -> String {
    let mut out = format!("stanza: {stanza}\n");
    for repo in repos {
        match &repo.archives {
            Ok(archives) if archives.is_empty() => {
                let _ = writeln!(out, "\nrepo{}: no backups and no WAL", repo.repo_key);
            }
            Ok(archives) => archives.iter().for_each(|archive| render_archive(&mut out, repo.repo_key, archive, zone)),
            Err(error) => {
                let _ = writeln!(out, "\nrepo{}: error [{}] {}", repo.repo_key, error.code, error.message);
            }
        }
    }
    visible_text(&out).into_owned()
}

// Writing into a String can't fail, so the results of `write!` below are dropped

fn render_archive(out: &mut String, key: u32, archive: &ArchivePoints, zone: &TimeZone) {
    let _ = writeln!(out, "\nrepo{key}: archive {}, system-id {}", archive.id, archive.system_id);
    render_content(out, archive, zone);
}

/// An archive in the report of verify.
pub(super) fn render_points(out: &mut String, archive: &ArchivePoints, zone: &TimeZone) {
    let _ = writeln!(out, "  recoverable with archive {}:", archive.id);
    render_content(out, archive, zone);
}

fn render_content(out: &mut String, archive: &ArchivePoints, zone: &TimeZone) {
    archive.timelines.iter().for_each(|timeline| render_timeline(out, timeline, zone));
    for label in &archive.offline {
        let _ = writeln!(out, "    backup {label}: of a stopped cluster, can be restored as it is");
    }
    if let Some(scan) = &archive.scan {
        render_scan(out, scan, zone);
    }
}

fn render_timeline(out: &mut String, timeline: &TimelinePoints, zone: &TimeZone) {
    let _ = write!(out, "    timeline {}", timeline.timeline.0);
    if let Some((parent, lsn)) = &timeline.parent {
        let _ = write!(out, ", left timeline {} at {lsn}", parent.0);
    }
    match &timeline.wal {
        Some((first, last)) => {
            let _ = writeln!(out, ", wal {first}/{last}");
        }
        None => out.push_str(", no wal\n"),
    }
    if timeline.windows.is_empty() {
        out.push_str("        no backup can be recovered to it\n");
    }
    for window in &timeline.windows {
        render_window(out, window, zone);
    }
    for backup in &timeline.unreachable {
        let verdict = match backup.end {
            WindowEnd::NotRead(_) => "is not known to be recoverable",
            _ => "can't be recovered",
        };
        let _ = writeln!(out, "        backup {} {verdict}: {}", backup.label, why(&backup.end));
    }
}

fn render_window(out: &mut String, timed: &TimedWindow, zone: &TimeZone) {
    let window = &timed.window;
    let _ = writeln!(out, "        from {} ({}) up to {}", window.start, seconds(window.start_time, zone), window.end);
    let _ = writeln!(out, "            ends there: {}", why(&window.end_reason));
    let labels: Vec<String> = window.backups.iter().map(ToString::to_string).collect();
    let _ = writeln!(out, "            backups: {}", labels.join(", "));
    if let Some(CommitTimes { commits, first: Some(first), last: Some(last) }) = timed.commits {
        let (first, last) = (micros(first, zone), micros(last, zone));
        let _ = writeln!(out, "            commits in this WAL: {commits}, from {first} to {last}");
    }
}

pub(super) fn why(end: &WindowEnd) -> String {
    match end {
        WindowEnd::Newest => "the newest archived WAL".to_owned(),
        WindowEnd::Missing(segment) => format!("WAL segment {segment} is missing"),
        WindowEnd::Duplicate(segment) => format!("WAL segment {segment} is stored with several contents"),
        WindowEnd::Damaged(segment, text) => format!("WAL segment {segment} is damaged: {text}"),
        WindowEnd::NotRead(segment) => format!("WAL segment {segment} was not read yet"),
    }
}

fn render_scan(out: &mut String, scan: &ScanPoints, zone: &TimeZone) {
    let _ = writeln!(
        out,
        "    events in {} of WAL, {} records, {} segments:",
        format_size(scan.bytes),
        scan.records,
        scan.segments.len()
    );
    if scan.facts.is_empty() {
        out.push_str("        none\n");
    }
    for fact in &scan.facts {
        render_fact(out, fact, zone);
    }
    if scan.facts_omitted > 0 {
        let _ = writeln!(out, "        {} more events are not shown: use --since and --until", scan.facts_omitted);
    }
    if scan.facts.iter().any(|fact| !matches!(fact.kind, WalFactKind::RestorePoint(_) | WalFactKind::TimelineBegin(_)))
    {
        out.push_str(
            "    To recover to the moment before an event, restore with --type=lsn --target=LSN --target-exclusive.\n    \
             WAL has no names. They are in that database at that moment: SELECT oid::regclass FROM pg_class WHERE oid IN \
             (...)\n    finds those of relations, SELECT pg_filenode_relation(tablespace, number) those of files (0 for the \
             default\n    tablespace 1663), SELECT datname FROM pg_database WHERE oid = ... that of a database.\n",
        );
    }
}

fn render_fact(out: &mut String, fact: &WalFact, zone: &TimeZone) {
    let time = match (fact.time, fact.after) {
        (Some(time), _) => micros(time, zone),
        (None, Some(after)) => format!("after {}", micros(after, zone)),
        (None, None) => "at an unknown time".to_owned(),
    };
    let _ = write!(out, "        {} timeline {} {time}: ", fact.lsn, fact.timeline.0);
    let _ = match &fact.kind {
        WalFactKind::RestorePoint(name) => writeln!(out, "restore point '{}'", visible_value(name)),
        WalFactKind::TimelineBegin(previous) => writeln!(out, "timeline begins after timeline {}", previous.0),
        WalFactKind::Emptied(file) => {
            writeln!(out, "file emptied: database {}, file {}/{}", file.database, file.tablespace, file.number)
        }
        WalFactKind::DatabaseDropped(oid) => writeln!(out, "database dropped: {oid}"),
        WalFactKind::Removed(removed) => writeln!(out, "{}", removed_text(removed)),
    };
}

fn removed_text(removed: &Removed) -> String {
    let mut text = removed.by().name().to_owned();
    let _ = write!(text, ": transaction {}", removed.xid);
    if let Some(database) = removed.database.or(removed.files.first().map(|file| file.database)) {
        let _ = write!(text, ", database {database}");
    }
    let mut oids = |what: &str, oids: &[u32]| {
        if !oids.is_empty() {
            let _ = write!(text, ", {what} {}", list(oids.iter(), oids.len()));
        }
    };
    oids("dropped relations", removed.dropped.as_deref().unwrap_or_default());
    oids("truncated tables", &removed.truncated);
    if removed.dropped.as_ref().is_none_or(Vec::is_empty) && removed.truncated.is_empty() {
        oids("changed relations", &removed.changed);
    }
    let files = removed.files.iter().map(|file| format!("{}/{}", file.tablespace, file.number));
    let _ = write!(text, ", files {}", list(files, removed.file_total));
    text
}

/// The first items, and how many more there are.
fn list<T: ToString>(items: impl Iterator<Item = T>, total: usize) -> String {
    let shown: Vec<String> = items.take(SHOWN_MAX).map(|item| item.to_string()).collect();
    match total.saturating_sub(shown.len()) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}
