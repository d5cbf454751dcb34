//! Sends a result to the webhook.

use std::io::Read;
use std::path::PathBuf;

use engine::webhook::{WebhookRequest, post};
use engine::{Error, ErrorCode, Result};

use crate::ExitStatus;
use crate::config::{ScheduleSection, opt};
use crate::jobs::HELPER_TIMEOUT;

/// The largest size in bytes of a result.
const SIZE_MAX: u64 = 1 << 20;

/// Sends the JSON on standard input.
///
/// # Errors
/// There is no webhook, or the server does not take the request.
pub(super) fn run(section: &ScheduleSection) -> Result<ExitStatus> {
    let config = &section.daemon;
    let Some(url) = config.find(opt::WEBHOOK_URL) else {
        return Err(Error::new(ErrorCode::OptionRequired, "schedule webhook requires option: webhook-url"));
    };
    let mut body = String::new();
    std::io::stdin()
        .take(SIZE_MAX)
        .read_to_string(&mut body)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read standard input", error))?;
    let headers = config.find(opt::WEBHOOK_HEADER).unwrap_or_default().iter().map(|header| split(header));
    post(&WebhookRequest {
        url: url.to_owned(),
        headers: headers.collect::<Result<_>>()?,
        ca_file: config.find(opt::WEBHOOK_CA_FILE).map(PathBuf::from),
        timeout: HELPER_TIMEOUT,
        body,
    })?;
    Ok(ExitStatus::SUCCESS)
}

/// Splits a header into name and value.
fn split(header: &str) -> Result<(String, String)> {
    match header.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => Err(Error::new(ErrorCode::OptionInvalidValue, "a value of 'webhook-header' is not NAME: VALUE")),
    }
}
