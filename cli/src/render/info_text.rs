//! The text form of `info`, line for line pgBackRest's.

use std::fmt::Write as _;

use engine::info::{BackupFact, Detail, ManifestFacts, RunningLock, StanzaFact, StatusCode};
use engine::proof::ProofFact;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use repo_format::label::{BackupLabel, BackupType};
use repo_format::pg::PgVersion;
use repo_format::size::{format_percent, format_size};

use super::control::{visible_text, visible_value};
use super::info_lock;

/// Settings of the text form.
#[derive(Clone, Debug)]
pub struct TextSettings {
    /// How much detail was collected.
    pub detail: Detail,
    /// Whether a single backup was requested.
    pub set: bool,
    /// The time zone of times.
    pub time_zone: TimeZone,
}

/// All stanzas.
pub fn render(stanzas: &[StanzaFact], settings: &TextSettings) -> String {
    if stanzas.is_empty() {
        return "No stanzas exist in the repository.\n".to_owned();
    }
    let texts: Vec<String> = stanzas.iter().map(|stanza| render_stanza(stanza, settings)).collect();
    visible_text(&texts.join("\n")).into_owned()
}

// Writing into a String can't fail, so the results of `write!` below are dropped

fn render_stanza(stanza: &StanzaFact, settings: &TextSettings) -> String {
    let full = settings.detail == Detail::Full;
    let mut out = format!("stanza: {}\n    status: {}\n", stanza.name, status_line(stanza, full));
    let backups: Vec<_> = info_lock::backups_with_size(stanza).collect();
    if backups.len() > 1 {
        for repo in backups {
            let percent = format_percent(repo.backup_lock.size_complete, repo.backup_lock.size);
            let _ = writeln!(out, "        repo{} backup: {percent} complete", repo.key);
        }
    }
    for (what, lock) in [("backup", &info_lock::backup_total(stanza)), ("restore", &stanza.restore_lock)] {
        if let Some(rate) = rate_text(lock) {
            let _ = writeln!(out, "    {what} rate: {rate}");
        }
    }
    if !full {
        return out;
    }
    if matches!(stanza.status, StatusCode::Mixed | StatusCode::PgMismatch | StatusCode::Other) {
        render_repos(&mut out, stanza);
    }
    if stanza.status != StatusCode::MissingStanzaPath {
        let _ = writeln!(out, "    cipher: {}", stanza.cipher());
        if stanza.cipher() == StanzaFact::CIPHER_MIXED {
            for repo in &stanza.repos {
                let _ = writeln!(out, "        repo{}: {}", repo.key, repo.cipher);
            }
        }
    }
    if !stanza.databases.is_empty() {
        render_databases(&mut out, stanza, settings);
    }
    out
}

/// Returns `ok`, `mixed` or `error`, with the problem and the running commands.
fn status_line(stanza: &StanzaFact, full: bool) -> String {
    let is_error = stanza.status != StatusCode::Ok && (!full || stanza.status != StatusCode::Mixed);
    let label = match stanza.status {
        StatusCode::Ok => "ok",
        _ if is_error => "error",
        _ => "mixed",
    };
    let mut notes = Vec::new();
    if is_error {
        notes.push(stanza.status.message().to_owned());
    }
    let mut running = |what: &str, lock: &RunningLock| {
        if lock.held {
            let percent = match lock.size {
                0 => String::new(),
                size => format!(" - {} complete", format_percent(lock.size_complete, size)),
            };
            notes.push(format!("{what} running{percent}"));
        }
    };
    running("backup/expire", &info_lock::backup_total(stanza));
    running("restore", &stanza.restore_lock);
    if notes.is_empty() { label.to_owned() } else { format!("{label} ({})", notes.join(", ")) }
}

/// The rate of a copy and the time that the rest takes, which pgBackRest does not show.
fn rate_text(lock: &RunningLock) -> Option<String> {
    let seconds = lock.seconds_left()?;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!("{}/s, {hours}:{minutes:02}:{seconds:02} left", format_size(lock.rate?)))
}

/// Renders the status of each repository, or the message of the only repository.
fn render_repos(out: &mut String, stanza: &StanzaFact) {
    let several = stanza.repos.len() > 1;
    for repo in &stanza.repos {
        if several {
            let _ = write!(out, "        repo{}: ", repo.key);
        }
        match repo.status {
            StatusCode::Ok => out.push_str("ok\n"),
            StatusCode::Other => {
                let indent = if several { "               " } else { "            " };
                if several {
                    out.push_str("error (other)\n");
                }
                for line in repo.message().split('\n') {
                    let _ = writeln!(out, "{indent}{line}");
                }
            }
            status => {
                let _ = writeln!(out, "error ({})", status.message());
            }
        }
    }
}

