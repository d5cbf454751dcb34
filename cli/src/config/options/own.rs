//! Options that pgBackRest does not have.
//!
//! They are accepted only on the command line, by their full names. In a configuration file or environment that both
//! programs share, pgBackRest would warn about them. Abbreviations that pgBackRest accepts keep their meaning.

use std::time::Duration;

use crate::config::decl::Command::{Attest, Backup, Check, Expire, Init, RecoveryPoints, Restore, TestRestore, Verify};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, MAIN, MAIN_ASYNC, OptionDecl, Range, Section, ValueKind, depend, on};
use crate::config::handle::{Opt, options};
use crate::config::options::EVERY;

const OWN: OptionDecl = OptionDecl { section: Section::CommandLine, roles: MAIN, own: true, ..OptionDecl::BASE };

options! {
    DIAGNOSE: Opt<String> = OptionDecl {
        name: "diagnose",
        kind: ValueKind::StringId,
        commands: on(&[Check]),
        default: Fixed("n"),
        allow: &["n", "y", "json"],
        values: &[
            ("n", "make the check as pgBackRest does"),
            ("y", "print what was found as text"),
            ("json", "print what was found as JSON"),
        ],
        bool_like: true,
        summary: "Find what usually goes wrong.",
        detail: "Looks at PostgreSQL (connection, data directory, clock, archive settings, queue of WAL), at each \
            repository (stanza, permissions, clock, retention, backups, versions and lifecycle rules of an S3 bucket) \
            and at this host (lock, log and spool path, stop file), and says how to mend what is wrong. It goes on after \
            an error. If there is no error it also makes the check, which archives a WAL segment. It writes and removes \
            a small file in each repository and changes nothing else. The exit status is 0 if backups and archiving \
            work, also with warnings, and 104 if they do not.",
        ..OWN
    };

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

    APPLY: Opt<bool> = OptionDecl {
        name: "apply",
        kind: ValueKind::Boolean,
        commands: on(&[Init]),
        default: Fixed("n"),
        summary: "Set what PostgreSQL needs.",
        detail: "Sets archive_mode and archive_command, and wal_level if it is minimal, with ALTER SYSTEM, and reloads the \
            configuration of the server. Without it, init only shows the settings. An archive_command of something else is never \
            replaced. init does not restart the server and says if that is needed.",
        ..OWN
    };

    ATTEST: Opt<bool> = OptionDecl {
        name: "attest",
        kind: ValueKind::Boolean,
        commands: on(&[TestRestore]),
        default: Fixed("y"),
        negate: true,
        summary: "Keep the proof in the repository.",
        detail: "Writes the report to the directory proof of the repository, which pgBackRest ignores, and annotates the \
            backup with the result (rbr-proof). info shows the last proof of each backup. --no-attest writes nothing.",
        ..OWN
    };

    ATTEST_KEY_FILE: Opt<String> = OptionDecl {
        name: "attest-key-file",
        kind: ValueKind::Path,
        commands: on(&[TestRestore]),
        required: false,
        depend: depend("attest", &["y"]),
        summary: "Private key that signs the proof.",
        detail: "An Ed25519 key in PEM form. This command makes one: openssl genpkey -algorithm ed25519 -out FILE.",
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

    KEEP_PROVEN: Opt<bool> = OptionDecl {
        name: "keep-proven",
        kind: ValueKind::Boolean,
        commands: on(&[Backup, Expire]),
        default: Fixed("n"),
        summary: "Keep the newest proven backup.",
        detail: "The newest backup whose last test-restore passed is not expired, nor is the set that it belongs to, \
            whatever the retention settings are. A backup whose last proof can't be read is kept, too. No signature \
            is checked: whoever can write to the repository can make a backup count as proven.",
        ..OWN
    };

    MAX_BYTES: Opt<u64> = OptionDecl {
        name: "max-bytes",
        kind: ValueKind::Size,
        commands: on(&[Verify]),
        required: false,
        range: Range::Fixed("1B", "1024PiB"),
        summary: "Read at most so many bytes.",
        detail: "Stored bytes of backups and WAL. Files that were never read come first, then those that were read longest \
            ago. The last file may exceed the limit. Files that were bad when they were last read are always read. Daily \
            runs with a seventh of the size of the repository read everything once a week.",
        ..OWN
    };

    MAX_TIME: Opt<Duration> = OptionDecl {
        name: "max-time",
        kind: ValueKind::Time,
        commands: on(&[Verify]),
        required: false,
        range: Range::Fixed("1s", "4w"),
        summary: "Begin to read no file after this time.",
        detail: "Files that were never read come first, then those that were read longest ago. Files that were bad when they \
            were last read are always read. Reading the directories and manifests takes longer if there are many.",
        ..OWN
    };

    OLDER_THAN: Opt<Duration> = OptionDecl {
        name: "older-than",
        kind: ValueKind::Time,
        commands: on(&[Verify]),
        required: false,
        range: Range::Fixed("0s", "52w"),
        summary: "Read only what was not read for so long.",
        detail: "Files that were good when they were last read, so long ago or less, are not read again, as long as their \
            size, their time, and what the manifest says about them stay the same. The repository keeps when each file was \
            read, in the directory proof, which pgBackRest ignores. 0s reads everything.",
        ..OWN
    };

    LOG_FORMAT: Opt<String> = OptionDecl {
        name: "log-format",
        kind: ValueKind::StringId,
        commands: EVERY,
        roles: MAIN_ASYNC,
        default: Fixed("text"),
        allow: &["text", "json"],
        values: &[("text", "as in pgBackRest"), ("json", "one JSON object a line")],
        help: HelpGroup::Log,
        summary: "Format of log lines.",
        detail: "The format of all log lines: on standard output, standard error and in the log file. Processes that the \
            command starts on this host, such as the commands of the daemon, use it too.",
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

    PUBLIC_KEY_FILE: Opt<String> = OptionDecl {
        name: "public-key-file",
        kind: ValueKind::Path,
        commands: on(&[Attest]),
        required: false,
        summary: "Public key of signed proofs.",
        detail: "An Ed25519 key in PEM form, as written by: openssl pkey -pubout. Without it, signatures are not checked.",
        ..OWN
    };

    RECOVERY_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "recovery-timeout",
        kind: ValueKind::Time,
        commands: on(&[TestRestore]),
        default: Fixed("1d"),
        range: Range::Fixed("1s", "4w"),
        summary: "How long recovery may take.",
        detail: "A recovery that takes longer is a failed test, because nobody could wait for it. Choose a limit that suits \
            this host.",
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

    PLAN: Opt<bool> = OptionDecl {
        name: "plan",
        kind: ValueKind::Boolean,
        commands: on(&[Restore]),
        default: Fixed("n"),
        summary: "Show what the restore would do, and change nothing.",
        detail: "Shows the backup and those it depends on, the bytes to read and to write with --delta against what is there, \
            the number of requests, the WAL, the expected time of reading at a measured rate, and what is missing. The exit \
            status is that of the first reason for which the restore would fail. With --output=json it is for programs.",
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

    YES: Opt<bool> = OptionDecl {
        name: "yes",
        kind: ValueKind::Boolean,
        commands: on(&[Init]),
        default: Fixed("n"),
        summary: "Write what is shown without asking.",
        detail: "For scripts: init asks nothing, and fails if something is missing. Without this option, init writes only after \
            a question on a terminal; elsewhere it shows what it would write.",
        ..OWN
    };
}
