//! A client of a store that checks each answer before it counts.
//!
//! What answers need not be the store: a gateway that asks for a login, a captive portal or a proxy with its own page
//! also says "200 OK". So `object_store` only sees what the store itself can have said. The same applies to "404 Not
//! Found": a load balancer without a connection to the store says it of every object. If an answer alone is not
//! conclusive, another request is sent ([`CheckedService::look_again`]).

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use ::http::response::Parts;
use ::http::{Method, Response, StatusCode, Uri};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http_body::Body;
use md5::{Digest, Md5};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
};
use percent_encoding::percent_decode_str;

use super::foreign::foreign;
use super::refusal::{Refusal, redacted};
use super::request::{Requests, is_passing};
use super::service::{Connector, receive};
use super::xml::Element;
use crate::storage::object::key;
use crate::{Error, ErrorCode, Result};

/// The checksum of a body, in requests and in answers.
pub(crate) const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
/// Errors of stores for a missing bucket or container, which is not a missing object.
const NO_BUCKET: [&str; 4] = ["NoSuchBucket", "NoSuchAccessPoint", "ContainerNotFound", "ContainerBeingDeleted"];
/// A store's error for an unknown upload, or one that no longer exists.
const NO_UPLOAD: &str = "NoSuchUpload";
/// The id that a store gives a request. Intermediaries do not send it.
const REQUEST_IDS: [&str; 2] = ["x-amz-request-id", "x-ms-request-id"];

/// What is specific to a store.
#[async_trait::async_trait]
pub(crate) trait Store: fmt::Debug + Send + Sync + 'static {
    /// Completes a request before it is sent: checksums, signature.
    ///
    /// # Errors
    /// There are no credentials, or the request can't be signed.
    async fn prepare(&self, request: &mut HttpRequest) -> object_store::Result<()>;

    /// Checks a success. The body of an object that is being read comes later and is `None`.
    ///
    /// # Errors
    /// The answer is not the store's, or not to this request.
    fn check(&self, asked: &Asked, head: &Parts, body: Option<&[u8]>) -> std::result::Result<(), Wrong>;

    /// Returns what a request that completes an upload creates; `None` for any other request, and if it is unknown.
    fn completes(&self, _asked: &Asked) -> Option<Completion> {
        None
    }
}

/// What the completion of an upload creates.
#[derive(Debug)]
pub(crate) struct Completion {
    /// The ETag of the object.
    pub(crate) tag: String,
    /// The answer to the request.
    pub(crate) answer: Bytes,
}

/// What is wrong with an answer.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// The store reports a failure in a success, and a retry may succeed.
    Passing,
    /// The answer is useless.
    Final(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Wrong::Final(error)
    }
}

/// The parts of a request on which the answer depends.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

impl Asked {
    pub(crate) fn of(request: &HttpRequest) -> Self {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default();
        let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        Asked {
            method: request.method().clone(),
            query: query.collect(),
            headers: request.headers().clone(),
            body: request.body().as_bytes().cloned(),
        }
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether the answer is an object's content.
    fn is_content(&self) -> bool {
        self.method == Method::GET && self.parameter("comp").is_none() && self.parameter("list-type").is_none()
    }
}

/// The parts of a request's body, all of which are at hand.
pub(crate) async fn body_parts(request: &HttpRequest) -> Vec<Bytes> {
    let (mut body, mut parts) = (request.body().clone(), Vec::new());
    // Reading from memory does not fail
    while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        parts.extend(frame.into_data().ok());
    }
    parts
}

/// Returns the MD5 of a body in the form of the header [`CONTENT_MD5`].
///
/// # Errors
/// None in practice: base64 has no characters that can't be sent.
pub(crate) fn md5_header(parts: &[Bytes]) -> Result<HeaderValue> {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    HeaderValue::from_str(&BASE64_STANDARD.encode(md5.finalize()))
        .map_err(|error| Error::new(ErrorCode::Assert, "a checksum can't be sent").cause(error))
}

