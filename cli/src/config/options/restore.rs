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
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    DB_EXCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "db-exclude",
        kind: Kind::List,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    DB_INCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "db-include",
        kind: Kind::List,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    LINK_ALL: Opt<bool> = OptionDecl {
        name: "link-all",
        kind: Kind::Boolean,
        commands: on(&[Restore]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    LINK_MAP: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "link-map",
        kind: Kind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    RECOVERY_OPTION: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "recovery-option",
        kind: Kind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        depend: depend("type", &["default", "immediate", "lsn", "name", "time", "standby", "xid"]),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TABLESPACE_MAP: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "tablespace-map",
        kind: Kind::Hash,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TABLESPACE_MAP_ALL: Opt<String> = OptionDecl {
        name: "tablespace-map-all",
        kind: Kind::String,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };
}
