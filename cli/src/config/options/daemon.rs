//! Options of the daemon. pgBackRest does not have them.
//!
//! pgBackRest never reads sections of commands that it does not know, so these options may be in `[global:daemon]` and
//! `[STANZA:daemon]`, and for one schedule in its section. Elsewhere in a file they are refused.

use std::time::Duration;

use crate::config::decl::Command::{ArchiveGet, Daemon, Metrics, Schedule};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{COMMANDS, CommandSet, MAIN, OptionDecl, Range, Section, ValueKind, on};
use crate::config::handle::{Opt, options};

/// The schedule command reads the same configuration as the daemon.
const BOTH: CommandSet = on(&[Daemon, Schedule]);
/// What metrics are made of.
const WITH_METRICS: CommandSet = on(&[Daemon, Metrics]);

/// Commands that a schedule may run.
const SCHEDULED: CommandSet = {
    let mut set = CommandSet::NONE;
    let mut index = 0;
    while index < COMMANDS.len() {
        if COMMANDS[index].scheduled {
            set = set.with(&[COMMANDS[index].command]);
        }
        index += 1;
    }
    set
};

const OWN: OptionDecl = OptionDecl {
    section: Section::Global,
    commands: BOTH,
    roles: MAIN,
    required: false,
    own: true,
    ..OptionDecl::BASE
};

