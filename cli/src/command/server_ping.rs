//! `server-ping`: asks whether a server answers.

use engine::remote::ping;
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
    let until = session.peer_valid_until();
    ping(host, session, timeout)?;
    let until = until.and_then(|until| jiff::Timestamp::from_second(i64::try_from(until).ok()?).ok());
    if let Some(until) = until {
        let text = format!("certificate of '{host}' is valid until {until}");
        if until < jiff::Timestamp::now() { engine::warn!("{text}") } else { log::line(Level::Info, &text) }
    }
    Ok(ExitStatus::SUCCESS)
}
