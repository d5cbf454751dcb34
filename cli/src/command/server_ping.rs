//! `server-ping`: asks whether a server answers.

use engine::remote::ping;
use engine::tls::ValidityState;
use engine::{Error, ErrorCode, Result, tls};

use crate::config::{Config, opt};
use crate::log::{self, Level};
use crate::{ExitStatus, remote};

/// Connects to the host of the parameter, or to this host's server, and waits for an answer.
///
/// # Errors
/// [`ErrorCode::ParamInvalid`] for more than one host; the server does not answer.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let host = match config.params() {
        [] => config.get(opt::TLS_SERVER_ADDRESS)?,
        [host] => host,
        _ => return Err(Error::new(ErrorCode::ParamInvalid, "extra parameters found")),
    };
    let (port, timeout) = (remote::port(config.get(opt::TLS_SERVER_PORT)?), config.get(opt::IO_TIMEOUT)?);
    let session = tls::connect_unchecked(host, port, timeout, &remote::keep_alive(config))?;
    let validity = session.peer_validity();
    ping(host, session, timeout)?;
    let now = jiff::Timestamp::now();
    if let Some(validity) = validity {
        let text = format!("certificate of '{host}' {}", validity.text(now));
        match validity.at(now) {
            ValidityState::Valid => log::line(Level::Info, &text),
            ValidityState::EndsSoon => engine::warn!("{text} only"),
            ValidityState::Early | ValidityState::Expired => {
                engine::warn!("{text}\nHINT: clients refuse this server until it has a certificate that is valid.");
            }
        }
    }
    Ok(ExitStatus::SUCCESS)
}
