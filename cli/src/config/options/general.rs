//! Options of all or most commands.

use std::time::Duration;

use crate::config::decl::Command::{
    ArchiveGet, ArchivePush, Backup, Check, Info, Manifest, RepoGet, RepoLs, RepoRm, Restore, Server, ServerPing,
    Start, Stop, Verify,
};
use crate::config::decl::DefaultValue::{ByDepend, Fixed};
use crate::config::decl::Support::Moot;
use crate::config::decl::{
    DefaultValue, HelpGroup, Kind, MAIN, MAIN_ASYNC, NOT_REMOTE, Opt, OptionDecl, Override, Range, depend, depend_or,
    on, options,
};
use crate::config::options::{EVERY, STANZA_AND_REPO, WITH_IO, WITH_WORKERS};

options! {
    ALLOW_ROOT: Opt<bool> = OptionDecl {
        name: "allow-root",
        kind: Kind::Boolean,
        commands: EVERY,
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
        detail: "Files that root creates are the usual reason why the next command of the right user fails, so root is \
            refused unless this is set. restore may run as root, since it sets the owner of what it writes.",
        ..OptionDecl::BASE
    };

    ARCHIVE_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "archive-timeout",
        kind: Kind::Time,
        commands: on(&[ArchiveGet, ArchivePush, Backup, Check]),
        roles: MAIN,
        default: Fixed("1m"),
        range: Range::Fixed("100ms", "1d"),
        summary: "Time to wait for WAL.",
        detail: "How long backup and check wait for a WAL segment to arrive in the repository, and the asynchronous \
            archive commands for their background process.",
        ..OptionDecl::BASE
    };

    BETA: Opt<bool> = OptionDecl {
        name: "beta",
        kind: Kind::Boolean,
        commands: EVERY,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::General,
        support: Moot("there are no beta features"),
        summary: "Allow features that are under test.",
        detail: "No feature needs it at present.",
        ..OptionDecl::BASE
    };

    BUFFER_SIZE: Opt<u64> = OptionDecl {
        name: "buffer-size",
        kind: Kind::Size,
        commands: WITH_IO,
        default: Fixed("1MiB"),
        allow: &["16KiB", "32KiB", "64KiB", "128KiB", "256KiB", "512KiB", "1MiB", "2MiB", "4MiB", "8MiB", "16MiB"],
        help: HelpGroup::General,
        summary: "Size of buffers for reading and writing.",
        detail: "Larger buffers may be faster on fast disks and need more memory in each worker.",
        ..OptionDecl::BASE
    };

    CMD: Opt<String> = OptionDecl {
        name: "cmd",
        kind: Kind::String,
        commands: WITH_WORKERS,
        roles: NOT_REMOTE,
        default: DefaultValue::Program,
        help: HelpGroup::General,
        summary: "Command that runs this program.",
        detail: "Used where another program has to call this one, as in restore_command. The default is the path by \
            which it was called.",
        ..OptionDecl::BASE
    };

    CMD_SSH: Opt<String> = OptionDecl {
        name: "cmd-ssh",
        kind: Kind::String,
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("ssh"),
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts, which do not exist yet"),
        summary: "SSH client.",
        detail: "The program that makes SSH connections.",
        ..OptionDecl::BASE
    };

    COMPRESS: Opt<bool> = OptionDecl {
        name: "compress",
        kind: Kind::Boolean,
        commands: on(&[ArchivePush, Backup]),
        roles: MAIN,
        default: Fixed("y"),
        help: HelpGroup::General,
        summary: "Compress files (old).",
        detail: "Replaced by compress-type; n is the same as compress-type=none.",
        ..OptionDecl::BASE
    };

    COMPRESS_LEVEL: Opt<i64> = OptionDecl {
        name: "compress-level",
        kind: Kind::Integer,
        commands: on(&[ArchivePush, Backup]),
        roles: MAIN_ASYNC,
        required: false,
        default: ByDepend(&[("bz2", "9"), ("gz", "6"), ("lz4", "1"), ("zst", "3")]),
        range: Range::ByDepend(&[("bz2", "1", "9"), ("gz", "-1", "9"), ("lz4", "-5", "12"), ("zst", "-7", "22")]),
        depend: depend_or("compress-type", &["bz2", "gz", "lz4", "zst"], "0"),
        help: HelpGroup::General,
        summary: "Level of compression.",
        detail: "Higher levels are smaller and slower. Range and default depend on compress-type.",
        ..OptionDecl::BASE
    };

    COMPRESS_LEVEL_NETWORK: Opt<i64> = OptionDecl {
        name: "compress-level-network",
        kind: Kind::Integer,
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("1"),
        range: Range::Fixed("-5", "12"),
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts, which do not exist yet"),
        summary: "Level of compression between hosts.",
        detail: "Applies where data is not compressed already.",
        ..OptionDecl::BASE
    };

    COMPRESS_TYPE: Opt<String> = OptionDecl {
        name: "compress-type",
        kind: Kind::StringId,
        commands: on(&[ArchivePush, Backup]),
        roles: MAIN_ASYNC,
        default: Fixed("gz"),
        allow: &["none", "bz2", "gz", "lz4", "zst"],
        values: &[
            ("none", "no compression"),
            ("bz2", "small and very slow"),
            ("gz", "the format that every pgBackRest reads"),
            ("lz4", "fast and larger than zst"),
            ("zst", "fast and small, a good choice"),
        ],
        help: HelpGroup::General,
        summary: "Kind of compression.",
        detail: "How new files are compressed. Files that are in the repository keep their compression.",
        ..OptionDecl::BASE
    };

    DELTA: Opt<bool> = OptionDecl {
        name: "delta",
        kind: Kind::Boolean,
        commands: on(&[Backup, Restore]),
        roles: MAIN,
        default: Fixed("n"),
        help: HelpGroup::General,
        summary: "Decide by checksum what to copy.",
        detail: "Files are compared by checksum instead of time and size. For restore it means that files that are \
            already right stay and files that don't belong there are removed.",
        ..OptionDecl::BASE
    };

    IO_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "io-timeout",
        kind: Kind::Time,
        commands: WITH_IO,
        default: Fixed("1m"),
        range: Range::Fixed("100ms", "1h"),
        help: HelpGroup::General,
        summary: "Time limit for reading and writing.",
        detail: "Applies to connections to object stores and SFTP servers.",
        ..OptionDecl::BASE
    };

    JOB_RETRY: Opt<i64> = OptionDecl {
        name: "job-retry",
        kind: Kind::Integer,
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
        detail: "How often a file is copied again after an error before the command fails.",
        ..OptionDecl::BASE
    };

    JOB_RETRY_INTERVAL: Opt<Duration> = OptionDecl {
        name: "job-retry-interval",
        kind: Kind::Time,
        commands: WITH_WORKERS,
        roles: NOT_REMOTE,
        default: Fixed("15s"),
        range: Range::Fixed("0s", "15m"),
        internal: true,
        help: HelpGroup::General,
        summary: "Pause between retries of a job.",
        detail: "The first retry comes at once.",
        ..OptionDecl::BASE
    };

    LOCK_PATH: Opt<String> = OptionDecl {
        name: "lock-path",
        kind: Kind::Path,
        commands: EVERY.without(&[Check, Manifest, RepoGet, RepoLs, RepoRm, Server, ServerPing]),
        default: Fixed("/tmp/pgbackrest"),
        // pgBackRest's verify takes no lock and does not know the option
        overrides: &[Override { command: Verify, depend: depend("repair", &["y"]), ..Override::NONE }],
        help: HelpGroup::General,
        summary: "Directory of lock files.",
        detail: "Every process of the host has to use the same one. It also holds the files by which stop works.",
        ..OptionDecl::BASE
    };

    NEUTRAL_UMASK: Opt<bool> = OptionDecl {
        name: "neutral-umask",
        kind: Kind::Boolean,
        commands: EVERY.without(&[Info, Manifest, Server, ServerPing]),
        default: Fixed("y"),
        help: HelpGroup::General,
        summary: "Ignore the umask.",
        detail: "Files and directories of the repository get the modes 0640 and 0750 whatever the umask of the user is.",
        ..OptionDecl::BASE
    };

    PRIORITY: Opt<i64> = OptionDecl {
        name: "priority",
        kind: Kind::Integer,
        commands: EVERY,
        required: false,
        range: Range::Fixed("-20", "19"),
        help: HelpGroup::General,
        summary: "Priority of the process.",
        detail: "As nice: from -20 (high, for root only) to 19 (low).",
        ..OptionDecl::BASE
    };

    PROCESS_MAX: Opt<i64> = OptionDecl {
        name: "process-max",
        kind: Kind::Integer,
        commands: WITH_WORKERS,
        roles: MAIN_ASYNC,
        default: Fixed("1"),
        range: Range::Fixed("1", "999"),
        help: HelpGroup::General,
        summary: "Number of workers.",
        detail: "How many files are copied at the same time. Backups should leave some processors to PostgreSQL; \
            restores may use all.",
        ..OptionDecl::BASE
    };

    PROTOCOL_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "protocol-timeout",
        kind: Kind::Time,
        commands: EVERY.without(&[ServerPing, Start, Stop]),
        default: Fixed("31m"),
        range: Range::Fixed("100ms", "7d"),
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts, which do not exist yet"),
        summary: "Time limit for an answer of another process.",
        detail: "Must be longer than db-timeout.",
        ..OptionDecl::BASE
    };

    SCK_BLOCK: Opt<bool> = OptionDecl {
        name: "sck-block",
        kind: Kind::Boolean,
        commands: WITH_IO,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts, which do not exist yet"),
        summary: "Use blocking sockets.",
        detail: "Only for tests.",
        ..OptionDecl::BASE
    };

    SCK_KEEP_ALIVE: Opt<bool> = OptionDecl {
        name: "sck-keep-alive",
        kind: Kind::Boolean,
        commands: WITH_IO,
        default: Fixed("y"),
        help: HelpGroup::General,
        support: Moot("stores are watched by io-timeout, and connections to remote hosts do not exist yet"),
        summary: "Send keep-alive probes.",
        detail: "Finds out that a peer is gone.",
        ..OptionDecl::BASE
    };

    SPOOL_PATH: Opt<String> = OptionDecl {
        name: "spool-path",
        kind: Kind::Path,
        commands: on(&[ArchiveGet, ArchivePush, Restore]),
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
        detail: "Where asynchronous archiving keeps fetched WAL and the results of its work.",
        ..OptionDecl::BASE
    };

    TCP_KEEP_ALIVE_COUNT: Opt<i64> = OptionDecl {
        name: "tcp-keep-alive-count",
        kind: Kind::Integer,
        commands: WITH_IO,
        required: false,
        range: Range::Fixed("1", "32"),
        depend: depend("sck-keep-alive", &["y"]),
        help: HelpGroup::General,
        support: Moot("stores are watched by io-timeout, and connections to remote hosts do not exist yet"),
        summary: "Probes before a peer is gone.",
        detail: "The system's setting when it is not given.",
        ..OptionDecl::BASE
    };

    TCP_KEEP_ALIVE_IDLE: Opt<i64> = OptionDecl {
        name: "tcp-keep-alive-idle",
        kind: Kind::Integer,
        commands: WITH_IO,
        required: false,
        range: Range::Fixed("1", "3600"),
        depend: depend("sck-keep-alive", &["y"]),
        help: HelpGroup::General,
        support: Moot("stores are watched by io-timeout, and connections to remote hosts do not exist yet"),
        summary: "Seconds without data before the first probe.",
        detail: "The system's setting when it is not given.",
        ..OptionDecl::BASE
    };

    TCP_KEEP_ALIVE_INTERVAL: Opt<i64> = OptionDecl {
        name: "tcp-keep-alive-interval",
        kind: Kind::Integer,
        commands: WITH_IO,
        required: false,
        range: Range::Fixed("1", "900"),
        depend: depend("sck-keep-alive", &["y"]),
        help: HelpGroup::General,
        support: Moot("stores are watched by io-timeout, and connections to remote hosts do not exist yet"),
        summary: "Seconds between probes.",
        detail: "The system's setting when it is not given.",
        ..OptionDecl::BASE
    };

    TLS_CIPHER_12: Opt<String> = OptionDecl {
        name: "tls-cipher-12",
        kind: Kind::String,
        commands: WITH_IO,
        required: false,
        help: HelpGroup::General,
        summary: "TLS 1.2 cipher suites.",
        detail: "Those that may be used, by OpenSSL's names with colons between them. Only single suites can be named: no classes \
            and no operators.",
        ..OptionDecl::BASE
    };

    TLS_CIPHER_13: Opt<String> = OptionDecl {
        name: "tls-cipher-13",
        kind: Kind::String,
        commands: WITH_IO,
        required: false,
        help: HelpGroup::General,
        summary: "TLS 1.3 cipher suites.",
        detail: "Those that may be used, with colons between them.",
        ..OptionDecl::BASE
    };
}
