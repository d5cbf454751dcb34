//! S3 and servers that speak its protocol.
//!
//! The requests are `object_store`'s; this file says how pgBackRest's `repo-s3-*` options reach it.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::http::{Endpoint, HttpSettings, retry_config};
use super::network::CountingConnector;
use super::object::{ObjectStorage, UriStyle};
use crate::{Error, ErrorCode, Result};

/// Credentials of a process are asked for again this long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// Where the credentials come from (`repo-s3-key-type`).
#[derive(Clone, Debug)]
pub enum S3Credentials {
    /// `shared`: given as options.
    Shared {
        /// `repo-s3-key`.
        key: SecretString,
        /// `repo-s3-key-secret`.
        secret: SecretString,
        /// `repo-s3-token`.
        token: Option<SecretString>,
    },
    /// `auto`: from the metadata service of the machine.
    InstanceMetadata,
    /// `web-id`: a role assumed with a token from a file.
    WebIdentity {
        /// The role's ARN.
        role: String,
        /// The file with the token.
        token_file: String,
        /// `repo-s3-sts-host`.
        sts_host: String,
    },
    /// `pod-id`: from an agent beside the container.
    PodIdentity {
        /// The agent's URL.
        url: String,
        /// The file with the token.
        token_file: String,
    },
    /// `process`: printed by a program in the form of AWS's `credential_process`.
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
    /// `repo-storage-port`, when it was set.
    pub port: Option<u16>,
    /// `repo-s3-region`.
    pub region: String,
    /// `repo-s3-key-type` and what belongs to it.
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
    /// The connection. Its `host` may be an URL, as `repo-storage-host` allows.
    pub http: HttpSettings,
}

/// Opens an S3 repository. Nothing is sent before it is used.
///
/// # Errors
/// An option can't be used: an endpoint that is no address, certificates that can't be read.
pub fn open(settings: &S3Settings) -> Result<ObjectStorage> {
    let (endpoint, http) = settings.http.route(Endpoint::parse(&settings.endpoint)?)?;
    let prefix = match settings.uri_style {
        UriStyle::Host => format!("{}.", settings.bucket),
        UriStyle::Path => String::new(),
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_endpoint(endpoint.url(&prefix, settings.port))
        .with_virtual_hosted_style_request(settings.uri_style == UriStyle::Host)
        .with_client_options(http.client_options()?)
        .with_retry(retry_config(http.io_timeout))
        .with_request_payer(settings.requester_pays)
        .with_http_connector(CountingConnector::new()?);
    builder = match &settings.credentials {
        S3Credentials::Shared { key, secret, token } => {
            let builder =
                builder.with_access_key_id(key.expose_secret()).with_secret_access_key(secret.expose_secret());
            match token {
                Some(token) => builder.with_token(token.expose_secret()),
                None => builder,
            }
        }
        S3Credentials::InstanceMetadata => builder.with_imdsv1_fallback(),
        S3Credentials::WebIdentity { role, token_file, sts_host } => builder
            .with_config(AmazonS3ConfigKey::RoleArn, role)
            .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, token_file)
            .with_config(AmazonS3ConfigKey::StsEndpoint, Endpoint::parse(sts_host)?.url("", None)),
        S3Credentials::PodIdentity { url, token_file } => builder
            .with_config(AmazonS3ConfigKey::ContainerCredentialsFullUri, url)
            .with_config(AmazonS3ConfigKey::ContainerAuthorizationTokenFile, token_file),
        S3Credentials::Process { command } => builder
            .with_credentials(Arc::new(ProcessCredentials { command: command.clone(), current: Mutex::new(None) })),
    };
    if let Some(key) = &settings.kms_key_id {
        builder = builder.with_sse_kms_encryption(key);
    }
    if let Some(key) = &settings.sse_customer_key {
        builder = builder.with_ssec_encryption(key.expose_secret());
    }
    let store = builder.build().map_err(|error| {
        Error::new(ErrorCode::Config, format!("unable to use S3 bucket '{}': {error}", settings.bucket)).cause(error)
    })?;
    ObjectStorage::new(Arc::new(store), &settings.repo_path, settings.part_size_bytes, &settings.tags)
}

/// Credentials that a program prints, kept until shortly before they expire.
struct ProcessCredentials {
    command: Vec<String>,
    current: Mutex<Option<Issued>>,
}

/// Credentials and when to ask for new ones (`None`: never).
struct Issued {
    credential: Arc<AwsCredential>,
    renew_at: Option<SystemTime>,
}

impl std::fmt::Debug for ProcessCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessCredentials").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl CredentialProvider for ProcessCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.current.lock().await;
        if let Some(issued) = &*current
            && issued.renew_at.is_none_or(|at| SystemTime::now() < at)
        {
            return Ok(Arc::clone(&issued.credential));
        }
        let command = self.command.clone();
        let issued = tokio::task::spawn_blocking(move || ask_process(&command))
            .await?
            .map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?;
        let credential = Arc::clone(&issued.credential);
        *current = Some(issued);
        Ok(credential)
    }
}

