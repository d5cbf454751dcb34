//! When jobs run: schedules, turns, changes of the configuration and of the clock.

use serde_json::Value;

use super::super::*;
use super::simulation::{Course, Purpose, Script, Simulation, hourly, takes};
use crate::cron::Cron;
use crate::state::RunResult;
use crate::testing::{job, log_lines};

#[test]
fn day_has_a_run_for_each_time_and_a_result_for_each_run() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(600));
    simulation.run_for(24 * 3600);
    assert_eq!(simulation.commands("hourly").len(), 24);
    let told = simulation.told();
    assert_eq!(told.len(), 24);
    assert!(told.iter().all(|body| body["result"] == "success" && body["missed"] == 0), "{told:?}");
    assert_eq!(told[0]["due"], "2026-06-01T01:00:00Z");
    // It wakes for nothing but runs and requests: start, end, request, end of the request
    assert!(simulation.steps < 24 * 6, "{}", simulation.steps);
}

#[test]
fn job_that_takes_longer_than_its_period_leaves_runs_out_and_tells_so() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(2 * 3600 + 1800));
    simulation.run_for(12 * 3600);
    let told = simulation.told();
    assert_eq!(told[0]["due"], "2026-06-01T01:00:00Z");
    assert_eq!((&told[1]["due"], &told[1]["missed"]), (&Value::from("2026-06-01T03:00:00Z"), &Value::from(1)));
}

#[test]
fn jobs_of_a_stanza_take_turns_and_those_of_others_run_beside_them_up_to_the_limit() {
    fn jobs() -> Vec<Job> {
        let of = |stanza, name| job(stanza, name, "0 3 * * *");
        vec![of("a", "one"), of("a", "two"), of("b", "one"), of("c", "one")]
    }
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", jobs, takes(600));
    simulation.run_for(24 * 3600);
    let world = simulation.world.borrow();
    let mut begins: Vec<String> = world
        .ended
        .iter()
        .map(|ended| match &ended.purpose {
            Purpose::Command(key) => format!("{key} {}", ended.began),
            other => panic!("{other:?}"),
        })
        .collect();
    begins.sort();
    assert_eq!(
        begins,
        [
            "a/one 2026-06-01T03:00:00Z",
            "a/two 2026-06-01T03:10:00Z",
            "b/one 2026-06-01T03:00:00Z",
            "c/one 2026-06-01T03:10:00Z"
        ]
    );
}

#[test]
fn clock_that_was_far_ahead_does_not_keep_the_job_from_running() {
    let mut simulation = Simulation::new("2030-06-01T00:30:00Z", hourly, takes(600));
    simulation.run_for(3600 * 2);
    simulation.supervisor = None;
    let begin: Timestamp = "2026-06-01T00:30:00Z".parse().unwrap();
    (simulation.world.borrow_mut().now, simulation.world.borrow_mut().zero) = (begin, begin);
    simulation.start_daemon();
    simulation.run_for(3600 * 2);
    let began: Vec<String> = simulation.commands("hourly").into_iter().map(|(began, _)| began).collect();
    assert_eq!(began[2..], ["2026-06-01T01:00:00Z", "2026-06-01T02:00:00Z"]);
}

#[test]
fn user_runs_a_job_without_moving_its_schedule() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(60));
    let (moment, key) = (simulation.moment(), JobKey::new("demo", "hourly").unwrap());
    simulation.supervisor.as_mut().unwrap().run_now(&key, moment).unwrap();
    let other = JobKey::new("demo", "other").unwrap();
    assert_eq!(
        simulation.supervisor.as_mut().unwrap().run_now(&other, moment).unwrap_err().code,
        ErrorCode::ParamInvalid
    );
    assert_eq!(simulation.supervisor.as_mut().unwrap().run_now(&key, moment).unwrap_err().code, ErrorCode::LockAcquire);
    simulation.run_for(3600);
    let began: Vec<String> = simulation.commands("hourly").into_iter().map(|(began, _)| began).collect();
    assert_eq!(began, ["2026-06-01T00:30:00Z", "2026-06-01T01:00:00Z"]);
    assert!(simulation.told()[0]["due"].is_null());
}

