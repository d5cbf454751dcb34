//! Tokens that prove who sends a request to Google Cloud Storage (`repo-gcs-key-type`).

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::{HeaderValue, header};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use object_store::client::{HttpRequest, HttpRequestBody};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::GcsCredentials;
use crate::storage::http::refusal::Refusal;
use crate::storage::http::request::{Failure, Requests, json};
use crate::storage::http::token::{Kept, Token, missing, validity};
use crate::{Error, ErrorCode, Result};

/// Where an instance in Google's cloud gets the token of its service account.
const METADATA_URL: &str = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";
/// What the token of a service account may be used for.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// How long a signed request for a token is valid.
const CLAIM_SECONDS: u64 = 3600;
/// A key file larger than this is not one.
const KEY_FILE_SIZE_MAX_BYTES: u64 = 1 << 20;

/// Where tokens come from.
enum Source {
    /// The value of the header, as it was given.
    Fixed(HeaderValue),
    /// A service account's key file, read for every new token: it may have been exchanged.
    Service(String),
    /// A metadata service.
    Metadata(String),
}

/// Gets tokens and keeps each until shortly before it expires.
pub(super) struct Tokens {
    source: Source,
    requests: Arc<Requests>,
    io_timeout: Duration,
    current: Kept<HeaderValue>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// # Errors
    /// The key file can't be used, or the token can't be sent.
    pub(super) fn new(credentials: &GcsCredentials, requests: Arc<Requests>, io_timeout: Duration) -> Result<Self> {
        let source = match credentials {
            GcsCredentials::Service { file } => {
                ServiceKey::load(file)?;
                Source::Service(file.clone())
            }
            GcsCredentials::Token(token) => Source::Fixed(secret_header(token.expose_secret())?),
            GcsCredentials::Auto { metadata_url } => {
                Source::Metadata(metadata_url.clone().unwrap_or_else(|| METADATA_URL.to_owned()))
            }
        };
        Ok(Tokens { source, requests, io_timeout, current: Kept::new() })
    }

    /// The value of the header `authorization`.
    ///
    /// # Errors
    /// No token was to be had.
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
            Source::Metadata(url) => ::http::Request::get(url)
                .header("metadata-flavor", "Google")
                .body(HttpRequestBody::empty())
                .map_err(|error| Error::new(ErrorCode::Format, format!("invalid URL '{url}'")).cause(error))?,
            Source::Fixed(_) => return Err(Error::new(ErrorCode::Assert, "a fixed token needs no request").into()),
        };
        let response = self.requests.send(&request).await?;
        let status = response.status();
        match json(&response) {
            Ok(answer) if status.is_success() || answer.get("error").is_some() => Ok(self.read(&answer, now)?),
            Err(error) if status.is_success() => Err(error.into()),
            // What else a server says may hold anything
            _ => Err(Refusal::silent(&response).into()),
        }
    }

    /// Takes the token out of an answer, which is never shown.
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

/// What a service account's key file says.
struct ServiceKey {
    email: String,
    token_uri: String,
    private_key: SecretString,
}

impl ServiceKey {
    fn load(path: &str) -> Result<Self> {
        let failed =
            |error| Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{path}' for read"), error);
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = format!("unable to open missing file '{path}' for read");
                return Err(Error::new(ErrorCode::FileMissing, text).cause(error));
            }
            file => file.map_err(failed)?,
        };
        let mut text = Vec::new();
        file.take(KEY_FILE_SIZE_MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
        let json: Value = serde_json::from_slice(&text)
            .map_err(|_| Error::new(ErrorCode::JsonFormat, format!("'{path}' is not valid JSON")))?;
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(ServiceKey {
            token_uri: text("token_uri").ok_or_else(|| missing("uri"))?,
            email: text("client_email").ok_or_else(|| missing("credentials"))?,
            private_key: text("private_key").ok_or_else(|| missing("credentials"))?.into(),
        })
    }

    /// The request for a token: a claim that is signed with the account's key.
    fn request(&self, now: SystemTime) -> Result<HttpRequest> {
        let assertion = self.assertion(now)?;
        let body = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        ::http::Request::post(&self.token_uri)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::CONTENT_LENGTH, body.len())
            .body(HttpRequestBody::from(body))
            .map_err(|error| Error::new(ErrorCode::Format, format!("invalid URL '{}'", self.token_uri)).cause(error))
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
