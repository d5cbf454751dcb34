//! `verify`: checks the content of a repository.

use engine::verify::{RepairSettings, VerifySettings, run as verify};
use engine::work::crew::CrewSettings;
use engine::work::retry::RetryPolicy;
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};
use crate::exit::{self, ExitStatus};
use crate::render::control::visible_text;
use crate::repos;

/// Checks the repository and prints the report. By default the exit status does not depend on the result.
///
/// # Errors
/// The same as [`engine::verify::run`]; a failed repair; with `--verify-exit-code` those of
/// [`VerifySummary::into_error`](engine::verify::VerifySummary::into_error).
pub fn run(config: &Config) -> Result<ExitStatus> {
    let process_max = u32::try_from(config.get(opt::PROCESS_MAX)?).unwrap_or(1);
    let job_retry = config.find(opt::JOB_RETRY).and_then(|retries| u32::try_from(retries).ok()).unwrap_or(0);
    let job_retry_interval = config.find(opt::JOB_RETRY_INTERVAL).unwrap_or_default();
    let settings = VerifySettings {
        stanza: repos::stanza(config)?,
        set: config.find(opt::SET).map(ToOwned::to_owned),
        verbose: config.find(opt::VERBOSE).unwrap_or(false),
        pg_version_force: config.find(opt::PG_VERSION_FORCE).map(str::parse).transpose()?,
        crew: CrewSettings::new(process_max, RetryPolicy::new(job_retry, job_retry_interval)),
        repair: match config.get(opt::REPAIR)? {
            true => {
                Some(RepairSettings { locks: repos::locks(config)?, exec_id: config.get(opt::EXEC_ID)?.to_owned() })
            }
            false => None,
        },
    };
    let key = config.repo_default();
    if settings.repair.is_some() && config.find_at(opt::REPO_HOST, key).is_some() {
        let text = format!("option 'repair' is not supported for a repository on another host (repo{key})");
        return Err(Error::new(ErrorCode::FeatureNotSupported, text)
            .hint("the locks of that host would not be held: run verify there."));
    }
    let mut summary = verify(&settings, &repos::open_default(config)?, exit::cancel_token())?;
    if !summary.text.is_empty() && config.find(opt::OUTPUT) == Some("text") {
        crate::print(&format!("{}\n", visible_text(&summary.text)))?;
    }
    if let Some(error) = summary.failure.take() {
        return Err(error.context("unable to repair"));
    }
    match summary.into_error() {
        Some(error) if config.get(opt::VERIFY_EXIT_CODE)? => Err(error),
        _ => Ok(ExitStatus::SUCCESS),
    }
}
