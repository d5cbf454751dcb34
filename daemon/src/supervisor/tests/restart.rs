//! Daemons that are killed or stopped, and the next ones.

use super::super::*;
use super::simulation::{Course, Purpose, Script, Simulation, hourly, takes};

#[test]
fn killed_daemon_finds_its_running_job_and_does_not_start_it_again() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(1200));
    simulation.run_for(1800 + 300);
    simulation.kill_daemon(false);
    simulation.run_for(60);
    simulation.start_daemon();
    simulation.run_for(1800);
    assert_eq!(simulation.commands("hourly"), [("2026-06-01T01:00:00Z".to_owned(), Ok(0))]);
    assert_eq!(simulation.told().len(), 1);
    assert_eq!(simulation.told()[0]["result"], "success");
}

#[test]
fn result_of_a_job_that_ended_without_a_daemon_is_told_by_the_next() {
    for status in [0, 25] {
        let script: Script = Box::new(move |purpose, _, _| match purpose {
            Purpose::Command(_) => Course::of(600, status),
            _ => Course::of(1, 0),
        });
        let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, script);
        simulation.run_for(1800 + 300);
        simulation.kill_daemon(false);
        simulation.run_for(1200);
        simulation.start_daemon();
        simulation.run_for(600);
        assert_eq!(simulation.commands("hourly").len(), 1);
        assert_eq!(simulation.told()[0]["exit_status"], status);
    }
}

#[test]
fn job_that_was_killed_together_with_the_daemon_is_told_and_runs_again() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(1200));
    simulation.run_for(1800 + 300);
    simulation.kill_daemon(true);
    simulation.run_for(60);
    simulation.start_daemon();
    simulation.run_for(1800);
    let results: Vec<_> = simulation.told().iter().map(|body| body["result"].as_str().unwrap().to_owned()).collect();
    assert_eq!(results, ["failure", "success"]);
    assert_eq!(simulation.commands("hourly").iter().filter(|(_, status)| *status == Ok(0)).count(), 1);
}

#[test]
fn job_whose_daemon_was_killed_before_the_job_left_a_trace_is_not_started_again() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(1200));
    simulation.run_for(1800 + 1);
    let key = JobKey::new("demo", "hourly").unwrap();
    simulation.kill_daemon(false);
    let trace = simulation.world.borrow_mut().traces.remove(&key).unwrap();
    simulation.start_daemon();
    simulation.run_for(2);
    simulation.world.borrow_mut().traces.insert(key, trace);
    simulation.run_for(1800);
    assert_eq!(simulation.commands("hourly"), [("2026-06-01T01:00:00Z".to_owned(), Ok(0))]);
    let results: Vec<_> = simulation.told().iter().map(|body| body["result"].as_str().unwrap().to_owned()).collect();
    assert_eq!(results, ["success"]);
}

#[test]
fn stopped_daemon_ends_its_job_and_the_next_runs_it_again() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(1200));
    simulation.run_for(1800 + 300);
    simulation.supervisor.as_mut().unwrap().stop();
    simulation.run_for(1);
    assert!(simulation.supervisor.as_ref().unwrap().is_idle());
    simulation.supervisor = None;
    simulation.start_daemon();
    simulation.run_for(1800);
    let results: Vec<_> = simulation.told().iter().map(|body| body["result"].as_str().unwrap().to_owned()).collect();
    assert_eq!(results, ["stopped", "success"]);
}
