//! Options of all or most commands.

use std::time::Duration;

use crate::config::decl::Command::{
    ArchiveGet, ArchivePush, Backup, Check, Daemon, Info, Init, Manifest, Metrics, RepoGet, RepoLs, RepoRm, Restore,
    Schedule, Server, ServerPing, Start, Stop, Verify,
};
use crate::config::decl::DefaultValue::{ByDepend, Fixed};
use crate::config::decl::Support::Moot;
use crate::config::decl::{
    DefaultValue, HelpGroup, MAIN, MAIN_ASYNC, NOT_REMOTE, OptionDecl, Override, Range, ValueKind, depend, depend_or,
    on,
};
use crate::config::handle::{Opt, options};
use crate::config::options::{EVERY, STANZA_AND_REPO, WITH_IO, WITH_WORKERS};

options! {
    ALLOW_ROOT: Opt<bool> = OptionDecl {
        name: "allow-root",
        kind: ValueKind::Boolean,
        // init hands over to the owner of the cluster
        commands: EVERY.without(&[Init]),
        default: Fixed("n"),
        overrides: &[
            Override {
                command: Restore,
                default: Some(Fixed("y")),
                ..Override::NONE
            },
        ],
        help: HelpGroup::General,
        summary: "Allow root to run the command.",
        detail: "Files that root creates are the usual reason why later commands of the right user fail, so rbr \
            refuses to run as root unless this option is set. restore may run as root, because it sets the owner of \
            the files that it writes.",
        ..OptionDecl::BASE
    };

    ARCHIVE_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "archive-timeout",
        kind: ValueKind::Time,
        commands: on(&[ArchiveGet, ArchivePush, Backup, Check]),
        roles: MAIN,
        default: Fixed("1m"),
        range: Range::Fixed("100ms", "1d"),
        summary: "Time to wait for WAL.",
        detail: "How long backup and check wait for a WAL segment to reach the repository, and how long the \
            asynchronous archive commands wait for their background process.",
        ..OptionDecl::BASE
    };

    BETA: Opt<bool> = OptionDecl {
        name: "beta",
        kind: ValueKind::Boolean,
        commands: EVERY,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::General,
        support: Moot("there are no beta features"),
        summary: "Allow beta features.",
        detail: "No feature requires it at present.",
        ..OptionDecl::BASE
    };

    BUFFER_SIZE: Opt<u64> = OptionDecl {
        name: "buffer-size",
        kind: ValueKind::Size,
        commands: WITH_IO,
        default: Fixed("1MiB"),
        allow: &["16KiB", "32KiB", "64KiB", "128KiB", "256KiB", "512KiB", "1MiB", "2MiB", "4MiB", "8MiB", "16MiB"],
        help: HelpGroup::General,
        summary: "Size of buffers for reading and writing.",
        detail: "Larger buffers may be faster on fast disks, but need more memory per worker.",
        ..OptionDecl::BASE
    };

    CMD: Opt<String> = OptionDecl {
        name: "cmd",
        kind: ValueKind::String,
        commands: WITH_WORKERS,
        roles: NOT_REMOTE,
        default: DefaultValue::Program,
        help: HelpGroup::General,
        summary: "Command that runs this program.",
        detail: "Used if another program has to call this one, as in restore_command. Defaults to the path by which \
            the program was called.",
        ..OptionDecl::BASE
    };

    CMD_SSH: Opt<String> = OptionDecl {
        name: "cmd-ssh",
        kind: ValueKind::String,
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("ssh"),
        help: HelpGroup::General,
        summary: "SSH client.",
        detail: "The program that opens SSH connections.",
        ..OptionDecl::BASE
    };

    COMPRESS: Opt<bool> = OptionDecl {
        name: "compress",
        kind: ValueKind::Boolean,
        commands: on(&[ArchivePush, Backup]),
        roles: MAIN,
        default: Fixed("y"),
        help: HelpGroup::General,
        summary: "Compress files (deprecated).",
        detail: "Replaced by compress-type. n is the same as compress-type=none.",
        ..OptionDecl::BASE
    };

    COMPRESS_LEVEL: Opt<i64> = OptionDecl {
        name: "compress-level",
        kind: ValueKind::Integer,
        commands: on(&[ArchivePush, Backup, Init]),
        roles: MAIN_ASYNC,
        required: false,
        default: ByDepend(&[("bz2", "9"), ("gz", "6"), ("lz4", "1"), ("zst", "3")]),
        range: Range::ByDepend(&[("bz2", "1", "9"), ("gz", "-1", "9"), ("lz4", "-5", "12"), ("zst", "-7", "22")]),
        depend: depend_or("compress-type", &["bz2", "gz", "lz4", "zst"], "0"),
        help: HelpGroup::General,
        summary: "Compression level.",
        detail: "Higher levels produce smaller files and take longer. Range and default depend on compress-type.",
        ..OptionDecl::BASE
    };

    COMPRESS_LEVEL_NETWORK: Opt<i64> = OptionDecl {
        name: "compress-level-network",
        kind: ValueKind::Integer,
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("1"),
        range: Range::Fixed("-5", "12"),
        help: HelpGroup::General,
        summary: "Compression level between hosts.",
        detail: "What is neither compressed nor encrypted is compressed on its way: files of a cluster on another host, and \
                 files of a repository on another host that compress well. 0 disables it.",
        ..OptionDecl::BASE
    };

    COMPRESS_TYPE: Opt<String> = OptionDecl {
        name: "compress-type",
        kind: ValueKind::StringId,
        commands: on(&[ArchivePush, Backup, Init]),
        roles: MAIN_ASYNC,
        default: Fixed("gz"),
        allow: &["none", "bz2", "gz", "lz4", "zst"],
        values: &[
            ("none", "no compression"),
            ("bz2", "small and very slow"),
            ("gz", "readable by every version of pgBackRest"),
            ("lz4", "fast, larger files than zst"),
            ("zst", "fast and small, recommended"),
        ],
        help: HelpGroup::General,
        summary: "Compression type.",
        detail: "How new files are compressed. Files already in the repository keep their compression.",
        ..OptionDecl::BASE
    };

    DELTA: Opt<bool> = OptionDecl {
        name: "delta",
        kind: ValueKind::Boolean,
        commands: on(&[Backup, Restore]),
        roles: MAIN,
        default: Fixed("n"),
        help: HelpGroup::General,
        summary: "Use checksums to decide what to copy.",
        detail: "Compares files by checksum instead of time and size. A restore keeps files that already match the \
            backup and removes files that are not in the backup.",
        ..OptionDecl::BASE
    };

    IO_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "io-timeout",
        kind: ValueKind::Time,
        commands: WITH_IO,
        default: Fixed("1m"),
        range: Range::Fixed("100ms", "1h"),
        help: HelpGroup::General,
        summary: "Time limit for reading and writing.",
        detail: "Applies to connections to object stores and SFTP servers. A request fails if it makes no progress \
            for this long.",
        ..OptionDecl::BASE
    };

    JOB_RETRY: Opt<i64> = OptionDecl {
        name: "job-retry",
        kind: ValueKind::Integer,
        commands: WITH_WORKERS,
        roles: NOT_REMOTE,
        default: Fixed("2"),
        range: Range::Fixed("0", "360"),
        overrides: &[
            Override {
                command: ArchiveGet,
                default: Some(Fixed("1")),
                ..Override::NONE
            },
            Override {
                command: ArchivePush,
                default: Some(Fixed("1")),
                ..Override::NONE
            },
        ],
        internal: true,
        help: HelpGroup::General,
        summary: "Retries of a failed job.",
        detail: "How often a failed copy of a file is retried before the command fails.",
        ..OptionDecl::BASE
    };

    JOB_RETRY_INTERVAL: Opt<Duration> = OptionDecl {
        name: "job-retry-interval",
        kind: ValueKind::Time,
        commands: WITH_WORKERS,
        roles: NOT_REMOTE,
        default: Fixed("15s"),
        range: Range::Fixed("0s", "15m"),
        internal: true,
        help: HelpGroup::General,
        summary: "Pause between retries of a job.",
        detail: "The first retry is immediate.",
        ..OptionDecl::BASE
    };

    LOCK_PATH: Opt<String> = OptionDecl {
        name: "lock-path",
        kind: ValueKind::Path,
        commands: EVERY.without(&[Check, Manifest, RepoGet, RepoLs, RepoRm, Server, ServerPing]),
        default: Fixed("/tmp/pgbackrest"),
        // pgBackRest's verify takes no lock and does not know the option
        overrides: &[Override { command: Verify, depend: depend("repair", &["y"]), ..Override::NONE }],
        help: HelpGroup::General,
        summary: "Directory of lock files.",
        detail: "All processes of a host have to use the same directory. It also contains the stop files of the stop \
            command.",
        ..OptionDecl::BASE
    };

    NEUTRAL_UMASK: Opt<bool> = OptionDecl {
        name: "neutral-umask",
        kind: ValueKind::Boolean,
        // Hooks of the daemon keep the umask of the user
        commands: EVERY.without(&[Daemon, Info, Manifest, Metrics, Schedule, Server, ServerPing]),
        default: Fixed("y"),
        help: HelpGroup::General,
        summary: "Ignore the umask.",
        detail: "Files and directories of the repository get the modes 0640 and 0750, regardless of the user's umask.",
        ..OptionDecl::BASE
    };

    PRIORITY: Opt<i64> = OptionDecl {
        name: "priority",
        kind: ValueKind::Integer,
        commands: EVERY,
        required: false,
        range: Range::Fixed("-20", "19"),
        help: HelpGroup::General,
        summary: "Priority of the process.",
        detail: "The nice value, from -20 (high, root only) to 19 (low).",
        ..OptionDecl::BASE
    };

    PROCESS_MAX: Opt<i64> = OptionDecl {
        name: "process-max",
        kind: ValueKind::Integer,
        commands: WITH_WORKERS.with(&[Init]),
        roles: MAIN_ASYNC,
        default: Fixed("1"),
        range: Range::Fixed("1", "999"),
        help: HelpGroup::General,
        summary: "Number of workers.",
        detail: "How many workers copy files in parallel. Leave some processors to PostgreSQL during backups; a \
            restore can use all of them.",
        ..OptionDecl::BASE
    };

    PROTOCOL_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "protocol-timeout",
        kind: ValueKind::Time,
        commands: EVERY.without(&[ServerPing, Start, Stop]),
        default: Fixed("31m"),
        range: Range::Fixed("100ms", "7d"),
        help: HelpGroup::General,
        summary: "Time limit for a response of another process.",
        detail: "Must be longer than db-timeout.",
        ..OptionDecl::BASE
    };

    SCK_BLOCK: Opt<bool> = OptionDecl {
        name: "sck-block",
        kind: ValueKind::Boolean,
        commands: WITH_IO,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::General,
        support: Moot("sockets never block; each read and write has a time limit all the same"),
        summary: "Use blocking sockets.",
        detail: "Only for tests.",
        ..OptionDecl::BASE
    };

    SCK_KEEP_ALIVE: Opt<bool> = OptionDecl {
        name: "sck-keep-alive",
        kind: ValueKind::Boolean,
        commands: WITH_IO,
        default: Fixed("y"),
        help: HelpGroup::General,
        summary: "Send keep-alive probes.",
        detail: "Detects that a peer is gone.",
        ..OptionDecl::BASE
    };

    SPOOL_PATH: Opt<String> = OptionDecl {
        name: "spool-path",
        kind: ValueKind::Path,
        commands: on(&[ArchiveGet, ArchivePush, Init, Restore]),
        roles: NOT_REMOTE,
        default: Fixed("/var/spool/pgbackrest"),
        overrides: &[
            Override {
                command: ArchiveGet,
                depend: depend("archive-async", &["y"]),
                ..Override::NONE
            },
            Override {
                command: ArchivePush,
                depend: depend("archive-async", &["y"]),
                ..Override::NONE
            },
            Override {
                command: Restore,
                internal: Some(true),
                ..Override::NONE
            },
        ],
        help: HelpGroup::General,
        summary: "Directory of the spool.",
        detail: "Where asynchronous archiving keeps prefetched WAL and the status of each file.",
        ..OptionDecl::BASE
    };

    TCP_KEEP_ALIVE_COUNT: Opt<i64> = OptionDecl {
        name: "tcp-keep-alive-count",
        kind: ValueKind::Integer,
        commands: WITH_IO,
        required: false,
        range: Range::Fixed("1", "32"),
        depend: depend("sck-keep-alive", &["y"]),
        help: HelpGroup::General,
        summary: "Number of keep-alive probes.",
        detail: "The default for connections to hosts of pgBackRest or rbr is 30.",
        ..OptionDecl::BASE
    };

    TCP_KEEP_ALIVE_IDLE: Opt<i64> = OptionDecl {
        name: "tcp-keep-alive-idle",
        kind: ValueKind::Integer,
        commands: WITH_IO,
        required: false,
        range: Range::Fixed("1", "3600"),
        depend: depend("sck-keep-alive", &["y"]),
        help: HelpGroup::General,
        summary: "Seconds without data before the first probe.",
        detail: "The default for connections to hosts of pgBackRest or rbr is 60.",
        ..OptionDecl::BASE
    };

    TCP_KEEP_ALIVE_INTERVAL: Opt<i64> = OptionDecl {
        name: "tcp-keep-alive-interval",
        kind: ValueKind::Integer,
        commands: WITH_IO,
        required: false,
        range: Range::Fixed("1", "900"),
        depend: depend("sck-keep-alive", &["y"]),
        help: HelpGroup::General,
        summary: "Seconds between probes.",
        detail: "The default for connections to hosts of pgBackRest or rbr is 30.",
        ..OptionDecl::BASE
    };

    TLS_CIPHER_12: Opt<String> = OptionDecl {
        name: "tls-cipher-12",
        kind: ValueKind::String,
        commands: WITH_IO,
        required: false,
        help: HelpGroup::General,
        summary: "TLS 1.2 cipher suites.",
        detail: "The allowed suites, by OpenSSL's names, separated by colons. Only single suites can be named, not \
            classes or operators.",
        ..OptionDecl::BASE
    };

    TLS_CIPHER_13: Opt<String> = OptionDecl {
        name: "tls-cipher-13",
        kind: ValueKind::String,
        commands: WITH_IO,
        required: false,
        help: HelpGroup::General,
        summary: "TLS 1.3 cipher suites.",
        detail: "The allowed suites, separated by colons.",
        ..OptionDecl::BASE
    };
}
