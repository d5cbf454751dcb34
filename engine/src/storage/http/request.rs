//! Our own requests: Google's JSON API, object versions, credentials from metadata services.
//!
//! Connections, TLS and counting are shared with the other object stores. This module adds retries after temporary
//! failures, and a limit for the size of answers.

use std::future::{Future, ready};
use std::time::Duration;

use ::http::{Response, StatusCode};
use bytes::Bytes;
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse};

use super::failure::is_certificate_refused;
use super::foreign::shown;
use super::refusal::Refusal;
use super::service::{Connector, receive};
use super::xml::Element;
use super::{HttpSettings, backoff};
use crate::system_text;
use crate::work::backoff::{Backoff, Pauses};
use crate::{Error, ErrorCode, Result};

/// An answer that came to its end.
pub(crate) type Answer = Response<Bytes>;

/// Why a request returned no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection failed.
    #[error(transparent)]
    Transport(#[from] HttpError),
    /// The answer is not what was requested, or credentials are missing.
    #[error(transparent)]
    Other(#[from] Error),
}

impl Failure {
    /// Returns whether the server reports that the object does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Failure::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND)
    }

    /// Returns the code of the error: [`ErrorCode::Service`] for a temporary failure, [`ErrorCode::Protocol`] for a
    /// refused request.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Failure::Refused(refusal) if is_passing(refusal.status) => ErrorCode::Service,
            Failure::Refused(_) => ErrorCode::Protocol,
            Failure::Transport(error) => match own_cause(error) {
                Some(own) => own.code,
                None if is_certificate_refused(error) => ErrorCode::Crypto,
                None => ErrorCode::Service,
            },
            Failure::Other(error) => error.code,
        }
    }

    /// Converts the failure to an error of ours, which says what was being done.
    pub(crate) fn error(self, doing: &str) -> Error {
        let own = match &self {
            Failure::Other(own) => Some(own),
            Failure::Transport(error) => own_cause(error),
            Failure::Refused(_) => None,
        };
        let mut error = match own {
            Some(own) => Error::new(own.code, format!("{doing}: {}", own.message)),
            None => Error::new(self.code(), format!("{doing}: {}", causes_text(&self))),
        };
        error.hints.extend(own.into_iter().flat_map(|own| own.hints.iter().cloned()));
        error.cause(self)
    }

    /// The same failure for another who waited for the same.
    pub(crate) fn again(&self) -> Self {
        let error = match self {
            Failure::Refused(refusal) => return refusal.clone().into(),
            Failure::Transport(error) => match own_cause(error) {
                Some(own) => own,
                None => return Error::new(self.code(), causes_text(self)).into(),
            },
            Failure::Other(error) => error,
        };
        let mut same = Error::new(error.code, error.message.clone());
        same.hints.clone_from(&error.hints);
        same.into()
    }

    /// Creates a failure from a server's refusal.
    pub(crate) fn of(answer: &Answer) -> Self {
        Refusal::of(answer, answer.body()).into()
    }
}

/// An error of ours that is the cause of another.
pub(crate) fn own_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    std::iter::successors(Some(error), |cause| cause.source()).find_map(|cause| match cause.downcast_ref() {
        Some(Failure::Other(own)) => Some(own),
        _ => cause.downcast_ref::<Error>(),
    })
}

/// Returns an error and its causes in one line, without repetitions.
pub(crate) fn causes_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = shown(&system_text(error)).to_owned();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let more = system_text(cause);
        let more = shown(&more);
        if !text.contains(more) {
            text = format!("{text}: {more}");
        }
    }
    text
}

/// A failure as `object_store` hands it on.
pub(crate) fn store_error(store: &'static str, failure: impl Into<Failure>) -> object_store::Error {
    object_store::Error::Generic { store, source: Box::new(failure.into()) }
}

/// Reads an answer to its end.
///
/// # Errors
/// The connection failed, or the answer is larger than any valid one.
async fn whole(response: HttpResponse) -> std::result::Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, receive(body, HttpErrorKind::Interrupted).await?))
}

/// Parses an answer as JSON. Invalid content is not shown, because it may be a token.
///
/// # Errors
/// [`ErrorCode::JsonFormat`] if it is not JSON.
pub(crate) fn json(answer: &Answer) -> Result<serde_json::Value> {
    serde_json::from_slice(answer.body())
        .map_err(|_| Error::new(ErrorCode::JsonFormat, "the server's answer is not valid JSON"))
}

