//! Tokens that authenticate requests to Google Cloud Storage (`repo-gcs-key-type`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::{HeaderValue, Uri};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use object_store::client::{HttpRequest, HttpRequestBody};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::GcsCredentials;
use super::exchange::{SCOPE, form_request, key_json, token_server};
use super::federation::ExternalAccount;
use crate::storage::http::HttpSettings;
use crate::storage::http::foreign::shown;
use crate::storage::http::refusal::{Refusal, redacted};
use crate::storage::http::request::{Failure, Requests, json};
use crate::storage::http::token::{Kept, Token, missing, validity};
use crate::{Error, ErrorCode, Result};

/// The service from which an instance in Google's cloud gets the token of its service account.
const METADATA_URL: &str = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";
/// How long a signed request for a token is valid, in seconds.
const CLAIM_SECONDS: u64 = 3600;

/// The source of tokens.
enum Source {
    /// The value of the header, as it was given.
    Fixed(HeaderValue),
    /// The key file of a service account, read for every new token because it may have been replaced.
    Service(String),
    /// The credential file of an external account, read for every new token, too.
    External(String),
    /// A metadata service.
    Metadata(String),
}

/// Gets tokens and keeps each until shortly before it expires.
pub(super) struct Tokens {
    source: Source,
    services: Services,
    io_timeout: Duration,
    current: Kept<HeaderValue>,
}

/// Sends requests for tokens. A token service sees secrets that are valid for more than one repository. So its
/// certificate is checked even if the storage's is not (`repo-storage-verify-tls=n`), unless it is the same server.
pub(super) struct Services {
    /// The storage's server as its URL begins.
    pub(super) storage_url: String,
    pub(super) storage: Arc<Requests>,
    pub(super) others: Arc<Requests>,
}

impl Services {
    /// Creates the clients for requests to the storage's server, and to any other.
    ///
    /// # Errors
    /// The connection's settings can't be used.
    pub(super) fn new(storage_url: &str, http: &HttpSettings) -> Result<Self> {
        let storage = Arc::new(Requests::new(http)?);
        let others = if http.verify_tls {
            Arc::clone(&storage)
        } else {
            Arc::new(Requests::new(&HttpSettings { verify_tls: true, ..http.clone() })?)
        };
        Ok(Services { storage_url: storage_url.to_owned(), storage, others })
    }