/// A header of an answer.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Refuses an HTML page.
pub(crate) fn not_html(headers: &HeaderMap) -> Result<()> {
    let kind = header(headers, CONTENT_TYPE.as_str()).unwrap_or_default().trim_start().to_ascii_lowercase();
    if kind.starts_with("text/html") || kind.starts_with("application/xhtml") {
        return Err(foreign("it is a page of HTML"));
    }
    Ok(())
}

/// Refuses a body if a store sends none.
pub(crate) fn is_empty(body: Option<&[u8]>) -> Result<()> {
    if body.is_some_and(|body| !body.trim_ascii().is_empty()) {
        return Err(foreign("it has content where there should be none"));
    }
    Ok(())
}

/// Refuses a status other than those with which the store confirms the request.
pub(crate) fn is_status(head: &Parts, expected: &[u16]) -> Result<()> {
    if !expected.contains(&head.status.as_u16()) {
        return Err(foreign(&format!("its status is {}", head.status)));
    }
    Ok(())
}

/// Returns whether an answer has the id that a store gives a request.
fn is_numbered(headers: &HeaderMap) -> bool {
    REQUEST_IDS.iter().any(|name| headers.contains_key(*name))
}

/// Checks the head of an answer to a request for an object or its attributes.
///
/// # Errors
/// It is not what a store sends.
pub(crate) fn describes_object(asked: &Asked, head: &Parts) -> Result<()> {
    let is_part = asked.headers.contains_key(RANGE);
    is_status(head, if is_part { &[206, 200] } else { &[200] })?;
    if !is_numbered(&head.headers) {
        not_html(&head.headers)?;
    }
    if header(&head.headers, "etag").is_none() && header(&head.headers, "last-modified").is_none() {
        return Err(foreign("it has neither an ETag nor the time of the last change"));
    }
    Ok(())
}

/// Connects like all object stores, and checks the answers.
#[derive(Debug)]
pub(crate) struct CheckedConnector<S> {
    pub(crate) inner: Connector,
    pub(crate) store: Arc<S>,
}

impl<S> Clone for CheckedConnector<S> {
    fn clone(&self) -> Self {
        CheckedConnector { inner: self.inner.clone(), store: Arc::clone(&self.store) }
    }
}

impl<S: Store> CheckedConnector<S> {
    fn client(&self) -> HttpClient {
        HttpClient::new(CheckedService { client: self.inner.client(), store: Arc::clone(&self.store) })
    }

    /// Returns requests of our own, which are completed and checked like those of `object_store`.
    pub(crate) fn requests(&self) -> Requests {
        Requests::by(self.client(), self.inner.io_timeout())
    }
}

impl<S: Store> HttpConnector for CheckedConnector<S> {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.client())
    }
}

#[derive(Debug)]
struct CheckedService<S> {
    client: HttpClient,
    store: Arc<S>,
}

#[async_trait::async_trait]
impl<S: Store> HttpService for CheckedService<S> {
    async fn call(&self, mut request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        self.prepare(&mut request).await?;
        let (asked, uri) = (Asked::of(&request), request.uri().clone());
        let answer = self.client.execute(request).await?;
        let is_success = answer.status().is_success();
        if is_success && asked.is_content() {
            let (head, body) = answer.into_parts();
            return match self.store.check(&asked, &head, None) {
                Ok(()) => Ok(Response::from_parts(head, body)),
                Err(wrong) => disbelieved(wrong, head, &[]),
            };
        }
        let (head, body) = answer.into_parts();
        // All of it was received before
        let body = receive(body, HttpErrorKind::Interrupted).await?;
        if !is_success {
            return self.look_again(&asked, &uri, head, &body).await;
        }
        match self.store.check(&asked, &head, Some(&body)) {
            Ok(()) => Ok(Response::from_parts(head, body.into())),
            Err(wrong) => disbelieved(wrong, head, &body),
        }
    }
}

impl<S: Store> CheckedService<S> {
    async fn prepare(&self, request: &mut HttpRequest) -> std::result::Result<(), HttpError> {
        if let Some(address) = key::address(request.uri()) {
            *request.uri_mut() = address;
        }
        self.store.prepare(request).await.map_err(|error| HttpError::new(HttpErrorKind::Decode, error))
    }

