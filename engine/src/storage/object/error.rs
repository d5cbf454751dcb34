//! Errors of `object_store` in our terms.

use object_store::client::HttpError;

use crate::storage::http::request::{Failure, shown};
use crate::{Error, ErrorCode};

/// Turns a store's error into ours, with the status and the server's message. The codes are pgBackRest's: [`ErrorCode::Service`]
/// for what may pass (no connection, throttling, faults of the server), [`ErrorCode::Protocol`] for a request that was refused.
pub(super) fn request_error(message: &str, error: object_store::Error) -> Error {
    // What failed before a request was sent, such as getting credentials, says enough itself
    let error = match error {
        object_store::Error::Generic { store, source } => match source.downcast::<Error>() {
            Ok(own) => return *own,
            Err(source) => object_store::Error::Generic { store, source },
        },
        error => error,
    };
    // The chain of causes says the status and the server's answer; each is shown once
    let mut text = shown(&error.to_string()).to_owned();
    let mut source = std::error::Error::source(&error);
    let mut no_answer = false;
    while let Some(cause) = source {
        no_answer |= cause.is::<HttpError>();
        let more = cause.to_string();
        let more = shown(&more);
        if !text.contains(more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    let code = match &error {
        object_store::Error::NotFound { .. } => ErrorCode::FileMissing,
        object_store::Error::Generic { source, .. } if source.is::<Failure>() => match source.downcast_ref() {
            Some(Failure::Other(own)) => own.code,
            _ if no_answer || may_pass(&text) => ErrorCode::Service,
            _ => ErrorCode::Protocol,
        },
        _ if text.contains("invalid peer certificate") => ErrorCode::Crypto,
        _ if no_answer || may_pass(&text) => ErrorCode::Service,
        _ => ErrorCode::Protocol,
    };
    Error::new(code, format!("{message}: {text}")).cause(error)
}

/// Whether an error's text tells of a status that a later request need not have. (`object_store` keeps the type that has the
/// number to itself.)
fn may_pass(text: &str) -> bool {
    let status =
        text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)).and_then(|digits| digits.parse().ok());
    status.is_some_and(|status: u16| status >= 500 || status == 429 || status == 408)
}
