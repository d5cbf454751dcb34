//! The client behind all requests to object stores and services of credentials.

use std::io;
use std::time::Duration;

use ::http::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use super::HttpSettings;
use super::stall::{self, Progress, TimedBody, WatchedBody};
use crate::Result;
use crate::storage::network::count;

/// The largest answer that is received as a whole, which is any but the content of objects. The largest of those are pages of
/// listings: Azure's have 5000 entries of up to 2 KiB.
pub(crate) const ANSWER_SIZE_MAX_BYTES: usize = 16 << 20;
/// A larger body is watched while it is sent.
const BODY_SMALL_BYTES: usize = 64 << 10;
/// How much later than a connection a request gives up, so that it is known which of them it was.
const AFTER_CONNECT: Duration = Duration::from_millis(200);

/// Connects, counts requests, and tells failures in a way that they are tried again wherever that does no harm. Requests have to
/// be sent on the shared runtime. (`SpawnedReqwestConnector` would see to that, but it takes in the content of an object without
/// end while nobody reads it.)
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    client: reqwest::Client,
    io_timeout: Duration,
}

impl Connector {
    /// A connector with the connection's settings.
    ///
    /// # Errors
    /// A certificate file can't be read or holds no certificate.
    pub(crate) fn new(settings: &HttpSettings) -> Result<Self> {
        Ok(Connector { client: settings.client()?, io_timeout: settings.io_timeout })
    }

    /// What sends requests.
    pub(crate) fn client(&self) -> HttpClient {
        HttpClient::new(self.clone())
    }

    /// Sends a request and waits for the head of its answer.
    async fn execute(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let progress = Progress::begin();
        let (head, body) = request.into_parts();
        let url = head.uri.to_string().parse().map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
        let mut request = reqwest::Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        *request.body_mut() = Some(match body.as_bytes() {
            // Can be sent once more where the server leads to another address
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
        count(request.method().as_str());
        let (repeatable, streamed, pages) = (is_repeatable(&request), is_streamed(&request), is_listing(&request));
        let answer = match self.execute(request).await {
            // The caller repeats such a request only if it is told that the server never got it
            Err(error) if repeatable => return Err(HttpError::new(HttpErrorKind::Request, error)),
            answer => answer?,
        };
        // What a server says of a failure is small, or of no use
        if streamed && answer.status().is_success() {
            return Ok(answer);
        }
        let answer = whole(answer, repeatable).await?;
        let (head, body) = answer.into_parts();
        if pages && head.status.is_success() && is_cut_short(&body) {
            let error = io::Error::other("the listing is not at its end and does not say where it goes on");
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

/// Whether a request may be sent again when its answer was lost, which `object_store` does not know of removals: what is gone
/// stays gone.
fn is_repeatable(request: &HttpRequest) -> bool {
    match request.method().as_str() {
        "DELETE" => true,
        // Removals of many objects, as S3 and Azure name them
        "POST" => request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|part| part.starts_with("delete") || part == "comp=batch")),
        _ => false,
    }
}

/// Whether the answer is an object's content, which the reader takes as it comes and asks for again where it broke off. All
/// other answers are small and of use only as a whole.
fn is_streamed(request: &HttpRequest) -> bool {
    let lists = |query: &str| {
        let mut keys = query.split('&').map(|part| part.split('=').next().unwrap_or(part));
        keys.any(|key| matches!(key, "list-type" | "comp" | "prefix" | "versions" | "uploads"))
    };
    request.method().as_str() == "GET" && !request.uri().query().is_some_and(lists)
}

/// A client's error with its kind, on which it depends what is tried again. (As `object_store` has it for its own client, but for
/// failures of the network that it does not know, such as a way to the server that is gone for a moment: they may pass.)
pub(super) fn http_error(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else {
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        causes.filter_map(kind_of_cause).next().unwrap_or(HttpErrorKind::Unknown)
    };
    // Who tells it names the object
    HttpError::new(kind, error.without_url())
}

fn kind_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<HttpErrorKind> {
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        return if error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted() {
            Some(HttpErrorKind::Request)
        } else {
            error.is_timeout().then_some(HttpErrorKind::Timeout)
        };
    }
    let error = cause.downcast_ref::<io::Error>()?;
    Some(if error.kind() == io::ErrorKind::TimedOut { HttpErrorKind::Timeout } else { HttpErrorKind::Interrupted })
}

/// Whether the answer is a page of a listing of S3.
fn is_listing(request: &HttpRequest) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "list-type=2"))
}

/// Whether a page of a listing has others behind it and does not lead to them, which would pass for the end of the listing.
fn is_cut_short(page: &[u8]) -> bool {
    let page = String::from_utf8_lossy(page);
    let token = page.split_once("<NextContinuationToken>").map_or("", |(_, rest)| rest);
    page.contains("<IsTruncated>true<") && (token.is_empty() || token.starts_with('<'))
}

/// Receives the whole body, so that one that breaks off counts as a failed request, which is tried again.
async fn whole(answer: HttpResponse, repeatable: bool) -> std::result::Result<Response<Bytes>, HttpError> {
    let (parts, body) = answer.into_parts();
    let broken = if repeatable { HttpErrorKind::Request } else { HttpErrorKind::Interrupted };
    Ok(Response::from_parts(parts, receive(body, broken).await?))
}

/// Receives a body to its end.
///
/// # Errors
/// One of the kind `broken` where the connection breaks off; [`HttpErrorKind::Decode`] where there is more of it than of any
/// answer that makes sense, which no further try would change.
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
    fn page_that_is_not_the_last_leads_to_the_next() {
        let page = |truncated, token| format!("<L><IsTruncated>{truncated}</IsTruncated>{token}<Key>a</Key></L>");
        let token = "<NextContinuationToken>x</NextContinuationToken>";
        let empty = "<NextContinuationToken></NextContinuationToken>";
        for (page, cut_short) in [
            (page(true, token), false),
            (page(true, ""), true),
            (page(true, empty), true),
            (page(false, ""), false),
            (page(false, token), false),
            ("<L><Key>a</Key></L>".to_owned(), false),
        ] {
            assert_eq!(is_cut_short(page.as_bytes()), cut_short, "{page}");
        }
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
