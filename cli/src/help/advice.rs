//! When to change an option. Options without a choice, such as the name of a bucket, have no entry.

/// By option, sorted.
const ADVICE: &[(&str, &str)] = &[
    (
        "allow-root",
        "in a container whose only user is root. Elsewhere run as the user that owns the cluster or repository.",
    ),
    ("archive-async", "when WAL is generated faster than single pushes store it, or when the repository is far away."),
    ("archive-check", "only for a cluster without archive_command, such as a test. The backup then may lack WAL."),
    (
        "archive-copy",
        "when a backup must be restorable without the archive, for example because it is copied elsewhere.",
    ),
    ("archive-get-queue-max", "when replay of WAL waits for the next segment: a larger queue fetches further ahead."),
    ("archive-header-check", "only for forks of PostgreSQL whose WAL has a different header."),
    ("archive-mode", "when the restored cluster must not archive, for example a test copy next to production: off."),
    ("archive-mode-check", "only if every standby pushes to a repository of its own and archive_mode must be always."),
    (
        "archive-push-queue-max",
        "when a full disk of the server is worse than a gap in the archive. Beyond the limit WAL is \
        dropped, and point-in-time recovery has a gap until the next backup.",
    ),
    (
        "archive-timeout",
        "when check or backup report a missing segment although it arrives later: a slow network or a \
        large queue of WAL.",
    ),
    ("backup-standby", "when reading the data files must not load the primary."),
    ("buffer-size", "rarely. Larger buffers can help on fast networks and use more memory per process."),
    ("checksum-page", "rarely: it follows the cluster. Off saves little time and hides damage."),
    ("checksum-page-error", "when backups must continue although the cluster has known damaged pages."),
    ("cmd-ssh", "when ssh is not in the path or a wrapper adds options."),
    ("compress-level", "when the repository is too large (higher) or backups take too much processor time (lower)."),
    ("compress-level-network", "on a slow link between hosts (higher), or on a fast one (0) to save processor time."),
    ("compress-type", "to zst for almost every repository: smaller and several times faster than gz."),
    ("config", "when the file is elsewhere, or one host has several configurations."),
    ("db-exclude", "when single databases are not needed in the restored cluster."),
    ("db-include", "when only single databases are needed in the restored cluster. All others become unusable there."),
    (
        "db-timeout",
        "when the start of a backup waits longer than this for a checkpoint. It must be below protocol-timeout.",
    ),
    (
        "delta",
        "backup: after changes that may keep size and time of files. restore: to reuse files in the data directory.",
    ),
    ("dry-run", "before an expire with new retention settings, to see what it removes."),
    ("exclude", "for files in the data directory that do not belong to PostgreSQL and are large."),
    ("expire-auto", "when expire runs on its own schedule, for example because removal in the repository takes long."),
    ("force", "only after reading the error that asks for it: it skips a check that protects data."),
    ("io-timeout", "when connections to a busy store end too early."),
    ("job-retry", "on unreliable storage (higher), or to see failures at once (0)."),
    ("link-all", "when links of the original cluster must be links in the restored one, and the paths exist."),
    ("link-map", "when single links must lead elsewhere on this host."),
    ("lock-path", "when /tmp is cleaned by other programs. All processes on the host must use the same path."),
    ("log-level-console", "to info for interactive use and for schedulers that keep the output."),
    (
        "log-level-file",
        "to detail while looking for a problem; to off where only the console is collected, as in containers.",
    ),
    ("log-level-stderr", "to warn in scheduled jobs that report what is on standard error."),
    ("log-path", "when logs are collected elsewhere. The user of the program must be able to write there."),
    ("log-timestamp", "to n when the collector of the log adds the time, such as journald."),
    ("manifest-save-threshold", "when a backup of a large cluster is often interrupted (lower)."),
    ("neutral-umask", "when the umask of the user must decide about the permissions of files in the repository."),
    ("online", "to n for a cluster that is shut down."),
    ("pg-database", "when the user may not connect to postgres."),
    ("pg-host", "when the program runs on another host than PostgreSQL."),
    ("pg-port", "when PostgreSQL listens on another port than 5432."),
    ("pg-socket-path", "when unix_socket_directories of the cluster is not the default of the library."),
    ("pg-user", "when backups must not connect as the user that runs the program."),
    ("pg-version-force", "only for forks of PostgreSQL with other version numbers."),
    ("priority", "when backups must give way to other processes of the host."),
    ("process-max", "almost always. Start with a quarter of the processors for backup, all of them for restore."),
    ("protocol-timeout", "together with db-timeout, which must be lower."),
    ("recovery-option", "for recovery settings that no other option sets, such as primary_conninfo."),
    ("repair", "after verify reported that one of two copies of an info file or manifest is damaged."),
    ("repo", "when the command must use another repository than the first, such as a second site."),
    (
        "repo-block",
        "for large files that change little between backups. It makes incremental backups much smaller. \
        Requires repo-bundle.",
    ),
    (
        "repo-bundle",
        "to y in new repositories on object stores or with many small files: far fewer requests and files.",
    ),
    ("repo-bundle-limit", "rarely. Files below it share bundles, above it each has its own file."),
    ("repo-bundle-size", "rarely. Larger bundles mean fewer requests and larger units of retry."),
    (
        "repo-cipher-type",
        "before the first backup, if anybody else can read the repository. It can't be changed later.",
    ),
    ("repo-hardlink", "when each backup on a file system must look like a complete cluster."),
    ("repo-host", "when the repository is on another host, which serves it by SSH."),
    ("repo-path", "always. Use a file system of its own, or a prefix of the bucket."),
    (
        "repo-retention-archive",
        "rarely: by default WAL is kept as long as the backups that need it. Less WAL makes older \
        backups recoverable only to their own end.",
    ),
    ("repo-retention-archive-type", "rarely, together with repo-retention-archive."),
    ("repo-retention-diff", "when differential backups accumulate between full backups."),
    ("repo-retention-full", "always. Without it nothing expires and the repository grows until the disk is full."),
    ("repo-retention-full-type", "to time when the policy is a number of days instead of a number of backups."),
    ("repo-retention-history", "when the history of old manifests is not needed: 0 removes it with the backups."),
    ("repo-s3-key-type", "to auto on instances with a role, or web-id in Kubernetes: no keys are stored then."),
    ("repo-s3-uri-style", "to path for servers without a host name per bucket, such as MinIO."),
    ("repo-azure-key-type", "to sas for tokens, or auto on machines with a managed identity."),
    ("repo-gcs-key-type", "to auto on instances with a service account."),
    ("repo-sftp-host-key-check-type", "to fingerprint when known_hosts is not maintained. none accepts any server."),
    ("repo-storage-ca-file", "when the certificate of the store is signed by your own authority."),
    (
        "repo-storage-host",
        "when requests must go to another host than the endpoint, such as a gateway or a test server.",
    ),
    (
        "repo-storage-upload-chunk-size",
        "for files above 10000 parts, or on fast links. Each process needs that much memory.",
    ),
    (
        "repo-storage-verify-tls",
        "only for a test server: without the check anybody between can read and change backups.",
    ),
    ("repo-symlink", "to n for file systems without links."),
    ("repo-target-time", "after a bucket with versions was damaged or files in it were deleted."),
    ("repo-type", "before the first backup: the kind of storage."),
    ("resume", "when leftovers of an interrupted backup must not be trusted."),
    ("set", "when another backup than the newest suitable one is wanted."),
    ("spool-path", "when archive-async is used: a local disk with room for the queue, not a network file system."),
    (
        "start-fast",
        "almost always in scheduled backups. Otherwise the backup waits for the next checkpoint, by default up \
        to five minutes.",
    ),
    ("tablespace-map", "when single tablespaces must have another path on this host."),
    ("tablespace-map-all", "when a clone on the same host must not touch the tablespaces of the original."),
    ("target-action", "to promote when nobody checks the recovered data before it is used."),
    ("target-exclusive", "when the transaction of the target itself must not be recovered."),
    (
        "target-timeline",
        "when recovery must follow another timeline than the latest, for example before a failed promotion.",
    ),
    ("tcp-keep-alive-idle", "when a firewall drops idle connections within a minute."),
    ("verify-exit-code", "in scheduled jobs, so that damage is reported by the exit status."),
];

/// Returns when to change an option.
pub(super) fn when_to_change(option: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(name, _)| *name == option).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options;

    #[test]
    fn advice_is_about_options_that_exist() {
        for (name, advice) in ADVICE {
            assert!(options::find(name).is_some(), "{name}");
            assert!(advice.ends_with('.') && !advice.contains("  "), "{name}: {advice}");
        }
        let mut names: Vec<_> = ADVICE.iter().map(|(name, _)| name).collect();
        names.dedup();
        assert_eq!(names.len(), ADVICE.len());
    }
}
