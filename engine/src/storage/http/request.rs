//! Requests of our own: Google's JSON API, versions of objects, credentials from metadata services.
//!
//! Connections, TLS and counting are those of the other object stores; what is added here is trying again after passing
//! faults, and answers that may not be larger than expected.

use std::borrow::Cow;
use std::future::{Future, ready};
use std::time::{Duration, Instant};

use ::http::{Method, Response, StatusCode};
use bytes::Bytes;
use object_store::RetryConfig;
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse};

use super::service::{Connector, receive};
use super::xml::Element;
use super::{HttpSettings, retry_config};
use crate::{Error, ErrorCode, Result};

/// So much of a server's message is shown.
pub(crate) const MESSAGE_SIZE_MAX_BYTES: usize = 2048;

/// An answer that came to its end.
pub(crate) type Answer = Response<Bytes>;

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

    /// The same failure for another who waited for the same.
    pub(crate) fn again(&self) -> Self {
        match self {
            Failure::Status { status, message } => Failure::Status { status: *status, message: message.clone() },
            Failure::Transport(error) => Failure::Other(Error::new(ErrorCode::Service, error.to_string())),
            Failure::Other(error) => {
                let mut same = Error::new(error.code, error.message.clone());
                same.hints.clone_from(&error.hints);
                Failure::Other(same)
            }
        }
    }

    /// Takes what a refusing server says.
    pub(crate) fn of(answer: &Answer) -> Self {
        Failure::Status { status: answer.status(), message: message(answer.body()) }
    }
}

/// A failure as `object_store` hands it on.
pub(crate) fn store_error(store: &'static str, failure: impl Into<Failure>) -> object_store::Error {
    object_store::Error::Generic { store, source: Box::new(failure.into()) }
}

/// The message in an answer: that of a JSON error, else the text itself.
pub(crate) fn message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = json.as_ref().and_then(|json| json.pointer("/error/message")).and_then(serde_json::Value::as_str);
    let text = said.map_or_else(|| String::from_utf8_lossy(body), Cow::from);
    shown(text.trim()).to_owned()
}

/// As much of a message as is shown.
pub(crate) fn shown(text: &str) -> &str {
    let fits = |end: &usize| *end <= MESSAGE_SIZE_MAX_BYTES;
    let ends = text.char_indices().map(|(start, char)| start + char.len_utf8());
    &text[..ends.take_while(fits).last().unwrap_or(0)]
}

/// Reads an answer to its end.
///
/// # Errors
/// The connection failed, or the answer is larger than any that makes sense.
async fn whole(response: HttpResponse) -> std::result::Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, receive(body, HttpErrorKind::Interrupted).await?))
}

/// Reads an answer as JSON. What it holds is not shown when it is none: it may be a token.
///
/// # Errors
/// [`ErrorCode::JsonFormat`] when it is no JSON.
pub(crate) fn json(answer: &Answer) -> Result<serde_json::Value> {
    serde_json::from_slice(answer.body())
        .map_err(|_| Error::new(ErrorCode::JsonFormat, "the server's answer is not valid JSON"))
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
        let client = Connector::new(settings)?.client();
        Ok(Requests { client, retry: retry_config(settings.io_timeout) })
    }

    /// Sends a request and reads the answer to its end, again and with growing pauses while it meets passing faults; answers
    /// what the server says in the end, whatever its status. Only for requests that may be carried out twice.
    ///
    /// # Errors
    /// The connection failed, or the answer is larger than any that makes sense.
    pub(crate) async fn send(&self, request: &HttpRequest) -> std::result::Result<Answer, Failure> {
        self.retry(request, whole).await
    }

    /// Sends a request as [`Requests::send`] does, whose answer has to be a success and XML.
    ///
    /// # Errors
    /// The connection failed, the server refused, or the answer is no XML.
    pub(crate) async fn document(&self, request: &HttpRequest) -> std::result::Result<Element, Failure> {
        let answer = self.send(request).await?;
        if !answer.status().is_success() {
            return Err(Failure::of(&answer));
        }
        Ok(Element::parse(answer.body())?)
    }

    /// Sends a request as [`Requests::send`] does, but leaves the content of a success to be read as it comes.
    ///
    /// # Errors
    /// The connection failed before there was an answer, or the server refused.
    pub(crate) async fn stream(&self, request: &HttpRequest) -> std::result::Result<HttpResponse, Failure> {
        let response = self.retry(request, |response| ready(Ok(response))).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // Where the explanation can't be read, the status has to do
        let failure = whole(response).await.map(|answer| Failure::of(&answer));
        Err(failure.unwrap_or(Failure::Status { status, message: String::new() }))
    }

    /// Sends a request until its answer can be read.
    async fn retry<T, F: Future<Output = std::result::Result<T, Failure>>>(
        &self,
        request: &HttpRequest,
        read: impl Fn(HttpResponse) -> F,
    ) -> std::result::Result<T, Failure> {
        let mut pauses = self.pauses();
        loop {
            let (result, is_passing) = match self.client.execute(request.clone()).await {
                Ok(response) => {
                    let is_passing = is_passing(response.status());
                    let result = read(response).await;
                    // Of use is only an answer that came to its end
                    let is_broken = matches!(&result, Err(Failure::Transport(error)) if may_pass(error));
                    (result, is_passing || is_broken)
                }
                Err(error) => {
                    let is_passing = may_pass(&error);
                    (Err(error.into()), is_passing)
                }
            };
            if !is_passing || !pauses.wait().await {
                return result;
            }
        }
    }

    /// The pauses between tries of something.
    pub(crate) fn pauses(&self) -> Pauses<'_> {
        Pauses { retry: &self.retry, begun: Instant::now(), count: 0, next: self.retry.backoff.init_backoff }
    }
}

