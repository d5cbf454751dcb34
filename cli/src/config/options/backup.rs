//! Options of backup.

use std::collections::BTreeMap;

use crate::config::decl::Command::{Annotate, ArchivePush, Backup, Check, Expire, Init, Restore};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::Support::Moot;
use crate::config::decl::{HelpGroup, MAIN, MAIN_ASYNC, OptionDecl, Override, Range, ValueKind, depend_or, on};
use crate::config::handle::{Opt, options};

options! {
    ANNOTATION: Opt<BTreeMap<String, String>> = OptionDecl {
        name: "annotation",
        kind: ValueKind::Hash,
        commands: on(&[Annotate, Backup]),
        roles: MAIN,
        required: false,
        overrides: &[
            Override {
                command: Annotate,
                required: Some(true),
                summary: "Key/value pairs to add, change or remove.",
                detail: "Repeat the option for each pair. An empty value (--annotation=key=) removes the key.",
                ..Override::NONE
            },
        ],
        summary: "Attach key/value pairs to the backup.",
        detail: "info shows the pairs. Later backups do not inherit them. Repeat the option for each pair, e.g. \
            --annotation=source=nightly.",
        ..OptionDecl::BASE
    };

    ARCHIVE_CHECK: Opt<bool> = OptionDecl {
        name: "archive-check",
        kind: ValueKind::Boolean,
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
        summary: "Check that all WAL of the backup is archived.",
        detail: "The backup succeeds only if every WAL segment that it needs has reached the repository. If disabled, \
            you have to ensure that the backup can be made consistent. Requires an online backup.",
        ..OptionDecl::BASE
    };

    ARCHIVE_COPY: Opt<bool> = OptionDecl {
        name: "archive-copy",
        kind: ValueKind::Boolean,
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
        summary: "Store the required WAL in the backup.",
        detail: "Copies the segments that make the backup consistent into its pg_wal directory, so that it can be \
            restored without the archive. Useful for backups that outlive their WAL. Requires archive-check.",
        ..OptionDecl::BASE
    };

    ARCHIVE_MODE_CHECK: Opt<bool> = OptionDecl {
        name: "archive-mode-check",
        kind: ValueKind::Boolean,
        commands: on(&[ArchivePush, Backup, Check]),
        roles: MAIN_ASYNC,
        default: Fixed("y"),
        depend: depend_or("archive-check", &["y"], "n"),
        summary: "Check PostgreSQL's archive_mode.",
        detail: "Refuses archive_mode=always, because a primary and its standbys would push the same segments. \
            Disable it if that can't happen. Requires archive-check.",
        ..OptionDecl::BASE
    };

    BACKUP_STANDBY: Opt<String> = OptionDecl {
        name: "backup-standby",
        kind: ValueKind::StringId,
        commands: on(&[Backup, Check]),
        roles: MAIN,
        default: Fixed("n"),
        allow: &["n", "prefer", "y"],
        values: &[
            ("y", "read from a standby; fail if there is none"),
            ("prefer", "read from a standby if there is one, otherwise from the primary"),
            ("n", "read from the primary"),
        ],
        bool_like: true,
        summary: "Copy files from a standby.",
        detail: "The primary controls the backup, but rbr reads most files from a standby.",
        ..OptionDecl::BASE
    };

    CHECKSUM_PAGE: Opt<bool> = OptionDecl {
        name: "checksum-page",
        kind: ValueKind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        summary: "Check page checksums.",
        detail: "Checks each data page that is copied. By default this is enabled if the cluster has checksums. \
            Invalid pages are logged and recorded in the manifest.",
        ..OptionDecl::BASE
    };

    CHECKSUM_PAGE_ERROR: Opt<bool> = OptionDecl {
        name: "checksum-page-error",
        kind: ValueKind::Boolean,
        commands: on(&[Backup, Expire, Restore]),
        roles: MAIN,
        default: Fixed("y"),
        overrides: &[
            Override {
                command: Backup,
                default: Some(Fixed("n")),
                ..Override::NONE
            },
            Override {
                command: Expire,
                summary: "Fail on invalid page checksums.",
                detail: "Expires nothing if the oldest backup that would remain has invalid pages. If disabled, or \
                    with --set, this is only a warning.",
                ..Override::NONE
            },
            Override {
                command: Restore,
                summary: "Fail on invalid page checksums.",
                detail: "A restore fails if the backup found invalid pages in a file. If disabled, the restore logs a \
                    warning for each such file and restores it as it is.",
                ..Override::NONE
            },
        ],
        summary: "Fail on invalid page checksums.",
        detail: "A backup that finds an invalid page fails instead of logging a warning.",
        ..OptionDecl::BASE
    };

    EXCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "exclude",
        kind: ValueKind::List,
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        summary: "Exclude files from the backup.",
        detail: "A path relative to the data directory. With a trailing slash, it excludes the content of a \
            directory; without one, the file or directory itself. Excluding the wrong file makes the backup useless. \
            May be repeated.",
        ..OptionDecl::BASE
    };

    EXPIRE_AUTO: Opt<bool> = OptionDecl {
        name: "expire-auto",
        kind: ValueKind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        summary: "Expire after the backup.",
        detail: "Runs expire at the end of each successful backup.",
        ..OptionDecl::BASE
    };

    MANIFEST_SAVE_THRESHOLD: Opt<u64> = OptionDecl {
        name: "manifest-save-threshold",
        kind: ValueKind::Size,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("1GiB"),
        range: Range::Fixed("1B", "1TiB"),
        summary: "Amount to copy between saves of the manifest.",
        detail: "A resumed backup repeats at most about this much work.",
        ..OptionDecl::BASE
    };

    PAGE_HEADER_CHECK: Opt<bool> = OptionDecl {
        name: "page-header-check",
        kind: ValueKind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        help: HelpGroup::Maintainer,
        summary: "Check page headers.",
        detail: "A page with an implausible header counts as invalid. Disable it only for forks of PostgreSQL with a \
            different header.",
        ..OptionDecl::BASE
    };

    RESUME: Opt<bool> = OptionDecl {
        name: "resume",
        kind: ValueKind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        summary: "Resume an interrupted backup.",
        detail: "Reuses files of an unfinished backup if they are still valid. Every reused file is checked, so a \
            resumed backup is as good as a new one.",
        ..OptionDecl::BASE
    };

    START_FAST: Opt<bool> = OptionDecl {
        name: "start-fast",
        kind: ValueKind::Boolean,
        commands: on(&[Backup, Init]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Start the backup immediately.",
        detail: "Asks PostgreSQL for an immediate checkpoint. Otherwise the backup waits for the next regular \
            checkpoint, for up to checkpoint_timeout.",
        ..OptionDecl::BASE
    };

    STOP_AUTO: Opt<bool> = OptionDecl {
        name: "stop-auto",
        kind: ValueKind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::General,
        support: Moot("every supported PostgreSQL version stops a stale backup by itself"),
        summary: "Stop a stale backup (deprecated).",
        detail: "Has no effect with supported versions of PostgreSQL.",
        ..OptionDecl::BASE
    };
}
