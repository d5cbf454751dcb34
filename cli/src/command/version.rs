//! `version`: prints the version.

use engine::Result;

use crate::config::{Config, opt};
use crate::exit::ExitStatus;
use crate::identity::ProgramName;

/// Prints the version. With `--output=num` it prints a number without a line feed.
///
/// # Errors
/// Standard output can't be written.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let identity = ProgramName::of(config.program());
    let text = match config.find(opt::OUTPUT) {
        Some("num") => identity.version_number(),
        _ => format!("{}\n", identity.version_line()),
    };
    crate::print(&text)?;
    Ok(ExitStatus::SUCCESS)
}
