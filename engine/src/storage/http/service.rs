//! The client behind all requests to object stores and credential services.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::LOCATION;
use ::http::{HeaderMap, Response, StatusCode, Uri};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use super::HttpSettings;
use super::failure::http_error;
use super::patience::Patience;
use super::refusal::Sent;
use super::stall::{self, BodyProgress, TimedBody, WatchedBody};
use crate::storage::network::count;
use crate::{Error, ErrorCode, Result};

/// The maximum size of an answer that is received as a whole, which is any answer except the content of objects. The
/// largest are pages of listings: Azure's have 5000 entries of up to 2 KiB.
pub(crate) const ANSWER_SIZE_MAX_BYTES: usize = 16 << 20;
/// A larger body is watched while it is sent.
const BODY_SMALL_BYTES: usize = 64 << 10;
/// How much later than a connection attempt a request times out, so that it is known which of them did.
const AFTER_CONNECT: Duration = Duration::from_millis(200);

/// Connects, counts requests, and classifies failures so that they are retried if that is harmless. Requests have to be
/// sent on the shared runtime. (`SpawnedReqwestConnector` would ensure that, but it reads the content of an object
/// without limit while nobody consumes it.)
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    client: reqwest::Client,
    io_timeout: Duration,
    patience: Arc<Patience>,
}

impl Connector {
    /// Creates a connector with the connection's settings.
    ///
    /// # Errors
    /// A certificate file can't be read or contains no certificate.
    pub(crate) fn new(settings: &HttpSettings) -> Result<Self> {
        let io_timeout = settings.io_timeout;
        Ok(Connector { client: settings.client()?, io_timeout, patience: Arc::new(Patience::new(io_timeout)) })
    }

    /// Returns the maximum wait for a connection or for the next bytes of an answer.
    pub(crate) fn io_timeout(&self) -> Duration {
        self.io_timeout
    }

    /// Returns the client that sends requests.
    pub(crate) fn client(&self) -> HttpClient {
        HttpClient::new(self.clone())
    }

    /// Sends a request and waits for the head of its answer.
    async fn execute(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let progress = BodyProgress::begin();
        let (head, body) = request.into_parts();
        let url = head.uri.to_string().parse().map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
        let mut request = reqwest::Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        *request.body_mut() = Some(match body.as_bytes() {
            Some(bytes) if bytes.len() <= BODY_SMALL_BYTES => bytes.clone().into(),
            _ => reqwest::Body::wrap(WatchedBody::new(body, &progress)),
        });
        let answer = tokio::select! {
            biased;
            answer = self.client.execute(request) => answer.map_err(http_error)?,
            () = progress.stalled(self.io_timeout + AFTER_CONNECT) => return Err(stall::timed_out(self.io_timeout)),
        };
        let answer = Response::<reqwest::Body>::from(answer);
        Ok(answer.map(|body| HttpResponseBody::new(TimedBody::new(body, self.io_timeout))))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.client())
    }
}

#[async_trait::async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        self.patience.wait().await;
        count(request.method().as_str());
        let (repeatable, streamed) = (is_repeatable(&request), is_streamed(&request));
        let sent = Sent::of(&request);
        let mut answer = match self.execute(request).await {
            // The caller repeats such a request only if it is told that the server never received it
            Err(error) if repeatable && error.kind() != HttpErrorKind::Decode => {
                return Err(HttpError::new(HttpErrorKind::Request, error));
            }
            answer => answer?,
        };
        self.patience.note(&answer);
        if let Some(error) = led_elsewhere(answer.status(), answer.headers()) {
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        answer.extensions_mut().insert(sent);
        // A server's explanation of a failure is small, or useless
        if streamed && answer.status().is_success() {
            return Ok(answer);
        }
        whole(answer, repeatable).await
    }
}

/// Returns the error for an answer that redirects to another address. Whatever is there, it is not what was requested.
fn led_elsewhere(status: StatusCode, headers: &HeaderMap) -> Option<Error> {
    let location = headers.get(LOCATION);
    // An unfinished upload to GCS has such a status and redirects nowhere
    if !status.is_redirection()
        || status == StatusCode::NOT_MODIFIED
        || (status == StatusCode::PERMANENT_REDIRECT && location.is_none())
    {
        return None;
    }
    let reason = status.canonical_reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
    // The rest of the address may hold a token
    let place = location.and_then(|location| location.to_str().ok()?.parse::<Uri>().ok());
    let place = place.and_then(|place| Some(format!("{}://{}", place.scheme_str()?, place.authority()?.host())));
    let place = place.unwrap_or_else(|| "another address".to_owned());
    let text = format!("HTTP request failed with {}{reason}: the server leads to '{place}'", status.as_u16());
    let region = headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
    let hint = match region {
        Some(region) => format!("the bucket is in the region '{region}'."),
        None => "is the region or the endpoint of the repository wrong, or does a gateway in between ask for a login?"
            .to_owned(),
    };
    Some(Error::new(ErrorCode::Protocol, text).hint(hint))
}

