//! `stanza-upgrade`: updates a stanza after an upgrade of its cluster.

use engine::{Result, stanza};

use super::stanza_create::settings;
use crate::config::Config;
use crate::{ExitStatus, cancel_token, repos};

/// Makes the cluster the stanza's current one in every repository.
///
/// # Errors
/// The stanza's files can't be loaded or saved.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let _lock = repos::lock(config)?;
    stanza::upgrade(&settings(config)?, &repos::open_all(config)?, cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}