/// Runs the program and reads its answer. What it printed is never shown: it may hold secrets.
fn ask_process(command: &[String]) -> Result<Issued> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::new(ErrorCode::OptionInvalidValue, "the credential command is empty"));
    };
    let failed = |why: &str| Error::new(ErrorCode::Execute, format!("credential command '{program}' {why}"));
    let output = Command::new(program).args(arguments).output().map_err(|error| {
        Error::from_io(ErrorCode::Execute, format!("unable to execute credential command '{program}'"), error)
    })?;
    if !output.status.success() {
        return Err(failed(&format!("failed with {}", output.status)));
    }
    let json: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("did not print valid JSON"))?;
    let text = |key: &str| json.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    let missing = |key: &str| failed(&format!("did not print '{key}'"));
    let expires: Option<jiff::Timestamp> = match text("Expiration") {
        Some(time) => Some(time.parse().map_err(|_| failed("printed an invalid 'Expiration'"))?),
        None => None,
    };
    Ok(Issued {
        credential: Arc::new(AwsCredential {
            key_id: text("AccessKeyId").ok_or_else(|| missing("AccessKeyId"))?,
            secret_key: text("SecretAccessKey").ok_or_else(|| missing("SecretAccessKey"))?,
            token: text("SessionToken"),
        }),
        renew_at: expires.map(|at| {
            let at = SystemTime::from(at);
            at.checked_sub(RENEW_BEFORE).unwrap_or(at)
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::from_environment;
    use super::*;

    fn ask(output: &str) -> Result<Issued> {
        ask_process(&["/bin/echo".into(), output.into()])
    }

    #[test]
    fn credential_process_answer_is_read() {
        let issued = ask(r#"{"Version":1,"AccessKeyId":"k","SecretAccessKey":"s","SessionToken":"t"}"#).unwrap();
        assert_eq!(issued.credential.key_id, "k");
        assert_eq!(issued.credential.token.as_deref(), Some("t"));
        assert!(issued.renew_at.is_none());
    }

    #[test]
    fn credential_process_without_secret_is_an_error_that_shows_nothing() {
        let error = ask(r#"{"AccessKeyId":"topsecret"}"#).err().unwrap();
        assert_eq!(error.code, ErrorCode::Execute);
        assert!(!error.to_string().contains("topsecret"));
        assert!(ask("not json").is_err());
        assert!(ask_process(&["/bin/false".into()]).is_err());
        assert!(ask_process(&[]).is_err());
    }

    /// The head of the one request that writing a small file sends to a server without TLS.
    fn head_of_write(change: impl FnOnce(&mut S3Settings)) -> String {
        use std::io::{BufRead, BufReader, Write};
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = S3Settings {
            repo_path: "/repo".into(),
            bucket: "bucket".into(),
            endpoint: format!("http://{}", server.local_addr().unwrap()),
            port: None,
            region: "us-east-1".into(),
            credentials: S3Credentials::Shared { key: "k".into(), secret: "s".into(), token: Some("session".into()) },
            uri_style: UriStyle::Path,
            kms_key_id: None,
            sse_customer_key: None,
            requester_pays: false,
            tags: vec![("a b".into(), "c".into())],
            part_size_bytes: 5 << 20,
            http: HttpSettings {
                host: None,
                verify_tls: true,
                ca_file: None,
                ca_path: None,
                io_timeout: std::time::Duration::from_secs(10),
            },
        };
        change(&mut settings);
        let answer = std::thread::spawn(move || {
            let (mut connection, _) = server.accept().unwrap();
            let lines = BufReader::new(connection.try_clone().unwrap()).lines().map(|line| line.unwrap());
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            connection.write_all(b"HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 0\r\n\r\n").unwrap();
            head.join("\n").to_lowercase()
        });
        let storage = open(&settings).unwrap();
        let at = crate::storage::RepoPath::new("file").unwrap();
        crate::storage::put(&storage, &at, b"", crate::storage::WriteOptions::ATOMIC).unwrap();
        answer.join().unwrap()
    }

    #[test]
    fn write_carries_tags_session_token_and_kms_key() {
        let head = head_of_write(|settings| {
            settings.kms_key_id = Some("key-1".into());
            settings.requester_pays = true;
        });
        assert!(head.starts_with("put /bucket/repo/file http/1.1"), "{head}");
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

    /// Runs the conformance suite against a real server, named by the environment as `RBR_TEST_S3_ENDPOINT` and so on.
    #[test]
    fn s3_server_conforms() {
        let Some((env, http)) = from_environment("RBR_TEST_S3") else { return };
        let settings = S3Settings {
            repo_path: format!("/conformance-{}", std::process::id()),
            bucket: env("BUCKET"),
            endpoint: env("ENDPOINT"),
            port: None,
            region: "us-east-1".into(),
            credentials: S3Credentials::Shared { key: env("KEY").into(), secret: env("SECRET").into(), token: None },
            uri_style: UriStyle::Path,
            kms_key_id: None,
            sse_customer_key: None,
            requester_pays: false,
            tags: Vec::new(),
            part_size_bytes: 5 << 20,
            http,
        };
        super::super::object::tests::server_conforms(&open(&settings).unwrap());
    }
}
