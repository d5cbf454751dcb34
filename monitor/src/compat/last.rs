//! The metrics of the last full, differential and incremental backup.
//!
//! The last differential backup may be a full one, and the last incremental one any, because those do for it. Backups of
//! all repositories count. Without a full backup there are no such metrics.

use super::{CompatContext, number, reference_counts, signed};
use crate::info::{InfoBackup, InfoStanza};
use crate::text::{Metric, Metrics};

const SINCE: Metric = Metric {
    name: "pgbackrest_backup_since_last_completion_seconds",
    help: "Seconds since the last completed full, differential or incremental backup.",
};
const REFERENCES: Metric = Metric {
    name: "pgbackrest_backup_last_references",
    help: "Number of references to other backups (backup reference list) in the last full, differential or incremental \
           backup.",
};
const DATABASES: Metric = Metric {
    name: "pgbackrest_backup_last_databases",
    help: "Number of databases in the last full, differential or incremental backup.",
};

/// A metric of a last backup, and its value.
type OfLast = (Metric, fn(&InfoBackup) -> f64);

const OF_LAST: [OfLast; 9] = [
    (
        Metric {
            name: "pgbackrest_backup_last_duration_seconds",
            help: "Backup duration for the last full, differential or incremental backup.",
        },
        |backup| signed(backup.duration()),
    ),
    (
        Metric {
            name: "pgbackrest_backup_last_size_bytes",
            help: "Full uncompressed size of the database in the last full, differential or incremental backup.",
        },
        |backup| number(backup.info.size),
    ),
    (
        Metric {
            name: "pgbackrest_backup_last_delta_bytes",
            help: "Amount of data in the database to actually backup in the last full, differential or incremental backup.",
        },
        |backup| number(backup.info.delta),
    ),
    (
        Metric {
            name: "pgbackrest_backup_last_repo_size_bytes",
            help: "Full compressed files size to restore the database from the last full, differential or incremental \
                   backup.",
        },
        |backup| number(backup.info.repository.size.unwrap_or(0)),
    ),
    (
        Metric {
            name: "pgbackrest_backup_last_repo_delta_bytes",
            help: "Compressed files size in the last full, differential or incremental backup.",
        },
        |backup| number(backup.info.repository.delta),
    ),
    (
        Metric {
            name: "pgbackrest_backup_last_repo_size_map_bytes",
            help: "Size of block incremental map in the last full, differential or incremental backup.",
        },
        |backup| number(backup.info.repository.size_map.unwrap_or(0)),
    ),
    (
        Metric {
            name: "pgbackrest_backup_last_repo_delta_map_bytes",
            help: "Size of block incremental delta map in the last full, differential or incremental backup.",
        },
        |backup| number(backup.info.repository.delta_map.unwrap_or(0)),
    ),
    (
        Metric {
            name: "pgbackrest_backup_last_error_status",
            help: "Error status in the last full, differential or incremental backup.",
        },
        |backup| f64::from(u8::from(backup.error == Some(true))),
    ),
    (
        Metric {
            name: "pgbackrest_backup_last_annotations",
            help: "Number of annotations in the last full, differential or incremental backup.",
        },
        |backup| number(backup.annotation.len() as u64),
    ),
];

/// The types, from the one that does for all later ones.
const TYPES: [&str; 3] = ["full", "diff", "incr"];

/// The last backup that does for a type. Of backups with the same end the first one counts.
pub fn last<'a>(stanza: &'a InfoStanza, kind: &str) -> Option<&'a InfoBackup> {
    let rank = |kind: &str| TYPES.iter().position(|known| *known == kind);
    let wanted = rank(kind)?;
    let fitting = stanza.backup.iter().filter(|backup| rank(&backup.kind).is_some_and(|rank| rank <= wanted));
    fitting.fold(None, |last: Option<&InfoBackup>, backup| match last {
        Some(last) if last.timestamp.stop >= backup.timestamp.stop => Some(last),
        _ => Some(backup),
    })
}

/// Adds the metrics of the last backups of a stanza.
pub(super) fn add(metrics: &mut Metrics, stanza: &InfoStanza, context: &CompatContext) {
    if last(stanza, "full").is_none() {
        return;
    }
    for kind in TYPES {
        let Some(backup) = last(stanza, kind) else { continue };
        let labels = [("backup_type", kind), ("block_incr", backup.block_incr()), ("stanza", &stanza.name)];
        metrics.set(SINCE, labels, signed(context.now.saturating_sub(backup.timestamp.stop)));
        for (metric, value) in OF_LAST {
            metrics.set(metric, labels, value(backup));
        }
        let [a, b, c] = labels;
        for (reference, count) in reference_counts(backup.reference.as_deref().unwrap_or_default()) {
            metrics.set(REFERENCES, [a, b, ("ref_backup", reference), c], number(count));
        }
        let of_backup = (stanza.name.clone(), backup.database.repo_key, backup.label.clone());
        if let Some(count) = context.databases.get(&of_backup) {
            metrics.set(DATABASES, labels, number(*count));
        }
    }
}
