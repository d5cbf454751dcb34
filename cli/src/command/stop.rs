//! `stop`: keeps commands from starting.

use engine::{Result, control};

use crate::config::{Config, opt};
use crate::{ExitStatus, repos};

/// Makes the stop file of the stanza, or the one for all stanzas; with `--force` ends the commands that run.
///
/// # Errors
/// It can't be made.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let force = config.get(opt::FORCE)?;
    control::stop(repos::lock_path(config)?, repos::stanza_if_set(config)?.as_ref(), force)?;
    Ok(ExitStatus::SUCCESS)
}
