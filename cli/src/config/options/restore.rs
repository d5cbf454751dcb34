//! Options of restore.

use std::collections::BTreeMap;

use crate::config::decl::Command::Restore;
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{Kind, MAIN, Opt, OptionDecl, depend, on, options};

options! {
    ARCHIVE_MODE: Opt<String> = OptionDecl {
        name: "archive-mode",
        kind: Kind::StringId,
        commands: on(&[Restore]),
        roles: MAIN,
        default: Fixed("preserve"),
        allow: &["preserve", "off"],
        values: &[
            ("off", "turn archiving off, so that a copy does not write into the archive of its original"),
            ("preserve", "keep the setting that the backup has"),
        ],
        summary: "Archive mode of the restored cluster.",
        detail: "Whether the restored cluster archives its WAL. Needs PostgreSQL 12 or later.",
        ..OptionDecl::BASE
    };

    DB_EXCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "db-exclude",
        kind: Kind::List,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Restore without these databases.",
        detail: "The files of the database are restored as zeroes. It can't be connected to afterwards and should be \
            dropped. May be given several times.",
        ..OptionDecl::BASE
    };

    DB_INCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "db-include",
        kind: Kind::List,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Restore only these databases.",
        detail: "All other databases but the system's are restored as zeroes and should be dropped afterwards. May be \
            given several times.",
        ..OptionDecl::BASE
    };

    LINK_ALL: Opt<bool> = OptionDecl {
        name: "link-all",
        kind: Kind::Boolean,
        commands: on(&[Restore]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Restore all links.",
        detail: "Symbolic links of the backup are restored to where they pointed. Otherwise their files are restored in \
            the data directory.",
        ..OptionDecl::BASE
    };

    LINK_MAP: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "link-map",
        kind: Kind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Change the destination of a link.",
        detail: "name=path for one link. May be given several times.",
        ..OptionDecl::BASE
    };

    RECOVERY_OPTION: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "recovery-option",
        kind: Kind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        depend: depend("type", &["default", "immediate", "lsn", "name", "time", "standby", "xid"]),
        summary: "Further recovery settings.",
        detail: "key=value as in recovery.conf or postgresql.conf; a - in a key stands for _. May be given several \
            times. Settings for which there are options are better set by those.",
        ..OptionDecl::BASE
    };

    TABLESPACE_MAP: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "tablespace-map",
        kind: Kind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Change the path of a tablespace.",
        detail: "name=path or oid=path for one tablespace. May be given several times.",
        ..OptionDecl::BASE
    };

    TABLESPACE_MAP_ALL: Opt<String> = OptionDecl {
        name: "tablespace-map-all",
        kind: Kind::String,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "Put all tablespaces below one path.",
        detail: "Each gets a directory of its name there. tablespace-map wins over it.",
        ..OptionDecl::BASE
    };
}
