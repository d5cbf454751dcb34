//! `stanza-upgrade`: tells a stanza of an upgraded cluster.

use engine::{Result, stanza};

use super::stanza_create::settings;
use crate::config::Config;
use crate::{ExitStatus, cancel_token, repos};

/// Makes the cluster the current one of the stanza in every repository.
///
/// # Errors
/// The stanza's files can't be loaded or saved.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let _lock = repos::lock(config)?;
    stanza::upgrade(&settings(config)?, &repos::open_all(config)?, cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}
