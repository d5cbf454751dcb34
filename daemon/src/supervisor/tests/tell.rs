//! Hooks and the webhook.

use serde_json::Value;

use super::super::*;
use super::simulation::{Course, Purpose, Script, Simulation, hourly};

#[test]
fn hooks_run_around_the_command_and_get_its_result() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.hooks.before = Some("before".to_owned());
        job.hooks.after = Some("after".to_owned());
        job.hooks.failure = Some("failure".to_owned());
        vec![job]
    }
    let script: Script = Box::new(|purpose, _, now| match purpose {
        // The first run succeeds, in the second the command fails, in the third the hook before it
        Purpose::Command(_) => Course::of(60, if now.to_string().contains("T01") { 0 } else { 25 }),
        Purpose::Hook(text, _) if text == "before" && now.to_string().contains("T03") => Course::of(1, 7),
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", jobs, script);
    simulation.run_for(3 * 3600);
    let hooks: Vec<String> = simulation
        .hooks()
        .into_iter()
        .map(|(text, body)| {
            let member = |name: &str| body[name].as_str().unwrap_or("-").to_owned();
            format!("{text} {} {} {}", member("event"), member("result"), member("error"))
        })
        .collect();
    assert_eq!(
        hooks,
        [
            "before before - -",
            "after after success -",
            "before before - -",
            "after after failure exit status 25: what went wrong",
            "failure failure failure exit status 25: what went wrong",
            "before before - -",
            "after after failure hook-before failed: exit status 7",
            "failure failure failure hook-before failed: exit status 7",
        ]
    );
    assert_eq!(simulation.commands("hourly").len(), 2);
}

#[test]
fn hook_that_does_not_end_is_ended() {
    fn jobs() -> Vec<Job> {
        let mut job = hourly().remove(0);
        job.hooks.before = Some("before".to_owned());
        vec![job]
    }
    let script: Script = Box::new(|purpose, _, _| match purpose {
        Purpose::Hook(..) => Course { ignores_term: true, ..Course::of(100_000, 0) },
        _ => Course::of(1, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", jobs, script);
    simulation.run_for(3600);
    assert_eq!(simulation.told()[0]["error"], "hook-before failed: it took longer than 60s and was stopped");
    assert!(simulation.commands("hourly").is_empty());
}

#[test]
fn webhook_that_fails_gets_each_result_later() {
    let mut tries = 0;
    let script: Script = Box::new(move |purpose, _, _| match purpose {
        Purpose::Webhook(_) => {
            tries += 1;
            Course::of(1, if tries <= 5 { 25 } else { 0 })
        }
        _ => Course::of(60, 0),
    });
    let mut simulation = Simulation::new("2026-06-01T00:30:00Z", hourly, script);
    simulation.run_for(4 * 3600);
    let due: Vec<_> = simulation.told().iter().map(|body| body["due"].as_str().unwrap().to_owned()).collect();
    assert_eq!(due, ["2026-06-01T01:00:00Z", "2026-06-01T02:00:00Z", "2026-06-01T03:00:00Z", "2026-06-01T04:00:00Z"]);
}

#[test]
fn result_that_another_process_has_told_meanwhile_does_not_take_the_next_with_it() {
    let mut simulation = Simulation::new(
        "2026-06-01T00:30:00Z",
        hourly,
        Box::new(|purpose, _, _| match purpose {
            Purpose::Webhook(_) => Course::of(30, 0),
            _ => Course::of(60, 0),
        }),
    );
    simulation.run_for(1800 + 70);
    // The request is under way; another process has told the result, and another run has ended
    let key = JobKey::new("demo", "hourly").unwrap();
    let mut state = simulation.state("demo", "hourly");
    assert_eq!(state.events.len(), 1);
    let mut event = state.events.remove(0);
    event.body["due"] = Value::from("another");
    state.events.push(event);
    simulation.world.borrow_mut().states.insert(key, state.to_json().to_string());
    simulation.run_for(600);
    assert!(simulation.told().iter().any(|body| body["due"] == "another"), "{:?}", simulation.told());
    assert!(simulation.state("demo", "hourly").events.is_empty());
}
