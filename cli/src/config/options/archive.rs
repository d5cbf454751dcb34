//! Options of archive-push and archive-get.

use crate::config::decl::Command::{ArchiveGet, ArchivePush};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, Kind, MAIN, MAIN_ASYNC, Opt, OptionDecl, Range, on, options};

options! {
    ARCHIVE_ASYNC: Opt<bool> = OptionDecl {
        name: "archive-async",
        kind: Kind::Boolean,
        commands: on(&[ArchiveGet, ArchivePush]),
        default: Fixed("n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_GET_QUEUE_MAX: Opt<u64> = OptionDecl {
        name: "archive-get-queue-max",
        kind: Kind::Size,
        commands: on(&[ArchiveGet]),
        roles: MAIN_ASYNC,
        default: Fixed("128MiB"),
        range: Range::Fixed("0B", "4PiB"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_HEADER_CHECK: Opt<bool> = OptionDecl {
        name: "archive-header-check",
        kind: Kind::Boolean,
        commands: on(&[ArchivePush]),
        roles: MAIN_ASYNC,
        default: Fixed("y"),
        help: HelpGroup::Maintainer,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_MISSING_RETRY: Opt<bool> = OptionDecl {
        name: "archive-missing-retry",
        kind: Kind::Boolean,
        commands: on(&[ArchiveGet]),
        roles: MAIN,
        default: Fixed("y"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_PUSH_BATCH_SIZE: Opt<u64> = OptionDecl {
        name: "archive-push-batch-size",
        kind: Kind::Size,
        commands: on(&[ArchivePush]),
        roles: MAIN_ASYNC,
        default: Fixed("16GiB"),
        range: Range::Fixed("1MiB", "4PiB"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_PUSH_QUEUE_MAX: Opt<u64> = OptionDecl {
        name: "archive-push-queue-max",
        kind: Kind::Size,
        commands: on(&[ArchivePush]),
        roles: MAIN_ASYNC,
        required: false,
        range: Range::Fixed("0B", "4PiB"),
        deprecated: &["archive-queue-max"],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };
}
