//! Options of the repositories.

use std::collections::BTreeMap;

use crate::config::decl::Command::{
    ArchiveGet, ArchivePush, Backup, Check, Expire, Info, Manifest, RepoGet, RepoLs, Restore, StanzaCreate,
    StanzaUpgrade, Verify,
};
use crate::config::decl::DefaultValue::{ByDepend, Fixed};
use crate::config::decl::Support::NotYet;
use crate::config::decl::{
    DefaultValue, Group, HelpGroup, Kind, MAIN, NOT_REMOTE, Opt, OptIndexed, OptionDecl, Override, Range, Role,
    RoleSet, Section, depend, depend_or, on, options,
};
use crate::config::options::{PROTOCOLS, STANZA_AND_REPO};

options! {
    REPO: Opt<i64> = OptionDecl {
        name: "repo",
        kind: Kind::Integer,
        section: Section::CommandLine,
        commands: STANZA_AND_REPO,
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

    REPO_BLOCK: OptIndexed<bool> = OptionDecl {
        name: "repo-block",
        kind: Kind::Boolean,
        group: Some(Group::Repo),
        commands: on(&[Backup]),
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
        kind: Kind::Hash,
        group: Some(Group::Repo),
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
        kind: Kind::Hash,
        group: Some(Group::Repo),
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
        kind: Kind::Hash,
        group: Some(Group::Repo),
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
        kind: Kind::Size,
        group: Some(Group::Repo),
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
        kind: Kind::Size,
        group: Some(Group::Repo),
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
        kind: Kind::Boolean,
        group: Some(Group::Repo),
        commands: on(&[Backup]),
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
        kind: Kind::Size,
        group: Some(Group::Repo),
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
        kind: Kind::Size,
        group: Some(Group::Repo),
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

    REPO_CIPHER_PASS: OptIndexed<String> = OptionDecl {
        name: "repo-cipher-pass",
        kind: Kind::String,
        group: Some(Group::Repo),
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
        kind: Kind::StringId,
        group: Some(Group::Repo),
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
        kind: Kind::Boolean,
        group: Some(Group::Repo),
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

    REPO_HOST: OptIndexed<String> = OptionDecl {
        name: "repo-host",
        kind: Kind::String,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        required: false,
        depend: depend("repo-local", &["n"]),
        deprecated: &["backup-host"],
        help: HelpGroup::Repository,
        summary: "Host of the repository.",
        detail: "The repository is on another host, which is reached by SSH or TLS. pgBackRest must be installed there.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CA_FILE: OptIndexed<String> = OptionDecl {
        name: "repo-host-ca-file",
        kind: Kind::String,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        required: false,
        depend: depend("repo-host-type", &["tls"]),
        help: HelpGroup::Repository,
        support: NotYet("a TLS client"),
        summary: "File of certificate authorities for the host.",
        detail: "Replaces those of the system.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CA_PATH: OptIndexed<String> = OptionDecl {
        name: "repo-host-ca-path",
        kind: Kind::String,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        required: false,
        depend: depend("repo-host-type", &["tls"]),
        help: HelpGroup::Repository,
        support: NotYet("a TLS client"),
        summary: "Directory of certificate authorities for the host.",
        detail: "Replaces those of the system.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CERT_FILE: OptIndexed<String> = OptionDecl {
        name: "repo-host-cert-file",
        kind: Kind::String,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        depend: depend("repo-host-type", &["tls"]),
        help: HelpGroup::Repository,
        support: NotYet("a TLS client"),
        summary: "Certificate to present to the host.",
        detail: "Authenticates this host to the server on the other host.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CMD: OptIndexed<String> = OptionDecl {
        name: "repo-host-cmd",
        kind: Kind::String,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: DefaultValue::Program,
        depend: depend("repo-host-type", &["ssh"]),
        deprecated: &["backup-cmd"],
        help: HelpGroup::Repository,
        summary: "Command that runs this program on the host.",
        detail: "Required if its path differs between the hosts.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CONFIG: OptIndexed<String> = OptionDecl {
        name: "repo-host-config",
        kind: Kind::String,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("/etc/pgbackrest/pgbackrest.conf"),
        depend: depend("repo-host", &[]),
        deprecated: &["backup-config"],
        help: HelpGroup::Repository,
        summary: "Configuration file on the host.",
        detail: "Required if it is not at the default location.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CONFIG_INCLUDE_PATH: OptIndexed<String> = OptionDecl {
        name: "repo-host-config-include-path",
        kind: Kind::Path,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("/etc/pgbackrest/conf.d"),
        depend: depend("repo-host", &[]),
        help: HelpGroup::Repository,
        summary: "Directory of further configuration files on the host.",
        detail: "Required if it is not at the default location.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CONFIG_PATH: OptIndexed<String> = OptionDecl {
        name: "repo-host-config-path",
        kind: Kind::Path,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("/etc/pgbackrest"),
        depend: depend("repo-host", &[]),
        help: HelpGroup::Repository,
        summary: "Directory of the configuration on the host.",
        detail: "Required if it is not at the default location.",
        ..OptionDecl::BASE
    };

    REPO_HOST_KEY_FILE: OptIndexed<String> = OptionDecl {
        name: "repo-host-key-file",
        kind: Kind::String,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        depend: depend("repo-host-type", &["tls"]),
        help: HelpGroup::Repository,
        support: NotYet("a TLS client"),
        summary: "Private key of the certificate to present to the host.",
        detail: "Must be readable only by its owner.",
        ..OptionDecl::BASE
    };

    REPO_HOST_PORT: OptIndexed<i64> = OptionDecl {
        name: "repo-host-port",
        kind: Kind::Integer,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        required: false,
        default: ByDepend(&[("tls", "8432")]),
        range: Range::Fixed("0", "65535"),
        depend: depend("repo-host-type", &["ssh", "tls"]),
        deprecated: &["backup-ssh-port"],
        help: HelpGroup::Repository,
        summary: "Port of the host.",
        detail: "Defaults to the setting of the SSH client, or to 8432 for TLS.",
        ..OptionDecl::BASE
    };

    REPO_HOST_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-host-type",
        kind: Kind::StringId,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("ssh"),
        allow: &["ssh", "tls"],
        values: PROTOCOLS,
        depend: depend("repo-host", &[]),
        help: HelpGroup::Repository,
        not_yet: &[("tls", "a TLS client")],
        summary: "Protocol to the host.",
        detail: "How the host is reached.",
        ..OptionDecl::BASE
    };

    REPO_HOST_USER: OptIndexed<String> = OptionDecl {
        name: "repo-host-user",
        kind: Kind::String,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        required: false,
        default: Fixed("pgbackrest"),
        depend: depend("repo-host-type", &["ssh"]),
        deprecated: &["backup-user"],
        help: HelpGroup::Repository,
        summary: "User on the host.",
        detail: "Must own the repository.",
        ..OptionDecl::BASE
    };

    REPO_LOCAL: OptIndexed<bool> = OptionDecl {
        name: "repo-local",
        kind: Kind::Boolean,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        roles: NOT_REMOTE,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::Repository,
        support: NotYet("remote hosts"),
        summary: "The repository is on this host.",
        detail: "A process sets it for the processes that it starts.",
        ..OptionDecl::BASE
    };

    REPO_PATH: OptIndexed<String> = OptionDecl {
        name: "repo-path",
        kind: Kind::Path,
        group: Some(Group::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("/var/lib/pgbackrest"),
        deprecated: &["repo-path"],
        help: HelpGroup::Repository,
        summary: "Directory of the repository.",
        detail: "Contains the backups and WAL of all stanzas. In an object store it is the prefix of object names.",
        ..OptionDecl::BASE
    };

    REPO_RETENTION_ARCHIVE: OptIndexed<i64> = OptionDecl {
        name: "repo-retention-archive",
        kind: Kind::Integer,
        group: Some(Group::Repo),
        commands: on(&[Backup, Expire]),
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
        kind: Kind::StringId,
        group: Some(Group::Repo),
        commands: on(&[Backup, Expire]),
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
        kind: Kind::Integer,
        group: Some(Group::Repo),
        commands: on(&[Backup, Expire]),
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
        kind: Kind::Integer,
        group: Some(Group::Repo),
        commands: on(&[Backup, Expire]),
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
        kind: Kind::StringId,
        group: Some(Group::Repo),
        commands: on(&[Backup, Expire]),
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
        kind: Kind::Integer,
        group: Some(Group::Repo),
        commands: on(&[Backup, Expire]),
        roles: MAIN,
        required: false,
        range: Range::Fixed("0", "9999999"),
        help: HelpGroup::Repository,
        summary: "Days to keep manifests in the history.",
        detail: "Manifests of expired backups are kept for statistics. 0 keeps only those of existing backups. By \
            default all are kept.",
        ..OptionDecl::BASE
    };

    REPO_SYMLINK: OptIndexed<bool> = OptionDecl {
        name: "repo-symlink",
        kind: Kind::Boolean,
        group: Some(Group::Repo),
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
        kind: Kind::String,
        commands: on(&[ArchiveGet, Info, Manifest, RepoGet, RepoLs, Restore, Verify]),
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
        kind: Kind::StringId,
        group: Some(Group::Repo),
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
