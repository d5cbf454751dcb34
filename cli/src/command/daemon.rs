//! `daemon`: runs commands by schedule.

use daemon::process::HostProcesses;
use daemon::service::Service;
use daemon::store::StateDirectory;
use daemon::supervisor::Supervisor;
use daemon::wakeup::Wakeups;
use engine::Result;

use crate::ExitStatus;
use crate::config::Config;
use crate::identity::own_path;
use crate::jobs::{self, FilesSource};

/// Runs until a signal ends it.
///
/// # Errors
/// The configuration is not valid, the state directory can't be used, or another daemon uses it.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let mut source = FilesSource::new(config)?;
    // An error of the configuration is more useful than one of the directory
    source.check()?;
    let path = jobs::state_path(config)?;
    let records = StateDirectory::open(path)?;
    let _lock = records.lock_daemon()?;
    let wakeups = Wakeups::start()?;
    let processes = HostProcesses::new(own_path(config.program())?, path.to_owned(), wakeups.sender.clone());
    let supervisor = Supervisor::new(processes, records, jobs::settings(config)?);
    let ended = Service::new(supervisor, wakeups).run(&mut source);
    source.remove_copies();
    ended.map(|()| ExitStatus::SUCCESS)
}
