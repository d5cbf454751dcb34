//! The daemon as a process: signals, reloads, and what systemd is told.

use std::time::{Duration, Instant};

use engine::Result;
use jiff::Timestamp;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGCHLD, SIGHUP};

use crate::collector::{CollectPlan, Collector};
use crate::job::{Job, JobKey};
use crate::process::HostProcesses;
use crate::state::RunResult;
use crate::store::StateDirectory;
use crate::supervisor::{JobChanges, Supervisor, SupervisorSettings};
use crate::wakeup::{Wakeup, Wakeups};
use crate::world::Moment;

/// How often the configuration files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The jobs and settings that a configuration asks for.
pub struct DaemonPlan {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The settings.
    pub settings: SupervisorSettings,
    /// What is collected for metrics and the status page.
    pub collect: Option<CollectPlan>,
}

/// Where the configuration comes from.
pub trait PlanSource {
    /// Reads the configuration.
    ///
    /// # Errors
    /// It is not valid.
    fn load(&mut self) -> Result<DaemonPlan>;

    /// Returns something that changes when the files of the configuration do, without reading them.
    fn fingerprint(&mut self) -> u64;

    /// Serves metrics and the status page as the configuration says that was loaded last and not refused. Called again
    /// and again, so that it can try again what failed. Returns what is wrong, which was told.
    fn serve(&mut self) -> Option<String>;
}

/// A supervisor of this host's processes, and what wakes it.
pub struct Service {
    supervisor: Supervisor<HostProcesses, StateDirectory>,
    collector: Collector,
    wakeups: Wakeups,
    begin: Instant,
    signals: u32,
    /// What is wrong although the schedules run.
    problem: Option<String>,
}

impl Service {
    /// A service without jobs.
    pub fn new(supervisor: Supervisor<HostProcesses, StateDirectory>, wakeups: Wakeups) -> Self {
        Service {
            supervisor,
            collector: Collector::default(),
            wakeups,
            begin: Instant::now(),
            signals: 0,
            problem: None,
        }
    }

    fn now(&self) -> Moment {
        // Smaller parts only make files and messages longer
        let now = Timestamp::now();
        let time = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        Moment { time, elapsed: self.begin.elapsed() }
    }

    /// Runs jobs until a signal ends the daemon. After the first signal it waits for running commands, which end
    /// soon; after the second it does not.
    ///
    /// # Errors
    /// The configuration is not valid at the start.
    pub fn run(mut self, source: &mut dyn PlanSource) -> Result<()> {
        let mut fingerprint = source.fingerprint();
        let plan = source.load()?;
        let (jobs, now) = (plan.jobs.len(), self.now());
        if plan.jobs.is_empty() {
            engine::warn!(
                "no schedules found\nHINT: does the configuration have sections such as [STANZA:schedule:NAME]?"
            );
        }
        self.supervisor.set_jobs(plan.jobs, plan.settings, now);
        self.collector.set(plan.collect, now);
        self.problem = source.serve();
        engine::info!("{jobs} job(s) are scheduled");
        notify(&[NotifyState::Ready, NotifyState::Status(&self.status())]);
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        let mut looked = Instant::now();
        let mut refused = None;
        loop {
            let now = self.now();
            let pause = self.supervisor.step(now);
            if self.signals > 0 && (self.supervisor.is_idle() || self.signals > 1) {
                return Ok(());
            }
            notify(&[NotifyState::Watchdog]);
            let collect_in = self.collector.step(self.supervisor.processes(), now);
            let look_in = LOOK_INTERVAL.saturating_sub(looked.elapsed());
            let pause = pause.into_iter().chain(collect_in).chain(watchdog).chain([look_in]).min();
            let is_asked = self.wait(pause);
            if self.signals == 0 && (is_asked || looked.elapsed() >= LOOK_INTERVAL) {
                looked = Instant::now();
                let seen = source.fingerprint();
                if is_asked || seen != fingerprint {
                    fingerprint = seen;
                    self.reload(source, is_asked, &mut refused);
                }
                let problem = source.serve();
                if problem != self.problem {
                    self.problem = problem;
                    notify(&[NotifyState::Status(&self.status())]);
                }
            }
        }
    }

