use std::collections::BTreeSet;

use super::*;
use crate::info;

/// Output of pgBackRest and of the exporter for the same repositories, which `scripts/metrics-fixture` writes.
const INFO: &str = include_str!("../../../tests/fixtures/metrics/info.json");
const DATABASES: &str = include_str!("../../../tests/fixtures/metrics/databases");
const EXPORTER: &str = include_str!("../../../tests/fixtures/metrics/exporter.txt");

/// A time after the last backup of the fixture.
const NOW: i64 = 1_900_000_000;

fn ours() -> String {
    let stanzas = info::parse(INFO).unwrap();
    let databases = DATABASES.lines().map(|line| {
        let (label, count) = line.split_once(' ').unwrap();
        let backup = stanzas[0].backup.iter().find(|backup| backup.label == label).unwrap();
        (("demo".to_owned(), backup.database.repo_key, label.to_owned()), count.parse().unwrap())
    });
    let context = CompatContext { now: NOW, zone: TimeZone::UTC, databases: databases.collect() };
    let mut metrics = Metrics::default();
    add(&mut metrics, &stanzas, &context);
    add_exporter(&mut metrics, None, true, "0.1.0");
    metrics.render()
}

/// Series and values. What differs between two programs or moments has no value.
fn values(text: &str) -> BTreeMap<String, Option<f64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        if series.starts_with("pgbackrest_exporter_build_info") {
            return (label_names(series), None);
        }
        let changes = series.starts_with("pgbackrest_backup_since_last_completion_seconds");
        (series.to_owned(), (!changes).then(|| value.parse().unwrap()))
    });
    values.collect()
}

/// A series without the values of its labels.
fn label_names(series: &str) -> String {
    series.split('"').step_by(2).collect()
}

#[test]
fn every_metric_of_the_exporter_has_the_same_labels_and_value() {
    let (ours, theirs) = (values(&ours()), values(EXPORTER));
    assert!(theirs.len() > 140, "{theirs:?}");
    for (series, value) in &theirs {
        assert_eq!(ours.get(series), Some(value), "{series}");
    }
    let more: Vec<&String> = ours.keys().filter(|series| !theirs.contains_key(*series)).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn every_metric_of_the_exporter_has_the_same_help_text_and_type() {
    let comments = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect()
    };
    let (ours, theirs) = (comments(&ours()), comments(EXPORTER));
    assert!(theirs.len() > 60, "{theirs:?}");
    assert_eq!(ours, theirs);
}

#[test]
fn age_of_the_last_backup_counts_from_its_end() {
    let stanzas = info::parse(INFO).unwrap();
    let newest = stanzas[0].backup.iter().map(|backup| backup.timestamp.stop).max().unwrap();
    let wanted = format!(
        "pgbackrest_backup_since_last_completion_seconds{{backup_type=\"incr\",block_incr=\"y\",stanza=\"demo\"}} {}",
        NOW - newest
    );
    assert!(ours().lines().any(|line| line == wanted), "{wanted}");
}

#[test]
fn stanza_without_a_full_backup_has_no_metrics_of_last_backups() {
    let mut stanzas = info::parse(INFO).unwrap();
    stanzas[0].backup.retain(|backup| backup.kind != "full");
    let context = CompatContext { now: NOW, zone: TimeZone::UTC, databases: BTreeMap::new() };
    let mut metrics = Metrics::default();
    add(&mut metrics, &stanzas, &context);
    let text = metrics.render();
    assert!(text.contains("pgbackrest_backup_info") && !text.contains("pgbackrest_backup_last_"), "{text}");
}
