//! `recovery-points`: lists the points that a stanza can be recovered to.

use engine::recovery_points::{RecoveryPointsRequest, RepoPoints};
use engine::{Error, ErrorCode, Result, warn};

use crate::config::{Config, opt};
use crate::progress::LiveProgress;
use crate::render::{recovery_json, recovery_text};
use crate::{ExitStatus, print, repos};

/// Prints the points of each repository.
///
/// # Errors
/// The options are not valid, or no repository can be read.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let request = request(config)?;
    if !request.scan && (request.since.is_some() || request.until.is_some()) {
        return Err(Error::new(ErrorCode::OptionInvalid, "options 'since' and 'until' require option 'scan'"));
    }
    let session = repos::session(config, &config.repo_keys_selected())?.with_progress(LiveProgress::of("scan"));
    let points = session.recovery_points(&request)?;
    let zone = engine::time_zone::local();
    let text = match config.get(opt::OUTPUT)? {
        "json" => recovery_json::render(session.stanza(), &points, zone),
        _ => recovery_text::render(session.stanza(), &points, zone),
    };
    print(&text)?;
    failure(points).map_or(Ok(ExitStatus::SUCCESS), Err)
}

/// Returns the error of the first repository if none can be read. Otherwise unreadable ones are warnings.
fn failure(points: Vec<RepoPoints>) -> Option<Error> {
    let is_some_readable = points.iter().any(|repo| repo.archives.is_ok());
    let mut errors = points.into_iter().filter_map(|repo| Some((repo.repo_key, repo.archives.err()?)));
    if !is_some_readable {
        return errors.next().map(|(_, error)| error);
    }
    errors.for_each(|(key, error)| warn!("repo{key}: [{}] {error}", error.code));
    None
}

fn request(config: &Config) -> Result<RecoveryPointsRequest> {
    let text = |text: Option<&str>| text.map(ToOwned::to_owned);
    Ok(RecoveryPointsRequest {
        set: text(config.find(opt::SET)),
        scan: config.get(opt::SCAN)?,
        since: text(config.find(opt::SINCE)),
        until: text(config.find(opt::UNTIL)),
        process_max: u32::try_from(config.get(opt::PROCESS_MAX)?).unwrap_or(1),
        job_retry: config.find(opt::JOB_RETRY).and_then(|retries| u32::try_from(retries).ok()).unwrap_or(0),
        job_retry_interval: config.find(opt::JOB_RETRY_INTERVAL).unwrap_or_default(),
    })
}
