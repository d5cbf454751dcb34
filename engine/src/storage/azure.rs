//! Azure Blob Storage.
//!
//! `object_store` sends most requests. This file maps pgBackRest's `repo-azure-*` options to it. The files below
//! contain what it lacks: managed identities (`identity.rs`), checks of answers (`answers.rs`), and listings, also of
//! object versions (`list.rs`).

mod answers;
mod identity;
pub(crate) mod list;

use std::sync::Arc;

use base64::DecodeError;
use base64::prelude::{BASE64_STANDARD, Engine};
use object_store::StaticCredentialProvider;
use object_store::azure::{AzureAccessKey, AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder, split_sas};
use secrecy::{ExposeSecret, SecretString};

use self::answers::AzureStore;
use self::identity::ManagedIdentity;
use self::list::{AzureList, AzureSigner};
use super::http::checked::CheckedConnector;
use super::http::request::Requests;
use super::http::service::Connector;
use super::http::{Endpoint, HttpSettings, retry_config};
use super::object::{ObjectStorage, UriStyle};
use super::pages::{ListingStore, Objects};
use super::{OpenStorage, OpenedStorage, ReadAhead};
use crate::{Error, ErrorCode, Result};

/// The source of credentials (`repo-azure-key-type`).
#[derive(Clone, Debug)]
pub enum AzureCredentials {
    /// `shared`: the account's key.
    Shared(SecretString),
    /// `sas`: a shared access signature, with or without its leading `?`.
    Sas(SecretString),
    /// `auto`: the host's managed identity.
    ManagedIdentity {
        /// Another metadata service than that of Azure's machines.
        metadata_url: Option<String>,
    },
}

/// An Azure repository's options.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    /// `repo-path`.
    pub repo_path: String,
    /// `repo-azure-account`.
    pub account: String,
    /// `repo-azure-container`.
    pub container: String,
    /// `repo-azure-endpoint`: the service without the account, e.g. `blob.core.windows.net`.
    pub endpoint: String,
    /// `repo-storage-port`, if it is configured.
    pub port: Option<u16>,
    /// `repo-azure-uri-style`: whether the account is in the host or in the path.
    pub uri_style: UriStyle,
    /// `repo-azure-key-type` and `repo-azure-key`.
    pub credentials: AzureCredentials,
    /// `repo-storage-tag`.
    pub tags: Vec<(String, String)>,
    /// `repo-storage-upload-chunk-size`, bytes.
    pub part_size_bytes: usize,
    /// `repo-target-time`, in seconds since the epoch. The repository is then read-only, as of that time.
    pub target_time: Option<i64>,
    /// The connection.
    pub http: HttpSettings,
    /// How to read several ranges of a file: `repo-storage-prefetch` and `repo-storage-read-over`.
    pub read_ahead: ReadAhead,
}

impl OpenStorage for AzureSettings {
    fn open(&self) -> Result<OpenedStorage> {
        Ok(open(self)?.with_read_ahead(self.read_ahead).into())
    }
}

