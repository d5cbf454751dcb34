//! Options of the repositories.

use crate::config::decl::Command::{
    ArchiveGet, ArchivePush, Backup, Check, Expire, Info, Init, Manifest, RecoveryPoints, RepoGet, RepoLs, Restore,
    StanzaCreate, StanzaUpgrade, Verify,
};
use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{
    HelpGroup, IndexGroup, MAIN, NOT_REMOTE, OptionDecl, Override, Range, Role, RoleSet, Section, ValueKind, depend,
    depend_or, on,
};
use crate::config::handle::{Opt, OptIndexed, options};
use crate::config::options::STANZA_AND_REPO;

options! {
    REPO: Opt<i64> = OptionDecl {
        name: "repo",
        kind: ValueKind::Integer,
        section: Section::CommandLine,
        commands: STANZA_AND_REPO.without(&[Init]),
        required: false,
        range: Range::Fixed("1", "256"),
        overrides: &[
            Override {
                command: ArchivePush,
                roles: Some(RoleSet::of(&[Role::Remote])),
                ..Override::NONE
            },
            Override {
                command: Check,
                roles: Some(RoleSet::of(&[Role::Remote])),
                ..Override::NONE
            },
            Override {
                command: StanzaCreate,
                roles: Some(RoleSet::of(&[Role::Remote])),
                ..Override::NONE
            },
            Override {
                command: StanzaUpgrade,
                roles: Some(RoleSet::of(&[Role::Remote])),
                ..Override::NONE
            },
        ],
        help: HelpGroup::Repository,
        summary: "Choose a repository.",
        detail: "The number in its options. Commands that support several repositories use all by default.",
        ..OptionDecl::BASE
    };

    REPO_CIPHER_PASS: OptIndexed<String> = OptionDecl {
        name: "repo-cipher-pass",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-cipher-type", &["aes-256-cbc"]),
        deprecated: &["repo-cipher-pass"],
        secure: true,
        help: HelpGroup::Repository,
        summary: "Passphrase of the repository.",
        detail: "Use a long random passphrase. If you lose it, you lose the repository. Not allowed on the command \
            line.",
        ..OptionDecl::BASE
    };

    REPO_CIPHER_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-cipher-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("none"),
        allow: &["none", "aes-256-cbc"],
        values: &[
            ("none", "files are not encrypted"),
            ("aes-256-cbc", "files are encrypted with AES-256 in CBC mode"),
        ],
        deprecated: &["repo-cipher-type"],
        help: HelpGroup::Repository,
        summary: "Encryption of the repository.",
        detail: "rbr encrypts on this host, independently of the storage. The type can't be changed after the stanza \
            was created.",
        ..OptionDecl::BASE
    };

    REPO_HARDLINK: OptIndexed<bool> = OptionDecl {
        name: "repo-hardlink",
        kind: ValueKind::Boolean,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup]),
        roles: MAIN,
        default: Fixed("n"),
        depend: depend_or("repo-bundle", &["n"], "n"),
        deprecated: &["hardlink"],
        help: HelpGroup::Repository,
        summary: "Hard-link unchanged files between backups.",
        detail: "Each backup directory then looks like a full backup. Requires a file system with hard links, and no \
            bundles.",
        ..OptionDecl::BASE
    };

    REPO_LOCAL: OptIndexed<bool> = OptionDecl {
        name: "repo-local",
        kind: ValueKind::Boolean,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO.without(&[Init]),
        roles: NOT_REMOTE,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::Repository,
        summary: "The repository is on this host.",
        detail: "A process sets it for the processes that it starts.",
        ..OptionDecl::BASE
    };

    REPO_PATH: OptIndexed<String> = OptionDecl {
        name: "repo-path",
        kind: ValueKind::Path,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("/var/lib/pgbackrest"),
        deprecated: &["repo-path"],
        help: HelpGroup::Repository,
        summary: "Directory of the repository.",
        detail: "Contains the backups and WAL of all stanzas. In an object store it is the prefix of object names.",
        ..OptionDecl::BASE
    };

    REPO_SYMLINK: OptIndexed<bool> = OptionDecl {
        name: "repo-symlink",
        kind: ValueKind::Boolean,
        group: Some(IndexGroup::Repo),
        commands: on(&[Backup, Expire]),
        roles: MAIN,
        default: Fixed("y"),
        depend: depend_or("repo-type", &["posix"], "n"),
        help: HelpGroup::Repository,
        summary: "Create symbolic links in the repository.",
        detail: "Creates the link latest, and in each backup a link per tablespace. Only for posix repositories.",
        ..OptionDecl::BASE
    };

    REPO_TARGET_TIME: Opt<String> = OptionDecl {
        name: "repo-target-time",
        kind: ValueKind::String,
        commands: on(&[ArchiveGet, Info, Manifest, RecoveryPoints, RepoGet, RepoLs, Restore, Verify]),
        roles: NOT_REMOTE,
        required: false,
        help: HelpGroup::Repository,
        summary: "Read the repository as of this time.",
        detail: "For object stores that keep old versions, to recover files that were changed or deleted since. The \
            format is YYYY-MM-DD HH:MM:SS with an optional offset; without it the time is local. Requires repo. In \
            Azure and Google Cloud Storage, files that had been deleted by that time are visible too.",
        ..OptionDecl::BASE
    };

    REPO_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("posix"),
        allow: &["azure", "cifs", "gcs", "posix", "s3", "sftp"],
        values: &[
            ("azure", "a container of Azure Blob Storage"),
            ("cifs", "a directory on a CIFS mount, without links and syncs of directories"),
            ("gcs", "a bucket of Google Cloud Storage"),
            ("posix", "a directory of this host"),
            ("s3", "a bucket of S3 or of a compatible store"),
            ("sftp", "a directory of an SFTP server"),
        ],
        deprecated: &["repo-type"],
        help: HelpGroup::Repository,
        summary: "Type of storage.",
        detail: "Where the repository is stored.",
        ..OptionDecl::BASE
    };
}