/// Growing pauses between tries, which end when it is time to give up.
pub(crate) struct Pauses<'a> {
    retry: &'a RetryConfig,
    begun: Instant,
    count: usize,
    next: Duration,
}

impl Pauses<'_> {
    /// Waits before another try; `false` when there should be none.
    pub(crate) async fn wait(&mut self) -> bool {
        if self.count >= self.retry.max_retries || self.begun.elapsed() > self.retry.retry_timeout {
            return false;
        }
        self.count += 1;
        tokio::time::sleep(self.next).await;
        self.next = self.next.mul_f64(self.retry.backoff.base).min(self.retry.backoff.max_backoff);
        true
    }
}

fn may_pass(error: &HttpError) -> bool {
    error.kind() != HttpErrorKind::Decode
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
}

/// Whether a method's answer of this status is a success.
pub(crate) fn is_done(method: &Method, status: StatusCode) -> bool {
    // What is gone already need not be deleted
    status.is_success() || (*method == Method::DELETE && status == StatusCode::NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::storage::http::mock::{answer, server};
    use crate::storage::http::service;
    use crate::storage::network;

    fn requests() -> Requests {
        let io_timeout = Duration::from_secs(5);
        let settings = HttpSettings { host: None, verify_tls: true, ca_file: None, ca_path: None, io_timeout };
        Requests::new(&settings).unwrap()
    }

    fn request(url: &str) -> HttpRequest {
        ::http::Request::get(url).body(object_store::client::HttpRequestBody::empty()).unwrap()
    }

    fn send(url: &str) -> std::result::Result<Answer, Failure> {
        network::handle().unwrap().block_on(requests().send(&request(url)))
    }

    #[test]
    fn answer_that_breaks_off_is_asked_for_again() {
        let broken = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\n0123".to_owned();
        let chunked =
            "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n4\r\n0123\r\n".to_owned();
        let (address, requests) = server(vec![broken, chunked, answer("0123456789")]);
        assert_eq!(send(&address).unwrap().body().as_ref(), b"0123456789");
        assert_eq!(requests.iter().map(|request| request.line).collect::<Vec<_>>(), ["GET /"; 3]);
    }

    #[test]
    fn answer_without_end_is_refused_at_once() {
        let (address, requests) = server(vec![answer(&"x".repeat(service::ANSWER_SIZE_MAX_BYTES + 1))]);
        assert!(send(&address).unwrap_err().to_string().contains("answer is larger than 16777216 bytes"));
        assert_eq!(requests.iter().count(), 1);
    }

    #[test]
    fn content_that_nobody_reads_is_not_taken_in() {
        use std::io::{Read, Write};
        use std::sync::atomic::{AtomicUsize, Ordering};
        const SIZE: usize = 1 << 30;
        static SENT: AtomicUsize = AtomicUsize::new(0);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let _ = connection.read(&mut [0; 4096]).unwrap();
            write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").unwrap();
            // Ends with the client's connection
            while let Ok(size) = connection.write(&[0; 64 << 10]) {
                SENT.fetch_add(size, Ordering::Relaxed);
            }
        });
        let content = network::handle().unwrap().block_on(async {
            let mut content = requests().stream(&request(&url)).await.unwrap().into_body().bytes_stream();
            content.next().await.unwrap().unwrap();
            content
        });
        // What the system keeps for a connection is full before long
        let mut before = 0;
        while SENT.load(Ordering::Relaxed) != before {
            before = SENT.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(before < SIZE / 4, "{before}");
        drop(content);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        // Two bytes each after an odd number
        let long = format!("x{}", "\u{e4}".repeat(MESSAGE_SIZE_MAX_BYTES));
        let cut = &long[..MESSAGE_SIZE_MAX_BYTES - 1];
        let json = format!("{{\"error\":{{\"message\":\"{long}\"}}}}");
        for body in [&long, &json] {
            assert_eq!(message(body.as_bytes()), cut);
        }
        assert_eq!(message(b" refused\n"), "refused");
    }

    #[test]
    fn no_request_goes_through_the_proxy_of_the_environment() {
        const NAME: &str = "storage::http::request::tests::no_request_goes_through_the_proxy_of_the_environment";
        if std::env::var_os("http_proxy").is_none() {
            // A process of its own, since the other tests share the environment
            let (proxy, asked) = server(vec![answer("from the proxy")]);
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let child = child.args(["--exact", NAME]).env("http_proxy", &proxy).env("all_proxy", &proxy);
            let output = child.env_remove("no_proxy").env_remove("NO_PROXY").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            assert!(asked.try_recv().is_err());
            return;
        }
        for host in ["127.0.0.1", "localhost"] {
            let (address, _requests) = server(vec![answer("direct")]);
            let body = send(&address.replace("127.0.0.1", host)).unwrap().into_body();
            assert_eq!(body.as_ref(), b"direct", "{host}");
        }
    }
}
