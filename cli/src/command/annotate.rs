//! `annotate`: changes the annotations of a backup.

use engine::annotate::AnnotateRequest;
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};
use crate::render::summary_json;
use crate::{ExitStatus, repos, summary};

/// Changes the annotations of the given backup.
///
/// # Errors
/// No repository has the backup, or one of them can't be changed.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let session = repos::session(config, &config.repo_keys_selected())?;
    let text = config.get(opt::SET)?;
    let label = text.parse().map_err(|_| {
        Error::new(ErrorCode::OptionInvalidValue, format!("'{text}' is not a valid backup label format"))
    })?;
    let done = session
        .annotate(&AnnotateRequest { annotation: config.get(opt::ANNOTATION)?, ..AnnotateRequest::new(label) })?;
    summary::add("annotate", || summary_json::annotate(text, &done));
    Ok(ExitStatus::SUCCESS)
}
