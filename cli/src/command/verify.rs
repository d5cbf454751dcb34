//! `verify`: checks the content of a repository.

use engine::verify::VerifyRequest;
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};
use crate::exit::ExitStatus;
use crate::render::control::visible_text;
use crate::render::{summary_json, verify_text};
use crate::repos;

/// Checks the repository and prints the report. By default the exit status does not depend on the result.
///
/// # Errors
/// The same as [`engine::Session::verify`]; a failed repair; what ended the run after a fault was found; with `--verify-exit-code` those of
/// [`VerifySummary::into_error`](engine::verify::VerifySummary::into_error).
pub fn run(config: &Config) -> Result<ExitStatus> {
    let key = config.repo_default();
    let request = request(config)?;
    if request.repair && config.find_at(opt::REPO_HOST, key).is_some() {
        let text = format!("option 'repair' is not supported for a repository on another host (repo{key})");
        return Err(Error::new(ErrorCode::FeatureNotSupported, text)
            .hint("the locks of that host would not be held: run verify there."));
    }
    if request.remembers() && request.set.is_some() {
        let text = "options 'older-than', 'max-bytes' and 'max-time' are not valid with option 'set'";
        return Err(Error::new(ErrorCode::OptionInvalid, text).hint("verify reads everything of a set."));
    }
    let session = repos::session(config, &[key])?;
    let mut summary = session.verify(&request)?;
    crate::summary::add("verify", || summary_json::verify(&summary));
    if !summary.text.is_empty() && config.find(opt::OUTPUT) == Some("text") {
        crate::print(&format!("{}\n", visible_text(&summary.text)))?;
    }
    if request.remembers() && config.find(opt::OUTPUT) == Some("text") {
        let status = summary.text.is_empty().then(|| session.stanza());
        crate::print(&verify_text::render(status, &summary, engine::time_zone::local()))?;
    }
    if let Some(error) = summary.failure.take() {
        return Err(error.context("unable to repair"));
    }
    let ended = summary.ended.take();
    match summary.into_error() {
        Some(error) if config.get(opt::VERIFY_EXIT_CODE)? => Err(error),
        _ => ended.map_or(Ok(ExitStatus::SUCCESS), Err),
    }
}

fn request(config: &Config) -> Result<VerifyRequest> {
    let request = VerifyRequest {
        set: config.find(opt::SET).map(ToOwned::to_owned),
        verbose: config.find(opt::VERBOSE).unwrap_or(false),
        pg_version_force: config.find(opt::PG_VERSION_FORCE).map(str::parse).transpose()?,
        repair: config.get(opt::REPAIR)?,
        older_than: config.find(opt::OLDER_THAN),
        max_bytes: config.find(opt::MAX_BYTES),
        max_time: config.find(opt::MAX_TIME),
        points: false,
        process_max: u32::try_from(config.get(opt::PROCESS_MAX)?).unwrap_or(1),
        job_retry: config.find(opt::JOB_RETRY).and_then(|retries| u32::try_from(retries).ok()).unwrap_or(0),
        job_retry_interval: config.find(opt::JOB_RETRY_INTERVAL).unwrap_or_default(),
    };
    let is_json = config.find(opt::OUTPUT) == Some("json");
    Ok(VerifyRequest { points: request.remembers() || is_json, ..request })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn request_without_options_is_the_request_of_the_engine() {
        let asked = request(&resolved("verify --stanza=demo")).unwrap();
        assert_eq!(format!("{asked:#?}"), format!("{:#?}", VerifyRequest::default()));
    }
}
