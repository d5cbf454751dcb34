//! `stanza-upgrade`: updates a stanza after an upgrade of its cluster.

use engine::Result;

use super::stanza_create::request;
use crate::config::Config;
use crate::render::summary_json;
use crate::{ExitStatus, repos, summary};

/// Makes the cluster the stanza's current one in every repository.
///
/// # Errors
/// The stanza's files can't be loaded or saved.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let done = repos::session(config, config.repo_keys())?.stanza_upgrade(&request(config)?)?;
    summary::add("stanza-upgrade", || summary_json::stanza(&done));
    Ok(ExitStatus::SUCCESS)
}
