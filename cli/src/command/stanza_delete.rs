//! `stanza-delete`: deletes a stanza from one repository.

use engine::Result;
use engine::stanza::StanzaDeleteRequest;

use crate::config::{Config, opt};
use crate::render::summary_json;
use crate::{ExitStatus, pg, repos, summary};

/// Deletes the stanza from the repository of `--repo`.
///
/// # Errors
/// Commands were not stopped, PostgreSQL is running, or something can't be removed.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let session = repos::session(config, &[config.repo_default()])?.with_lock_keys(config.repo_keys_selected());
    let pg_key = config.pg_keys().first().filter(|&&key| config.find_at(opt::PG_PATH, key).is_some());
    let pg = pg_key.map(|&key| pg::host(config, key)).transpose()?;
    let done = session.stanza_delete(&StanzaDeleteRequest { pg, force: config.get(opt::FORCE)? })?;
    summary::add("stanza-delete", || summary_json::stanza_delete(&done));
    Ok(ExitStatus::SUCCESS)
}