    /// Returns the client that sends a request.
    pub(super) fn of(&self, request: &HttpRequest) -> &Requests {
        let server = |uri: &Uri| Some((uri.scheme_str()?.to_owned(), uri.authority()?.clone()));
        let storage: Option<Uri> = self.storage_url.parse().ok();
        let is_storage = storage.is_some_and(|storage| server(&storage) == server(request.uri()));
        if is_storage { &self.storage } else { &self.others }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// # Errors
    /// The key file can't be used, or the token can't be sent.
    pub(super) fn new(credentials: &GcsCredentials, services: Services, io_timeout: Duration) -> Result<Self> {
        let source = match credentials {
            GcsCredentials::Service { file } => {
                ServiceKey::load(file)?;
                Source::Service(file.clone())
            }
            GcsCredentials::External { file } => {
                ExternalAccount::load(file)?;
                Source::External(file.clone())
            }
            GcsCredentials::Token(token) => Source::Fixed(secret_header(token.expose_secret())?),
            GcsCredentials::Auto { metadata_url } => {
                Source::Metadata(metadata_url.clone().unwrap_or_else(|| METADATA_URL.to_owned()))
            }
        };
        Ok(Tokens { source, services, io_timeout, current: Kept::new() })
    }

    /// Returns the value of the header `authorization`.
    ///
    /// # Errors
    /// No token is available.
    pub(super) async fn header(&self) -> std::result::Result<HeaderValue, Failure> {
        if let Source::Fixed(header) = &self.source {
            return Ok(header.clone());
        }
        self.current.get(self.ask()).await
    }

    async fn ask(&self) -> std::result::Result<Token<HeaderValue>, Failure> {
        let now = SystemTime::now();
        let request = match &self.source {
            Source::Service(file) => ServiceKey::load(file)?.request(now)?,
            Source::External(file) => ExternalAccount::load(file)?.request()?,
            Source::Metadata(url) => ::http::Request::get(url)
                .header("metadata-flavor", "Google")
                .body(HttpRequestBody::empty())
                .map_err(|error| Error::new(ErrorCode::Format, format!("invalid URL '{url}'")).cause(error))?,
            Source::Fixed(_) => return Err(Error::new(ErrorCode::Assert, "a fixed token needs no request").into()),
        };
        let response = self.services.of(&request).send(&request).await?;
        let status = response.status();
        match json(&response) {
            Ok(answer) if status.is_success() || answer.get("error").is_some() => {
                let read = self.read(&answer, now);
                Ok(read.map_err(|mut error| {
                    error.message = redacted(&response, shown(&error.message));
                    error
                })?)
            }
            Err(error) if status.is_success() => Err(error.into()),
            // Any other answer of a server may contain secrets
            _ => Err(Refusal::silent(&response).into()),
        }
    }

    /// Extracts the token from an answer, which is never shown.
    fn read(&self, answer: &Value, now: SystemTime) -> Result<Token<HeaderValue>> {
        let text = |key: &str| answer.get(key).and_then(Value::as_str);
        if let Some(error) = text("error") {
            let description = text("error_description").unwrap_or_default();
            return Err(Error::new(
                ErrorCode::Protocol,
                format!("unable to get authentication token: [{error}] {description}"),
            ));
        }
        let kind = text("token_type").ok_or_else(|| missing("token type"))?;
        let token = text("access_token").ok_or_else(|| missing("access token"))?;
        Ok(Token {
            value: secret_header(&format!("{kind} {token}"))?,
            validity: Some(validity(answer, now, self.io_timeout)?),
        })
    }
}

/// A header's value that never shows in a log.
fn secret_header(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Error::new(ErrorCode::OptionInvalidValue, "the authentication token holds characters that can't be sent")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The content of a service account's key file.
struct ServiceKey {
    email: String,
    token_uri: String,
    private_key: SecretString,
}

impl ServiceKey {
    fn load(path: &str) -> Result<Self> {
        let json = key_json(path)?;
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        let token_uri = text("token_uri").ok_or_else(|| missing("uri"))?;
        token_server(&token_uri)?;
        Ok(ServiceKey {
            token_uri,
            email: text("client_email").ok_or_else(|| missing("credentials"))?,
            private_key: text("private_key").ok_or_else(|| missing("credentials"))?.into(),
        })
    }

    /// Returns the request for a token: a claim that is signed with the account's key.
    fn request(&self, now: SystemTime) -> Result<HttpRequest> {
        let assertion = self.assertion(now)?;
        let body = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        form_request(&self.token_uri, body)
    }

    /// A JSON web token, see RFC 7523.
    fn assertion(&self, now: SystemTime) -> Result<String> {
        let bad_key = |why: &str| Error::new(ErrorCode::Crypto, format!("unable to read PEM: {why}"));
        let pem = PrivateKeyDer::from_pem_slice(self.private_key.expose_secret().as_bytes())
            .map_err(|error| bad_key(&error.to_string()))?;
        let key = match &pem {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(bad_key("not an RSA key")),
        };
        let key = key.map_err(|error| bad_key(&error.to_string()))?;
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claim = serde_json::json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "exp": now + CLAIM_SECONDS,
            "iat": now,
        });
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let text = format!("{}.{}", encode(br#"{"alg":"RS256","typ":"JWT"}"#), encode(claim.to_string().as_bytes()));
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| Error::new(ErrorCode::Crypto, "unable to sign the request for a token"))?;
        Ok(format!("{text}.{}", encode(&signature)))
    }
}