options! {
    CATCH_UP: Opt<bool> = OptionDecl {
        name: "catch-up",
        kind: ValueKind::Boolean,
        default: Fixed("y"),
        summary: "Make up for missed runs.",
        detail: "If the daemon was not running when a schedule was due, or if the last run took too long, the command runs \
            once, as soon as possible. If disabled, a run that is more than a minute late is left out, which is a result \
            like others.",
        ..OWN
    };

    CONFIG_COPY: Opt<String> = OptionDecl {
        name: "config-copy",
        kind: ValueKind::Path,
        section: Section::CommandLine,
        commands: SCHEDULED.with(&[ArchiveGet, Metrics, Schedule]),
        internal: true,
        summary: "Copy of the configuration files.",
        detail: "The daemon passes it to the processes that it starts, so that they have the configuration that the daemon has \
            accepted. archive-get of a test-restore gets it, too.",
        ..OWN
    };

    HOOK_AFTER: Opt<String> = OptionDecl {
        name: "hook-after",
        kind: ValueKind::String,
        summary: "Command to run after each run.",
        detail: "A command line for /bin/sh, which runs whatever the result is. It gets the result as JSON on standard \
            input.",
        ..OWN
    };

    HOOK_BEFORE: Opt<String> = OptionDecl {
        name: "hook-before",
        kind: ValueKind::String,
        summary: "Command to run before each run.",
        detail: "A command line for /bin/sh. It gets a description of the run as JSON on standard input. If it fails, the \
            run fails.",
        ..OWN
    };

    HOOK_FAILURE: Opt<String> = OptionDecl {
        name: "hook-failure",
        kind: ValueKind::String,
        summary: "Command to run after a failure.",
        detail: "A command line for /bin/sh, which runs after hook-after if the run failed. It gets the result as JSON on \
            standard input.",
        ..OWN
    };

    HOOK_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "hook-timeout",
        kind: ValueKind::Time,
        default: Fixed("1m"),
        range: Range::Fixed("1s", "1d"),
        summary: "How long a hook may take.",
        detail: "A hook or a request of the webhook that takes longer is ended and counts as failed.",
        ..OWN
    };

    JITTER: Opt<Duration> = OptionDecl {
        name: "jitter",
        kind: ValueKind::Time,
        default: Fixed("0"),
        range: Range::Fixed("0", "1d"),
        summary: "Maximum random delay of a run.",
        detail: "Each run starts up to this much later than the schedule says, so that many hosts with the same schedule do \
            not all start at once.",
        ..OWN
    };

    JOB_FILE: Opt<String> = OptionDecl {
        name: "job-file",
        kind: ValueKind::Path,
        section: Section::CommandLine,
        commands: SCHEDULED,
        internal: true,
        summary: "File for the result of a run.",
        detail: "The daemon passes it to the commands that it starts. The command locks the file while it runs, and writes \
            its exit status into it.",
        ..OWN
    };

    JOB_MAX: Opt<i64> = OptionDecl {
        name: "job-max",
        kind: ValueKind::Integer,
        default: Fixed("2"),
        range: Range::Fixed("1", "100"),
        summary: "Maximum number of commands at once.",
        detail: "Commands of different stanzas run at the same time up to this number. Only for all schedules.",
        ..OWN
    };

    METRICS_DATABASES: Opt<String> = OptionDecl {
        name: "metrics-databases",
        kind: ValueKind::StringId,
        commands: WITH_METRICS,
        default: Fixed("none"),
        allow: &["none", "latest", "all"],
        values: &[
            ("none", "count no databases"),
            ("latest", "count those of the newest backup of each type"),
            ("all", "count those of every backup"),
        ],
        summary: "Count the databases of backups.",
        detail: "The metrics pgbackrest_backup_databases and pgbackrest_backup_last_databases need the manifest of each \
            backup. The daemon reads it once.",
        ..OWN
    };

    METRICS_FILE: Opt<String> = OptionDecl {
        name: "metrics-file",
        kind: ValueKind::Path,
        commands: WITH_METRICS,
        summary: "File for metrics.",
        detail: "The metrics are written to a file in the same directory, which then replaces this one. For the text collector \
            of node_exporter the name ends with .prom. If it can't be written, the daemon says so in its log and on the page.",
        ..OWN
    };

    MONITOR_ADDRESS: Opt<String> = OptionDecl {
        name: "monitor-address",
        kind: ValueKind::String,
        commands: on(&[Daemon]),
        default: Fixed("127.0.0.1:9855"),
        summary: "Address of metrics and the status page.",
        detail: "The daemon serves /metrics, the status page, /api/v1/status and /healthz there, read only. An address that \
            other hosts reach needs monitor-token-file, or certificates of clients (monitor-tls-ca-file). 'off' serves \
            nothing. If the address can't be used, or a file of the following options can't be read, the daemon warns, \
            runs the schedules and tries again. Only for all schedules.",
        ..OWN
    };

    MONITOR_INTERVAL: Opt<Duration> = OptionDecl {
        name: "monitor-interval",
        kind: ValueKind::Time,
        commands: on(&[Daemon]),
        default: Fixed("1m"),
        range: Range::Fixed("5s", "1d"),
        summary: "How often metrics are collected.",
        detail: "Metrics and the status page show the last collection. Each sends a few requests to each repository. Only for \
            all schedules.",
        ..OWN
    };

    MONITOR_PATH: Opt<String> = OptionDecl {
        name: "monitor-path",
        kind: ValueKind::Path,
        section: Section::CommandLine,
        commands: on(&[Metrics]),
        internal: true,
        summary: "Directory of collected metrics.",
        detail: "The daemon passes it to the process that collects, which writes what the daemon serves.",
        ..OWN
    };

    MONITOR_TLS_CA_FILE: Opt<String> = OptionDecl {
        name: "monitor-tls-ca-file",
        kind: ValueKind::Path,
        commands: on(&[Daemon]),
        summary: "Authorities of clients.",
        detail: "A file of certificates in PEM format. A client then needs a certificate of one of these authorities. It needs \
            monitor-tls-cert-file. Only for all schedules.",
        ..OWN
    };

    MONITOR_TLS_CERT_FILE: Opt<String> = OptionDecl {
        name: "monitor-tls-cert-file",
        kind: ValueKind::Path,
        commands: on(&[Daemon]),
        summary: "Certificate of metrics and the status page.",
        detail: "A certificate in PEM format, with those that lead to its authority. They are then served by TLS only. It needs \
            monitor-tls-key-file. SIGHUP reads the files again. Only for all schedules.",
        ..OWN
    };

    MONITOR_TLS_KEY_FILE: Opt<String> = OptionDecl {
        name: "monitor-tls-key-file",
        kind: ValueKind::Path,
        commands: on(&[Daemon]),
        summary: "Key of the certificate.",
        detail: "The key of monitor-tls-cert-file in PEM format, which others may not be able to read. Only for all schedules.",
        ..OWN
    };

    MONITOR_TOKEN_FILE: Opt<String> = OptionDecl {
        name: "monitor-token-file",
        kind: ValueKind::Path,
        commands: on(&[Daemon]),
        summary: "File with the token of clients.",
        detail: "Requests then need the header 'Authorization: Bearer TOKEN', except for /healthz. Without TLS the token crosses \
            the network in plain text. SIGHUP reads the file again. Only for all schedules.",
        ..OWN
    };

    RETRY: Opt<i64> = OptionDecl {
        name: "retry",
        kind: ValueKind::Integer,
        range: Range::Fixed("0", "20"),
        summary: "How often to retry a failed run.",
        detail: "The next run by schedule takes the place of a retry. The default is 0 for verify and test-restore, which \
            take long and find the same again, and 2 for other commands.",
        ..OWN
    };

    RETRY_INTERVAL: Opt<Duration> = OptionDecl {
        name: "retry-interval",
        kind: ValueKind::Time,
        default: Fixed("5m"),
        range: Range::Fixed("1s", "1d"),
        summary: "Pause before the first retry.",
        detail: "The pause doubles with each retry.",
        ..OWN
    };

    RUN_ON: Opt<String> = OptionDecl {
        name: "run-on",
        kind: ValueKind::StringId,
        allow: &["any", "primary", "standby"],
        values: &[
            ("any", "each host with the schedule"),
            ("primary", "the host of the primary"),
            ("standby", "the host of a standby"),
        ],
        summary: "Host that runs the command.",
        detail: "If several hosts have the same schedule, the state of the local cluster decides at each run. So a failover \
            needs no change. A host whose turn it is not waits until the repository has the backup, and makes it itself if \
            its cluster is promoted before. A host without a local cluster always runs the command. The default is primary \
            for backup and expire, and any for other commands.",
        ..OWN
    };

    STATE_PATH: Opt<String> = OptionDecl {
        name: "state-path",
        kind: ValueKind::Path,
        commands: BOTH.with(&[Metrics]),
        default: Fixed("/var/lib/rbr"),
        summary: "Directory of the daemon's state.",
        detail: "Contains the last results and runs in progress. It must survive a restart of the host, so that missed \
            runs are noticed. Only for all schedules.",
        ..OWN
    };

    TIME_LIMIT: Opt<Duration> = OptionDecl {
        name: "time-limit",
        kind: ValueKind::Time,
        range: Range::Fixed("1s", "30d"),
        summary: "How long a run may take.",
        detail: "A command that takes longer gets SIGTERM, and SIGKILL two minutes later. The run has failed. There is no \
            limit by default.",
        ..OWN
    };

    TIME_ZONE: Opt<String> = OptionDecl {
        name: "time-zone",
        kind: ValueKind::String,
        summary: "Time zone of schedules.",
        detail: "A name such as Europe/Berlin, or UTC. The default is the time zone of the host. If the clock is put \
            forward, a run at a fixed time that does not exist starts at the change. If it is put back, it runs once. \
            Schedules with * in a field before the days follow the clock.",
        ..OWN
    };

    WEBHOOK_CA_FILE: Opt<String> = OptionDecl {
        name: "webhook-ca-file",
        kind: ValueKind::Path,
        summary: "Certificates to trust for the webhook.",
        detail: "A file of certificates in PEM format that is used instead of those of the system.",
        ..OWN
    };

    WEBHOOK_HEADER: Opt<Vec<String>> = OptionDecl {
        name: "webhook-header",
        kind: ValueKind::List,
        secure: true,
        summary: "Header of requests of the webhook.",
        detail: "NAME: VALUE, for example to authenticate. May be repeated.",
        ..OWN
    };

    WEBHOOK_RESULT: Opt<String> = OptionDecl {
        name: "webhook-result",
        kind: ValueKind::StringId,
        default: Fixed("all"),
        allow: &["all", "failure"],
        values: &[("all", "every result"), ("failure", "failures, and missed runs that are left out")],
        summary: "Results to send to the webhook.",
        detail: "What the webhook receives.",
        ..OWN
    };

    WEBHOOK_URL: Opt<String> = OptionDecl {
        name: "webhook-url",
        kind: ValueKind::String,
        secure: true,
        summary: "URL that receives results.",
        detail: "Each result is sent as JSON in a POST request. It is sent again for up to a day, until the answer has a \
            status of 2xx. So a result may arrive twice. The URL may contain a token, so it is kept out of the log.",
        ..OWN
    };
}
