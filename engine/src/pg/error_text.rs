//! Errors of a server and of the way to it, in libpq's words, which operators know.

use std::io;

use repo_format::error::without_documentation;

/// The words of the system without its number.
pub(super) fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        // A library of TLS has words of its own for this
        return "server closed the connection unexpectedly".to_owned();
    }
    let full = without_documentation(error.to_string());
    full.rsplit_once(" (os error").map_or(full.as_str(), |(text, _)| text).to_owned()
}

/// Returns the innermost error's text, and whether it means that nobody listens there.
pub(super) fn root_cause(error: &tokio_postgres::Error) -> (String, bool) {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(io) => {
            let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
            (words(io), nobody.contains(&io.kind()))
        }
        None => (without_documentation(cause.to_string()), false),
    }
}

/// A server's error as libpq shows it.
pub(super) fn db_error_text(error: &tokio_postgres::error::DbError) -> String {
    let mut text = format!("{}:  {}", error.severity(), error.message());
    for (name, more) in [("DETAIL", error.detail()), ("HINT", error.hint()), ("CONTEXT", error.where_())] {
        if let Some(more) = more {
            text += &format!("\n{name}:  {more}");
        }
    }
    text
}
