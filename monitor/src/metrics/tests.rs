use super::*;
use crate::snapshot::{
    ArchiverView, BackupView, LagView, PhaseView, ProofView, RecoveryView, RunView, RunningView, SpoolView, WindowView,
};

const NOW: i64 = 1_800_000_000;

/// A snapshot in which everything has a value.
pub(crate) fn complete() -> Snapshot {
    let proof = ProofView {
        backup: "20261129-030000F".to_owned(),
        result: "passed".to_owned(),
        time: NOW - 500,
        lsn: Some("1/20".to_owned()),
        recovery_seconds: 12.5,
        database_bytes: 1 << 39,
        phase_seconds: [("restore".to_owned(), 10.0)].into(),
        ..ProofView::default()
    };
    let window =
        WindowView { start_time: NOW - 9000, last_backup_time: NOW - 900, is_newest: true, ..WindowView::default() };
    let recovery = RecoveryView {
        time: NOW - 60,
        windows: vec![
            WindowView { start_time: NOW - 90_000, last_backup_time: NOW - 80_000, is_newest: false, ..window.clone() },
            window,
        ],
        newest_backup_is_current: Some(true),
        missing_segments: 3,
        missing_segments_newest: 1,
        ..RecoveryView::default()
    };
    let repo = RepoView {
        key: 2,
        status: "ok".to_owned(),
        latency_seconds: Some(0.25),
        stored_bytes: 100,
        database_bytes: 1000,
        newest_wal_time: Some(NOW - 45),
        recovery: Some(recovery),
        proof: Some(ProofView { result: "failed".to_owned(), time: NOW - 100, ..proof.clone() }),
        proven: Some(proof),
        ..RepoView::default()
    };
    let archiver = ArchiverView {
        last_archived_time: Some(NOW - 30),
        failed_count: 7,
        failing: Some("000000010000000000000007".to_owned()),
        ready: Some(5),
        ready_seconds: Some(40),
    };
    let cluster = ClusterView {
        key: 1,
        lsn: Some("2/10".to_owned()),
        archiver: Some(archiver),
        lag: vec![LagView { repo_key: 2, segments: 4, bytes: 70_000_000 }],
        ..ClusterView::default()
    };
    let backup = BackupView {
        label: "20261129-030000F".to_owned(),
        kind: "full".to_owned(),
        repo_key: 2,
        stop: NOW - 900,
        phases: vec![
            PhaseView { phase: "copy".to_owned(), seconds: 8.5, bytes: Some(4096) },
            PhaseView { phase: "save".to_owned(), seconds: 0.25, bytes: None },
        ],
        ..BackupView::default()
    };
    let running = RunningView {
        kind: "backup".to_owned(),
        total_bytes: Some(100),
        done_bytes: 40,
        bytes_per_second: Some(2.0),
        seconds_left: Some(30.0),
    };
    let spool = SpoolView { queue: "push".to_owned(), files: 3, bytes: 9, errors: 1, oldest_seconds: Some(8) };
    let stanza = StanzaView {
        name: "demo".to_owned(),
        repos: vec![repo],
        clusters: vec![cluster],
        backups: vec![backup],
        running: vec![running],
        spool: vec![spool],
        ..StanzaView::default()
    };
    let run = RunView {
        result: "failure".to_owned(),
        started: "2027-01-15T07:59:00Z".to_owned(),
        ended: "2027-01-15T07:59:50.5Z".to_owned(),
        exit_status: Some(82),
        ..RunView::default()
    };
    let job = JobView {
        stanza: "demo".to_owned(),
        name: "nightly".to_owned(),
        command: "backup".to_owned(),
        next: vec!["2027-01-15T08:01:00Z".to_owned()],
        success: Some(RunView {
            result: "success".to_owned(),
            ended: "2027-01-15T07:00:00Z".to_owned(),
            ..run.clone()
        }),
        last: Some(run),
        failures: 2,
        late_since: Some("2027-01-15T07:50:00Z".to_owned()),
        ..JobView::default()
    };
    Snapshot {
        format: crate::snapshot::FORMAT,
        time: NOW,
        stanzas: vec![stanza],
        jobs: vec![job],
        ..Snapshot::default()
    }
}

fn text(snapshot: &Snapshot) -> String {
    let mut metrics = Metrics::default();
    add(&mut metrics, snapshot);
    metrics.render()
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line}\n{text}");
}

