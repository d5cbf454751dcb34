//! Credentials of requests: the configured keys, or temporary keys that are renewed shortly before they expire.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::{CredentialProvider, StaticCredentialProvider};
use percent_encoding::utf8_percent_encode;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{S3Credentials, S3Settings};
use crate::storage::http::request::{Failure, Requests};
use crate::storage::http::token::{Kept, Token, TokenValidity};
use crate::storage::http::xml::Element;
use crate::storage::http::{Endpoint, HttpSettings, URL_ENCODED};
use crate::work::backoff::{Backoff, Growth};
use crate::{CancelToken, Error, ErrorCode, Result};

/// Credentials are requested again this long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// Credentials with a shorter life are used at least this long, unless they expire before.
const USE_AT_LEAST: Duration = Duration::from_secs(10);
/// The maximum size of a credential command's output.
const PRINTED_SIZE_MAX_BYTES: u64 = 1 << 20;
/// How often to check whether the command has ended.
const PROCESS_PAUSE: Duration = Duration::from_millis(10);
/// The metadata service of a machine.
const INSTANCE_URL: &str = "http://169.254.169.254";
const INSTANCE_ROLES: &str = "latest/meta-data/iam/security-credentials";
const INSTANCE_TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const INSTANCE_TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
/// The name under which pgBackRest assumes roles. Policies may require it.
const SESSION_NAME: &str = "pgBackRest";

/// Returns the source of credentials.
///
/// # Errors
/// An option can't be used.
pub(super) fn provider(settings: &S3Settings) -> Result<AwsCredentialProvider> {
    // Credential services are not behind the storage's other host, and their certificates are always checked
    let requests = || Requests::new(&HttpSettings { host: None, verify_tls: true, ..settings.http.clone() });
    let source = match &settings.credentials {
        S3Credentials::Shared { key, secret, token } => {
            return Ok(Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: key.expose_secret().to_owned(),
                secret_key: secret.expose_secret().to_owned(),
                token: token.as_ref().map(|token| token.expose_secret().to_owned()),
            })));
        }
        S3Credentials::InstanceMetadata { role } => Source::Instance {
            url: INSTANCE_URL.to_owned(),
            role: OnceCell::new_with(role.clone()),
            token_ttl: settings.http.io_timeout * 3,
            requests: requests()?,
        },
        S3Credentials::WebIdentity { role, token_file, sts_host } => Source::WebIdentity {
            url: Endpoint::parse(sts_host)?.url("", None)?,
            role: role.clone(),
            token_file: token_file.clone(),
            requests: requests()?,
        },
        S3Credentials::PodIdentity { url, token_file } => {
            Source::PodIdentity { url: url.clone(), token_file: token_file.clone(), requests: requests()? }
        }
        S3Credentials::Process { command } => {
            Source::Process { command: command.clone(), limit: settings.http.io_timeout }
        }
    };
    Ok(Arc::new(Temporary { source: Arc::new(source), current: Kept::new() }))
}

/// Credentials that expire.
struct Temporary {
    source: Arc<Source>,
    current: Kept<Arc<AwsCredential>>,
}

/// What a source issues.
type Issued = Token<Arc<AwsCredential>>;

impl std::fmt::Debug for Temporary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Temporary").field("source", &self.source).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Temporary {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.current.get(Source::ask(&self.source)).await.map_err(|failure| {
            let error = match failure {
                Failure::Other(error) => error,
                other => other.error("unable to get temporary credentials"),
            };
            object_store::Error::Generic { store: "S3", source: error.into() }
        })
    }
}

/// The issuer of temporary credentials.
#[derive(Debug)]
enum Source {
    Instance { url: String, role: OnceCell<String>, token_ttl: Duration, requests: Requests },
    WebIdentity { url: String, role: String, token_file: String, requests: Requests },
    PodIdentity { url: String, token_file: String, requests: Requests },
    Process { command: Vec<String>, limit: Duration },
}

type Answer<T> = std::result::Result<T, Failure>;

