//! `annotate`: changes the annotations of a backup.

use engine::annotate::AnnotateSettings;
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};
use crate::{ExitStatus, cancel_token, repos};

/// Changes the annotations of the given backup.
///
/// # Errors
/// No repository has the backup, or one of them can't be changed.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let _lock = repos::lock(config)?;
    let text = config.get(opt::SET)?;
    let label = text.parse().map_err(|_| {
        Error::new(ErrorCode::OptionInvalidValue, format!("'{text}' is not a valid backup label format"))
    })?;
    let opened = repos::open_each(config)?;
    let settings = AnnotateSettings {
        stanza: repos::stanza(config)?,
        label,
        annotation: config.get(opt::ANNOTATION)?,
        claimant: repos::claimant(config)?,
    };
    engine::annotate::annotate(&opened, &settings, cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}
