//! Requests of our own: Google's JSON API, versions of objects, credentials from metadata services.
//!
//! Connections, TLS and counting are those of the other object stores; what is added here is trying again after passing
//! faults, and answers that may not be larger than expected.

use std::time::Instant;

use ::http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::RetryConfig;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse};

use super::{HttpSettings, retry_config};
use crate::storage::network::CountingConnector;
use crate::{Error, ErrorCode, Result};

/// The largest answer that is read as a whole: listings have pages of a thousand names.
const ANSWER_SIZE_MAX_BYTES: usize = 16 << 20;
/// So much of a server's message is shown.
const MESSAGE_SIZE_MAX_BYTES: usize = 2048;

/// Why a request brought no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server refused.
    #[error("HTTP request failed with {}{}{}", .status.as_u16(), reason(*.status), colon(.message))]
    Status {
        /// The status of the answer.
        status: StatusCode,
        /// What the server said about it.
        message: String,
    },
    /// The connection failed.
    #[error(transparent)]
    Transport(#[from] HttpError),
    /// The answer is not what was asked for, or credentials are missing.
    #[error(transparent)]
    Other(#[from] Error),
}

fn reason(status: StatusCode) -> String {
    status.canonical_reason().map(|reason| format!(" ({reason})")).unwrap_or_default()
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Failure {
    /// Whether the server says that there is no such thing.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Failure::Status { status: StatusCode::NOT_FOUND, .. })
    }

    /// Takes what a refusing server says.
    pub(crate) async fn of(response: HttpResponse) -> Self {
        let status = response.status();
        // Where the explanation can't be read, the status has to do
        let body = whole(response).await.unwrap_or_default();
        Failure::Status { status, message: message(&body) }
    }
}

/// The message in an answer: that of a JSON error, else the text itself.
fn message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = json.as_ref().and_then(|json| json.pointer("/error/message")).and_then(serde_json::Value::as_str);
    let text = match said {
        Some(said) => said.to_owned(),
        None => String::from_utf8_lossy(&body[..body.len().min(MESSAGE_SIZE_MAX_BYTES)]).into_owned(),
    };
    text.trim().to_owned()
}

/// Reads an answer to its end.
///
/// # Errors
/// The connection failed, or the answer is larger than any that makes sense.
pub(crate) async fn whole(response: HttpResponse) -> std::result::Result<Bytes, Failure> {
    let mut stream = response.into_body().bytes_stream();
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if body.len() + chunk.len() > ANSWER_SIZE_MAX_BYTES {
            return Err(Error::new(ErrorCode::Protocol, "the server's answer is too large").into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Reads an answer as JSON. What it holds is not shown when it is none: it may be a token.
///
/// # Errors
/// As [`whole`]; [`ErrorCode::JsonFormat`] when it is no JSON.
pub(crate) async fn json(response: HttpResponse) -> std::result::Result<serde_json::Value, Failure> {
    let body = whole(response).await?;
    serde_json::from_slice(&body)
        .map_err(|_| Error::new(ErrorCode::JsonFormat, "the server's answer is not valid JSON").into())
}

/// Sends requests, each as often as it takes.
#[derive(Debug)]
pub(crate) struct Requests {
    client: HttpClient,
    retry: RetryConfig,
}

impl Requests {
    /// A client with the connection's settings. Nothing is sent yet.
    ///
    /// # Errors
    /// Certificates can't be read, or the network threads can't be started.
    pub(crate) fn new(settings: &HttpSettings) -> Result<Self> {
        let client = CountingConnector::new()?.connect(&settings.client_options()?).map_err(|error| {
            Error::new(ErrorCode::Service, format!("unable to set up requests: {error}")).cause(error)
        })?;
        Ok(Requests { client, retry: retry_config(settings.io_timeout) })
    }

    /// Sends a request, again and with growing pauses while it meets passing faults, and answers what the server says in the
    /// end, whatever its status. Only for requests that may be carried out twice.
    ///
    /// # Errors
    /// The connection failed.
    pub(crate) async fn send(&self, request: &HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let begun = Instant::now();
        let mut pause = self.retry.backoff.init_backoff;
        let mut retries = 0;
        loop {
            let result = self.client.execute(request.clone()).await;
            let is_passing = match &result {
                Ok(response) => is_passing(response.status()),
                Err(error) => error.kind() != HttpErrorKind::Decode,
            };
            if !is_passing || retries >= self.retry.max_retries || begun.elapsed() > self.retry.retry_timeout {
                return result;
            }
            retries += 1;
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(self.retry.backoff.base).min(self.retry.backoff.max_backoff);
        }
    }
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
}

/// Whether a method's answer of this status is a success.
pub(crate) fn is_done(method: &Method, status: StatusCode) -> bool {
    // What is gone already need not be deleted
    status.is_success() || (*method == Method::DELETE && status == StatusCode::NOT_FOUND)
}
