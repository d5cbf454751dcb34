//! Requests of Google Cloud Storage's JSON API.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ::http::{HeaderMap, Method, header};
use object_store::PutPayload;
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse};
use object_store::path::Path;
use percent_encoding::utf8_percent_encode;

use super::token::Tokens;
use crate::storage::http::URL_ENCODED;
use crate::storage::http::checked::not_html;
use crate::storage::http::foreign::foreign;
use crate::storage::http::request::{Answer, Failure, Requests};
use crate::storage::object::key;
use crate::{Error, ErrorCode};

/// Encodes an object name. It is one segment of a path, so its slashes are encoded too.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, URL_ENCODED).to_string()
}

/// One bucket of one server.
#[derive(Debug)]
pub(super) struct Api {
    /// Scheme, host and port.
    pub(super) server: String,
    pub(super) bucket: String,
    /// The project that pays.
    pub(super) user_project: Option<String>,
    pub(super) tokens: Tokens,
    pub(super) requests: Arc<Requests>,
    /// Whether the server has shown that the bucket exists.
    pub(super) has_bucket: AtomicBool,
}

/// A request to the server.
#[derive(Debug)]
pub(super) struct ApiCall<'a> {
    pub(super) method: Method,
    /// Begins with a slash.
    pub(super) path: String,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: HeaderMap,
    pub(super) body: Option<PutPayload>,
    /// The identifier of an upload is its own proof.
    pub(super) with_token: bool,
}

impl<'a> ApiCall<'a> {
    pub(super) fn new(method: Method, path: String, query: &'a [(&'a str, &'a str)]) -> Self {
        ApiCall { method, path, query, headers: HeaderMap::new(), body: None, with_token: true }
    }
}

impl Api {
    /// The path of an object, or of all of them.
    pub(super) fn object_path(&self, object: Option<&Path>) -> String {
        let objects = format!("/storage/v1/b/{}/o", encode(&self.bucket));
        match object {
            Some(object) => format!("{objects}/{}", encode(&key::name(object))),
            None => objects,
        }
    }

    /// The path that takes new objects.
    pub(super) fn upload_path(&self) -> String {
        format!("/upload{}", self.object_path(None))
    }

    /// A path with its query, as it stands in a request.
    pub(super) fn target(&self, path: &str, query: &[(&str, &str)]) -> String {
        let mut target = path.to_owned();
        let project = self.user_project.as_deref().map(|project| ("userProject", project));
        for (at, (key, value)) in query.iter().copied().chain(project).enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(key);
            target.push('=');
            target.push_str(&encode(value));
        }
        target
    }

    async fn request(&self, call: ApiCall<'_>) -> std::result::Result<HttpRequest, Failure> {
        let size = call.body.as_ref().map_or(0, PutPayload::content_length);
        let url = format!("{}{}", self.server, self.target(&call.path, call.query));
        let mut request = ::http::Request::builder()
            .method(call.method)
            .uri(&url)
            .body(call.body.map_or_else(HttpRequestBody::empty, Into::into))
            .map_err(|error| Error::new(ErrorCode::Format, format!("invalid URL '{}'", self.server)).cause(error))?;
        *request.headers_mut() = call.headers;
        request.headers_mut().insert(header::CONTENT_LENGTH, size.into());
        if call.with_token {
            request.headers_mut().insert(header::AUTHORIZATION, self.tokens.header().await?);
        }
        Ok(request)
    }

    /// Sends a request and returns any answer of the server.
    pub(super) async fn send_any(&self, call: ApiCall<'_>) -> std::result::Result<Answer, Failure> {
        self.requests.send(&self.request(call).await?).await
    }

    /// Sends a request for content, which the caller reads as it arrives.
    pub(super) async fn stream(&self, call: ApiCall<'_>) -> std::result::Result<HttpResponse, Failure> {
        self.requests.stream(&self.request(call).await?).await
    }

    /// Sends a request that has to succeed.
    pub(super) async fn send(&self, call: ApiCall<'_>) -> std::result::Result<Answer, Failure> {
        let method = call.method.clone();
        let answer = self.send_any(call).await?;
        if !answer.status().is_success() {
            let failure = Failure::of(&answer);
            // An object that no longer exists need not be deleted
            let is_gone = method == Method::DELETE && self.is_missing(&failure).await?;
            return if is_gone { Ok(answer) } else { Err(failure) };
        }
        if !answer.body().is_empty() {
            not_html(answer.headers())?;
        }
        let deleted: &[&[u8]] = &[b"", b"null", b"{}"];
        if method == Method::DELETE && !deleted.contains(&answer.body().trim_ascii()) {
            return Err(foreign("it has content where there should be none").into());
        }
        Ok(answer)
    }
}