    /// Returns the result of a failure. If the failure is not conclusive, another request follows.
    async fn look_again(
        &self,
        asked: &Asked,
        uri: &Uri,
        head: Parts,
        body: &[u8],
    ) -> std::result::Result<HttpResponse, HttpError> {
        if head.status == StatusCode::NOT_FOUND {
            let code = code(&head.headers, body);
            if asked.method == Method::HEAD && code.is_none() && !is_numbered(&head.headers) {
                return self.explained(asked, uri).await;
            }
            if code.as_deref() == Some(NO_UPLOAD)
                && let Some(completion) = self.store.completes(asked)
                && self.has_tag(uri, &completion.tag).await
            {
                return Ok(Response::new(completion.answer.into()));
            }
        }
        refused(&asked.method, head, body)
    }

    /// Returns the store's answer for a missing object. The answer to HEAD has no body, so anybody may have sent it;
    /// the answer to GET has one.
    async fn explained(&self, asked: &Asked, uri: &Uri) -> std::result::Result<HttpResponse, HttpError> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = asked.headers.clone();
        request.headers_mut().insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        self.prepare(&mut request).await?;
        let (head, body) = self.client.execute(request).await?.into_parts();
        if head.status.is_success() {
            let error = foreign("it says that there is no such object, and that there is one");
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        refused(&Method::GET, head, &receive(body, HttpErrorKind::Interrupted).await?)
    }

    /// Returns whether there is an object with this ETag: an unknown upload was completed by a request whose answer was
    /// lost.
    async fn has_tag(&self, uri: &Uri, tag: &str) -> bool {
        let Ok(uri) = uri.to_string().split('?').next().unwrap_or_default().parse() else { return false };
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        (*request.method_mut(), *request.uri_mut()) = (Method::HEAD, uri);
        if self.prepare(&mut request).await.is_err() {
            return false;
        }
        let found = self.client.execute(request).await;
        found.is_ok_and(|found| found.status().is_success() && header(found.headers(), "etag") == Some(tag))
    }
}

/// Converts a false success to a failure that is retried, or to the error.
fn disbelieved(wrong: Wrong, mut head: Parts, body: &[u8]) -> std::result::Result<HttpResponse, HttpError> {
    match wrong {
        Wrong::Passing => {
            head.status = StatusCode::SERVICE_UNAVAILABLE;
            let answer = Response::from_parts(head, ());
            let explained = Refusal::of(&answer, body).explanation();
            Ok(answer.map(|()| explained.into()))
        }
        Wrong::Final(mut error) => {
            error.message = redacted(&Response::from_parts(head, ()), &error.message);
            Err(HttpError::new(HttpErrorKind::Decode, error))
        }
    }
}

/// Handles a failure: the caller handles a temporary one and a missing object; any other is final.
fn refused(method: &Method, head: Parts, body: &[u8]) -> std::result::Result<HttpResponse, HttpError> {
    let answer = Response::from_parts(head, ());
    let refusal = Refusal::of(&answer, body);
    if is_passing(answer.status()) {
        return Ok(answer.map(|()| refusal.explanation().into()));
    }
    if answer.status() == StatusCode::NOT_FOUND {
        match code(answer.headers(), body) {
            Some(code) if !NO_BUCKET.contains(&&*code) => return Ok(answer.map(|()| refusal.explanation().into())),
            // One with the store's id
            None if *method == Method::HEAD => return Ok(answer.map(|()| refusal.explanation().into())),
            Some(_) => {}
            None => {
                let error = foreign(&refusal.to_string()).cause(refusal);
                return Err(HttpError::new(HttpErrorKind::Decode, error));
            }
        }
    }
    Err(HttpError::new(HttpErrorKind::Decode, refusal))
}

/// Returns the store's code for a failure.
fn code<'a>(headers: &'a HeaderMap, body: &[u8]) -> Option<Cow<'a, str>> {
    if let Some(code) = header(headers, "x-ms-error-code") {
        return Some(code.into());
    }
    let document = Element::parse(body).ok().filter(|document| document.name == "Error")?;
    document.child("Code").map(|code| code.text.trim().to_owned().into()).filter(|code: &Cow<'_, str>| !code.is_empty())
}
