//! Converts errors of `object_store`.

use object_store::client::HttpError;

use crate::storage::http::refusal::Refusal;
use crate::storage::http::request::{Failure, causes_text, is_passing, own_cause};
use crate::{Error, ErrorCode};

/// Converts a store's error to ours, with the status and the server's message. The codes are pgBackRest's:
/// [`ErrorCode::Service`] for temporary failures (no connection, throttling, server errors), [`ErrorCode::Protocol`]
/// for a refused request.
pub(super) fn request_error(message: &str, error: object_store::Error) -> Error {
    let error = match error {
        object_store::Error::Generic { store, source } => match source.downcast::<Error>() {
            // A failure before a request was sent, such as getting credentials, is descriptive enough
            Ok(own) => return *own,
            Err(source) => match source.downcast::<Failure>() {
                Ok(failure) => return failure.error(message),
                Err(source) => object_store::Error::Generic { store, source },
            },
        },
        error => error,
    };
    let code = match &error {
        object_store::Error::NotFound { .. } => ErrorCode::FileMissing,
        error => code(error),
    };
    let (own, refusal) = (own_cause(&error), refusal(&error).map(ToString::to_string));
    let text = own.map(|own| own.message.clone()).or(refusal).unwrap_or_else(|| causes_text(&error));
    let hints = own.map(|own| own.hints.clone()).unwrap_or_default();
    let mut result = Error::new(code, format!("{message}: {text}"));
    result.hints = hints;
    result.cause(error)
}

fn refusal(error: &object_store::Error) -> Option<&Refusal> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |cause| cause.source())
}

fn code(error: &object_store::Error) -> ErrorCode {
    if let Some(own) = own_cause(error) {
        return own.code;
    }
    if let Some(refusal) = refusal(error) {
        return if is_passing(refusal.status) { ErrorCode::Service } else { ErrorCode::Protocol };
    }
    let text = causes_text(error);
    if text.contains("invalid peer certificate") {
        ErrorCode::Crypto
    } else if may_pass(&text) || causes(error).any(|cause| cause.is::<HttpError>()) {
        ErrorCode::Service
    } else {
        ErrorCode::Protocol
    }
}

/// Returns whether an error's text contains a status that may be temporary. (`object_store` does not export the type
/// that has the number.)
fn may_pass(text: &str) -> bool {
    let status =
        text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)).and_then(|digits| digits.parse().ok());
    status.is_some_and(|status: u16| status >= 500 || status == 429 || status == 408)
}
