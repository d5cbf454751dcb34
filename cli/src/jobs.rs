//! Converts the configuration to the jobs of the daemon.

mod copies;

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::cron::Cron;
use daemon::job::{Hooks, Job, JobKey, RunOn, Webhook};
use daemon::service::{DaemonPlan, PlanSource};
use daemon::supervisor::SupervisorSettings;
use engine::{Error, ErrorCode, Result};
use jiff::tz::TimeZone;

use copies::{ConfigCopies, HeldCopy};

use crate::config::copy::ConfigCopy;
use crate::config::{Command, Config, ScheduleSection, opt};
use crate::monitor_server::{self, MonitorServer};

/// Returns the jobs and settings of a configuration.
///
/// # Errors
/// A schedule is not valid. The error names its section.
pub(crate) fn plan(config: &Config) -> Result<DaemonPlan> {
    let sections = config.schedules()?;
    let jobs = sections.into_iter().map(|section| {
        let title = format!("section '[{}:schedule:{}]'", section.stanza, section.name);
        job(config, section).map_err(|error| error.context(title))
    });
    Ok(DaemonPlan { jobs: jobs.collect::<Result<_>>()?, settings: settings(config)?, collect: None })
}

/// Returns the settings of the supervisor.
///
/// # Errors
/// [`ErrorCode::Assert`] if the command does not have them.
pub(crate) fn settings(config: &Config) -> Result<SupervisorSettings> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(SupervisorSettings { host, job_max: usize::try_from(config.get(opt::JOB_MAX)?).unwrap_or(1) })
}

/// Returns the directory of the daemon's state.
///
/// # Errors
/// [`ErrorCode::Assert`] if the command does not have it.
pub(crate) fn state_path(config: &Config) -> Result<&Path> {
    config.get(opt::STATE_PATH).map(Path::new)
}

fn job(config: &Config, section: ScheduleSection) -> Result<Job> {
    let ScheduleSection { daemon, command, mut arguments, environment, .. } = section;
    let kind = command.command();
    if kind == Command::Verify && !section.shown.iter().any(|(key, _)| key == opt::VERIFY_EXIT_CODE.decl().name) {
        // What it finds would be no failure otherwise
        arguments.insert(0, format!("--{}", opt::VERIFY_EXIT_CODE.decl().name));
    }
    let repos = command.repo_keys_selected();
    let mut hasher = DefaultHasher::new();
    (&environment, daemon.find(opt::WEBHOOK_URL), daemon.find(opt::WEBHOOK_HEADER)).hash(&mut hasher);
    Ok(Job {
        key: JobKey::new(&section.stanza, &section.name)?,
        command: kind.name().to_owned(),
        arguments,
        completion: section.completion,
        helper: config.helper_arguments(&section.stanza),
        environment,
        repos: if repos.is_empty() { vec![1] } else { repos },
        cron: Cron::parse(&section.schedule)?,
        zone: zone(&daemon)?,
        zone_name: text(&daemon, opt::TIME_ZONE),
        jitter: daemon.get(opt::JITTER)?,
        retry: daemon.find(opt::RETRY).map_or(retry_default(kind), |retry| u32::try_from(retry).unwrap_or(0)),
        retry_interval: daemon.get(opt::RETRY_INTERVAL)?,
        time_limit: daemon.find(opt::TIME_LIMIT),
        catch_up: daemon.get(opt::CATCH_UP)?,
        run_on: run_on(&daemon, kind),
        leaves_backup: kind == Command::Backup,
        hooks: Hooks {
            before: text(&daemon, opt::HOOK_BEFORE),
            after: text(&daemon, opt::HOOK_AFTER),
            failure: text(&daemon, opt::HOOK_FAILURE),
        },
        hook_timeout: daemon.get(opt::HOOK_TIMEOUT)?,
        webhook: webhook(&daemon),
        settings: shown(&daemon, section.shown),
        secret_mark: hasher.finish(),
        holds: None,
    })
}

fn text(config: &Config, option: crate::config::handle::Opt<String>) -> Option<String> {
    config.find(option).map(str::to_owned)
}

fn zone(config: &Config) -> Result<TimeZone> {
    let Some(name) = config.find(opt::TIME_ZONE) else { return Ok(engine::time_zone::local().clone()) };
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|error| {
        Error::new(ErrorCode::OptionInvalidValue, format!("'{name}' is not valid for 'time-zone' option: {error}"))
            .hint("a name such as Europe/Berlin needs the time zone database of the system (package tzdata).")
    })
}

fn retry_default(command: Command) -> u32 {
    match command {
        Command::TestRestore | Command::Verify => 0,
        _ => 2,
    }
}

