//! Repositories on the servers that tests start.

use std::path::PathBuf;
use std::time::Duration;

use engine::storage::ReadAhead;
use engine::storage::azure::{AzureCredentials, AzureSettings};
use engine::storage::gcs::{GcsCredentials, GcsSettings};
use engine::storage::http::HttpSettings;
use engine::storage::object::UriStyle;
use engine::storage::s3::{S3Credentials, S3Settings};
use engine::storage::sftp::{HashType, HostKeyCheck, SftpSettings};

use crate::env::{Azurite, Gcs, Sshd, Weed, azurite, gcs, weed};

const HOST: &str = "127.0.0.1";

fn http(authority: PathBuf) -> HttpSettings {
    let io_timeout = Duration::from_secs(10);
    HttpSettings { host: None, verify_tls: true, ca_file: Some(authority), ca_path: None, io_timeout }
}

/// At this path of the bucket.
pub fn s3(server: &Weed, repo_path: &str) -> S3Settings {
    let (key, secret) = weed::KEY;
    S3Settings {
        repo_path: repo_path.to_owned(),
        bucket: weed::BUCKET.to_owned(),
        endpoint: HOST.to_owned(),
        port: Some(server.port()),
        region: "us-east-1".to_owned(),
        service: "s3".to_owned(),
        credentials: S3Credentials::Shared { key: key.into(), secret: secret.into(), token: None },
        uri_style: UriStyle::Path,
        kms_key_id: None,
        sse_customer_key: None,
        requester_pays: false,
        tags: Vec::new(),
        part_size_bytes: 5 << 20,
        target_time: None,
        http: http(server.file("tls/ca.crt")),
        read_ahead: ReadAhead::NEAR,
    }
}

/// At this path of the container.
pub fn azure(server: &Azurite, repo_path: &str) -> AzureSettings {
    let (account, key) = azurite::ACCOUNT;
    AzureSettings {
        repo_path: repo_path.to_owned(),
        account: account.to_owned(),
        container: azurite::CONTAINER.to_owned(),
        endpoint: HOST.to_owned(),
        port: Some(server.proxy.port()),
        uri_style: UriStyle::Path,
        credentials: AzureCredentials::Shared(key.into()),
        tags: Vec::new(),
        part_size_bytes: 4 << 20,
        target_time: None,
        http: http(server.file("tls/ca.crt")),
        read_ahead: ReadAhead::NEAR,
    }
}

/// At this path of the bucket.
pub fn gcs(server: &Gcs, repo_path: &str) -> GcsSettings {
    GcsSettings {
        repo_path: repo_path.to_owned(),
        bucket: gcs::BUCKET.to_owned(),
        endpoint: format!("{HOST}:{}", server.proxy.port()),
        credentials: GcsCredentials::Token("Bearer secret-token".into()),
        user_project: None,
        tags: Vec::new(),
        part_size_bytes: 4 << 20,
        target_time: None,
        http: http(server.file("tls/ca.crt")),
        read_ahead: ReadAhead::NEAR,
    }
}

/// A repository in a folder of a [usual](Sshd::start_usual) server that is reached through `port`.
pub fn sftp(server: &Sshd, folder: &str, port: u16) -> SftpSettings {
    SftpSettings {
        repo_path: server.space.text(folder),
        host: HOST.to_owned(),
        port,
        user: server.space.user().name.clone(),
        private_key_file: server.space.text("id-ed25519"),
        private_key_passphrase: None,
        public_key_file: None,
        host_key_hash: HashType::Sha256,
        host_key_check: HostKeyCheck::Fingerprint(server.fingerprint("ed25519", "sha256")),
        known_host_files: Vec::new(),
        home: None,
        io_timeout: Duration::from_secs(20),
    }
}
