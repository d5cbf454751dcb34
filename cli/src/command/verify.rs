//! `verify`: whether a repository holds what it should.

use engine::Result;
use engine::job_queue::QueueSettings;
use engine::verify::{VerifySettings, run as verify};

use crate::config::{Config, opt};
use crate::exit::{self, ExitStatus};
use crate::repos;

/// Checks the repository and reports; the exit status does not depend on what is found.
///
/// # Errors
/// As [`engine::verify::run`].
pub fn run(config: &Config) -> Result<ExitStatus> {
    let process_max = u32::try_from(config.get(opt::PROCESS_MAX)?).unwrap_or(1);
    let job_retry = config.find(opt::JOB_RETRY).and_then(|retries| u32::try_from(retries).ok()).unwrap_or(0);
    let job_retry_interval = config.find(opt::JOB_RETRY_INTERVAL).unwrap_or_default();
    let settings = VerifySettings {
        stanza: repos::stanza(config)?,
        set: config.find(opt::SET).map(ToOwned::to_owned),
        verbose: config.find(opt::VERBOSE).unwrap_or(false),
        pg_version_force: config.find(opt::PG_VERSION_FORCE).map(str::parse).transpose()?,
        queue: QueueSettings::new(process_max, job_retry, job_retry_interval),
    };
    let summary = verify(&settings, &repos::open_default(config)?, exit::cancel_token())?;
    if !summary.text.is_empty() && config.find(opt::OUTPUT) == Some("text") {
        crate::print(&format!("{}\n", summary.text))?;
    }
    Ok(ExitStatus::SUCCESS)
}
