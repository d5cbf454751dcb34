//! `stop`: prevents commands from starting.

use engine::{Result, control};

use crate::config::{Config, opt};
use crate::{ExitStatus, repos};

/// Creates the stop file of the stanza, or the one for all stanzas. With `--force` it also ends running commands.
///
/// # Errors
/// The file can't be created.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let force = config.get(opt::FORCE)?;
    control::stop(repos::lock_path(config)?, repos::stanza_if_set(config)?.as_ref(), force)?;
    Ok(ExitStatus::SUCCESS)
}
