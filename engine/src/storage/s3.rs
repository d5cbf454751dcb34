//! S3 and compatible servers.
//!
//! `object_store` sends most requests. This file maps pgBackRest's `repo-s3-*` options to it. The files below contain
//! what it lacks: credentials (`credentials.rs`), signatures (`sign.rs`), checks of answers (`answers.rs`), and
//! listings, also of object versions (`list.rs`).

mod answers;
mod bucket;
pub(crate) mod credentials;
pub(crate) mod list;
mod sign;

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use secrecy::{ExposeSecret, SecretString};

use self::answers::S3Store;
use self::list::S3List;
use self::sign::Signer;
use super::http::checked::CheckedConnector;
use super::http::request::Requests;
use super::http::service::Connector;
use super::http::{Endpoint, HttpSettings, retry_config};
use super::object::{ObjectStorage, UriStyle};
use super::pages::{ListingStore, Objects};
use super::{OpenStorage, OpenedStorage, ReadAhead};
use crate::{Error, ErrorCode, Result};

/// The source of credentials (`repo-s3-key-type`).
#[derive(Clone, Debug)]
pub enum S3Credentials {
    /// `shared`: configured as options.
    Shared {
        /// `repo-s3-key`.
        key: SecretString,
        /// `repo-s3-key-secret`.
        secret: SecretString,
        /// `repo-s3-token`.
        token: Option<SecretString>,
    },
    /// `auto`: the host's metadata service.
    InstanceMetadata {
        /// `repo-s3-role`; detected if it is not configured.
        role: Option<String>,
    },
    /// `web-id`: a role assumed with a token from a file.
    WebIdentity {
        /// The role's ARN.
        role: String,
        /// The file with the token.
        token_file: String,
        /// `repo-s3-sts-host`.
        sts_host: String,
    },
    /// `pod-id`: an agent next to the container.
    PodIdentity {
        /// The agent's URL.
        url: String,
        /// The file with the token.
        token_file: String,
    },
    /// `process`: a program that prints them in the form of AWS's `credential_process`.
    Process {
        /// `repo-s3-process-cmd`: the program and its arguments.
        command: Vec<String>,
    },
}

/// An S3 repository's options.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// `repo-path`.
    pub repo_path: String,
    /// `repo-s3-bucket`.
    pub bucket: String,
    /// `repo-s3-endpoint`.
    pub endpoint: String,
    /// `repo-storage-port`, if it is configured.
    pub port: Option<u16>,
    /// `repo-s3-region`.
    pub region: String,
    /// `repo-s3-service`.
    pub service: String,
    /// `repo-s3-key-type` and the options that belong to it.
    pub credentials: S3Credentials,
    /// `repo-s3-uri-style`.
    pub uri_style: UriStyle,
    /// `repo-s3-kms-key-id`.
    pub kms_key_id: Option<String>,
    /// `repo-s3-sse-customer-key`, in base64.
    pub sse_customer_key: Option<SecretString>,
    /// `repo-s3-requester-pays`.
    pub requester_pays: bool,
    /// `repo-storage-tag`.
    pub tags: Vec<(String, String)>,
    /// `repo-storage-upload-chunk-size`, bytes.
    pub part_size_bytes: usize,
    /// `repo-target-time`, in seconds since the epoch. The repository is then read-only, as of that time.
    pub target_time: Option<i64>,
    /// The connection. Its `host` may be a URL, as in `repo-storage-host`.
    pub http: HttpSettings,
    /// How to read several ranges of a file: `repo-storage-prefetch` and `repo-storage-read-over`.
    pub read_ahead: ReadAhead,
}

impl OpenStorage for S3Settings {
    fn open(&self) -> Result<OpenedStorage> {
        Ok(open(self)?.with_read_ahead(self.read_ahead).into())
    }
}

/// Opens an S3 repository. Nothing is sent before it is used.
///
/// # Errors
/// An option can't be used: the endpoint is not an address, or certificates can't be read.
pub(crate) fn open(settings: &S3Settings) -> Result<ObjectStorage> {
    let route = Route::new(settings)?;
    let signer = Arc::new(Signer {
        credentials: credentials::provider(settings)?,
        region: settings.region.clone(),
        service: settings.service.clone(),
        host: route.host.clone(),
        requester_pays: settings.requester_pays,
    });
    let connector = Connector::new(&route.http)?;
    let checked =
        CheckedConnector { inner: connector.clone(), store: Arc::new(S3Store { signer: Arc::clone(&signer) }) };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_endpoint(&route.url)
        .with_virtual_hosted_style_request(settings.uri_style == UriStyle::Host)
        .with_allow_http(true)
        .with_retry(retry_config(route.http.io_timeout))
        // The store's client signs
        .with_skip_signature(true)
        .with_http_connector(checked.clone());
    if let Some(key) = &settings.kms_key_id {
        builder = builder.with_sse_kms_encryption(key);
    }
    if let Some(key) = &settings.sse_customer_key {
        builder = builder.with_ssec_encryption(key.expose_secret());
    }
    let store = builder.build().map_err(|error| {
        Error::new(ErrorCode::Config, format!("unable to use S3 bucket '{}': {error}", settings.bucket)).cause(error)
    })?;
    let url = route.bucket_url(settings);
    let objects = Arc::new(Objects { url: url.clone(), requests: checked.requests() });
    let list = Arc::new(S3List { url, signer, requests: Requests::over(&connector) });
    let store = Arc::new(ListingStore { store: Arc::new(store), list: Arc::clone(&list), objects });
    let storage = ObjectStorage::new(store, &settings.repo_path, settings.part_size_bytes, &settings.tags)?;
    Ok(storage.with_versions(Arc::<S3List>::clone(&list), settings.target_time).with_bucket(list))
}

