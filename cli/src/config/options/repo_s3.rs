//! Options of repositories in S3.

use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, IndexGroup, OptionDecl, ValueKind, depend};
use crate::config::handle::{OptIndexed, options};
use crate::config::options::STANZA_AND_REPO;

options! {
    REPO_S3_BUCKET: OptIndexed<String> = OptionDecl {
        name: "repo-s3-bucket",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-type", &["s3"]),
        deprecated: &["repo-s3-bucket"],
        help: HelpGroup::Repository,
        summary: "S3 bucket.",
        detail: "The bucket must exist. A name with dots requires path-style addresses or no certificate check.",
        ..OptionDecl::BASE
    };

    REPO_S3_ENDPOINT: OptIndexed<String> = OptionDecl {
        name: "repo-s3-endpoint",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-type", &["s3"]),
        deprecated: &["repo-s3-endpoint"],
        help: HelpGroup::Repository,
        summary: "S3 endpoint.",
        detail: "The host of the service, without the bucket.",
        ..OptionDecl::BASE
    };

    REPO_S3_KEY: OptIndexed<String> = OptionDecl {
        name: "repo-s3-key",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-s3-key-type", &["shared"]),
        deprecated: &["repo-s3-key"],
        secure: true,
        help: HelpGroup::Repository,
        summary: "S3 access key.",
        detail: "The id of the access key.",
        ..OptionDecl::BASE
    };

    REPO_S3_KEY_SECRET: OptIndexed<String> = OptionDecl {
        name: "repo-s3-key-secret",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-s3-key-type", &["shared"]),
        deprecated: &["repo-s3-key-secret"],
        secure: true,
        help: HelpGroup::Repository,
        summary: "S3 secret key.",
        detail: "The secret of the access key.",
        ..OptionDecl::BASE
    };

    REPO_S3_KEY_TYPE: OptIndexed<String> = OptionDecl {
        name: "repo-s3-key-type",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("shared"),
        allow: &["shared", "auto", "web-id", "pod-id", "process"],
        values: &[
            ("shared", "the keys in repo-s3-key and repo-s3-key-secret"),
            ("auto", "temporary keys of the instance that rbr runs on"),
            ("web-id", "temporary keys for a web identity token"),
            ("pod-id", "temporary keys for an EKS pod identity"),
            ("process", "keys that a command prints"),
        ],
        depend: depend("repo-type", &["s3"]),
        help: HelpGroup::Repository,
        summary: "Type of S3 keys.",
        detail: "Where the keys come from.",
        ..OptionDecl::BASE
    };

    REPO_S3_KMS_KEY_ID: OptIndexed<String> = OptionDecl {
        name: "repo-s3-kms-key-id",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-type", &["s3"]),
        help: HelpGroup::Repository,
        summary: "S3 KMS key.",
        detail: "The service encrypts objects with this key.",
        ..OptionDecl::BASE
    };

    REPO_S3_PROCESS_CMD: OptIndexed<Vec<String>> = OptionDecl {
        name: "repo-s3-process-cmd",
        kind: ValueKind::List,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-s3-key-type", &["process"]),
        help: HelpGroup::Repository,
        summary: "Command that prints S3 credentials.",
        detail: "For repo-s3-key-type=process. Repeat the option for the command and each of its arguments.",
        ..OptionDecl::BASE
    };

    REPO_S3_REGION: OptIndexed<String> = OptionDecl {
        name: "repo-s3-region",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        depend: depend("repo-type", &["s3"]),
        deprecated: &["repo-s3-region"],
        help: HelpGroup::Repository,
        summary: "S3 region.",
        detail: "The region of the bucket.",
        ..OptionDecl::BASE
    };

    REPO_S3_REQUESTER_PAYS: OptIndexed<bool> = OptionDecl {
        name: "repo-s3-requester-pays",
        kind: ValueKind::Boolean,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("n"),
        depend: depend("repo-type", &["s3"]),
        help: HelpGroup::Repository,
        summary: "Accept requester-pays charges.",
        detail: "For buckets with requester-pays enabled.",
        ..OptionDecl::BASE
    };

    REPO_S3_ROLE: OptIndexed<String> = OptionDecl {
        name: "repo-s3-role",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-s3-key-type", &["auto"]),
        help: HelpGroup::Repository,
        summary: "S3 role.",
        detail: "The instance role whose credentials are used. Detected by default.",
        ..OptionDecl::BASE
    };

    REPO_S3_SERVICE: OptIndexed<String> = OptionDecl {
        name: "repo-s3-service",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        default: Fixed("s3"),
        depend: depend("repo-type", &["s3"]),
        help: HelpGroup::Repository,
        summary: "S3 service name.",
        detail: "Part of request signatures. Some compatible services use another name.",
        ..OptionDecl::BASE
    };

    REPO_S3_SSE_CUSTOMER_KEY: OptIndexed<String> = OptionDecl {
        name: "repo-s3-sse-customer-key",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-type", &["s3"]),
        secure: true,
        help: HelpGroup::Repository,
        summary: "S3 key for server-side encryption.",
        detail: "The key is sent with each request. The service does not store it.",
        ..OptionDecl::BASE
    };

    REPO_S3_STS_HOST: OptIndexed<String> = OptionDecl {
        name: "repo-s3-sts-host",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("sts.amazonaws.com"),
        depend: depend("repo-s3-key-type", &["web-id"]),
        help: HelpGroup::Repository,
        summary: "S3 token service.",
        detail: "For repo-s3-key-type=web-id.",
        ..OptionDecl::BASE
    };

    REPO_S3_TOKEN: OptIndexed<String> = OptionDecl {
        name: "repo-s3-token",
        kind: ValueKind::String,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        required: false,
        depend: depend("repo-s3-key-type", &["shared"]),
        secure: true,
        help: HelpGroup::Repository,
        summary: "S3 session token.",
        detail: "The session token of temporary keys.",
        ..OptionDecl::BASE
    };

    REPO_S3_URI_STYLE: OptIndexed<String> = OptionDecl {
        name: "repo-s3-uri-style",
        kind: ValueKind::StringId,
        group: Some(IndexGroup::Repo),
        commands: STANZA_AND_REPO,
        default: Fixed("host"),
        allow: &["host", "path"],
        values: &[
            ("host", "the bucket is part of the host name"),
            ("path", "the bucket is the first part of the path"),
        ],
        depend: depend("repo-type", &["s3"]),
        help: HelpGroup::Repository,
        summary: "Style of S3 addresses.",
        detail: "How requests address the bucket.",
        ..OptionDecl::BASE
    };
}