/// Opens an Azure repository. Nothing is sent before it is used.
///
/// # Errors
/// An option can't be used: the endpoint is not an address, certificates can't be read, or a key is not base64.
pub(crate) fn open(settings: &AzureSettings) -> Result<ObjectStorage> {
    // Another host stands for the endpoint altogether
    let http = &settings.http;
    let endpoint = Endpoint::parse(http.host.as_ref().unwrap_or(&settings.endpoint))?;
    let (host, url) = match settings.uri_style {
        UriStyle::Host => (
            format!("{}.{}", settings.account, endpoint.host),
            endpoint.url(&format!("{}.", settings.account), settings.port)?,
        ),
        UriStyle::Path => (endpoint.host.clone(), format!("{}/{}", endpoint.url("", settings.port)?, settings.account)),
    };
    let unusable = |error: object_store::Error| {
        Error::new(ErrorCode::Config, format!("unable to use Azure container '{}': {error}", settings.container))
            .cause(error)
    };
    let fixed = |credential| -> AzureCredentialProvider { Arc::new(StaticCredentialProvider::new(credential)) };
    let credentials = match &settings.credentials {
        AzureCredentials::Shared(key) => fixed(AzureCredential::AccessKey(
            AzureAccessKey::try_new(key.expose_secret()).map_err(|error| unusable(error.into()))?,
        )),
        AzureCredentials::Sas(signature) => {
            fixed(AzureCredential::SASToken(split_sas(signature.expose_secret()).map_err(unusable)?))
        }
        AzureCredentials::ManagedIdentity { metadata_url } => {
            Arc::new(ManagedIdentity::new(&host, metadata_url.as_deref(), http)?)
        }
    };
    let connector = Connector::new(http)?;
    let checked = CheckedConnector {
        inner: connector.clone(),
        store: Arc::new(AzureStore { account: settings.account.clone(), credentials: Arc::clone(&credentials) }),
    };
    let store = MicrosoftAzureBuilder::new()
        .with_account(&settings.account)
        .with_container_name(&settings.container)
        .with_endpoint(url.clone())
        .with_allow_http(true)
        .with_retry(retry_config(http.io_timeout))
        .with_credentials(Arc::clone(&credentials))
        .with_http_connector(checked.clone())
        .build()
        .map_err(unusable)?;
    let url = format!("{url}/{}", settings.container);
    let objects = Arc::new(Objects { url: format!("{url}/"), requests: checked.requests() });
    let signer = AzureSigner { account: settings.account.clone(), credentials };
    let list = Arc::new(AzureList { url, signer, requests: Requests::over(&connector) });
    let store = Arc::new(ListingStore { store: Arc::new(store), list: Arc::clone(&list), objects });
    let storage = ObjectStorage::new(store, &settings.repo_path, settings.part_size_bytes, &settings.tags)?;
    Ok(storage.with_versions(list, settings.target_time).without(|char| char.is_control()))
}

