//! The metrics of each backup.

use super::{CompatContext, local_time, number, reference_counts, signed};
use crate::info::{InfoBackup, InfoStanza};
use crate::text::{Metric, Metrics};

const INFO: Metric = Metric { name: "pgbackrest_backup_info", help: "Backup info." };
const DURATION: Metric = Metric { name: "pgbackrest_backup_duration_seconds", help: "Backup duration." };
const REFERENCES: Metric = Metric {
    name: "pgbackrest_backup_references",
    help: "Number of references to other backups (backup reference list).",
};
const DATABASES: Metric = Metric { name: "pgbackrest_backup_databases", help: "Number of databases in backup." };

/// A metric with the labels of its backup, and its value.
type OfBackup = (Metric, fn(&InfoBackup) -> f64);

const OF_BACKUP: [OfBackup; 8] = [
    (Metric { name: "pgbackrest_backup_size_bytes", help: "Full uncompressed size of the database." }, |backup| {
        number(backup.info.size)
    }),
    (
        Metric { name: "pgbackrest_backup_delta_bytes", help: "Amount of data in the database to actually backup." },
        |backup| number(backup.info.delta),
    ),
    (
        Metric {
            name: "pgbackrest_backup_repo_size_bytes",
            help: "Full compressed files size to restore the database from backup.",
        },
        |backup| number(backup.info.repository.size.unwrap_or(0)),
    ),
    (Metric { name: "pgbackrest_backup_repo_delta_bytes", help: "Compressed files size in backup." }, |backup| {
        number(backup.info.repository.delta)
    }),
    (Metric { name: "pgbackrest_backup_repo_size_map_bytes", help: "Size of block incremental map." }, |backup| {
        number(backup.info.repository.size_map.unwrap_or(0))
    }),
    (
        Metric { name: "pgbackrest_backup_repo_delta_map_bytes", help: "Size of block incremental delta map." },
        |backup| number(backup.info.repository.delta_map.unwrap_or(0)),
    ),
    (Metric { name: "pgbackrest_backup_error_status", help: "Backup error status." }, |backup| {
        f64::from(u8::from(backup.error == Some(true)))
    }),
    (Metric { name: "pgbackrest_backup_annotations", help: "Number of annotations in backup." }, |backup| {
        number(backup.annotation.len() as u64)
    }),
];

/// Adds the metrics of the backups of a stanza.
pub(super) fn add(metrics: &mut Metrics, stanza: &InfoStanza, context: &CompatContext) {
    for backup in &stanza.backup {
        let (id, key) = (backup.database.id.to_string(), backup.database.repo_key.to_string());
        let labels = [
            ("backup_name", backup.label.as_str()),
            ("backup_type", &backup.kind),
            ("block_incr", backup.block_incr()),
            ("database_id", &id),
            ("repo_key", &key),
            ("stanza", &stanza.name),
        ];
        for (metric, value) in OF_BACKUP {
            metrics.set(metric, labels, value(backup));
        }
        let [a, b, c, d, e, f] = labels;
        for (kind, count) in reference_counts(backup.reference.as_deref().unwrap_or_default()) {
            metrics.set(REFERENCES, [a, b, c, d, ("ref_backup", kind), e, f], number(count));
        }
        let of_backup = (stanza.name.clone(), backup.database.repo_key, backup.label.clone());
        if let Some(count) = context.databases.get(&of_backup) {
            metrics.set(DATABASES, labels, number(*count));
        }
        let start = local_time(backup.timestamp.start, &context.zone);
        let stop = local_time(backup.timestamp.stop, &context.zone);
        let times = [a, b, c, d, e, f, ("start_time", &start), ("stop_time", &stop)];
        metrics.set(DURATION, times, signed(backup.duration()));
        add_info(metrics, stanza, backup, labels);
    }
}

fn add_info(metrics: &mut Metrics, stanza: &InfoStanza, backup: &InfoBackup, labels: [(&'static str, &str); 6]) {
    let lsn = backup.lsn.clone().unwrap_or_default();
    let [a, b, c, d, e, f] = labels;
    let info = [
        ("backrest_ver", backup.backrest.version.as_str()),
        a,
        b,
        c,
        d,
        ("lsn_start", lsn.start.as_deref().unwrap_or("-")),
        ("lsn_stop", lsn.stop.as_deref().unwrap_or("-")),
        ("pg_version", stanza.pg_version(backup.database)),
        ("prior", backup.prior.as_deref().unwrap_or_default()),
        e,
        f,
        ("wal_start", backup.archive.start.as_deref().unwrap_or_default()),
        ("wal_stop", backup.archive.stop.as_deref().unwrap_or_default()),
    ];
    metrics.set(INFO, info, 1.0);
}
