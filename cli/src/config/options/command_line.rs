//! Options of single commands, on the command line and in the environment only.

use crate::config::decl::Command::{
    Annotate, ArchivePush, Backup, Check, Expire, Help, Info, Manifest, RepoGet, RepoLs, RepoRm, Restore, Server,
    ServerPing, StanzaCreate, StanzaDelete, StanzaUpgrade, Start, Stop, Verify, Version,
};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::Support::NotYet;
use crate::config::decl::{
    HelpGroup, Kind, LOCAL_REMOTE, MAIN, Opt, OptionDecl, Override, Range, Role, RoleSet, Section, depend, on, options,
};
use crate::config::options::EVERY;

options! {
    ARCHIVE_EXPIRE_BEFORE: Opt<String> = OptionDecl {
        name: "archive-expire-before",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Expire]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    CONFIG: Opt<String> = OptionDecl {
        name: "config",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: EVERY,
        default: Fixed("/etc/pgbackrest/pgbackrest.conf"),
        negate: true,
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    CONFIG_INCLUDE_PATH: Opt<String> = OptionDecl {
        name: "config-include-path",
        kind: Kind::Path,
        section: Section::CommandLine,
        commands: EVERY,
        default: Fixed("/etc/pgbackrest/conf.d"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    CONFIG_PATH: Opt<String> = OptionDecl {
        name: "config-path",
        kind: Kind::Path,
        section: Section::CommandLine,
        commands: EVERY,
        default: Fixed("/etc/pgbackrest"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    DETAIL_LEVEL: Opt<String> = OptionDecl {
        name: "detail-level",
        kind: Kind::StringId,
        section: Section::CommandLine,
        commands: on(&[Info]),
        roles: MAIN,
        default: Fixed("full"),
        allow: &["full", "progress"],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    DRY_RUN: Opt<bool> = OptionDecl {
        name: "dry-run",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Expire]),
        roles: MAIN,
        default: Fixed("n"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    EXEC_ID: Opt<String> = OptionDecl {
        name: "exec-id",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: EVERY,
        required: false,
        internal: true,
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    FILTER: Opt<String> = OptionDecl {
        name: "filter",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Manifest, RepoLs]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    FORCE: Opt<bool> = OptionDecl {
        name: "force",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Backup, Restore, StanzaCreate, StanzaDelete, Stop]),
        roles: MAIN,
        default: Fixed("n"),
        overrides: &[
            Override {
                command: Backup,
                depend: depend("online", &["n"]),
                ..Override::NONE
            },
            Override {
                command: StanzaCreate,
                internal: Some(true),
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    HELP: Opt<bool> = OptionDecl {
        name: "help",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Help]),
        default: Fixed("n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    IGNORE_MISSING: Opt<bool> = OptionDecl {
        name: "ignore-missing",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[RepoGet]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    LOCK: Opt<Vec<String>> = OptionDecl {
        name: "lock",
        kind: Kind::List,
        section: Section::CommandLine,
        commands: on(&[Annotate, ArchivePush, Backup, Expire, StanzaCreate, StanzaDelete, StanzaUpgrade]),
        roles: RoleSet::of(&[Role::Remote]),
        required: false,
        internal: true,
        help: HelpGroup::General,
        support: NotYet("worker processes"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    OLDEST: Opt<bool> = OptionDecl {
        name: "oldest",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Expire]),
        roles: MAIN,
        default: Fixed("n"),
        overrides: &[
            Override {
                command: Expire,
                depend: depend("stanza", &[]),
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    ONLINE: Opt<bool> = OptionDecl {
        name: "online",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Backup, StanzaCreate, StanzaUpgrade]),
        roles: MAIN,
        default: Fixed("y"),
        negate: true,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    OUTPUT: Opt<String> = OptionDecl {
        name: "output",
        kind: Kind::StringId,
        section: Section::CommandLine,
        commands: on(&[Info, Manifest, RepoLs, Verify, Version]),
        roles: MAIN,
        default: Fixed("text"),
        allow: &["text", "json"],
        overrides: &[
            Override {
                command: Verify,
                default: Some(Fixed("none")),
                allow: &["none", "text"],
                ..Override::NONE
            },
            Override {
                command: Version,
                default: Some(Fixed("text")),
                allow: &["text", "num"],
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    PROCESS: Opt<i64> = OptionDecl {
        name: "process",
        kind: Kind::Integer,
        section: Section::CommandLine,
        commands: EVERY,
        roles: LOCAL_REMOTE,
        required: false,
        range: Range::Fixed("0", "1024"),
        internal: true,
        help: HelpGroup::General,
        support: NotYet("worker processes"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    RAW: Opt<bool> = OptionDecl {
        name: "raw",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[RepoGet]),
        roles: MAIN,
        default: Fixed("n"),
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    RECURSE: Opt<bool> = OptionDecl {
        name: "recurse",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[RepoLs, RepoRm]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    REFERENCE: Opt<String> = OptionDecl {
        name: "reference",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Manifest]),
        roles: MAIN,
        required: false,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    REMOTE_TYPE: Opt<String> = OptionDecl {
        name: "remote-type",
        kind: Kind::StringId,
        section: Section::CommandLine,
        commands: EVERY,
        roles: LOCAL_REMOTE,
        required: false,
        allow: &["pg", "repo"],
        internal: true,
        help: HelpGroup::General,
        support: NotYet("worker processes"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    REPORT: Opt<bool> = OptionDecl {
        name: "report",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Check]),
        roles: MAIN,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::General,
        support: NotYet("the report of the check command"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    SET: Opt<String> = OptionDecl {
        name: "set",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Annotate, Expire, Info, Manifest, Restore, Verify]),
        roles: MAIN,
        required: false,
        overrides: &[
            Override {
                command: Annotate,
                required: Some(true),
                ..Override::NONE
            },
            Override {
                command: Info,
                depend: depend("stanza", &[]),
                ..Override::NONE
            },
            Override {
                command: Manifest,
                required: Some(true),
                default: Some(Fixed("latest")),
                ..Override::NONE
            },
            Override {
                command: Restore,
                required: Some(true),
                default: Some(Fixed("latest")),
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    SORT: Opt<String> = OptionDecl {
        name: "sort",
        kind: Kind::StringId,
        section: Section::CommandLine,
        commands: on(&[RepoLs]),
        roles: MAIN,
        default: Fixed("asc"),
        allow: &["none", "asc", "desc"],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    STANZA: Opt<String> = OptionDecl {
        name: "stanza",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: EVERY.without(&[Server, ServerPing]),
        overrides: &[
            Override {
                command: Check,
                required: Some(false),
                ..Override::NONE
            },
            Override {
                command: Info,
                required: Some(false),
                ..Override::NONE
            },
            Override {
                command: RepoGet,
                required: Some(false),
                internal: Some(true),
                ..Override::NONE
            },
            Override {
                command: RepoLs,
                required: Some(false),
                internal: Some(true),
                ..Override::NONE
            },
            Override {
                command: RepoRm,
                required: Some(false),
                internal: Some(true),
                ..Override::NONE
            },
            Override {
                command: Start,
                required: Some(false),
                ..Override::NONE
            },
            Override {
                command: Stop,
                required: Some(false),
                ..Override::NONE
            },
        ],
        help: HelpGroup::General,
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TARGET: Opt<String> = OptionDecl {
        name: "target",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Restore]),
        roles: MAIN,
        depend: depend("type", &["lsn", "name", "time", "xid"]),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TARGET_ACTION: Opt<String> = OptionDecl {
        name: "target-action",
        kind: Kind::StringId,
        section: Section::CommandLine,
        commands: on(&[Restore]),
        roles: MAIN,
        default: Fixed("pause"),
        allow: &["pause", "promote", "shutdown"],
        depend: depend("type", &["immediate", "lsn", "name", "time", "xid"]),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TARGET_EXCLUSIVE: Opt<bool> = OptionDecl {
        name: "target-exclusive",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Restore]),
        roles: MAIN,
        default: Fixed("n"),
        depend: depend("type", &["lsn", "time", "xid"]),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TARGET_TIMELINE: Opt<String> = OptionDecl {
        name: "target-timeline",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Restore]),
        roles: MAIN,
        required: false,
        depend: depend("type", &["default", "lsn", "name", "standby", "time", "xid"]),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    TYPE: Opt<String> = OptionDecl {
        name: "type",
        kind: Kind::StringId,
        section: Section::CommandLine,
        commands: on(&[Backup, Info, Restore]),
        roles: MAIN,
        overrides: &[
            Override {
                command: Backup,
                default: Some(Fixed("incr")),
                allow: &["full", "diff", "incr"],
                not_yet: &[("diff", "differential backups"), ("incr", "incremental backups")],
                ..Override::NONE
            },
            Override {
                command: Info,
                required: Some(false),
                allow: &["full", "diff", "incr"],
                ..Override::NONE
            },
            Override {
                command: Restore,
                default: Some(Fixed("default")),
                allow: &["default", "preserve", "immediate", "standby", "none", "name", "time", "lsn", "xid"],
                ..Override::NONE
            },
        ],
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    VERBOSE: Opt<bool> = OptionDecl {
        name: "verbose",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Verify]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };

    VERSION: Opt<bool> = OptionDecl {
        name: "version",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Help]),
        default: Fixed("n"),
        summary: "",
        detail: "",
        ..OptionDecl::BASE
    };
}