/// Returns what is wrong with an account's key, which has to be base64.
pub fn key_fault(key: &str) -> Option<String> {
    let error = BASE64_STANDARD.decode(key).err()?;
    Some(match error {
        _ if !key.len().is_multiple_of(4) => format!("base64 size {} is not evenly divisible by 4", key.len()),
        DecodeError::InvalidByte(at, _) => format!("base64 invalid character found at position {at}"),
        _ => "base64 last character may only be '=' if second to last is".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::http::mock::{answer, answer_with, server};
    use super::*;
    use crate::storage::{RepoPath, RepoStorage, WriteOptions, put};

    fn settings(endpoint: &str) -> AzureSettings {
        AzureSettings {
            repo_path: "/repo".into(),
            account: "account".into(),
            container: "container".into(),
            endpoint: endpoint.into(),
            port: None,
            uri_style: UriStyle::Path,
            credentials: AzureCredentials::Shared("c2VjcmV0".into()),
            tags: Vec::new(),
            part_size_bytes: 4 << 20,
            target_time: None,
            http: HttpSettings {
                host: None,
                verify_tls: true,
                ca_file: None,
                ca_path: None,
                io_timeout: std::time::Duration::from_secs(10),
            },
            read_ahead: ReadAhead::NEAR,
        }
    }

    fn write(settings: &AzureSettings) -> Result<()> {
        put(&open(settings)?, &RepoPath::new("file")?, b"data", WriteOptions::ATOMIC)
    }

    const CREATED: &str = "HTTP/1.1 201 Created\r\nconnection: close\r\netag: \"e\"\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn managed_identity_is_asked_once_for_a_token_that_is_good_for_the_account() {
        let token = r#"{"access_token":"id-token","expires_in":"3599","token_type":"Bearer"}"#;
        let (metadata, asked) = server(vec![answer(token)]);
        let (address, requests) = server(vec![CREATED.to_owned(), CREATED.to_owned()]);
        let credentials = AzureCredentials::ManagedIdentity { metadata_url: Some(format!("{metadata}/token")) };
        let settings = AzureSettings { credentials, ..settings(&address) };
        let storage = open(&settings).unwrap();
        for _ in 0..2 {
            put(&storage, &RepoPath::new("file").unwrap(), b"data", WriteOptions::ATOMIC).unwrap();
            assert!(requests.recv().unwrap().head.contains("authorization: bearer id-token"));
        }
        let question = asked.recv().unwrap();
        assert_eq!(question.line, "GET /token?api-version=2018-02-01&resource=https%3A%2F%2F127%2E0%2E0%2E1");
        assert!(question.head.contains("metadata: true"), "{}", question.head);
    }

    #[test]
    fn machine_without_identity_is_told_so() {
        let refused = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
        let (metadata, _asked) = server(vec![answer_with("400 Bad Request", "", refused)]);
        let credentials = AzureCredentials::ManagedIdentity { metadata_url: Some(metadata) };
        let error = write(&AzureSettings { credentials, ..settings("http://127.0.0.1:9") }).unwrap_err();
        assert_eq!(error.code, ErrorCode::Protocol);
        let text = error.to_string();
        assert!(
            text.contains("HTTP request failed with 400 (Bad Request)") && text.contains("Identity not found"),
            "{text}"
        );
    }

    #[test]
    fn write_carries_tags_and_goes_to_the_other_host() {
        let (address, requests) = server(vec![CREATED.to_owned()]);
        let mut settings = settings("blob.core.windows.net");
        settings.http.host = Some(address.clone());
        settings.tags = vec![("a b".into(), "c".into())];
        write(&settings).unwrap();
        let request = requests.recv().unwrap();
        assert_eq!(request.line, "PUT /account/container/repo/file");
        assert!(request.head.contains(&format!("host: {}", address.trim_start_matches("http://"))), "{}", request.head);
        let tags = request.head.lines().find(|line| line.starts_with("x-ms-tags: "));
        assert!(tags.is_some_and(|line| line.ends_with("=c")), "{}", request.head);
    }

    #[test]
    fn key_that_is_not_base64_is_said_to_be_so() {
        assert_eq!(key_fault("c2VjcmV0"), None);
        assert_eq!(key_fault("abc").as_deref(), Some("base64 size 3 is not evenly divisible by 4"));
        assert_eq!(key_fault("ab%d").as_deref(), Some("base64 invalid character found at position 2"));
    }

    #[test]
    fn signature_shows_in_no_error() {
        const SIGNATURE: &str = "sv=2021-06-08&sr=c&sig=s3cret%2BSignature%3D";
        let echo =
            format!("HTTP/1.1 403 X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{SIGNATURE}", SIGNATURE.len());
        let cut = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 99\r\n\r\nx".to_owned();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = |path: &str| RepoPath::new(path).unwrap();
        for (answer, name) in [(Some(echo), "echo"), (Some(cut), "cut"), (None, "closed")] {
            let endpoint = match &answer {
                Some(answer) => server(vec![answer.clone(); 200]).0,
                None => format!("http://{free}"),
            };
            let mut settings = settings(&endpoint);
            settings.credentials = AzureCredentials::Sas(SIGNATURE.into());
            settings.http.io_timeout = std::time::Duration::from_millis(1);
            let storage = open(&settings).unwrap();
            // The operations run in parallel because each waits for its last retry
            type Operation<'a> = Box<dyn Fn() -> Result<()> + Send + Sync + 'a>;
            let operations: [Operation<'_>; 7] = [
                Box::new(|| storage.list(&at("x")).map(drop)),
                Box::new(|| storage.info(&at("x")).map(drop)),
                Box::new(|| crate::storage::get(&storage, &at("x"), 10).map(drop)),
                Box::new(|| put(&storage, &at("x"), b"x", WriteOptions::ATOMIC)),
                Box::new(|| put(&storage, &at("x"), &vec![0; 5 << 20], WriteOptions::ATOMIC)),
                Box::new(|| storage.remove_many(&[at("x"), at("y")])),
                Box::new(|| storage.remove(&at("x\u{1}"))),
            ];
            std::thread::scope(|scope| {
                for operation in &operations {
                    scope.spawn(move || {
                        let error = operation().unwrap_err();
                        let text = format!("{error} {error:?}");
                        assert!(!text.contains("s3cret") && !text.contains("Signature"), "{name}: {text}");
                    });
                }
            });
        }
        for bad in ["s3cret", "sig=%FFs3cret", "?s3cret&x=s3cret"] {
            let credentials = AzureCredentials::Sas(bad.into());
            if let Err(error) = open(&AzureSettings { credentials, ..settings("http://localhost") }) {
                assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
            }
        }
    }
}