impl Source {
    async fn ask(self: &Arc<Self>) -> Answer<Issued> {
        match &**self {
            Source::Instance { url, role, token_ttl, requests } => instance(url, role, *token_ttl, requests).await,
            Source::WebIdentity { url, role, token_file, requests } => {
                let token = token_in(token_file)?;
                web_identity(url, role, &token, requests).await
            }
            Source::PodIdentity { url, token_file, requests } => {
                let mut request = request(Method::GET, url)?;
                request.headers_mut().insert(AUTHORIZATION, secret_value(&token_in(token_file)?)?);
                Ok(of_json(&parse_json(&answer(requests, &request).await?)?)?)
            }
            Source::Process { command, limit } => {
                let (command, limit) = (command.clone(), *limit);
                let asked = tokio::task::spawn_blocking(move || ask_process(&command, limit)).await;
                let stopped = |error| Error::new(ErrorCode::Execute, "credential command was abandoned").cause(error);
                Ok(asked.map_err(stopped)??)
            }
        }
    }
}

/// Asks the host's metadata service, with a token of its second version if it issues one.
async fn instance(url: &str, role: &OnceCell<String>, token_ttl: Duration, requests: &Requests) -> Answer<Issued> {
    let mut token_request = request(Method::PUT, &format!("{url}/latest/api/token"))?;
    token_request.headers_mut().insert(INSTANCE_TOKEN_TTL, HeaderValue::from(token_ttl.as_secs()));
    let answered = requests.send(&token_request).await?;
    // A service without tokens may need none; one that does will report it
    let token = answered.status().is_success().then(|| answered.into_body());
    let get = |path: &str| -> Answer<HttpRequest> {
        let mut request = request(Method::GET, &format!("{url}/{path}"))?;
        if let Some(token) = &token {
            request.headers_mut().insert(INSTANCE_TOKEN, secret_value(&String::from_utf8_lossy(token))?);
        }
        Ok(request)
    };
    let role = role
        .get_or_try_init(async || {
            let body = answer(requests, &get(INSTANCE_ROLES)?).await.map_err(|failure| {
                let text = "role to retrieve temporary credentials not found";
                missing(failure, text, "is a valid IAM role associated with this instance?".to_owned())
            })?;
            Answer::Ok(String::from_utf8_lossy(&body).trim().to_owned())
        })
        .await?;
    let path = format!("{INSTANCE_ROLES}/{}", utf8_percent_encode(role, URL_ENCODED));
    let body = answer(requests, &get(&path)?).await.map_err(|failure| {
        let hint = format!("is '{role}' a valid IAM role associated with this instance?");
        missing(failure, &format!("role '{role}' not found"), hint)
    })?;
    let json = parse_json(&body)?;
    match json.get("Code").map(|code| code.as_str().unwrap_or_default()) {
        Some("Success") => Ok(of_json(&json)?),
        code => {
            let code = code.unwrap_or("code field is missing");
            Err(Error::new(ErrorCode::Format, format!("unable to retrieve temporary credentials: {code}")).into())
        }
    }
}

/// Another error for what is not there.
fn missing(failure: Failure, text: &str, hint: String) -> Failure {
    if failure.is_missing() { Error::new(ErrorCode::Protocol, text).hint(hint).into() } else { failure }
}

/// Asks the token service for the role of a web identity.
async fn web_identity(url: &str, role: &str, token: &str, requests: &Requests) -> Answer<Issued> {
    let parameters = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("RoleArn", role),
        ("RoleSessionName", SESSION_NAME),
        ("Version", "2011-06-15"),
        ("WebIdentityToken", token),
    ]
    .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, URL_ENCODED)));
    let request = request(Method::GET, &format!("{url}/?{}", parameters.join("&")))?;
    Ok(of_web_identity(&requests.document(&request).await?)?)
}

/// The credentials in the token service's answer.
pub(crate) fn of_web_identity(root: &Element) -> Result<Issued> {
    let found = root
        .child("AssumeRoleWithWebIdentityResult")
        .and_then(|result| result.child("Credentials"))
        .ok_or_else(|| Error::new(ErrorCode::Format, "the token service's answer contains no credentials"))?;
    let credential = AwsCredential {
        key_id: found.required("AccessKeyId")?.to_owned(),
        secret_key: found.required("SecretAccessKey")?.to_owned(),
        token: Some(found.required("SessionToken")?.to_owned()),
    };
    Ok(Token { value: Arc::new(credential), validity: Some(validity(found.required("Expiration")?)?) })
}

/// Creates an empty request. Errors show neither the URL nor the headers, which may contain tokens.
fn request(method: Method, url: &str) -> Answer<HttpRequest> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = method;
    *request.uri_mut() =
        url.parse().map_err(|_| Error::new(ErrorCode::Format, "the address of the credential service is not valid"))?;
    Ok(request)
}

