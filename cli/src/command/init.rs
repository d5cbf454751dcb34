//! `init`: sets up backups of a cluster.

use engine::{Error, ErrorCode, Result};

use crate::ExitStatus;
use crate::config::{Config, opt};
use crate::init::{self, Step};

/// Writes a configuration unless there is one with the stanza, then goes on with the settings of PostgreSQL, the stanza
/// and the check.
///
/// # Errors
/// There is no cluster, the configuration is incomplete or can't be written, or another archiver is set.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let Some(path) = config.file_path() else {
        return Err(Error::new(ErrorCode::OptionInvalid, "init writes a configuration file: --no-config is not valid"));
    };
    let mut terminal = init::terminal(config.get(opt::YES)?);
    let stanza = config.get(opt::STANZA)?;
    if config.stanzas().iter().any(|known| known == stanza) {
        init::check_configured(config, stanza)?;
    } else if init::configure(config, &path, &mut terminal)? == Step::LeftToDo {
        return Ok(ExitStatus::LEFT_TO_DO);
    }
    init::finish(config, &path, &mut terminal)
}
