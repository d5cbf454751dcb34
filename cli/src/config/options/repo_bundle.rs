//! Options of bundles and block incremental backups.

use std::collections::BTreeMap;

use crate::config::decl::Command::{Backup, Init};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, IndexGroup, MAIN, OptionDecl, Range, ValueKind, depend, depend_or, on};
use crate::config::handle::{OptIndexed, options};

options! {
    REPO_BLOCK: OptIndexed<bool> = OptionDecl {
        name: "repo-block",
        kind: ValueKind::Boolean,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Init]),
        roles: MAIN,
        default: Fixed("n"),
        depend: depend_or("repo-bundle", &["y"], "n"),
        help: HelpGroup::Repository,
        summary: "Store changed blocks only.",
        detail: "A diff or incr backup stores the changed blocks of a file instead of the whole file. Requires \
            repo-bundle.",
        ..OptionDecl::BASE
    };

    REPO_BLOCK_AGE_MAP: OptIndexed<BTreeMap<String, String>> = OptionDecl {
        name: "repo-block-age-map",
        kind: ValueKind::Hash,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        depend: depend("repo-block", &["y"]),
        internal: true,
        help: HelpGroup::Repository,
        summary: "Larger blocks for old files.",
        detail: "Maps days since the last change to a factor for the block size.",
        ..OptionDecl::BASE
    };

    REPO_BLOCK_CHECKSUM_SIZE_MAP: OptIndexed<BTreeMap<String, String>> = OptionDecl {
        name: "repo-block-checksum-size-map",
        kind: ValueKind::Hash,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        depend: depend("repo-block", &["y"]),
        internal: true,
        help: HelpGroup::Repository,
        summary: "Checksum size per block size.",
        detail: "Maps a block size to the size of its checksum in bytes.",
        ..OptionDecl::BASE
    };

    REPO_BLOCK_SIZE_MAP: OptIndexed<BTreeMap<String, String>> = OptionDecl {
        name: "repo-block-size-map",
        kind: ValueKind::Hash,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup]),
        roles: MAIN,
        required: false,
        depend: depend("repo-block", &["y"]),
        internal: true,
        help: HelpGroup::Repository,
        summary: "Block size per file size.",
        detail: "Maps a file size to a block size.",
        ..OptionDecl::BASE
    };

    REPO_BLOCK_SIZE_SUPER: OptIndexed<u64> = OptionDecl {
        name: "repo-block-size-super",
        kind: ValueKind::Size,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("256KiB"),
        range: Range::Fixed("32KiB", "16MiB"),
        depend: depend("repo-block", &["y"]),
        internal: true,
        help: HelpGroup::Repository,
        summary: "Size of super blocks.",
        detail: "A super block is a group of blocks that are compressed together.",
        ..OptionDecl::BASE
    };

    REPO_BLOCK_SIZE_SUPER_FULL: OptIndexed<u64> = OptionDecl {
        name: "repo-block-size-super-full",
        kind: ValueKind::Size,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("1MiB"),
        range: Range::Fixed("32KiB", "16MiB"),
        depend: depend("repo-block", &["y"]),
        internal: true,
        help: HelpGroup::Repository,
        summary: "Size of super blocks in a full backup.",
        detail: "A super block is a group of blocks that are compressed together.",
        ..OptionDecl::BASE
    };

    REPO_BUNDLE: OptIndexed<bool> = OptionDecl {
        name: "repo-bundle",
        kind: ValueKind::Boolean,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Init]),
        roles: MAIN,
        default: Fixed("n"),
        help: HelpGroup::Repository,
        summary: "Store small files together.",
        detail: "Stores files up to repo-bundle-limit together in one repository file. This saves much time and space \
            with many small files.",
        ..OptionDecl::BASE
    };

    REPO_BUNDLE_LIMIT: OptIndexed<u64> = OptionDecl {
        name: "repo-bundle-limit",
        kind: ValueKind::Size,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("2MiB"),
        range: Range::Fixed("8KiB", "1PiB"),
        depend: depend("repo-bundle", &["y"]),
        help: HelpGroup::Repository,
        summary: "Maximum size of bundled files.",
        detail: "Larger files are stored on their own.",
        ..OptionDecl::BASE
    };

    REPO_BUNDLE_SIZE: OptIndexed<u64> = OptionDecl {
        name: "repo-bundle-size",
        kind: ValueKind::Size,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("20MiB"),
        range: Range::Fixed("1MiB", "1PiB"),
        depend: depend("repo-bundle", &["y"]),
        help: HelpGroup::Repository,
        summary: "Size of a bundle.",
        detail: "A bundle is complete when it reaches this size before compression.",
        ..OptionDecl::BASE
    };
}