#[test]
fn reload_tells_what_changed_and_leaves_running_jobs_alone() {
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, takes(600));
    simulation.run_for(1800 + 300);
    let mut changed = hourly().remove(0);
    changed.cron = Cron::parse("30 * * * *").unwrap();
    changed.settings = vec![("schedule".to_owned(), "30 * * * *".to_owned())];
    let settings = SupervisorSettings { host: "host".to_owned(), job_max: 2 };
    let moment = simulation.moment();
    let supervisor = simulation.supervisor.as_mut().unwrap();
    let changes = supervisor.set_jobs(vec![changed, job("demo", "new", "0 3 * * *")], settings.clone(), moment);
    assert_eq!(changes.added, ["demo/new"]);
    let difference = "schedule: (none) -> '30 * * * *'".to_owned();
    assert_eq!(changes.changed, [("demo/hourly".to_owned(), vec![difference])]);
    let changes = supervisor.set_jobs(vec![job("demo", "new", "0 3 * * *")], settings, moment);
    assert_eq!(changes.removed, ["demo/hourly"]);
    simulation.run_for(3 * 3600);
    assert_eq!(simulation.commands("hourly"), [("2026-06-01T01:00:00Z".to_owned(), Ok(0))]);
    assert_eq!(simulation.state("demo", "hourly").success.unwrap().result, RunResult::Success);
}

#[test]
fn command_lines_of_hooks_are_not_logged_when_they_change() {
    let with = |hook: &str| {
        let mut job = job("demo", "a", "0 3 * * *");
        job.settings =
            ["hook-after", "hook-before", "hook-failure"].map(|name| (name.to_owned(), hook.to_owned())).to_vec();
        job.settings.push(("hook-timeout".to_owned(), hook.len().to_string()));
        job
    };
    let differences = differences(&with("curl -H 'Authorization: secret'"), &with("curl"));
    assert_eq!(differences, ["hook-after", "hook-before", "hook-failure", "hook-timeout: '31' -> '4'"]);
}

#[test]
fn clock_that_was_far_ahead_while_the_job_failed_does_not_keep_it_from_running() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.retry = 5;
        vec![job]
    }
    let fails: Script = Box::new(|purpose, _, now| match purpose {
        // The webhook does not answer either
        _ if now.to_string().starts_with("2030") => Course::of(1, 25),
        Purpose::Command(_) => Course::of(60, 0),
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2030-06-01T00:30:00Z", jobs, fails);
    simulation.run_for(1800 + 400);
    assert!(matches!(simulation.state("demo", "hourly").open.unwrap().stage, Stage::Retry(_)));
    simulation.supervisor = None;
    let begin: Timestamp = "2026-06-01T00:30:00Z".parse().unwrap();
    {
        let mut world = simulation.world.borrow_mut();
        (world.now, world.zero) = (begin, begin);
        world.running.clear();
    }
    simulation.start_daemon();
    simulation.run_for(3600);
    let last = simulation.commands("hourly").pop().unwrap();
    assert_eq!(last, ("2026-06-01T01:00:00Z".to_owned(), Ok(0)));
    assert!(simulation.told().iter().any(|body| body["result"] == "success"), "{:?}", simulation.told());
    assert!(simulation.state("demo", "hourly").events.is_empty());
}

#[test]
fn job_that_waits_for_a_busy_stanza_says_so_once_and_when_it_goes_on() {
    fn jobs() -> Vec<Job> {
        // The long one is due first; the other one has a new run every ten seconds meanwhile
        vec![job("a", "long", "59 59 0 * * *"), job("a", "often", "*/10 * * 1 * *")]
    }
    let script: Script = Box::new(|purpose, _, _| match purpose {
        Purpose::Command(key) if key.name == "long" => Course::of(600, 0),
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:59:00Z", jobs, script);
    let lines = log_lines(|| {
        simulation.run_for(300);
        // A reload does not begin a new wait
        let (jobs, moment) = ((simulation.jobs)(), simulation.moment());
        let settings = SupervisorSettings { host: "host".to_owned(), job_max: 2 };
        simulation.supervisor.as_mut().unwrap().set_jobs(jobs, settings, moment);
        simulation.run_for(600);
    });
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("waits") || line.contains("goes on")).collect();
    assert_eq!(told, ["job a/often waits: job a/long is running", "job a/often goes on after waiting for 599s"]);
    assert!(lines.iter().filter(|line| line.starts_with("job a/often: backup starts")).count() > 10);
}

#[test]
fn job_whose_times_moved_on_while_it_waited_never_had_its_turn() {
    fn jobs() -> Vec<Job> {
        vec![job("a", "long", "*/10 * * * * *"), job("a", "often", "*/4 * * * * *")]
    }
    let script: Script = Box::new(|purpose, _, _| match purpose {
        // When it ends, it is due again, and its time is before the newest one of the other job
        Purpose::Command(key) if key.name == "long" => Course::of(13, 0),
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:59:59Z", jobs, script);
    simulation.run_for(600);
    let [long, often] = ["long", "often"].map(|name| simulation.commands(name).len());
    assert!(long.abs_diff(often) <= 1 && long > 30, "{long} {often}");
}
