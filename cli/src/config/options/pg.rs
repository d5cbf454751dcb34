//! Options of the PostgreSQL clusters.

use std::time::Duration;

use crate::config::decl::Command::{
    ArchiveGet, ArchivePush, Backup, Check, Init, Manifest, Restore, StanzaCreate, StanzaDelete, StanzaUpgrade, Verify,
};
use crate::config::decl::DefaultValue::{ByDepend, Fixed};
use crate::config::decl::{
    DefaultValue, HelpGroup, IndexGroup, MAIN, NOT_REMOTE, OptionDecl, Override, Range, Role, RoleSet, Section,
    ValueKind, depend, on,
};
use crate::config::handle::{Opt, OptIndexed, options};
use crate::config::options::{PROTOCOLS, WITH_PG_DATA, WITH_PG_HOST, WITH_PG_SESSION};

options! {
    DB_TIMEOUT: Opt<Duration> = OptionDecl {
        name: "db-timeout",
        kind: ValueKind::Time,
        commands: WITH_PG_SESSION,
        default: Fixed("30m"),
        range: Range::Fixed("100ms", "7d"),
        help: HelpGroup::General,
        summary: "Time limit for a query.",
        detail: "Includes the time that PostgreSQL needs to start and stop a backup, which can be long without \
            start-fast.",
        ..OptionDecl::BASE
    };

    PG: Opt<i64> = OptionDecl {
        name: "pg",
        kind: ValueKind::Integer,
        section: Section::CommandLine,
        commands: on(&[Backup, Manifest]),
        roles: MAIN,
        required: false,
        range: Range::Fixed("1", "256"),
        overrides: &[
            Override {
                command: Backup,
                roles: Some(RoleSet::of(&[Role::Local])),
                ..Override::NONE
            },
        ],
        internal: true,
        help: HelpGroup::General,
        summary: "Choose a cluster.",
        detail: "The number in its options. manifest compares the file of --filter with the one in the data directory of \
            this cluster.",
        ..OptionDecl::BASE
    };

    PG_DATABASE: OptIndexed<String> = OptionDecl {
        name: "pg-database",
        kind: ValueKind::String,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_SESSION.with(&[Init]),
        default: Fixed("postgres"),
        depend: depend("pg-path", &[]),
        help: HelpGroup::Stanza,
        summary: "Database to connect to.",
        detail: "Any database that the user may connect to. Its content is not used.",
        ..OptionDecl::BASE
    };

    PG_HOST: OptIndexed<String> = OptionDecl {
        name: "pg-host",
        kind: ValueKind::String,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_DATA,
        roles: NOT_REMOTE,
        required: false,
        depend: depend("pg-local", &["n"]),
        overrides: &[
            Override {
                command: ArchiveGet,
                internal: Some(true),
                ..Override::NONE
            },
            Override {
                command: ArchivePush,
                internal: Some(true),
                ..Override::NONE
            },
            Override {
                command: Restore,
                internal: Some(true),
                ..Override::NONE
            },
        ],
        deprecated: &["db-host", "db?-host"],
        help: HelpGroup::Stanza,
        summary: "Host of the cluster.",
        detail: "PostgreSQL runs on another host, which is reached by SSH or TLS.",
        ..OptionDecl::BASE
    };

    PG_HOST_CA_FILE: OptIndexed<String> = OptionDecl {
        name: "pg-host-ca-file",
        kind: ValueKind::String,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        required: false,
        depend: depend("pg-host-type", &["tls"]),
        help: HelpGroup::Stanza,
        summary: "File of certificate authorities for the host.",
        detail: "Replaces those of the system.",
        ..OptionDecl::BASE
    };

    PG_HOST_CA_PATH: OptIndexed<String> = OptionDecl {
        name: "pg-host-ca-path",
        kind: ValueKind::String,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        required: false,
        depend: depend("pg-host-type", &["tls"]),
        help: HelpGroup::Stanza,
        summary: "Directory of certificate authorities for the host.",
        detail: "Replaces those of the system.",
        ..OptionDecl::BASE
    };

    PG_HOST_CERT_FILE: OptIndexed<String> = OptionDecl {
        name: "pg-host-cert-file",
        kind: ValueKind::String,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        depend: depend("pg-host-type", &["tls"]),
        help: HelpGroup::Stanza,
        summary: "Certificate to present to the host.",
        detail: "Authenticates this host to the server on the other host.",
        ..OptionDecl::BASE
    };

    PG_HOST_CMD: OptIndexed<String> = OptionDecl {
        name: "pg-host-cmd",
        kind: ValueKind::String,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        default: DefaultValue::Program,
        depend: depend("pg-host-type", &["ssh"]),
        deprecated: &["db-cmd", "db?-cmd"],
        help: HelpGroup::Stanza,
        summary: "Command that runs this program on the host.",
        detail: "Required if its path differs between the hosts.",
        ..OptionDecl::BASE
    };

    PG_HOST_CONFIG: OptIndexed<String> = OptionDecl {
        name: "pg-host-config",
        kind: ValueKind::Path,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        default: Fixed("/etc/pgbackrest/pgbackrest.conf"),
        depend: depend("pg-host", &[]),
        deprecated: &["db-config", "db?-config"],
        help: HelpGroup::Stanza,
        summary: "Configuration file on the host.",
        detail: "Required if it is not at the default location.",
        ..OptionDecl::BASE
    };

    PG_HOST_CONFIG_INCLUDE_PATH: OptIndexed<String> = OptionDecl {
        name: "pg-host-config-include-path",
        kind: ValueKind::Path,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        default: Fixed("/etc/pgbackrest/conf.d"),
        depend: depend("pg-host", &[]),
        help: HelpGroup::Stanza,
        summary: "Directory of further configuration files on the host.",
        detail: "Required if it is not at the default location.",
        ..OptionDecl::BASE
    };

    PG_HOST_CONFIG_PATH: OptIndexed<String> = OptionDecl {
        name: "pg-host-config-path",
        kind: ValueKind::Path,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        default: Fixed("/etc/pgbackrest"),
        depend: depend("pg-host", &[]),
        help: HelpGroup::Stanza,
        summary: "Directory of the configuration on the host.",
        detail: "Required if it is not at the default location.",
        ..OptionDecl::BASE
    };

    PG_HOST_KEY_FILE: OptIndexed<String> = OptionDecl {
        name: "pg-host-key-file",
        kind: ValueKind::String,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        depend: depend("pg-host-type", &["tls"]),
        help: HelpGroup::Stanza,
        summary: "Private key of the certificate to present to the host.",
        detail: "Must be readable only by its owner.",
        ..OptionDecl::BASE
    };

    PG_HOST_PORT: OptIndexed<i64> = OptionDecl {
        name: "pg-host-port",
        kind: ValueKind::Integer,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        required: false,
        default: ByDepend(&[("tls", "8432")]),
        range: Range::Fixed("0", "65535"),
        depend: depend("pg-host-type", &["ssh", "tls"]),
        deprecated: &["db-ssh-port", "db?-ssh-port"],
        help: HelpGroup::Stanza,
        summary: "Port of the host.",
        detail: "Defaults to the setting of the SSH client, or to 8432 for TLS.",
        ..OptionDecl::BASE
    };

    PG_HOST_TYPE: OptIndexed<String> = OptionDecl {
        name: "pg-host-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        default: Fixed("ssh"),
        allow: &["ssh", "tls"],
        values: PROTOCOLS,
        depend: depend("pg-host", &[]),
        help: HelpGroup::Stanza,
        summary: "Protocol to the host.",
        detail: "How the host is reached.",
        ..OptionDecl::BASE
    };

    PG_HOST_USER: OptIndexed<String> = OptionDecl {
        name: "pg-host-user",
        kind: ValueKind::String,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_HOST,
        roles: NOT_REMOTE,
        required: false,
        default: Fixed("postgres"),
        depend: depend("pg-host-type", &["ssh"]),
        deprecated: &["db-user", "db?-user"],
        help: HelpGroup::Stanza,
        summary: "User on the host.",
        detail: "Must own the cluster, usually postgres.",
        ..OptionDecl::BASE
    };

    PG_LOCAL: OptIndexed<bool> = OptionDecl {
        name: "pg-local",
        kind: ValueKind::Boolean,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_DATA,
        roles: NOT_REMOTE,
        default: Fixed("n"),
        internal: true,
        help: HelpGroup::Stanza,
        summary: "The cluster is on this host.",
        detail: "A process sets it for the processes that it starts.",
        ..OptionDecl::BASE
    };

    PG_PATH: OptIndexed<String> = OptionDecl {
        name: "pg-path",
        kind: ValueKind::Path,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_DATA.with(&[Init]),
        overrides: &[
            Override {
                command: ArchivePush,
                required: Some(false),
                ..Override::NONE
            },
            Override {
                command: Check,
                depend: depend("stanza", &[]),
                ..Override::NONE
            },
            Override {
                command: Manifest,
                required: Some(false),
                ..Override::NONE
            },
        ],
        deprecated: &["db-path", "db?-path"],
        help: HelpGroup::Stanza,
        summary: "Data directory of the cluster.",
        detail: "Must be the directory that PostgreSQL reports as data_directory.",
        ..OptionDecl::BASE
    };

    PG_PORT: OptIndexed<i64> = OptionDecl {
        name: "pg-port",
        kind: ValueKind::Integer,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_SESSION.with(&[Init]),
        default: Fixed("5432"),
        range: Range::Fixed("0", "65535"),
        depend: depend("pg-path", &[]),
        deprecated: &["db-port", "db?-port"],
        help: HelpGroup::Stanza,
        summary: "Port of PostgreSQL.",
        detail: "Also the number in the name of the socket.",
        ..OptionDecl::BASE
    };

    PG_SOCKET_PATH: OptIndexed<String> = OptionDecl {
        name: "pg-socket-path",
        kind: ValueKind::String,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_SESSION.with(&[Init]),
        required: false,
        depend: depend("pg-path", &[]),
        deprecated: &["db-socket-path", "db?-socket-path"],
        help: HelpGroup::Stanza,
        summary: "Directory of PostgreSQL's socket.",
        detail: "Required if it is not at the location that the client expects. A name that starts with @ is an \
            abstract socket.",
        ..OptionDecl::BASE
    };

    PG_USER: OptIndexed<String> = OptionDecl {
        name: "pg-user",
        kind: ValueKind::String,
        section: Section::Stanza,
        group: Some(IndexGroup::Pg),
        commands: WITH_PG_SESSION.with(&[Init]),
        required: false,
        depend: depend("pg-path", &[]),
        help: HelpGroup::Stanza,
        summary: "User to connect as.",
        detail: "Defaults to the user of the operating system. The user needs the permission to start and stop \
            backups.",
        ..OptionDecl::BASE
    };

    PG_VERSION_FORCE: Opt<String> = OptionDecl {
        name: "pg-version-force",
        kind: ValueKind::String,
        section: Section::Stanza,
        commands: on(&[ArchiveGet, ArchivePush, Backup, Check, Manifest, Restore, StanzaCreate, StanzaDelete, StanzaUpgrade, Verify]),
        required: false,
        help: HelpGroup::Maintainer,
        summary: "Assume this version of PostgreSQL.",
        detail: "For forks of PostgreSQL whose control file has version numbers of its own.",
        ..OptionDecl::BASE
    };
}
