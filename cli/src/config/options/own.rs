//! Options that pgBackRest does not have.
//!
//! They are accepted only on the command line, by their full names. In a configuration file or environment that both
//! programs share, pgBackRest would warn about them. Abbreviations that pgBackRest accepts keep their meaning.

use std::time::Duration;

use crate::config::decl::Command::{RecoveryPoints, TestRestore, Verify};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{MAIN, OptionDecl, Range, Section, ValueKind, on};
use crate::config::handle::{Opt, options};

const OWN: OptionDecl = OptionDecl { section: Section::CommandLine, roles: MAIN, own: true, ..OptionDecl::BASE };

options! {
    AMCHECK: Opt<bool> = OptionDecl {
        name: "amcheck",
        kind: ValueKind::Boolean,
        commands: on(&[TestRestore]),
        default: Fixed("y"),
        negate: true,
        summary: "Check tables and indexes.",
        detail: "Runs pg_amcheck, which PostgreSQL has since version 14, on every database of the copy. It compares each \
            B-tree index with its table. The extension amcheck is installed into the copy only. If the program or the \
            extension is not installed on this host, the report says that the check was skipped.",
        ..OWN
    };

    CHECKSUMS: Opt<bool> = OptionDecl {
        name: "checksums",
        kind: ValueKind::Boolean,
        commands: on(&[TestRestore]),
        default: Fixed("y"),
        negate: true,
        summary: "Check every page.",
        detail: "Runs pg_checksums on the copy after it was stopped. If the cluster has no data checksums, the report says \
            that the check was skipped.",
        ..OWN
    };

    COUNT_TABLE: Opt<Vec<String>> = OptionDecl {
        name: "count-table",
        kind: ValueKind::List,
        commands: on(&[TestRestore]),
        required: false,
        summary: "Count the rows of this table.",
        detail: "database:table, with the table as in SQL, for example shop:public.orders. This reads the whole table. \
            The number is in the report. May be repeated.",
        ..OWN
    };

    DUMP_DATABASE: Opt<Vec<String>> = OptionDecl {
        name: "dump-database",
        kind: ValueKind::List,
        commands: on(&[TestRestore]),
        required: false,
        summary: "Dump this database.",
        detail: "Runs pg_dump, which reads every row of every table, and discards the dump. May be repeated.",
        ..OWN
    };

    PG_BIN_PATH: Opt<String> = OptionDecl {
        name: "pg-bin-path",
        kind: ValueKind::Path,
        commands: on(&[TestRestore]),
        required: false,
        summary: "Directory of PostgreSQL's programs.",
        detail: "Contains postgres and pg_controldata of the backup's major version, and pg_checksums, pg_amcheck and \
            pg_dump for the checks. Without it, pg_config, the usual directories and PATH are searched.",
        ..OWN
    };

    RECOVERY_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "recovery-timeout",
        kind: ValueKind::Time,
        commands: on(&[TestRestore]),
        default: Fixed("1d"),
        range: Range::Fixed("1s", "4w"),
        summary: "How long recovery may take.",
        detail: "A recovery that takes longer is a failed test.",
        ..OWN
    };

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

    SCRATCH_PATH: Opt<String> = OptionDecl {
        name: "scratch-path",
        kind: ValueKind::Path,
        commands: on(&[TestRestore]),
        summary: "Directory for copies of clusters.",
        detail: "A test creates a directory here that contains the whole cluster with its tablespaces, and removes it at \
            the end. It needs the size of the backup, a twentieth more, and 1GB. What a killed test left behind is \
            removed by the next test of the same user in the same directory.",
        ..OWN
    };

    SQL_FILE: Opt<String> = OptionDecl {
        name: "sql-file",
        kind: ValueKind::Path,
        commands: on(&[TestRestore]),
        required: false,
        summary: "SQL with expected results.",
        detail: "A file of SQL statements. A comment line '-- expect: ROW' after a query is an expected row, with columns \
            separated by |. All rows must be as expected, in this order. Statements without expected rows must succeed. A \
            comment line '-- database: NAME' changes the database.",
        ..OWN
    };

    SUPERUSER: Opt<String> = OptionDecl {
        name: "superuser",
        kind: ValueKind::String,
        commands: on(&[TestRestore]),
        required: false,
        summary: "A superuser of the cluster.",
        detail: "The role with which the checks connect to the copy. By default the name of the user who runs the test is \
            tried, then postgres.",
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