    /// Runs one job now, which is one of `jobs`. Returns what went wrong, if something did.
    ///
    /// # Errors
    /// Another job keeps it from running.
    pub fn run_one(mut self, jobs: Vec<Job>, settings: SupervisorSettings, key: &JobKey) -> Result<Option<String>> {
        let now = self.now();
        self.supervisor.set_jobs(jobs, settings, now);
        self.supervisor.run_now(key, now)?;
        loop {
            let now = self.now();
            let pause = self.supervisor.step_without_schedule(now);
            if self.supervisor.is_idle() || self.signals > 1 {
                break;
            }
            self.wait(pause);
        }
        let last = self.supervisor.state(key).and_then(|state| state.last.clone());
        Ok(match last {
            Some(last) if last.result == RunResult::Success => None,
            Some(last) => Some(last.error.unwrap_or_else(|| last.result.name().to_owned())),
            None => Some("it has no result".to_owned()),
        })
    }

    /// Waits for something to happen, and returns whether a reload was asked for.
    fn wait(&mut self, pause: Option<Duration>) -> bool {
        let mut is_asked = false;
        let mut wakeup = self.wakeups.wait(pause);
        while let Some(received) = wakeup {
            match received {
                Wakeup::Signal(SIGCHLD) => (),
                Wakeup::Signal(SIGHUP) => is_asked = true,
                Wakeup::Signal(_) => self.end_by_signal(),
                Wakeup::Ended(end) => {
                    self.supervisor.processes().forget(end.process);
                    let now = self.now();
                    self.supervisor.ended(&end, now);
                }
            }
            wakeup = self.wakeups.wait(Some(Duration::ZERO));
        }
        for end in self.supervisor.processes().reap() {
            if self.collector.ended(&end) {
                continue;
            }
            let now = self.now();
            self.supervisor.ended(&end, now);
        }
        is_asked
    }

    fn end_by_signal(&mut self) {
        self.signals += 1;
        let (_, running) = self.supervisor.counts();
        if self.signals == 1 {
            engine::info!("the daemon ends; {running} job(s) are running and asked to end");
            notify(&[NotifyState::Stopping]);
            self.collector.stop(self.supervisor.processes());
            self.supervisor.stop();
        } else if running > 0 {
            engine::warn!("the daemon ends while {running} job(s) are still running");
        }
    }

    fn reload(&mut self, source: &mut dyn PlanSource, is_asked: bool, refused: &mut Option<String>) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
        match source.load() {
            Ok(plan) => {
                *refused = None;
                let now = self.now();
                self.collector.set(plan.collect, now);
                let changes = self.supervisor.set_jobs(plan.jobs, plan.settings, now);
                log_changes(&changes, is_asked);
            }
            Err(error) => {
                let text = error.to_string();
                // A file that changes all the time is not reported all the time
                if is_asked || refused.as_ref() != Some(&text) {
                    engine::warn!(
                        "the new configuration is refused, the old schedules stay: {text}\nNOTE: the schedules run with \
                         the old configuration until this one is mended."
                    );
                }
                *refused = Some(text);
            }
        }
        notify(&[NotifyState::Ready, NotifyState::Status(&self.status())]);
    }

    fn status(&self) -> String {
        let (jobs, running) = self.supervisor.counts();
        let problem = self.problem.as_deref().and_then(|problem| problem.lines().next());
        let rest = problem.map(|problem| format!("; {problem}")).unwrap_or_default();
        format!("{jobs} jobs, {running} running{rest}")
    }
}

fn log_changes(changes: &JobChanges, is_asked: bool) {
    if *changes == JobChanges::default() {
        if is_asked {
            engine::info!("the configuration was read again; no schedule changed");
        }
        return;
    }
    for name in &changes.added {
        engine::info!("job {name} is new");
    }
    for name in &changes.removed {
        engine::info!("job {name} is gone");
    }
    for (name, differences) in &changes.changed {
        engine::info!("job {name} has changed: {}", differences.join("; "));
    }
}

/// Tells systemd, if it listens.
fn notify(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell
    let _ = sd_notify::notify(states);
}
