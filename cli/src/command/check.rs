//! `check`: checks that a stanza can archive and be backed up, or reports the configuration.

use engine::Result;
use engine::check::CheckRequest;

use crate::config::{Config, opt};
use crate::render::check_report;
use crate::{ExitStatus, pg, print, repos};

/// Checks the stanza, or every stanza of the configuration file if none is given. With `--report` it checks nothing and
/// prints what the environment and the configuration files contain.
///
/// # Errors
/// The first problem.
pub fn run(config: &Config) -> Result<ExitStatus> {
    if config.get(opt::REPORT)? {
        print(&check_report::render(&config.report()?))?;
        return Ok(ExitStatus::SUCCESS);
    }
    if config.find(opt::STANZA).is_some() {
        return check_one(config);
    }
    let stanzas = config.stanzas();
    if stanzas.is_empty() {
        engine::warn!("no stanzas found to check\nHINT: are there non-empty stanza sections in the configuration?");
    }
    for stanza in stanzas {
        engine::info!("check stanza '{stanza}'");
        check_one(&config.with_stanza(&stanza)?)?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn check_one(config: &Config) -> Result<ExitStatus> {
    let request = CheckRequest {
        pg: pg::all(config)?,
        archive: pg::archive_check(config),
        archive_timeout: config.get(opt::ARCHIVE_TIMEOUT)?,
        backup_standby: config.get(opt::BACKUP_STANDBY)? != "n",
    };
    repos::session(config, config.repo_keys())?.check(&request)?;
    Ok(ExitStatus::SUCCESS)
}