fn run_on(config: &Config, command: Command) -> RunOn {
    match config.find(opt::RUN_ON) {
        Some("any") => RunOn::Any,
        Some("standby") => RunOn::Standby,
        Some(_) => RunOn::Primary,
        None if matches!(command, Command::Backup | Command::Expire) => RunOn::Primary,
        None => RunOn::Any,
    }
}

fn webhook(config: &Config) -> Webhook {
    match (config.find(opt::WEBHOOK_URL), config.find(opt::WEBHOOK_RESULT)) {
        (None, _) => Webhook::None,
        (Some(_), Some("failure")) => Webhook::Failures,
        (Some(_), _) => Webhook::Results,
    }
}

/// Returns the settings of a job for the log of a reload: those of its section, and options of the daemon from
/// elsewhere.
fn shown(daemon: &Config, section: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut shown = section;
    for (decl, key, _) in daemon.each_slot().filter(|(decl, ..)| decl.own && !decl.secure) {
        let name = decl.indexed_name(key);
        if let Some(value) = daemon.display(decl, key)
            && !shown.iter().any(|(known, _)| *known == name)
        {
            shown.push((name, value.into_owned()));
        }
    }
    shown
}

/// The configuration files of this process.
pub(crate) struct FilesSource<'a> {
    config: &'a Config,
    server: MonitorServer,
    copies: ConfigCopies,
    /// The failure to keep a copy that was told.
    told: Option<String>,
}

impl<'a> FilesSource<'a> {
    /// The files of the daemon's configuration.
    ///
    /// # Errors
    /// [`ErrorCode::Assert`] if the command is not the daemon.
    pub(crate) fn new(config: &'a Config) -> Result<Self> {
        let copies = ConfigCopies::new(state_path(config)?);
        Ok(FilesSource { config, server: MonitorServer::default(), copies, told: None })
    }

    /// Checks that the configuration is valid, without using it.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.read().map(drop)
    }

    fn read(&mut self) -> Result<(DaemonPlan, ConfigCopy)> {
        let (config, copy) = self.config.reread()?;
        if state_path(&config)? != state_path(self.config)? {
            return Err(Error::new(ErrorCode::OptionInvalid, "'state-path' cannot change while the daemon is running")
                .hint("restart the daemon."));
        }
        let directory = monitor_server::directory(state_path(&config)?);
        let plan = DaemonPlan { collect: monitor_server::collect_plan(&config, &directory)?, ..plan(&config)? };
        // Not before everything else is valid
        self.server.load(&config, &directory)?;
        Ok((plan, copy))
    }

    /// Returns the copy with which processes get this configuration. Without it they read the files.
    fn hand_down(&mut self, copy: &ConfigCopy) -> Option<HeldCopy> {
        match self.copies.keep(&copy.to_json()) {
            Ok(held) => {
                self.told = None;
                Some(held)
            }
            Err(error) => {
                let text = error.to_string();
                if self.told.as_ref() != Some(&text) {
                    engine::warn!("the commands of the schedules read the configuration files themselves: {text}");
                    self.told = Some(text);
                }
                None
            }
        }
    }
}

impl FilesSource<'_> {
    /// Removes the copies for processes. No process is started any more.
    pub(crate) fn remove_copies(&mut self) {
        self.copies.remove_all();
    }
}

impl PlanSource for FilesSource<'_> {
    fn load(&mut self) -> Result<DaemonPlan> {
        let (mut plan, copy) = self.read()?;
        if let Some(held) = self.hand_down(&copy) {
            let argument = format!("--{}={}", opt::CONFIG_COPY.decl().name, held.path.display());
            for job in &mut plan.jobs {
                job.add_argument(&argument);
                job.holds = Some(Arc::clone(&held.lock));
            }
            if let Some(collect) = &mut plan.collect {
                collect.arguments.insert(0, argument);
            }
        }
        Ok(plan)
    }

    fn serve(&mut self) -> Option<String> {
        self.copies.clean();
        self.server.serve().map(|problem| format!("metrics and the status page are not served: {problem}"))
    }

    fn fingerprint(&mut self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in self.config.config_paths() {
            add_file(&mut hasher, &path);
            let names = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            let mut names: Vec<PathBuf> = names.collect();
            names.sort();
            names.iter().for_each(|name| add_file(&mut hasher, name));
        }
        hasher.finish()
    }
}

/// Adds what changes with the content of a file, without reading it.
fn add_file(hasher: &mut DefaultHasher, path: &Path) {
    path.hash(hasher);
    // A link to another file is a change, too
    if let Ok(found) = fs::metadata(path) {
        (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()).hash(hasher);
    }
}

/// The time limit of a helper that asks other hosts.
pub(crate) const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