/// Sends a request and returns the body of a success.
async fn answer(requests: &Requests, request: &HttpRequest) -> Answer<Bytes> {
    let answer = requests.send(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(Failure::of(&answer));
    }
    Ok(answer.into_body())
}

fn secret_value(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text.trim())
        .map_err(|_| Error::new(ErrorCode::Format, "a token has control characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The token in a file, which may change while we run.
fn token_in(file: &str) -> Result<String> {
    let token = std::fs::read_to_string(file).map_err(|error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{file}' for read"), error)
    })?;
    Ok(token.trim().to_owned())
}

fn parse_json(body: &[u8]) -> Result<Value> {
    // Neither the text nor serde's description of it, which may quote it
    serde_json::from_slice(body).map_err(|_| Error::new(ErrorCode::JsonFormat, "the credentials are not valid JSON"))
}

/// Whether credentials may be permanent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Allowed,
    Refused,
}

/// Returns the credentials in an answer, whose session token has this name.
fn issued(json: &Value, token: &str, lasting: Lasting) -> Result<Issued> {
    let text = |key: &str, name: &str| {
        let found = json.get(key).and_then(Value::as_str);
        found.ok_or_else(|| Error::new(ErrorCode::Format, format!("{name} missing")))
    };
    let of_temporary = |key: &str, name: &str| match text(key, name) {
        Err(_) if lasting == Lasting::Allowed => Ok(None),
        found => found.map(Some),
    };
    let credential = AwsCredential {
        key_id: text("AccessKeyId", "access key")?.to_owned(),
        secret_key: text("SecretAccessKey", "secret access key")?.to_owned(),
        token: of_temporary(token, "token")?.map(str::to_owned),
    };
    let validity = of_temporary("Expiration", "expiration")?.map(validity).transpose()?;
    Ok(Token { value: Arc::new(credential), validity })
}

/// Returns the credentials in the answer of a service that never issues permanent ones.
pub(crate) fn of_json(json: &Value) -> Result<Issued> {
    issued(json, "Token", Lasting::Refused)
}

/// Returns how long credentials last that expire at a time.
fn validity(expiration: &str) -> Result<TokenValidity> {
    let expires: jiff::Timestamp = expiration
        .parse()
        .map_err(|_| Error::new(ErrorCode::Format, "the expiration of the credentials is not a time"))?;
    let expires = SystemTime::from(expires);
    let early = expires.checked_sub(RENEW_BEFORE).unwrap_or(expires);
    let renew_at = early.max(expires.min(SystemTime::now() + USE_AT_LEAST));
    Ok(TokenValidity { renew_at, expires_at: expires })
}

/// Runs the program and parses its output. The output is never shown, because it may contain secrets.
fn ask_process(command: &[String], limit: Duration) -> Result<Issued> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::new(ErrorCode::OptionInvalidValue, "the credential command is empty"));
    };
    let failed =
        |error| Error::from_io(ErrorCode::Execute, format!("unable to execute credential command '{program}'"), error);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let (sender, printed) = std::sync::mpsc::sync_channel(1);
    if let Some(stdout) = child.stdout.take() {
        let read = move || {
            let mut printed = Vec::new();
            let read = stdout.take(PRINTED_SIZE_MAX_BYTES).read_to_end(&mut printed);
            // Without a receiver it took too long
            let _ = sender.send(read.map(|_| printed));
        };
        if let Err(error) = std::thread::Builder::new().spawn(read) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(error));
        }
    }
    let end = Instant::now() + limit;
    let once_a_pause =
        Backoff { first: PROCESS_PAUSE, max: PROCESS_PAUSE, growth: Growth::Constant, limit, tries_min: 0 };
    let mut pauses = once_a_pause.start();
    let late = || {
        let text = format!("credential command '{program}' did not end within {} second(s)", limit.as_secs());
        Error::new(ErrorCode::Execute, text)
    };
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if !pauses.wait(&CancelToken::new())? {
            // It may just be ending by itself
            let _ = child.kill();
            let _ = child.wait();
            return Err(late());
        }
    };
    if !status.success() {
        return Err(Error::new(ErrorCode::Execute, format!("credential command '{program}' failed with {status}")));
    }
    // Another process may have its output, too, and not end
    let printed = printed.recv_timeout(end.saturating_duration_since(Instant::now()));
    let printed = printed.map_err(|_| late())?.map_err(failed)?;
    // By definition of such programs, token and expiration are optional
    issued(&parse_json(&printed)?, "SessionToken", Lasting::Allowed)
}

#[cfg(test)]
mod tests;
