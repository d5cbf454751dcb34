//! Options of backup.

use std::collections::BTreeMap;

use crate::config::decl::Command::{Annotate, ArchivePush, Backup, Check, Restore};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::Support::Moot;
use crate::config::decl::{
    HelpGroup, Kind, MAIN, MAIN_ASYNC, Opt, OptionDecl, Override, Range, depend_or, on, options,
};

options! {
    ANNOTATION: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "annotation",
        kind: Kind::Hash,
        commands: on(&[Annotate, Backup]),
        roles: MAIN,
        required: false,
        overrides: &[
            Override {
                command: Annotate,
                required: Some(true),
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_CHECK: Opt<bool> = OptionDecl {
        name: "archive-check",
        kind: Kind::Boolean,
        commands: on(&[ArchivePush, Backup, Check]),
        roles: MAIN_ASYNC,
        default: Fixed("y"),
        overrides: &[
            Override {
                command: Backup,
                depend: depend_or("online", &["y"], "n"),
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_COPY: Opt<bool> = OptionDecl {
        name: "archive-copy",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("n"),
        overrides: &[
            Override {
                command: Backup,
                depend: depend_or("archive-check", &["y"], "n"),
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ARCHIVE_MODE_CHECK: Opt<bool> = OptionDecl {
        name: "archive-mode-check",
        kind: Kind::Boolean,
        commands: on(&[ArchivePush, Backup, Check]),
        roles: MAIN_ASYNC,
        default: Fixed("y"),
        depend: depend_or("archive-check", &["y"], "n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    BACKUP_STANDBY: Opt<String> = OptionDecl {
        name: "backup-standby",
        kind: Kind::StringId,
        commands: on(&[Backup, Check]),
        roles: MAIN,
        default: Fixed("n"),
        allow: &["n", "prefer", "y"],
        bool_like: true,
        not_yet: &[("y", "backup from a standby"), ("prefer", "backup from a standby")],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    CHECKSUM_PAGE: Opt<bool> = OptionDecl {
        name: "checksum-page",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    CHECKSUM_PAGE_ERROR: Opt<bool> = OptionDecl {
        name: "checksum-page-error",
        kind: Kind::Boolean,
        commands: on(&[Backup, Restore]),
        roles: MAIN,
        default: Fixed("n"),
        overrides: &[
            Override {
                command: Restore,
                default: Some(Fixed("y")),
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    EXCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "exclude",
        kind: Kind::List,
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    EXPIRE_AUTO: Opt<bool> = OptionDecl {
        name: "expire-auto",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    MANIFEST_SAVE_THRESHOLD: Opt<u64> = OptionDecl {
        name: "manifest-save-threshold",
        kind: Kind::Size,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("1GiB"),
        range: Range::Fixed("1B", "1TiB"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    PAGE_HEADER_CHECK: Opt<bool> = OptionDecl {
        name: "page-header-check",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        help: HelpGroup::Maintainer,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    RESUME: Opt<bool> = OptionDecl {
        name: "resume",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    START_FAST: Opt<bool> = OptionDecl {
        name: "start-fast",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    STOP_AUTO: Opt<bool> = OptionDecl {
        name: "stop-auto",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::General,
        support: Moot("every supported PostgreSQL version ends a stale backup by itself"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };
}
