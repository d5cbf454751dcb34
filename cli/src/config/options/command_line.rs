//! Other options of single commands, valid only on the command line and in the environment.

use crate::config::decl::Command::{
    Annotate, Backup, Expire, Info, Manifest, RecoveryPoints, Restore, StanzaCreate, StanzaDelete, StanzaUpgrade, Stop,
    TestRestore, Verify,
};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, MAIN, OptionDecl, Override, Section, ValueKind, depend, on};
use crate::config::handle::{Opt, options};

options! {
    ARCHIVE_EXPIRE_BEFORE: Opt<String> = OptionDecl {
        name: "archive-expire-before",
        kind: ValueKind::String,
        section: Section::CommandLine,
        commands: on(&[Expire]),
        roles: MAIN,
        required: false,
        summary: "Expire WAL before this backup.",
        detail: "Removes only WAL that no backup after this one needs.",
        ..OptionDecl::BASE
    };

    DRY_RUN: Opt<bool> = OptionDecl {
        name: "dry-run",
        kind: ValueKind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Expire]),
        roles: MAIN,
        default: Fixed("n"),
        help: HelpGroup::General,
        summary: "Show what would be done.",
        detail: "Changes nothing. The log lines are marked.",
        ..OptionDecl::BASE
    };

    FORCE: Opt<bool> = OptionDecl {
        name: "force",
        kind: ValueKind::Boolean,
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

    OLDEST: Opt<bool> = OptionDecl {
        name: "oldest",
        kind: ValueKind::Boolean,
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
        kind: ValueKind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Backup, StanzaCreate, StanzaUpgrade]),
        roles: MAIN,
        default: Fixed("y"),
        negate: true,
        summary: "Back up a running cluster.",
        detail: "--no-online copies the files of a stopped cluster and does not connect to PostgreSQL.",
        ..OptionDecl::BASE
    };

    SET: Opt<String> = OptionDecl {
        name: "set",
        kind: ValueKind::String,
        section: Section::CommandLine,
        commands: on(&[Annotate, Expire, Info, Manifest, RecoveryPoints, Restore, TestRestore, Verify]),
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
                command: TestRestore,
                default: Some(Fixed("latest")),
                summary: "Backup to test.",
                detail: "The backup's label, latest, or random for one of the older backups by chance.",
                ..Override::NONE
            },
            Override {
                command: Expire,
                summary: "Backup to expire.",
                detail: "Also expires all backups that depend on it, regardless of retention.",
                ..Override::NONE
            },
            Override {
                command: RecoveryPoints,
                summary: "Backup to recover from.",
                detail: "The backup's label. Only what can be recovered from it is listed.",
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

    TARGET: Opt<String> = OptionDecl {
        name: "target",
        kind: ValueKind::String,
        section: Section::CommandLine,
        commands: on(&[Restore, TestRestore]),
        roles: MAIN,
        depend: depend("type", &["lsn", "name", "time", "xid"]),
        summary: "Where recovery stops.",
        detail: "A time, transaction id, LSN or restore point, depending on --type.",
        ..OptionDecl::BASE
    };

    TARGET_ACTION: Opt<String> = OptionDecl {
        name: "target-action",
        kind: ValueKind::StringId,
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
        kind: ValueKind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Restore, TestRestore]),
        roles: MAIN,
        default: Fixed("n"),
        depend: depend("type", &["lsn", "time", "xid"]),
        summary: "Stop before the target.",
        detail: "Does not recover the transaction or record at the target.",
        ..OptionDecl::BASE
    };

    TARGET_TIMELINE: Opt<String> = OptionDecl {
        name: "target-timeline",
        kind: ValueKind::String,
        section: Section::CommandLine,
        commands: on(&[Restore, TestRestore]),
        roles: MAIN,
        required: false,
        depend: depend("type", &["default", "lsn", "name", "standby", "time", "xid"]),
        summary: "Timeline to recover along.",
        detail: "current, latest or a number. Defaults to PostgreSQL's own default.",
        ..OptionDecl::BASE
    };

    TYPE: Opt<String> = OptionDecl {
        name: "type",
        kind: ValueKind::StringId,
        section: Section::CommandLine,
        commands: on(&[Backup, Info, Restore, TestRestore]),
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
            Override {
                command: TestRestore,
                default: Some(Fixed("default")),
                allow: &["default", "immediate", "name", "time", "lsn", "xid"],
                values: &[
                    ("default", "recover to the end of the archive"),
                    ("immediate", "recover until the cluster is consistent"),
                    ("lsn", "recover to the LSN in --target"),
                    ("name", "recover to the restore point in --target"),
                    ("xid", "recover to the transaction in --target"),
                    ("time", "recover to the time in --target"),
                ],
                summary: "Where recovery ends.",
                detail: "How far PostgreSQL replays WAL. By default the test fails if recovery ends before the newest \
                    WAL segment that was in the archive when the test began.",
                ..Override::NONE
            },
        ],
        summary: "Type of backup or recovery.",
        detail: "The type of the backup for backup and info, the recovery target for restore.",
        ..OptionDecl::BASE
    };
}
