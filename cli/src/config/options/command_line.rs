//! Options of single commands, valid only on the command line and in the environment.

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
        summary: "Expire WAL before this backup.",
        detail: "Removes only WAL that no backup after this one needs.",
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
        summary: "Configuration file.",
        detail: "Replaces the default file. It must exist. No other files are read unless a path option is given. \
            --no-config reads no file.",
        ..OptionDecl::BASE
    };

    CONFIG_INCLUDE_PATH: Opt<String> = OptionDecl {
        name: "config-include-path",
        kind: Kind::Path,
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
        kind: Kind::Path,
        section: Section::CommandLine,
        commands: EVERY,
        default: Fixed("/etc/pgbackrest"),
        help: HelpGroup::General,
        summary: "Directory of the configuration.",
        detail: "Contains the configuration file (pgbackrest.conf) and the directory of additional files (conf.d).",
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
        values: &[
            ("progress", "the progress of a running backup or expire; not with --set"),
            ("full", "everything"),
        ],
        summary: "Level of detail.",
        detail: "How much detail info shows.",
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
        summary: "Show what would be done.",
        detail: "Changes nothing. The log lines are marked.",
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
        summary: "Id of this run.",
        detail: "All processes of a run share it, so that they do not lock each other out.",
        ..OptionDecl::BASE
    };

    FILTER: Opt<String> = OptionDecl {
        name: "filter",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Manifest, RepoLs]),
        roles: MAIN,
        required: false,
        overrides: &[Override {
            command: Manifest,
            summary: "Show only this file.",
            detail: "Its name in the manifest, such as pg_data/base/1/1259. If the file is stored in blocks, also shows \
                what a restore of it reads from each backup.",
            ..Override::NONE
        }],
        summary: "Show only names that match.",
        detail: "A regular expression that the path has to match.",
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
                summary: "Back up although PostgreSQL seems to be running.",
                detail: "For an offline backup of a cluster whose postmaster.pid still exists. If PostgreSQL is \
                    really running, the backup is useless.",
                ..Override::NONE
            },
            Override {
                command: StanzaCreate,
                internal: Some(true),
                summary: "Has no effect.",
                detail: "Accepted for old scripts.",
                ..Override::NONE
            },
            Override {
                command: Restore,
                summary: "Overwrite existing files.",
                detail: "Overwrites files that are in the backup and removes others. With --delta, changed files are \
                    detected by time and size instead of checksum.",
                ..Override::NONE
            },
            Override {
                command: StanzaDelete,
                summary: "Delete although PostgreSQL is running.",
                detail: "Without it, a stanza whose cluster is running is not deleted.",
                ..Override::NONE
            },
            Override {
                command: Stop,
                summary: "End running processes.",
                detail: "Terminates running processes instead of letting them finish.",
                ..Override::NONE
            },
        ],
        summary: "Force the command.",
        detail: "What it forces depends on the command.",
        ..OptionDecl::BASE
    };

    HELP: Opt<bool> = OptionDecl {
        name: "help",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Help]),
        default: Fixed("n"),
        summary: "Show help.",
        detail: "The same as the help command.",
        ..OptionDecl::BASE
    };

    IGNORE_MISSING: Opt<bool> = OptionDecl {
        name: "ignore-missing",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[RepoGet]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Do not fail if the file is missing.",
        detail: "The exit status is then 1.",
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
        summary: "Locks to take on another host.",
        detail: "A process passes it to the processes that it starts.",
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
        summary: "Expire the oldest full backup.",
        detail: "Also expires all backups that depend on it, even if retention would keep them. The last full backup \
            is never expired.",
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
        summary: "Back up a running cluster.",
        detail: "--no-online copies the files of a stopped cluster and does not connect to PostgreSQL.",
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
        values: &[("text", "readable by people"), ("json", "readable by programs, with all details")],
        overrides: &[
            Override {
                command: RepoLs,
                values: &[("text", "one name per line"), ("json", "an object with a member for each entry")],
                summary: "Output format.",
                detail: "{values}\n\nJSON entries have these members:\n\n* name - the name, as the key of the entry; \
                    with --recurse the path relative to the listed path\n* type - file, path or link\n* size - size \
                    of a file in bytes\n* time - last modification time of a file, in seconds since 1970\n* \
                    destination - destination of a link",
                ..Override::NONE
            },
            Override {
                command: Verify,
                default: Some(Fixed("none")),
                allow: &["none", "text"],
                values: &[("none", "errors only, in the log"), ("text", "a report")],
                summary: "Output format.",
                detail: "What verify prints to standard output. The report contains only what is invalid, and is empty if \
                    everything is valid. With --verbose it also contains what is valid.",
                ..Override::NONE
            },
            Override {
                command: Version,
                default: Some(Fixed("text")),
                allow: &["text", "num"],
                values: &[("text", "name and version"), ("num", "the version as a number, for comparisons")],
                summary: "Output format.",
                detail: "How the version is printed.",
                ..Override::NONE
            },
        ],
        summary: "Output format.",
        detail: "How the result is printed.",
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
        summary: "Number of the worker.",
        detail: "A process passes it to the processes that it starts.",
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
        summary: "Do not decrypt.",
        detail: "Writes the file as it is stored.",
        ..OptionDecl::BASE
    };

    RECURSE: Opt<bool> = OptionDecl {
        name: "recurse",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[RepoLs, RepoRm]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Include subdirectories.",
        detail: "Names are relative to the given path.",
        ..OptionDecl::BASE
    };

    REFERENCE: Opt<String> = OptionDecl {
        name: "reference",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Manifest]),
        roles: MAIN,
        required: false,
        summary: "Show only files with this reference.",
        detail: "The label of an earlier backup shows the files that it stores for the backup of --set. latest shows \
            the files that the backup of --set stores itself.",
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
        summary: "Target of the other process.",
        detail: "A process passes it to the processes that it starts.",
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
        summary: "Report the configuration.",
        detail: "Checks nothing, but prints what the environment and the configuration files contain, as JSON. Secrets \
            are omitted, and names that are no options are marked.",
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
                summary: "Backup to annotate.",
                detail: "The backup's label.",
                ..Override::NONE
            },
            Override {
                command: Info,
                depend: depend("stanza", &[]),
                summary: "Backup to show in detail.",
                detail: "The backup's label. Shows databases, tablespaces, links and more.",
                ..Override::NONE
            },
            Override {
                command: Manifest,
                required: Some(true),
                default: Some(Fixed("latest")),
                summary: "Backup whose manifest to show.",
                detail: "The backup's label, or latest.",
                ..Override::NONE
            },
            Override {
                command: Restore,
                required: Some(true),
                default: Some(Fixed("latest")),
                summary: "Backup to restore.",
                detail: "The backup's label, or latest.",
                ..Override::NONE
            },
            Override {
                command: Expire,
                summary: "Backup to expire.",
                detail: "Also expires all backups that depend on it, regardless of retention.",
                ..Override::NONE
            },
            Override {
                command: Verify,
                summary: "Backup to verify.",
                detail: "The backup's label. Without it, all backups are verified.",
                ..Override::NONE
            },
        ],
        summary: "Backup set.",
        detail: "The backup's label.",
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
        values: &[
            ("asc", "in ascending order"),
            ("desc", "in descending order"),
            ("none", "in the order of the storage"),
        ],
        summary: "Sort order.",
        detail: "Sorts entries by name.",
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
        summary: "Name of the stanza.",
        detail: "A stanza is a PostgreSQL cluster with its backups and its archive. Choose any name, but avoid host \
            names.",
        ..OptionDecl::BASE
    };

    TARGET: Opt<String> = OptionDecl {
        name: "target",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Restore]),
        roles: MAIN,
        depend: depend("type", &["lsn", "name", "time", "xid"]),
        summary: "Where recovery stops.",
        detail: "A time, transaction id, LSN or restore point, depending on --type.",
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
        values: &[
            ("pause", "pause recovery until the administrator resumes it"),
            ("promote", "open the cluster for writing"),
            ("shutdown", "stop the server"),
        ],
        depend: depend("type", &["immediate", "lsn", "name", "time", "xid"]),
        summary: "What happens at the target.",
        detail: "What PostgreSQL does when recovery reaches the target.",
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
        summary: "Stop before the target.",
        detail: "Does not recover the transaction or record at the target.",
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
        summary: "Timeline to recover along.",
        detail: "current, latest or a number. Defaults to PostgreSQL's own default.",
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
                values: &[
                    ("full", "copy all files"),
                    ("incr", "copy what changed since the last backup"),
                    ("diff", "copy what changed since the last full backup"),
                ],
                summary: "Type of the backup.",
                detail: "Determines what is copied. A diff or incr backup without a prior full backup becomes a full \
                    backup.",
                ..Override::NONE
            },
            Override {
                command: Info,
                required: Some(false),
                allow: &["full", "diff", "incr"],
                values: &[("full", "full backups"), ("diff", "differential backups"), ("incr", "incremental backups")],
                summary: "Show only backups of this type.",
                detail: "By default info shows backups of all types.",
                ..Override::NONE
            },
            Override {
                command: Restore,
                default: Some(Fixed("default")),
                allow: &["default", "preserve", "immediate", "standby", "none", "name", "time", "lsn", "xid"],
                values: &[
                    ("default", "recover to the end of the archive"),
                    ("immediate", "recover until the cluster is consistent"),
                    ("lsn", "recover to the LSN in --target"),
                    ("name", "recover to the restore point in --target"),
                    ("xid", "recover to the transaction in --target"),
                    ("time", "recover to the time in --target"),
                    ("preserve", "use the recovery settings in the backup"),
                    ("standby", "endlessly, as a standby"),
                    ("none", "do not write recovery settings"),
                ],
                summary: "Where recovery ends.",
                detail: "How far PostgreSQL replays WAL when it starts on the restored files.",
                ..Override::NONE
            },
        ],
        summary: "Type of backup or recovery.",
        detail: "The type of the backup for backup and info, the recovery target for restore.",
        ..OptionDecl::BASE
    };

    VERBOSE: Opt<bool> = OptionDecl {
        name: "verbose",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Verify]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Report everything.",
        detail: "Also reports what is valid.",
        ..OptionDecl::BASE
    };

    VERSION: Opt<bool> = OptionDecl {
        name: "version",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Help]),
        default: Fixed("n"),
        summary: "Show the version.",
        detail: "The same as the version command.",
        ..OptionDecl::BASE
    };
}
