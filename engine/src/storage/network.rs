//! The one asynchronous runtime, shared by all object stores and SFTP servers of a process and started when the first is opened.
//!
//! Everything else is straight-line work on threads; only requests on the network are asynchronous, and they are driven
//! here. A local repository never starts it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{Error, ErrorCode, Result, slots};

/// Threads that drive all requests. TLS and copying cost little beside hashing and compression, which have threads of
/// their own.
const NETWORK_THREADS: usize = 2;

/// The largest answer that is received as a whole, which is any but the content of objects. The largest of those are pages of
/// listings: Azure's have 5000 entries of up to 2 KiB.
pub(crate) const ANSWER_SIZE_MAX_BYTES: usize = 16 << 20;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The runtime's handle, starting it if this is the first call.
///
/// # Errors
/// [`ErrorCode::Kernel`] when its threads can't be started.
pub fn handle() -> Result<Handle> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle().clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .thread_name("rbr-network")
        .enable_all()
        .build()
        .map_err(|error| Error::from_io(ErrorCode::Kernel, "unable to start network threads", error))?;
    // Where two threads race, the loser's runtime is dropped here, outside of any asynchronous context
    Ok(RUNTIME.get_or_init(|| runtime).handle().clone())
}

/// Waits for something on the network, without keeping others from computing.
pub(crate) fn wait<R>(runtime: &Handle, request: impl Future<Output = R>) -> R {
    slots::waiting(|| runtime.block_on(request))
}

/// The methods that requests are counted by.
const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "POST", "PUT", SFTP];
/// Requests to SFTP servers, of whatever kind.
const SFTP: &str = "SFTP";

static REQUESTS: [AtomicU64; METHODS.len()] = [const { AtomicU64::new(0) }; METHODS.len()];

/// How many requests this process has sent, by method; retries are counted too. Methods without any are left out.
pub fn request_counts() -> Vec<(&'static str, u64)> {
    let counts = REQUESTS.iter().map(|count| count.load(Ordering::Relaxed));
    METHODS.into_iter().zip(counts).filter(|&(_, count)| count > 0).collect()
}

fn count(method: &str) {
    if let Some(at) = METHODS.iter().position(|known| *known == method) {
        REQUESTS[at].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts one request to an SFTP server.
pub(crate) fn count_sftp_request() {
    count(SFTP);
}

/// Connects as [`ReqwestConnector`] does, counts requests, and tells failures in a way that they are tried again wherever that
/// does no harm. Requests have to be sent on the shared runtime. (`SpawnedReqwestConnector` would see to that, but it takes in
/// the content of an object without end while nobody reads it.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountingConnector;

impl HttpConnector for CountingConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(CountingService(ReqwestConnector::default().connect(options)?)))
    }
}

struct CountingService(HttpClient);

impl fmt::Debug for CountingService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountingService")
    }
}

#[async_trait::async_trait]
impl HttpService for CountingService {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        count(request.method().as_str());
        let (repeatable, streamed) = (is_repeatable(&request), is_streamed(&request));
        let answer = match self.0.execute(request).await {
            // The caller repeats such a request only if it is told that the server never got it
            Err(error) if repeatable => return Err(HttpError::new(HttpErrorKind::Request, error)),
            answer => answer?,
        };
        if streamed { Ok(answer) } else { whole(answer, repeatable).await }
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

/// Receives the whole body, so that one that breaks off counts as a failed request, which is tried again.
async fn whole(answer: HttpResponse, repeatable: bool) -> std::result::Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let broken = if repeatable { HttpErrorKind::Request } else { HttpErrorKind::Interrupted };
    let body = receive(body, broken).await?;
    Ok(HttpResponse::from_parts(parts, body.into()))
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
            let error = std::io::Error::other(format!("answer is larger than {ANSWER_SIZE_MAX_BYTES} bytes"));
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