/// How requests reach the server.
struct Route {
    /// The server's URL, with the bucket in its host for that style.
    url: String,
    /// The host that requests are addressed to, if it differs from that of the URL.
    host: Option<String>,
    http: HttpSettings,
}

impl Route {
    /// With `repo-storage-host`, the connection goes to that host and its certificate must name it, while the requests
    /// stay addressed to the endpoint.
    fn new(settings: &S3Settings) -> Result<Self> {
        let endpoint = Endpoint::parse(&settings.endpoint)?;
        let prefix = match settings.uri_style {
            UriStyle::Host => format!("{}.", settings.bucket),
            UriStyle::Path => String::new(),
        };
        let mut http = settings.http.clone();
        let (url, host) = match http.host.take() {
            Some(other) => {
                let url = Endpoint::parse(&other)?.url("", settings.port)?;
                (url, Some(format!("{prefix}{}", endpoint.host)))
            }
            None => (endpoint.url(&prefix, settings.port)?, None),
        };
        Ok(Route { url, host, http })
    }

    fn bucket_url(&self, settings: &S3Settings) -> String {
        match settings.uri_style {
            UriStyle::Host => format!("{}/", self.url),
            UriStyle::Path => format!("{}/{}/", self.url, settings.bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::mock::{answer_with, server};
    use super::*;

    /// Returns the single request, with its headers, that writing a small file sends to a server without TLS.
    fn head_of_write(change: impl FnOnce(&mut S3Settings)) -> String {
        let (endpoint, requests) = server(vec![answer_with("200 OK", "etag: \"e\"\r\n", "")]);
        let mut settings = S3Settings {
            repo_path: "/repo".into(),
            bucket: "bucket".into(),
            endpoint,
            port: None,
            region: "us-east-1".into(),
            service: "s3".into(),
            credentials: S3Credentials::Shared { key: "k".into(), secret: "s".into(), token: Some("session".into()) },
            uri_style: UriStyle::Path,
            kms_key_id: None,
            sse_customer_key: None,
            requester_pays: false,
            tags: vec![("a b".into(), "c".into())],
            part_size_bytes: 5 << 20,
            target_time: None,
            http: HttpSettings {
                host: None,
                verify_tls: true,
                ca_file: None,
                ca_path: None,
                io_timeout: std::time::Duration::from_secs(10),
            },
            read_ahead: ReadAhead::NEAR,
        };
        change(&mut settings);
        let storage = open(&settings).unwrap();
        let at = crate::storage::RepoPath::new("file").unwrap();
        crate::storage::put(&storage, &at, b"", crate::storage::WriteOptions::ATOMIC).unwrap();
        let request = requests.recv().unwrap();
        format!("{}\n{}", request.line, request.head)
    }

    #[test]
    fn write_carries_tags_session_token_and_kms_key() {
        let head = head_of_write(|settings| {
            settings.kms_key_id = Some("key-1".into());
            settings.requester_pays = true;
        });
        assert!(head.starts_with("PUT /bucket/repo/file\n"), "{head}");
        for line in [
            "x-amz-security-token: session",
            "x-amz-server-side-encryption: aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id: key-1",
            "x-amz-request-payer: requester",
        ] {
            assert!(head.lines().any(|found| found == line), "{line}\n{head}");
        }
        assert!(head.lines().any(|line| line.starts_with("x-amz-tagging: a") && line.ends_with("=c")), "{head}");
    }

    #[test]
    fn request_to_another_host_is_addressed_to_the_endpoint() {
        for (style, addressed, path) in [
            (UriStyle::Path, "s3.example.com", "/bucket/repo/file"),
            (UriStyle::Host, "bucket.s3.example.com", "/repo/file"),
        ] {
            let head = head_of_write(|settings| {
                let server = std::mem::replace(&mut settings.endpoint, "s3.example.com".into());
                settings.http.host = Some(server);
                settings.uri_style = style;
                settings.service = "s3-outposts".into();
            });
            assert!(head.starts_with(&format!("PUT {path}\n")), "{head}");
            assert!(head.lines().any(|line| line == format!("host: {addressed}")), "{head}");
            assert!(head.contains("/us-east-1/s3-outposts/aws4_request, signedheaders="), "{head}");
            assert!(head.lines().any(|line| line == "x-amz-security-token: session"), "{head}");
        }
    }

    #[test]
    fn write_carries_the_customers_key() {
        let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
        let head = head_of_write(|settings| settings.sse_customer_key = Some(key.into()));
        for line in [
            "x-amz-server-side-encryption-customer-algorithm: aes256".to_owned(),
            format!("x-amz-server-side-encryption-customer-key: {}", key.to_lowercase()),
        ] {
            assert!(head.lines().any(|found| found == line), "{line}\n{head}");
        }
    }
}
