//! Jobs that fail, are killed or take too long.

use serde_json::Value;

use super::super::*;
use super::simulation::{Course, Purpose, Script, Simulation, hourly, takes};
use crate::cron::Cron;
use crate::job::{Completion, RunOn, Webhook};
use crate::testing::job;
use crate::verdict::{ClusterRole, FoundBackup, Probe};

#[test]
fn failed_job_is_tried_again_with_growing_pauses() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.cron = Cron::parse("0 3 * * *").unwrap();
        job.retry = 2;
        vec![job]
    }
    let fails = |purpose: &Purpose, _, _| match purpose {
        Purpose::Command(_) => Course::of(60, 82),
        _ => Course::of(1, 0),
    };
    let mut simulation = Simulation::new("2026-06-01T00:00:00Z", jobs, Box::new(fails));
    simulation.run_for(24 * 3600);
    let began: Vec<String> = simulation.commands("hourly").into_iter().map(|(began, _)| began).collect();
    assert_eq!(began, ["2026-06-01T03:00:00Z", "2026-06-01T03:06:00Z", "2026-06-01T03:17:00Z"]);
    let told = simulation.told();
    let seen: Vec<_> = told.iter().map(|body| (body["result"].clone(), body["attempt"].clone())).collect();
    assert_eq!(seen, [1, 2, 3].map(|attempt| (Value::from("failure"), Value::from(attempt))));
    assert_eq!(told[0]["error"], "exit status 82: what went wrong");
    assert!(told[0]["retry_at"].is_string() && told[2]["retry_at"].is_null());
    assert_eq!(simulation.state("demo", "hourly").failures, 3);
}

#[test]
fn killed_job_is_a_failure_that_is_told() {
    let mut simulation = Simulation::new(
        "2026-06-01T00:30:00Z",
        hourly,
        Box::new(|purpose, _, _| match purpose {
            Purpose::Command(_) => Course { status: Err(9), ..Course::of(60, 0) },
            _ => Course::of(1, 0),
        }),
    );
    simulation.run_for(3600);
    assert_eq!(simulation.told()[0]["error"], "ended by signal 9");
}

#[test]
fn job_beyond_its_time_limit_is_asked_to_end_and_then_killed() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.time_limit = Some(Duration::from_secs(600));
        vec![job]
    }
    for (ignores_term, ended, status) in
        [(false, "2026-06-01T01:10:00Z", Ok(63)), (true, "2026-06-01T01:12:00Z", Err(9))]
    {
        let script: Script = Box::new(move |purpose, _, _| match purpose {
            Purpose::Command(_) => Course { ignores_term, ..Course::of(100_000, 0) },
            _ => Course::of(1, 0),
        });
        let mut simulation = Simulation::new("2026-06-01T00:30:00Z", jobs, script);
        simulation.run_for(3600);
        let world = simulation.world.borrow();
        assert_eq!((world.ended[0].ended.to_string().as_str(), world.ended[0].status), (ended, status));
        drop(world);
        assert_eq!(simulation.told()[0]["error"], "it took longer than 600s and was stopped");
    }
}

#[test]
fn full_disk_keeps_no_job_from_running() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(600));
    simulation.world.borrow_mut().disk_is_full = true;
    simulation.run_for(3 * 3600);
    assert_eq!(simulation.commands("hourly").len(), 3);
}

/// A backup whose expire fails, and a repository that shows the backup.
#[test]
fn expire_that_fails_after_the_backup_does_not_make_the_backup_thrice() {
    for run_on in [RunOn::Any, RunOn::Primary] {
        fn jobs_of(run_on: RunOn) -> Vec<Job> {
            let mut job = job("demo", "full", "0 3 * * *");
            (job.run_on, job.leaves_backup, job.retry, job.webhook) = (run_on, true, 2, Webhook::Results);
            vec![job]
        }
        let jobs: fn() -> Vec<Job> = match run_on {
            RunOn::Any => || jobs_of(RunOn::Any),
            _ => || jobs_of(RunOn::Primary),
        };
        let mut made = None;
        let script: Script = Box::new(move |purpose, _, now| match purpose {
            Purpose::Probe(_) => {
                let backup = made.map(|started| FoundBackup { label: "label".to_owned(), started });
                let probe = Probe { role: ClusterRole::Primary, backup };
                Course { output: probe.to_json().to_string(), ..Course::of(1, 0) }
            }
            Purpose::Command(_) => {
                made = Some(now);
                Course::of(600, 82)
            }
            _ => Course::of(1, 0),
        });
        let mut simulation = Simulation::new("2026-06-01T00:00:00Z", jobs, script);
        simulation.run_for(24 * 3600);
        assert_eq!(simulation.commands("full").len(), 1);
        let told = simulation.told();
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|body| body["result"] == "failure" && body["exit_status"] == 82), "{told:?}");
        assert!(told[1]["error"].as_str().unwrap().contains("backup label is complete"), "{told:?}");
        assert!(told[1]["retry_at"].is_null());
        // The next night has its own backup
        simulation.run_for(24 * 3600);
        assert_eq!(simulation.commands("full").len(), 2);
    }
}

#[test]
fn expire_that_failed_after_the_backup_is_tried_again_without_another_backup() {
    fn jobs() -> Vec<Job> {
        let mut job = job("demo", "full", "0 3 * * *");
        (job.leaves_backup, job.retry, job.webhook) = (true, 2, Webhook::Results);
        let arguments = vec!["--stanza=demo".to_owned(), "expire".to_owned()];
        job.completion = Some(Completion { command: "expire".to_owned(), arguments });
        vec![job]
    }
    // The backup is made, then expire fails, and once more on its own
    let mut made = None;
    let mut commands = 0;
    let script: Script = Box::new(move |purpose, _, now| match purpose {
        Purpose::Probe(_) => {
            let backup = made.map(|started| FoundBackup { label: "label".to_owned(), started });
            let probe = Probe { role: ClusterRole::Primary, backup };
            Course { output: probe.to_json().to_string(), ..Course::of(1, 0) }
        }
        Purpose::Command(_) => {
            made = made.or(Some(now));
            commands += 1;
            Course::of(600, if commands <= 2 { 82 } else { 0 })
        }
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:00:00Z", jobs, script);
    simulation.run_for(20 * 3600);
    assert_eq!(simulation.command_words(), ["backup", "expire", "expire"]);
    let told = simulation.told();
    let results: Vec<_> = told.iter().map(|body| (body["command"].as_str(), body["result"].as_str())).collect();
    let of = |command, result| (Some(command), Some(result));
    assert_eq!(results, [of("backup", "failure"), of("expire", "failure"), of("expire", "success")]);
    let state = simulation.state("demo", "full");
    assert!(state.open.is_none() && state.failures == 0, "the run is complete");
    // The next night has a backup again
    simulation.run_for(24 * 3600);
    assert_eq!(simulation.command_words().iter().filter(|word| *word == "backup").count(), 2);
}
