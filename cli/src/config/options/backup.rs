//! Options of backup.

use std::collections::BTreeMap;

use crate::config::decl::Command::{Annotate, ArchivePush, Backup, Check, Expire, Restore};
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
                summary: "Pairs to add, change or remove.",
                detail: "Give the option once for each pair. An empty value (--annotation=key=) removes the key.",
                ..Override::NONE
            },
        ],
        summary: "Attach key/value pairs to the backup.",
        detail: "They are shown by info and copied to following backups of the set by nobody: each backup has its own. \
            Give the option once for each pair, e.g. --annotation=source=nightly.",
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
        summary: "Check that all WAL of the backup is archived.",
        detail: "The backup counts only when every WAL segment that it needs has reached the repository. When off, \
            whether the backup can be made consistent is up to you. Needs an online backup.",
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
        summary: "Store the needed WAL in the backup too.",
        detail: "Copies the segments that make the backup consistent into its pg_wal directory, so that it can be \
            restored without the archive. Useful for backups that outlive their WAL. Needs archive-check.",
        ..OptionDecl::BASE
    };

    ARCHIVE_MODE_CHECK: Opt<bool> = OptionDecl {
        name: "archive-mode-check",
        kind: Kind::Boolean,
        commands: on(&[ArchivePush, Backup, Check]),
        roles: MAIN_ASYNC,
        default: Fixed("y"),
        depend: depend_or("archive-check", &["y"], "n"),
        summary: "Check archive_mode of PostgreSQL.",
        detail: "archive_mode=always is refused, because a primary and its standbys would push the same segments. Turn \
            it off if that can't happen. Needs archive-check.",
        ..OptionDecl::BASE
    };

    BACKUP_STANDBY: Opt<String> = OptionDecl {
        name: "backup-standby",
        kind: Kind::StringId,
        commands: on(&[Backup, Check]),
        roles: MAIN,
        default: Fixed("n"),
        allow: &["n", "prefer", "y"],
        values: &[
            ("y", "read from a standby; the backup fails without one"),
            ("prefer", "read from a standby if one is there, else from the primary"),
            ("n", "read from the primary"),
        ],
        bool_like: true,
        summary: "Copy files from a standby.",
        detail: "The primary controls the backup, but rbr reads most files from a standby.",
        ..OptionDecl::BASE
    };

    CHECKSUM_PAGE: Opt<bool> = OptionDecl {
        name: "checksum-page",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        summary: "Check page checksums.",
        detail: "Each data page that is copied is checked. Without the option it is done when the cluster has \
            checksums. Pages that fail are listed in the manifest and reported.",
        ..OptionDecl::BASE
    };

    CHECKSUM_PAGE_ERROR: Opt<bool> = OptionDecl {
        name: "checksum-page-error",
        kind: Kind::Boolean,
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
                detail: "Nothing is expired when the oldest backup that would remain has invalid pages. When off, or with \
                    --set, that is only warned about.",
                ..Override::NONE
            },
            Override {
                command: Restore,
                summary: "Fail on invalid page checksums.",
                detail: "A restore that meets a file in which the backup found invalid pages fails. When off, each such \
                    file is warned about and restored as it is.",
                ..Override::NONE
            },
        ],
        summary: "Fail on invalid page checksums.",
        detail: "A backup that finds an invalid page fails instead of warning.",
        ..OptionDecl::BASE
    };

    EXCLUDE: Opt<Vec<String>> = OptionDecl {
        name: "exclude",
        kind: Kind::List,
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        summary: "Leave files out of the backup.",
        detail: "A path relative to the data directory; with a slash at its end the content of the directory is left \
            out, without one the file or directory itself. Leaving out the wrong file makes the backup useless. \
            May be given several times.",
        ..OptionDecl::BASE
    };

    EXPIRE_AUTO: Opt<bool> = OptionDecl {
        name: "expire-auto",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        summary: "Expire after the backup.",
        detail: "Runs expire at the end of each successful backup.",
        ..OptionDecl::BASE
    };

    MANIFEST_SAVE_THRESHOLD: Opt<u64> = OptionDecl {
        name: "manifest-save-threshold",
        kind: Kind::Size,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("1GiB"),
        range: Range::Fixed("1B", "1TiB"),
        summary: "Save the manifest each time so much is copied.",
        detail: "A backup that is resumed loses at most about this much work.",
        ..OptionDecl::BASE
    };

    PAGE_HEADER_CHECK: Opt<bool> = OptionDecl {
        name: "page-header-check",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        help: HelpGroup::Maintainer,
        summary: "Check page headers.",
        detail: "A page whose header is not plausible counts as invalid. Turn it off only for forks that have another \
            header.",
        ..OptionDecl::BASE
    };

    RESUME: Opt<bool> = OptionDecl {
        name: "resume",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("y"),
        summary: "Resume an interrupted backup.",
        detail: "Files of an unfinished backup are used if they are still right. They are checked, so a resumed backup \
            is as good as a new one.",
        ..OptionDecl::BASE
    };

    START_FAST: Opt<bool> = OptionDecl {
        name: "start-fast",
        kind: Kind::Boolean,
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Start the backup at once.",
        detail: "Asks PostgreSQL for an immediate checkpoint. Otherwise the backup waits for the next regular one, \
            which can take as long as checkpoint_timeout.",
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
        summary: "Stop an old backup (old).",
        detail: "Has no effect with supported versions of PostgreSQL.",
        ..OptionDecl::BASE
    };
}