/// Returns whether a request may be repeated if its answer was lost. `object_store` does not repeat removals, which are
/// harmless to repeat.
fn is_repeatable(request: &HttpRequest) -> bool {
    match request.method().as_str() {
        "DELETE" => true,
        // Removals of many objects, as named by S3 and Azure
        "POST" => request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|part| part.starts_with("delete") || part == "comp=batch")),
        _ => false,
    }
}

/// Returns whether the answer is an object's content, which the reader consumes as it arrives and requests again if it
/// breaks off. All other answers are small and usable only as a whole.
fn is_streamed(request: &HttpRequest) -> bool {
    let lists = |query: &str| {
        let mut keys = query.split('&').map(|part| part.split('=').next().unwrap_or(part));
        keys.any(|key| matches!(key, "list-type" | "comp" | "prefix" | "versions" | "uploads"))
    };
    request.method().as_str() == "GET" && !request.uri().query().is_some_and(lists)
}

/// Receives the whole body, so that one that breaks off counts as a failed request, which is retried.
async fn whole(answer: HttpResponse, repeatable: bool) -> std::result::Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let broken = if repeatable { HttpErrorKind::Request } else { HttpErrorKind::Interrupted };
    Ok(Response::from_parts(parts, receive(body, broken).await?.into()))
}

/// Receives a body to its end.
///
/// # Errors
/// An error of the kind `broken` if the connection breaks off; [`HttpErrorKind::Decode`] if the body is larger than any
/// valid answer, which a retry would not change.
pub(crate) async fn receive(body: HttpResponseBody, broken: HttpErrorKind) -> std::result::Result<Bytes, HttpError> {
    let mut stream = body.bytes_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| HttpError::new(broken, error))?;
        if bytes.len() + chunk.len() > ANSWER_SIZE_MAX_BYTES {
            let error = io::Error::other(format!("answer is larger than {ANSWER_SIZE_MAX_BYTES} bytes"));
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str) -> HttpRequest {
        let mut request = HttpRequest::new(object_store::client::HttpRequestBody::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = uri.parse().unwrap();
        request
    }

    #[test]
    fn answer_that_leads_elsewhere_is_an_error_that_names_the_host() {
        let headers = |location: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.extend(location.map(|location| (LOCATION, location.parse().unwrap())));
            headers
        };
        let error = |status, location| {
            led_elsewhere(StatusCode::from_u16(status).unwrap(), &headers(location)).map(|error| error.message)
        };
        for status in [301, 302, 303, 307, 308] {
            let text = error(status, Some("http://other.example.com:81/x?sig=secret")).unwrap();
            assert!(text.contains(&format!("failed with {status} (")), "{text}");
            assert!(text.ends_with("): the server leads to 'http://other.example.com'"), "{text}");
        }
        for location in [None, Some("/login")] {
            assert!(error(301, location).unwrap().ends_with("the server leads to 'another address'"));
        }
        for (status, location) in [(200, Some("http://other")), (304, None), (308, None), (404, Some("http://other"))] {
            assert_eq!(error(status, location), None, "{status}");
        }
        let mut moved = headers(None);
        moved.insert("x-amz-bucket-region", "eu-west-1".parse().unwrap());
        let error = led_elsewhere(StatusCode::MOVED_PERMANENTLY, &moved).unwrap();
        assert!(error.to_string().ends_with("HINT: the bucket is in the region 'eu-west-1'."), "{error}");
    }

    #[test]
    fn removals_are_repeated_and_only_content_is_streamed() {
        for (method, uri, repeatable, streamed) in [
            ("GET", "https://s/b/key", false, true),
            ("GET", "https://s/b/key?versionId=1", false, true),
            ("GET", "https://s/b?list-type=2&prefix=x", false, false),
            ("GET", "https://s/c?restype=container&comp=list", false, false),
            ("PUT", "https://s/b/key", false, false),
            ("POST", "https://s/b/key?uploads=", false, false),
            ("POST", "https://s/b?delete", true, false),
            ("POST", "https://s/c?restype=container&comp=batch", true, false),
            ("DELETE", "https://s/b/key?uploadId=1", true, false),
        ] {
            let request = request(method, uri);
            assert_eq!((is_repeatable(&request), is_streamed(&request)), (repeatable, streamed), "{method} {uri}");
        }
    }
}
