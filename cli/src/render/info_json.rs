//! The JSON form of `info`, byte for byte pgBackRest's: compact, keys in byte order, no line feed at the end. The only
//! difference is that control characters are escaped.

use engine::info::{BackupFact, DatabaseRef, Detail, LinkRef, RepoFact, RunningLock, StanzaFact, TablespaceRef};
use engine::proof::ProofFact;
use repo_format::json::{ObjectWriter, write_string};

use super::control::valid_json;
use super::info_lock;

/// All stanzas as one array.
pub fn render(stanzas: &[StanzaFact], detail: Detail) -> String {
    let mut out = String::from("[");
    for (index, stanza) in stanzas.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        render_stanza(&mut out, stanza, detail);
    }
    out.push(']');
    valid_json(&out).into_owned()
}

fn render_stanza(out: &mut String, stanza: &StanzaFact, detail: Detail) {
    let mut json = ObjectWriter::new(out);
    if detail == Detail::Full {
        json.raw(
            "archive",
            &list(&stanza.archives, |archive| {
                object(|json| {
                    let mut database = json.object("database");
                    database.scalar("id", archive.db_id);
                    database.scalar("repo-key", archive.repo_key);
                    database.end();
                    json.plain("id", archive.id);
                    json.string_or_null("max", archive.max.as_deref());
                    json.string_or_null("min", archive.min.as_deref());
                })
            }),
        );
        json.raw("backup", &list(&stanza.backups, render_backup));
        json.string("cipher", stanza.cipher());
        json.raw(
            "db",
            &list(&stanza.databases, |database| {
                object(|json| {
                    json.scalar("id", database.id);
                    json.scalar("repo-key", database.repo_key);
                    json.scalar("system-id", database.system_id);
                    json.plain("version", database.version);
                })
            }),
        );
    }
    json.string("name", &stanza.name);
    if detail == Detail::Full {
        // pgBackRest does not have it, so that a repository without proofs looks the same
        let known: Vec<_> = stanza.repos.iter().filter(|repo| repo.objectives.is_some()).collect();
        if !known.is_empty() {
            json.raw("rbr-recovery", &list(&known, |repo| objectives_json(repo)));
        }
        json.raw(
            "repo",
            &list(&stanza.repos, |repo| {
                object(|json| {
                    json.string("cipher", repo.cipher);
                    json.scalar("key", repo.key);
                    let mut status = json.object("status");
                    status.scalar("code", repo.status.number());
                    status.string("message", repo.message());
                    status.end();
                })
            }),
        );
    }
    let mut status = json.object("status");
    status.scalar("code", stanza.status.number());
    let mut lock = status.object("lock");
    render_backup_lock(&mut lock, stanza);
    let mut restore = lock.object("restore");
    restore.scalar("held", stanza.restore_lock.held);
    render_rate(&mut restore, &stanza.restore_lock);
    render_lock_size(&mut restore, &stanza.restore_lock);
    restore.end();
    lock.end();
    status.string("message", stanza.status.message());
    status.end();
    json.end();
}

/// What a recovery from a repository takes and loses: the newest segment, and the time that the last proof
/// measured.
fn objectives_json(repo: &RepoFact) -> String {
    object(|json| {
        json.scalar("repo-key", repo.key);
        let Some(objectives) = &repo.objectives else { return };
        if let Some(wal) = &objectives.rpo {
            let mut rpo = json.object("rpo");
            rpo.plain("segment", wal.segment);
            rpo.scalar("timestamp", wal.stored);
            rpo.end();
        }
        if let Some(measured) = &objectives.rto {
            let mut rto = json.object("rto");
            rto.plain("label", &measured.backup);
            rto.scalar("ms", measured.rto_ms);
            if let Some(ms) = measured.rto_ms_per_tib() {
                rto.scalar("ms-per-tib", ms);
            }
            rto.scalar("size", measured.size);
            rto.scalar("timestamp", measured.time);
            rto.end();
        }
    })
}

fn render_backup_lock(lock: &mut ObjectWriter<'_>, stanza: &StanzaFact) {
    let total = info_lock::backup_total(stanza);
    let known: Vec<_> = info_lock::backups_with_size(stanza).collect();
    let mut backup = lock.object("backup");
    backup.scalar("held", total.held);
    render_rate(&mut backup, &total);
    if !known.is_empty() {
        backup.raw(
            "repo",
            &list(&known, |repo| {
                object(|json| {
                    json.scalar("key", repo.key);
                    render_rate(json, &repo.backup_lock);
                    render_lock_size(json, &repo.backup_lock);
                })
            }),
        );
    }
    render_lock_size(&mut backup, &total);
    backup.end();
}

/// Bytes per second and seconds left, which pgBackRest does not have. They are there only while a copy of rbr runs.
fn render_rate(json: &mut ObjectWriter<'_>, lock: &RunningLock) {
    if let Some(rate) = lock.rate {
        json.scalar("rbr-rate", rate);
    }
    if let Some(seconds) = lock.seconds_left() {
        json.scalar("rbr-seconds-left", seconds);
    }
}

fn render_lock_size(json: &mut ObjectWriter<'_>, lock: &RunningLock) {
    if lock.size != 0 {
        json.scalar("size", lock.size);
        json.scalar("size-cplt", lock.size_complete);
    }
}

