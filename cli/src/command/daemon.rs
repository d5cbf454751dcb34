//! `daemon`: runs commands by schedule.

use daemon::process::HostProcesses;
use daemon::service::{PlanSource, Service};
use daemon::store::StateDirectory;
use daemon::supervisor::Supervisor;
use daemon::wakeup::Wakeups;
use engine::{Error, ErrorCode, Result};

use crate::ExitStatus;
use crate::config::{Config, Source, opt};
use crate::jobs::{self, FilesSource};

/// Runs until a signal ends it.
///
/// # Errors
/// The configuration is not valid, the state directory can't be used, or another daemon uses it.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let mut source = FilesSource::new(config);
    // An error of the configuration is more useful than one of the directory
    source.load()?;
    for option in [opt::METRICS_FILE, opt::METRICS_DATABASES] {
        if config.source(option) != Source::Default {
            let text = format!("option '{}' is not supported yet for command 'daemon'", option.decl().name);
            return Err(Error::new(ErrorCode::FeatureNotSupported, text).hint("run 'metrics' from cron."));
        }
    }
    let path = jobs::state_path(config)?;
    let records = StateDirectory::open(path)?;
    let _lock = records.lock_daemon()?;
    let wakeups = Wakeups::start()?;
    let processes = HostProcesses::new(jobs::program()?, path.to_owned(), wakeups.sender.clone());
    let supervisor = Supervisor::new(processes, records, jobs::settings(config)?);
    Service::new(supervisor, wakeups).run(&mut source)?;
    Ok(ExitStatus::SUCCESS)
}
