//! Options of the process itself: its configuration, its stanza, its part among other processes.

use crate::config::decl::Command::{
    Annotate, ArchivePush, Backup, Check, Daemon, Expire, Help, Info, Init, Metrics, RepoGet, RepoLs, RepoRm, Schedule,
    Server, ServerPing, StanzaCreate, StanzaDelete, StanzaUpgrade, Start, Stop,
};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{
    HelpGroup, LOCAL_REMOTE, OptionDecl, Override, Range, Role, RoleSet, Section, ValueKind, on,
};
use crate::config::handle::{Opt, options};
use crate::config::options::EVERY;

options! {
    CONFIG: Opt<String> = OptionDecl {
        name: "config",
        kind: ValueKind::String,
        section: Section::CommandLine,
        commands: EVERY,
        default: Fixed("/etc/pgbackrest/pgbackrest.conf"),
        negate: true,
        help: HelpGroup::General,
        summary: "Configuration file.",
        detail: "Replaces the default file. It must exist. No other files are read unless a path option is given. \
            --no-config reads no file.",
        ..OptionDecl::BASE
    };

    CONFIG_INCLUDE_PATH: Opt<String> = OptionDecl {
        name: "config-include-path",
        kind: ValueKind::Path,
        section: Section::CommandLine,
        commands: EVERY,
        default: Fixed("/etc/pgbackrest/conf.d"),
        help: HelpGroup::General,
        summary: "Directory of additional configuration files.",
        detail: "Files whose names end with .conf are read after the configuration file. Sections of the same name \
            are merged.",
        ..OptionDecl::BASE
    };

    CONFIG_PATH: Opt<String> = OptionDecl {
        name: "config-path",
        kind: ValueKind::Path,
        section: Section::CommandLine,
        commands: EVERY,
        default: Fixed("/etc/pgbackrest"),
        help: HelpGroup::General,
        summary: "Directory of the configuration.",
        detail: "Contains the configuration file (pgbackrest.conf) and the directory of additional files (conf.d).",
        ..OptionDecl::BASE
    };

    EXEC_ID: Opt<String> = OptionDecl {
        name: "exec-id",
        kind: ValueKind::String,
        section: Section::CommandLine,
        commands: EVERY,
        required: false,
        internal: true,
        help: HelpGroup::General,
        summary: "Id of this run.",
        detail: "All processes of a run share it, so that they do not lock each other out.",
        ..OptionDecl::BASE
    };

    HELP: Opt<bool> = OptionDecl {
        name: "help",
        kind: ValueKind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Help]),
        default: Fixed("n"),
        summary: "Show help.",
        detail: "The same as the help command.",
        ..OptionDecl::BASE
    };

    LOCK: Opt<Vec<String>> = OptionDecl {
        name: "lock",
        kind: ValueKind::List,
        section: Section::CommandLine,
        commands: on(&[Annotate, ArchivePush, Backup, Expire, StanzaCreate, StanzaDelete, StanzaUpgrade]),
        roles: RoleSet::of(&[Role::Remote]),
        required: false,
        internal: true,
        help: HelpGroup::General,
        summary: "Locks to take on another host.",
        detail: "A process passes it to the processes that it starts.",
        ..OptionDecl::BASE
    };

    PROCESS: Opt<i64> = OptionDecl {
        name: "process",
        kind: ValueKind::Integer,
        section: Section::CommandLine,
        commands: EVERY,
        roles: LOCAL_REMOTE,
        required: false,
        range: Range::Fixed("0", "1024"),
        internal: true,
        help: HelpGroup::General,
        summary: "Number of the worker.",
        detail: "A process passes it to the processes that it starts.",
        ..OptionDecl::BASE
    };

    REMOTE_TYPE: Opt<String> = OptionDecl {
        name: "remote-type",
        kind: ValueKind::StringId,
        section: Section::CommandLine,
        commands: EVERY,
        roles: LOCAL_REMOTE,
        required: false,
        allow: &["pg", "repo"],
        internal: true,
        help: HelpGroup::General,
        summary: "Target of the other process.",
        detail: "A process passes it to the processes that it starts.",
        ..OptionDecl::BASE
    };

    STANZA: Opt<String> = OptionDecl {
        name: "stanza",
        kind: ValueKind::String,
        section: Section::CommandLine,
        commands: EVERY.without(&[Server, ServerPing]),
        overrides: &[
            Override {
                command: Check,
                required: Some(false),
                ..Override::NONE
            },
            Override {
                command: Init,
                default: Some(Fixed("main")),
                ..Override::NONE
            },
            Override {
                command: Daemon,
                required: Some(false),
                summary: "Run the schedules of this stanza only.",
                detail: "By default, the daemon runs the schedules of all stanzas.",
                ..Override::NONE
            },
            Override {
                command: Metrics,
                required: Some(false),
                summary: "Look at this stanza only.",
                detail: "By default, metrics are about all stanzas of the configuration, and of the repositories that \
                    section [global] configures.",
                ..Override::NONE
            },
            Override {
                command: Schedule,
                required: Some(false),
                summary: "Stanza of the schedules.",
                detail: "By default, the schedules of all stanzas are shown. If several stanzas have a schedule of the same \
                    name, 'schedule run' needs the stanza.",
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
        summary: "Name of the stanza.",
        detail: "A stanza is a PostgreSQL cluster with its backups and its archive. Choose any name, but avoid host \
            names.",
        ..OptionDecl::BASE
    };

    VERSION: Opt<bool> = OptionDecl {
        name: "version",
        kind: ValueKind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Help]),
        default: Fixed("n"),
        summary: "Show the version.",
        detail: "The same as the version command.",
        ..OptionDecl::BASE
    };
}
