//! Options that pgBackRest does not have.
//!
//! They can be given on the command line alone, with their full names: in a configuration file or environment that both programs
//! share, pgBackRest would warn about them, and no abbreviation that it takes changes its meaning.

use crate::config::decl::Command::Verify;
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{Kind, MAIN, Opt, OptionDecl, Section, on, options};

const OWN: OptionDecl = OptionDecl { section: Section::CommandLine, roles: MAIN, own: true, ..OptionDecl::BASE };

options! {
    REPAIR: Opt<bool> = OptionDecl {
        name: "repair",
        kind: Kind::Boolean,
        commands: on(&[Verify]),
        default: Fixed("n"),
        summary: "Make info files and manifests whole again.",
        detail: "archive.info, backup.info and each manifest are kept twice. Where one of both is damaged and the other is \
            whole, the whole one is written over the damaged one. This takes the lock of backup and expire, at the end, and only \
            if there is something to repair. Nothing else is changed: damaged backups and WAL stay as they are.",
        ..OWN
    };

    VERIFY_EXIT_CODE: Opt<bool> = OptionDecl {
        name: "verify-exit-code",
        kind: Kind::Boolean,
        commands: on(&[Verify]),
        default: Fixed("n"),
        summary: "Fail when something is wrong.",
        detail: "verify succeeds whatever it finds. With this option it ends with exit status 104 when a backup or WAL is not \
            valid, or when an info file or manifest is whole only once and was not repaired. Other exit statuses mean that the \
            repository could not be checked.",
        ..OWN
    };
}
