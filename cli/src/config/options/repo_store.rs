//! Options of the stores that contain repositories: those of all object stores, Azure, GCS and SFTP.

use std::collections::BTreeMap;

use crate::config::decl::DefaultValue::{ByDepend, Fixed};
use crate::config::decl::{HelpGroup, IndexGroup, OptionDecl, Range, ValueKind, depend};
use crate::config::handle::{OptIndexed, options};
use crate::config::options::STANZA_AND_REPO;

options! {
    REPO_AZURE_ACCOUNT: OptIndexed<String> = OptionDecl {
        name: "repo-azure-account",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-type", &["azure"]),
        secure: true,
        help: HelpGroup::Repository,
        summary: "Azure storage account.",
        detail: "The account that owns the container.",
        ..OptionDecl::BASE
    };

    REPO_AZURE_CONTAINER: OptIndexed<String> = OptionDecl {
        name: "repo-azure-container",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-type", &["azure"]),
        help: HelpGroup::Repository,
        summary: "Azure container.",
        detail: "It must exist.",
        ..OptionDecl::BASE
    };

    REPO_AZURE_ENDPOINT: OptIndexed<String> = OptionDecl {
        name: "repo-azure-endpoint",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("blob.core.windows.net"),
        depend: depend("repo-type", &["azure"]),
        secure: true,
        help: HelpGroup::Repository,
        summary: "Azure endpoint.",
        detail: "For other clouds and emulators.",
        ..OptionDecl::BASE
    };

    REPO_AZURE_KEY: OptIndexed<String> = OptionDecl {
        name: "repo-azure-key",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-azure-key-type", &["shared", "sas"]),
        secure: true,
        help: HelpGroup::Repository,
        summary: "Azure key.",
        detail: "A shared key or a shared access signature, depending on repo-azure-key-type.",
        ..OptionDecl::BASE
    };

    REPO_AZURE_KEY_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-azure-key-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("shared"),
        allow: &["shared", "sas", "auto"],
        values: &[
            ("shared", "repo-azure-key is the key of the account"),
            ("sas", "repo-azure-key is a shared access signature"),
            ("auto", "the managed identity of the host"),
        ],
        depend: depend("repo-type", &["azure"]),
        help: HelpGroup::Repository,
        summary: "Type of Azure key.",
        detail: "How requests are authorized.",
        ..OptionDecl::BASE
    };

    REPO_AZURE_URI_STYLE: OptIndexed<String> = OptionDecl {
        name: "repo-azure-uri-style",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("host"),
        allow: &["host", "path"],
        values: &[
            ("host", "the account is part of the host name"),
            ("path", "the account is the first part of the path"),
        ],
        depend: depend("repo-type", &["azure"]),
        help: HelpGroup::Repository,
        summary: "Style of Azure addresses.",
        detail: "How requests address the account.",
        ..OptionDecl::BASE
    };

    REPO_GCS_BUCKET: OptIndexed<String> = OptionDecl {
        name: "repo-gcs-bucket",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-gcs-key-type", &[]),
        help: HelpGroup::Repository,
        summary: "GCS bucket.",
        detail: "It must exist.",
        ..OptionDecl::BASE
    };

    REPO_GCS_ENDPOINT: OptIndexed<String> = OptionDecl {
        name: "repo-gcs-endpoint",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("storage.googleapis.com"),
        depend: depend("repo-gcs-key-type", &[]),
        help: HelpGroup::Repository,
        summary: "GCS endpoint.",
        detail: "For private endpoints and emulators. May include a port.",
        ..OptionDecl::BASE
    };

    REPO_GCS_KEY: OptIndexed<String> = OptionDecl {
        name: "repo-gcs-key",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-gcs-key-type", &["service", "token", "web-id"]),
        secure: true,
        help: HelpGroup::Repository,
        summary: "GCS key.",
        detail: "The path of a service key file or of an external account credential file, or a token with its type \
            (Bearer ...), depending on repo-gcs-key-type.",
        ..OptionDecl::BASE
    };

    REPO_GCS_KEY_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-gcs-key-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("service"),
        allow: &["service", "token", "auto", "web-id"],
        values: &[
            ("auto", "the service account of the instance that rbr runs on"),
            ("service", "repo-gcs-key is the path of a service account key file"),
            ("token", "repo-gcs-key is a token, for tests with an emulator"),
            ("web-id", "repo-gcs-key is the path of an external account credential file (workload identity federation)"),
        ],
        depend: depend("repo-type", &["gcs"]),
        help: HelpGroup::Repository,
        summary: "Type of GCS key.",
        detail: "How requests are authorized.",
        ..OptionDecl::BASE
    };

    REPO_GCS_USER_PROJECT: OptIndexed<String> = OptionDecl {
        name: "repo-gcs-user-project",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        help: HelpGroup::Repository,
        summary: "GCS project to bill.",
        detail: "For buckets with requester-pays enabled.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_HOST: OptIndexed<String> = OptionDecl {
        name: "repo-sftp-host",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-type", &["sftp"]),
        help: HelpGroup::Repository,
        summary: "SFTP host.",
        detail: "Where the repository is stored.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_HOST_FINGERPRINT: OptIndexed<String> = OptionDecl {
        name: "repo-sftp-host-fingerprint",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-sftp-host-key-check-type", &["fingerprint", "strict"]),
        help: HelpGroup::Repository,
        summary: "Fingerprint of the SFTP host.",
        detail: "In hexadecimal digits, computed with repo-sftp-host-key-hash-type.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_HOST_KEY_CHECK_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-sftp-host-key-check-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("strict"),
        allow: &["accept-new", "fingerprint", "none", "strict"],
        values: &[
            ("strict", "the key must be in a known_hosts file"),
            ("accept-new", "like strict, but add the key of an unknown host"),
            ("fingerprint", "the key must match repo-sftp-host-fingerprint"),
            ("none", "accept any key"),
        ],
        depend: depend("repo-type", &["sftp"]),
        help: HelpGroup::Repository,
        summary: "How the SFTP host's key is checked.",
        detail: "How rbr verifies the identity of the server.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_HOST_KEY_HASH_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-sftp-host-key-hash-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        allow: &["md5", "sha1", "sha256"],
        depend: depend("repo-type", &["sftp"]),
        help: HelpGroup::Repository,
        summary: "Hash type of the SFTP host's fingerprint.",
        detail: "md5, sha1 or sha256.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_HOST_PORT: OptIndexed<i64> = OptionDecl {
        name: "repo-sftp-host-port",
        kind: ValueKind::Integer,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("22"),
        range: Range::Fixed("1", "65535"),
        depend: depend("repo-type", &["sftp"]),
        help: HelpGroup::Repository,
        summary: "Port of the SFTP host.",
        detail: "The port of the SSH server.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_HOST_USER: OptIndexed<String> = OptionDecl {
        name: "repo-sftp-host-user",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-type", &["sftp"]),
        help: HelpGroup::Repository,
        summary: "User on the SFTP host.",
        detail: "Must own the repository.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_KNOWN_HOST: OptIndexed<Vec<String>> = OptionDecl {
        name: "repo-sftp-known-host",
        kind: ValueKind::List,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-sftp-host-key-check-type", &["accept-new", "strict"]),
        help: HelpGroup::Repository,
        summary: "Files of known SFTP hosts.",
        detail: "Replaces the files of the user and the system. May be repeated.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_PRIVATE_KEY_FILE: OptIndexed<String> = OptionDecl {
        name: "repo-sftp-private-key-file",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-type", &["sftp"]),
        help: HelpGroup::Repository,
        summary: "Private key for the SFTP host.",
        detail: "Path of the file.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_PRIVATE_KEY_PASSPHRASE: OptIndexed<String> = OptionDecl {
        name: "repo-sftp-private-key-passphrase",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-type", &["sftp"]),
        secure: true,
        help: HelpGroup::Repository,
        summary: "Passphrase of the private key.",
        detail: "Required if the key is encrypted.",
        ..OptionDecl::BASE
    };

    REPO_SFTP_PUBLIC_KEY_FILE: OptIndexed<String> = OptionDecl {
        name: "repo-sftp-public-key-file",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-type", &["sftp"]),
        help: HelpGroup::Repository,
        summary: "Public key for the SFTP host.",
        detail: "Optional. If set, it must match the private key.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_CA_FILE: OptIndexed<String> = OptionDecl {
        name: "repo-storage-ca-file",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-type", &["azure", "gcs", "s3"]),
        deprecated: &["repo?-azure-ca-file", "repo-s3-ca-file", "repo?-s3-ca-file"],
        help: HelpGroup::Repository,
        summary: "File of certificate authorities for the store.",
        detail: "Replaces those of the system.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_CA_PATH: OptIndexed<String> = OptionDecl {
        name: "repo-storage-ca-path",
        kind: ValueKind::Path,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-type", &["azure", "gcs", "s3"]),
        deprecated: &["repo?-azure-ca-path", "repo-s3-ca-path", "repo?-s3-ca-path"],
        help: HelpGroup::Repository,
        summary: "Directory of certificate authorities for the store.",
        detail: "Replaces those of the system.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_HOST: OptIndexed<String> = OptionDecl {
        name: "repo-storage-host",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-type", &["azure", "s3"]),
        deprecated: &["repo?-azure-host", "repo-s3-host", "repo?-s3-host"],
        help: HelpGroup::Repository,
        summary: "Host of the store.",
        detail: "Connects to this host instead of the endpoint, e.g. for a proxy or a test.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_PORT: OptIndexed<i64> = OptionDecl {
        name: "repo-storage-port",
        kind: ValueKind::Integer,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("443"),
        range: Range::Fixed("1", "65535"),
        depend: depend("repo-type", &["azure", "s3"]),
        deprecated: &["repo?-azure-port", "repo?-s3-port"],
        help: HelpGroup::Repository,
        summary: "Port of the store.",
        detail: "The port of the store.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_PREFETCH: OptIndexed<i64> = OptionDecl {
        name: "repo-storage-prefetch",
        kind: ValueKind::Integer,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("3"),
        range: Range::Fixed("0", "1024"),
        depend: depend("repo-type", &["azure", "gcs", "s3"]),
        help: HelpGroup::Repository,
        summary: "Number of reads to start ahead.",
        detail: "Each worker of a restore starts this many additional reads of a bundle or file while one is in \
            progress. More reads hide the latency of the store, but need more memory.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_READ_OVER: OptIndexed<u64> = OptionDecl {
        name: "repo-storage-read-over",
        kind: ValueKind::Size,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("64KiB"),
        range: Range::Fixed("0B", "1MiB"),
        depend: depend("repo-type", &["azure", "gcs", "s3"]),
        help: HelpGroup::Repository,
        summary: "Maximum gap to read over.",
        detail: "Two parts of a file whose distance is at most this are read with one request. The bytes between them \
            are discarded.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_TAG: OptIndexed<BTreeMap<String, String>> = OptionDecl {
        name: "repo-storage-tag",
        kind: ValueKind::Hash,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-type", &["azure", "gcs", "s3"]),
        help: HelpGroup::Repository,
        summary: "Tags of stored objects.",
        detail: "key=value. Applies to objects written from then on. May be repeated.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_UPLOAD_CHUNK_SIZE: OptIndexed<u64> = OptionDecl {
        name: "repo-storage-upload-chunk-size",
        kind: ValueKind::Size,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: ByDepend(&[("azure", "4MiB"), ("gcs", "4MiB"), ("s3", "5MiB")]),
        range: Range::ByDepend(&[("azure", "4MiB", "1GiB"), ("gcs", "4MiB", "1GiB"), ("s3", "5MiB", "1GiB")]),
        depend: depend("repo-type", &["azure", "gcs", "s3"]),
        help: HelpGroup::Repository,
        summary: "Size of uploaded parts.",
        detail: "Larger parts allow larger files, but need more memory.",
        ..OptionDecl::BASE
    };

    REPO_STORAGE_VERIFY_TLS: OptIndexed<bool> = OptionDecl {
        name: "repo-storage-verify-tls",
        kind: ValueKind::Boolean,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("y"),
        depend: depend("repo-type", &["azure", "gcs", "s3"]),
        deprecated: &["repo?-azure-verify-tls", "repo-s3-verify-ssl", "repo?-s3-verify-ssl", "repo?-s3-verify-tls"],
        help: HelpGroup::Repository,
        summary: "Check the certificate of the store.",
        detail: "Disable it for tests only.",
        ..OptionDecl::BASE
    };
}