/// The same cluster in all repositories, regardless of its number in their histories.
struct ClusterArchives<'a> {
    version: PgVersion,
    system_id: u64,
    current: bool,
    archive_min: Option<&'a str>,
    archive_max: Option<&'a str>,
    backups: Vec<&'a BackupFact>,
}

fn clusters(stanza: &StanzaFact) -> Vec<ClusterArchives<'_>> {
    let mut clusters: Vec<ClusterArchives<'_>> = Vec::new();
    for database in &stanza.databases {
        let same = |cluster: &ClusterArchives<'_>| {
            (cluster.version, cluster.system_id) == (database.version, database.system_id)
        };
        let index = clusters.iter().position(same).unwrap_or_else(|| {
            clusters.push(ClusterArchives {
                version: database.version,
                system_id: database.system_id,
                current: stanza.current == Some((database.version, database.system_id)),
                archive_min: None,
                archive_max: None,
                backups: Vec::new(),
            });
            clusters.len() - 1
        });
        let cluster = &mut clusters[index];
        for archive in &stanza.archives {
            if (archive.db_id, archive.repo_key) != (database.id, database.repo_key) {
                continue;
            }
            if let (Some(min), Some(max)) = (archive.min.as_deref(), archive.max.as_deref()) {
                cluster.archive_min = Some(cluster.archive_min.map_or(min, |before| before.min(min)));
                cluster.archive_max = Some(cluster.archive_max.map_or(max, |before| before.max(max)));
            }
        }
    }
    for backup in &stanza.backups {
        let database = stanza.databases.iter().find(|d| (d.id, d.repo_key) == (backup.entry.pg_id, backup.repo_key));
        let cluster = database.and_then(|database| {
            clusters.iter_mut().find(|c| (c.version, c.system_id) == (database.version, database.system_id))
        });
        if let Some(cluster) = cluster {
            cluster.backups.push(backup);
        }
    }
    clusters
}

/// Renders prior clusters first and the current one last.
fn render_databases(out: &mut String, stanza: &StanzaFact, settings: &TextSettings) {
    let mut clusters = clusters(stanza);
    if settings.set
        && let Some(last) = clusters.iter().rposition(|cluster| !cluster.backups.is_empty())
    {
        clusters = vec![clusters.swap_remove(last)];
    }
    for cluster in clusters.iter().filter(|cluster| !cluster.current) {
        if cluster.archive_min.is_some() || !cluster.backups.is_empty() {
            out.push_str("\n    db (prior)");
            render_cluster(out, cluster, settings);
        }
    }
    for cluster in clusters.iter().filter(|cluster| cluster.current) {
        out.push_str("\n    db (current)");
        render_cluster(out, cluster, settings);
    }
}

fn render_cluster(out: &mut String, cluster: &ClusterArchives<'_>, settings: &TextSettings) {
    let _ = write!(out, "\n        wal archive min/max ({}): ", cluster.version);
    match (cluster.archive_min, cluster.archive_max) {
        (Some(min), Some(max)) => {
            let _ = writeln!(out, "{min}/{max}");
        }
        _ => out.push_str("none present\n"),
    }
    for backup in &cluster.backups {
        render_backup(out, backup, settings);
    }
}

