//! `stanza-delete`: deletes a stanza from one repository.

use engine::Result;
use engine::stanza::{self, DeleteSettings};

use crate::config::{Config, opt};
use crate::{ExitStatus, cancel_token, pg, repos};

/// Deletes the stanza from the repository of `--repo`.
///
/// # Errors
/// Commands were not stopped, PostgreSQL is running, or something can't be removed.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let _lock = repos::lock(config)?;
    let pg_key = config.pg_keys().first().filter(|&&key| config.find_at(opt::PG_PATH, key).is_some());
    let settings = DeleteSettings {
        stanza: repos::stanza(config)?,
        locks: repos::locks(config)?,
        pg: pg_key.map(|&key| pg::host(config, key)).transpose()?,
        force: config.get(opt::FORCE)?,
        claimant: repos::claimant(config)?,
    };
    stanza::delete(&settings, &repos::open_default(config)?, cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}
