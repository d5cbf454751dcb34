//! What all ways to a token share: files with credentials, and requests to a token service.

use std::fs::File;
use std::io::{ErrorKind, Read};

use ::http::{Uri, header};
use object_store::client::{HttpRequest, HttpRequestBody};
use serde_json::Value;

use crate::{Error, ErrorCode, Result};

/// The permitted use of a service account's token.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// A key file larger than this is not one.
pub(super) const KEY_FILE_SIZE_MAX_BYTES: u64 = 1 << 20;

/// Opens a file with credentials.
pub(super) fn open_key_file(path: &str) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            Error::new(ErrorCode::FileMissing, format!("unable to open missing file '{path}' for read")).cause(error)
        }
        _ => Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{path}' for read"), error),
    })
}

/// Reads a file of credentials as JSON. Invalid content is not shown.
pub(super) fn key_json(path: &str) -> Result<Value> {
    let failed = |error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{path}'"), error);
    let mut text = Vec::new();
    open_key_file(path)?.take(KEY_FILE_SIZE_MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|_| Error::new(ErrorCode::JsonFormat, format!("'{path}' is not valid JSON")))
}

/// Refuses a token service that would receive secrets in clear text, except on this host.
pub(super) fn token_server(url: &str) -> Result<()> {
    let uri: Uri =
        url.parse().map_err(|error| Error::new(ErrorCode::Format, format!("invalid URL '{url}'")).cause(error))?;
    let is_local = uri.host().is_some_and(|host| ["127.0.0.1", "[::1]", "localhost"].contains(&host));
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_local => Ok(()),
        _ => Err(Error::new(ErrorCode::Format, format!("expected protocol 'https' in URL '{url}'"))),
    }
}

/// A form that is sent to a token service.
pub(super) fn form_request(url: &str, form: String) -> Result<HttpRequest> {
    ::http::Request::post(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::CONTENT_LENGTH, form.len())
        .body(HttpRequestBody::from(form))
        .map_err(|error| Error::new(ErrorCode::Format, format!("invalid URL '{url}'")).cause(error))
}
