//! Options that pgBackRest does not have.
//!
//! They are accepted only on the command line, by their full names. In a configuration file or environment that both
//! programs share, pgBackRest would warn about them. Abbreviations that pgBackRest accepts keep their meaning.

use crate::config::decl::Command::{RecoveryPoints, Verify};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{MAIN, OptionDecl, Section, ValueKind, on};
use crate::config::handle::{Opt, options};

const OWN: OptionDecl = OptionDecl { section: Section::CommandLine, roles: MAIN, own: true, ..OptionDecl::BASE };

options! {
    REPAIR: Opt<bool> = OptionDecl {
        name: "repair",
        kind: ValueKind::Boolean,
        commands: on(&[Verify]),
        default: Fixed("n"),
        summary: "Repair damaged info files and manifests.",
        detail: "The repository contains archive.info, backup.info and each manifest twice. If one of the two files \
            is damaged, it is replaced by the other. This takes the lock of backup and expire at the end, only if \
            there is something to repair. Nothing else is changed: damaged backups and WAL stay as they are.",
        ..OWN
    };

    VERIFY_EXIT_CODE: Opt<bool> = OptionDecl {
        name: "verify-exit-code",
        kind: ValueKind::Boolean,
        commands: on(&[Verify]),
        default: Fixed("n"),
        summary: "Fail if anything is invalid.",
        detail: "By default verify succeeds regardless of what it finds. With this option it exits with status 104 if \
            a backup or WAL is invalid, or if one of the two files of an info file or manifest is damaged and was not \
            repaired. The error names the first invalid files. Other exit statuses mean that the repository, or a part of \
            it, could not be checked: for example, a file can't be read or the passphrase is wrong.",
        ..OWN
    };

    SCAN: Opt<bool> = OptionDecl {
        name: "scan",
        kind: ValueKind::Boolean,
        commands: on(&[RecoveryPoints]),
        default: Fixed("n"),
        summary: "Read the WAL of the archive.",
        detail: "Lists named restore points, beginnings of timelines, commits, and what removed data, with positions and \
            times. Checks the CRC of each record, so that damaged WAL ends a range. PostgreSQL 13 to 18. Each worker \
            (--process-max) decompresses and reads other segments.",
        ..OWN
    };

    SINCE: Opt<String> = OptionDecl {
        name: "since",
        kind: ValueKind::String,
        commands: on(&[RecoveryPoints]),
        required: false,
        summary: "List what happened at this time or later.",
        detail: "The form is that of --target: YYYY-MM-DD HH:MM:SS with an optional time zone. Only WAL from the last backup \
            before this time on is read. Requires --scan.",
        ..OWN
    };

    UNTIL: Opt<String> = OptionDecl {
        name: "until",
        kind: ValueKind::String,
        commands: on(&[RecoveryPoints]),
        required: false,
        summary: "List what happened at this time or earlier.",
        detail: "The form is that of --target: YYYY-MM-DD HH:MM:SS with an optional time zone. Only WAL up to the first \
            backup after this time is read. Requires --scan.",
        ..OWN
    };
}
