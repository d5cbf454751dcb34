//! `version`: which program this is.

use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};
use crate::exit::ExitStatus;
use crate::identity::Identity;

/// Prints the version; as a number with `--output=num`, without a line end.
///
/// # Errors
/// [`ErrorCode::FileWrite`]: standard output can't be written.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let identity = Identity::of(config.program());
    let text = match config.find(opt::OUTPUT) {
        Some("num") => identity.version_number(),
        _ => format!("{}\n", identity.version_line()),
    };
    crate::print(&text).map_err(|error| Error::from_io(ErrorCode::FileWrite, "unable to write to stdout", error))?;
    Ok(ExitStatus::SUCCESS)
}
