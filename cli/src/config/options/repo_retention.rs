//! Options that say what expire keeps.

use crate::config::decl::Command::{Backup, Expire, Init};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, IndexGroup, MAIN, OptionDecl, Range, ValueKind, on};
use crate::config::handle::{OptIndexed, options};

options! {
    REPO_RETENTION_ARCHIVE: OptIndexed<i64> = OptionDecl {
        name: "repo-retention-archive",
        kind: ValueKind::Integer,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Expire, Init]),
        roles: MAIN,
        required: false,
        range: Range::Fixed("1", "9999999"),
        deprecated: &["retention-archive"],
        help: HelpGroup::Repository,
        summary: "Number of backups to keep WAL for.",
        detail: "Counts backups of repo-retention-archive-type. Older backups keep only the WAL that makes them \
            consistent. The default keeps WAL for every retained backup and is usually the best choice.",
        ..OptionDecl::BASE
    };

    REPO_RETENTION_ARCHIVE_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-retention-archive-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Expire, Init]),
        roles: MAIN,
        default: Fixed("full"),
        allow: &["full", "diff", "incr"],
        values: &[
            ("full", "count full backups"),
            ("diff", "count full and differential backups"),
            ("incr", "count all backups"),
        ],
        deprecated: &["retention-archive-type"],
        help: HelpGroup::Repository,
        summary: "Type of backup that WAL retention counts.",
        detail: "repo-retention-archive counts backups of these types. Keep full unless you have a reason to change \
            it.",
        ..OptionDecl::BASE
    };

    REPO_RETENTION_DIFF: OptIndexed<i64> = OptionDecl {
        name: "repo-retention-diff",
        kind: ValueKind::Integer,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Expire, Init]),
        roles: MAIN,
        required: false,
        range: Range::Fixed("1", "9999999"),
        deprecated: &["retention-diff"],
        help: HelpGroup::Repository,
        summary: "Number of differential backups to keep.",
        detail: "Older ones expire together with the incremental backups that depend on them. By default all are kept \
            until their full backup expires.",
        ..OptionDecl::BASE
    };

    REPO_RETENTION_FULL: OptIndexed<i64> = OptionDecl {
        name: "repo-retention-full",
        kind: ValueKind::Integer,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Expire, Init]),
        roles: MAIN,
        required: false,
        range: Range::Fixed("1", "9999999"),
        deprecated: &["retention-full"],
        help: HelpGroup::Repository,
        summary: "Number of full backups, or days, to keep.",
        detail: "Older ones expire together with all backups that depend on them. By time (repo-retention-full-type), \
            at least one full backup of this age is kept. By default all are kept.",
        ..OptionDecl::BASE
    };

    REPO_RETENTION_FULL_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-retention-full-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Expire, Init]),
        roles: MAIN,
        default: Fixed("count"),
        allow: &["count", "time"],
        values: &[
            ("time", "repo-retention-full is a number of days: an older full backup expires when another one is at least that old"),
            ("count", "repo-retention-full is a number of full backups"),
        ],
        help: HelpGroup::Repository,
        summary: "How full backups are retained.",
        detail: "The unit of repo-retention-full.",
        ..OptionDecl::BASE
    };

    REPO_RETENTION_HISTORY: OptIndexed<i64> = OptionDecl {
        name: "repo-retention-history",
        kind: ValueKind::Integer,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Expire, Init]),
        roles: MAIN,
        required: false,
        range: Range::Fixed("0", "9999999"),
        help: HelpGroup::Repository,
        summary: "Days to keep manifests in the history.",
        detail: "Manifests of expired backups are kept for statistics. 0 keeps only those of existing backups. By \
            default all are kept.",
        ..OptionDecl::BASE
    };
}
