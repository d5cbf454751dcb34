//! The names and help texts of the metrics of rbr.

use crate::text::Metric;

macro_rules! metrics {
    ($($id:ident: $name:literal, $help:literal;)*) => {
        $(pub(super) const $id: Metric = Metric { name: $name, help: $help };)*
        /// Every metric of rbr that a collection gives.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    BUILD_INFO: "rbr_build_info", "The version of rbr.";
    COLLECT_TIME: "rbr_collect_timestamp_seconds", "When the values were collected.";
    COLLECT_DURATION: "rbr_collect_duration_seconds", "How long the collection took.";
    DAEMON_UP: "rbr_daemon_up", "Whether the daemon is running.";
    COLLECT_ERRORS: "rbr_collect_errors", "Stanzas and other subjects that could not be collected.";
    REPO_UP: "rbr_repo_up", "Whether the repository can be reached.";
    REPO_LATENCY: "rbr_repo_latency_seconds", "How long the repository took to list a directory.";
    REPO_STORED: "rbr_repo_stored_bytes", "Size of all backups in the repository. A file that several backups share counts once.";
    REPO_DATABASE: "rbr_repo_database_bytes", "Size of the clusters in all backups, as if nothing were shared or compressed.";
    REPO_BACKUPS: "rbr_repo_backups", "Number of backups in the repository.";
    BACKUP_PHASE: "rbr_backup_phase_seconds", "How long each phase of the newest backup of this type took.";
    BACKUP_PHASE_BYTES: "rbr_backup_phase_bytes", "What the phase copied from the cluster, or the WAL that it found in the archive.";
    RECOVERY_LOOK_TIME: "rbr_recovery_check_timestamp_seconds", "When backups and WAL were last compared.";
    WAL_MISSING: "rbr_wal_missing_segments", "WAL segments that are missing in the archive after the start of the oldest or newest backup.";
    UNRECOVERABLE: "rbr_recovery_unrecoverable_backups", "Backups that can't be recovered because WAL is missing.";
    WINDOWS: "rbr_recovery_windows", "Ranges without a gap that can be recovered to.";
    WINDOW_OLDEST: "rbr_recovery_oldest_timestamp_seconds", "The oldest time that can be recovered to.";
    NEWEST_CURRENT: "rbr_recovery_newest_backup_is_current", "Whether the newest backup can be recovered to the newest archived WAL.";
    WINDOW_CURRENT: "rbr_recovery_current_since_timestamp_seconds", "The oldest time from which every time up to the newest archived WAL can be recovered to.";
    POINT_AGE: "rbr_recovery_point_age_seconds", "Seconds since the newest WAL was stored: what the loss of a cluster that writes would cost. Of repositories with a proof.";
    PROOF_PASSED: "rbr_proof_last_passed", "Whether the last test-restore proved a backup.";
    PROOF_TIME: "rbr_proof_last_timestamp_seconds", "When the last test-restore ended.";
    PROVEN_TIME: "rbr_proof_success_timestamp_seconds", "When the last test-restore that proved a backup ended.";
    PROVEN_AGE: "rbr_proof_success_age_seconds", "Seconds since the last test-restore that proved a backup.";
    PROVEN_RECOVERY: "rbr_proof_success_recovery_seconds", "How long the proven recovery took until the cluster accepted writes.";
    PROVEN_RATE: "rbr_proof_success_recovery_seconds_per_tebibyte", "How long the proven recovery took for each TiB of the cluster. Of a small cluster it says little.";
    PROVEN_BACKUP_TIME: "rbr_proof_success_backup_timestamp_seconds", "When the proven backup ended.";
    PROVEN_LSN: "rbr_proof_success_lsn_bytes", "The position that the proven recovery reached.";
    PROVEN_PHASE: "rbr_proof_success_phase_seconds", "How long each phase of the proven recovery took.";
    CLUSTER_UP: "rbr_cluster_up", "Whether PostgreSQL answers.";
    CLUSTER_STANDBY: "rbr_cluster_is_standby", "Whether PostgreSQL is in recovery.";
    CLUSTER_LSN: "rbr_cluster_wal_lsn_bytes", "The position at which PostgreSQL writes WAL.";
    ARCHIVER_FAILING: "rbr_archiver_failing", "Whether the last attempt of PostgreSQL to archive a file failed.";
    ARCHIVER_FAILED: "rbr_archiver_failed_attempts", "Failed attempts of PostgreSQL to archive a file since its statistics were reset.";
    ARCHIVER_LAST: "rbr_archiver_last_timestamp_seconds", "When PostgreSQL archived a file last.";
    ARCHIVER_AGE: "rbr_archiver_last_age_seconds", "Seconds since PostgreSQL archived a file.";
    ARCHIVER_READY: "rbr_archiver_ready_files", "Files that PostgreSQL wants archived.";
    ARCHIVER_READY_AGE: "rbr_archiver_ready_oldest_seconds", "How long the oldest of these files has waited.";
    LAG_SEGMENTS: "rbr_wal_archive_lag_segments", "Complete WAL segments of the cluster that are not in the repository.";
    LAG_BYTES: "rbr_wal_archive_lag_bytes", "WAL of the cluster that is not in the repository, with that of the unfinished segment.";
    SPOOL_FILES: "rbr_spool_files", "Files in a queue of asynchronous archiving.";
    SPOOL_BYTES: "rbr_spool_bytes", "Size of the files in a queue of asynchronous archiving.";
    SPOOL_ERRORS: "rbr_spool_errors", "Files in a queue of asynchronous archiving that tell an error.";
    SPOOL_AGE: "rbr_spool_oldest_seconds", "Age of the oldest file in a queue of asynchronous archiving.";
    RUNNING_RATE: "rbr_running_bytes_per_second", "Rate of the running backup or restore.";
    RUNNING_LEFT: "rbr_running_remaining_seconds", "Time left of the running backup or restore.";
    JOB_RUNNING: "rbr_job_running", "Whether the job is running.";
    JOB_FAILURES: "rbr_job_failures", "Failures since the last success of the job.";
    JOB_NEXT: "rbr_job_next_timestamp_seconds", "When the job runs next.";
    JOB_LATE: "rbr_job_late_seconds", "How long a successful run of the job has been missing.";
    JOB_RESULT: "rbr_job_last_result", "The result of the last run, which has the value 1.";
    JOB_LAST: "rbr_job_last_timestamp_seconds", "When the last run of the job ended.";
    JOB_DURATION: "rbr_job_last_duration_seconds", "How long the last run of the job took.";
    JOB_EXIT: "rbr_job_last_exit_status", "The exit status of the last run of the job.";
    JOB_SUCCESS: "rbr_job_success_timestamp_seconds", "When the last successful run of the job ended.";
    JOB_SUCCESS_AGE: "rbr_job_success_age_seconds", "Seconds since the last successful run of the job.";
}
