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
        summary: "Expire WAL before this backup.",
        detail: "Only the WAL that no backup after this one needs is removed.",
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
        detail: "Read instead of the default file; it must exist, and no further files are read unless a path option is \
            given. --no-config reads none.",
        ..OptionDecl::BASE
    };

    CONFIG_INCLUDE_PATH: Opt<String> = OptionDecl {
        name: "config-include-path",
        kind: Kind::Path,
        section: Section::CommandLine,
        commands: EVERY,
        default: Fixed("/etc/pgbackrest/conf.d"),
        help: HelpGroup::General,
        summary: "Directory of further configuration files.",
        detail: "Every file in it whose name ends with .conf is read after the configuration file; sections of the same \
            name are joined.",
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
        detail: "Where the configuration file (pgbackrest.conf) and the directory of further files (conf.d) are looked \
            for.",
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
            ("progress", "how far a backup or expire is that runs now; not with --set"),
            ("full", "everything"),
        ],
        summary: "Level of detail.",
        detail: "How much info shows.",
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
        summary: "Only say what would be done.",
        detail: "Nothing is changed; the log lines are marked.",
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
        detail: "Shared by the processes of one run, so that they don't lock each other out.",
        ..OptionDecl::BASE
    };

    FILTER: Opt<String> = OptionDecl {
        name: "filter",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Manifest, RepoLs]),
        roles: MAIN,
        required: false,
        summary: "Show only names that match.",
        detail: "A regular expression that the path must match.",
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
                summary: "Backup although PostgreSQL seems to run.",
                detail: "For an offline backup of a cluster whose postmaster.pid is still there. If PostgreSQL really \
                    runs, the backup is useless.",
                ..Override::NONE
            },
            Override {
                command: StanzaCreate,
                internal: Some(true),
                summary: "Has no effect.",
                detail: "Kept for old scripts.",
                ..Override::NONE
            },
            Override {
                command: Restore,
                summary: "Overwrite what is in the way.",
                detail: "Files that the backup has are overwritten, others are removed. With --delta, changed files are \
                    found by time and size instead of checksum.",
                ..Override::NONE
            },
            Override {
                command: StanzaDelete,
                summary: "Delete although PostgreSQL runs.",
                detail: "Without it a stanza whose cluster is up is not deleted.",
                ..Override::NONE
            },
            Override {
                command: Stop,
                summary: "End running processes.",
                detail: "Sends them the signal to terminate instead of letting them finish.",
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
        detail: "The exit status is 1 then.",
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
        detail: "Given by a process to the one that it starts.",
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
        detail: "With all backups that depend on it, even if retention would keep it. The last full backup is never \
            expired.",
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
        summary: "Backup a running cluster.",
        detail: "--no-online copies the files of a cluster that is down and does not connect to PostgreSQL.",
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
        values: &[("text", "for people"), ("json", "for programs, with all details")],
        overrides: &[
            Override {
                command: RepoLs,
                values: &[("text", "one name a line"), ("json", "an object with a member for each entry")],
                summary: "Form of the output.",
                detail: "{values}\n\nEntries have these members in JSON:\n\n\
                    * name - the name, as the member's key; with --recurse the path below the one that is listed\n\
                    * type - file, path or link\n\
                    * size - bytes of a file\n\
                    * time - when a file was changed last, in seconds since 1970\n\
                    * destination - where a link leads",
                ..Override::NONE
            },
            Override {
                command: Verify,
                default: Some(Fixed("none")),
                allow: &["none", "text"],
                values: &[("none", "errors only, in the log"), ("text", "a report")],
                summary: "Form of the output.",
                detail: "What verify prints.",
                ..Override::NONE
            },
            Override {
                command: Version,
                default: Some(Fixed("text")),
                allow: &["text", "num"],
                values: &[("text", "name and version"), ("num", "the version as one number, to compare it")],
                summary: "Form of the output.",
                detail: "How the version is shown.",
                ..Override::NONE
            },
        ],
        summary: "Form of the output.",
        detail: "What is printed.",
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
        detail: "Given by a process to the one that it starts.",
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
        detail: "The file is written as it is stored.",
        ..OptionDecl::BASE
    };

    RECURSE: Opt<bool> = OptionDecl {
        name: "recurse",
        kind: Kind::Boolean,
        section: Section::CommandLine,
        commands: on(&[RepoLs, RepoRm]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Go into subdirectories.",
        detail: "Names are relative to the path that was given.",
        ..OptionDecl::BASE
    };

    REFERENCE: Opt<String> = OptionDecl {
        name: "reference",
        kind: Kind::String,
        section: Section::CommandLine,
        commands: on(&[Manifest]),
        roles: MAIN,
        required: false,
        summary: "Compare with this backup.",
        detail: "Only files that this backup does not have are shown.",
        support: NotYet("the manifest command"),
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
        summary: "What the other process works on.",
        detail: "Given by a process to the one that it starts.",
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
        summary: "Report the configuration.",
        detail: "As JSON.",
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
                detail: "Its label.",
                ..Override::NONE
            },
            Override {
                command: Info,
                depend: depend("stanza", &[]),
                summary: "Backup to show in detail.",
                detail: "Its label. Shows databases, tablespaces, links and more.",
                ..Override::NONE
            },
            Override {
                command: Manifest,
                required: Some(true),
                default: Some(Fixed("latest")),
                summary: "Backup whose manifest to show.",
                detail: "Its label, or latest.",
                ..Override::NONE
            },
            Override {
                command: Restore,
                required: Some(true),
                default: Some(Fixed("latest")),
                summary: "Backup to restore.",
                detail: "Its label, or latest.",
                ..Override::NONE
            },
            Override {
                command: Expire,
                summary: "Backup to expire.",
                detail: "With all that depends on it, whatever retention says.",
                ..Override::NONE
            },
            Override {
                command: Verify,
                summary: "Backup to verify.",
                detail: "Its label. All are verified without it.",
                ..Override::NONE
            },
        ],
        summary: "Backup set.",
        detail: "Its label.",
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
            ("none", "as the storage lists them"),
        ],
        summary: "Order of names.",
        detail: "Entries are sorted by name.",
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
        detail: "A stanza is a cluster with its backups and its archive; the name is up to you and should not be that \
            of a host.",
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
        detail: "A time, transaction id, LSN or name of a restore point, depending on --type.",
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
            ("pause", "wait for the administrator"),
            ("promote", "open the cluster for writing"),
            ("shutdown", "stop the server"),
        ],
        depend: depend("type", &["immediate", "lsn", "name", "time", "xid"]),
        summary: "What happens at the target.",
        detail: "PostgreSQL does this when recovery reaches the target.",
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
        detail: "The transaction or record at the target is not recovered.",
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
        detail: "current, latest or a number. PostgreSQL's default when it is not given.",
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
                detail: "What is copied. A diff or incr backup without a full backup to build on becomes a full one.",
                ..Override::NONE
            },
            Override {
                command: Info,
                required: Some(false),
                allow: &["full", "diff", "incr"],
                values: &[("full", "full backups"), ("diff", "differential backups"), ("incr", "incremental backups")],
                summary: "Show backups of this type only.",
                detail: "Without it info shows backups of all types.",
                ..Override::NONE
            },
            Override {
                command: Restore,
                default: Some(Fixed("default")),
                allow: &["default", "preserve", "immediate", "standby", "none", "name", "time", "lsn", "xid"],
                values: &[
                    ("default", "to the end of the archive"),
                    ("immediate", "until the cluster is consistent"),
                    ("lsn", "to the position in --target"),
                    ("name", "to the restore point in --target"),
                    ("xid", "to the transaction in --target"),
                    ("time", "to the time in --target"),
                    ("preserve", "as the recovery settings in the backup say"),
                    ("standby", "without end, as a standby"),
                    ("none", "not at all: no recovery settings are written"),
                ],
                summary: "Where recovery ends.",
                detail: "How far PostgreSQL replays WAL when it starts on the restored files.",
                ..Override::NONE
            },
        ],
        summary: "Type of backup or recovery.",
        detail: "For backup and info the type of the backup, for restore where recovery ends.",
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
        detail: "Also what is in order.",
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
