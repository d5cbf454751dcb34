//! `stanza-create`: creates a stanza in every repository.

use engine::Result;
use engine::stanza::{self, StanzaSettings};

use crate::config::{Config, opt};
use crate::{ExitStatus, cancel_token, pg, repos};

/// Creates the stanza, or checks it if it exists.
///
/// # Errors
/// The stanza can't be created or belongs to another cluster.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let _lock = repos::lock(config)?;
    if config.find(opt::FORCE) == Some(true) {
        engine::warn!("option --force is no longer supported");
    }
    stanza::create(&settings(config)?, &repos::open_all(config)?, cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}

/// The settings that stanza-create and stanza-upgrade need.
pub(super) fn settings(config: &Config) -> Result<StanzaSettings> {
    Ok(StanzaSettings {
        stanza: repos::stanza(config)?,
        locks: repos::locks(config)?,
        online: config.get(opt::ONLINE)?,
        pg: pg::all(config)?,
        claimant: repos::claimant(config)?,
    })
}
