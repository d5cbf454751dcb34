//! `help`: what the program, a command or an option does.

use engine::Result;

use crate::config::Config;
use crate::exit::ExitStatus;

/// Prints the help that was asked for.
///
/// # Errors
/// As [`crate::help::render`], or standard output can't be written.
pub fn run(config: &Config) -> Result<ExitStatus> {
    crate::print(&crate::help::render(config)?)?;
    Ok(ExitStatus::SUCCESS)
}