fn render_backup(out: &mut String, backup: &BackupFact, settings: &TextSettings) {
    let entry = &backup.entry;
    let _ = write!(out, "\n        {} backup: {}\n", entry.backup_type, backup.label);
    let mut line = |text: String| {
        out.push_str("            ");
        out.push_str(&text);
        out.push('\n');
    };
    line(format!(
        "timestamp start/stop: {} / {}",
        format_time(entry.timestamp_start, &settings.time_zone),
        format_time(entry.timestamp_stop, &settings.time_zone)
    ));
    line(match (&entry.archive_start, &entry.archive_stop) {
        (Some(start), Some(stop)) => format!("wal start/stop: {start} / {stop}"),
        _ => "wal start/stop: n/a".to_owned(),
    });
    if let (true, Some(start), Some(stop)) = (settings.set, &entry.lsn_start, &entry.lsn_stop) {
        line(format!("lsn start/stop: {start} / {stop}"));
    }
    line(format!(
        "database size: {}, database backup size: {}",
        format_size(entry.size),
        format_size(entry.size_delta)
    ));
    let set_size = match entry.repo_size_map {
        None => format!("backup set size: {}, ", format_size(entry.repo_size)),
        Some(_) => String::new(),
    };
    line(format!("repo{}: {set_size}backup size: {}", backup.repo_key, format_size(entry.repo_size_delta)));
    if !entry.reference.is_empty() {
        line(if settings.set {
            let labels: Vec<&str> = entry.reference.iter().map(AsRef::as_ref).collect();
            format!("backup reference list: {}", labels.join(", "))
        } else {
            reference_total(&entry.reference)
        });
    }
    if let Some(set) = &backup.set {
        set_lines(set).into_iter().for_each(&mut line);
    }
    if backup.error() == Some(true) {
        match backup.set.as_ref().filter(|set| !set.errors.is_empty()) {
            Some(set) => line(format!("error list: {}", visible_value(&set.errors.join(", ")))),
            None => line("error(s) detected during backup".to_owned()),
        }
    }
    if let Some(proof) = &backup.proof {
        line(proof_line(proof, &settings.time_zone));
    }
    if settings.set && !entry.annotation.is_empty() {
        line("annotation(s)".to_owned());
        for (key, value) in &entry.annotation {
            line(format!("    {}: {}", visible_value(key), visible_value(value)));
        }
    }
}

/// Returns the line about the last proof, which pgBackRest does not have.
fn proof_line(proof: &ProofFact, time_zone: &TimeZone) -> String {
    let proof = match proof {
        ProofFact::Known(proof) => proof,
        ProofFact::Unreadable(error) => return format!("last proof: unreadable: {}", visible_value(error)),
    };
    let report = &proof.report;
    let time = format_time(report.stop, time_zone);
    let signed = if proof.signature.is_some() { ", signed" } else { "" };
    match (&report.reason, &report.recovery.reached) {
        (None, Some(end)) => {
            let seconds = report.rto_ms.div_ceil(1000);
            let (verdict, lsn) = (report.verdict(), visible_value(&end.lsn));
            format!("last proof: {time} {verdict}, recovered to {lsn} in {seconds}s{signed}")
        }
        (reason, _) => {
            let reason = reason.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
            format!("last proof: {time} {}: {}{signed}", report.result.word(), visible_value(reason))
        }
    }
}

/// Returns the lines about databases, links and tablespaces.
fn set_lines(set: &ManifestFacts) -> Vec<String> {
    let databases: Vec<String> =
        set.databases.iter().map(|d| format!("{} ({})", visible_value(&d.name), d.oid)).collect();
    let databases = if databases.is_empty() { "none".to_owned() } else { databases.join(", ") };
    let mut lines = vec![format!("database list: {databases}")];
    if !set.links.is_empty() {
        lines.push("symlinks:".to_owned());
    }
    for link in &set.links {
        lines.push(format!("    {} => {}", visible_value(&link.name), visible_value(&link.destination)));
    }
    if !set.tablespaces.is_empty() {
        lines.push("tablespaces:".to_owned());
    }
    for tablespace in &set.tablespaces {
        let (name, destination) = (visible_value(&tablespace.name), visible_value(&tablespace.destination));
        lines.push(format!("    {name} ({}) => {destination}", tablespace.oid));
    }
    lines
}

/// Returns how many backups of each type a backup refers to.
fn reference_total(references: &[BackupLabel]) -> String {
    let count = |kind| references.iter().filter(|label| label.backup_type() == kind).count();
    let mut text = format!("backup reference total: {} full", count(BackupType::Full));
    for kind in [BackupType::Diff, BackupType::Incr] {
        match count(kind) {
            0 => {}
            total => {
                let _ = write!(text, ", {total} {kind}");
            }
        }
    }
    text
}

/// Formats local time with the offset from UTC. Minutes of the offset are omitted if they are zero.
fn format_time(epoch: i64, zone: &TimeZone) -> String {
    let Ok(timestamp) = Timestamp::from_second(epoch) else { return format!("@{epoch}") };
    let time = timestamp.to_zoned(zone.clone());
    let minutes = time.offset().seconds().abs() / 60;
    let sign = if time.offset().seconds() < 0 { '-' } else { '+' };
    let mut text = format!("{}{sign}{:02}", time.strftime("%Y-%m-%d %H:%M:%S"), minutes / 60);
    if minutes % 60 != 0 {
        let _ = write!(text, ":{:02}", minutes % 60);
    }
    text
}
