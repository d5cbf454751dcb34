//! Options of archive-push and archive-get.

use crate::config::decl::Command::{ArchiveGet, ArchivePush, Init};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, MAIN, MAIN_ASYNC, OptionDecl, Range, ValueKind, on};
use crate::config::handle::{Opt, options};

options! {
    ARCHIVE_ASYNC: Opt<bool> = OptionDecl {
        name: "archive-async",
        kind: ValueKind::Boolean,
        commands: on(&[ArchiveGet, ArchivePush, Init]),
        default: Fixed("n"),
        summary: "Push and get WAL segments in the background.",
        detail: "A background process works ahead of PostgreSQL and keeps its results in the spool path, so that \
            PostgreSQL rarely waits. Use it on servers that write more WAL than a single process can transfer.",
        ..OptionDecl::BASE
    };

    ARCHIVE_GET_QUEUE_MAX: Opt<u64> = OptionDecl {
        name: "archive-get-queue-max",
        kind: ValueKind::Size,
        commands: on(&[ArchiveGet]),
        roles: MAIN_ASYNC,
        default: Fixed("128MiB"),
        range: Range::Fixed("0B", "4PiB"),
        summary: "Size of the queue of prefetched WAL.",
        detail: "How much WAL asynchronous archive-get prefetches into the spool path.",
        ..OptionDecl::BASE
    };

    ARCHIVE_HEADER_CHECK: Opt<bool> = OptionDecl {
        name: "archive-header-check",
        kind: ValueKind::Boolean,
        commands: on(&[ArchivePush]),
        roles: MAIN_ASYNC,
        default: Fixed("y"),
        help: HelpGroup::Maintainer,
        summary: "Check the header of WAL before archiving it.",
        detail: "Compares the version and system identifier in the segment with the stanza. This detects a wrong \
            pg-path or stanza. Disable it only for forks of PostgreSQL with a different header.",
        ..OptionDecl::BASE
    };

    ARCHIVE_MISSING_RETRY: Opt<bool> = OptionDecl {
        name: "archive-missing-retry",
        kind: ValueKind::Boolean,
        commands: on(&[ArchiveGet]),
        roles: MAIN,
        default: Fixed("y"),
        summary: "Look again for missing WAL.",
        detail: "Asynchronous archive-get looks a second time for a missing segment before it reports the segment as \
            missing to PostgreSQL.",
        ..OptionDecl::BASE
    };

    ARCHIVE_PUSH_BATCH_SIZE: Opt<u64> = OptionDecl {
        name: "archive-push-batch-size",
        kind: ValueKind::Size,
        commands: on(&[ArchivePush]),
        roles: MAIN_ASYNC,
        default: Fixed("16GiB"),
        range: Range::Fixed("1MiB", "4PiB"),
        summary: "Maximum WAL in an asynchronous batch.",
        detail: "After pushing this much WAL, the background process starts over and checks for changed settings.",
        ..OptionDecl::BASE
    };

    ARCHIVE_PUSH_QUEUE_MAX: Opt<u64> = OptionDecl {
        name: "archive-push-queue-max",
        kind: ValueKind::Size,
        commands: on(&[ArchivePush]),
        roles: MAIN_ASYNC,
        required: false,
        range: Range::Fixed("0B", "4PiB"),
        deprecated: &["archive-queue-max"],
        summary: "Maximum WAL that waits to be archived.",
        detail: "If more WAL than this waits to be archived, two things happen:\n\n* pgBackRest and rbr report to \
            PostgreSQL that the WAL was archived, and drop it.\n* A warning is logged.\n\nThis keeps PostgreSQL \
            running but breaks the archive: make a new backup as soon as possible. Use this option only if a full \
            disk is worse.",
        ..OptionDecl::BASE
    };
}
