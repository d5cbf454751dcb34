//! The kinds of failures of the HTTP client.

use std::io;

use object_store::client::{HttpError, HttpErrorKind};

/// Converts a client's error and its kind, which determines what is retried. (Like `object_store` for its own client,
/// but including network failures that it does not know, such as a missing route to the server, which may be
/// temporary.)
pub(super) fn http_error(error: reqwest::Error) -> HttpError {
    let kind = if is_certificate_refused(&error) {
        // It will fail in the same way the next time
        HttpErrorKind::Decode
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else {
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        causes.filter_map(kind_of_cause).next().unwrap_or(HttpErrorKind::Unknown)
    };
    // The caller names the object
    HttpError::new(kind, error.without_url())
}

/// Returns whether the server's certificate was rejected.
pub(super) fn is_certificate_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An error of the system's kind shows the causes of its content as its own
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = error.downcast_ref::<rustls::Error>().or_else(|| within?.downcast_ref());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = match within {
            Some(within) => Some(within as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    false
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
