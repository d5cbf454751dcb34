//! Options that pgBackRest does not have.
//!
//! They are accepted only on the command line, by their full names. In a configuration file or environment that both
//! programs share, pgBackRest would warn about them. Abbreviations that pgBackRest accepts keep their meaning.

use crate::config::decl::Command::Verify;
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
}