/// Sends requests, with retries.
#[derive(Debug)]
pub(crate) struct Requests {
    client: HttpClient,
    backoff: Backoff,
}

impl Requests {
    /// Creates a client with the connection's settings. Nothing is sent yet.
    ///
    /// # Errors
    /// Certificates can't be read, or the network threads can't be started.
    pub(crate) fn new(settings: &HttpSettings) -> Result<Self> {
        Ok(Self::over(&Connector::new(settings)?))
    }

    /// Creates a client that shares the connections of another.
    pub(crate) fn over(connector: &Connector) -> Self {
        Self::by(connector.client(), connector.io_timeout())
    }

    /// Sends requests with a client.
    pub(crate) fn by(client: HttpClient, io_timeout: Duration) -> Self {
        Requests { client, backoff: backoff(io_timeout) }
    }

    /// Sends a request and reads the answer to its end. Retries temporary failures with growing pauses. Returns the
    /// server's last answer, whatever its status. Use it only for requests that may be executed twice.
    ///
    /// # Errors
    /// The connection failed, or the answer is larger than any valid one.
    pub(crate) async fn send(&self, request: &HttpRequest) -> std::result::Result<Answer, Failure> {
        self.retry(request, whole).await
    }

    /// Sends a request like [`Requests::send`]. The answer has to be a success and XML.
    ///
    /// # Errors
    /// The connection failed, the server refused, or the answer is not XML.
    pub(crate) async fn document(&self, request: &HttpRequest) -> std::result::Result<Element, Failure> {
        let answer = self.send(request).await?;
        if !answer.status().is_success() {
            return Err(Failure::of(&answer));
        }
        let document = Element::parse(answer.body())?;
        // A success that is none
        if document.name == "Error" { Err(Failure::of(&answer)) } else { Ok(document) }
    }

    /// Sends a request like [`Requests::send`], but leaves the content of a success to be read as it arrives.
    ///
    /// # Errors
    /// The connection failed before there was an answer, or the server refused.
    pub(crate) async fn stream(&self, request: &HttpRequest) -> std::result::Result<HttpResponse, Failure> {
        let response = self.retry(request, |response| ready(Ok(response))).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        // If the explanation can't be read, the status has to suffice
        let silent = Refusal::silent(&response);
        Err(whole(response).await.map_or(silent.into(), |answer| Failure::of(&answer)))
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
                    // Only a complete answer is usable
                    let is_broken = matches!(&result, Err(Failure::Transport(error)) if may_pass(error));
                    (result, is_passing || is_broken)
                }
                Err(error) => {
                    let is_passing = may_pass(&error);
                    (Err(error.into()), is_passing)
                }
            };
            if !is_passing || !pauses.wait_async().await {
                return result;
            }
        }
    }

    /// The pauses between tries of something.
    pub(crate) fn pauses(&self) -> Pauses {
        self.backoff.start()
    }
}

fn may_pass(error: &HttpError) -> bool {
    error.kind() != HttpErrorKind::Decode
}

pub(crate) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
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
        // The system's buffer of a connection is soon full
        let mut before = 0;
        while SENT.load(Ordering::Relaxed) != before {
            before = SENT.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(before < SIZE / 4, "{before}");
        drop(content);
    }

    #[test]
    fn redirect_is_not_followed_and_not_tried_again() {
        let (other, asked) = server(vec![answer("other")]);
        for status in
            ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
        {
            let redirect = crate::storage::http::mock::answer_with(status, &format!("location: {other}/x\r\n"), "");
            let (address, requests) = server(vec![redirect]);
            let failure = send(&address).unwrap_err();
            assert_eq!(failure.code(), ErrorCode::Protocol);
            let error = failure.error("unable to ask").to_string();
            assert!(
                error.contains(&status[..3]) && error.contains("the server leads to 'http://127.0.0.1'"),
                "{error}"
            );
            assert_eq!(requests.iter().count(), 1, "{status}");
        }
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn no_request_goes_through_the_proxy_of_the_environment() {
        const NAME: &str = "storage::http::request::tests::no_request_goes_through_the_proxy_of_the_environment";
        if std::env::var_os("http_proxy").is_none() {
            // A separate process, because the other tests share the environment
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
