//! Options that limit how much a command takes from a server, a disk or a network. pgBackRest does not have them.

use crate::config::decl::Command::{ArchiveGet, Backup, Restore, TestRestore, Verify};
use crate::config::decl::{CommandSet, MAIN, MAIN_ASYNC, OptionDecl, Range, Section, ValueKind, depend, on};
use crate::config::handle::{Opt, options};

const OWN: OptionDecl =
    OptionDecl { section: Section::CommandLine, roles: MAIN, required: false, own: true, ..OptionDecl::BASE };

/// Commands with a rate.
const WITH_RATE: CommandSet = on(&[ArchiveGet, Backup, Restore, TestRestore, Verify]);

options! {
    MAX_LOAD: Opt<i64> = OptionDecl {
        name: "max-load",
        kind: ValueKind::Integer,
        commands: on(&[Backup]),
        range: Range::Fixed("1", "10000"),
        summary: "Slow down while this host has more load.",
        detail: "The load average of this host over one minute, which includes the backup itself: about process-max if nothing \
            else runs. While it is higher, the backup copies less and less, in steps that are larger the higher it is, but never \
            less than 1MiB per second, so that it ends. Afterwards the rate rises again. Only for a cluster on this host.",
        ..OWN
    };

    MAX_RATE: Opt<u64> = OptionDecl {
        name: "max-rate",
        kind: ValueKind::Size,
        commands: WITH_RATE,
        roles: MAIN_ASYNC,
        range: Range::Fixed("1MiB", "4PiB"),
        summary: "Maximum bytes per second.",
        detail: "The limit is for all workers of the command together. A backup reads no more of the cluster, before \
            compression, so it stores no more either. If the cluster is on another host, no more arrives from it. The \
            other commands read no more of the repository, as it is stored and not as it comes through compress-level-network. That of test-restore is for the restore and then \
            for the WAL of the recovery; its checks read the copy on this host without a limit. That of archive-get is for one \
            process, of which PostgreSQL calls one after the other, or for the worker with archive-async. archive-push has no \
            limit, because a server whose archive is late runs out of space.",
        ..OWN
    };

    MAX_RATE_FILE: Opt<String> = OptionDecl {
        name: "max-rate-file",
        kind: ValueKind::Path,
        commands: WITH_RATE,
        roles: MAIN_ASYNC,
        summary: "File with the maximum rate.",
        detail: "While the file exists, the rate in it (such as 50MiB, or none) replaces max-rate. An empty file, or one that can't be read, changes nothing. A running \
            command notices a change within a second or two. The file need not exist when the command starts.",
        ..OWN
    };

    MAX_REPLICA_LAG: Opt<u64> = OptionDecl {
        name: "max-replica-lag",
        kind: ValueKind::Size,
        commands: on(&[Backup]),
        range: Range::Fixed("1B", "4PiB"),
        depend: depend("online", &["y"]),
        summary: "Slow down while a standby is further behind.",
        detail: "Bytes of WAL that a standby connected to the primary has not replayed yet. While one is further behind, the \
            backup slows down as with max-load. The role of the backup needs pg_monitor to see standbys. Only for a cluster on \
            this host.",
        ..OWN
    };
}
