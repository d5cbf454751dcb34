//! `schedule`: shows the schedules of the daemon, or runs one now.
//!
//! The daemon also starts it: `schedule probe NAME` finds out whether it is this host's turn, `schedule webhook NAME` sends
//! a result. So neither a server that does not answer nor TLS is the daemon's own.

pub(crate) mod list;
mod probe;
mod webhook;

use daemon::job::{Job, JobKey};
use daemon::process::HostProcesses;
use daemon::service::{DaemonPlan, Service};
use daemon::store::StateDirectory;
use daemon::supervisor::Supervisor;
use daemon::wakeup::Wakeups;
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, ScheduleSection, opt};
use crate::identity::own_path;
use crate::{ExitStatus, jobs};

/// Shows schedules or runs one.
///
/// # Errors
/// The configuration is not valid, there is no such schedule, or its command fails.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let daemon = config.for_daemon()?;
    let words: Vec<&str> = config.params().iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => list::run(&daemon, config.get(opt::OUTPUT)? == "json"),
        ["run", name] => run_now(&daemon, name),
        ["probe", name] => probe::run(&section(&daemon, name)?),
        ["webhook", name] => webhook::run(&section(&daemon, name)?),
        _ => {
            Err(Error::new(ErrorCode::ParamInvalid, "schedule has no parameters, or 'run' and the name of a schedule"))
        }
    }
}

/// Runs the command of a schedule now.
fn run_now(config: &Config, name: &str) -> Result<ExitStatus> {
    let DaemonPlan { jobs, settings, .. } = jobs::plan(config)?;
    let key = find(name, jobs.iter().map(|job| &job.key))?;
    let jobs: Vec<Job> = jobs.into_iter().filter(|job| job.key == key).collect();
    let path = jobs::state_path(config)?;
    let records = StateDirectory::open(path)?;
    let wakeups = Wakeups::start()?;
    let processes = HostProcesses::new(own_path(config.program())?, path.to_owned(), wakeups.sender.clone());
    let supervisor = Supervisor::new(processes, records, settings.clone());
    let outcome = Service::new(supervisor, wakeups).run_one(jobs, settings, &key)?;
    match outcome {
        None => Ok(ExitStatus::SUCCESS),
        Some(error) => Err(Error::new(ErrorCode::Execute, format!("job '{key}' failed: {error}"))),
    }
}

/// Finds the job of this name.
fn find<'a>(name: &str, keys: impl Iterator<Item = &'a JobKey>) -> Result<JobKey> {
    let found: Vec<&JobKey> = keys.filter(|key| key.name == name).collect();
    match found.as_slice() {
        [key] => Ok((*key).clone()),
        [] => Err(Error::new(ErrorCode::ParamInvalid, format!("there is no schedule '{name}'"))
            .hint("'schedule' without parameters shows all schedules.")),
        several => {
            let stanzas: Vec<&str> = several.iter().map(|key| key.stanza.as_str()).collect();
            let text = format!("several stanzas have a schedule '{name}': {}", stanzas.join(", "));
            Err(Error::new(ErrorCode::ParamInvalid, text).hint("add --stanza."))
        }
    }
}

/// Returns the section of a schedule of the stanza.
fn section(config: &Config, name: &str) -> Result<ScheduleSection> {
    config.get(opt::STANZA)?;
    let section = config.schedules()?.into_iter().find(|section| section.name == name);
    section.ok_or_else(|| Error::new(ErrorCode::ParamInvalid, format!("there is no schedule '{name}'")))
}