pub(super) fn render_backup(backup: &BackupFact) -> String {
    let entry = &backup.entry;
    object(|json| {
        if !entry.annotation.is_empty() {
            let mut annotation = json.object("annotation");
            for (key, value) in &entry.annotation {
                annotation.string(key, value);
            }
            annotation.end();
        }
        let mut archive = json.object("archive");
        archive.string_or_null("start", entry.archive_start.map(|segment| segment.to_string()).as_deref());
        archive.string_or_null("stop", entry.archive_stop.map(|segment| segment.to_string()).as_deref());
        archive.end();
        let mut backrest = json.object("backrest");
        backrest.scalar("format", entry.backrest_format);
        backrest.string("version", &entry.backrest_version);
        backrest.end();
        let mut database = json.object("database");
        database.scalar("id", entry.pg_id);
        database.scalar("repo-key", backup.repo_key);
        database.end();
        if let Some(set) = &backup.set {
            json.raw("database-ref", &list(&set.databases, render_database));
        }
        if let Some(error) = backup.error() {
            json.scalar("error", error);
        }
        if let Some(set) = backup.set.as_ref().filter(|set| !set.errors.is_empty()) {
            json.raw("error-list", &list(&set.errors, |error| string(error)));
        }
        render_size(json, backup);
        json.plain("label", &backup.label);
        if let Some(set) = &backup.set {
            json.raw("link", &list_or_null(&set.links, render_link));
        }
        if let (Some(start), Some(stop)) = (&entry.lsn_start, &entry.lsn_stop) {
            let mut lsn = json.object("lsn");
            lsn.string("start", start);
            lsn.string("stop", stop);
            lsn.end();
        }
        json.string_or_null("prior", entry.prior.as_ref().map(AsRef::as_ref));
        // pgBackRest does not have it, so that a repository without proofs looks the same
        if let Some(proof) = &backup.proof {
            json.raw("rbr-proof", &proof_json(proof));
        }
        json.raw("reference", &list_or_null(&entry.reference, |label| string(label.as_ref())));
        if let Some(set) = &backup.set {
            json.raw("tablespace", &list_or_null(&set.tablespaces, render_tablespace));
        }
        let mut timestamp = json.object("timestamp");
        timestamp.scalar("start", entry.timestamp_start);
        timestamp.scalar("stop", entry.timestamp_stop);
        timestamp.end();
        json.plain("type", entry.backup_type);
    })
}

/// The last proof: result, checks that did not run, time, LSN that was reached, recovery time and the id of the key that
/// signed it.
fn proof_json(proof: &ProofFact) -> String {
    object(|json| match proof {
        ProofFact::Unreadable(error) => json.string("error", error),
        ProofFact::Known(proof) => {
            let report = &proof.report;
            json.string_or_null("key-id", proof.signature.as_ref().map(|signature| signature.key_id.as_str()));
            json.string_or_null("lsn", report.recovery.reached.as_ref().map(|end| end.lsn.as_str()));
            json.string_or_null("reason", report.reason.as_deref());
            json.string("result", report.result.word());
            json.scalar("rto-ms", report.rto_ms);
            json.scalar("timestamp", report.stop);
            let without: Vec<String> = report.without().into_iter().map(string).collect();
            json.raw("without", &format!("[{}]", without.join(",")));
        }
    })
}

fn render_database(database: &DatabaseRef) -> String {
    object(|json| {
        json.string("name", &database.name);
        json.scalar("oid", database.oid);
    })
}

fn render_link(link: &LinkRef) -> String {
    object(|json| {
        json.string("destination", &link.destination);
        json.string("name", &link.name);
    })
}

fn render_tablespace(tablespace: &TablespaceRef) -> String {
    object(|json| {
        json.string("destination", &tablespace.destination);
        json.string("name", &tablespace.name);
        json.scalar("oid", tablespace.oid);
    })
}

fn render_size(json: &mut ObjectWriter<'_>, backup: &BackupFact) {
    let entry = &backup.entry;
    let mut info = json.object("info");
    info.scalar("delta", entry.size_delta);
    let mut repository = info.object("repository");
    repository.scalar("delta", entry.repo_size_delta);
    if let Some(delta_map) = entry.repo_size_map_delta {
        repository.scalar("delta-map", delta_map);
    }
    match entry.repo_size_map {
        None => repository.scalar("size", entry.repo_size),
        Some(map) => repository.scalar("size-map", map),
    }
    repository.end();
    info.scalar("size", entry.size);
    info.end();
}

pub(super) fn object(fill: impl FnOnce(&mut ObjectWriter<'_>)) -> String {
    let mut out = String::new();
    let mut json = ObjectWriter::new(&mut out);
    fill(&mut json);
    json.end();
    out
}

pub(super) fn list<T>(items: &[T], render: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(render).collect::<Vec<_>>().join(","))
}

fn list_or_null<T>(items: &[T], render: impl Fn(&T) -> String) -> String {
    if items.is_empty() { "null".to_owned() } else { list(items, render) }
}

fn string(text: &str) -> String {
    let mut out = String::new();
    write_string(&mut out, text);
    out
}
