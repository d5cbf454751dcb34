//! `start`: allows commands to run again.

use engine::{Result, control};

use crate::config::Config;
use crate::{ExitStatus, repos};

/// Removes the stop file of the stanza, or the one of all stanzas.
///
/// # Errors
/// The file can't be removed.
pub fn run(config: &Config) -> Result<ExitStatus> {
    control::start(repos::lock_path(config)?, repos::stanza_if_set(config)?.as_ref())?;
    Ok(ExitStatus::SUCCESS)
}
