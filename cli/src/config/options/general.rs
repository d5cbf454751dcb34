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
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "archive-timeout",
        kind: Kind::Time,
        commands: on(&[ArchiveGet, ArchivePush, Backup, Check]),
        roles: MAIN,
        default: Fixed("1m"),
        range: Range::Fixed("100ms", "1d"),
        summary: "",
        detail: "",
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
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    BUFFER_SIZE: Opt<u64> = OptionDecl {
        name: "buffer-size",
        kind: Kind::Size,
        commands: WITH_IO,
        default: Fixed("1MiB"),
        allow: &["16KiB", "32KiB", "64KiB", "128KiB", "256KiB", "512KiB", "1MiB", "2MiB", "4MiB", "8MiB", "16MiB"],
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    CMD: Opt<String> = OptionDecl {
        name: "cmd",
        kind: Kind::String,
        commands: WITH_WORKERS,
        roles: NOT_REMOTE,
        default: DefaultValue::Program,
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    CMD_SSH: Opt<String> = OptionDecl {
        name: "cmd-ssh",
        kind: Kind::String,
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("ssh"),
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    COMPRESS: Opt<bool> = OptionDecl {
        name: "compress",
        kind: Kind::Boolean,
        commands: on(&[ArchivePush, Backup]),
        roles: MAIN,
        default: Fixed("y"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
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
        summary: "",
        detail: "",
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
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    COMPRESS_TYPE: Opt<String> = OptionDecl {
        name: "compress-type",
        kind: Kind::StringId,
        commands: on(&[ArchivePush, Backup]),
        roles: MAIN_ASYNC,
        default: Fixed("gz"),
        allow: &["none", "bz2", "gz", "lz4", "zst"],
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    DELTA: Opt<bool> = OptionDecl {
        name: "delta",
        kind: Kind::Boolean,
        commands: on(&[Backup, Restore]),
        roles: MAIN,
        default: Fixed("n"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    IO_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "io-timeout",
        kind: Kind::Time,
        commands: WITH_IO,
        default: Fixed("1m"),
        range: Range::Fixed("100ms", "1h"),
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
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
        summary: "",
        detail: "",
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
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    LOCK_PATH: Opt<String> = OptionDecl {
        name: "lock-path",
        kind: Kind::Path,
        commands: EVERY.without(&[Check, Manifest, RepoGet, RepoLs, RepoRm, Server, ServerPing, Verify]),
        default: Fixed("/tmp/pgbackrest"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    NEUTRAL_UMASK: Opt<bool> = OptionDecl {
        name: "neutral-umask",
        kind: Kind::Boolean,
        commands: EVERY.without(&[Info, Manifest, Server, ServerPing]),
        default: Fixed("y"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    PRIORITY: Opt<i64> = OptionDecl {
        name: "priority",
        kind: Kind::Integer,
        commands: EVERY,
        required: false,
        range: Range::Fixed("-20", "19"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
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
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    PROTOCOL_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "protocol-timeout",
        kind: Kind::Time,
        commands: EVERY.without(&[ServerPing, Start, Stop]),
        default: Fixed("31m"),
        range: Range::Fixed("100ms", "7d"),
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    SCK_BLOCK: Opt<bool> = OptionDecl {
        name: "sck-block",
        kind: Kind::Boolean,
        commands: WITH_IO,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    SCK_KEEP_ALIVE: Opt<bool> = OptionDecl {
        name: "sck-keep-alive",
        kind: Kind::Boolean,
        commands: WITH_IO,
        default: Fixed("y"),
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
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
        summary: "",
        detail: "",
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
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
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
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
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
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TLS_CIPHER_12: Opt<String> = OptionDecl {
        name: "tls-cipher-12",
        kind: Kind::String,
        commands: WITH_IO,
        required: false,
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TLS_CIPHER_13: Opt<String> = OptionDecl {
        name: "tls-cipher-13",
        kind: Kind::String,
        commands: WITH_IO,
        required: false,
        help: HelpGroup::General,
        support: Moot("it concerns connections to remote hosts and object stores, which do not exist yet"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };
}
