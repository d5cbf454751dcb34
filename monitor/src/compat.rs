//! The metrics of `pgbackrest_exporter` 0.23: the same names, labels, help texts and values, from the same JSON of `info`.
//!
//! Its options `--backrest.reference-count` and, on request, `--backrest.database-count` are on.
//! `--backrest.verbose-wal` is off: the labels exist but are empty, because each segment would begin a new series.

mod backup;
mod last;

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::info::{InfoLock, InfoStanza};
use crate::text::{Metric, Metrics};

/// What the metrics need besides the JSON of `info`.
#[derive(Clone, Debug)]
pub struct CompatContext {
    /// The time of collection in seconds since 1970.
    pub now: i64,
    /// The zone of labels with times.
    pub zone: TimeZone,
    /// The number of databases of backups for which it is known, by stanza, repository and label.
    pub databases: BTreeMap<(String, u32, String), u64>,
}

const STANZA_STATUS: Metric = Metric { name: "pgbackrest_stanza_status", help: "Current stanza status." };
const REPO_STATUS: Metric = Metric { name: "pgbackrest_repo_status", help: "Current repository status." };
const WAL_STATUS: Metric = Metric { name: "pgbackrest_wal_archive_status", help: "Current WAL archive status." };
const VERSION: Metric = Metric { name: "pgbackrest_version_info", help: "Information about pgBackRest version." };
const STATUS: Metric = Metric { name: "pgbackrest_exporter_status", help: "pgBackRest exporter get data status." };
const BUILD: Metric = Metric {
    name: "pgbackrest_exporter_build_info",
    help: "A metric with a constant '1' value labeled by version, revision, branch, goversion from which \
           pgbackrest_exporter was built, and the goos and goarch for the build.",
};
/// The metrics of a lock: held, all bytes, bytes done.
const BACKUP_LOCK: [Metric; 3] = [
    Metric { name: "pgbackrest_stanza_backup_lock_status", help: "Current stanza backup lock status." },
    Metric { name: "pgbackrest_stanza_backup_total_bytes", help: "Total size for backup in progress." },
    Metric { name: "pgbackrest_stanza_backup_complete_bytes", help: "Completed size for backup in progress." },
];
const RESTORE_LOCK: [Metric; 3] = [
    Metric { name: "pgbackrest_stanza_restore_lock_status", help: "Current stanza restore lock status." },
    Metric { name: "pgbackrest_stanza_restore_total_bytes", help: "Total size for restore in progress." },
    Metric { name: "pgbackrest_stanza_restore_complete_bytes", help: "Completed size for restore in progress." },
];

/// The version of pgBackRest whose output rbr's is, as `version --output=num` prints it.
pub const PGBACKREST_VERSION_NUM: u32 = 2_060_000;

/// Adds the metrics of all stanzas.
pub fn add(metrics: &mut Metrics, stanzas: &[InfoStanza], context: &CompatContext) {
    for stanza in stanzas {
        add_stanza(metrics, stanza);
        backup::add(metrics, stanza, context);
        last::add(metrics, stanza, context);
    }
}

/// Adds the metrics of the exporter itself. `stanza` is what was collected: a stanza, or `None` for all. `is_complete` says
/// whether everything could be collected.
pub fn add_exporter(metrics: &mut Metrics, stanza: Option<&str>, is_complete: bool, version: &str) {
    metrics.set(STATUS, [("stanza", stanza.unwrap_or("all-stanzas"))], f64::from(u8::from(is_complete)));
    metrics.set(VERSION, [], f64::from(PGBACKREST_VERSION_NUM));
    let goarch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = format!("rbr {version}");
    let labels = [
        ("branch", ""),
        ("goarch", goarch),
        ("goos", std::env::consts::OS),
        ("goversion", ""),
        ("revision", ""),
        ("tags", ""),
        ("version", version.as_str()),
    ];
    metrics.set(BUILD, labels, 1.0);
}

/// Adds that nothing could be collected.
pub fn add_failure(metrics: &mut Metrics) {
    metrics.set(STATUS, [("stanza", "all-stanzas")], 0.0);
}

fn add_stanza(metrics: &mut Metrics, stanza: &InfoStanza) {
    let name = [("stanza", stanza.name.as_str())];
    metrics.set(STANZA_STATUS, name, f64::from(stanza.status.code));
    let locks = [(BACKUP_LOCK, &stanza.status.lock.backup), (RESTORE_LOCK, &stanza.status.lock.restore)];
    for ([held, size, complete], lock) in locks {
        let InfoLock { held: is_held, size: total, size_complete } = lock;
        metrics.set(held, name, f64::from(u8::from(*is_held)));
        metrics.set(size, name, number(total.unwrap_or(0)));
        metrics.set(complete, name, number(size_complete.unwrap_or(0)));
    }
    for repo in &stanza.repo {
        let key = repo.key.to_string();
        let labels = [("cipher", repo.cipher.as_str()), ("repo_key", &key), ("stanza", &stanza.name)];
        metrics.set(REPO_STATUS, labels, f64::from(repo.status.code));
    }
    for archive in &stanza.archive {
        let has_wal = archive.min.is_some() && archive.max.is_some();
        let (id, key) = (archive.database.id.to_string(), archive.database.repo_key.to_string());
        let labels = [
            ("database_id", id.as_str()),
            ("pg_version", stanza.pg_version(archive.database)),
            ("repo_key", &key),
            ("stanza", &stanza.name),
            ("wal_max", ""),
            ("wal_min", ""),
        ];
        metrics.set(WAL_STATUS, labels, f64::from(u8::from(has_wal)));
    }
}

/// How many of these backups are of each type.
fn reference_counts(labels: &[String]) -> [(&'static str, u64); 3] {
    [("full", 'F'), ("diff", 'D'), ("incr", 'I')].map(|(kind, end)| {
        let count = labels.iter().filter(|label| label.ends_with(end)).count();
        (kind, count as u64)
    })
}

/// A time in the zone of the context.
fn local_time(seconds: i64, zone: &TimeZone) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Numbers of more than 53 bits lose their last bits, as in every program that reads metrics.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
pub(crate) fn number(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
pub(crate) fn signed(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
