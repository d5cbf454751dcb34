//! Options of repository hosts.

use crate::config::decl::DefaultValue::{ByDepend, Fixed};
use crate::config::decl::{DefaultValue, HelpGroup, IndexGroup, NOT_REMOTE, OptionDecl, Range, ValueKind, depend};
use crate::config::handle::{OptIndexed, options};
use crate::config::options::{PROTOCOLS, WITH_REPO_HOST};

options! {
    REPO_HOST: OptIndexed<String> = OptionDecl {
        name: "repo-host",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
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
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
        roles: NOT_REMOTE,
        required: false,
        depend: depend("repo-host-type", &["tls"]),
        help: HelpGroup::Repository,
        summary: "File of certificate authorities for the host.",
        detail: "Replaces those of the system.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CA_PATH: OptIndexed<String> = OptionDecl {
        name: "repo-host-ca-path",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
        roles: NOT_REMOTE,
        required: false,
        depend: depend("repo-host-type", &["tls"]),
        help: HelpGroup::Repository,
        summary: "Directory of certificate authorities for the host.",
        detail: "Replaces those of the system.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CERT_FILE: OptIndexed<String> = OptionDecl {
        name: "repo-host-cert-file",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
        roles: NOT_REMOTE,
        depend: depend("repo-host-type", &["tls"]),
        help: HelpGroup::Repository,
        summary: "Certificate to present to the host.",
        detail: "Authenticates this host to the server on the other host.",
        ..OptionDecl::BASE
    };

    REPO_HOST_CMD: OptIndexed<String> = OptionDecl {
        name: "repo-host-cmd",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
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
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
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
        kind: ValueKind::Path,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
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
        kind: ValueKind::Path,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
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
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
        roles: NOT_REMOTE,
        depend: depend("repo-host-type", &["tls"]),
        help: HelpGroup::Repository,
        summary: "Private key of the certificate to present to the host.",
        detail: "Must be readable only by its owner.",
        ..OptionDecl::BASE
    };

    REPO_HOST_PORT: OptIndexed<i64> = OptionDecl {
        name: "repo-host-port",
        kind: ValueKind::Integer,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
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
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
        roles: NOT_REMOTE,
        default: Fixed("ssh"),
        allow: &["ssh", "tls"],
        values: PROTOCOLS,
        depend: depend("repo-host", &[]),
        help: HelpGroup::Repository,
        summary: "Protocol to the host.",
        detail: "How the host is reached.",
        ..OptionDecl::BASE
    };

    REPO_HOST_USER: OptIndexed<String> = OptionDecl {
        name: "repo-host-user",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: WITH_REPO_HOST,
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
}
