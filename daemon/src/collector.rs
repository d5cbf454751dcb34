//! Starts the process that collects what metrics and the status page show.
//!
//! It is a process so that a repository that hangs can't hold up the daemon, and so that the daemon needs no memory for
//! what was found.

use std::time::Duration;

use crate::world::{Launch, Moment, ProcessEnd, ProcessId, Processes, Program, Stop};

/// How long a collection may take. It gives up by itself long before.
const TIME_MAX: Duration = Duration::from_secs(120);
/// When a process that was killed is expected to have ended. One that waits for a file system can't be killed.
const KILL_PAUSE: Duration = Duration::from_secs(60);

/// What is collected, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectPlan {
    /// The arguments of the process.
    pub arguments: Vec<String>,
    /// From the start of one collection to the next.
    pub interval: Duration,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Collector {
    plan: Option<CollectPlan>,
    /// When the next collection is due.
    due: Duration,
    /// The running process, and when it has to have ended.
    running: Option<(ProcessId, Duration)>,
    /// Whether the last collection failed, which was told.
    has_failed: bool,
}

impl Collector {
    /// Collects by this plan from now on. `None` collects nothing.
    pub fn set(&mut self, plan: Option<CollectPlan>, now: Moment) {
        if self.plan != plan {
            self.due = now.elapsed;
            self.plan = plan;
        }
    }

    /// Starts what is due and ends what takes too long. Returns how long nothing is to be done.
    pub fn step(&mut self, processes: &mut impl Processes, now: Moment) -> Option<Duration> {
        if let Some((process, mut deadline)) = self.running {
            if deadline <= now.elapsed {
                self.fail("it takes too long");
                processes.stop(process, Stop::Kill);
                deadline = now.elapsed + KILL_PAUSE;
                self.running = Some((process, deadline));
            }
            return Some(deadline.saturating_sub(now.elapsed));
        }
        let plan = self.plan.as_ref()?;
        if self.due > now.elapsed {
            return Some(self.due.saturating_sub(now.elapsed));
        }
        self.due = now.elapsed + plan.interval;
        let program = Program::Own { arguments: plan.arguments.clone(), environment: Vec::new() };
        match processes.start(&Launch { program, input: String::new(), captures: false }) {
            Ok(process) => {
                self.running = Some((process, now.elapsed + TIME_MAX));
                Some(TIME_MAX)
            }
            Err(error) => {
                let pause = plan.interval;
                self.fail(&error.to_string());
                Some(pause)
            }
        }
    }

    /// Notes the end of a process. Returns whether it was the collector's.
    pub fn ended(&mut self, end: &ProcessEnd) -> bool {
        if self.running.is_none_or(|(process, _)| process != end.process) {
            return false;
        }
        self.running = None;
        match end.status {
            Ok(0) => self.has_failed = false,
            Ok(status) => self.fail(&format!("exit status {status}")),
            Err(signal) => self.fail(&format!("ended by signal {signal}")),
        }
        true
    }

    /// Collects nothing any more.
    pub fn stop(&mut self, processes: &mut impl Processes) {
        self.plan = None;
        if let Some((process, _)) = self.running {
            processes.stop(process, Stop::Kill);
        }
    }

    /// Tells a failure, unless the collection before has failed, too.
    fn fail(&mut self, why: &str) {
        if !self.has_failed {
            engine::warn!("metrics and the status page are not up to date: the collection failed: {why}");
            self.has_failed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::{Error, ErrorCode, Result};
    use jiff::Timestamp;

    use super::*;
    use crate::job::JobKey;
    use crate::world::Trace;

    #[derive(Default)]
    struct Fake {
        started: Vec<Vec<String>>,
        killed: Vec<ProcessId>,
        is_broken: bool,
    }

    impl Processes for Fake {
        fn start(&mut self, launch: &Launch) -> Result<ProcessId> {
            if self.is_broken {
                return Err(Error::new(ErrorCode::Execute, "no process"));
            }
            let Program::Own { arguments, .. } = &launch.program else { panic!("another program") };
            self.started.push(arguments.clone());
            Ok(ProcessId(self.started.len() as u64))
        }

        fn adopt(&mut self, _: &JobKey, _: &Trace) -> Result<ProcessId> {
            panic!("nothing is adopted")
        }

        fn stop(&mut self, process: ProcessId, how: Stop) {
            assert_eq!(how, Stop::Kill);
            self.killed.push(process);
        }
    }

    fn at(second: u64) -> Moment {
        Moment { time: Timestamp::UNIX_EPOCH, elapsed: Duration::from_secs(second) }
    }

    fn plan(interval: u64) -> Option<CollectPlan> {
        Some(CollectPlan { arguments: vec!["metrics".to_owned()], interval: Duration::from_secs(interval) })
    }

    fn end(process: u64, status: std::result::Result<u8, i32>) -> ProcessEnd {
        ProcessEnd { process: ProcessId(process), status, output: String::new() }
    }

    #[test]
    fn collection_runs_at_the_interval_and_never_twice_at_once() {
        let (mut collector, mut fake) = (Collector::default(), Fake::default());
        assert_eq!(collector.step(&mut fake, at(0)), None);
        collector.set(plan(60), at(5));
        assert_eq!(collector.step(&mut fake, at(5)), Some(TIME_MAX));
        assert_eq!(collector.step(&mut fake, at(70)), Some(Duration::from_secs(55)));
        assert_eq!(fake.started.len(), 1);
        assert!(!collector.ended(&end(9, Ok(0))) && collector.ended(&end(1, Ok(0))));
        // The one that was due meanwhile
        collector.step(&mut fake, at(71));
        assert!(collector.ended(&end(2, Ok(1))));
        assert_eq!(collector.step(&mut fake, at(72)), Some(Duration::from_secs(59)));
        // The same plan changes nothing, another one counts at once
        collector.set(plan(60), at(73));
        assert_eq!(collector.step(&mut fake, at(73)), Some(Duration::from_secs(58)));
        collector.set(plan(10), at(74));
        collector.step(&mut fake, at(74));
        assert_eq!(fake.started.len(), 3);
    }

    #[test]
    fn collection_that_hangs_is_killed_again_and_again_and_no_other_starts() {
        let (mut collector, mut fake) = (Collector::default(), Fake::default());
        collector.set(plan(10), at(0));
        collector.step(&mut fake, at(0));
        for second in [120, 150, 180, 240] {
            collector.step(&mut fake, at(second));
        }
        assert_eq!((fake.started.len(), fake.killed.len()), (1, 3));
        assert!(collector.ended(&end(1, Err(9))));
        collector.step(&mut fake, at(241));
        assert_eq!(fake.started.len(), 2);
    }

    #[test]
    fn process_that_can_not_start_is_tried_at_the_next_interval() {
        let (mut collector, mut fake) = (Collector::default(), Fake { is_broken: true, ..Fake::default() });
        collector.set(plan(10), at(0));
        assert_eq!(collector.step(&mut fake, at(0)), Some(Duration::from_secs(10)));
        fake.is_broken = false;
        collector.step(&mut fake, at(10));
        assert_eq!(fake.started.len(), 1);
        collector.stop(&mut fake);
        collector.ended(&end(1, Err(9)));
        assert_eq!((fake.killed.len(), collector.step(&mut fake, at(100))), (1, None));
    }
}
