//! Options of what commands show.

use crate::config::decl::Command::{
    Annotate, Attest, Backup, Check, Expire, Info, Manifest, Metrics, RecoveryPoints, RepoGet, RepoLs, RepoRm, Restore,
    Schedule, StanzaCreate, StanzaDelete, StanzaUpgrade, TestRestore, Verify, Version,
};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{Command, HelpGroup, MAIN, OptionDecl, Override, Section, ValueKind, on};
use crate::config::handle::{Opt, options};

/// Commands that print nothing but log lines in pgBackRest.
const WITH_SUMMARY: &[Command] = &[Annotate, Backup, Check, Expire, Restore, StanzaCreate, StanzaDelete, StanzaUpgrade];

/// `--output` of a command that prints a summary.
const fn summary(command: Command) -> Override {
    Override {
        command,
        values: &[("text", "log lines only"), ("json", "a summary for programs")],
        summary: "Output format.",
        detail: "With json, standard output contains one JSON object with what was done, also after an error, and nothing \
            else. Log lines for the console go to standard error. docs/output.md describes the object. pgBackRest does not \
            have this option here.",
        ..Override::NONE
    }
}

options! {
    DETAIL_LEVEL: Opt<String> = OptionDecl {
        name: "detail-level",
        kind: ValueKind::StringId,
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

    FILTER: Opt<String> = OptionDecl {
        name: "filter",
        kind: ValueKind::String,
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

    IGNORE_MISSING: Opt<bool> = OptionDecl {
        name: "ignore-missing",
        kind: ValueKind::Boolean,
        section: Section::CommandLine,
        commands: on(&[RepoGet]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Do not fail if the file is missing.",
        detail: "The exit status is then 1.",
        ..OptionDecl::BASE
    };

    OUTPUT: Opt<String> = OptionDecl {
        name: "output",
        kind: ValueKind::StringId,
        section: Section::CommandLine,
        commands: on(&[Attest, Info, Manifest, Metrics, RecoveryPoints, RepoLs, Schedule, TestRestore, Verify, Version])
            .with(WITH_SUMMARY),
        own_commands: on(WITH_SUMMARY),
        roles: MAIN,
        default: Fixed("text"),
        allow: &["text", "json"],
        values: &[("text", "readable by people"), ("json", "readable by programs, with all details")],
        overrides: &[
            summary(Annotate),
            summary(Backup),
            summary(Check),
            summary(Expire),
            summary(StanzaCreate),
            summary(StanzaDelete),
            summary(StanzaUpgrade),
            Override {
                command: Metrics,
                values: &[
                    ("text", "metrics in the text format of Prometheus and OpenMetrics"),
                    ("json", "all that was found, as /api/v1/status of the daemon"),
                ],
                summary: "Output format.",
                detail: "{values}",
                ..Override::NONE
            },
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
                detail: "How --plan prints its result. Without --plan, json prints one JSON object with what was done, also \
                    after an error, and nothing else to standard output. Log lines for the console go to standard error. \
                    docs/output.md describes the object. pgBackRest does not have this option here.",
                values: &[("text", "a plan as text, and log lines"), ("json", "for programs")],
                ..summary(Restore)
            },
            Override {
                command: Verify,
                default: Some(Fixed("none")),
                allow: &["none", "text", "json"],
                own_allow: &["json"],
                values: &[
                    ("none", "errors only, in the log"),
                    ("text", "a report"),
                    ("json", "a summary for programs, which pgBackRest does not have"),
                ],
                summary: "Output format.",
                detail: "What verify prints to standard output. The report contains only what is invalid, and is empty if \
                    everything is valid. With --verbose it also contains what is valid. With json, standard output contains \
                    one JSON object, also after an error, and nothing else; log lines for the console go to standard error. \
                    docs/output.md describes the object.",
                ..Override::NONE
            },
            Override {
                command: TestRestore,
                summary: "Output format.",
                detail: "How the report is printed to standard output. With json, log lines for the console go to standard \
                    error.",
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

    RAW: Opt<bool> = OptionDecl {
        name: "raw",
        kind: ValueKind::Boolean,
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
        kind: ValueKind::Boolean,
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
        kind: ValueKind::String,
        section: Section::CommandLine,
        commands: on(&[Manifest]),
        roles: MAIN,
        required: false,
        summary: "Show only files with this reference.",
        detail: "The label of an earlier backup shows the files that it stores for the backup of --set. latest shows \
            the files that the backup of --set stores itself.",
        ..OptionDecl::BASE
    };

    REPORT: Opt<bool> = OptionDecl {
        name: "report",
        kind: ValueKind::Boolean,
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

    SORT: Opt<String> = OptionDecl {
        name: "sort",
        kind: ValueKind::StringId,
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

    VERBOSE: Opt<bool> = OptionDecl {
        name: "verbose",
        kind: ValueKind::Boolean,
        section: Section::CommandLine,
        commands: on(&[Verify]),
        roles: MAIN,
        default: Fixed("n"),
        summary: "Report everything.",
        detail: "Also reports what is valid.",
        ..OptionDecl::BASE
    };
}
