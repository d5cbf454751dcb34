//! `help`: describes the program, a command or an option.

use engine::Result;

use crate::config::Config;
use crate::exit::ExitStatus;

/// Prints the requested help.
///
/// # Errors
/// The same as [`crate::help::render`], or standard output can't be written.
pub fn run(config: &Config) -> Result<ExitStatus> {
    crate::print(&crate::help::render(config)?)?;
    Ok(ExitStatus::SUCCESS)
}
