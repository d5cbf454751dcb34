//! Hosts with the same schedule.

use std::cell::RefCell;
use std::rc::Rc;

use jiff::SignedDuration;

use super::super::*;
use super::simulation::{Course, Purpose, Script, Simulation};
use crate::job::RunOn;
use crate::state::RunResult;
use crate::testing::job;
use crate::verdict::{ClusterRole, FoundBackup, Probe};

#[test]
fn host_whose_cluster_is_down_waits_for_a_while_before_its_backup_fails() {
    fn jobs() -> Vec<Job> {
        let mut job = job("demo", "nightly", "0 3 * * *");
        (job.run_on, job.leaves_backup) = (RunOn::Primary, true);
        vec![job]
    }
    for (minutes, status, runs) in [(5, 0, 0), (5, 25, 0), (60, 0, 1), (60, 25, 1)] {
        // Another host's backup is there after some minutes
        let done: Timestamp = "2026-06-01T03:00:05Z".parse().unwrap();
        let seen = done + SignedDuration::from_mins(minutes);
        let script: Script = Box::new(move |purpose, _, now| match purpose {
            Purpose::Probe(_) => {
                let backup = (now >= seen).then(|| FoundBackup { label: "label".to_owned(), started: done });
                let status = if backup.is_some() { 0 } else { status };
                let probe = Probe { role: ClusterRole::Unreachable, backup };
                Course { output: probe.to_json().to_string(), ..Course::of(1, status) }
            }
            _ => Course::of(1, 25),
        });
        let mut simulation = Simulation::new("2026-06-01T00:00:00Z", jobs, script);
        simulation.run_for(20 * 3600);
        let commands = simulation.commands("nightly");
        assert_eq!(commands.len(), runs, "{minutes} {status}");
        assert!(commands.iter().all(|(began, _)| began.starts_with("2026-06-01T03:10:")), "{commands:?}");
    }
}

/// Two hosts with one repository. The primary fails in the middle of its backup.
#[test]
fn failover_during_the_backup_makes_the_other_host_back_up_once() {
    fn jobs() -> Vec<Job> {
        let mut job = job("demo", "nightly", "0 3 * * *");
        (job.run_on, job.leaves_backup) = (RunOn::Primary, true);
        vec![job]
    }
    let repository: Rc<RefCell<Option<Timestamp>>> = Rc::default();
    let host = |role: Rc<RefCell<ClusterRole>>, repository: Rc<RefCell<Option<Timestamp>>>| -> Script {
        Box::new(move |purpose, _, now| match purpose {
            Purpose::Probe(_) => {
                let backup = repository.borrow().map(|started| FoundBackup { label: "label".to_owned(), started });
                let probe = Probe { role: *role.borrow(), backup };
                Course { output: probe.to_json().to_string(), ..Course::of(1, 0) }
            }
            Purpose::Command(_) => {
                // It is in the repository when it has ended, which is soon enough here
                *repository.borrow_mut() = Some(now);
                Course::of(600, 0)
            }
            _ => Course::of(1, 0),
        })
    };
    let role = Rc::new(RefCell::new(ClusterRole::Standby));
    let mut standby = Simulation::new("2026-06-01T00:00:00Z", jobs, host(Rc::clone(&role), Rc::clone(&repository)));
    let until = |text: &str| text.parse::<Timestamp>().unwrap();
    // The primary makes the first night's backup
    standby.run_until(until("2026-06-01T03:05:00Z"));
    assert!(matches!(standby.state("demo", "nightly").open.unwrap().stage, Stage::Elsewhere(_)));
    *repository.borrow_mut() = Some(until("2026-06-01T03:00:10Z"));
    standby.run_until(until("2026-06-02T03:10:00Z"));
    assert_eq!(standby.state("demo", "nightly").last.unwrap().result, RunResult::Elsewhere);
    assert!(standby.commands("nightly").is_empty());
    // In the second night it fails, and the standby is promoted
    *role.borrow_mut() = ClusterRole::Primary;
    standby.run_until(until("2026-06-02T12:00:00Z"));
    let commands = standby.commands("nightly");
    assert_eq!(commands.len(), 1);
    assert!(commands[0].0.as_str() < "2026-06-02T03:16:00Z", "{commands:?}");
    assert_eq!(standby.state("demo", "nightly").last.unwrap().due, Some(until("2026-06-02T03:00:00Z")));
    // The next night it is the primary
    standby.run_until(until("2026-06-03T03:00:02Z"));
    assert_eq!(standby.world.borrow().running.len(), 1);
}