#[test]
fn every_metric_of_the_table_has_a_value_in_a_complete_snapshot() {
    let text = text(&complete());
    for metric in table::ALL {
        assert!(text.contains(&format!("# TYPE {} gauge\n", metric.name)), "{}", metric.name);
    }
}

#[test]
fn values_are_those_of_the_snapshot() {
    let text = text(&complete());
    for line in [
        "rbr_repo_latency_seconds{repo_key=\"2\",stanza=\"demo\"} 0.25",
        "rbr_repo_backups{backup_type=\"full\",repo_key=\"2\",stanza=\"demo\"} 1",
        "rbr_repo_backups{backup_type=\"incr\",repo_key=\"2\",stanza=\"demo\"} 0",
        "rbr_wal_missing_segments{repo_key=\"2\",since=\"all_backups\",stanza=\"demo\"} 3",
        "rbr_wal_missing_segments{repo_key=\"2\",since=\"newest_backup\",stanza=\"demo\"} 1",
        "rbr_recovery_oldest_timestamp_seconds{repo_key=\"2\",stanza=\"demo\"} 1799910000",
        "rbr_recovery_current_since_timestamp_seconds{repo_key=\"2\",stanza=\"demo\"} 1799991000",
        "rbr_recovery_point_age_seconds{repo_key=\"2\",stanza=\"demo\"} 45",
        "rbr_proof_success_recovery_seconds_per_tebibyte{repo_key=\"2\",stanza=\"demo\"} 25",
        "rbr_proof_last_passed{repo_key=\"2\",stanza=\"demo\"} 0",
        "rbr_proof_success_age_seconds{repo_key=\"2\",stanza=\"demo\"} 500",
        "rbr_proof_success_lsn_bytes{repo_key=\"2\",stanza=\"demo\"} 4294967328",
        "rbr_proof_success_phase_seconds{phase=\"restore\",repo_key=\"2\",stanza=\"demo\"} 10",
        "rbr_wal_archive_lag_segments{pg_key=\"1\",repo_key=\"2\",stanza=\"demo\"} 4",
        "rbr_archiver_failing{pg_key=\"1\",stanza=\"demo\"} 1",
        "rbr_archiver_last_age_seconds{pg_key=\"1\",stanza=\"demo\"} 30",
        "rbr_spool_errors{queue=\"push\",stanza=\"demo\"} 1",
        "rbr_running_remaining_seconds{kind=\"backup\",stanza=\"demo\"} 30",
        "rbr_job_last_result{command=\"backup\",job=\"nightly\",result=\"failure\",stanza=\"demo\"} 1",
        "rbr_job_last_result{command=\"backup\",job=\"nightly\",result=\"success\",stanza=\"demo\"} 0",
        "rbr_job_last_duration_seconds{command=\"backup\",job=\"nightly\",stanza=\"demo\"} 50.5",
        "rbr_job_last_exit_status{command=\"backup\",job=\"nightly\",stanza=\"demo\"} 82",
        "rbr_job_late_seconds{command=\"backup\",job=\"nightly\",stanza=\"demo\"} 600",
        "rbr_job_success_age_seconds{command=\"backup\",job=\"nightly\",stanza=\"demo\"} 3600",
        "rbr_job_next_timestamp_seconds{command=\"backup\",job=\"nightly\",stanza=\"demo\"} 1800000060",
    ] {
        has(&text, line);
    }
}

#[test]
fn failure_of_a_repository_or_cluster_is_a_value_and_not_a_gap() {
    let mut snapshot = complete();
    let stanza = &mut snapshot.stanzas[0];
    stanza.repos[0].latency_seconds = None;
    stanza.clusters[0].error = Some("it does not answer".to_owned());
    let text = text(&snapshot);
    has(&text, "rbr_repo_up{repo_key=\"2\",stanza=\"demo\"} 0");
    has(&text, "rbr_cluster_up{pg_key=\"1\",stanza=\"demo\"} 0");
    // It is not known that there are no backups
    assert!(!text.contains("rbr_repo_backups") && !text.contains("rbr_repo_stored_bytes"), "{text}");
    assert!(!text.contains("rbr_wal_archive_lag_segments") && !text.contains("rbr_repo_latency"), "{text}");
}

#[test]
fn snapshot_is_the_same_after_it_was_written_and_read() {
    let snapshot = complete();
    assert_eq!(Snapshot::parse(&snapshot.to_json()).unwrap(), snapshot);
    assert!(Snapshot::parse("{}").is_err());
    let other = Snapshot { format: 2, ..snapshot };
    assert!(Snapshot::parse(&other.to_json()).unwrap_err().message.contains("format 2"));
}
