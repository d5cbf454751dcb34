//! Options of restore.

use std::collections::BTreeMap;

use crate::config::decl::Command::Restore;
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{MAIN, OptionDecl, ValueKind, depend, on};
use crate::config::handle::{Opt, options};

options! {
    ARCHIVE_MODE: Opt<String> = OptionDecl {
        name: "archive-mode",
        kind: ValueKind::StringId,
        commands: on(&[Restore]),
        roles: MAIN,
        default: Fixed("preserve"),
        allow: &["preserve", "off"],
        values: &[
            ("off", "disable archiving, so that a copy does not write to the archive of the original"),
            ("preserve", "keep the setting in the backup"),
        ],
        summary: "Archive mode of the restored cluster.",
        detail: "Whether the restored cluster archives its WAL. Requires PostgreSQL 12 or later.",
        ..OptionDecl::BASE
    };

    DB_EXCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "db-exclude",
        kind: ValueKind::List,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Restore without these databases.",
        detail: "Restores the files of the database as zeroes. Connections to it fail afterwards, so drop it. May be \
            repeated.",
        ..OptionDecl::BASE
    };

    DB_INCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "db-include",
        kind: ValueKind::List,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Restore only these databases.",
        detail: "Restores all other databases, except the system databases, as zeroes. Drop them afterwards. May be \
            repeated.",
        ..OptionDecl::BASE
    };

    LINK_ALL: Opt<bool> = OptionDecl {
        name: "link-all",
        kind: ValueKind::Boolean,
        commands: on(&[Restore]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Restore all links.",
        detail: "Restores symbolic links of the backup to their original destinations. Otherwise their files are \
            restored into the data directory.",
        ..OptionDecl::BASE
    };

    LINK_MAP: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "link-map",
        kind: ValueKind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Change the destination of a link.",
        detail: "name=path for one link. May be repeated.",
        ..OptionDecl::BASE
    };

    RECOVERY_OPTION: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "recovery-option",
        kind: ValueKind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        depend: depend("type", &["default", "immediate", "lsn", "name", "time", "standby", "xid"]),
        summary: "Additional recovery settings.",
        detail: "key=value as in recovery.conf or postgresql.conf. A - in a key stands for _. May be repeated. Prefer \
            the dedicated option for a setting if there is one.",
        ..OptionDecl::BASE
    };

    TABLESPACE_MAP: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "tablespace-map",
        kind: ValueKind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Change the path of a tablespace.",
        detail: "name=path or oid=path for one tablespace. May be repeated.",
        ..OptionDecl::BASE
    };

    TABLESPACE_MAP_ALL: Opt<String> = OptionDecl {
        name: "tablespace-map-all",
        kind: ValueKind::String,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Put all tablespaces below one path.",
        detail: "Each tablespace gets a directory named after it. tablespace-map takes precedence.",
        ..OptionDecl::BASE
    };
}
