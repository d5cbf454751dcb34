//! The JSON form of `recovery-points`, described in `docs/recovery-points.md`.

use engine::Stanza;
use engine::recovery_points::{
    ArchivePoints, CommitTimes, Removed, RepoPoints, ScanPoints, TimedWindow, TimelinePoints, WalFact, WalFactKind,
    WindowEnd,
};
use jiff::tz::TimeZone;
use repo_format::json::ObjectWriter;
use repo_format::pg::wal::{PgTime, RelFile};

use super::control::valid_json;
use super::info_json::{list, object};
use super::wal_time::{micros, seconds};

/// All repositories as one object.
pub fn render(stanza: &Stanza, repos: &[RepoPoints], zone: &TimeZone) -> String {
    let out = object(|json| {
        json.raw("repo", &list(repos, |repo| render_repo(repo, zone)));
        json.string("stanza", stanza.as_str());
    });
    format!("{}\n", valid_json(&out))
}

fn render_repo(repo: &RepoPoints, zone: &TimeZone) -> String {
    object(|json| {
        match &repo.archives {
            Ok(archives) => json.raw("archive", &list(archives, |archive| render_archive(archive, zone))),
            Err(error) => {
                json.raw("archive", "[]");
                let error = object(|json| {
                    json.scalar("code", error.code.number());
                    json.string("message", &error.message);
                });
                json.raw("error", &error);
            }
        }
        json.scalar("repo-key", repo.repo_key);
    })
}

pub(super) fn render_archive(archive: &ArchivePoints, zone: &TimeZone) -> String {
    object(|json| {
        json.plain("id", archive.id);
        json.raw("offline-backup", &strings(&archive.offline));
        if let Some(scan) = &archive.scan {
            json.raw("scan", &render_scan(scan, zone));
        }
        json.scalar("system-id", archive.system_id);
        json.raw("timeline", &list(&archive.timelines, |timeline| render_timeline(timeline, zone)));
        json.scalar("wal-segment-size", archive.segment_size);
    })
}

fn render_timeline(timeline: &TimelinePoints, zone: &TimeZone) -> String {
    object(|json| {
        match &timeline.parent {
            Some((parent, lsn)) => {
                let parent = object(|json| {
                    json.plain("lsn", lsn);
                    json.scalar("timeline", parent.0);
                });
                json.raw("parent", &parent);
            }
            None => json.raw("parent", "null"),
        }
        json.scalar("timeline", timeline.timeline.0);
        let unreachable = list(&timeline.unreachable, |backup| {
            object(|json| {
                json.plain("backup", &backup.label);
                json.raw("end", &render_end(&backup.end));
            })
        });
        json.raw("unreachable", &unreachable);
        match &timeline.wal {
            Some((first, last)) => {
                let wal = object(|json| {
                    json.plain("max", last);
                    json.plain("min", first);
                });
                json.raw("wal", &wal);
            }
            None => json.raw("wal", "null"),
        }
        json.raw("window", &list(&timeline.windows, |window| render_window(window, zone)));
    })
}

fn render_window(timed: &TimedWindow, zone: &TimeZone) -> String {
    let window = &timed.window;
    object(|json| {
        json.raw("backup", &strings(&window.backups));
        if let Some(commits) = timed.commits {
            json.raw("commit", &render_commits(commits, zone));
        }
        json.raw("end", &render_end(&window.end_reason));
        json.plain("lsn-end", window.end);
        json.plain("lsn-start", window.start);
        json.plain("time-start", seconds(window.start_time, zone));
    })
}

pub(super) fn render_end(end: &WindowEnd) -> String {
    object(|json| match end {
        WindowEnd::Newest => json.plain("reason", "newest"),
        WindowEnd::Missing(segment) => {
            json.plain("reason", "missing");
            json.plain("segment", segment);
        }
        WindowEnd::Duplicate(segment) => {
            json.plain("reason", "duplicate");
            json.plain("segment", segment);
        }
        WindowEnd::NotRead(segment) => {
            json.plain("reason", "not-read");
            json.plain("segment", segment);
        }
        WindowEnd::Damaged(segment, text) => {
            json.string("message", text);
            json.plain("reason", "damaged");
            json.plain("segment", segment);
        }
    })
}

fn render_commits(commits: CommitTimes, zone: &TimeZone) -> String {
    object(|json| {
        time(json, "first", commits.first, zone);
        time(json, "last", commits.last, zone);
        json.scalar("total", commits.commits);
    })
}

fn render_scan(scan: &ScanPoints, zone: &TimeZone) -> String {
    object(|json| {
        json.scalar("bytes", scan.bytes);
        json.raw("event", &list(&scan.facts, |fact| render_fact(fact, zone)));
        json.scalar("events-omitted", scan.facts_omitted as u64);
        json.scalar("milliseconds", u64::try_from(scan.duration.as_millis()).unwrap_or(u64::MAX));
        json.scalar("records", scan.records);
        let segments = list(&scan.segments, |(segment, commits)| {
            object(|json| {
                json.raw("commit", &render_commits(*commits, zone));
                json.plain("segment", segment);
            })
        });
        json.raw("segment", &segments);
    })
}

fn render_fact(fact: &WalFact, zone: &TimeZone) -> String {
    object(|json| {
        time(json, "after", fact.after, zone);
        match &fact.kind {
            WalFactKind::RestorePoint(name) => {
                json.plain("kind", "restore-point");
                json.plain("lsn", fact.lsn);
                json.string("name", name);
            }
            WalFactKind::TimelineBegin(previous) => {
                json.plain("kind", "timeline");
                json.plain("lsn", fact.lsn);
                json.scalar("previous", previous.0);
            }
            WalFactKind::Emptied(file) => {
                json.raw("file", &list(&[*file], render_file));
                json.plain("kind", "file-emptied");
                json.plain("lsn", fact.lsn);
            }
            WalFactKind::DatabaseDropped(oid) => {
                json.scalar("database", *oid);
                json.plain("kind", "database-drop");
                json.plain("lsn", fact.lsn);
            }
            WalFactKind::Removed(removed) => render_removed(json, removed, fact),
        }
        time(json, "time", fact.time, zone);
        json.scalar("timeline", fact.timeline.0);
    })
}

fn render_removed(json: &mut ObjectWriter<'_>, removed: &Removed, fact: &WalFact) {
    let oids = |oids: &[u32]| list(oids, ToString::to_string);
    json.raw("changed-relation", &oids(&removed.changed));
    match removed.database.or(removed.files.first().map(|file| file.database)) {
        Some(database) => json.scalar("database", database),
        None => json.raw("database", "null"),
    }
    match &removed.dropped {
        Some(dropped) => json.raw("dropped-relation", &oids(dropped)),
        None => json.raw("dropped-relation", "null"),
    }
    json.raw("file", &list(&removed.files, render_file));
    json.scalar("file-created-total", removed.created);
    json.scalar("file-total", removed.file_total as u64);
    json.plain("kind", removed.by().name());
    json.plain("lsn", fact.lsn);
    json.raw("truncated-table", &oids(&removed.truncated));
    json.scalar("xid", removed.xid);
}

fn render_file(file: &RelFile) -> String {
    object(|json| {
        json.scalar("database", file.database);
        json.scalar("number", file.number);
        json.scalar("tablespace", file.tablespace);
    })
}

fn time(json: &mut ObjectWriter<'_>, key: &str, time: Option<PgTime>, zone: &TimeZone) {
    json.string_or_null(key, time.map(|time| micros(time, zone)).as_deref());
}

fn strings<T: std::fmt::Display>(items: &[T]) -> String {
    list(items, |item| format!("\"{item}\""))
}
