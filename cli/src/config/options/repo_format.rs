//! Options of a repository's format.

use std::time::Duration;

use crate::config::decl::Command::{Backup, Expire, StanzaCreate, StanzaUpgrade};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, IndexGroup, MAIN, OptionDecl, Range, Section, ValueKind, depend, on};
use crate::config::handle::{OptIndexed, options};

options! {
    REPO_CIPHER_ROTATE: OptIndexed<Duration> = OptionDecl {
        name: "repo-cipher-rotate",
        kind: ValueKind::Time,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Expire]),
        roles: MAIN,
        default: Fixed("90d"),
        range: Range::Fixed("15d", "9999999d"),
        depend: depend("repo-cipher-type", &["aes-256-cbc"]),
        internal: true,
        help: HelpGroup::Repository,
        summary: "Maximum age of the archive key.",
        detail: "expire creates a new key for later WAL if the current key is older. Earlier WAL keeps its key.",
        ..OptionDecl::BASE
    };

    REPO_FORMAT: OptIndexed<i64> = OptionDecl {
        name: "repo-format",
        kind: ValueKind::Integer,
        section: Section::CommandLine,
        group: Some(IndexGroup::Repo),
        commands: on(&[StanzaCreate, StanzaUpgrade]),
        roles: MAIN,
        default: Fixed("5"),
        allow: &["5", "6"],
        values: &[("5", "readable by every version of pgBackRest"), ("6", "readable by pgBackRest 2.60 and later")],
        internal: true,
        help: HelpGroup::Repository,
        summary: "Repository format.",
        detail: "The format of info files, manifests and archived files of the stanza.",
        ..OptionDecl::BASE
    };
}
